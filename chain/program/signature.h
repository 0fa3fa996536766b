/**
 * What a key has signed: the only place that looks at signatures.
 *
 * The Ed25519 program verifies, by the strict rule that the network uses too; it cannot be called, so its instruction
 * stands in the same transaction, right before ours, and is read from the instructions sysvar. Only one form is taken:
 * one key, one or two signatures by it, everything inside that instruction at fixed offsets. Otherwise an instruction
 * could verify one message and show us another.
 */
#pragma once

/** Sysvar1nstructions1111111111111111111111111 */
static const Key INSTRUCTIONS_SYSVAR = {{0x66d17b1817d5a706ull, 0xc0c2fd5504d4da35ull, 0xa57556218fc624c1ull, 0x000000085fcbbadbull}};
/** Ed25519SigVerify111111111111111111111111111 */
static const Key ED25519_PROGRAM = {{0xbefb937cd6467d03ull, 0xff408d838f42f912ull, 0x648af42749747005ull, 0x000000804470cafcull}};

#define SIGNED_BYTES_MAX 136

/** What was verified: the key, and one or two messages of the same length. */
typedef struct {
  Key key;
  u8 message[2][SIGNED_BYTES_MAX];
} SignedMessages;

INLINE u64 read_u16(const u8 *at) { return at[0] | (u64)at[1] << 8; }

INLINE int is_u16(const u8 *at, u64 value) { return read_u16(at) == value; }

/**
 * Reads `count` (1 or 2) verified messages of `length` bytes. In the sysvar: u16 number of instructions, their offsets as
 * u16, the instructions, u16 which of them runs. An instruction: u16 number of accounts (none here), program, u16 length
 * of data, data. The data: u8 count, a spare byte, 14 bytes of offsets per signature, then key, signatures, messages.
 */
NOINLINE u64 read_signatures(const Account *sysvar, u64 count, u64 length, SignedMessages *is) {
  REQUIRE_KEY(sysvar, &INSTRUCTIONS_SYSVAR);
  const u8 *data = sysvar->data;
  u64 size = sysvar->data_length;
  REQUIRE(size >= 4, ERROR_BadEvidence);
  u64 current = read_u16(data + size - 2);
  REQUIRE(current >= 1 && 2 + 2 * current <= size, ERROR_BadEvidence);
  u64 start = read_u16(data + 2 * current); /* of instruction number current - 1 */
  u64 key_at = 2 + 14 * count;
  u64 total = key_at + 32 + (64 + length) * count;
  REQUIRE(start + 36 + total <= size, ERROR_BadEvidence);
  const u8 *call = data + start;
  REQUIRE(is_u16(call, 0) && same_bytes(call + 2, &ED25519_PROGRAM, 32) && is_u16(call + 34, total), ERROR_BadEvidence);
  const u8 *body = call + 36;
  REQUIRE(body[0] == count, ERROR_BadEvidence);
  for (u64 index = 0; index < count; index++) {
    const u8 *offsets = body + 2 + 14 * index;
    u64 message_at = key_at + 32 + 64 * count + length * index;
    int exact = is_u16(offsets, key_at + 32 + 64 * index) && is_u16(offsets + 2, 0xffff) && is_u16(offsets + 4, key_at) &&
                is_u16(offsets + 6, 0xffff) && is_u16(offsets + 8, message_at) && is_u16(offsets + 10, length) &&
                is_u16(offsets + 12, 0xffff);
    REQUIRE(exact, ERROR_BadEvidence);
    sol_memcpy_(is->message[index], body + message_at, length);
  }
  sol_memcpy_(&is->key, body + key_at, 32);
  return 0;
}
