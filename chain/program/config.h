/**
 * The one Config account: parameters and who may change them, which mint is money, on which network, and who verifies.
 *
 * Parameters change within the bounds written here and two days after everybody could see the change coming, so that who
 * does not like it can leave before. The authority can be given up for good: then nothing changes any more.
 */
#pragma once

INLINE u64 check_parameters(const Parameters *parameters) {
  REQUIRE(parameters->stakeFeeBps <= FEE_BPS_MAX && parameters->burnFeeBps <= FEE_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->reserveBps <= RESERVE_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->noShowSlashBps <= SLASH_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->disputeBondBps <= SLASH_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->equivocationSlashBps <= SLASH_BPS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->minGraceSeconds >= 1 && parameters->minGraceSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->minWindowSeconds >= 1 && parameters->minWindowSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->maxLeaseSeconds >= 1 && parameters->maxLeaseSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->unbondingSeconds >= 1 && parameters->unbondingSeconds <= SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->voteSeconds >= 1 && parameters->voteSeconds <= VOTE_SECONDS_MAX, ERROR_ParameterOutOfRange);
  REQUIRE(parameters->revealSeconds >= 1 && parameters->revealSeconds <= VOTE_SECONDS_MAX, ERROR_ParameterOutOfRange);
  return 0;
}

/** BPFLoaderUpgradeab1e11111111111111111111111 */
static const Key UPGRADEABLE_LOADER = {{0xb0a1884e91f6a802ull, 0x2bae63f73e1510e2ull, 0xd224c1163db9c200ull, 0x00008004107a53c0ull}};

/** What the upgradeable loader keeps about a program. */
typedef struct {
  u32 kind; /* 3: program data */
  u8 slot[8];
  u8 has_authority;
  u8 authority[32];
} ProgramData;

/**
 * Nobody makes the Config before the people who deployed the program do: while the program can be upgraded, only who
 * may upgrade it initializes. A program without an upgrade authority (the local chain's) belongs to who is first.
 */
INLINE u64 check_deployer(const Context *context, const InitializeAccounts *accounts) {
  Key address;
  u8 bump;
  const Bytes seed[1] = {{context->program, 32}};
  TRY(sol_try_find_program_address(seed, 1, &UPGRADEABLE_LOADER, &address, &bump));
  REQUIRE_KEY(accounts->programData, &address);
  if (!same_key(&accounts->programData->owner, &UPGRADEABLE_LOADER)) return 0;
  const ProgramData *data = (const ProgramData *)accounts->programData->data;
  if (accounts->programData->data_length < 45 || !data->has_authority) return 0;
  REQUIRE(same_bytes(data->authority, &accounts->authority->key, 32), ERROR_NotUpgradeAuthority);
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
  TRY(check_deployer(context, accounts));
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
  config->network = data->network;
  return 0;
}

/** Announces parameters. Queueing again replaces what was announced and starts the delay anew. */
NOINLINE u64 queue_parameters(Context *context) {
  const QueueParametersAccounts *accounts = (const QueueParametersAccounts *)context->account;
  const QueueParametersData *data = (const QueueParametersData *)context->data;
  LOAD(Config, config, accounts->config);
  REQUIRE(same_key(&accounts->authority->key, &config->authority), ERROR_NotAuthority);
  TRY(check_parameters(&data->parameters));
  i64 now;
  TRY(read_clock(&now));

  config->queued = data->parameters;
  config->applicableAt = now + PARAMETER_DELAY_SECONDS;
  return 0;
}

/** Anybody may, once the delay has passed. */
NOINLINE u64 apply_parameters(Context *context) {
  const ApplyParametersAccounts *accounts = (const ApplyParametersAccounts *)context->account;
  LOAD(Config, config, accounts->config);
  REQUIRE(config->applicableAt != 0, ERROR_NothingQueued);
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now >= config->applicableAt, ERROR_DelayNotPassed);

  config->parameters = config->queued;
  sol_memset_(&config->queued, 0, sizeof(Parameters));
  config->applicableAt = 0;
  return 0;
}

/**
 * Hands over to a key that signs too, so that it exists; or, where the system program stands in its place, to nobody.
 * What was announced before can still be applied: everybody has seen it.
 */
NOINLINE u64 set_authority(Context *context) {
  const SetAuthorityAccounts *accounts = (const SetAuthorityAccounts *)context->account;
  LOAD(Config, config, accounts->config);
  REQUIRE(same_key(&accounts->authority->key, &config->authority), ERROR_NotAuthority);
  int nobody = same_key(&accounts->newAuthority->key, &SYSTEM_PROGRAM);
  REQUIRE(nobody || accounts->newAuthority->signer, ERROR_MissingSignature);

  config->authority = accounts->newAuthority->key;
  return 0;
}

/** The place of a provider in the list of verifiers; `verifierCount` where it has none. */
INLINE u64 verifier_index(const Config *config, const Key *provider) {
  u64 index = 0;
  while (index < config->verifierCount && !same_key(&config->verifiers[index], provider)) index++;
  return index;
}

/**
 * Verifiers are providers, so their stake answers for their duty. One is taken in by the authority with its owner's
 * consent, since strangers could make any number of keys; it leaves when either of them says so.
 */
NOINLINE u64 set_verifier(Context *context) {
  const SetVerifierAccounts *accounts = (const SetVerifierAccounts *)context->account;
  const SetVerifierData *data = (const SetVerifierData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  int authority = accounts->authority->signer && same_key(&accounts->authority->key, &config->authority);
  int owner = accounts->owner->signer && same_key(&accounts->owner->key, &provider->owner);
  u64 index = verifier_index(config, &accounts->provider->key);
  int known = index < config->verifierCount;
  if (data->member) {
    REQUIRE(authority, ERROR_NotAuthority);
    REQUIRE(owner, ERROR_NotOwner);
    REQUIRE(!known && config->verifierCount < VERIFIERS_MAX, ERROR_VerifierListFull);
    config->verifiers[index] = accounts->provider->key;
    config->verifierCount += 1;
    return 0;
  }
  REQUIRE(authority || owner, ERROR_NotOwner);
  REQUIRE(known, ERROR_NotVerifier);
  config->verifierCount -= 1;
  config->verifiers[index] = config->verifiers[config->verifierCount];
  config->verifiers[config->verifierCount] = SYSTEM_PROGRAM;
  return 0;
}
