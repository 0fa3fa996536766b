import { availableParallelism } from 'node:os';

import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

/**
 * More files at a time than processors: an integration test waits for other processes half of its time. Every file
 * brings its own chain, homes, ports, namespaces and engines, so that none sees another; whatever is shared (the
 * container engine, loop devices) is told apart by a node's own name.
 */
const maxWorkers = availableParallelism() + 2;

/** How long what will come true may take on a machine that does other things as well. Nothing is asserted by it. */
const POLL_MS = 60_000;

/** When a test hangs. What one computes or writes to disk takes ten times as long beside others; only longer ones say so. */
const HANGS_MS = 180_000;

/**
 * Mixes the projects, so that files that compute and files that wait run side by side from the first to the last. Within
 * a project the order is vitest's own: what failed last time, then what took longest, or the largest where no time is known.
 */
class SideBySide extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files);
    const place = (file: TestSpecification): number => {
      const project = sorted.filter((other) => other.project === file.project);
      return isLong(file) ? 0 : (project.indexOf(file) + 0.5) / project.length;
    };
    return sorted
      .map((file) => ({ file, at: place(file) }))
      .toSorted((a, b) => a.at - b.at)
      .map(({ file }) => file);
  }
}

/** Short files that take long, which vitest cannot know at first: begun last, they would run alone. */
const LONG = [
  'test/chain/model.test.ts',
  'test/integration/partition.test.ts',
  'test/integration/engine-gvisor.test.ts',
  'test/integration/engine-mapped-users.test.ts',
  'test/integration/engine-podman.test.ts',
];

function isLong({ moduleId }: TestSpecification): boolean {
  return LONG.some((name) => moduleId.endsWith(name));
}

/**
 * Two lanes: `unit` holds everything that runs inside one process; `integration` starts real processes, a real chain
 * and (where an engine answers) real containers. No retries: a test that fails sometimes is a defect.
 */
export default defineConfig({
  test: {
    maxWorkers,
    sequence: { sequencer: SideBySide },
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/integration/**'],
          testTimeout: HANGS_MS,
          hookTimeout: HANGS_MS,
          expect: { poll: { timeout: POLL_MS } },
          maxWorkers,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          setupFiles: ['test/fixtures/tell-last-words.ts'],
          testTimeout: HANGS_MS,
          hookTimeout: HANGS_MS,
          expect: { poll: { timeout: POLL_MS } },
          maxWorkers,
        },
      },
    ],
  },
});
