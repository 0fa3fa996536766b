/** Sellers: registration, operator key and payout account, and the stake that stands behind their leases. */
#pragma once

NOINLINE u64 register_provider(Context *context) {
  const RegisterProviderAccounts *accounts = (const RegisterProviderAccounts *)context->account;
  const RegisterProviderData *data = (const RegisterProviderData *)context->data;
  LOAD(Config, config, accounts->config);
  REQUIRE_KEY(accounts->mint, &config->mint);
  REQUIRE(is_token_account(accounts->payout, &config->mint), ERROR_WrongMint);
  REQUIRE(data->commissionBps <= COMMISSION_BPS_MAX, ERROR_ParameterOutOfRange);
  i64 now;
  TRY(read_clock(&now));

  const Bytes seeds[3] = {{"provider", 8}, {&accounts->owner->key, 32}, {&data->bump, 1}};
  const SignerSeeds signer = {seeds, 3};
  TRY(create_account(accounts->owner, accounts->provider, sizeof(Provider), context->program, &signer));
  const Bytes vault[2] = {{"stake", 5}, {&data->vaultBump, 1}};
  TRY(create_vault(accounts->owner, accounts->stakeVault, accounts->mint, &accounts->provider->key, vault));

  Provider *provider = (Provider *)accounts->provider->data;
  provider->tag = TAG_Provider;
  provider->bump = data->bump;
  provider->commissionBps = data->commissionBps;
  provider->owner = accounts->owner->key;
  provider->operator= data->operator;
  provider->payout = accounts->payout->key;
  provider->stakeVault = accounts->stakeVault->key;
  provider->registeredAt = now;
  return 0;
}

/** Open leases keep the operator that signed them and their payout account; new ones take the new ones. */
NOINLINE u64 update_provider(Context *context) {
  const UpdateProviderAccounts *accounts = (const UpdateProviderAccounts *)context->account;
  const UpdateProviderData *data = (const UpdateProviderData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  REQUIRE(same_key(&accounts->owner->key, &provider->owner), ERROR_NotOwner);
  REQUIRE(is_token_account(accounts->payout, &config->mint), ERROR_WrongMint);
  REQUIRE(data->commissionBps <= COMMISSION_BPS_MAX, ERROR_ParameterOutOfRange);

  provider->commissionBps = data->commissionBps;
  provider->operator= data->operator;
  provider->payout = accounts->payout->key;
  return 0;
}

NOINLINE u64 stake(Context *context) {
  const StakeAccounts *accounts = (const StakeAccounts *)context->account;
  const StakeData *data = (const StakeData *)context->data;
  LOAD(Provider, provider, accounts->provider);
  REQUIRE(same_key(&accounts->owner->key, &provider->owner), ERROR_NotOwner);
  REQUIRE_KEY(accounts->stakeVault, &provider->stakeVault);
  REQUIRE(data->amount > 0, ERROR_ZeroAmount);
  u64 total;
  REQUIRE(!__builtin_add_overflow(provider->stake, data->amount, &total), ERROR_Overflow);

  TRY(token_transfer(accounts->source, accounts->stakeVault, accounts->owner, 0, data->amount));
  provider->stake = total;
  return 0;
}

/** Only stake that backs no open lease. */
NOINLINE u64 unstake(Context *context) {
  const UnstakeAccounts *accounts = (const UnstakeAccounts *)context->account;
  const UnstakeData *data = (const UnstakeData *)context->data;
  LOAD(Provider, provider, accounts->provider);
  REQUIRE(same_key(&accounts->owner->key, &provider->owner), ERROR_NotOwner);
  REQUIRE_KEY(accounts->stakeVault, &provider->stakeVault);
  REQUIRE(data->amount > 0, ERROR_ZeroAmount);
  REQUIRE(data->amount <= provider->stake - provider->reserved, ERROR_StakeTooLow);

  SIGNER_PROVIDER(signer, provider);
  TRY(token_transfer(accounts->stakeVault, accounts->destination, accounts->provider, &signer, data->amount));
  provider->stake -= data->amount;
  return 0;
}
