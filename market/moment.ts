/** When something happens, as every decision of the market is told: nothing in this folder reads a clock. */
export interface Moment {
  /** Wall clock of this node, Unix ms: for what is signed and what expires. */
  readonly nowMs: number;
  /** Milliseconds that never go backwards: for waiting. */
  readonly monotonicMs: number;
}
