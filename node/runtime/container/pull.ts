/**
 * Pulling images by digest, with progress, with every way of failing told apart.
 */
import type { Readable } from 'node:stream';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { MoltError } from '../../../protocol/errors.ts';
import type { ContainerImage, Image, PrepareProgress } from '../runtime.ts';
import { type Engine, engineFailed, faultOf, isMissing } from './engine.ts';

const DEFAULT_REGISTRY = 'docker.io';

/** What the engine streams while it pulls; it reports late faults in here and not by its status. */
const pullEvent = z.object({
  id: z.string().optional(),
  status: z.string().optional(),
  error: z.string().optional(),
  progressDetail: z.object({ current: z.number().optional(), total: z.number().optional() }).optional(),
});

/** The image of a container job. Throws `job/impossible` for a module or a reference without digest. */
export function containerImage(image: Image): ContainerImage {
  if (image.kind !== 'image' || !/^[^\s@]{1,255}@sha256:[0-9a-f]{64}$/.test(image.reference)) {
    const given = image.kind === 'image' ? image.reference : 'a wasm module';
    throw new MoltError(
      'job/impossible',
      `the container runtime runs images pinned as name@sha256:<64 hex digits>, not ${given.slice(0, 200)}; resolve the tag first`,
    );
  }
  return image;
}

/** The registry an image comes from, by Docker's rule: the first part, when it looks like a host. */
export function registryOf(reference: string): string {
  const [first = '', ...rest] = reference.split('/');
  const isHost = rest.length > 0 && (first.includes('.') || first.includes(':') || first === 'localhost');
  return isHost ? first : DEFAULT_REGISTRY;
}

/** Whether the engine has the image under the very digest that was asked for, of one platform or of an index of several. */
export async function hasImage(engine: Engine, reference: string): Promise<boolean> {
  try {
    const { RepoDigests } = await engine.getImage(reference).inspect();
    const digest = reference.slice(reference.indexOf('@'));
    return (RepoDigests ?? []).some((known) => known.endsWith(digest));
  } catch (error) {
    if (isMissing(error)) return false;
    throw engineFailed('looking for the image', error);
  }
}

/**
 * Pulls unless the engine has that digest. Credentials go to the engine for this pull alone, and into no error. Throws
 * `job/image-missing`, `job/image-denied`, `runtime/engine-failed`, `job/disk-full`, `job/cancelled`.
 */
export async function pullImage(
  engine: Engine,
  image: ContainerImage,
  onProgress: (progress: PrepareProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const { reference, credentials } = image;
  if (await hasImage(engine, reference)) return;
  try {
    const authconfig =
      credentials === undefined ? {} : { authconfig: { ...credentials, serveraddress: registryOf(reference) } };
    const stream = (await engine.pull(reference, { abortSignal: signal, ...authconfig })) as Readable;
    await followPull(stream, onProgress, signal);
  } catch (error) {
    if (signal.aborted)
      throw new MoltError('job/cancelled', 'pulling the image was cancelled', {}, { cause: signal.reason });
    throw pullFailed(image, error);
  }
  if (!(await hasImage(engine, reference)))
    throw pullFailed(image, new PullFault('not found: the engine has no such digest after the pull'));
}

async function followPull(
  stream: Readable,
  onProgress: (progress: PrepareProgress) => void,
  signal: AbortSignal,
): Promise<void> {
  const abort = (): void => void stream.destroy(new Error('cancelled'));
  signal.addEventListener('abort', abort, { once: true });
  const layers = new Map<string, Layer>();
  try {
    for await (const line of createInterface({ input: stream })) {
      if (line.trim() === '') continue;
      const { id, status = '', error, progressDetail } = pullEvent.parse(JSON.parse(line));
      if (error !== undefined) throw new PullFault(error);
      if (id === undefined || !LAYER_ID.test(id)) continue;
      const known = layers.get(id) ?? { doneBytes: 0, totalBytes: 0, done: false };
      layers.set(id, {
        doneBytes: progressDetail?.current ?? known.doneBytes,
        totalBytes: progressDetail?.total ?? known.totalBytes,
        done: known.done || /^(pull complete|already exists|download complete$)/i.test(status),
      });
      onProgress(progressOf([...layers.values()], status));
    }
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

interface Layer {
  readonly doneBytes: number;
  readonly totalBytes: number;
  readonly done: boolean;
}

/** Layers are named by the beginning of their digest; other lines speak of a tag. */
const LAYER_ID = /^[0-9a-f]{12,64}$/;

function progressOf(layers: readonly Layer[], status: string): PrepareProgress {
  return {
    step: status.startsWith('Extracting') ? 'extracting' : 'pulling',
    doneBytes: layers.reduce((sum, layer) => sum + layer.doneBytes, 0),
    totalBytes: layers.reduce((sum, layer) => sum + layer.totalBytes, 0),
    doneLayers: layers.filter((layer) => layer.done).length,
    totalLayers: layers.length,
  };
}

/** A fault reported inside the stream. */
class PullFault extends Error {
  override readonly name = 'PullFault';
}

const DENIED = /denied|unauthorized|no basic auth|authentication required|invalid username\/password/i;
const MISSING = /not found|unknown|no such|verification failed|error processing tar|corrupt|mismatch|invalid checksum/i;

/** Which of the buyer's faults it is, or the engine's. A registry that is not told apart from a missing name says "denied". */
function pullFailed({ reference, credentials }: ContainerImage, error: unknown): MoltError {
  if (error instanceof MoltError) return error;
  const { statusCode, message } = faultOf(error);
  const denied = statusCode === 401 || statusCode === 403 || DENIED.test(message);
  const missing = statusCode === 404 || MISSING.test(message);
  if ((!missing && !denied) || /no space left/i.test(message)) return engineFailed(`pulling ${reference}`, error);
  const registry = registryOf(reference);
  const said = credentials === undefined ? message : message.replaceAll(credentials.password, '…');
  if (denied) {
    const given = credentials === undefined ? 'none were given' : 'the ones given are refused';
    return new MoltError(
      'job/image-denied',
      `registry ${registry} wants credentials for ${reference}, and ${given}: ${said}. Send a username and password or token that may read it; a registry may also say this of a name that does not exist.`,
      { registry, reference },
    );
  }
  return new MoltError(
    'job/image-missing',
    `registry ${registry} does not give ${reference}: ${said}. Check the name and the digest.`,
    { registry, reference },
    { cause: error },
  );
}
