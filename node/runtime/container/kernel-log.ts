/**
 * What the kernel's log says of a container that was killed.
 *
 * An engine hears of a kill for want of memory from a process that looks after the container, and hears nothing where that
 * is so slow that the container's control group is gone first. The kernel names the group in its log, which root may read.
 */
import { closeSync, constants, openSync, readSync } from 'node:fs';

const PATH = '/dev/kmsg';
/** A read gives one record, and none is longer. */
const RECORD_BYTES = 8_192;
/** The log is a ring of some thousand records, and grows while it is read. */
const READS_MAX = 100_000;

/**
 * True when the kernel's log has it; false also where there is no such log, or it may not be read. Blocks for the
 * milliseconds that the whole log takes.
 */
export function wasKilledForMemory(containerId: string): boolean {
  let log: number;
  try {
    log = openSync(PATH, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch {
    return false;
  }
  try {
    const bytes = Buffer.alloc(RECORD_BYTES);
    for (let reads = 0; reads < READS_MAX; reads++) {
      const length = readRecord(log, bytes);
      if (length === 0) return false;
      const record = bytes.toString('latin1', 0, length);
      if (record.includes('oom-kill:') && record.includes(containerId)) return true;
    }
    return false;
  } finally {
    closeSync(log);
  }
}

/** The length of the next record; 0 at the end. */
function readRecord(log: number, into: Buffer): number {
  for (;;) {
    try {
      return readSync(log, into, 0, into.length, null);
    } catch (error) {
      // The record that was next has been overwritten, and the one after it is next.
      if ((error as NodeJS.ErrnoException).code !== 'EPIPE') return 0;
    }
  }
}
