/** Goal: who waits for capacity goes on as soon as there is enough of it, and never waits long. Method: a clock by hand. */
import { beforeEach, expect, test } from 'vitest';

import { LEAVING_WAIT_MS, Leaving } from '../../../node/provider/leaving.ts';
import { systemEnv } from '../../../protocol/env.ts';

const { clock } = systemEnv();

let free: number;
let asked: number[];
let timeIsUp: () => void;
let leaving: Leaving;

beforeEach(() => {
  free = 0;
  asked = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  timeIsUp = resolve;
  const sleep = (ms: number): Promise<void> => {
    asked.push(ms);
    return promise;
  };
  leaving = new Leaving({ clock: { ...clock, sleep } });
});

/** A job that frees one unit when it is told to go. */
function job(): (error?: Error) => void {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const end = (): void => void (free += 1);
  leaving.add(promise.then(end, end));
  return (error) => (error === undefined ? resolve() : reject(error));
}

async function until(wanted: number): Promise<number> {
  await leaving.until(() => free >= wanted);
  return free;
}

test('nobody waits where nothing leaves, or where there is enough', async () => {
  expect(await until(1)).toBe(0);
  job();
  free = 1;
  expect(await until(1)).toBe(1);
  expect(asked).toEqual([]);
});

test('the first that frees enough ends the wait, however it went', async () => {
  const [first, second] = [job(), job()];
  const one = until(1);
  const two = until(2);
  first(new Error('the folder could not be removed'));
  expect(await one).toBe(1);
  const order: string[] = [];
  void two.then(() => order.push('two'));
  await new Promise(setImmediate);
  expect(order).toEqual([]);
  second();
  expect(await two).toBe(2);
});

test('who lacks more than what leaves is let go with the last of it', async () => {
  const go = job();
  const wait = until(5);
  go();
  expect(await wait).toBe(1);
  // It is forgotten: the next one does not wait.
  expect(await until(5)).toBe(1);
});

test('what does not leave holds nobody for long', async () => {
  job();
  const wait = until(1);
  timeIsUp();
  expect(await wait).toBe(0);
  expect(asked).toEqual([LEAVING_WAIT_MS]);
});
