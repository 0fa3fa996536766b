/**
 * The compute kernel of the bench as WebAssembly: what a C compiler makes of matrix.c with 128-bit vectors, by hand.
 *
 * The product of two square matrices of f32, rows times rows, four vectors a step. The guest prints the bits of the last
 * element, by which the two programs are seen to have done the same.
 */
import { assemble, leb, signed } from '../../test/node/runtime/module.ts';

const N = 512;
const ROUNDS = 4;
const ROW = 4 * N;
const MATRIX = ROW * N;
const [A, B, C] = [0, MATRIX, 2 * MATRIX];
/** Behind the matrices: a vector of one word, the last element, and a count of written bytes. */
const VECTOR = 3 * MATRIX;

const constant = (value: number): number[] => [0x41, ...signed(value)];
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const add = (local: number, value: number): number[] => [...get(local), ...constant(value), 0x6a, ...set(local)];
const simd = (sub: number): number[] => [0xfd, ...leb(sub)];
/** Repeats while `local` is below what `end` gives. */
const loop = (body: readonly number[], local: number, end: readonly number[]): number[] => [
  0x03,
  0x40,
  ...body,
  ...get(local),
  ...end,
  0x49,
  0x0d,
  0x00,
  0x0b,
];

const [a, b, c, rowEnd, factorsEnd, row, round, factor] = [0, 1, 2, 3, 4, 5, 6, 7];

/** c[0..3] += factor * b[0..3], at an offset. */
const step = (offset: number): number[] => [
  ...get(c),
  ...get(c),
  ...simd(0),
  4,
  ...leb(offset),
  ...get(factor),
  ...get(b),
  ...simd(0),
  4,
  ...leb(offset),
  ...simd(230),
  ...simd(228),
  ...simd(11),
  4,
  ...leb(offset),
];

export function matrixKernel(): Uint8Array {
  const fill = [
    ...get(a),
    ...get(a),
    ...constant(255),
    0x71,
    0xb3,
    0x43,
    0,
    0,
    0,
    0x3c,
    0x94,
    0x38,
    2,
    0,
    ...add(a, 4),
  ];
  const columns = loop([...[0, 16, 32, 48].flatMap(step), ...add(b, 64), ...add(c, 64)], c, get(rowEnd));
  const factors = loop(
    [
      ...get(a),
      0x2a,
      2,
      0,
      ...simd(19),
      ...set(factor),
      ...get(row),
      ...set(c),
      ...get(row),
      ...constant(ROW),
      0x6a,
      ...set(rowEnd),
      ...columns,
      ...add(a, 4),
    ],
    a,
    get(factorsEnd),
  );
  const rows = loop(
    [...get(a), ...constant(ROW), 0x6a, ...set(factorsEnd), ...constant(B), ...set(b), ...factors, ...add(row, ROW)],
    a,
    constant(MATRIX),
  );
  const rounds = loop(
    [...constant(A), ...set(a), ...constant(C), ...set(row), ...rows, ...add(round, 1)],
    round,
    constant(ROUNDS),
  );
  const print = [
    ...constant(VECTOR),
    ...constant(VECTOR - 4),
    54,
    2,
    0,
    ...constant(VECTOR + 4),
    ...constant(4),
    54,
    2,
    0,
    ...constant(1),
    ...constant(VECTOR),
    ...constant(1),
    ...constant(VECTOR + 8),
    16,
    0,
    26,
  ];
  const locals = [2, 7, 0x7f, 1, 0x7b];
  const body = [...locals, ...loop(fill, a, constant(C)), ...rounds, ...print, 0x0b];
  return assemble({ imports: ['fd_write'], bodies: [body], memory: [0, ...leb(VECTOR / 65_536 + 1)] });
}
