/**
 * Disputes: the buyer says that a proven result is wrong, and three verifiers who did not know that they would be asked
 * run the job again and say who is right.
 *
 * dispute → draw → votes committed → votes revealed → resolved. Each step has an end in time, and then anyone resolves:
 * two equal votes decide; without them the claim is halved and nobody is slashed. The buyer's bond is locked in the
 * budget. Verifiers are drawn by the hash of a slot that did not exist when the dispute was raised; each pledges a little
 * of its stake, which it loses when it does not reveal a vote. What the parties agreed to is then no longer asked.
 */
#pragma once

#define SEATS 3

/** SysvarS1otHashes111111111111111111111111111 */
static const Key SLOT_HASHES_SYSVAR = {{0xaf0a2f1917d5a706ull, 0x7acc77fbe365f2c6ull, 0x133bbed029c582daull, 0x0000002055002d6eull}};

/** The sysvar, newest first: the last 512 slots. */
typedef struct {
  u64 count;
  struct {
    u64 slot;
    Key hash;
  } entry[];
} SlotHashes;
#define SLOT_HASHES_MAX 512

/** By the delegate, inside the window. The bond comes from the free money of the budget. */
NOINLINE u64 dispute(Context *context) {
  const DisputeAccounts *accounts = (const DisputeAccounts *)context->account;
  const DisputeData *data = (const DisputeData *)context->data;
  LOAD(Config, config, accounts->config);
  LOAD(Budget, budget, accounts->budget);
  LOAD(Lease, lease, accounts->lease);
  REQUIRE_KEY(accounts->budget, &lease->budget);
  REQUIRE_KEY(accounts->vault, &budget->vault);
  REQUIRE(same_key(&accounts->delegate->key, &lease->delegate), ERROR_NotDelegate);
  REQUIRE(lease->state == LEASE_PROVEN, ERROR_LeaseNotProven);
  Clock clock;
  TRY(sol_get_clock_sysvar(&clock));
  i64 now = clock.unix_timestamp;
  REQUIRE(now <= lease->provenAt + (i64)lease->windowSeconds, ERROR_WindowClosed);
  u64 bond = share_of_up(lease->amount, lease->disputeBondBps);
  REQUIRE(bond <= free_money(budget, accounts->vault), ERROR_BudgetEmpty);

  const Bytes seeds[3] = {{"dispute", 7}, {&accounts->lease->key, 32}, {&data->bump, 1}};
  const SignerSeeds signer = {seeds, 3};
  TRY(create_account(accounts->delegate, accounts->dispute, sizeof(Dispute), context->program, &signer));
  Dispute *made = (Dispute *)accounts->dispute->data;
  made->tag = TAG_Dispute;
  made->bump = data->bump;
  made->lease = accounts->lease->key;
  made->provider = lease->provider;
  made->rentPayer = accounts->delegate->key;
  made->bond = bond;
  made->slot = clock.slot;
  made->voteUntil = now + config->parameters.voteSeconds;
  lease->state = LEASE_DISPUTED;
  budget->locked += bond;
  return 0;
}

/**
 * The hash of the first slot after `slot`; null where that is not known any more, because the sysvar has forgotten it.
 * `is_early`: no slot has followed yet.
 */
INLINE const Key *first_hash_after(const SlotHashes *hashes, u64 slot, int *is_early) {
  u64 index = hashes->count;
  while (index > 0 && hashes->entry[index - 1].slot <= slot) index--;
  *is_early = index == 0;
  if (index == 0 || (index == SLOT_HASHES_MAX && hashes->count == SLOT_HASHES_MAX)) return 0;
  return &hashes->entry[index - 1].hash;
}

/**
 * Anyone draws, and everyone draws the same. When nobody did for so long that the slot is forgotten, the draw starts anew
 * from the present slot, whose successor nobody knows.
 */
NOINLINE u64 draw(Context *context) {
  const DrawAccounts *accounts = (const DrawAccounts *)context->account;
  LOAD(Config, config, accounts->config);
  LOAD(Dispute, dispute, accounts->dispute);
  REQUIRE_KEY(accounts->slotHashes, &SLOT_HASHES_SYSVAR);
  REQUIRE(!dispute->drawn, ERROR_AlreadyDrawn);
  Clock clock;
  TRY(sol_get_clock_sysvar(&clock));
  REQUIRE(clock.unix_timestamp <= dispute->voteUntil, ERROR_VotingClosed);
  u8 list[VERIFIERS_MAX];
  u64 count = 0;
  for (u64 index = 0; index < config->verifierCount; index++) {
    if (!same_key(&config->verifiers[index], &dispute->provider)) list[count++] = (u8)index;
  }
  REQUIRE(count >= SEATS, ERROR_TooFewVerifiers);
  int is_early;
  const Key *hash = first_hash_after((const SlotHashes *)accounts->slotHashes->data, dispute->slot, &is_early);
  REQUIRE(!is_early, ERROR_DrawTooEarly);
  if (hash == 0) {
    dispute->slot = clock.slot;
    return 0;
  }
  Key seed;
  const Bytes parts[2] = {{hash, 32}, {&accounts->dispute->key, 32}};
  TRY(sol_sha256(parts, 2, &seed));

  Account *const *verifiers = &accounts->verifier0;
  Seat *seats = &dispute->seat0;
  for (u64 seat = 0; seat < SEATS; seat++) {
    u64 pick = seed.word[seat] % count;
    REQUIRE(same_key(&verifiers[seat]->key, &config->verifiers[list[pick]]), ERROR_WrongVerifier);
    list[pick] = list[--count];
    LOAD(Provider, verifier, verifiers[seat]);
    seats[seat].verifier = verifiers[seat]->key;
    seats[seat].pledge = smaller(config->parameters.verifierPledge, total_stake(verifier) - verifier->reserved);
    verifier->reserved += seats[seat].pledge;
  }
  dispute->drawn = 1;
  dispute->voteUntil = clock.unix_timestamp + config->parameters.voteSeconds;
  dispute->revealUntil = dispute->voteUntil + config->parameters.revealSeconds;
  return 0;
}

/** The seat of a drawn verifier whose operator signed. */
NOINLINE u64 find_seat(const Context *context, const VoteAccounts *accounts, Seat **found) {
  LOAD(Provider, verifier, accounts->verifier);
  LOAD(Dispute, dispute, accounts->dispute);
  REQUIRE(same_key(&accounts->operator->key, &verifier->operator), ERROR_NotOperator);
  REQUIRE(dispute->drawn, ERROR_VotingClosed);
  Seat *seats = &dispute->seat0;
  for (u64 index = 0; index < SEATS; index++) {
    if (!same_key(&seats[index].verifier, &accounts->verifier->key)) continue;
    *found = &seats[index];
    return 0;
  }
  return ERROR_WrongVerifier;
}

/** Commits to a vote that nobody can read yet; committing again replaces it. */
NOINLINE u64 vote(Context *context) {
  const VoteAccounts *accounts = (const VoteAccounts *)context->account;
  const VoteData *data = (const VoteData *)context->data;
  Seat *seat;
  TRY(find_seat(context, accounts, &seat));
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now <= ((const Dispute *)accounts->dispute->data)->voteUntil, ERROR_VotingClosed);

  seat->commitment = data->commitment;
  seat->committed = 1;
  return 0;
}

/** Only after all time for committing has passed, so that nobody copies a vote. Key and dispute are part of the hash. */
NOINLINE u64 reveal_vote(Context *context) {
  const VoteAccounts *accounts = (const VoteAccounts *)context->account;
  const RevealVoteData *data = (const RevealVoteData *)context->data;
  Seat *seat;
  TRY(find_seat(context, accounts, &seat));
  const Dispute *dispute = (const Dispute *)accounts->dispute->data;
  i64 now;
  TRY(read_clock(&now));
  REQUIRE(now > dispute->voteUntil && now <= dispute->revealUntil, ERROR_RevealClosed);
  REQUIRE(data->vote == VOTE_provider || data->vote == VOTE_buyer, ERROR_WrongReveal);
  Key digest;
  const Bytes parts[5] = {
      {"molt/vote/v1\0\0\0\0", 16}, {&accounts->dispute->key, 32}, {&seat->verifier, 32}, {&data->salt, 32}, {&data->vote, 1}};
  TRY(sol_sha256(parts, 5, &digest));
  REQUIRE(seat->committed && same_key(&digest, &seat->commitment), ERROR_WrongReveal);

  seat->vote = data->vote;
  return 0;
}

/** Frees the pledges; who did not reveal loses its own. Before the draw there are none. */
NOINLINE u64 release_verifiers(const Context *context, const ResolveAccounts *accounts, const Dispute *dispute) {
  Account *const *pairs = &accounts->verifier0; /* verifier, its stake vault, and so on */
  const Seat *seats = &dispute->seat0;
  for (u64 index = 0; index < SEATS && dispute->drawn; index++) {
    const Slashed slashed = {pairs[2 * index], pairs[2 * index + 1], accounts->mint};
    REQUIRE(same_key(&slashed.provider->key, &seats[index].verifier), ERROR_WrongVerifier);
    LOAD(Provider, verifier, slashed.provider);
    REQUIRE_KEY(slashed.vault, &verifier->stakeVault);
    verifier->reserved -= seats[index].pledge;
    if (seats[index].vote != 0 || seats[index].pledge == 0) continue;
    StakeSlashed event = {0};
    event.reason = SLASH_missedVote;
    TRY(slash(&slashed, seats[index].pledge, 0, &event));
  }
  return 0;
}

/** The bond goes to the provider whole: it is compensation, not a price, so it carries no fees. */
NOINLINE u64 pay_bond(Account *const *closing, u64 bond) {
  Provider *provider = (Provider *)closing[CLOSING_provider]->data;
  Budget *budget = (Budget *)closing[CLOSING_budget]->data;
  int can = can_take(closing);
  SIGNER_BUDGET(signer, budget);
  Account *to = closing[can ? CLOSING_payout : CLOSING_stakeVault];
  TRY(token_transfer(closing[CLOSING_vault], to, closing[CLOSING_budget], &signer, bond));
  if (!can) provider->own.stake += bond;
  return 0;
}

/**
 * Ends a dispute: for the provider, who is paid the claim and the bond; for the buyer, who has the bond back and a part
 * of the reserve on top; or neutrally. The share of a lost reserve that is not the buyer's is burnt, so that a buyer who
 * brought the verdict about has not brought about a profit of the whole.
 */
NOINLINE u64 resolve(Context *context) {
  const ResolveAccounts *accounts = (const ResolveAccounts *)context->account;
  Account *const *closing = &accounts->rentPayer;
  TRY(check_closing(context, closing));
  LOAD(Dispute, dispute, accounts->dispute);
  REQUIRE(same_key(&accounts->lease->key, &dispute->lease), ERROR_LeaseNotDisputed);
  REQUIRE_KEY(accounts->disputeRentPayer, &dispute->rentPayer);
  Lease *lease = (Lease *)accounts->lease->data;
  Provider *provider = (Provider *)accounts->provider->data;
  Budget *budget = (Budget *)accounts->budget->data;
  const Seat *seats = &dispute->seat0;
  u64 votes[3] = {0, 0, 0};
  for (u64 index = 0; index < SEATS; index++) votes[seats[index].vote % 3] += 1;
  i64 now;
  TRY(read_clock(&now));
  i64 until = dispute->drawn ? dispute->revealUntil : dispute->voteUntil;
  REQUIRE(votes[0] == 0 || now > until, ERROR_NotYetResolved);

  TRY(release_verifiers(context, accounts, dispute));
  budget->locked -= dispute->bond;
  LeaseEnded event = {0};
  event.resultDigest = lease->resultDigest;
  u64 total = lease->claimed;
  if (votes[VOTE_provider] >= 2) {
    event.ending = ENDING_resolvedForProvider;
    TRY(pay_bond(closing, dispute->bond));
  } else if (votes[VOTE_buyer] >= 2) {
    event.ending = ENDING_resolvedForBuyer;
    total = lease->redeemed;
    StakeSlashed slashed = {0};
    slashed.reason = SLASH_wrongResult;
    if (lease->reserve > 0) TRY(compensate(closing, lease->reserve, REPORTER_BPS + HARMED_BPS, &slashed));
    event.slashed = lease->reserve;
    provider->faults += 1;
    provider->faultAmount += lease->amount;
  } else {
    event.ending = ENDING_resolvedNeutral;
    total = lease->claimed / 2 > lease->redeemed ? lease->claimed / 2 : lease->redeemed;
  }
  TRY(pay_off(closing, total, &event));
  if (event.ending == ENDING_resolvedForProvider && total > 0) provider->settledCount += 1;
  release(closing, &event);
  close_account(accounts->dispute, accounts->disputeRentPayer);
  return 0;
}
