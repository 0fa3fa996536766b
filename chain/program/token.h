/**
 * SPL Token: reading token accounts, and the five calls that the program makes.
 *
 * The called program is named here and nowhere else, so the `tokenProgram` account of an instruction need not be checked:
 * it only has to be there for the runtime to find. The same holds for the system program.
 */
#pragma once

/** TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA */
static const Key TOKEN_PROGRAM = {{0x93a165d7e1f6dd06ull, 0xac79ebce46e1cbd9ull, 0x91375b5fed85b41cull, 0xa900ff7e85f58c3aull}};

/** The first 109 of the 165 bytes of a token account. */
typedef struct {
  Key mint;
  Key owner;
  u64 amount;
  u8 delegate[36];
  u8 state; /* 1: usable, 2: frozen */
} TokenAccount;

#define TOKEN_ACCOUNT_SIZE 165

INLINE u64 token_amount(const Account *account) { return ((const TokenAccount *)account->data)->amount; }

/** A usable token account of this mint. */
NOINLINE u64 is_token_account(const Account *account, const Key *mint) {
  const TokenAccount *token = (const TokenAccount *)account->data;
  return same_key(&account->owner, &TOKEN_PROGRAM) && account->data_length == TOKEN_ACCOUNT_SIZE && token->state == 1 &&
         same_key(&token->mint, mint);
}

NOINLINE void set_info(AccountInfo *info, Account *account) {
  info->key = &account->key;
  info->lamports = &account->lamports;
  info->data_length = account->data_length;
  info->data = account->data;
  info->owner = &account->owner;
  info->rent_epoch = ~0ull;
  info->signer = account->signer;
  info->writable = account->writable;
  info->executable = account->executable;
}

/** One call to SPL Token: `first` changes, `second` changes, `authority` signs (`seeds` empty: it signed the transaction). */
NOINLINE u64 token_call(u8 operation, u64 amount, Account *const accounts[3], const SignerSeeds *seeds) {
  struct {
    u8 spare[7]; /* so that the amount is aligned */
    u8 operation;
    u64 amount;
  } data;
  data.operation = operation;
  data.amount = amount;
  Meta metas[3] = {
      {&accounts[0]->key, 1, 0},
      {&accounts[1]->key, 1, 0},
      {&accounts[2]->key, 0, 1},
  };
  AccountInfo infos[3];
  for (u64 index = 0; index < 3; index++) set_info(&infos[index], accounts[index]);
  u64 length = operation == 9 ? 1 : 9;
  Instruction instruction = {&TOKEN_PROGRAM, metas, 3, &data.operation, length};
  return sol_invoke_signed_c(&instruction, infos, 3, seeds, seeds == 0 ? 0 : 1);
}

/** Moves tokens. Moving nothing is no call at all. */
NOINLINE u64 token_transfer(Account *from, Account *to, Account *authority, const SignerSeeds *seeds, u64 amount) {
  REQUIRE(!same_key(&from->key, &to->key), ERROR_DuplicateAccount);
  if (amount == 0) return 0;
  Account *const accounts[3] = {from, to, authority};
  return token_call(3, amount, accounts, seeds);
}

/** Destroys tokens. */
NOINLINE u64 token_burn(Account *from, Account *mint, Account *authority, const SignerSeeds *seeds, u64 amount) {
  if (amount == 0) return 0;
  Account *const accounts[3] = {from, mint, authority};
  return token_call(8, amount, accounts, seeds);
}

/** Closes an empty token account; its rent goes to `to`. */
NOINLINE u64 token_close(Account *account, Account *to, Account *authority, const SignerSeeds *seeds) {
  Account *const accounts[3] = {account, to, authority};
  return token_call(9, 0, accounts, seeds);
}

/** Makes a fresh account of TOKEN_ACCOUNT_SIZE bytes a token account of `owner`. */
NOINLINE u64 token_initialize(Account *account, Account *mint, const Key *owner) {
  struct {
    u8 spare[7];
    u8 operation;
    Key owner;
  } data;
  data.operation = 18;
  data.owner = *owner;
  Meta metas[2] = {{&account->key, 1, 0}, {&mint->key, 0, 0}};
  AccountInfo infos[2];
  set_info(&infos[0], account);
  set_info(&infos[1], mint);
  Instruction instruction = {&TOKEN_PROGRAM, metas, 2, &data.operation, 33};
  return sol_invoke_signed_c(&instruction, infos, 2, 0, 0);
}
