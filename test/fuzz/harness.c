/**
 * The chain program under libFuzzer: the same source, compiled for this machine with AddressSanitizer and UBSan.
 *
 * The input is a compact form of what Solana's loader hands to a program (chain/program/solana.h): clock, accounts, data.
 * It is unpacked into the loader's form, in memory of exactly that size, as the loader guarantees it: lengths and
 * duplicate markers make sense, and accounts of the program hold what only the program can have written there (counts
 * and times in range). All else is the fuzzer's. System calls are stubs that behave like the runtime.
 *
 * Beside what the sanitisers find, a run aborts when a successful call has changed an account that was not writable or
 * the sum of lamports, or when a refusal has a number that nobody has declared.
 *
 * Compact form, little endian: now u40 · slot u64 · count u8 · per account: flags u8 (1 signer, 2 writable, 4 executable,
 * 128 duplicate); a duplicate: index u8; else key 32, owner 32, lamports u64, length u16, data · length u16, data ·
 * program 32.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../chain/program/molt.c"

#define TIME_MASK ((1ll << 40) - 1)
#define INPUT_MAX (64 * (sizeof(Account) + 32 * 1024 + ACCOUNT_SPARE_BYTES))
#define REFUSED_BY_OTHERS 1

static Clock now_is;
static Account *accounts_are[64];
static u64 accounts_count;

/* System calls */

void sol_log_(const char *text, u64 length) {
  u8 sum = 0;
  for (u64 index = 0; index < length; index++) sum ^= (u8)text[index];
  (void)sum;
}

void sol_log_data(const Bytes *parts, u64 count) {
  for (u64 index = 0; index < count; index++) sol_log_(parts[index].address, parts[index].length);
}

u64 sol_get_clock_sysvar(Clock *clock) {
  *clock = now_is;
  return 0;
}

u64 sol_get_rent_sysvar(Rent *rent) {
  *rent = (Rent){3480, 0x4000000000000000ull, 50};
  return 0;
}

void sol_memset_(void *to, u8 value, u64 length) { memset(to, value, length); }
void sol_memcpy_(void *to, const void *from, u64 length) { memcpy(to, from, length); }
void sol_memcmp_(const void *a, const void *b, u64 length, int *result) { *result = memcmp(a, b, length); }

/** Whatever address stands where the program looks for it: deriving addresses is the runtime's business. */
u64 sol_try_find_program_address(const Bytes *seeds, u64 count, const Key *program, Key *address, u8 *bump) {
  u64 place = seeds[0].length == 6 ? 1 : 3;
  if (place >= accounts_count) return REFUSED_BY_OTHERS;
  *address = accounts_are[place]->key;
  *bump = 255;
  return 0;
}

static u32 rotate(u32 value, int by) { return value >> by | value << (32 - by); }

static void sha256_block(u32 state[8], const u8 *block) {
  static const u32 K[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
      0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
      0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
      0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
      0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
      0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
  u32 words[64], s[8];
  for (int i = 0; i < 16; i++)
    words[i] = (u32)block[4 * i] << 24 | (u32)block[4 * i + 1] << 16 | (u32)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; i++)
    words[i] = words[i - 16] + words[i - 7] +
               (rotate(words[i - 15], 7) ^ rotate(words[i - 15], 18) ^ words[i - 15] >> 3) +
               (rotate(words[i - 2], 17) ^ rotate(words[i - 2], 19) ^ words[i - 2] >> 10);
  memcpy(s, state, 32);
  for (int i = 0; i < 64; i++) {
    u32 a = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + words[i];
    u32 b = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 28);
    s[4] += a;
    s[0] = a + b;
  }
  for (int i = 0; i < 8; i++) state[i] += s[i];
}

/** The real one, so that commitments and draws of the corpus hold. */
u64 sol_sha256(const Bytes *parts, u64 count, Key *digest) {
  u8 message[512] = {0};
  u64 length = 0;
  for (u64 index = 0; index < count; index++) {
    if (length + parts[index].length > 400) abort();
    memcpy(message + length, parts[index].address, parts[index].length);
    length += parts[index].length;
  }
  message[length] = 0x80;
  u64 size = (length + 9 + 63) / 64 * 64;
  for (int i = 0; i < 8; i++) message[size - 1 - i] = (u8)(length * 8 >> 8 * i);
  u32 state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  for (u64 at = 0; at < size; at += 64) sha256_block(state, message + at);
  u8 *out = (u8 *)digest;
  for (int i = 0; i < 32; i++) out[i] = (u8)(state[i / 4] >> (24 - 8 * (i % 4)));
  return 0;
}

static Account *account_of(const AccountInfo *infos, u64 count, const Key *key) {
  for (u64 index = 0; index < count; index++) {
    if (same_key(infos[index].key, key)) return (Account *)((u8 *)infos[index].key - __builtin_offsetof(Account, key));
  }
  return 0;
}

static u64 token_program(const u8 *data, u64 length, Account *const *of) {
  TokenAccount *first = (TokenAccount *)of[0]->data, *second = (TokenAccount *)of[1]->data;
  u64 amount = 0;
  if (length >= 9) memcpy(&amount, data + 1, 8);
  if (data[0] == 18) {
    if (of[0]->data_length != TOKEN_ACCOUNT_SIZE) return REFUSED_BY_OTHERS;
    first->mint = of[1]->key;
    memcpy(&first->owner, data + 1, 32);
    first->state = 1;
    return 0;
  }
  if (!is_token_account(of[0], &first->mint)) return REFUSED_BY_OTHERS;
  if (data[0] == 3) {
    if (!is_token_account(of[1], &first->mint) || first->amount < amount) return REFUSED_BY_OTHERS;
    if (second->amount + amount < amount) return REFUSED_BY_OTHERS;
    first->amount -= amount;
    second->amount += amount;
  } else if (data[0] == 8) {
    if (!same_key(&of[1]->key, &first->mint) || of[1]->data_length != 82 || first->amount < amount) return REFUSED_BY_OTHERS;
    first->amount -= amount;
  } else if (data[0] == 9) {
    if (first->amount != 0 || of[0] == of[1]) return REFUSED_BY_OTHERS;
    of[1]->lamports += of[0]->lamports;
    of[0]->lamports = 0;
    of[0]->data_length = 0;
    of[0]->owner = SYSTEM_PROGRAM;
  } else {
    abort();
  }
  return 0;
}

static u64 system_program(const u8 *data, Account *const *of) {
  u32 operation;
  u64 value = 0;
  memcpy(&operation, data, 4);
  if (operation != 1) memcpy(&value, data + 4, 8);
  Account *target = operation == 0 || operation == 2 ? of[1] : of[0];
  if (operation == 0 || operation == 2) {
    if (of[0]->lamports < value || of[0] == of[1] || !same_key(&of[0]->owner, &SYSTEM_PROGRAM)) return REFUSED_BY_OTHERS;
    of[0]->lamports -= value;
    of[1]->lamports += value;
  }
  if (operation == 0 || operation == 8) {
    u64 size = value;
    if (operation == 0) memcpy(&size, data + 12, 8);
    if (target->data_length != 0 || size > ACCOUNT_SPARE_BYTES) abort();
    target->data_length = size;
    memset(target->data, 0, size);
  }
  if (operation == 0) memcpy(&target->owner, data + 20, 32);
  if (operation == 1) memcpy(&target->owner, data + 4, 32);
  return 0;
}

/** Privileges are checked as the runtime does; that seeds derive the address is taken for granted. */
u64 sol_invoke_signed_c(const Instruction *instruction, const AccountInfo *infos, u64 info_count, const SignerSeeds *signers,
                        u64 signer_count) {
  Account *of[3] = {0, 0, 0};
  u8 data[64] = {0};
  if (instruction->meta_count > 3 || instruction->data_length > sizeof(data)) abort();
  memcpy(data, instruction->data, instruction->data_length);
  for (u64 index = 0; index < signer_count; index++) {
    for (u64 seed = 0; seed < signers[index].count; seed++) sol_log_(signers[index].seeds[seed].address, signers[index].seeds[seed].length);
  }
  for (u64 index = 0; index < instruction->meta_count; index++) {
    const Meta *meta = &instruction->metas[index];
    of[index] = account_of(infos, info_count, meta->key);
    if (of[index] == 0) abort();
    if (meta->writable && !of[index]->writable) return REFUSED_BY_OTHERS;
    if (meta->signer && !of[index]->signer && signer_count == 0) return REFUSED_BY_OTHERS;
  }
  if (same_key(instruction->program, &TOKEN_PROGRAM)) return token_program(data, instruction->data_length, of);
  if (same_key(instruction->program, &SYSTEM_PROGRAM)) return system_program(data, of);
  abort();
}

/* From the compact form to the loader's */

typedef struct {
  const u8 *at;
  u64 left;
} Reader;

/** Missing bytes are zeros. */
static void take(Reader *reader, void *to, u64 length) {
  u64 have = smaller(length, reader->left);
  memcpy(to, reader->at, have);
  memset((u8 *)to + have, 0, length - have);
  reader->at += have;
  reader->left -= have;
}

static void bound_time(i64 *time) { *time &= TIME_MASK; }

/** What only the program can have written: counts and times in range. */
static void plausible(Account *account, const Key *program) {
  if (!same_key(&account->owner, program)) return;
  u64 size = account->data_length;
  if (size == sizeof(Config)) {
    Config *config = (Config *)account->data;
    config->verifierCount %= VERIFIERS_MAX + 1;
    bound_time(&config->applicableAt);
    if (config->parameters.equivocationSlashBps > 10000) config->parameters.equivocationSlashBps %= 10001;
  } else if (size == sizeof(Provider)) {
    Provider *provider = (Provider *)account->data;
    bound_time(&provider->jailedUntil);
    bound_time(&provider->rotatedAt);
    provider->commissionBps %= 10001;
  } else if (size == sizeof(Budget)) {
    ((Budget *)account->data)->limits.delegateCount %= DELEGATES_MAX + 1;
  } else if (size == sizeof(Lease)) {
    Lease *lease = (Lease *)account->data;
    bound_time(&lease->openedAt);
    bound_time(&lease->finishBy);
    bound_time(&lease->provenAt);
    lease->commissionBps %= 10001;
  } else if (size == sizeof(Delegation)) {
    bound_time(&((Delegation *)account->data)->unbondingUntil);
  } else if (size == sizeof(Dispute)) {
    bound_time(&((Dispute *)account->data)->voteUntil);
    bound_time(&((Dispute *)account->data)->revealUntil);
  }
}

static u64 unpack(Reader *reader, u8 *into) {
  u8 count;
  u8 *at = into + 8;
  take(reader, &count, 1);
  count %= 25;
  *(u64 *)into = count;
  for (u64 index = 0; index < count; index++) {
    u8 flags, earlier;
    take(reader, &flags, 1);
    if (flags & 128 && index > 0) {
      take(reader, &earlier, 1);
      memset(at, 0, 8);
      at[0] = (u8)(earlier % index);
      accounts_are[index] = accounts_are[at[0]];
      at += 8;
      continue;
    }
    Account *account = (Account *)at;
    u16 length;
    *account = (Account){255, flags & 1, flags >> 1 & 1, flags >> 2 & 1, 0, {{0}}, {{0}}, 0, 0};
    take(reader, &account->key, 32);
    take(reader, &account->owner, 32);
    take(reader, &account->lamports, 8);
    account->lamports &= (1ull << 50) - 1;
    take(reader, &length, 2);
    account->data_length = length % (24 * 1024);
    take(reader, account->data, account->data_length);
    memset(account->data + account->data_length, 0, ACCOUNT_SPARE_BYTES + 16);
    if (same_key(&account->key, &SLOT_HASHES_SYSVAR)) {
      if (account->data_length < 8) account->data_length = 8;
      u64 fits = (account->data_length - 8) / 40;
      SlotHashes *hashes = (SlotHashes *)account->data;
      hashes->count = smaller(hashes->count, smaller(fits, SLOT_HASHES_MAX));
    }
    accounts_are[index] = account;
    at += ((sizeof(Account) + account->data_length + ACCOUNT_SPARE_BYTES + 7) & ~7ull) + 8;
  }
  accounts_count = count;
  u16 length;
  take(reader, &length, 2);
  *(u64 *)at = length % 1232;
  take(reader, at + 8, length % 1232);
  at += 8 + length % 1232;
  take(reader, at, 32);
  Key program;
  memcpy(&program, at, 32);
  for (u64 index = 0; index < count; index++) plausible(accounts_are[index], &program);
  return (u64)(at + 32 - into);
}

static u64 lamports_in_all(void) {
  u64 sum = 0;
  for (u64 index = 0; index < accounts_count; index++) {
    u64 earlier = 0;
    while (accounts_are[earlier] != accounts_are[index]) earlier++;
    if (earlier == index) sum += accounts_are[index]->lamports;
  }
  return sum;
}

static void fail(const char *reason) {
  fprintf(stderr, "broken: %s\n", reason);
  abort();
}

int LLVMFuzzerTestOneInput(const u8 *data, unsigned long size) {
  static u8 *scratch;
  if (scratch == 0) scratch = malloc(INPUT_MAX);
  Reader reader = {data, size};
  memset(&now_is, 0, sizeof(now_is));
  take(&reader, &now_is.unix_timestamp, 5);
  take(&reader, &now_is.slot, 8);
  u64 length = unpack(&reader, scratch);
  /* Memory of exactly the size that there is: one byte beyond is found. */
  u8 *input = malloc(length), *before = malloc(length);
  memcpy(input, scratch, length);
  memcpy(before, scratch, length);
  for (u64 index = 0; index < accounts_count; index++) accounts_are[index] = (Account *)(input + ((u8 *)accounts_are[index] - scratch));
  u64 lamports = lamports_in_all();
  u64 error = entrypoint(input);
  if (error == 0) {
    if (lamports_in_all() != lamports) fail("lamports came or went");
    for (u64 index = 0; index < accounts_count; index++) {
      const Account *account = accounts_are[index];
      const Account *was = (const Account *)(before + ((const u8 *)account - input));
      if (was->writable) continue;
      if (memcmp(account, was, sizeof(Account) + was->data_length) != 0) fail("an account that is not writable changed");
    }
  } else if (error != REFUSED_BY_OTHERS && error - ERROR_FIRST >= ERROR_COUNT) {
    fail("a refusal that nobody declared");
  }
  free(input);
  free(before);
  return 0;
}
