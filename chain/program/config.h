/** The one Config account: who may change parameters, which mint is money, and the parameters themselves. */
#pragma once

INLINE u64 check_parameters(const Parameters *parameters) {
  REQUIRE(parameters->stakeFeeBps <= FEE_BPS_MAX && parameters->burnFeeBps <= FEE_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->reserveBps <= RESERVE_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->noShowSlashBps <= SLASH_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->minGraceSeconds >= 1 && parameters->minGraceSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->minWindowSeconds >= 1 && parameters->minWindowSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->maxLeaseSeconds >= 1 && parameters->maxLeaseSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  return 0;
}

/** Once in the life of a deployment. The address is searched here, so that a second Config at another bump cannot be. */
NOINLINE u64 initialize(Context *context) {
  const InitializeAccounts *accounts = (const InitializeAccounts *)context->account;
  const InitializeData *data = (const InitializeData *)context->data;
  Key address;
  u8 bump;
  const Bytes seed[1] = {{"config", 6}};
  TRY(sol_try_find_program_address(seed, 1, context->program, &address, &bump));
  REQUIRE_KEY(accounts->config, &address);
  REQUIRE(same_key(&accounts->mint->owner, &TOKEN_PROGRAM) && accounts->mint->data_length == 82, ERROR_WrongMint);
  TRY(check_parameters(&data->parameters));

  const Bytes seeds[2] = {{"config", 6}, {&bump, 1}};
  const SignerSeeds signer = {seeds, 2};
  TRY(create_account(accounts->authority, accounts->config, sizeof(Config), context->program, &signer));
  Config *config = (Config *)accounts->config->data;
  config->tag = TAG_Config;
  config->bump = bump;
  config->parameters = data->parameters;
  config->authority = accounts->authority->key;
  config->mint = accounts->mint->key;
  return 0;
}

NOINLINE u64 set_parameters(Context *context) {
  const SetParametersAccounts *accounts = (const SetParametersAccounts *)context->account;
  const SetParametersData *data = (const SetParametersData *)context->data;
  LOAD(Config, config, accounts->config);
  REQUIRE(same_key(&accounts->authority->key, &config->authority), ERROR_NotAuthority);
  TRY(check_parameters(&data->parameters));

  config->parameters = data->parameters;
  config->authority = data->newAuthority;
  return 0;
}
