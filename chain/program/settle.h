/**
 * Paying a provider, and the ways a lease ends: settled, cancelled, expired, and (in the next chapter) resolved. Each
 * conserves tokens exactly and leaves nothing locked.
 *
 * An amount that is paid splits into the burnt fee and the stake fee, both rounded down, and the payout, which takes the
 * rest; what is not paid stays in the budget and becomes free. Amounts count from the opening of the lease: what vouchers
 * have redeemed is part of them, and no ending pays less than that.
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

/** The accounts that every ending touches are the ones of this lease. `closing` starts at `rentPayer` in all of them. */
NOINLINE u64 check_closing(const Context *context, Account *const *closing) {
  LOAD(Lease, lease, closing[CLOSING_lease]);
  LOAD(Provider, provider, closing[CLOSING_provider]);
  LOAD(Budget, budget, closing[CLOSING_budget]);
  REQUIRE_KEY(closing[CLOSING_rentPayer], &lease->rentPayer);
  REQUIRE_KEY(closing[CLOSING_provider], &lease->provider);
  REQUIRE_KEY(closing[CLOSING_budget], &lease->budget);
  REQUIRE_KEY(closing[CLOSING_vault], &budget->vault);
  REQUIRE_KEY(closing[CLOSING_stakeVault], &provider->stakeVault);
  REQUIRE_KEY(closing[CLOSING_mint], &((const TokenAccount *)closing[CLOSING_vault]->data)->mint);
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

  /* `redeemed` is everything paid by now, and was unlocked when it was paid. */
  budget->locked -= lease->amount - lease->redeemed;
  budget->openLeases -= 1;
  if (budget->day == (i64)((u64)lease->openedAt / DAY_SECONDS)) budget->spentToday -= event->refunded;
  provider->reserved -= lease->reserve;
  provider->openLeases -= 1;
  close_account(account, closing[CLOSING_rentPayer]);
  const Bytes part[1] = {{event, sizeof(LeaseEnded)}};
  sol_log_data(part, 1);
}

/**
 * Whether the payout account can take money. One that cannot (closed, frozen, or a vault itself) must not block the
 * buyer's refund: the owner's money then goes to the owner's stake.
 */
INLINE int can_take(Account *const *closing) {
  const Account *payout = closing[CLOSING_payout];
  return is_token_account(payout, &closing[CLOSING_mint]->key) && !same_key(&payout->key, &closing[CLOSING_vault]->key) &&
         !same_key(&payout->key, &closing[CLOSING_stakeVault]->key);
}

/** What one payment came to. */
typedef struct {
  u64 burned;
  u64 staked;
} Fees;

/** Pays so much of the lock out of the budget that `total` is paid since the opening; `total` is at most the lock. */
NOINLINE u64 pay_up_to(Account *const *closing, u64 total, Fees *fees) {
  Lease *lease = (Lease *)closing[CLOSING_lease]->data;
  Provider *provider = (Provider *)closing[CLOSING_provider]->data;
  Budget *budget = (Budget *)closing[CLOSING_budget]->data;
  REQUIRE_KEY(closing[CLOSING_payout], &lease->payout);
  u64 amount = total - lease->redeemed;
  u64 burned = share_of(amount, lease->burnFeeBps);
  u64 fee = share_of(amount, lease->stakeFeeBps);
  u64 payout = amount - burned - fee;
  u64 own = can_take(closing) ? 0 : payout;

  SIGNER_BUDGET(signer, budget);
  Account *vault = closing[CLOSING_vault], *authority = closing[CLOSING_budget];
  TRY(token_burn(vault, closing[CLOSING_mint], authority, &signer, burned));
  TRY(token_transfer(vault, closing[CLOSING_stakeVault], authority, &signer, fee + own));
  if (payout > own) TRY(token_transfer(vault, closing[CLOSING_payout], authority, &signer, payout - own));
  TRY(earn(provider, fee, lease->commissionBps));
  provider->own.stake += own;
  provider->settledAmount += amount;
  provider->feesBurned += burned;
  budget->locked -= amount;
  lease->redeemed = total;
  fees->burned = burned;
  fees->staked = fee + own;
  return 0;
}

/** The last payment of a lease. */
NOINLINE u64 pay_off(Account *const *closing, u64 total, LeaseEnded *event) {
  Fees fees;
  TRY(pay_up_to(closing, total, &fees));
  event->paid = total;
  event->burned = fees.burned;
  event->staked = fees.staked;
  return 0;
}

/** What a delegate signs away from the chain: how much of a lease may be redeemed since its opening. */
typedef struct {
  u8 domain[16];
  Key network;
  Key lease;
  u64 amount;
} Voucher;
_Static_assert(sizeof(Voucher) == 88, "Voucher has gaps");

/** Pays the difference to what was redeemed before; a voucher over more than the lock pays the lock. */
NOINLINE u64 redeem_voucher(Context *context) {
  const RedeemVoucherAccounts *accounts = (const RedeemVoucherAccounts *)context->account;
  const RedeemVoucherData *data = (const RedeemVoucherData *)context->data;
  Account *const *closing = &accounts->rentPayer;
  TRY(check_closing(context, closing));
  LOAD(Config, config, accounts->config);
  const Lease *lease = (const Lease *)accounts->lease->data;
  REQUIRE(accounts->operator->signer && same_key(&accounts->operator->key, &lease->operator), ERROR_NotOperator);
  REQUIRE(lease->state == LEASE_RUNNING, ERROR_LeaseNotRunning);
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now <= lease->finishBy + (i64)lease->graceSeconds, ERROR_ProofTooLate);
  SignedMessages is;
  TRY(read_signatures(accounts->instructions, 1, sizeof(Voucher), &is));
  REQUIRE(same_key(&is.key, &lease->delegate), ERROR_WrongSigner);
  Voucher voucher = {"molt/voucher/v1", config->network, accounts->lease->key, data->amount};
  REQUIRE(same_bytes(&voucher, is.message[0], sizeof(Voucher)), ERROR_WrongVoucher);
  u64 total = smaller(data->amount, lease->amount);
  REQUIRE(total > lease->redeemed, ERROR_NothingToRedeem);

  VoucherRedeemed event = {0};
  Fees fees;
  TRY(pay_up_to(closing, total, &fees));
  event.tag = TAG_VoucherRedeemed;
  event.lease = accounts->lease->key;
  event.budget = lease->budget;
  event.provider = lease->provider;
  event.redeemed = total;
  event.burned = fees.burned;
  event.staked = fees.staked;
  const Bytes part[1] = {{&event, sizeof(VoucherRedeemed)}};
  sol_log_data(part, 1);
  return 0;
}

/** Which ending this is, if these signers may settle this amount now. */
INLINE u64 check_settlement(const Lease *lease, const SettleData *data, Signed is, LeaseEnded *event) {
  REQUIRE(lease->state != LEASE_DISPUTED, ERROR_LeaseNotProven);
  REQUIRE(data->amount <= lease->amount, ERROR_AmountNotAllowed);
  REQUIRE(data->amount >= lease->redeemed, ERROR_AmountBelowRedeemed);
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

  event.resultDigest = data->resultDigest;
  TRY(pay_off(closing, data->amount, &event));
  if (event.paid > 0) provider->settledCount += 1;
  release(closing, &event);
  return 0;
}

/** What the time since opening costs, rounded up to the second, capped by the lock, and at least what was redeemed. */
INLINE u64 owed_for_time(const Lease *lease, i64 now) {
  u64 seconds = now > lease->openedAt ? (u64)(now - lease->openedAt) : 0;
  if (lease->pricePerSecond == 0) return lease->redeemed;
  if (seconds > lease->amount / lease->pricePerSecond) return lease->amount;
  u64 owed = seconds * lease->pricePerSecond;
  return owed > lease->redeemed ? owed : lease->redeemed;
}

/** `amount` is the most that is to be paid. The operator alone gives back what is left; the delegate owes the time used. */
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
  u64 total = smaller(data->amount, owed);
  LeaseEnded event = {0};
  if (!is.delegate) {
    REQUIRE(data->amount == 0, ERROR_AmountNotAllowed);
    total = lease->redeemed;
    event.ending = ENDING_cancelledByOperator;
  } else if (!is.operator) {
    REQUIRE(data->amount >= owed, ERROR_OwedMore);
    event.ending = ENDING_cancelledByDelegate;
  } else {
    REQUIRE(data->amount >= lease->redeemed, ERROR_AmountBelowRedeemed);
    event.ending = ENDING_cancelledTogether;
  }

  TRY(pay_off(closing, total, &event));
  release(closing, &event);
  return 0;
}

/** Takes `amount` of stake for this lease, and gives the part of it that may be paid to the budget. */
NOINLINE u64 compensate(Account *const *closing, u64 amount, u64 paid_bps, StakeSlashed *event) {
  Provider *provider = (Provider *)closing[CLOSING_provider]->data;
  const Slashed slashed = {closing[CLOSING_provider], closing[CLOSING_stakeVault], closing[CLOSING_mint]};
  TRY(slash(&slashed, amount, paid_bps, event));
  SIGNER_PROVIDER(signer, provider);
  return token_transfer(slashed.vault, closing[CLOSING_vault], slashed.provider, &signer, event->paid);
}

/** No proof in time: the buyer has everything back that was not redeemed, and a part of the reserved stake on top. */
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
  event.paid = lease->redeemed;
  StakeSlashed slashed = {0};
  slashed.reason = SLASH_noShow;
  u64 amount = smaller(share_of(lease->amount, lease->noShowSlashBps), lease->reserve);
  if (amount > 0) TRY(compensate(closing, amount, 10000, &slashed));
  event.slashed = amount;
  provider->faults += 1;
  provider->faultAmount += lease->amount;
  release(closing, &event);
  return 0;
}
