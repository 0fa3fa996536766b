/**
 * Pulling images by digest, with progress, with every way of failing told apart.
 */
import type { Readable } from 'node:stream';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { MoltError } from '../../../protocol/errors.ts';
import type { Image, PrepareProgress } from '../runtime.ts';
import { type Engine, engineFailed, faultOf, isMissing } from './engine.ts';

const DEFAULT_REGISTRY = 'docker.io';

/** What the engine streams while it pulls; it reports late faults in here and not by its status. */
const pullEvent = z.object({
  id: z.string().optional(),
  status: z.string().optional(),
  error: z.string().optional(),
  progressDetail: z.object({ current: z.number().optional(), total: z.number().optional() }).optional(),
});

/** The reference of a container image. Throws `job/impossible` for a module or a reference without digest. */
export function imageReference(image: Image): string {
  const valid = image.kind === 'image' && /^[^\s@]{1,255}@sha256:[0-9a-f]{64}$/.test(image.reference);
  if (!valid) {
    const given = image.kind === 'image' ? image.reference : 'a wasm module';
    throw new MoltError(
      'job/impossible',
      `the container runtime runs images pinned as name@sha256:<64 hex digits>, not ${given.slice(0, 200)}; resolve the tag first`,
    );
  }
  return image.reference;
}

/** The registry an image comes from, by Docker's rule: the first part, when it looks like a host. */
export function registryOf(reference: string): string {
  const [first = '', ...rest] = reference.split('/');
  const isHost = rest.length > 0 && (first.includes('.') || first.includes(':') || first === 'localhost');
  return isHost ? first : DEFAULT_REGISTRY;
}

export async function hasImage(engine: Engine, reference: string): Promise<boolean> {
  try {
    await engine.getImage(reference).inspect();
    return true;
  } catch (error) {
    if (isMissing(error)) return false;
    throw engineFailed('looking for the image', error);
  }
}

/** Pulls unless the engine has that digest. Throws `job/image-missing`, `runtime/engine-failed`, `job/disk-full`, `job/cancelled`. */
export async function pullImage(
  engine: Engine,
  reference: string,
  onProgress: (progress: PrepareProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  if (await hasImage(engine, reference)) return;
  try {
    const stream = (await engine.pull(reference, { abortSignal: signal })) as Readable;
    await followPull(stream, onProgress, signal);
  } catch (error) {
    if (signal.aborted)
      throw new MoltError('job/cancelled', 'pulling the image was cancelled', {}, { cause: signal.reason });
    throw pullFailed(reference, error);
  }
  if (!(await hasImage(engine, reference)))
    throw pullFailed(reference, new Error('the engine has no such digest after the pull'));
}

async function followPull(
  stream: Readable,
  onProgress: (progress: PrepareProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const abort = (): void => void stream.destroy(new Error('cancelled'));
  signal.addEventListener('abort', abort, { once: true });
  const layers = new Map<string, { readonly done: number; readonly total: number }>();
  try {
    for await (const line of createInterface({ input: stream })) {
      if (line.trim() === '') continue;
      const { id, status = '', error, progressDetail } = pullEvent.parse(JSON.parse(line));
      if (error !== undefined) throw new PullFault(error);
      if (id === undefined || progressDetail?.total === undefined) continue;
      layers.set(id, { done: progressDetail.current ?? 0, total: progressDetail.total });
      const sums = [...layers.values()].reduce(
        (sum, layer) => ({ done: sum.done + layer.done, total: sum.total + layer.total }),
        { done: 0, total: 0 },
      );
      const step = status.startsWith('Extracting') ? 'extracting' : 'pulling';
      onProgress({ step, doneBytes: sums.done, totalBytes: sums.total });
    }
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** A fault reported inside the stream. */
class PullFault extends Error {
  override readonly name = 'PullFault';
}

function pullFailed(reference: string, error: unknown): MoltError {
  if (error instanceof MoltError) return error;
  const { statusCode, message } = faultOf(error);
  const missing =
    statusCode === 404 ||
    statusCode === 401 ||
    statusCode === 403 ||
    /not found|unknown|denied|unauthorized|no such|verification failed|no basic auth|error processing tar/i.test(
      message,
    );
  if (!missing || /no space left/i.test(message)) return engineFailed(`pulling ${reference}`, error);
  const registry = registryOf(reference);
  return new MoltError(
    'job/image-missing',
    `registry ${registry} does not give ${reference}: ${message}. Check the name and the digest, and that the image is public.`,
    { registry, reference },
    { cause: error },
  );
}
