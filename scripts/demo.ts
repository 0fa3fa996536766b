/** `npm run demo`: the command `molt demo` with the same options. */
import { main } from '../node/cli.ts';

await main(['demo', ...process.argv.slice(2)]);
