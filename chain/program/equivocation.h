/**
 * Equivocation: one operator, two signed statements that cannot both be true. Anyone shows both; nobody judges.
 *
 * Statements are the 136-byte commits of SPEC.md. Two of one kind, attempt, subject and index contradict each other when
 * they differ; two lease commits of one capacity unit also when their intervals overlap and they name different values.
 *
 * A share of the whole stake is lost. An Offence account remembers it, so that it is punished once. Stake that stands
 * behind open leases is theirs first: what cannot be taken now stays due, keeps the provider from opening leases and
 * everybody from withdrawing, and is taken by anyone when leases have ended; the evidence is not needed again.
 */
#pragma once

typedef struct {
  u8 domain[16];
  u8 kind;
  u8 flags;
  u16 attempt;
  u8 network[4];
  Key subject;
  u64 index;
  u64 aux;
  Key value;
  u64 slot;
  u8 account[24];
} Commit;
_Static_assert(sizeof(Commit) == 136, "Commit has gaps");

#define COMMIT_LEASE 2

/** True when both cannot be honest. */
INLINE u64 is_conflict(const Commit *a, const Commit *b) {
  if (a->kind != b->kind || !same_key(&a->subject, &b->subject)) return 0;
  if (same_key(&a->value, &b->value)) return 0;
  if (a->attempt == b->attempt && a->index == b->index) return 1;
  return a->kind == COMMIT_LEASE && a->index < b->aux && b->index < a->aux;
}

/**
 * What tells this offence from others: kind, subject, attempt and index of the later statement. Three values for one index
 * are one offence; every lease that starts inside another one is.
 */
INLINE u64 offence_digest(const Commit *a, const Commit *b, Key *digest) {
  const Commit *later = b->index > a->index || (b->index == a->index && b->attempt > a->attempt) ? b : a;
  const Bytes parts[4] = {{&later->kind, 1}, {&later->attempt, 2}, {&later->subject, 32}, {&later->index, 8}};
  return sol_sha256(parts, 4, digest);
}

/** Reads and checks the evidence against this provider. */
NOINLINE u64 read_evidence(const Context *context, const SlashEquivocationAccounts *accounts, Key *digest, Commit *first) {
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  SignedMessages is;
  TRY(read_signatures(accounts->instructions, 2, sizeof(Commit), &is));
  REQUIRE(same_key(&is.key, &provider->operator) || same_key(&is.key, &provider->formerOperator), ERROR_WrongSigner);
  const Commit *a = (const Commit *)is.message[0], *b = (const Commit *)is.message[1];
  for (u64 index = 0; index < 2; index++) {
    const Commit *commit = (const Commit *)is.message[index];
    int ours = same_bytes(commit->domain, "molt/commit/v1\0", 16) && commit->flags == 0 &&
               same_bytes(commit->network, &config->network, 4);
    REQUIRE(ours, ERROR_WrongDomain);
  }
  REQUIRE(is_conflict(a, b), ERROR_NoConflict);
  *first = *a;
  return offence_digest(a, b, digest);
}

/** The budget that an offence harmed, if it is still there. */
NOINLINE u64 find_harmed(const Context *context, const SlashEquivocationAccounts *accounts, const Key *expected, u64 *found) {
  *found = 0;
  if (!same_key(&accounts->harmedBudget->key, expected)) return 0;
  if (!same_key(&accounts->harmedBudget->owner, context->program)) return 0;
  LOAD(Budget, budget, accounts->harmedBudget);
  REQUIRE_KEY(accounts->harmedVault, &budget->vault);
  *found = 1;
  return 0;
}

/** Checks the evidence and makes the account of an offence that is shown for the first time. */
NOINLINE u64 note_offence(const Context *context, const SlashEquivocationAccounts *accounts) {
  const SlashEquivocationData *data = (const SlashEquivocationData *)context->data;
  Key digest;
  Commit commit;
  TRY(read_evidence(context, accounts, &digest, &commit));
  const Config *config = (const Config *)accounts->config->data;
  Provider *provider = (Provider *)accounts->provider->data;
  const Key *budget = &accounts->harmedBudget->key;
  u64 harmed = 0;
  if (same_bytes(commit.account, budget, 24)) TRY(find_harmed(context, accounts, budget, &harmed));
  i64 now;
  TRY(read_clock(&now));
  const Bytes seeds[4] = {{"offence", 7}, {&accounts->provider->key, 32}, {&digest, 32}, {&data->bump, 1}};
  const SignerSeeds signer = {seeds, 4};
  TRY(create_account(accounts->reporter, accounts->offence, sizeof(Offence), context->program, &signer));
  u64 amount = share_of(total_stake(provider), config->parameters.equivocationSlashBps);
  Offence *offence = (Offence *)accounts->offence->data;
  offence->tag = TAG_Offence;
  offence->bump = data->bump;
  offence->kind = commit.kind;
  offence->provider = accounts->provider->key;
  offence->reporter = accounts->reporter->key;
  if (harmed) offence->harmed = *budget;
  offence->digest = digest;
  offence->amount = amount;
  offence->due = amount;
  offence->provenAt = now;
  provider->slashDue += amount;
  provider->jailedUntil = now + JAIL_SECONDS;
  provider->faults += 1;
  provider->faultAmount += amount;
  return 0;
}

/** Whoever calls is rewarded: with the evidence for the first time, without it for what is still due. */
NOINLINE u64 slash_equivocation(Context *context) {
  const SlashEquivocationAccounts *accounts = (const SlashEquivocationAccounts *)context->account;
  LOAD(Config, config, accounts->config);
  LOAD(Provider, provider, accounts->provider);
  REQUIRE_KEY(accounts->stakeVault, &provider->stakeVault);
  REQUIRE_KEY(accounts->mint, &config->mint);
  u64 is_known = accounts->offence->data_length != 0;
  if (!is_known) TRY(note_offence(context, accounts));
  LOAD(Offence, offence, accounts->offence);
  REQUIRE(same_key(&offence->provider, &accounts->provider->key), ERROR_WrongOffence);
  u64 amount = smaller(offence->due, total_stake(provider) - provider->reserved);
  REQUIRE(!is_known || amount > 0, ERROR_AlreadySlashed);
  u64 harmed;
  TRY(find_harmed(context, accounts, &offence->harmed, &harmed));

  offence->due -= amount;
  provider->slashDue -= amount;
  StakeSlashed event = {0};
  event.reason = SLASH_equivocation;
  const Slashed slashed = {accounts->provider, accounts->stakeVault, accounts->mint};
  u64 paid_bps = harmed ? REPORTER_BPS + HARMED_BPS : REPORTER_BPS;
  TRY(slash(&slashed, amount, paid_bps, &event));
  u64 to_reporter = share_of(event.own, REPORTER_BPS);
  SIGNER_PROVIDER(signer, provider);
  TRY(token_transfer(accounts->stakeVault, accounts->reward, accounts->provider, &signer, to_reporter));
  if (!harmed) return 0;
  return token_transfer(accounts->stakeVault, accounts->harmedVault, accounts->provider, &signer, event.paid - to_reporter);
}
