/** A local chain as a process of its own, for the test that kills it. Arguments: folder, port. Prints its URL. */
import { startDevnet } from '../../chain/index.ts';
import { systemEnv } from '../../protocol/env.ts';

const [directory = '', port = '0'] = process.argv.slice(2);
const devnet = await startDevnet(systemEnv(), { directory, port: Number(port) });
console.log(devnet.rpcUrl);
