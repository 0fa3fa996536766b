/**
 * Checks shared by all instructions: the shape of the call, and what an account must be before it is read.
 *
 * An account with our owner and the right tag was made by this program at its derived address, because nothing else can
 * write accounts that the program owns; so an address is derived only when an account is made, and from then on the
 * accounts are tied together by the keys stored in them.
 */
#pragma once

/** One call: accounts in declared order (duplicates resolved), data, and who we are. */
typedef struct {
  Account *account[ACCOUNTS_MAX];
  u64 account_count;
  const u8 *data;
  u64 data_length;
  const Key *program;
} Context;

#define REQUIRE(condition, error) \
  do {                            \
    if (!(condition)) return error; \
  } while (0)

#define TRY(expression)              \
  do {                               \
    u64 error_ = (expression);       \
    if (error_ != 0) return error_;  \
  } while (0)

/** Names the data of a program account after checking that it is one of its kind. */
#define LOAD(Type, name, account_)                                                      \
  TRY(check_account(context, (account_), TAG_##Type, sizeof(Type)));                    \
  Type *name = (Type *)(account_)->data

static const Key SYSTEM_PROGRAM = {{0, 0, 0, 0}};

/** Reads the input buffer. Fails when there are more accounts than any instruction takes. */
INLINE u64 read_input(u8 *input, Context *context) {
  u64 count = *(u64 *)input;
  REQUIRE(count <= ACCOUNTS_MAX, ERROR_WrongAccountCount);
  u8 *at = input + 8;
  for (u64 index = 0; index < count; index++) {
    Account *account = (Account *)at;
    if (account->duplicate == 255) {
      context->account[index] = account;
      at += (sizeof(Account) + account->data_length + ACCOUNT_SPARE_BYTES + 7) & ~7ull;
      at += 8; /* rent epoch */
    } else {
      context->account[index] = context->account[account->duplicate];
      at += 8;
    }
  }
  context->account_count = count;
  context->data_length = *(u64 *)at;
  context->data = at + 8;
  context->program = (const Key *)(at + 8 + context->data_length);
  return 0;
}

/** Number of accounts, length of data, signatures and writability against the declaration in chain/layout.ts. */
INLINE u64 check_shape(const Context *context, const InstructionSpec *spec) {
  REQUIRE(context->data_length == spec->data_size, ERROR_WrongDataLength);
  REQUIRE(context->account_count == spec->account_count, ERROR_WrongAccountCount);
  for (u64 index = 0; index < spec->account_count; index++) {
    const Account *account = context->account[index];
    u64 bit = 1ull << index;
    REQUIRE(!(spec->signers & bit) || account->signer, ERROR_MissingSignature);
    REQUIRE(!(spec->writables & bit) || account->writable, ERROR_NotWritable);
  }
  return 0;
}

NOINLINE u64 check_account(const Context *context, const Account *account, u64 tag, u64 size) {
  REQUIRE(same_key(&account->owner, context->program), ERROR_WrongOwner);
  REQUIRE(account->data_length == size && account->data[0] == tag, ERROR_WrongKind);
  return 0;
}

NOINLINE u64 check_key(const Account *account, const Key *expected) {
  return same_key(&account->key, expected) ? 0 : ERROR_WrongAddress;
}

/** The account is the one whose key is stored elsewhere. */
#define REQUIRE_KEY(account_, expected) TRY(check_key((account_), (expected)))

NOINLINE u64 read_clock(i64 *now) {
  Clock clock;
  TRY(sol_get_clock_sysvar(&clock));
  *now = clock.unix_timestamp;
  return 0;
}

INLINE u64 smaller(u64 a, u64 b) { return a < b ? a : b; }

/** floor(amount × bps / 10000) without leaving 64 bits; `bps` is at most 10000. */
INLINE u64 share_of(u64 amount, u64 bps) { return amount / 10000 * bps + amount % 10000 * bps / 10000; }

/** ceil(amount × bps / 10000) for `bps` up to 65535; the largest number where the result leaves 64 bits. */
INLINE u64 share_of_up(u64 amount, u64 bps) {
  if (bps != 0 && amount / 10000 >= ~0ull / bps) return ~0ull;
  return share_of(amount, bps) + (amount % 10000 * bps % 10000 != 0);
}

/** floor(a × b / c) through 128 bits. Fails where the result leaves 64 bits, and so for c = 0. */
NOINLINE u64 mul_div(u64 a, u64 b, u64 c, u64 *result) {
  u64 a_low = a & 0xffffffff, a_high = a >> 32, b_low = b & 0xffffffff, b_high = b >> 32;
  u64 middle = a_high * b_low + (a_low * b_low >> 32); /* at most (2^32-1)^2 + 2^32-1: fits */
  u64 carry = a_low * b_high + (middle & 0xffffffff);
  u64 high = a_high * b_high + (middle >> 32) + (carry >> 32);
  u64 low = a * b;
  REQUIRE(high < c, ERROR_Overflow);
  if (high == 0) {
    *result = low / c;
    return 0;
  }
  u64 quotient = 0;
  for (u64 bit = 0; bit < 64; bit++) { /* `high` is the remainder so far and less than c */
    u64 over = high >> 63;
    high = high << 1 | low >> 63;
    low <<= 1;
    quotient <<= 1;
    if (over || high >= c) {
      high -= c;
      quotient |= 1;
    }
  }
  *result = quotient;
  return 0;
}
