/**
 * JobSpec: what runs under a lease. Content, named by digest: canonical dag-cbor, whose SHA-256 the lease fixes.
 *
 * Contract: what is not stated is the safe value (no network, nothing written but outputs, one core, small memory).
 * Unknown keys are refused, so a spec never asks for something that a provider silently leaves out.
 */
import { createHash } from 'node:crypto';

import * as dagCbor from '@ipld/dag-cbor';
import { CID } from 'multiformats/cid';
import * as Digest from 'multiformats/hashes/digest';
import { z } from 'zod';

import { isHostName, locate } from './egress.ts';
import { MoltError } from './errors.ts';
import { LIMITS } from './limits.ts';
import { FEATURES, type Feature, RUNTIMES } from './messages.ts';

// Lengths abort: decoding base58 is quadratic, so nothing long may reach it.
const cid = z.string().max(120, { abort: true }).refine(isCid, 'must be a CID');
const HTTPS_PORT = 443;

/** Relative, forward slashes, no empty, `.` or `..` segment, printable. */
const relativePath = z
  .string()
  .min(1)
  .max(255, { abort: true })
  .refine(
    (path) => path.split('/').every((part) => /^[^\p{Cc}\\]{1,120}$/u.test(part) && part !== '.' && part !== '..'),
    {
      message: 'must be a relative path without "." or ".." segments',
    },
  );
const name = z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$/, 'must be 1 … 64 of A-Z a-z 0-9 _ . -');
/** `host:port`, or `*.suffix:port` for every name below a suffix. */
const egressRule = z
  .string()
  .max(260, { abort: true })
  .regex(
    /^(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?:[1-9]\d{0,4}$/,
    'must be host:port with a lower-case host name, for example "example.com:443" or "*.example.com:443"',
  )
  .refine((rule) => Number(rule.slice(rule.lastIndexOf(':') + 1)) <= 65_535, 'must have a port up to 65535');
const port = z.int().min(1).max(65_535);
/** Fetched by the provider. `s3://bucket/key` names a public object; a private one is named by a presigned https URL. */
const inputUrl = z
  .string()
  .max(2_048, { abort: true })
  .refine(isInputUrl, 'must be an https:// or s3://bucket/key URL at a named host, without user, password or fragment');
const imageReference = z
  .string()
  .max(300, { abort: true })
  .regex(/^[a-z0-9][a-z0-9._:/-]*@sha256:[0-9a-f]{64}$/, 'must be an image by digest: name@sha256:…');

const COMPARATORS = ['exact', 'outputs'] as const;
export type Comparator = (typeof COMPARATORS)[number];

export const jobSpecSchema = z
  .strictObject({
    version: z.literal(1).default(1),
    runtime: z.enum(RUNTIMES),
    /** wasm: CID of the module. container: name@sha256:… */
    image: z.string().max(300),
    command: z.array(z.string().max(32_768)).max(256).default([]),
    environment: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,127}$/), z.string().max(32_768)).default({}),
    /** Names of files under /secrets; values travel beside the spec, never in it. */
    secrets: z.array(name).max(LIMITS.secrets).default([]),
    resources: z
      .strictObject({
        cpuMillis: z.int().min(10).max(1_024_000).default(1_000),
        memoryBytes: z
          .int()
          .min(1 << 20)
          .max(2 ** 44)
          .default(512 * 2 ** 20),
        diskBytes: z
          .int()
          .min(1 << 16)
          .max(2 ** 46)
          .default(256 * 2 ** 20),
        gpus: z
          .array(
            z.strictObject({
              count: z.int().min(1).max(LIMITS.gpusPerKind),
              /** Memory of each, at least. */
              vramBytes: z.int().min(0).default(0),
              /** As the driver names it; empty: any. */
              model: z.string().max(LIMITS.modelCharacters).default(''),
              /** CUDA compute capability in tenths, at least: 89 is 8.9; 0: any. */
              computeCapability: z.int().min(0).max(999).default(0),
            }),
          )
          .max(LIMITS.gpuKindsPerMessage)
          .default([]),
      })
      .prefault({}),
    /** Placed read-only at /in/<path>. */
    inputs: z
      .array(
        z.union([
          z.strictObject({ cid, path: relativePath }),
          z.strictObject({
            url: inputUrl,
            /** Of the content, 64 hex digits: anything else that the URL gives is refused. */
            sha256: z
              .string()
              .regex(/^[0-9a-f]{64}$/)
              .optional(),
            path: relativePath,
          }),
        ]),
      )
      .max(LIMITS.inputs)
      .default([]),
    /** Taken from /out/<path> after the run; a path with `*`, `?` or `**` takes all files that match (output-pattern.ts). */
    outputs: z
      .array(z.strictObject({ name, path: relativePath }))
      .max(LIMITS.outputs)
      .default([]),
    /** container: absolute path in which the command starts; the image's own when absent. */
    workdir: z
      .string()
      .max(4_096)
      .regex(/^\/[^\p{Cc}]*$/u, 'must be an absolute path')
      .optional(),
    /** container: what the job may connect to. Nothing, unless stated. */
    network: z.strictObject({ egress: z.array(egressRule).max(LIMITS.egressRules).default([]) }).prefault({}),
    /** container: TCP ports on which the job listens, for its buyer and nobody else. */
    services: z.array(z.strictObject({ name, port })).max(LIMITS.services).default([]),
    /** container: when a service counts as ready. */
    health: z
      .strictObject({
        /** Name of the service that is asked. */
        service: name,
        /** HTTP path that answers 2xx or 3xx; without one a TCP connection is enough. */
        path: z
          .string()
          .max(1_024)
          .regex(/^\/[!-~]*$/, 'must be an absolute URL path')
          .optional(),
        intervalSeconds: z.int().min(1).max(300).default(2),
        /** Not ready by then: the job is stopped. */
        startSeconds: z.int().min(1).max(3_600).default(60),
        /** Misses in a row after which a ready service counts as unready. */
        failures: z.int().min(1).max(100).default(3),
      })
      .optional(),
    /** container: true asks for a sandbox stronger than a container on the host's kernel. */
    sandbox: z.boolean().default(false),
    maxDurationSeconds: z.int().min(1).max(LIMITS.leaseSeconds).default(600),
    /** wasm: instructions the job may execute; unbounded within its duration when absent. */
    fuel: z.int().min(1).optional(),
    /**
     * What two honest runs have in common, as the buyer says: `exact` is exit, outputs and standard output, `outputs` leaves
     * standard output out. Absent: a wasm job repeats exactly, of a container nothing is promised.
     */
    comparator: z.enum(COMPARATORS).optional(),
    /** wasm: what the job's clock says at its start, Unix ms; the same everywhere, so that runs repeat. */
    clockMs: z.int().min(0).max(8_640_000_000_000_000).default(1_767_225_600_000),
  })
  .superRefine((spec, context) => {
    const image = spec.runtime === 'wasm' ? cid.safeParse(spec.image) : imageReference.safeParse(spec.image);
    if (!image.success)
      context.addIssue({
        code: 'custom',
        path: ['image'],
        message: image.error.issues[0]?.message ?? 'is not an image',
      });
    for (const [list, key] of [
      [spec.inputs.map((input) => input.path), 'inputs'],
      [spec.outputs.map((output) => output.name), 'outputs'],
      [spec.services.map((service) => service.name), 'services'],
      [spec.services.map((service) => String(service.port)), 'services'],
      [spec.network.egress, 'network'],
    ] as const) {
      if (new Set(list).size !== list.length)
        context.addIssue({ code: 'custom', path: [key], message: 'has the same name twice' });
    }
    const { health } = spec;
    if (health !== undefined && !spec.services.some((service) => service.name === health.service)) {
      context.addIssue({ code: 'custom', path: ['health', 'service'], message: 'is not one of the services' });
    }
    if (spec.comparator === 'outputs' && spec.outputs.length === 0) {
      context.addIssue({ code: 'custom', path: ['comparator'], message: 'compares outputs and there are none' });
    }
    if (spec.sandbox && spec.resources.gpus.length > 0) {
      context.addIssue({ code: 'custom', path: ['sandbox'], message: 'has no GPU in it; leave out one of the two' });
    }
    if (spec.runtime !== 'wasm') return;
    for (const [asked, path] of [
      [spec.resources.gpus.length > 0, ['resources', 'gpus']],
      [spec.workdir !== undefined, ['workdir']],
      [spec.network.egress.length > 0, ['network', 'egress']],
      [spec.services.length > 0, ['services']],
      [spec.sandbox, ['sandbox']],
    ] as const) {
      if (asked)
        context.addIssue({
          code: 'custom',
          path: [...path],
          message: 'is nothing a wasm job can have; use runtime "container"',
        });
    }
  });

/** What a buyer writes: everything but runtime and image has a default. */
export type JobSpecInput = z.input<typeof jobSpecSchema>;
export type JobSpec = z.output<typeof jobSpecSchema>;

/** Checks and completes a spec. Throws `protocol/invalid-spec` naming every offending field. */
export function parseJobSpec(value: unknown): JobSpec {
  const result = jobSpecSchema.safeParse(value);
  if (result.success) return result.data;
  const found = result.error.issues.flatMap((issue) => plainIssues(issue));
  const issues = found.slice(0, 8).map((issue) => `${issue.path.join('.') || 'spec'} ${issue.message}`);
  throw new MoltError('protocol/invalid-spec', `the job specification is refused: ${issues.join('; ')}`, {
    issues: result.error.issues.length,
  });
}

/** Of a choice between shapes, what is wrong with the one that was meant: the one that knows all the keys. */
function plainIssues(issue: z.core.$ZodIssue): readonly z.core.$ZodIssue[] {
  if (issue.code !== 'invalid_union') return [issue];
  const meant = issue.errors.find((branch) => branch.every(({ code }) => code !== 'unrecognized_keys'));
  return (meant ?? issue.errors[0] ?? []).map((inner) => ({ ...inner, path: [...issue.path, ...inner.path] }));
}

/** The canonical bytes. */
export function encodeJobSpec(spec: JobSpec): Uint8Array {
  const stated = Object.fromEntries(Object.entries(spec).filter(([, value]) => value !== undefined));
  const bytes = dagCbor.encode(stated);
  if (bytes.length > LIMITS.specBytes) {
    throw new MoltError(
      'protocol/invalid-spec',
      `the specification has ${bytes.length} bytes, at most ${LIMITS.specBytes} are allowed; pass large data as inputs`,
    );
  }
  return bytes;
}

/** Untrusted bytes → spec. Throws `protocol/oversize`, `malformed`, `not-canonical`, `invalid-spec`. */
export function decodeJobSpec(bytes: Uint8Array): JobSpec {
  if (bytes.length > LIMITS.specBytes)
    throw new MoltError(
      'protocol/oversize',
      `a specification has at most ${LIMITS.specBytes} bytes, this one ${bytes.length}`,
    );
  let raw: unknown;
  try {
    raw = dagCbor.decode(bytes);
  } catch (cause) {
    throw new MoltError('protocol/malformed', 'the specification is not dag-cbor', {}, { cause });
  }
  const spec = parseJobSpec(raw);
  // The decoder is lenient (unsorted keys, half floats); a digest is an identity only for the one canonical form.
  if (!Buffer.from(encodeJobSpec(spec)).equals(bytes)) {
    throw new MoltError(
      'protocol/not-canonical',
      'the specification is not in its canonical encoding with all defaults stated',
    );
  }
  return spec;
}

/** SHA-256 of the canonical bytes: 32 bytes. */
export function specDigest(bytes: Uint8Array): Uint8Array {
  return new Uint8Array(createHash('sha256').update(bytes).digest());
}

/** The same digest as a CID (dag-cbor, sha2-256). */
export function specCid(bytes: Uint8Array): string {
  return CID.createV1(dagCbor.code, Digest.create(0x12, specDigest(bytes))).toString();
}

/** What a lease fixes on chain: SHA-256 over the accepted quote's id and the spec's digest. */
export function termsDigest(quoteId: string, spec: Uint8Array): Uint8Array {
  return new Uint8Array(
    createHash('sha256').update('molt/1/terms\n').update(Buffer.from(quoteId, 'hex')).update(spec).digest(),
  );
}

/** By what two runs of this job can be compared; undefined where two honest ones may differ in everything. */
export function comparatorOf({ runtime, comparator }: JobSpec): Comparator | undefined {
  return comparator ?? (runtime === 'wasm' ? 'exact' : undefined);
}

/** Inputs that come from the buyer's own store. */
export function storedInputs(spec: JobSpec): readonly { readonly cid: string; readonly path: string }[] {
  return spec.inputs.filter((input) => 'cid' in input);
}

/**
 * Inputs as a proof names them. A URL is recorded without its query, which may hold a signature that gives access; its
 * content is known to whoever fetched it, as the CID that the proof adds.
 */
export function recordedInputs(
  spec: JobSpec,
): readonly { readonly path: string; readonly cid?: string; readonly url?: string }[] {
  return spec.inputs.map((input) => {
    if ('cid' in input) return { path: input.path, cid: input.cid };
    const { protocol, host, pathname } = new URL(input.url);
    return { path: input.path, url: `${protocol}//${host}${pathname}` };
  });
}

/** `host:port` of everything that the job reaches: its egress rules, and where its inputs by URL are. Each once. */
export function wantedEgress(spec: JobSpec): readonly string[] {
  const hosts = spec.inputs.flatMap((input) => {
    if ('cid' in input) return [];
    const { hostname, port } = locate(input.url);
    return [`${hostname}:${port === '' ? HTTPS_PORT : port}`];
  });
  return [...new Set([...spec.network.egress, ...hosts])];
}

/** What the job needs of its provider beyond a runtime. */
export function featuresOf(spec: JobSpec): Feature[] {
  const needs: Readonly<Record<Feature, boolean>> = {
    egress: spec.network.egress.length > 0,
    services: spec.services.length > 0,
    sandbox: spec.sandbox,
    fetch: spec.inputs.some((input) => 'url' in input),
  };
  return FEATURES.filter((feature) => needs[feature]);
}

/** First 8 bytes, hex, of the digest by which offers and bids name a module or image as warm, and an input as near. */
export function warmPrefix(image: string): string {
  return createHash('sha256').update(image).digest('hex').slice(0, 16);
}

function isInputUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, username, password, pathname, hash } = new URL(text);
  if (username !== '' || password !== '' || hash !== '') return false;
  if (protocol !== 'https:' && (protocol !== 's3:' || pathname.length <= 1)) return false;
  // No address and no name of one label: a stranger's machine fetches from hosts of the internet only.
  return isHostName(locate(text).hostname);
}

function isCid(text: string): boolean {
  try {
    const parsed = CID.parse(text);
    return parsed.version === 1 && parsed.toString() === text;
  } catch {
    return false;
  }
}
