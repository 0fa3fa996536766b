/**
 * The system a wasm guest sees: WASI preview 1 with an injected clock, injected randomness, no sockets, no waiting.
 *
 * `@bjorn3/browser_wasi_shim` gives files and descriptors; replaced here is everything that would make two runs differ or
 * that the shim leaves unbounded: time, randomness, arguments beyond ASCII, polling, signals, sockets, the number of open
 * descriptors. Every call pays fuel: `CALL_FUEL` plus an eighth of the bytes it moved.
 *
 * Time is virtual: it starts where the task says, advances one nanosecond per `FUEL_PER_NS` units of fuel burnt and per
 * look at the clock, and jumps when the guest sleeps. A sleep therefore costs nothing and ends at once.
 */
import { createCipheriv } from 'node:crypto';
import { type Fd, WASI, wasi } from '@bjorn3/browser_wasi_shim';
import type { Transfer } from './files.ts';

export const CALL_FUEL = 64n;
/** About what CPython burns in a nanosecond (regions are charged whole), so that its timings look natural. */
const FUEL_PER_NS = 64n;
/** Open descriptors of a guest, preopens included. */
export const DESCRIPTORS_MAX = 256;
const SUBSCRIPTIONS_MAX = 1024;
const RANDOM_BYTES_MAX = 1 << 20;
const SUBSCRIPTION_BYTES = 48;
const EVENT_BYTES = 32;
/** Largest step of a sleep: beyond it the clock stands, so that it cannot overflow. About 146 years. */
const SLEEP_NS_MAX = 2n ** 62n;

/** Thrown through the guest when a system call finds the tank empty. */
export class OutOfFuel extends Error {
  override readonly name = 'OutOfFuel';
}

export interface SystemOptions {
  readonly command: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
  readonly descriptors: Fd[];
  readonly transfer: Transfer;
  /** 32 bytes. */
  readonly randomSeed: Uint8Array;
  readonly clockStartMs: number;
  /** Called after each system call. */
  readonly onCall: () => void;
}

/** What the metered instance exports, as far as the system uses it. */
export interface GuestExports {
  readonly memory: WebAssembly.Memory;
  readonly fuel: WebAssembly.Global;
  readonly start: () => void;
}

type SystemCall = (...parameters: never[]) => unknown;

export class GuestSystem {
  readonly #shim: WASI;
  readonly #options: SystemOptions;
  readonly #keystream: ReturnType<typeof createCipheriv>;
  readonly #arguments: readonly Uint8Array[];
  #guest: GuestExports | undefined;
  #fuelMax = 0n;
  #sleptNs = 0n;

  constructor(options: SystemOptions) {
    const environment = Object.entries(options.environment).map(([name, value]) => `${name}=${value}`);
    this.#shim = new WASI([], environment, options.descriptors, { debug: false });
    this.#options = options;
    this.#keystream = createCipheriv('aes-256-ctr', options.randomSeed, new Uint8Array(16));
    this.#arguments = options.command.map((argument) => Buffer.from(`${argument}\0`, 'utf8'));
  }

  /** The import object. Names that a module imports and that are not in it are refused when it is instantiated. */
  imports(): Record<string, SystemCall> {
    const calls: Record<string, SystemCall> = { ...this.#shim.wasiImport, ...this.#replacements() };
    return Object.fromEntries(Object.entries(calls).map(([name, call]) => [name, this.#charged(call)]));
  }

  /** Binds the instance and fills its tank. */
  attach(guest: GuestExports, fuelMax: bigint): void {
    this.#guest = guest;
    this.#fuelMax = fuelMax;
    guest.fuel.value = fuelMax;
    this.#shim.inst = { exports: { memory: guest.memory } };
  }

  get fuelBurnt(): bigint {
    const left = this.#fuelLeft;
    return this.#fuelMax - (left < 0n ? 0n : left);
  }

  get fuelIsOut(): boolean {
    return this.#fuelLeft < 0n;
  }

  get #fuelLeft(): bigint {
    return this.#guest === undefined ? 0n : (this.#guest.fuel.value as bigint);
  }

  #charged(call: SystemCall): SystemCall {
    const { transfer, onCall } = this.#options;
    return (...parameters: never[]) => {
      const result = call(...parameters);
      if (this.#guest !== undefined) {
        this.#guest.fuel.value = this.#fuelLeft - CALL_FUEL - BigInt(transfer.bytes >> 3);
        transfer.bytes = 0;
        if (this.fuelIsOut) throw new OutOfFuel();
      }
      onCall();
      return result ?? wasi.ERRNO_SUCCESS;
    };
  }

  #view(): DataView<ArrayBuffer> {
    return new DataView(this.#shim.inst.exports.memory.buffer);
  }

  #elapsedNs(): bigint {
    return this.fuelBurnt / FUEL_PER_NS + ++this.#sleptNs;
  }

  #replacements(): Record<string, SystemCall> {
    const notSupported = (): number => wasi.ERRNO_NOTSUP;
    return {
      args_sizes_get: (count: number, size: number) => {
        this.#view().setUint32(count, this.#arguments.length, true);
        this.#view().setUint32(
          size,
          this.#arguments.reduce((sum, argument) => sum + argument.length, 0),
          true,
        );
        return wasi.ERRNO_SUCCESS;
      },
      args_get: (pointers: number, buffer: number) => this.#argumentsGet(pointers, buffer),
      clock_res_get: (_clock: number, result: number) => {
        this.#view().setBigUint64(result, 1n, true);
        return wasi.ERRNO_SUCCESS;
      },
      clock_time_get: (clock: number, _precision: bigint, result: number) => {
        const start = clock === wasi.CLOCKID_REALTIME ? BigInt(this.#options.clockStartMs) * 1_000_000n : 0n;
        this.#view().setBigUint64(result, BigInt.asUintN(64, start + this.#elapsedNs()), true);
        return wasi.ERRNO_SUCCESS;
      },
      random_get: (pointer: number, length: number) => this.#randomGet(pointer >>> 0, length >>> 0),
      poll_oneoff: (input: number, output: number, count: number, ready: number) =>
        this.#poll({ input: input >>> 0, output: output >>> 0, count: count >>> 0, ready: ready >>> 0 }),
      path_open: this.#pathOpen(),
      proc_raise: notSupported,
      sched_yield: () => wasi.ERRNO_SUCCESS,
      sock_accept: notSupported,
      sock_recv: notSupported,
      sock_send: notSupported,
      sock_shutdown: notSupported,
    };
  }

  #argumentsGet(pointers: number, buffer: number): number {
    const view = this.#view();
    let at = buffer >>> 0;
    for (const [index, argument] of this.#arguments.entries()) {
      view.setUint32(pointers + 4 * index, at, true);
      new Uint8Array(view.buffer).set(argument, at);
      at += argument.length;
    }
    return wasi.ERRNO_SUCCESS;
  }

  #randomGet(pointer: number, length: number): number {
    const target = new Uint8Array(this.#view().buffer, pointer, length);
    for (let done = 0; done < length; done += RANDOM_BYTES_MAX) {
      const chunk = new Uint8Array(Math.min(RANDOM_BYTES_MAX, length - done));
      target.set(this.#keystream.update(chunk), done);
    }
    this.#options.transfer.bytes += length;
    return wasi.ERRNO_SUCCESS;
  }

  /** Descriptors are always ready; when there are none to wait for, the clock jumps to the earliest timeout. */
  #poll(at: { input: number; output: number; count: number; ready: number }): number {
    if (at.count === 0 || at.count > SUBSCRIPTIONS_MAX) return wasi.ERRNO_INVAL;
    const view = this.#view();
    const clocks: { readonly index: number; readonly waitNs: bigint }[] = [];
    const others: number[] = [];
    for (let index = 0; index < at.count; index++) {
      const place = at.input + index * SUBSCRIPTION_BYTES;
      if (view.getUint8(place + 8) !== wasi.EVENTTYPE_CLOCK) {
        others.push(index);
        continue;
      }
      const realtime = view.getUint32(place + 16, true) === wasi.CLOCKID_REALTIME;
      const timeout = view.getBigUint64(place + 24, true);
      const absolute = (view.getUint16(place + 40, true) & wasi.SUBCLOCKFLAGS_SUBSCRIPTION_CLOCK_ABSTIME) !== 0;
      const now = this.#elapsedNs() + (realtime ? BigInt(this.#options.clockStartMs) * 1_000_000n : 0n);
      const waitNs = absolute ? timeout - now : timeout;
      clocks.push({ index, waitNs: waitNs < 0n ? 0n : waitNs });
    }
    let ready = others;
    if (others.length === 0) {
      const shortest = clocks.reduce((least, { waitNs }) => (waitNs < least ? waitNs : least), SLEEP_NS_MAX);
      if (this.#sleptNs + shortest < SLEEP_NS_MAX) this.#sleptNs += shortest;
      ready = clocks.filter(({ waitNs }) => waitNs <= shortest).map(({ index }) => index);
    }
    for (const [slot, index] of ready.entries()) {
      const from = at.input + index * SUBSCRIPTION_BYTES;
      const to = at.output + slot * EVENT_BYTES;
      const userdata = view.getBigUint64(from, true);
      const type = view.getUint8(from + 8);
      for (let word = 0; word < EVENT_BYTES; word += 8) view.setBigUint64(to + word, 0n, true);
      view.setBigUint64(to, userdata, true);
      view.setUint8(to + 10, type);
    }
    view.setUint32(at.ready, ready.length, true);
    return wasi.ERRNO_SUCCESS;
  }

  /** The shim never reuses a descriptor number; this moves each new one to the lowest free slot. */
  #pathOpen(): SystemCall {
    const open = this.#shim.wasiImport['path_open'] as (...parameters: unknown[]) => number;
    const descriptors: (Fd | undefined)[] = this.#shim.fds;
    return (...parameters: unknown[]) => {
      let free = descriptors.indexOf(undefined);
      if (free === -1) free = descriptors.length;
      if (free >= DESCRIPTORS_MAX) return wasi.ERRNO_MFILE;
      const ret = open(...parameters);
      if (ret === wasi.ERRNO_SUCCESS) {
        const opened = descriptors.pop();
        descriptors[free] = opened;
        this.#view().setUint32((parameters[8] as number) >>> 0, free, true);
      }
      return ret;
    };
  }
}
