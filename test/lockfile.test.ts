/**
 * Goal: `npm ci` works wherever the checkout goes. Method: every optional dependency, also of platforms other than this
 * one, must have its entry in the lock file. npm leaves those out that its registry does not serve, and then refuses to
 * install from the file that it wrote.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { expect, test } from 'vitest';

interface Entry {
  readonly version?: string;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
}

test('the lock file names every optional dependency of every package', () => {
  const text = readFileSync(join(import.meta.dirname, '../package-lock.json'), 'utf8');
  const { packages } = JSON.parse(text) as { packages: Readonly<Record<string, Entry>> };
  const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
    Object.entries(optionalDependencies)
      .filter(([name]) => packages[`${path}/node_modules/${name}`] === undefined)
      .filter(([name]) => packages[`node_modules/${name}`] === undefined)
      .map(([name, version]) => `${name}@${version}, wanted by ${path}`),
  );
  expect(missing, 'add an entry with version, os, cpu and optional: true for each').toEqual([]);
});

test('the lock file names no registry', () => {
  const text = readFileSync(join(import.meta.dirname, '../package-lock.json'), 'utf8');
  const places = [...text.matchAll(/"resolved": "([^"]*)"/g)].map(([, place]) => place ?? '');
  // A folder of this repository is no address.
  expect(places.filter((place) => !/^test\/[a-z0-9/-]+$/.test(place))).toEqual([]);
});
