/**
 * Opening, extending and proving a lease. Opening moves no tokens: the amount is locked inside the budget, the reserve
 * inside the stake, where it stands behind this lease alone until the lease ends.
 */
#pragma once

/**
 * What the budget allows at this moment: expiry, caps, free money. `amount` is the whole lease, `more` what is locked now;
 * `today` becomes what was leased today with it.
 */
NOINLINE u64 check_limits(const Budget *budget, const Account *vault, const u64 amount_and_more[2], i64 now, u64 *today) {
  u64 amount = amount_and_more[0], more = amount_and_more[1];
  REQUIRE(now < budget->limits.expiry, ERROR_BudgetExpired);
  REQUIRE(amount <= budget->limits.capPerLease, ERROR_OverLeaseCap);
  u64 spent = budget->day == (i64)((u64)now / DAY_SECONDS) ? budget->spentToday : 0;
  REQUIRE(!__builtin_add_overflow(spent, more, today), ERROR_OverDayCap);
  REQUIRE(*today <= budget->limits.capPerDay, ERROR_OverDayCap);
  REQUIRE(more <= free_money(budget, vault), ERROR_BudgetEmpty);
  return 0;
}

/** What the market demands: deadlines and reserved stake. `now` is not negative. */
INLINE u64 check_terms(const Parameters *parameters, const Provider *provider, const OpenLeaseData *data, i64 now) {
  REQUIRE(data->amount > 0, ERROR_ZeroAmount);
  REQUIRE(now <= data->openBefore, ERROR_OpenedTooLate);
  REQUIRE(data->finishBy > now && data->finishBy <= now + (i64)parameters->maxLeaseSeconds, ERROR_FinishOutOfRange);
  REQUIRE(data->graceSeconds >= parameters->minGraceSeconds && data->graceSeconds <= SECONDS_MAX, ERROR_GraceOutOfRange);
  REQUIRE(data->windowSeconds >= parameters->minWindowSeconds && data->windowSeconds <= SECONDS_MAX, ERROR_WindowOutOfRange);
  REQUIRE(data->reserve >= share_of_up(data->amount, parameters->reserveBps), ERROR_ReserveTooLow);
  return check_backing(parameters, provider, data->reserve, now);
}

NOINLINE u64 open_lease(Context *context) {
  const OpenLeaseAccounts *accounts = (const OpenLeaseAccounts *)context->account;
  const OpenLeaseData *data = (const OpenLeaseData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  LOAD(Budget, budget, accounts->budget);
  REQUIRE_KEY(accounts->vault, &budget->vault);
  REQUIRE(is_delegate(budget, &accounts->delegate->key), ERROR_NotDelegate);
  REQUIRE(same_key(&accounts->operator->key, &provider->operator), ERROR_NotOperator);
  i64 now;
  TRY(read_clock(&now));
  TRY(check_terms(&config->parameters, provider, data, now));
  u64 today;
  const u64 amounts[2] = {data->amount, data->amount};
  TRY(check_limits(budget, accounts->vault, amounts, now, &today));

  const Bytes seeds[4] = {{"lease", 5}, {&accounts->budget->key, 32}, {&data->termsDigest, 32}, {&data->bump, 1}};
  const SignerSeeds signer = {seeds, 4};
  TRY(create_account(accounts->payer, accounts->lease, sizeof(Lease), context->program, &signer));

  Lease *lease = (Lease *)accounts->lease->data;
  lease->tag = TAG_Lease;
  lease->bump = data->bump;
  lease->state = LEASE_RUNNING;
  lease->graceSeconds = data->graceSeconds;
  lease->windowSeconds = data->windowSeconds;
  /* Rates, commission and payout account of this moment hold to the end of the lease, whatever the authority changes meanwhile. */
  lease->stakeFeeBps = config->parameters.stakeFeeBps;
  lease->burnFeeBps = config->parameters.burnFeeBps;
  lease->noShowSlashBps = config->parameters.noShowSlashBps;
  lease->disputeBondBps = config->parameters.disputeBondBps;
  lease->commissionBps = provider->commissionBps;
  lease->budget = accounts->budget->key;
  lease->provider = accounts->provider->key;
  lease->operator= accounts->operator->key;
  lease->delegate = accounts->delegate->key;
  lease->rentPayer = accounts->payer->key;
  lease->payout = provider->payout;
  lease->termsDigest = data->termsDigest;
  lease->amount = data->amount;
  lease->pricePerSecond = data->pricePerSecond;
  lease->reserve = data->reserve;
  lease->openedAt = now;
  lease->finishBy = data->finishBy;

  budget->day = (i64)((u64)now / DAY_SECONDS);
  budget->spentToday = today;
  budget->locked += data->amount;
  budget->openLeases += 1;
  provider->reserved += data->reserve;
  provider->openLeases += 1;
  return 0;
}

/**
 * More money, more reserve, a later deadline: whatever both parties agree, and never less than before. Numbers are totals,
 * not additions, so doing it twice changes nothing.
 */
NOINLINE u64 extend_lease(Context *context) {
  const ExtendLeaseAccounts *accounts = (const ExtendLeaseAccounts *)context->account;
  const ExtendLeaseData *data = (const ExtendLeaseData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  LOAD(Budget, budget, accounts->budget);
  LOAD(Lease, lease, accounts->lease);
  REQUIRE_KEY(accounts->provider, &lease->provider);
  REQUIRE_KEY(accounts->budget, &lease->budget);
  REQUIRE_KEY(accounts->vault, &budget->vault);
  REQUIRE(same_key(&accounts->delegate->key, &lease->delegate), ERROR_NotDelegate);
  REQUIRE(is_delegate(budget, &accounts->delegate->key), ERROR_NotDelegate);
  REQUIRE(same_key(&accounts->operator->key, &lease->operator), ERROR_NotOperator);
  REQUIRE(lease->state == LEASE_RUNNING, ERROR_LeaseNotRunning);
  REQUIRE(data->amount >= lease->amount && data->reserve >= lease->reserve && data->finishBy >= lease->finishBy,
          ERROR_ExtensionShrinks);
  const Parameters *parameters = &config->parameters;
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(data->finishBy > now && data->finishBy <= now + (i64)parameters->maxLeaseSeconds, ERROR_FinishOutOfRange);
  REQUIRE(data->reserve >= share_of_up(data->amount, parameters->reserveBps), ERROR_ReserveTooLow);
  TRY(check_backing(parameters, provider, data->reserve - lease->reserve, now));
  u64 more = data->amount - lease->amount;
  const u64 amounts[2] = {data->amount, more};
  u64 today;
  TRY(check_limits(budget, accounts->vault, amounts, now, &today));

  budget->day = (i64)((u64)now / DAY_SECONDS);
  budget->spentToday = today;
  budget->locked += more;
  provider->reserved += data->reserve - lease->reserve;
  lease->amount = data->amount;
  lease->reserve = data->reserve;
  lease->finishBy = data->finishBy;
  return 0;
}

/** The operator states result and claim; the challenge window starts. Once per lease. */
NOINLINE u64 submit_proof(Context *context) {
  const SubmitProofAccounts *accounts = (const SubmitProofAccounts *)context->account;
  const SubmitProofData *data = (const SubmitProofData *)context->data;
  LOAD(Lease, lease, accounts->lease);
  REQUIRE(same_key(&accounts->operator->key, &lease->operator), ERROR_NotOperator);
  REQUIRE(lease->state == LEASE_RUNNING, ERROR_LeaseNotRunning);
  REQUIRE(data->claimed <= lease->amount, ERROR_ClaimTooHigh);
  REQUIRE(data->claimed >= lease->redeemed, ERROR_AmountBelowRedeemed);
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now <= lease->finishBy + (i64)lease->graceSeconds, ERROR_ProofTooLate);

  lease->state = LEASE_PROVEN;
  lease->claimed = data->claimed;
  lease->resultDigest = data->resultDigest;
  lease->provenAt = now;
  return 0;
}
