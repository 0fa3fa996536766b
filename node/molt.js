#!/usr/bin/env -S MALLOC_ARENA_MAX=1 node --max-semi-space-size=1
// The door of the program, in JavaScript that an old Node still reads: says which Node is needed, or goes on. The flag
// above keeps the young generation small. Network buffers die young, and only collecting the young frees them cheaply: with
// Node's 16 MB they pile up until the whole heap is marked, which is half the work of a transfer (bench row `artifact`).
// One arena for what is allocated outside the heap: otherwise every thread keeps free memory of its own, and what TLS needs
// for 150 peers lies scattered over all of them (bench row `node-start`).
//
// The program lies beside it: TypeScript in a checkout, one bundle in what is built and published, where this is dist/molt.js.
import { existsSync } from 'node:fs';
import * as nodeModule from 'node:module';

var major = Number(process.versions.node.split('.')[0]);
if (major < 24) {
  console.error(
    'molt needs Node 24 or newer, this is ' +
      process.versions.node +
      ': run `npx -y node@24 "' +
      process.argv[1] +
      '" …` (in a checkout: `npm run molt -- …`), or install it from https://nodejs.org',
  );
  process.exit(1);
} else {
  // Compiled code of this program and its libraries is kept between starts: a node listens in half the time.
  if (nodeModule.enableCompileCache) nodeModule.enableCompileCache();
  var source = new URL('./cli.ts', import.meta.url);
  var program = existsSync(source) ? source : new URL('./program/cli.js', import.meta.url);
  void import(program.href).then(function (cli) {
    return cli.main(process.argv.slice(2));
  });
}
