/**
 * The system calls a container job may make: an allow-list of our own, passed inline with each container.
 *
 * Older engines' default profiles leave AF_VSOCK (a channel to the hypervisor of a rented machine) and io_uring open, and
 * allow tracing and foreign memory access; this one does not. The names are those of x86-64's table without what changes
 * the machine, its clock, mounts, namespaces, keys, other processes or NUMA placement; arm64 knows a subset of them, and
 * runc passes over names that an architecture lacks. Format: Docker's seccomp JSON.
 */

const ALLOWED = `
  accept accept4 access alarm arch_prctl bind brk capget capset chdir chmod chown clock_getres clock_gettime
  clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1
  epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat
  faccessat2 fadvise64 fallocate fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr flistxattr
  flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate futex futex_waitv futimesat get_robust_list
  get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername
  getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid
  getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch inotify_init inotify_init1
  inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get
  ioprio_set kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat
  listen listxattr llistxattr lremovexattr lseek lsetxattr lstat madvise membarrier memfd_create mincore mkdir
  mkdirat mknod mknodat mlock mlock2 mlockall mmap mprotect mq_getsetattr mq_notify mq_open mq_timedreceive
  mq_timedsend mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat
  open openat openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
  ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev pwritev2 read readahead readlink
  readlinkat readv recvfrom recvmmsg recvmsg removexattr rename renameat renameat2 restart_syscall rmdir rseq
  rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
  rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
  sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam sched_setscheduler
  sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg sendmsg sendto set_robust_list
  set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid setpriority setregid
  setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown
  sigaltstack signalfd signalfd4 socketpair splice stat statfs statx symlink symlinkat sync sync_file_range
  syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
  timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat utime
  utimensat utimes vfork wait4 waitid write writev
`;

/** Namespace flags of clone(2): a job may start processes and threads, not namespaces. */
const CLONE_NAMESPACES = 0x7e020000;
const ENOSYS = 38;
/** AF_UNIX, AF_INET, AF_INET6, AF_NETLINK. */
const SOCKET_FAMILIES: readonly number[] = [1, 2, 10, 16];
/** Linux execution domain, and the question what it is. */
const PERSONALITIES: readonly number[] = [0, 0xffffffff];

export type EngineArchitecture = 'x86_64' | 'aarch64';

const ARCHITECTURES: Readonly<Record<EngineArchitecture, string>> = {
  x86_64: 'SCMP_ARCH_X86_64',
  aarch64: 'SCMP_ARCH_AARCH64',
};

/** The profile as JSON, for `SecurityOpt: ['seccomp=' + …]`. */
export function seccompProfile(architecture: EngineArchitecture): string {
  const allow = 'SCMP_ACT_ALLOW';
  const equal = (name: string, value: number): object => ({
    names: [name],
    action: allow,
    args: [{ index: 0, value, valueTwo: 0, op: 'SCMP_CMP_EQ' }],
  });
  return JSON.stringify({
    defaultAction: 'SCMP_ACT_ERRNO',
    architectures: [ARCHITECTURES[architecture]],
    syscalls: [
      { names: ALLOWED.trim().split(/\s+/), action: allow, args: [] },
      ...SOCKET_FAMILIES.map((family) => equal('socket', family)),
      ...PERSONALITIES.map((persona) => equal('personality', persona)),
      {
        names: ['clone'],
        action: allow,
        args: [{ index: 0, value: CLONE_NAMESPACES, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }],
      },
      // "Not implemented" makes libraries fall back (to clone, to no NUMA placement) where "not permitted" would not.
      {
        names: ['clone3', 'mbind', 'set_mempolicy', 'set_mempolicy_home_node', 'get_mempolicy', 'io_uring_setup'],
        action: 'SCMP_ACT_ERRNO',
        errnoRet: ENOSYS,
        args: [],
      },
    ],
  });
}
