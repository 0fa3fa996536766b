/**
 * What the runtime gives a program: types, the serialised input, syscalls.
 *
 * Accounts are changed in place in the input buffer. Every layout here is fixed by the runtime.
 */
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

_Static_assert(sizeof(void *) == 8 && sizeof(u64) == 8 && sizeof(u32) == 4, "the target is not 64-bit BPF");

#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))

/** A public key as four words: compared four loads at a time. Always at a multiple of 8. */
typedef struct {
  u64 word[4];
} Key;

/** An account as the loader serialises it: header, then data, then 10,240 spare bytes to grow into. */
typedef struct {
  u8 duplicate; /* 255: first time here, else the index of the earlier one (and nothing but 7 bytes follow) */
  u8 signer;
  u8 writable;
  u8 executable;
  u32 spare;
  Key key;
  Key owner;
  u64 lamports;
  u64 data_length;
  u8 data[];
} Account;

#define ACCOUNT_SPARE_BYTES 10240

/* Cross-program calls. */
typedef struct {
  const Key *key;
  u8 writable;
  u8 signer;
} Meta;

typedef struct {
  const Key *program;
  const Meta *metas;
  u64 meta_count;
  const void *data;
  u64 data_length;
} Instruction;

typedef struct {
  const Key *key;
  u64 *lamports;
  u64 data_length;
  u8 *data;
  const Key *owner;
  u64 rent_epoch;
  u8 signer;
  u8 writable;
  u8 executable;
} AccountInfo;

typedef struct {
  const void *address;
  u64 length;
} Bytes;

/** The seeds of one signing program-derived account. */
typedef struct {
  const Bytes *seeds;
  u64 count;
} SignerSeeds;

typedef struct {
  u64 slot;
  i64 epoch_start;
  u64 epoch;
  u64 leader_schedule_epoch;
  i64 unix_timestamp;
} Clock;

typedef struct {
  u64 lamports_per_byte;
  u64 exemption_threshold; /* the bits of a double */
  u8 burn_percent;
} Rent;

extern void sol_log_(const char *text, u64 length);
extern void sol_log_data(const Bytes *parts, u64 count);
extern u64 sol_get_clock_sysvar(Clock *clock);
extern u64 sol_get_rent_sysvar(Rent *rent);
extern u64 sol_invoke_signed_c(const Instruction *instruction, const AccountInfo *infos, u64 info_count, const SignerSeeds *signers,
                               u64 signer_count);
extern u64 sol_try_find_program_address(const Bytes *seeds, u64 count, const Key *program, Key *address, u8 *bump);
extern u64 sol_sha256(const Bytes *parts, u64 count, Key *digest);
extern void sol_memset_(void *to, u8 value, u64 length);
extern void sol_memcpy_(void *to, const void *from, u64 length);
extern void sol_memcmp_(const void *a, const void *b, u64 length, int *result);

#ifdef __bpf__
/* The compiler may call these two for large copies whatever its flags say. */
void *memcpy(void *to, const void *from, u64 length) {
  sol_memcpy_(to, from, length);
  return to;
}

void *memset(void *to, int value, u64 length) {
  sol_memset_(to, (u8)value, length);
  return to;
}
#endif

NOINLINE u64 same_key(const Key *a, const Key *b) {
  return a->word[0] == b->word[0] && a->word[1] == b->word[1] && a->word[2] == b->word[2] && a->word[3] == b->word[3];
}

/** The same bytes, however they are aligned. */
NOINLINE u64 same_bytes(const void *a, const void *b, u64 length) {
  int difference = 1;
  sol_memcmp_(a, b, length, &difference);
  return difference == 0;
}
