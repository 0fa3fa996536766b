/** `molt run`: buys one job, shows it happen, and leaves outputs, proof and specification in a folder. */
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

import { parseAddress } from '../../protocol/address.ts';
import { MoltError } from '../../protocol/errors.ts';
import { parseJobSpec } from '../../protocol/job-spec.ts';
import { parseMolt } from '../../protocol/units.ts';
import { lockHome } from '../home.ts';
import { type Molt, connect } from '../../sdk/index.ts';
import { type CommandContext, loadSettings, moltCommand, requireBudget } from './command.ts';
import { createLineWriter, resultLine, toJson } from './job-line.ts';
import { type Flags, buildSpec, parseRequest } from './job-request.ts';
import { createJobView, receipt } from './job-view.ts';
import { createLiveList } from './live-list.ts';
import { readNodeKey } from './node-key.ts';

export async function runCommand(context: CommandContext, flags: Flags, words: readonly string[]): Promise<void> {
  const { env, home, signal } = context;
  const request = await parseRequest(flags, words);
  const { settings } = await loadSettings(context, flags);
  const budget = parseAddress(requireBudget(context, settings));
  const key = await readNodeKey(context, 'buyer');
  const maxPrice = parseMolt(flags['maxPrice'] as string);
  const quotes = flags['quotes'] === undefined ? {} : { quotes: Number(flags['quotes']) };
  const directory =
    (flags['out'] as string | undefined) ??
    join('molt-out', new Date(env.clock.now()).toISOString().slice(0, 19).replaceAll(':', '-'));
  await mkdir(directory, { recursive: true });

  // Two processes with one node key would take each other's messages.
  await using _lock = await lockHome(home);
  const print = createPrinter(context);
  try {
    await using molt = await connect({
      rpcUrl: settings.rpcUrl,
      key,
      budget,
      bootstrap: settings.bootstrap,
      mdns: settings.mdns,
      ...(settings.programId === null ? {} : { programId: parseAddress(settings.programId) }),
      env,
      // Not the signal of Ctrl-C: a cancelled job is still settled over this connection.
    });
    signal.throwIfAborted();
    const spec = parseJobSpec(await buildSpec(molt, request, signal));
    await writeFile(join(directory, 'spec.json'), `${JSON.stringify(spec, null, 2)}\n`);
    const result = await molt.run(spec, {
      maxPrice,
      signal,
      outputDirectory: directory,
      secrets: await readSecrets(request.secrets),
      onEvent: (event) => print.event(event),
      ...quotes,
    });
    const proofFile = join(directory, 'proof.json');
    await writeFile(proofFile, result.proof);
    print.result(result, proofFile);
  } finally {
    print.close();
  }
}

interface Printer {
  event(event: Parameters<ReturnType<typeof createLineWriter>>[0]): void;
  result(result: Awaited<ReturnType<Molt['run']>>, proofFile: string): void;
  close(): void;
}

function createPrinter({ terminal, env, json }: CommandContext): Printer {
  const toLine = createLineWriter();
  if (json) {
    return {
      event: (event) => terminal.out(toJson(toLine(event))),
      result: (result, proofFile) => terminal.out(toJson(resultLine(result, proofFile))),
      close: () => undefined,
    };
  }
  const list = createLiveList(terminal, env.clock);
  const view = createJobView(terminal, list, env.clock);
  return {
    event: (event) => view.event(toLine(event)),
    result: (result, proofFile) => {
      view.flush();
      list[Symbol.dispose]();
      const next = `check it: ${moltCommand()} verify ${proofFile}`;
      for (const line of ['', ...receipt(terminal, resultLine(result, proofFile)), '', next]) terminal.out(line);
    },
    close: () => {
      view.flush();
      list[Symbol.dispose]();
    },
  };
}

async function readSecrets(files: Readonly<Record<string, string>>): Promise<Record<string, string>> {
  const secrets: Record<string, string> = {};
  for (const [name, path] of Object.entries(files)) {
    try {
      secrets[name] = await readFile(path, 'utf8');
    } catch (cause) {
      throw new MoltError('config/usage', `secret ${name}: ${path} cannot be read`, { name, path }, { cause });
    }
  }
  return secrets;
}
