/**
 * Budgets: the money of a buyer, and which hot keys may lease with it, up to which caps, until when.
 *
 * Free money is the balance of the vault less `locked`, so a plain token transfer into the vault is a deposit too.
 */
#pragma once

INLINE u64 free_money(const Budget *budget, const Account *vault) { return token_amount(vault) - budget->locked; }

INLINE int is_delegate(const Budget *budget, const Key *key) {
  for (u64 index = 0; index < budget->limits.delegateCount; index++) {
    if (same_key(&budget->limits.delegates[index], key)) return 1;
  }
  return 0;
}

NOINLINE u64 create_budget(Context *context) {
  const CreateBudgetAccounts *accounts = (const CreateBudgetAccounts *)context->account;
  const CreateBudgetData *data = (const CreateBudgetData *)context->data;
  LOAD(Config, config, accounts->config);
  REQUIRE_KEY(accounts->mint, &config->mint);
  REQUIRE(data->limits.delegateCount >= 1 && data->limits.delegateCount <= DELEGATES_MAX, ERROR_TooManyDelegates);

  const Bytes seeds[4] = {{"budget", 6}, {&accounts->owner->key, 32}, {&data->id, 8}, {&data->bump, 1}};
  const SignerSeeds signer = {seeds, 4};
  TRY(create_account(accounts->owner, accounts->budget, sizeof(Budget), context->program, &signer));
  const Bytes vault[2] = {{"vault", 5}, {&data->vaultBump, 1}};
  TRY(create_vault(accounts->owner, accounts->vault, accounts->mint, &accounts->budget->key, vault));

  Budget *budget = (Budget *)accounts->budget->data;
  budget->tag = TAG_Budget;
  budget->bump = data->bump;
  budget->id = data->id;
  budget->owner = accounts->owner->key;
  budget->vault = accounts->vault->key;
  budget->limits = data->limits;
  return 0;
}

/** Anybody may add money. */
NOINLINE u64 deposit(Context *context) {
  const DepositAccounts *accounts = (const DepositAccounts *)context->account;
  const DepositData *data = (const DepositData *)context->data;
  LOAD(Budget, budget, accounts->budget);
  REQUIRE_KEY(accounts->vault, &budget->vault);
  REQUIRE(data->amount > 0, ERROR_ZeroAmount);

  return token_transfer(accounts->source, accounts->vault, accounts->depositor, 0, data->amount);
}

/** Only money that no lease has locked. */
NOINLINE u64 withdraw_budget(Context *context) {
  const WithdrawBudgetAccounts *accounts = (const WithdrawBudgetAccounts *)context->account;
  const WithdrawBudgetData *data = (const WithdrawBudgetData *)context->data;
  LOAD(Budget, budget, accounts->budget);
  REQUIRE(same_key(&accounts->owner->key, &budget->owner), ERROR_NotOwner);
  REQUIRE_KEY(accounts->vault, &budget->vault);
  REQUIRE(data->amount > 0, ERROR_ZeroAmount);
  REQUIRE(data->amount <= free_money(budget, accounts->vault), ERROR_BudgetEmpty);

  SIGNER_BUDGET(signer, budget);
  return token_transfer(accounts->vault, accounts->destination, accounts->budget, &signer, data->amount);
}

/** Replaces delegates, caps and expiry. A key that is taken out can still end the leases it opened, and open no new one. */
NOINLINE u64 set_delegates(Context *context) {
  const SetDelegatesAccounts *accounts = (const SetDelegatesAccounts *)context->account;
  const SetDelegatesData *data = (const SetDelegatesData *)context->data;
  LOAD(Budget, budget, accounts->budget);
  REQUIRE(same_key(&accounts->owner->key, &budget->owner), ERROR_NotOwner);
  REQUIRE(data->limits.delegateCount >= 1 && data->limits.delegateCount <= DELEGATES_MAX, ERROR_TooManyDelegates);

  budget->limits = data->limits;
  return 0;
}

/** All money and both rents back to the owner. */
NOINLINE u64 close_budget(Context *context) {
  const CloseBudgetAccounts *accounts = (const CloseBudgetAccounts *)context->account;
  LOAD(Budget, budget, accounts->budget);
  REQUIRE(same_key(&accounts->owner->key, &budget->owner), ERROR_NotOwner);
  REQUIRE_KEY(accounts->vault, &budget->vault);
  REQUIRE(budget->openLeases == 0, ERROR_LeasesOpen);

  SIGNER_BUDGET(signer, budget);
  TRY(token_transfer(accounts->vault, accounts->destination, accounts->budget, &signer, token_amount(accounts->vault)));
  TRY(token_close(accounts->vault, accounts->owner, accounts->budget, &signer));
  close_account(accounts->budget, accounts->owner);
  return 0;
}
