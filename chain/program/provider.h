/** Sellers: registration, operator key, payout account and commission. Their stake is the next chapter. */
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

/**
 * Open leases keep the operator that signed them, their payout account and the commission of their day; new ones take the
 * new ones. The former operator's statements stay slashable, so a second rotation waits for the unbonding time.
 */
NOINLINE u64 update_provider(Context *context) {
  const UpdateProviderAccounts *accounts = (const UpdateProviderAccounts *)context->account;
  const UpdateProviderData *data = (const UpdateProviderData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  REQUIRE(same_key(&accounts->owner->key, &provider->owner), ERROR_NotOwner);
  REQUIRE(is_token_account(accounts->payout, &config->mint), ERROR_WrongMint);
  REQUIRE(data->commissionBps <= COMMISSION_BPS_MAX, ERROR_ParameterOutOfRange);
  i64 now;
  TRY(read_clock(&now));
  int rotated = !same_key(&provider->operator, &data->operator);
  int recently = provider->rotatedAt != 0 && now < provider->rotatedAt + (i64)config->parameters.unbondingSeconds;
  REQUIRE(!rotated || !recently, ERROR_RotatedRecently);

  if (rotated) {
    provider->formerOperator = provider->operator;
    provider->rotatedAt = now;
  }
  provider->commissionBps = data->commissionBps;
  provider->operator= data->operator;
  provider->payout = accounts->payout->key;
  return 0;
}
