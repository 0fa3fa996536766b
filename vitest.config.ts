import { defineConfig } from 'vitest/config';

/**
 * Two lanes: `unit` holds everything that runs inside one process; `integration` starts real processes, a real chain
 * and (where an engine answers) real containers. No retries: a test that fails sometimes is a defect.
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/integration/**'],
          testTimeout: 30_000,
          hookTimeout: 30_000,
        },
      },
      {
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          fileParallelism: false,
        },
      },
    ],
  },
});
