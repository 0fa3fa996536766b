/** Every GPU of this machine, by all tools that are here. */
import type { Env } from '../../protocol/env.ts';
import { createAmd } from './amd.ts';
import type { GpuDetection, GpuSource } from './device.ts';
import { createGraphics } from './graphics.ts';
import { createNvidia } from './nvidia.ts';
import { type Tool, createTool } from './tool.ts';
import { type Toolkit, readToolkit } from './toolkit.ts';

export interface GpuDetector {
  readonly source: GpuSource;
  readonly toolkit: () => Promise<Toolkit>;
}

/** `path` is where tools are looked for, as in the environment variable PATH. */
export function createDetector(env: Env, path: string): GpuDetector {
  const tool = createTool(env, path);
  return { source: combine(tool, createGraphics()), toolkit: () => readToolkit(tool) };
}

/** Vendors' tools first. Where none found a card, whoever else knows of one tells why it is not sold. */
export function combine(tool: Tool, graphics: GpuSource): GpuSource {
  const sources = [createNvidia(tool), createAmd(tool)];
  return {
    async look(): Promise<GpuDetection> {
      const found = await Promise.all(sources.map((source) => source.look()));
      const devices = found.flatMap((one) => one.devices);
      const problems = found.flatMap((one) => one.problems);
      // A tool that fails is asked by systeminformation as well, which waits for it without end: so not then.
      if (devices.length > 0 || problems.length > 0) return { devices, problems };
      return graphics.look();
    },
  };
}
