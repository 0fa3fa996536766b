/**
 * Runtimes: what executes a job, behind one port.
 *
 * Read runtime.ts for the contract; wasm/ is the embedded executor that every machine has, container/ drives a Docker or
 * Podman engine. Both pass test/contract/runtime.ts.
 */
import { join } from 'node:path';
import type { Env } from '../../protocol/env.ts';
import { ContainerRuntime } from './container/container-runtime.ts';
import type { Runtime } from './runtime.ts';
import { type WasmCompiler, WasmRuntime } from './wasm/wasm-runtime.ts';

export type {
  Capability,
  ContainerImage,
  ExitReason,
  Image,
  LogChunk,
  LogStream,
  ModuleImage,
  PrepareProgress,
  RegistryCredentials,
  Run,
  RunExit,
  RunLimits,
  RunRequest,
  Runtime,
  RunUsage,
} from './runtime.ts';
export type { ContainerOptions } from './container/container-runtime.ts';
export { ContainerRuntime, type WasmCompiler, WasmRuntime };

export interface RuntimesOptions {
  /** Directory of the node's own for caches and scratch files; each runtime gets a part of it. */
  readonly directory: string;
  readonly wasmCompiler?: WasmCompiler;
  /** Path of a Docker or Podman socket; no container runtime when absent. */
  readonly containerSocket?: string;
  /** See `ContainerOptions.sandbox`. */
  readonly containerSandbox?: 'when-asked' | 'always';
  /** See `ContainerOptions.pool`. */
  readonly containerPool?: number;
}

/** The runtimes of one node; which of them work here is told by their `probe`. */
export function createRuntimes(env: Env, options: RuntimesOptions): readonly Runtime[] {
  const wasm = new WasmRuntime(env, join(options.directory, 'wasm'), options.wasmCompiler);
  if (options.containerSocket === undefined) return [wasm];
  const container = new ContainerRuntime(env, {
    directory: join(options.directory, 'container'),
    socketPath: options.containerSocket,
    ...(options.containerPool === undefined ? {} : { pool: options.containerPool }),
    ...(options.containerSandbox === undefined ? {} : { sandbox: options.containerSandbox }),
  });
  return [wasm, container];
}
