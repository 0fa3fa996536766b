/**
 * `npm run proto`: generates protocol/molt.js and protocol/molt.d.ts from protocol/molt.proto; `--check` fails when the
 * committed files differ. protons writes TypeScript with namespaces, which Node does not strip, so the result is
 * compiled once here instead of at every start.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const root = new URL('..', import.meta.url).pathname;
const bin = (name: string): string => join(root, 'node_modules/.bin', name);
// Inside the checkout, so that the compiler finds node_modules.
const scratch = mkdtempSync(join(root, '.proto-'));
try {
  execFileSync(bin('protons'), ['protocol/molt.proto', '-o', scratch], { cwd: root, stdio: 'inherit' });
  const options = ['--target', 'ESNext', '--module', 'NodeNext', '--declaration', '--skipLibCheck', '--ignoreConfig'];
  execFileSync(bin('tsc'), [...options, '--outDir', scratch, join(scratch, 'molt.ts')], {
    cwd: root,
    stdio: 'inherit',
  });
  for (const file of ['molt.js', 'molt.d.ts']) {
    // Any bytes are bytes: the narrower buffer type would ask every caller for a copy.
    const compiled = readFileSync(join(scratch, file), 'utf8')
      .replaceAll('Uint8Array<ArrayBuffer>', 'Uint8Array')
      // The codec's runtime reads a fixed64 as if it had a sign.
      .replaceAll('reader.fixed64()', 'BigInt.asUintN(64, reader.fixed64())');
    const made = `// Generated from molt.proto by \`npm run proto\`. Do not edit.\n${compiled}`;
    const target = join(root, 'protocol', file);
    if (!process.argv.includes('--check')) writeFileSync(target, made);
    else if (readFileSync(target, 'utf8') !== made) {
      console.error(`protocol/${file} differs from protocol/molt.proto: run \`npm run proto\` and commit the result`);
      process.exitCode = 1;
    }
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
