/**
 * The program `molt`: its commands and their help.
 *
 * It loads nothing but the command that was asked for, and gives it what only this file and `cli/ending.ts` take from the
 * process: environment, streams and signals.
 */
import { Command, Option } from 'commander';

import { type CommandContext, chooseHome, parseDescriptor } from './cli/command.ts';
import { reportEnd, listenForSignals } from './cli/ending.ts';
import { createTerminal } from './cli/terminal.ts';
import { SETTINGS, type SettingName, flagName, fromText } from './config.ts';
import { systemEnv } from '../protocol/env.ts';
import { HARDWARE_TIERS } from '../protocol/messages.ts';
import { MOLT_VERSION } from './version.ts';

type Flags = Readonly<Record<string, unknown>>;
type Action = (given: { context: CommandContext; flags: Flags; words: readonly string[] }) => Promise<void>;

/** Runs one command line and ends the process. */
export async function main(argv: readonly string[]): Promise<void> {
  const terminal = createTerminal({ stdout: process.stdout, stderr: process.stderr, environment: process.env });
  const json = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : argv.length).includes('--json');
  // A reader that went away (`molt offers | head`) is no error of ours.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => process.exit(error.code === 'EPIPE' ? 0 : 1));
  const interruption = listenForSignals();
  const run =
    (action: Action) =>
    async (...given: readonly unknown[]): Promise<void> => {
      const command = given.at(-1) as Command;
      const flags: Flags = command.optsWithGlobals();
      const home = chooseHome(flags['home'] as string | undefined, process.env);
      const passphraseFd = parseDescriptor(flags['passphraseFd'] as string | undefined);
      const failed = (): void => {
        process.exitCode = 1;
      };
      const base = { env: systemEnv(), terminal, environment: process.env, json, home, passphraseFd, failed };
      const context = {
        ...base,
        get signal() {
          return interruption.signal();
        },
      };
      await action({ context, flags, words: command.args });
    };
  try {
    await buildProgram(run).parseAsync([...argv], { from: 'user' });
    process.exit();
  } catch (error) {
    process.exit(reportEnd(error, terminal, { json, interrupted: interruption.came }));
  }
}

function buildProgram(run: (action: Action) => (...given: readonly unknown[]) => Promise<void>): Command {
  const program = new Command('molt')
    .description('Sell the time of this machine, or run work on machines of others and pay for proven work.')
    .version(MOLT_VERSION)
    .option('--json', 'print JSON: one object, or one a line while things happen')
    .option('--home <dir>', 'home directory with keys and settings (default: $MOLT_HOME or ~/.molt)')
    .option('--passphrase-fd <number>', 'read the passphrase of the wallet from this file descriptor, not the terminal')
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  program.addHelpText(
    'after',
    `
First steps:
  molt demo                                   everything on this machine, in half a minute
  molt devnet                                 a local chain, kept running in one terminal
  molt init --role provider && molt up        sell: in another terminal
  molt init --role buyer && molt offers       buy: who sells, at what price`,
  );
  addNetworkCommands(program, run);
  addProviderCommands(program, run);
  addBuyerCommands(program, run);
  addForwardCommand(program, run);
  addBudgetCommands(program, run);
  addHolderCommands(program, run);
  return program;
}

type Run = Parameters<typeof buildProgram>[0];

/** A command whose options and errors behave like the program's. */
function command(program: Command, name: string, description: string): Command {
  return program.command(name).description(description).copyInheritedSettings(program).allowExcessArguments(false);
}

function examples(made: Command, lines: readonly string[]): Command {
  return made.addHelpText('after', `\nExamples:\n${lines.map((line) => `  ${line}`).join('\n')}`);
}

/** Flags of settings, with the texts of the table in node/config.ts. */
function settingFlags(made: Command, names: readonly SettingName[]): Command {
  for (const name of names) {
    const { default: standard, text, unit } = SETTINGS[name];
    const option = new Option(`${flagName(name)} <value>`, `${text} [${unit}; default ${JSON.stringify(standard)}]`);
    made.addOption(option.argParser((given: string) => fromText(name, given)));
  }
  return made;
}

function addNetworkCommands(program: Command, run: Run): void {
  const demo = command(program, 'demo', 'Run one paid job end to end on this machine: chain, three providers, buyer.')
    .option('--input <file>', 'CSV file to analyse (default: 100,000 made-up sales)')
    .option('--container [image]', 'run the job in a container instead; the image must have python3')
    .option('--keep', 'leave the network running afterwards, until Ctrl-C')
    .action(run(async ({ context, flags }) => (await import('./cli/demo.ts')).demoCommand(context, flags)));
  examples(demo, ['molt demo', 'molt demo --input measurements.csv --keep']);

  const devnet = command(program, 'devnet', 'Run a local chain: the real Solana VM with the Molt program and a faucet.')
    .option('--port <number>', 'HTTP port; the websocket answers on the next one', '8899')
    .option('--directory <dir>', 'where the state is kept (default: devnet in the home directory)')
    .option('--history <number>', 'transactions to keep at least (default: 100000); balances are kept in any case')
    .option('--until-stdin-ends', 'stop when standard input ends: for programs that start this one')
    .action(run(async ({ context, flags }) => (await import('./cli/devnet.ts')).devnetCommand(context, flags)));
  examples(devnet, ['molt devnet', 'molt devnet --port 9000 --directory /tmp/chain']);

  const init = command(
    program,
    'init',
    'Make keys, settings and the account on chain. Run again, it does what is missing.',
  )
    .addOption(new Option('--role <role>', 'what this home is for').choices(['provider', 'buyer']).default('buyer'))
    .option('--rpc <url>', 'Solana JSON-RPC endpoint (default: the local chain)')
    .option('--stake <amount>', 'provider: MOLT to put behind your work', '100')
    .option('--deposit <amount>', 'buyer: MOLT to put into the budget', '50')
    .option('--cap-per-lease <amount>', 'buyer: most that one job may lock', '10')
    .option('--cap-per-day <amount>', 'buyer: most that may be spent in a day', '50')
    .option('--days <number>', 'buyer: how long the budget may be used', '30')
    .action(run(async ({ context, flags }) => (await import('./cli/init.ts')).initCommand(context, flags)));
  settingFlags(init, ['programId', 'listen', 'announce', 'bootstrap', 'region', 'mdns']);
  examples(init, [
    'molt init --role provider --stake 200',
    'molt init --role buyer --deposit 20 --bootstrap /ip4/…/p2p/…',
  ]);

  const wallet = command(program, 'wallet', 'Show, make and fill the wallet of this home.')
    .argument('[action]', 'show, new, encrypt, balance or airdrop', 'show')
    .argument('[amount]', 'airdrop: MOLT to get from the faucet of a local chain')
    .option('--encrypt', 'new: keep the key under a passphrase')
    .option('--rpc <url>', 'Solana JSON-RPC endpoint')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/wallet.ts')).walletCommand(context, flags, words)),
    );
  examples(wallet, ['molt wallet', 'molt wallet new --encrypt', 'molt wallet encrypt', 'molt wallet airdrop 500']);

  const config = command(
    program,
    'config',
    'List every setting with its value, where it comes from, and what it trades.',
  ).action(run(async ({ context }) => (await import('./cli/settings.ts')).configCommand(context)));
  examples(config, ['molt config', 'MOLT_REGION=eu-west molt config --json']);
}

function addProviderCommands(program: Command, run: Run): void {
  const up = command(
    program,
    'up',
    'Sell: join the mesh, answer bids, run jobs. Ctrl-C ends it cleanly; its jobs go on at the next start.',
  )
    .option('--log-level <level>', 'least important log line shown: debug, info, warn or error', 'info')
    .option('--until-stdin-ends', 'stop when standard input ends: for programs that start this one')
    .action(run(async ({ context, flags }) => (await import('./cli/up.ts')).upCommand(context, flags)));
  const notFlags = new Set<SettingName>(['provider', 'budget']);
  settingFlags(
    up,
    (Object.keys(SETTINGS) as SettingName[]).filter((name) => !notFlags.has(name)),
  );
  examples(up, ['molt up', 'molt up --price-per-cpu 0.0005 --region eu-west', 'molt up --json | jq .type']);
  addOperatorCommands(program, run);
}

function addOperatorCommands(program: Command, run: Run): void {
  const jobs = command(program, 'jobs', 'List jobs of this home: what it runs for others, what others run for it.')
    .option('--all', 'ended ones too: those sold are kept for hours, those bought are listed for 7 days')
    .option('--rpc <url>', 'Solana JSON-RPC endpoint')
    .action(run(async ({ context, flags }) => (await import('./cli/jobs.ts')).jobsCommand(context, flags)));
  examples(jobs, ['molt jobs', 'molt jobs --all --json | jq .sold']);

  const logs = command(program, 'logs', 'Print what the program of a job printed, while it runs and for hours after.')
    .argument('<job>', 'lease of the job; a unique beginning is enough')
    .option('-f, --follow', 'wait for more, until the program has ended')
    .option('--from <sequence>', 'begin at this sequence number, as --timestamps shows it')
    .option('--stdout', 'standard output only')
    .option('--stderr', 'standard error only')
    .option('--timestamps', 'begin each line with time, sequence number and stream')
    .option('--rpc <url>', 'Solana JSON-RPC endpoint')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/logs.ts')).logsCommand(context, flags, words)),
    );
  examples(logs, ['molt logs 7xKX -f', 'molt logs 7xKX --from 120 --timestamps', 'molt logs 7xKX --stderr --json']);

  const drain = command(
    program,
    'drain',
    'Finish the jobs that run and take nothing new, across restarts, until it is undone.',
  )
    .option('--undo', 'sell again')
    .option('--wait', 'return when the last job is over; Ctrl-C stops waiting, not draining')
    .action(run(async ({ context, flags }) => (await import('./cli/drain.ts')).drainCommand(context, flags)));
  examples(drain, ['molt drain --wait && systemctl stop molt', 'molt drain --undo']);

  const doctor = command(program, 'doctor', 'Check everything that selling or buying needs, and say how to mend it.')
    .option('--rpc <url>', 'Solana JSON-RPC endpoint')
    .action(run(async ({ context, flags }) => (await import('./cli/doctor.ts')).doctorCommand(context, flags)));
  examples(doctor, ['molt doctor', 'molt doctor --json | jq \'.checks[] | select(.verdict != "ok")\'']);

  const explain = command(
    program,
    'explain',
    'Say why a bid matched or not, or why this provider does not earn, and what would have.',
  )
    .argument('[bid]', 'id of a bid of this home; a unique beginning is enough (default: the last one)')
    .action(run(async ({ context, words }) => (await import('./cli/explain.ts')).explainCommand(context, words)));
  examples(explain, ['molt explain', 'molt explain 4f1c', 'molt explain --json | jq .changes']);

  const earnings = command(program, 'earnings', 'What this provider was paid, by day, summed from the chain.')
    .option('--since <time>', 'how far back: 12h, 7d, 2w (default: 30d)')
    .option('--rpc <url>', 'Solana JSON-RPC endpoint')
    .action(run(async ({ context, flags }) => (await import('./cli/earnings.ts')).earningsCommand(context, flags)));
  examples(earnings, ['molt earnings', 'molt earnings --since 7d --json']);
}

function addForwardCommand(program: Command, run: Run): void {
  const forward = command(
    program,
    'forward',
    'Lead a port of this machine to a service of a running job, until Ctrl-C.',
  )
    .argument('<job>', 'lease of the job; a unique beginning is enough')
    .argument('<port[:local]>', "the service's port, and the one on 127.0.0.1 (default: a free one)")
    .action(
      run(async ({ context, flags, words }) =>
        (await import('./cli/forward.ts')).forwardCommand(context, flags, words),
      ),
    );
  settingFlags(forward, ['rpcUrl', 'bootstrap', 'mdns']);
  examples(forward, ['molt forward 7xKX 8080', 'molt forward 7xKX 8080:18080']);
}

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

/** What a job is and may cost: of `run` and of `gang`. */
function jobOptions(made: Command): Command {
  return made
    .option('--spec <file>', 'job specification as JSON; other options change it')
    .option('--image <image>', 'FILE.wasm, the CID of a module, "python", or a container image')
    .option(
      '--input <file[:path]>',
      'file or folder, seen by the job as /in/<path>; or an https or s3 URL that the provider fetches, checked when it ends in #sha256=HEX; repeatable',
      collect,
    )
    .option('--output <path>', 'file the job writes to /out/<path>; repeatable', collect)
    .option('--out <dir>', 'where outputs and proof go (default: molt-out/<time>)')
    .option('--env <key=value>', 'environment variable of the job; repeatable', collect)
    .option('--secret <name=file>', 'file seen by the job as /secrets/<name>; repeatable', collect)
    .option('--egress <host:port>', 'what the job may connect to, also *.suffix:port; repeatable', collect)
    .option('--max-price <amount>', 'most the whole job may cost, in MOLT (default: 2 for each slot or replica)')
    .option('--timeout <seconds>', 'longest run')
    .option('--memory <size>', 'memory, for example 512M or 2G')
    .option('--cpus <number>', 'cores, for example 0.5')
    .option('--disk <size>', 'what /out may hold, for example 2G')
    .option('--gpus <number>', 'GPUs')
    .option('--workdir <path>', 'folder of the container in which the command starts')
    .option('--sandbox', 'only providers with a sandbox stronger than a container on their kernel')
    .option('--registry-login <file>', 'file with "user:password" for an image that is not public')
    .option('--quotes <number>', 'how many quotes to wait for')
    .addOption(
      new Option(
        '--autonomy <preset>',
        'limits on price, spending, jobs at once and providers, counted across runs of this home',
      ).choices(['conservative', 'moderate', 'aggressive']),
    )
    .option('--finish-within <seconds>', 'only providers that promise to prove the job by then, or lose stake')
    .option('--start-within <seconds>', 'only providers that promise to begin the job by then, or are not paid')
    .option('--in-region <region>', 'only providers that say they are there')
    .option('--near-region <region>', 'better providers that say they are there')
    .option(
      '--near-data',
      'tell in the bid, by digests, which inputs the job has: providers that have them come first, and keep them',
    )
    .addOption(
      new Option(
        '--hardware-tier <tier>',
        'least that shows on which hardware it runs; so far nobody has more than A0',
      ).choices(HARDWARE_TIERS),
    )
    .option('--min-stake <amount>', 'only providers with at least so much stake, in MOLT')
    .option('--reserve <amount>', 'stake that must stand behind the lease, in MOLT');
}

function addGangCommand(program: Command, run: Run): void {
  const gang = jobOptions(command(program, 'gang', 'Buy: run a program in several slots together, or in none.'))
    .argument('<slots>', 'how many slots, 1 to 16')
    .argument('[command...]', 'after --: the program and its arguments')
    .addOption(
      new Option('--spread <how>', 'whether one provider may have several slots')
        .choices(['any', 'distinct-providers'])
        .default('distinct-providers'),
    )
    .option('--replace', 'seek another provider for a slot whose provider is lost, instead of ending all')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/gang.ts')).gangCommand(context, flags, words)),
    );
  settingFlags(gang, ['rpcUrl', 'bootstrap', 'mdns']);
  examples(gang, [
    'molt gang 3 --image python --input part.py --max-price 3 -- python /in/part.py',
    'molt gang 4 --spread any --image tool.wasm -- tool',
  ]);
}

function addBuyerCommands(program: Command, run: Run): void {
  addGangCommand(program, run);
  const job = jobOptions(command(program, 'run', 'Buy: run a program on the best provider and fetch its outputs.'))
    .argument('[command...]', 'after --: the program and its arguments')
    .option(
      '--replicas <number>',
      'run the job on so many providers at once, 2 to 16, and believe what more than half agree on',
    )
    .addOption(
      new Option(
        '--compare <what>',
        'says that the job repeats: exit, outputs and what it prints ("exact", as wasm does anyway), or without what it prints ("outputs")',
      ).choices(['exact', 'outputs']),
    )
    .option('--dispute-all', 'with --replicas: dispute every claim when no result is that of more than half')
    .option('--service <[name=]port>', 'TCP port on which the job serves its buyer; repeatable', collect)
    .option(
      '--forward <port[:local]>',
      'service that 127.0.0.1:<local> leads to while the job runs; repeatable',
      collect,
    )
    .action(run(async ({ context, flags, words }) => (await import('./cli/run.ts')).runCommand(context, flags, words)));
  settingFlags(job, ['rpcUrl', 'bootstrap', 'mdns']);
  examples(job, [
    'molt run --image python --input count.py --input data.csv --output result.json -- \\',
    '    python /in/count.py /in/data.csv /out/result.json',
    'molt run --image tool.wasm --timeout 60 --memory 256M -- tool --verbose',
    'molt run --image alpine --max-price 0.5 -- echo hello',
    'molt run --image python:3.13-alpine --forward 8000 --timeout 3600 -- python -m http.server 8000',
    'molt run --replicas 3 --image tool.wasm --max-price 3 -- tool',
    "molt run --replicas 3 --compare outputs --image alpine --output sum -- sh -c 'date; seq 9 | md5sum > /out/sum'",
    'molt run --spec job.json --json',
  ]);

  const offers = command(program, 'offers', 'List who sells what, at what price.')
    .option('--watch', 'renew the list until Ctrl-C')
    .action(run(async ({ context, flags }) => (await import('./cli/offers.ts')).offersCommand(context, flags)));
  settingFlags(offers, ['rpcUrl', 'bootstrap', 'mdns']);
  examples(offers, ['molt offers', 'molt offers --watch', 'molt offers --json | jq .node']);

  const verify = command(program, 'verify', 'Check a proof file, offline.')
    .argument('<file>', 'proof file, as molt run writes it')
    .option('--lease <address>', 'lease it must speak of')
    .option('--spec <file>', 'job specification it must speak of, as molt run writes it')
    .option('--operator <address>', 'node key that must have signed it')
    .option('--outputs <dir>', 'folder whose files must be the outputs it names')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/verify.ts')).verifyCommand(context, flags, words)),
    );
  examples(verify, ['molt verify proof.json', 'molt verify proof.json --spec spec.json --outputs . --lease 7xKX…']);
}

/** What every command about money on chain takes. */
function moneyCommand(program: Command, name: string, description: string): Command {
  return command(program, name, description)
    .option('--rpc <url>', 'Solana JSON-RPC endpoint')
    .option('-y, --yes', 'ask nothing');
}

function addBudgetCommands(program: Command, run: Run): void {
  const budget = moneyCommand(program, 'budget', 'Make, fill, limit and empty the accounts that pay for jobs.')
    .argument('[action]', 'list, create, deposit, withdraw, delegates or close', 'list')
    .argument('[words...]', 'deposit, withdraw: AMOUNT [BUDGET]; delegates: [NODE-KEY...]; close: [BUDGET]')
    .option('--budget <address>', 'delegates: which budget (default: the one of this home)')
    .option('--delegate <node-key>', 'create: who may spend (default: this home); repeatable', collect)
    .option('--deposit <amount>', 'create: MOLT to put in')
    .option('--cap-per-lease <amount>', 'create, delegates: most that one job may lock')
    .option('--cap-per-day <amount>', 'create, delegates: most that may be spent in a day')
    .option('--days <number>', 'create, delegates: how long it may be used from now on')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/budget.ts')).budgetCommand(context, flags, words)),
    );
  examples(budget, [
    'molt budget list',
    'molt budget create --deposit 20 --cap-per-lease 2 --days 7',
    'molt budget deposit 5',
    'molt budget withdraw all',
    'molt budget delegates --cap-per-day 10',
    'molt budget delegates NODE-KEY ANOTHER-NODE-KEY -y',
    'molt budget close BUDGET',
  ]);

  const lease = moneyCommand(program, 'lease', 'List open leases of this home, look at one, or bring it to its end.')
    .argument('[action]', 'list, show, settle, expire or dispute', 'list')
    .argument('[address]', 'the lease, for all but list')
    .option('--content <path>', 'dispute: module or input of the job, which verifiers run again; repeatable', collect)
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/lease.ts')).leaseCommand(context, flags, words)),
    );
  examples(lease, [
    'molt lease list',
    'molt lease show 7xKX…',
    'molt lease settle 7xKX… -y',
    'molt lease expire 7xKX…',
    'molt lease dispute 7xKX… --content tool.wasm --content data.csv',
  ]);
}

function addHolderCommands(program: Command, run: Run): void {
  const providers = moneyCommand(
    program,
    'providers',
    'List who is registered: stake, history, faults, commission.',
  ).action(run(async ({ context, flags }) => (await import('./cli/providers.ts')).providersCommand(context, flags)));
  examples(providers, ['molt providers', 'molt providers --json']);

  const stake = moneyCommand(program, 'stake', 'Put tokens behind a provider: they earn fees, and can be slashed.')
    .argument('<provider>', 'provider account, or the wallet that owns it')
    .argument('<amount>', 'MOLT')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/stake.ts')).stakeCommand(context, flags, words)),
    );
  examples(stake, ['molt stake 7xKX… 25', 'molt stake 7xKX… 25 -y --json']);

  const unstake = moneyCommand(
    program,
    'unstake',
    'Start to take tokens back: they unbond, and stay slashable until then.',
  )
    .argument('<provider>', 'provider account, or the wallet that owns it')
    .argument('<amount>', 'MOLT, or "all"')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/stake.ts')).unstakeCommand(context, flags, words)),
    );
  examples(unstake, ['molt unstake 7xKX… 10', 'molt unstake 7xKX… all']);

  const withdraw = moneyCommand(program, 'withdraw', 'Take what has unbonded back into the wallet.')
    .argument('<provider>', 'provider account, or the wallet that owns it')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/stake.ts')).withdrawCommand(context, flags, words)),
    );
  examples(withdraw, ['molt withdraw 7xKX…']);

  const stakes = moneyCommand(program, 'stakes', 'List what a wallet has staked: value, yield, unbonding, losses.')
    .argument('[wallet]', 'whose stakes (default: the wallet of this home)')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/stake.ts')).stakesCommand(context, flags, words)),
    );
  examples(stakes, ['molt stakes', 'molt stakes 9aBc… --json']);

  const slash = moneyCommand(
    program,
    'slash',
    'Show the chain that a node key contradicts itself; the reporter is rewarded.',
  )
    .argument('<file>', 'JSON: { signer, commits: [2], signatures: [2] }, bytes in base64')
    .action(
      run(async ({ context, flags, words }) => (await import('./cli/slash.ts')).slashCommand(context, flags, words)),
    );
  examples(slash, ['molt slash evidence.json']);

  const verifier = moneyCommand(
    program,
    'verifier',
    'List who judges disputes and what this node judged, join them, or leave.',
  )
    .argument('[action]', 'list, join or leave', 'list')
    .argument('[provider]', 'leave: whom the authority sends away (default: the provider of this home)')
    .option('--authority <file>', "key file of the market's authority; a local chain signs without")
    .action(
      run(async ({ context, flags, words }) =>
        (await import('./cli/verifier.ts')).verifierCommand(context, flags, words),
      ),
    );
  examples(verifier, ['molt verifier', 'molt verifier join -y', 'molt verifier leave']);
  addDeployCommand(program, run);
}

function addDeployCommand(program: Command, run: Run): void {
  const deploy = moneyCommand(
    program,
    'program',
    'Put the chain program on a cluster, or upgrade it; resumes where it stopped.',
  )
    .argument('<action>', 'deploy')
    .argument('[file]', 'the built program (default: the one that comes with molt)')
    .option(
      '--program-id <id>',
      'keypair file for the first time, address for an upgrade (default: program.json in the home)',
    )
    .action(
      run(async ({ context, flags, words }) =>
        (await import('./cli/program.ts')).programCommand(context, flags, words),
      ),
    );
  examples(deploy, [
    'molt program deploy --rpc https://api.devnet.solana.com',
    'molt program deploy build/molt.so --program-id 7xKX… -y',
  ]);
}
