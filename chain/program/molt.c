/**
 * The Molt program: budgets, stake, and leases that lock one against the other until they end.
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
#include "budget.h"
#include "lease.h"
#include "settle.h"

INLINE u64 dispatch(Context *context) {
  u64 tag = context->data_length > 0 ? context->data[0] : INSTRUCTION_COUNT;
  REQUIRE(tag < INSTRUCTION_COUNT, ERROR_UnknownInstruction);
  TRY(check_shape(context, &INSTRUCTIONS[tag]));
  switch (tag) {
    case INSTRUCTION_initialize: return initialize(context);
    case INSTRUCTION_setParameters: return set_parameters(context);
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
