/**
 * The demo's default input: a year of sales of a small chain of shops, as CSV, the same bytes on every machine.
 */
import { createWriteStream } from 'node:fs';
import { once } from 'node:events';

const REGIONS = ['north', 'east', 'south', 'west', 'islands'] as const;
const PRODUCTS = [
  ['kettle', 2_490],
  ['lamp', 3_950],
  ['chair', 8_900],
  ['desk', 24_900],
  ['blanket', 3_200],
  ['mug', 790],
  ['clock', 1_850],
  ['shelf', 6_400],
] as const;

export const DATASET_ROWS = 100_000;

/** Writes the CSV (5.3 MB, 100,000 rows of 8 columns). */
export async function writeDataset(path: string, rows: number = DATASET_ROWS): Promise<void> {
  const file = createWriteStream(path, { mode: 0o600 });
  const next = generator(20_251_120);
  file.write('order,date,region,shop,product,quantity,unit_price,revenue\n');
  let chunk = '';
  for (let row = 0; row < rows; row++) {
    chunk += line(row, rows, next);
    if (chunk.length > 1 << 18) {
      if (!file.write(chunk)) await once(file, 'drain');
      chunk = '';
    }
  }
  file.end(chunk);
  await once(file, 'close');
}

function line(row: number, rows: number, next: () => number): string {
  const dayOfYear = Math.floor((row * 365) / rows);
  const date = new Date(Date.UTC(2025, 0, 1 + dayOfYear)).toISOString().slice(0, 10);
  const region = Math.floor(next() * next() * REGIONS.length);
  const shop = Math.floor(next() * 12) + 1;
  const [product, priceCents] = PRODUCTS[Math.floor(next() * PRODUCTS.length)] ?? PRODUCTS[0];
  const quantity = 1 + Math.floor(next() * next() * 9);
  // More is sold towards the end of the year, and one price in twenty is a discount.
  const season = dayOfYear > 320 ? 1.15 : 1;
  const cents = Math.round(priceCents * season * (next() < 0.05 ? 0.8 : 1));
  const money = (amount: number): string => (amount / 100).toFixed(2);
  const order = `A${String(row + 100_000)}`;
  return `${order},${date},${REGIONS[region] ?? REGIONS[0]},shop-${String(shop).padStart(2, '0')},${product},${quantity},${money(cents)},${money(cents * quantity)}\n`;
}

/** Numbers in [0, 1) from a seed: mulberry32. Made for equal files everywhere, not for secrets. */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
