/**
 * The three ways a lease ends: settled, cancelled, expired. Each conserves tokens exactly and leaves nothing locked.
 *
 * An amount that is paid splits into the burnt fee and the stake fee, both rounded down, and the payout, which takes the
 * rest; what is not paid stays in the budget and becomes free.
 */
#pragma once

/** Who of the two parties signed. */
typedef struct {
  u8 delegate;
  u8 operator;
} Signed;

INLINE Signed who_signed(const SettleAccounts *accounts, const Lease *lease) {
  Signed is;
  is.delegate = accounts->delegate->signer && same_key(&accounts->delegate->key, &lease->delegate);
  is.operator= accounts->operator->signer && same_key(&accounts->operator->key, &lease->operator);
  return is;
}

/** The accounts that every ending touches are the ones of this lease. `closing` starts at `rentPayer` in all three. */
NOINLINE u64 check_closing(const Context *context, Account *const *closing) {
  LOAD(Lease, lease, closing[CLOSING_lease]);
  LOAD(Provider, provider, closing[CLOSING_provider]);
  LOAD(Budget, budget, closing[CLOSING_budget]);
  REQUIRE_KEY(closing[CLOSING_rentPayer], &lease->rentPayer);
  REQUIRE_KEY(closing[CLOSING_provider], &lease->provider);
  REQUIRE_KEY(closing[CLOSING_budget], &lease->budget);
  REQUIRE_KEY(closing[CLOSING_vault], &budget->vault);
  REQUIRE_KEY(closing[CLOSING_stakeVault], &provider->stakeVault);
  return 0;
}

/** Unlocks money and stake, gives what was not spent back to the day's cap, closes the account, tells the world. */
NOINLINE void release(Account *const *closing, LeaseEnded *event) {
  Account *account = closing[CLOSING_lease];
  Lease *lease = (Lease *)account->data;
  Provider *provider = (Provider *)closing[CLOSING_provider]->data;
  Budget *budget = (Budget *)closing[CLOSING_budget]->data;
  event->tag = TAG_LeaseEnded;
  event->lease = account->key;
  event->budget = lease->budget;
  event->provider = lease->provider;
  event->refunded = lease->amount - event->paid;

  budget->locked -= lease->amount;
  budget->openLeases -= 1;
  if (budget->day == (i64)((u64)lease->openedAt / DAY_SECONDS)) budget->spentToday -= event->refunded;
  provider->reserved -= lease->reserve;
  provider->openLeases -= 1;
  close_account(account, closing[CLOSING_rentPayer]);
  const Bytes part[1] = {{event, sizeof(LeaseEnded)}};
  sol_log_data(part, 1);
}

/**
 * Pays `event->paid` out of the budget. A payout account that cannot take money (closed, frozen, or the vault itself)
 * must not block the buyer's refund: the payout then goes to the provider's stake.
 */
NOINLINE u64 pay(const SettleAccounts *accounts, LeaseEnded *event) {
  Lease *lease = (Lease *)accounts->lease->data;
  Provider *provider = (Provider *)accounts->provider->data;
  Budget *budget = (Budget *)accounts->budget->data;
  const Key *mint = &((const TokenAccount *)accounts->vault->data)->mint;
  REQUIRE_KEY(accounts->payout, &lease->payout);
  REQUIRE_KEY(accounts->mint, mint);
  u64 burned = share_of(event->paid, lease->burnFeeBps);
  u64 staked = share_of(event->paid, lease->stakeFeeBps);
  u64 payout = event->paid - burned - staked;
  int usable = is_token_account(accounts->payout, mint) && !same_key(&accounts->payout->key, &budget->vault) &&
               !same_key(&accounts->payout->key, &provider->stakeVault);
  if (!usable) {
    staked += payout;
    payout = 0;
  }
  u64 stake_after;
  REQUIRE(!__builtin_add_overflow(provider->stake, staked, &stake_after), ERROR_Overflow);

  SIGNER_BUDGET(signer, budget);
  TRY(token_burn(accounts->vault, accounts->mint, accounts->budget, &signer, burned));
  TRY(token_transfer(accounts->vault, accounts->stakeVault, accounts->budget, &signer, staked));
  if (payout > 0) TRY(token_transfer(accounts->vault, accounts->payout, accounts->budget, &signer, payout));
  provider->stake = stake_after;
  provider->settledAmount += event->paid;
  provider->feesBurned += burned;
  event->burned = burned;
  event->staked = staked;
  return 0;
}

/** Which ending this is, if these signers may settle this amount now. */
INLINE u64 check_settlement(const Lease *lease, const SettleData *data, Signed is, LeaseEnded *event) {
  REQUIRE(data->amount <= lease->amount, ERROR_AmountNotAllowed);
  if (is.delegate && is.operator) {
    event->ending = ENDING_settledTogether;
    return 0;
  }
  if (lease->state == LEASE_PROVEN) REQUIRE(same_key(&data->resultDigest, &lease->resultDigest), ERROR_DigestMismatch);
  int claim = lease->state == LEASE_PROVEN && data->amount == lease->claimed;
  if (is.delegate) {
    REQUIRE(claim || data->amount == lease->amount, ERROR_AmountNotAllowed);
    event->ending = ENDING_settledByDelegate;
    return 0;
  }
  REQUIRE(lease->state == LEASE_PROVEN, ERROR_LeaseNotProven);
  REQUIRE(claim, ERROR_AmountNotAllowed);
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now > lease->provenAt + (i64)lease->windowSeconds, ERROR_WindowOpen);
  event->ending = ENDING_settledAfterWindow;
  return 0;
}

NOINLINE u64 settle(Context *context) {
  const SettleAccounts *accounts = (const SettleAccounts *)context->account;
  const SettleData *data = (const SettleData *)context->data;
  Account *const *closing = &accounts->rentPayer;
  TRY(check_closing(context, closing));
  const Lease *lease = (const Lease *)accounts->lease->data;
  Provider *provider = (Provider *)accounts->provider->data;
  LeaseEnded event = {0};
  TRY(check_settlement(lease, data, who_signed(accounts, lease), &event));

  event.paid = data->amount;
  event.resultDigest = data->resultDigest;
  TRY(pay(accounts, &event));
  if (event.paid > 0) provider->settledCount += 1;
  release(closing, &event);
  return 0;
}

/** What the time since opening costs, rounded up to the second, capped by the lock. */
INLINE u64 owed_for_time(const Lease *lease, i64 now) {
  u64 seconds = now > lease->openedAt ? (u64)(now - lease->openedAt) : 0;
  if (lease->pricePerSecond == 0) return 0;
  if (seconds > lease->amount / lease->pricePerSecond) return lease->amount;
  return seconds * lease->pricePerSecond;
}

/** `amount` is the most that is to be paid. The operator alone gives all back; the delegate alone owes the time used. */
NOINLINE u64 cancel_lease(Context *context) {
  /* The accounts are those of settle. */
  const SettleAccounts *accounts = (const SettleAccounts *)context->account;
  const CancelLeaseData *data = (const CancelLeaseData *)context->data;
  Account *const *closing = &accounts->rentPayer;
  TRY(check_closing(context, closing));
  const Lease *lease = (const Lease *)accounts->lease->data;
  Signed is = who_signed(accounts, lease);
  REQUIRE(is.delegate || is.operator, ERROR_NotAParty);
  REQUIRE(lease->state == LEASE_RUNNING, ERROR_LeaseNotRunning);
  i64 now;
  TRY(read_clock(&now));
  u64 owed = owed_for_time(lease, now);
  LeaseEnded event = {0};
  if (!is.delegate) {
    REQUIRE(data->amount == 0, ERROR_AmountNotAllowed);
    event.ending = ENDING_cancelledByOperator;
  } else if (!is.operator) {
    REQUIRE(data->amount >= owed, ERROR_OwedMore);
    event.ending = ENDING_cancelledByDelegate;
  } else {
    event.ending = ENDING_cancelledTogether;
  }

  event.paid = data->amount < owed ? data->amount : owed;
  TRY(pay(accounts, &event));
  release(closing, &event);
  return 0;
}

/** No proof in time: the buyer has everything back, and a part of the reserved stake on top. */
NOINLINE u64 expire_lease(Context *context) {
  const ExpireLeaseAccounts *accounts = (const ExpireLeaseAccounts *)context->account;
  Account *const *closing = &accounts->rentPayer;
  TRY(check_closing(context, closing));
  const Lease *lease = (const Lease *)accounts->lease->data;
  Provider *provider = (Provider *)accounts->provider->data;
  REQUIRE(lease->state == LEASE_RUNNING, ERROR_LeaseNotRunning);
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now > lease->finishBy + (i64)lease->graceSeconds, ERROR_NotYetExpired);

  LeaseEnded event = {0};
  event.ending = ENDING_expired;
  event.slashed = share_of(lease->amount, lease->noShowSlashBps);
  if (event.slashed > lease->reserve) event.slashed = lease->reserve;
  SIGNER_PROVIDER(signer, provider);
  TRY(token_transfer(accounts->stakeVault, accounts->vault, accounts->provider, &signer, event.slashed));
  provider->stake -= event.slashed;
  provider->faults += 1;
  provider->faultAmount += lease->amount;
  release(closing, &event);
  return 0;
}
