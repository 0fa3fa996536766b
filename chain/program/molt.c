/**
 * The Molt program: budgets, stake, leases that lock one against the other until they end, and what happens when somebody
 * does not keep to them.
 *
 * One translation unit, read in this order. Every instruction is one function: its preconditions stand at its top, and
 * nothing is changed before all of them hold. No heap, no writable globals; layout.h is generated from chain/layout.ts.
 */
#include "solana.h"
#include "layout.h"
#include "checks.h"
#include "token.h"
#include "account.h"
#include "config.h"
#include "provider.h"
#include "stake.h"
#include "budget.h"
#include "lease.h"
#include "signature.h"
#include "settle.h"
#include "dispute.h"
#include "equivocation.h"

INLINE u64 dispatch(Context *context) {
  u64 tag = context->data_length > 0 ? context->data[0] : INSTRUCTION_COUNT;
  REQUIRE(tag < INSTRUCTION_COUNT, ERROR_UnknownInstruction);
  TRY(check_shape(context, &INSTRUCTIONS[tag]));
  switch (tag) {
    case INSTRUCTION_initialize: return initialize(context);
    case INSTRUCTION_queueParameters: return queue_parameters(context);
    case INSTRUCTION_registerProvider: return register_provider(context);
    case INSTRUCTION_updateProvider: return update_provider(context);
    case INSTRUCTION_stake: return stake(context);
    case INSTRUCTION_unstake: return unstake(context);
    case INSTRUCTION_createBudget: return create_budget(context);
    case INSTRUCTION_deposit: return deposit(context);
    case INSTRUCTION_withdrawBudget: return withdraw_budget(context);
    case INSTRUCTION_setDelegates: return set_delegates(context);
    case INSTRUCTION_closeBudget: return close_budget(context);
    case INSTRUCTION_openLease: return open_lease(context);
    case INSTRUCTION_submitProof: return submit_proof(context);
    case INSTRUCTION_settle: return settle(context);
    case INSTRUCTION_cancelLease: return cancel_lease(context);
    case INSTRUCTION_expireLease: return expire_lease(context);
    case INSTRUCTION_withdrawStake: return withdraw_stake(context);
    case INSTRUCTION_extendLease: return extend_lease(context);
    case INSTRUCTION_redeemVoucher: return redeem_voucher(context);
    case INSTRUCTION_dispute: return dispute(context);
    case INSTRUCTION_draw: return draw(context);
    case INSTRUCTION_vote: return vote(context);
    case INSTRUCTION_revealVote: return reveal_vote(context);
    case INSTRUCTION_resolve: return resolve(context);
    case INSTRUCTION_slashEquivocation: return slash_equivocation(context);
    case INSTRUCTION_applyParameters: return apply_parameters(context);
    case INSTRUCTION_setAuthority: return set_authority(context);
    case INSTRUCTION_setVerifier: return set_verifier(context);
    default: return ERROR_UnknownInstruction;
  }
}

/** Our own refusals are logged by name; what another program refused is passed on as it is. */
u64 entrypoint(u8 *input) {
  Context context;
  u64 error = read_input(input, &context);
  if (error == 0) error = dispatch(&context);
  u64 index = error - ERROR_FIRST;
  if (index < ERROR_COUNT) {
    const char *name = ERROR_NAMES[index];
    u64 length = 0;
    while (name[length] != 0) length++;
    sol_log_(name, length);
  }
  return error;
}
