/** Making and closing the accounts of the program. */
#pragma once

NOINLINE u64 system_call(const void *data, u64 length, Account *const accounts[2], const SignerSeeds *seeds) {
  u64 count = accounts[1] == 0 ? 1 : 2;
  Meta metas[2];
  AccountInfo infos[2];
  for (u64 index = 0; index < count; index++) {
    metas[index] = (Meta){&accounts[index]->key, 1, 1};
    set_info(&infos[index], accounts[index]);
  }
  Instruction instruction = {&SYSTEM_PROGRAM, metas, count, data, length};
  return sol_invoke_signed_c(&instruction, infos, count, seeds, seeds == 0 ? 0 : 1);
}

/** Lamports that keep `size` bytes alive for ever. The threshold is 2 years on older and 1 on newer clusters. */
INLINE u64 rent_for(u64 size, u64 *lamports) {
  Rent rent;
  TRY(sol_get_rent_sysvar(&rent));
  u64 factor = 0;
  if (rent.exemption_threshold == 0x4000000000000000ull) factor = 2;
  if (rent.exemption_threshold == 0x3ff0000000000000ull) factor = 1;
  REQUIRE(factor != 0, ERROR_UnknownRent);
  *lamports = (size + 128) * rent.lamports_per_byte * factor;
  return 0;
}

/**
 * Makes an account at a derived address. That the address belongs to the seeds is checked by the runtime, which refuses
 * to sign for another; an account that has signed by itself would get around that, and no derived one can.
 * Lamports that somebody sent there beforehand do not stop us: they count towards the rent.
 */
NOINLINE u64 create_account(Account *payer, Account *target, u64 size, const Key *owner, const SignerSeeds *seeds) {
  REQUIRE(!target->signer, ERROR_WrongAddress);
  REQUIRE(same_key(&target->owner, &SYSTEM_PROGRAM) && target->data_length == 0, ERROR_AlreadyExists);
  u64 lamports;
  TRY(rent_for(size, &lamports));
  Account *const both[2] = {payer, target};
  if (target->lamports == 0) {
    struct {
      u32 spare;
      u32 operation;
      u64 lamports;
      u64 size;
      Key owner;
    } data = {0, 0, lamports, size, *owner};
    return system_call(&data.operation, 52, both, seeds);
  }
  Account *const alone[2] = {target, 0};
  struct {
    u32 spare;
    u32 operation;
    u64 value;
    u64 more[3];
  } data = {0, 2, lamports - target->lamports, {0, 0, 0}};
  if (target->lamports < lamports) {
    Meta metas[2] = {{&payer->key, 1, 1}, {&target->key, 1, 0}};
    AccountInfo infos[2];
    set_info(&infos[0], payer);
    set_info(&infos[1], target);
    Instruction instruction = {&SYSTEM_PROGRAM, metas, 2, &data.operation, 12};
    TRY(sol_invoke_signed_c(&instruction, infos, 2, 0, 0));
  }
  data.operation = 8; /* allocate */
  data.value = size;
  TRY(system_call(&data.operation, 12, alone, seeds));
  data.operation = 1; /* assign */
  sol_memcpy_(&data.value, owner, sizeof(Key));
  return system_call(&data.operation, 36, alone, seeds);
}

/** Makes a token account of the mint at the address derived from `name` (5 letters) and its owner. */
NOINLINE u64 create_vault(Account *payer, Account *vault, Account *mint, const Key *owner, const Bytes *name_and_bump) {
  const Bytes seeds[3] = {name_and_bump[0], {owner, 32}, name_and_bump[1]};
  const SignerSeeds signer = {seeds, 3};
  TRY(create_account(payer, vault, TOKEN_ACCOUNT_SIZE, &TOKEN_PROGRAM, &signer));
  return token_initialize(vault, mint, owner);
}

/** Ends an account of the program: no data, no lamports, owned by the system again, so nothing can bring it back. */
NOINLINE void close_account(Account *account, Account *rent_to) {
  rent_to->lamports += account->lamports;
  account->lamports = 0;
  sol_memset_(account->data, 0, account->data_length);
  account->data_length = 0;
  account->owner = SYSTEM_PROGRAM;
}

/* Who signs for an account of the program. */
#define SIGNER_BUDGET(name, budget_)                                                              \
  const Bytes name##_seeds[4] = {                                                                 \
      {"budget", 6}, {&(budget_)->owner, 32}, {&(budget_)->id, 8}, {&(budget_)->bump, 1}};        \
  const SignerSeeds name = {name##_seeds, 4}

#define SIGNER_PROVIDER(name, provider_)                                                           \
  const Bytes name##_seeds[3] = {{"provider", 8}, {&(provider_)->owner, 32}, {&(provider_)->bump, 1}}; \
  const SignerSeeds name = {name##_seeds, 3}
