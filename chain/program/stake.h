/**
 * Stake: what stands behind a provider, whose it is, and how it shrinks and grows.
 *
 * Two pools per provider: the owner's own stake and everybody else's delegations, both held as shares. The stake fee of a
 * settlement raises the price of a share, a slash lowers it. Own stake answers first, down to nothing; delegations answer
 * for the rest. What delegators lose is burnt and never paid to anybody: an owner who cheats an accomplice on purpose
 * gets back at most what the owner lost, so delegations cannot be stolen that way.
 *
 * Stake is counted in the Provider account and never read from the balance of the vault, so tokens sent to the vault
 * change no price. Fees do: a first staker with few shares could raise the price and let rounding eat the stake of the
 * next one. A stake that would get fewer than SHARES_MIN shares is therefore refused, whatever the price: rounding, always
 * downwards, takes less than a millionth of what is staked.
 *
 * Shares that are unbonding back no new lease, but stay in the pool until they are withdrawn: they earn and answer like
 * the others. A pool that loses everything starts a new generation; shares of the former one are worth nothing.
 */
#pragma once

INLINE u64 total_stake(const Provider *provider) { return provider->own.stake + provider->delegated.stake; }

/** The stake of a pool that is not on its way out, rounded down. */
INLINE u64 active_stake(const Pool *pool, u64 *active) {
  *active = pool->stake;
  if (pool->unbonding == 0) return 0;
  return mul_div(pool->stake, pool->shares - pool->unbonding, pool->shares, active);
}

/** Delegations must not exceed eight times the own stake; rounded so that the limit itself is allowed. */
INLINE int is_over_delegated(u64 delegated, u64 own) {
  return delegated / DELEGATION_FACTOR + (delegated % DELEGATION_FACTOR != 0) > own;
}

/** That `reserve` more can be set aside: by stake that stays, behind which the owner has enough. */
NOINLINE u64 check_backing(const Parameters *parameters, const Provider *provider, u64 reserve, i64 now) {
  u64 own, delegated;
  TRY(active_stake(&provider->own, &own));
  TRY(active_stake(&provider->delegated, &delegated));
  REQUIRE(now >= provider->jailedUntil, ERROR_Jailed);
  REQUIRE(provider->slashDue == 0, ERROR_SlashDue);
  REQUIRE(!is_over_delegated(delegated, own), ERROR_OverDelegated);
  u64 active = own + delegated;
  REQUIRE(active >= parameters->minStake && active >= provider->reserved, ERROR_StakeTooLow);
  REQUIRE(reserve <= active - provider->reserved, ERROR_StakeTooLow);
  return 0;
}

/** Adds a stake fee: to delegators in proportion, less the owner's commission; the owner's stake takes the rest. */
NOINLINE u64 earn(Provider *provider, u64 fee, u64 commission_bps) {
  u64 delegated = 0;
  if (provider->delegated.stake != 0) {
    TRY(mul_div(fee, provider->delegated.stake, total_stake(provider), &delegated));
    delegated = share_of(delegated, 10000 - commission_bps);
  }
  provider->delegated.stake += delegated;
  provider->own.stake += fee - delegated;
  return 0;
}

INLINE u64 take_from(Pool *pool, u64 amount) {
  u64 taken = smaller(amount, pool->stake);
  pool->stake -= taken;
  if (taken > 0 && pool->stake == 0) {
    pool->shares = 0;
    pool->unbonding = 0;
    pool->generation += 1;
  }
  return taken;
}

/** The accounts of a slash. `vault` holds the stake. */
typedef struct {
  Account *provider;
  Account *vault;
  Account *mint;
} Slashed;

/**
 * Takes `amount` of stake and burns it, except for `paid_bps` of what was the owner's: that stays in the vault for the
 * caller to pay out, and is `event->paid`. `amount` is at most the stake.
 */
NOINLINE u64 slash(const Slashed *accounts, u64 amount, u64 paid_bps, StakeSlashed *event) {
  Provider *provider = (Provider *)accounts->provider->data;
  event->tag = TAG_StakeSlashed;
  event->provider = accounts->provider->key;
  event->own = take_from(&provider->own, amount);
  event->delegated = take_from(&provider->delegated, amount - event->own);
  event->paid = share_of(event->own, paid_bps);
  event->burned = event->own + event->delegated - event->paid;
  provider->slashed += event->own + event->delegated;
  SIGNER_PROVIDER(signer, provider);
  TRY(token_burn(accounts->vault, accounts->mint, accounts->provider, &signer, event->burned));
  const Bytes part[1] = {{event, sizeof(StakeSlashed)}};
  sol_log_data(part, 1);
  return 0;
}

INLINE Pool *pool_of(Provider *provider, const Key *staker) {
  return same_key(&provider->owner, staker) ? &provider->own : &provider->delegated;
}

/** What a delegation held in a generation that lost everything is gone. */
INLINE void renew(Delegation *delegation, const Pool *pool) {
  if (delegation->generation == pool->generation) return;
  delegation->generation = pool->generation;
  delegation->shares = 0;
  delegation->unbonding = 0;
  delegation->principal = 0;
}

/** That the delegation is the one of this staker behind this provider. */
#define REQUIRE_STAKER(delegation_, accounts_)                                              \
  REQUIRE(same_key(&(accounts_)->staker->key, &(delegation_)->staker) &&                    \
              same_key(&(accounts_)->provider->key, &(delegation_)->provider), ERROR_NotStaker)

/** Anybody stakes behind anybody; the owner's stake is the own one. The first stake makes the delegation. */
NOINLINE u64 stake(Context *context) {
  const StakeAccounts *accounts = (const StakeAccounts *)context->account;
  const StakeData *data = (const StakeData *)context->data;
  LOAD(Provider, provider, accounts->provider);
  REQUIRE_KEY(accounts->stakeVault, &provider->stakeVault);
  REQUIRE(data->amount > 0, ERROR_ZeroAmount);
  u64 total;
  REQUIRE(!__builtin_add_overflow(total_stake(provider), data->amount, &total), ERROR_Overflow);
  Pool *pool = pool_of(provider, &accounts->staker->key);
  u64 shares = data->amount;
  if (pool->shares != 0) TRY(mul_div(data->amount, pool->shares, pool->stake, &shares));
  REQUIRE(shares >= SHARES_MIN, ERROR_StakeTooSmall);
  u64 shares_after;
  REQUIRE(!__builtin_add_overflow(pool->shares, shares, &shares_after), ERROR_Overflow);
  if (pool == &provider->delegated) {
    u64 own;
    TRY(active_stake(&provider->own, &own));
    REQUIRE(!is_over_delegated(pool->stake + data->amount, own), ERROR_OverDelegated);
  }

  if (accounts->delegation->data_length == 0) {
    const Bytes seeds[4] = {
        {"delegation", 10}, {&accounts->provider->key, 32}, {&accounts->staker->key, 32}, {&data->bump, 1}};
    const SignerSeeds signer = {seeds, 4};
    TRY(create_account(accounts->staker, accounts->delegation, sizeof(Delegation), context->program, &signer));
    Delegation *made = (Delegation *)accounts->delegation->data;
    made->tag = TAG_Delegation;
    made->bump = data->bump;
    made->generation = pool->generation;
    made->provider = accounts->provider->key;
    made->staker = accounts->staker->key;
  }
  LOAD(Delegation, delegation, accounts->delegation);
  REQUIRE_STAKER(delegation, accounts);
  TRY(token_transfer(accounts->source, accounts->stakeVault, accounts->staker, 0, data->amount));
  renew(delegation, pool);
  delegation->shares += shares;
  delegation->principal += data->amount;
  pool->shares = shares_after;
  pool->stake += data->amount;
  return 0;
}

/** Starts the unbonding time of some shares. Shares that are unbonding already start again with them. */
NOINLINE u64 unstake(Context *context) {
  const UnstakeAccounts *accounts = (const UnstakeAccounts *)context->account;
  const UnstakeData *data = (const UnstakeData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  LOAD(Delegation, delegation, accounts->delegation);
  REQUIRE_STAKER(delegation, accounts);
  Pool *pool = pool_of(provider, &accounts->staker->key);
  renew(delegation, pool);
  REQUIRE(data->shares > 0, ERROR_ZeroAmount);
  REQUIRE(data->shares <= delegation->shares, ERROR_SharesMissing);
  i64 now;
  TRY(read_clock(&now));

  delegation->shares -= data->shares;
  delegation->unbonding += data->shares;
  delegation->unbondingUntil = now + config->parameters.unbondingSeconds;
  pool->unbonding += data->shares;
  return 0;
}

/**
 * Pays out what has unbonded, at today's price. Stake that open leases or duties count on stays until they end: they were
 * opened before the unstake, so they end, and no new ones count on it. An empty delegation is closed, its rent returned.
 */
NOINLINE u64 withdraw_stake(Context *context) {
  const WithdrawStakeAccounts *accounts = (const WithdrawStakeAccounts *)context->account;
  LOAD(Provider, provider, accounts->provider);
  LOAD(Delegation, delegation, accounts->delegation);
  REQUIRE_STAKER(delegation, accounts);
  REQUIRE_KEY(accounts->stakeVault, &provider->stakeVault);
  Pool *pool = pool_of(provider, &accounts->staker->key);
  renew(delegation, pool);
  u64 amount = 0;
  if (delegation->unbonding > 0) {
    i64 now;
    TRY(read_clock(&now));
    REQUIRE(now >= delegation->unbondingUntil, ERROR_StillUnbonding);
    REQUIRE(provider->slashDue == 0, ERROR_SlashDue);
    TRY(mul_div(pool->stake, delegation->unbonding, pool->shares, &amount));
    REQUIRE(amount <= total_stake(provider) - provider->reserved, ERROR_StakeReserved);
    u64 principal;
    TRY(mul_div(delegation->principal, delegation->unbonding, delegation->shares + delegation->unbonding, &principal));
    SIGNER_PROVIDER(signer, provider);
    TRY(token_transfer(accounts->stakeVault, accounts->destination, accounts->provider, &signer, amount));
    pool->stake -= amount;
    pool->shares -= delegation->unbonding;
    pool->unbonding -= delegation->unbonding;
    delegation->unbonding = 0;
    delegation->principal -= principal;
  } else {
    REQUIRE(delegation->shares == 0, ERROR_SharesMissing);
  }
  if (delegation->shares == 0) close_account(accounts->delegation, accounts->staker);
  return 0;
}
