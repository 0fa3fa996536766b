/**
 * `npm run bench`: measures what the documentation claims, each figure beside a baseline of the same run.
 *
 * `npm run bench -- NAME…` runs the groups whose name starts so; `--json` prints one JSON object a line; `--list` names
 * the groups. Targets are for a machine of two cores; a missed one is said, and does not fail the command.
 */
import { artifactBig } from './bench/artifact-big.ts';
import { artifact } from './bench/artifact.ts';
import { chainCost } from './bench/chain-cost.ts';
import { dispatch, manyJobs } from './bench/container.ts';
import { devnet } from './bench/devnet.ts';
import { flow } from './bench/flow.ts';
import { book, gossip, quotes } from './bench/mesh.ts';
import { logLatency } from './bench/log-latency.ts';
import { nodeStart } from './bench/node-start.ts';
import { simulation } from './bench/simulation.ts';
import { endings } from './bench/endings.ts';
import { stall } from './bench/stall.ts';
import { wasm } from './bench/wasm.ts';
import { type Group, type Row, holds, ratio, readable } from './bench/row.ts';

const GROUPS: readonly Group[] = [
  nodeStart,
  flow(3),
  flow(10),
  gossip,
  quotes,
  book,
  stall,
  simulation,
  chainCost,
  endings,
  devnet,
  artifact,
  artifactBig,
  wasm,
  dispatch,
  logLatency,
  manyJobs,
];

const words = process.argv.slice(2);
const json = words.includes('--json');
const names = words.filter((word) => !word.startsWith('--'));
const unknown = words.filter((word) => word.startsWith('--') && word !== '--json' && word !== '--list');
const wanted = GROUPS.filter((group) => names.length === 0 || names.some((name) => group.name.startsWith(name)));

if (unknown.length > 0 || wanted.length === 0) {
  const what = unknown.length > 0 ? `unknown option ${unknown.join(' ')}` : `no group is called ${names.join(', ')}`;
  console.error(`${what}; groups: ${GROUPS.map((group) => group.name).join(', ')}; options: --json, --list`);
  process.exit(2);
}
if (words.includes('--list')) {
  for (const { name, about } of GROUPS) console.log(`${name.padEnd(12)} ${about}`);
  process.exit(0);
}

const HEAD = ['figure', 'value', 'unit', 'baseline', 'ratio', 'target', 'holds', 'baseline is'];
const WIDTHS = [46, 10, 12, 10, 7, 9, 6, 0];

function line(cells: readonly string[]): string {
  return cells
    .map((cell, index) =>
      index === 0 || index === 7 ? cell.padEnd(WIDTHS[index] ?? 0) : cell.padStart(WIDTHS[index] ?? 0),
    )
    .join(' ')
    .trimEnd();
}

function print(row: Row): void {
  if (json) {
    console.log(JSON.stringify({ ...row, ratio: ratio(row), holds: holds(row) }));
    return;
  }
  const target = `${row.bound === 'at-least' ? '≥' : '≤'} ${readable(row.target)}`;
  const { name, value, unit, baseline, baselineIs } = row;
  console.log(
    line([
      name,
      readable(value),
      unit,
      readable(baseline),
      readable(ratio(row)),
      target,
      holds(row) ? 'yes' : 'NO',
      baselineIs,
    ]),
  );
}

for (const group of wanted) {
  if (!json) {
    console.log(`\n${group.about}`);
    console.log(line(HEAD));
  }
  await group.run(print);
}
process.exit(0);
