/*
 * The program that waits in a pooled container until it is told what to be.
 *
 * It reads one message from stdin (entry.ts writes it): four little-endian words (magic, bytes, arguments, variables), then
 * the arguments and variables as NUL-terminated strings. It then replaces stdin by /dev/null, writes the mark to stderr, by
 * which the node knows that the job begins, and becomes the job: its own variables are the container's, and those of the
 * message win. An end of input before that ends it, which is how a pooled container goes when its node does.
 *
 * Neither library nor data section nor relocation: the text is the whole program (scripts/entry.ts checks that), on x86-64
 * and AArch64. Everything is bounded, and what does not fit ends it with 125.
 */
typedef unsigned int u32;
typedef unsigned long u64;

#define MAGIC 0x31746c6d /* "mlt1" */
#define MARK 0x0a06746c6f6d01ul /* 01 "molt" 06 "\n", seven bytes */
#define MARK_BYTES 7
#define TEXT_MAX (160 * 1024)
#define LIST_MAX 4096
#define PATH_BYTES 4096
#define REFUSED 125

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, EXECVE = 59, EXIT = 231, OPENAT = 257, DUP3 = 292 };
__asm__(".text\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
static inline long call(long number, long a, long b, long c, long d) {
  long result;
  register long fourth __asm__("r10") = d;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(fourth)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
enum { READ = 63, WRITE = 64, CLOSE = 57, EXECVE = 221, EXIT = 94, OPENAT = 56, DUP3 = 24 };
__asm__(".text\n_start: mov x0, sp\n bl run\n");
static inline long call(long number, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}
#endif

static inline void leave(int code) {
  for (;;) call(EXIT, code, 0, 0, 0);
}

/* Reads exactly so many bytes; an end of input is the end of this program. */
static inline void take(char *into, u64 bytes) {
  while (bytes > 0) {
    long got = call(READ, 0, (long)into, (long)bytes, 0);
    if (got == -4) continue; /* interrupted */
    if (got <= 0) leave(0);
    into += got;
    bytes -= (u64)got;
  }
}

/* The byte after the string, or null when it does not end before the limit. */
static inline char *after(char *text, char *limit) {
  while (text < limit) {
    if (*text++ == 0) return text;
  }
  return 0;
}

/* True when both are variables of one name. */
static inline int same_name(const char *a, const char *b) {
  for (;; a++, b++) {
    if (*a != *b) return 0;
    if (*a == '=' || *a == 0) return 1;
  }
}

/* The value of PATH, or null. */
static inline const char *path_of(char **variables) {
  for (; *variables; variables++) {
    const char *v = *variables;
    if (v[0] == 'P' && v[1] == 'A' && v[2] == 'T' && v[3] == 'H' && v[4] == '=') return v + 5;
  }
  return 0;
}

/* Becomes the program, by its path or by the first of PATH that has it. Returns the worst error when nothing does. */
static inline long become(char **arguments, char **variables) {
  char whole[PATH_BYTES];
  const char *program = arguments[0];
  const char *at = program;
  while (*at && *at != '/') at++;
  if (*at) return call(EXECVE, (long)program, (long)arguments, (long)variables, 0);
  long worst = -2; /* no such file */
  for (const char *path = path_of(variables); path && *path;) {
    u64 length = 0;
    for (; *path && *path != ':'; path++)
      if (length < PATH_BYTES) whole[length++] = *path;
    if (*path) path++;
    if (length < PATH_BYTES) whole[length++] = '/';
    for (at = program; length < PATH_BYTES; at++) {
      whole[length++] = *at;
      if (*at == 0) break;
    }
    if (length >= PATH_BYTES) continue;
    long error = call(EXECVE, (long)whole, (long)arguments, (long)variables, 0);
    if (error != -2 && error != -20) worst = error;
  }
  return worst;
}

__attribute__((used, noinline, noreturn)) static void run(u64 *stack) {
  char text[TEXT_MAX];
  char *list[LIST_MAX];
  char **own = (char **)(stack + stack[0] + 2);
  u32 head[4];
  take((char *)head, sizeof head);
  u64 count = (u64)head[2] + head[3];
  if (head[0] != MAGIC || head[1] > TEXT_MAX || head[2] == 0 || count + 2 > LIST_MAX) leave(REFUSED);
  take(text, head[1]);
  char **variables = list + head[2] + 1;
  char *at = text;
  char *limit = text + head[1];
  for (u64 i = 0; i < count; i++) {
    if (i < head[2]) list[i] = at;
    else variables[i - head[2]] = at;
    at = after(at, limit);
    if (!at) leave(REFUSED);
  }
  list[head[2]] = 0;
  u64 given = head[3];
  u64 all = given;
  for (; *own; own++) {
    int known = 0;
    for (u64 i = 0; i < given && !known; i++) known = same_name(*own, variables[i]);
    if (known) continue;
    if (head[2] + 2 + all >= LIST_MAX) leave(REFUSED);
    variables[all++] = *own;
  }
  variables[all] = 0;
  volatile u64 null[2]; /* assigned, so that it is code and not data */
  null[0] = 0x6c756e2f7665642ful; /* "/dev/nul" */
  null[1] = 0x6c; /* "l" */
  long file = call(OPENAT, -100, (long)null, 2, 0);
  if (file < 0 || call(DUP3, file, 0, 0, 0) < 0) leave(REFUSED);
  call(CLOSE, file, 0, 0, 0);
  u64 mark = MARK;
  call(WRITE, 2, (long)&mark, MARK_BYTES, 0);
  long error = become(list, variables);
  leave(error == -2 || error == -20 ? 127 : 126);
  __builtin_unreachable();
}
