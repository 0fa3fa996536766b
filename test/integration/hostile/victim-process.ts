/** A seller in a process of its own, started as the program is, and asked over IPC how it fares. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';

import { NODE_ENVIRONMENT, NODE_FLAGS } from '../../../node/cli/demo/child.ts';
import type { Address } from '../../../protocol/address.ts';
import { keyPairFromSeed } from '../../../protocol/ed25519.ts';
import { type Place, env } from './seller.ts';
import type { Health, Question, View } from './victim.ts';

export interface Victim extends AsyncDisposable {
  readonly self: Address;
  readonly addresses: readonly string[];
  /** Cheap, for waiting. */
  view(): Promise<View>;
  /** Since this was asked last; collects garbage first. */
  health(): Promise<Health>;
}

/** `namespace`: the network namespace that it lives in; absent: ours. */
export async function openVictim(place: Place, namespace?: string): Promise<Victim> {
  const key = keyPairFromSeed(env.random.bytes(32));
  const child = start([Buffer.from(key.seed).toString('hex'), JSON.stringify(place)], namespace);
  const [addresses] = (await once(child, 'message')) as [string[]];
  const ask = async (question: Question): Promise<unknown> => {
    const answer = once(child, 'message');
    child.send(question);
    return (await answer)[0];
  };
  return {
    self: key.address,
    addresses,
    view: async () => (await ask('view')) as View,
    health: async () => (await ask('health')) as Health,
    [Symbol.asyncDispose]: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.disconnect();
      await gone;
    },
  };
}

function start(args: readonly string[], namespace: string | undefined): ChildProcess {
  const command = [process.execPath, ...NODE_FLAGS, '--expose-gc', join(import.meta.dirname, 'victim.ts'), ...args];
  const [program = '', ...rest] = namespace === undefined ? command : ['ip', 'netns', 'exec', namespace, ...command];
  const environment = { ...process.env, ...NODE_ENVIRONMENT };
  return spawn(program, rest, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'], env: environment });
}
