/**
 * The NVIDIA Container Toolkit: the part of the passing of GPUs that had ways out of a container.
 *
 * CVE-2024-0132, CVE-2025-23359, CVE-2025-23266, CVE-2025-23267 and CVE-2026-24260 let a container's image run code on or
 * reach the files of the host. The last of them is closed in 1.19.1, so nothing older passes a stranger's job.
 */
import type { Tool } from './tool.ts';

export const TOOLKIT_VERSION_MIN = '1.19.1';

const ASKED: readonly (readonly [string, readonly string[]])[] = [
  ['nvidia-ctk', ['--version']],
  ['nvidia-container-runtime-hook', ['--version']],
  ['nvidia-container-cli', ['--version']],
];

export interface Toolkit {
  /** Undefined when no part of it tells. */
  readonly version: string | undefined;
  /** Why GPUs are not passed with it; undefined when they are. */
  readonly refusal: string | undefined;
}

export async function readToolkit(tool: Tool): Promise<Toolkit> {
  for (const [program, args] of ASKED) {
    const answer = await tool(program, args);
    const version = 'text' in answer ? parseToolkitVersion(answer.text) : undefined;
    if (version !== undefined) return { version, refusal: refusalOf(version) };
  }
  return {
    version: undefined,
    refusal: `the NVIDIA Container Toolkit is not here or does not tell its version; install ${TOOLKIT_VERSION_MIN} or newer`,
  };
}

/** "NVIDIA Container Toolkit CLI version 1.17.8" and "cli-version: 1.17.8" → "1.17.8". */
export function parseToolkitVersion(text: string): string | undefined {
  return /version:? +v?(\d{1,4}\.\d{1,4}\.\d{1,4})/i.exec(text)?.[1];
}

function refusalOf(version: string): string | undefined {
  return isOlder(version, TOOLKIT_VERSION_MIN)
    ? `NVIDIA Container Toolkit ${version} has known ways out of a container (CVE-2026-24260 and older); install ${TOOLKIT_VERSION_MIN} or newer`
    : undefined;
}

function isOlder(version: string, floor: string): boolean {
  const [a, b] = [version, floor].map((text) => text.split('.').map(Number));
  for (const [index, part] of (a ?? []).entries()) {
    const difference = part - (b?.[index] ?? 0);
    if (difference !== 0) return difference < 0;
  }
  return false;
}
