/**
 * Goal: the README says what is there. Method: its table, commands and folders against the schema, the program and the
 * tree; its snippets are run by test/integration/readme.test.ts.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

import { describe, expect, it } from 'vitest';

import { SETTINGS, SETTING_NAMES } from '../node/config.ts';

const root = join(import.meta.dirname, '..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');
const guide = readFileSync(join(root, 'node/README.md'), 'utf8');
const scripts = (JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { scripts: Record<string, string> })
  .scripts;

const row = (name: keyof typeof SETTINGS): string =>
  `| \`${name}\` | \`${JSON.stringify(SETTINGS[name].default)}\` | ${SETTINGS[name].unit} | ${SETTINGS[name].text} |`;

describe('README of a provider', () => {
  it('has the table of settings that the schema has', () => {
    const wanted = ['| setting | default | unit | meaning |', '|---|---|---|---|', ...SETTING_NAMES.map(row)].join(
      '\n',
    );
    const between = /<!-- settings:.*?-->\n\n(.*?)\n\n<!-- end of settings -->/s.exec(guide);
    expect(between?.[1]).toBe(wanted);
  });
});

describe('README', () => {
  it('has at most 200 lines', () => {
    expect(readme.split('\n').length).toBeLessThanOrEqual(200);
  });

  it('names only npm scripts that exist', () => {
    const named = [...readme.matchAll(/npm run ([a-z-]+)/g)].map((match) => match[1] ?? '');
    expect(named.length).toBeGreaterThan(5);
    for (const name of new Set(named)) expect(scripts).toHaveProperty(name);
  });

  it('maps every folder of sources, and no other', () => {
    const mapped = [...readme.matchAll(/^\| `([a-z]+)\/` \|/gm)].map((match) => match[1] ?? '');
    const folders = readdirSync(root, { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !entry.name.startsWith('.') && existsSync(join(root, entry.name)))
      .map((entry) => entry.name)
      .filter((name) => !['node_modules', 'dist', 'molt-demo-out', 'molt-out'].includes(name));
    expect(mapped.sort()).toEqual(folders.sort());
  });

  it('names only files that exist', () => {
    const named = [...readme.matchAll(/`((?:protocol|market|chain|attestation|node|sdk|scripts|test)\/[\w./-]*)`/g)];
    expect(named.length).toBeGreaterThan(10);
    for (const [, path = ''] of named) expect(existsSync(join(root, path)), path).toBe(true);
  });

  it('gives only options that the program has', () => {
    const commands = [...readme.matchAll(/npm run molt -- ([a-z]+)([^\n`]*)/g)];
    expect(commands.length).toBeGreaterThan(5);
    for (const [line, command = '', rest = ''] of commands) {
      const help = spawnSync(process.execPath, ['node/molt.js', command, '--help'], { cwd: root, encoding: 'utf8' });
      for (const [flag] of rest.split(' -- ')[0]?.matchAll(/--[a-z-]+/g) ?? [])
        expect(help.stdout, line).toContain(flag);
    }
  });
});
