/** `molt gang`: buys n slots that run together or not at all, and leaves a folder for each. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { MoltError, hasCode } from '../../protocol/errors.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import type { AutonomyName } from '../../sdk/index.ts';
import { lockHome } from '../home.ts';
import { connectBuyer, readBuyer } from './buyer-client.ts';
import type { CommandContext } from './command.ts';
import { lastBid } from './explain.ts';
import { createGangPrinter } from './gang-view.ts';
import { type Flags, buildSpec, parseMaxPrice, parseRequest, parseWishes } from './job-request.ts';
import { openRunDoor } from './run-door.ts';
import { openOutDirectory, readLogin, readSecrets } from './run.ts';

export async function gangCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const { env, home, signal } = context;
  const [count = '', ...command] = words;
  const slots = parseSlots(count);
  const request = await parseRequest(flags, command);
  const { gpus: _gpus, ...ofSettings } = flags;
  const buyer = await readBuyer(context, ofSettings);
  const directory = await openOutDirectory(context, flags);
  await using _lock = await lockHome(home);
  await using molt = await connectBuyer(context, buyer, {
    journal: home.buyer,
    ...(flags['autonomy'] === undefined ? {} : { autonomy: flags['autonomy'] as AutonomyName }),
  });
  await using _door = await openRunDoor(home.runDoor, { logs: (lease, query) => molt.logs(lease, query) });
  signal.throwIfAborted();
  const spec = parseJobSpec(await buildSpec(molt, request, signal));
  await writeFile(join(directory, 'spec.json'), `${JSON.stringify(spec, null, 2)}\n`);
  const print = createGangPrinter(context);
  const startedMs = env.clock.now();
  const { result } = molt.gang({
    spec,
    slots,
    maxPrice: parseMaxPrice(flags, slots),
    ...parseWishes(flags),
    spread: flags['spread'] === 'any' ? 'any' : 'distinct-providers',
    onLoss: flags['replace'] === true ? 'replace' : 'fail',
    signal,
    outputDirectory: directory,
    secrets: await readSecrets(request.secrets),
    ...(await readLogin(flags['registryLogin'] as string | undefined)),
    onEvent: print.event,
  });
  const gang = await result.finally(print.flush).catch((error: unknown) => {
    const record = lastBid(molt, startedMs);
    if (!signal.aborted && record !== undefined && hasCode(error, 'market/gang-incomplete')) print.why(record);
    throw error;
  });
  await print.result(gang, directory);
}

function parseSlots(text: string): number {
  if (/^[1-9]\d?$/.test(text)) return Number(text);
  throw new MoltError('config/usage', `molt gang needs a number of slots first, 1 to 16, it got "${text}"`);
}
