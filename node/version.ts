/** The version of this software, as proofs and `molt --version` state it. */
export const MOLT_VERSION = '0.1.0';
