/**
 * The shape of the system call allow-list on each architecture. What it stops is shown by a hostile job on a real engine
 * (container-hostile.test.ts); here it is shown that the list is the same where no such machine is at hand.
 */
import { describe, expect, it } from 'vitest';
import { type EngineArchitecture, seccompProfile } from '../../../node/runtime/container/seccomp.ts';

interface Rule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args: readonly { readonly index: number; readonly value: number; readonly op: string }[];
}
interface Profile {
  readonly defaultAction: string;
  readonly architectures: readonly string[];
  readonly syscalls: readonly Rule[];
}

const REFUSED = `
  mount umount2 pivot_root fsopen move_mount open_tree unshare setns chroot bpf ptrace process_vm_readv process_vm_writev
  perf_event_open userfaultfd keyctl add_key kexec_load init_module finit_module open_by_handle_at io_uring_enter
  io_uring_register reboot
`
  .trim()
  .split(/\s+/);
const ARCHITECTURES: readonly (readonly [EngineArchitecture, string])[] = [
  ['x86_64', 'SCMP_ARCH_X86_64'],
  ['aarch64', 'SCMP_ARCH_AARCH64'],
];

describe.each(ARCHITECTURES)('the system calls of a container job on %s', (architecture, name) => {
  const profile = JSON.parse(seccompProfile(architecture)) as Profile;
  const allowing = profile.syscalls.filter(({ action }) => action === 'SCMP_ACT_ALLOW');

  it('are those of an allow-list for that architecture alone: no other entry to the kernel', () => {
    expect(profile.defaultAction).toBe('SCMP_ACT_ERRNO');
    expect(profile.architectures).toEqual([name]);
  });

  it('have nothing among them that reaches beyond the job', () => {
    const names = new Set(allowing.flatMap((rule) => rule.names));
    expect(REFUSED.filter((call) => names.has(call))).toEqual([]);
    for (const needed of ['read', 'write', 'openat', 'execve', 'mmap', 'futex', 'exit_group', 'clone'])
      expect(names.has(needed)).toBe(true);
  });

  it('open sockets of four families, neither to the hypervisor nor into the kernel', () => {
    const families = allowing.filter((rule) => rule.names.includes('socket'));
    expect(families.map(({ args }) => args[0]?.value)).toEqual([1, 2, 10, 16]);
    for (const { args } of families) expect(args[0]).toMatchObject({ index: 0, op: 'SCMP_CMP_EQ' });
  });

  it('start processes without namespaces, and say of io_uring and clone3 that the kernel lacks them', () => {
    const clone = allowing.find((rule) => rule.names.includes('clone'));
    expect(clone?.args[0]).toMatchObject({ value: 0x7e020000, op: 'SCMP_CMP_MASKED_EQ' });
    const lacking = profile.syscalls.find((rule) => rule.names.includes('io_uring_setup'));
    expect(lacking).toMatchObject({ action: 'SCMP_ACT_ERRNO', errnoRet: 38 });
    expect(lacking?.names).toContain('clone3');
  });
});
