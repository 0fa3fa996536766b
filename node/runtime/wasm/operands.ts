/**
 * What each instruction does to the operand stack: how many values it takes and leaves, and what it means for NaNs.
 *
 * WebAssembly leaves the sign and the payload of a NaN that arithmetic produces to the machine; x86 and Arm differ. Such an
 * instruction `makes` NaNs of a kind. An instruction that `ignores` a kind gives the same result whichever NaN of that
 * kind it is given (or makes such a NaN itself), so nothing is lost by leaving its operands as they are. Everything else
 * (stores, calls, reinterpretation, copysign, abs and neg, selections, lane access) may show the bits to the guest.
 * Source: Core Specification, "Numerics" (NaN propagation) and "Instructions".
 */

/** Kinds of values whose NaNs are machine-dependent until they are made canonical. */
export const KIND = { f32: 1, f64: 2, f32x4: 3, f64x2: 4 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/** Columns of the tables below, which have a row for each opcode of one byte and then for each of `0xfd`. */
const ROWS = 512;
const takes = new Uint8Array(ROWS);
const leaves = new Uint8Array(ROWS);
const makes = new Uint8Array(ROWS);
const ignores = new Uint8Array(ROWS);

function row(opcode: number): number {
  return opcode < 0x100 ? opcode : 0x100 | (opcode & 0xff);
}

/** First and last opcode of a range, as lists of pairs. */
function each(ranges: readonly (readonly [number, number])[], set: (row: number) => void): void {
  for (const [first, last] of ranges) for (let opcode = first; opcode <= last; opcode++) set(row(opcode));
}

function arity(taken: number, left: number, ranges: readonly (readonly [number, number])[]): void {
  each(ranges, (at) => {
    takes[at] = taken;
    leaves[at] = left;
  });
}

const one = (opcode: number): readonly [number, number] => [opcode, opcode];
const simd = (first: number, last: number = first): readonly [number, number] => [0xfd00 | first, 0xfd00 | last];

// Every value that is not listed as unary takes two; what is listed below is exact, what does not exist is refused later.
arity(2, 1, [[0x45, 0xc4], simd(14, 255)]);
arity(1, 1, [
  one(0x45), // eqz
  one(0x50),
  [0x67, 0x69], // clz, ctz, popcnt
  [0x79, 0x7b],
  [0x8b, 0x91], // abs to sqrt
  [0x99, 0x9f],
  [0xa7, 0xc4], // conversions, reinterpretation, sign extension
  [0x28, 0x35], // loads
  one(0x25), // table.get
  one(0xd1), // ref.is_null
  one(0x22), // local.tee
  simd(0, 10), // loads
  simd(15, 22), // splats, extract_lane
  simd(24, 25),
  simd(27),
  simd(29),
  simd(31),
  simd(33),
  simd(77), // not
  simd(83), // any_true
  simd(92, 100), // zero-extending loads, demote, promote, i8x16.abs to bitmask
  simd(103, 106), // f32x4.ceil to nearest
  simd(116, 117), // f64x2.ceil, floor
  simd(122), // f64x2.trunc
  simd(124, 129), // extadd_pairwise, i16x8.abs, neg
  simd(131, 132),
  simd(135, 138),
  simd(148), // f64x2.nearest
  simd(160, 161),
  simd(163, 164),
  simd(167, 170),
  simd(192, 193),
  simd(195, 196),
  simd(199, 202),
  simd(224, 225), // f32x4.abs, neg
  simd(227), // f32x4.sqrt
  simd(236, 237),
  simd(239),
  simd(248, 255), // conversions
]);
arity(0, 1, [one(0x20), one(0x23), one(0x3f), [0x41, 0x44], one(0xd0), one(0xd2), simd(12)]);
arity(1, 0, [one(0x1a), one(0x21), one(0x24)]);
arity(1, 1, [one(0x40)]);
arity(2, 0, [[0x36, 0x3e], one(0x26), simd(11), simd(88, 91)]);
arity(2, 1, [simd(13), simd(84, 87)]);
arity(3, 1, [one(0x1b), one(0x1c), simd(82)]);

function nan(table: Uint8Array, kind: Kind, ranges: readonly (readonly [number, number])[]): void {
  each(ranges, (at) => {
    table[at] = kind;
  });
}

// ceil, floor, trunc, nearest, sqrt, add, sub, mul, div, min, max, and the conversions between float types.
const arithmetic: readonly (readonly [Kind, readonly (readonly [number, number])[]])[] = [
  [KIND.f32, [[0x8d, 0x97]]],
  [KIND.f64, [[0x9b, 0xa5]]],
  [KIND.f32x4, [simd(103, 106), simd(227, 233)]],
  [KIND.f64x2, [simd(116, 117), simd(122), simd(148), simd(239, 245)]],
];
for (const [kind, ranges] of arithmetic) {
  nan(makes, kind, ranges);
  nan(ignores, kind, ranges);
}
nan(makes, KIND.f32, [one(0xb6)]); // f32.demote_f64
nan(makes, KIND.f64, [one(0xbb)]); // f64.promote_f32
nan(makes, KIND.f32x4, [simd(94)]); // f32x4.demote_f64x2_zero
nan(makes, KIND.f64x2, [simd(95)]); // f64x2.promote_low_f32x4
// Comparisons and conversions to integers see only that it is a NaN.
nan(ignores, KIND.f32, [[0x5b, 0x60], [0xa8, 0xa9], [0xae, 0xaf], one(0xbb)]);
nan(ignores, KIND.f64, [[0x61, 0x66], [0xaa, 0xab], [0xb0, 0xb1], one(0xb6)]);
nan(ignores, KIND.f32x4, [simd(65, 70), simd(95), simd(248, 249)]);
nan(ignores, KIND.f64x2, [simd(71, 76), simd(94), simd(252, 253)]);

/** Values an instruction without control flow takes. `0xfc` has a rule of its own: conversions, then bulk operations. */
export function takesOf(opcode: number): number {
  if (opcode >> 8 !== 0xfc) return takes[row(opcode)] ?? 0;
  const sub = opcode & 0xff;
  if (sub <= 7) return 1;
  if (sub === 15) return 2; // table.grow
  return sub === 9 || sub === 13 || sub === 16 ? 0 : 3; // data.drop, elem.drop, table.size
}

export function leavesOf(opcode: number): number {
  if (opcode >> 8 !== 0xfc) return leaves[row(opcode)] ?? 0;
  const sub = opcode & 0xff;
  return sub <= 7 || sub === 15 || sub === 16 ? 1 : 0;
}

/** The kind of machine-dependent NaN an instruction can leave, 0 for none. */
export function nanMadeBy(opcode: number): Kind | 0 {
  return opcode >> 8 === 0xfc ? 0 : ((makes[row(opcode)] ?? 0) as Kind | 0);
}

/** Whether the result does not depend on which NaN of this kind the operand is. */
export function ignoresNan(opcode: number, kind: number): boolean {
  if (opcode === 0x1a) return true; // drop
  // Saturating conversions: two of f32, two of f64, and the same to i64.
  if (opcode >> 8 === 0xfc) return (opcode & 0xff) <= 7 && kind === ((opcode & 2) === 0 ? KIND.f32 : KIND.f64);
  return ignores[row(opcode)] === kind;
}

/** Whether the result is a float and never a NaN: conversions from integers. */
export function isNeverNan(opcode: number): boolean {
  return (opcode >= 0xb2 && opcode <= 0xb5) || (opcode >= 0xb7 && opcode <= 0xba);
}
