/** Providers that break their word: real nodes in the test's own process, whose runs are what the test makes of them. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { vi } from 'vitest';

import { readWallet } from '../../chain/index.ts';
import { mergeSettings, readConfigFile } from '../../node/config.ts';
import type { Home } from '../../node/home.ts';
import { nodeConfig } from '../../node/node-config.ts';
import { type RunningNode, startNode } from '../../node/node.ts';
import { type Run, type RunExit, WasmRuntime } from '../../node/runtime/index.ts';
import type { Env } from '../../protocol/env.ts';

/** The node of this home, which no process runs. Close it. */
export async function startCrook(env: Env, home: Home): Promise<RunningNode> {
  const { settings } = mergeSettings({ environment: {}, file: await readConfigFile(home.config) });
  const config = await nodeConfig(home.directory, await readWallet(home.nodeKey), settings);
  return startNode(env, config, () => undefined);
}

/** Every run of this process is from now on what `change` makes of it; `vi.restoreAllMocks` ends that. */
export function tamper(change: (run: Run, outputDirectory: string) => Run | Promise<Run>): void {
  // oxlint-disable-next-line unbound-method -- applied to its own instance below
  const start = WasmRuntime.prototype.start;
  vi.spyOn(WasmRuntime.prototype, 'start').mockImplementation(async function (this: WasmRuntime, ...given) {
    return change(await start.apply(this, given), given[0].outputDirectory);
  });
}

/** The same run, which ends otherwise. */
export function withExit(run: Run, change: (exit: RunExit) => RunExit | Promise<RunExit>): Run {
  const exit = run.exit.then(change);
  return new Proxy(run, {
    get: (target, name) => {
      if (name === 'exit') return exit;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value.bind(target) as unknown) : value;
    },
  });
}

/** The same run of `stepsJob`, with a result that no honest run gives. */
export function forged(run: Run, outputDirectory: string): Run {
  return withExit(run, async (exit) => {
    await writeFile(join(outputDirectory, 'result.txt'), 'steps 1000000');
    return exit;
  });
}
