/** What a budget may still lease with on the present day, as the program counts it: in UTC days of chain time. */
import { type BaseUnits, baseUnits } from '../protocol/units.ts';
import type { BudgetAccount } from './chain.ts';

const DAY_MS = 86_400_000;

export function spentToday({ spentOnDay, dayStartMs }: BudgetAccount, nowMs: number): BaseUnits {
  return nowMs < dayStartMs + DAY_MS ? spentOnDay : baseUnits(0n);
}

/** Of the cap per day, whatever is in the budget; never below zero, though a cap may be lowered below what was spent. */
export function leftToday(budget: BudgetAccount, nowMs: number): BaseUnits {
  const spent = spentToday(budget, nowMs);
  return baseUnits(budget.capPerDay > spent ? budget.capPerDay - spent : 0n);
}
