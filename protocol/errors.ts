/**
 * The error catalogue: every operating error of Molt, once.
 *
 * A code says where it belongs and what happened; two attributes say what to do about it. `blame` decides the gossip
 * verdict, the peer's score and who pays; `retry` decides the loop. Callers match by code, never by text or class.
 * protocol/SPEC.md prints this table and a test compares both ways. Codes are append-only.
 */

/** Whose doing it was. */
export type Blame = 'self' | 'peer' | 'chain' | 'user' | 'nobody';
/** Whether trying the same thing again can help: never, after a wait or elsewhere, or at once. */
export type Retry = 'never' | 'later' | 'now';

export interface ErrorEntry {
  readonly blame: Blame;
  readonly retry: Retry;
  readonly meaning: string;
}

const entry = (blame: Blame, retry: Retry, meaning: string): ErrorEntry => ({ blame, retry, meaning });

export const ERRORS = {
  // protocol: bytes and signatures
  'protocol/invalid-amount': entry('user', 'never', 'a number is outside its unit'),
  'protocol/malformed': entry('peer', 'never', 'bytes do not decode to the declared message'),
  'protocol/oversize': entry('peer', 'never', 'a message or frame is larger than its limit'),
  'protocol/not-canonical': entry('peer', 'never', 'bytes decode, but encode differently: not usable as an identity'),
  'protocol/bad-signature': entry('peer', 'never', 'the signature does not verify under the one Ed25519 rule'),
  'protocol/wrong-kind': entry('peer', 'never', 'an envelope of another kind stands where this one is expected'),
  'protocol/wrong-network': entry('peer', 'never', 'the message belongs to another network'),
  'protocol/wrong-signer': entry('peer', 'never', 'the message is signed by another key than the one that must'),
  'protocol/expired': entry('nobody', 'never', 'the message has outlived its expiry'),
  'protocol/from-the-future': entry('peer', 'later', 'the message is issued later than clocks may differ'),
  'protocol/replayed': entry('nobody', 'never', 'the sequence number is not newer than the last one seen'),
  'protocol/invalid-spec': entry('user', 'never', 'the job specification breaks its schema'),

  // market
  'market/rate-limited': entry('peer', 'later', 'more messages than the bucket of this origin or forwarder allows'),
  'market/flooded': entry('peer', 'later', 'a peer forwards far more than it may of what nobody vouches for'),
  'market/equivocated': entry('peer', 'never', 'the signer said two different things under one sequence number'),
  'market/book-full': entry('nobody', 'later', 'the book holds as many offers as it may'),
  'market/no-offers': entry('nobody', 'later', 'no live offer was heard'),
  'market/no-quotes': entry('nobody', 'later', 'no provider answered the bid with a quote'),
  'market/no-capacity': entry('nobody', 'later', 'the provider has not enough free capacity now'),
  'market/price-too-low': entry('nobody', 'later', "the bid's ceiling is under the provider's price"),
  'market/unsupported': entry('nobody', 'never', 'the provider cannot run this kind of job'),
  'market/duration-too-long': entry('nobody', 'never', 'the job may run longer than the provider leases'),
  'market/quote-expired': entry('nobody', 'now', 'the quote is past its expiry'),
  'market/quote-unknown': entry('peer', 'now', 'the provider holds no such quote'),
  'market/quote-taken': entry('peer', 'now', 'the quote was already accepted'),
  'market/declined': entry('nobody', 'later', "the provider's policy declines"),
  'market/draining': entry('nobody', 'later', 'the provider finishes what runs and takes nothing new'),
  'market/buyer-refused': entry('nobody', 'never', 'the provider does not serve this buyer'),
  'market/egress-refused': entry('nobody', 'never', 'the provider does not let jobs reach a host that the job names'),
  'market/image-refused': entry('nobody', 'never', 'the provider does not run this image or module'),
  'market/closed': entry('nobody', 'later', 'the provider sells nothing at the hours in which the job could run'),
  'market/lease-too-small': entry('nobody', 'never', 'the lease would lock less than the provider takes'),
  'market/finish-too-late': entry('nobody', 'later', 'the provider cannot promise to finish when the bid asks'),
  'market/not-approved': entry('nobody', 'later', "the provider's own check did not approve"),
  'market/spending-limit': entry('user', 'later', "the buyer's own limits of spending forbid it"),
  'market/ranking-failed': entry('user', 'never', "the buyer's own ranking threw, or gave what it was not given"),
  'market/quote-unacceptable': entry('peer', 'later', 'the quote breaks the bid, the chain or its own sums'),
  'market/gang-incomplete': entry('nobody', 'later', 'fewer slots of a gang found a provider than it has'),
  'market/reserve-too-high': entry('nobody', 'later', 'the bid asks for more stake behind the lease than is free'),
  'market/start-too-late': entry('nobody', 'later', 'the provider cannot promise to start when the bid asks'),
  'market/tier-too-low': entry('nobody', 'never', 'the provider cannot show so much of its hardware as the bid asks'),

  // chain
  'chain/unreachable': entry('chain', 'later', 'the RPC endpoint does not answer'),
  'chain/wrong-network': entry('user', 'never', 'the RPC endpoint serves another cluster than the one named'),
  'chain/not-deployed': entry('user', 'never', 'the program or its config is not on this cluster'),
  'chain/account-missing': entry('user', 'never', 'an account that must exist does not'),
  'chain/account-malformed': entry('chain', 'never', 'an account does not have the layout of the program'),
  'chain/refused': entry('user', 'never', 'the program refused the instruction; context has its code and name'),
  'chain/insufficient-funds': entry('user', 'never', 'not enough tokens or lamports'),
  'chain/blockhash-expired': entry('chain', 'now', 'the transaction was not included before its blockhash expired'),
  'chain/not-confirmed': entry('chain', 'later', 'the transaction was sent, its fate is not known yet'),
  'chain/lease-mismatch': entry('peer', 'never', 'the lease on chain does not carry the agreed terms'),
  'chain/transaction-mismatch': entry('peer', 'never', 'a transaction to co-sign is not the one that was agreed'),
  'chain/budget-empty': entry('user', 'never', 'the budget cannot pay this lease'),
  'chain/budget-limit': entry('user', 'later', "the budget's cap per lease, cap per day or expiry forbids this lease"),
  'chain/too-early': entry('nobody', 'later', 'the program accepts this only after a time that has not passed'),
  'chain/too-late': entry('nobody', 'never', 'the time in which the program accepts this has passed'),
  'chain/stake-too-low': entry('self', 'later', "the provider's free stake cannot back this lease"),

  // mesh
  'mesh/unreachable': entry('peer', 'later', 'no connection to the peer could be made'),
  'mesh/closed': entry('peer', 'later', 'the stream or connection closed in mid-exchange'),
  'mesh/timeout': entry('peer', 'later', 'the peer did not answer in time'),
  'mesh/too-many-streams': entry('peer', 'later', 'the peer opened more streams than it may'),
  'mesh/listen-failed': entry('user', 'never', 'the listening address cannot be used'),
  'mesh/unsupported': entry('peer', 'never', 'the peer does not speak this protocol'),

  // job and runtime
  'job/unknown': entry('peer', 'never', 'no such job or lease here'),
  'job/spec-mismatch': entry('peer', 'never', 'the specification is not the one whose digest the lease carries'),
  'job/impossible': entry('user', 'never', 'the specification asks for more than was leased or than exists'),
  'job/input-missing': entry('user', 'never', 'an input could not be fetched or has the wrong content'),
  'job/output-missing': entry('user', 'never', 'a declared output was not written'),
  'job/output-too-large': entry('user', 'never', 'the outputs exceed their limit'),
  'job/image-missing': entry('user', 'never', 'the image or module does not exist'),
  'job/image-denied': entry('user', 'never', 'the registry wants credentials for the image, or refuses those given'),
  'job/module-invalid': entry('user', 'never', 'the WebAssembly module is malformed or uses a feature that is refused'),
  'job/disk-full': entry('self', 'later', 'no space is left where the job or its data is kept'),
  'job/out-of-memory': entry('user', 'never', 'the job used more memory than it asked for'),
  'job/out-of-fuel': entry('user', 'never', 'the job executed more instructions than it may'),
  'job/stack-overflow': entry('user', 'never', 'the job recursed deeper than the stack allows'),
  'job/timed-out': entry('user', 'never', 'the job ran longer than its maximum'),
  'job/phase-timed-out': entry('self', 'later', 'a phase before or after the run missed its deadline'),
  'job/cancelled': entry('user', 'never', 'the job was cancelled'),
  'job/failed': entry('user', 'never', 'the job ended with a non-zero exit code'),
  'job/crashed': entry('user', 'never', 'the job was ended by a trap or a signal'),
  'job/interrupted': entry('self', 'later', 'the provider stopped in mid-job and the run could not be taken up again'),
  'job/egress-refused': entry('user', 'never', 'a host that the job names cannot be reached, or not by jobs'),
  'job/never-ready': entry(
    'user',
    'never',
    'the service did not pass its health check in the time it may take to start',
  ),
  'job/provider-lost': entry('peer', 'now', 'the provider no longer answers'),
  'job/started-late': entry('peer', 'now', 'the job had not begun when its provider promised'),
  'runtime/unavailable': entry('user', 'never', 'the runtime is not present or failed its self-test'),
  'runtime/engine-failed': entry('self', 'later', 'the container engine failed or went away'),
  'artifact/not-found': entry('peer', 'never', 'no such content here'),
  'artifact/corrupt': entry('peer', 'later', 'a block does not hash to its CID'),
  'artifact/too-large': entry('peer', 'never', 'the content exceeds what was agreed'),
  'artifact/unsafe-path': entry('peer', 'never', 'a path leaves its directory or has a name that is refused'),

  // attestation
  'proof/malformed': entry('peer', 'never', 'the proof is not a DSSE envelope around our statement'),
  'proof/bad-signature': entry('peer', 'never', "the proof's signature does not verify"),
  'proof/wrong-binding': entry('peer', 'never', 'the proof speaks of another lease, spec, input or output'),
  'proof/wrong-metering': entry('peer', 'never', "the proof's usage, transcript or billed time do not add up"),
  'proof/started-late': entry('peer', 'now', 'by its own proof the job began later than its quote promised'),
  'proof/outvoted': entry('peer', 'now', 'more than half of the replicas of the job came to another result'),
  'proof/no-majority': entry('nobody', 'later', 'no result of the replicas of a job is that of more than half'),
  'dispute/not-drawn': entry('nobody', 'later', 'this verifier has no seat in the dispute, or has not seen it yet'),
  'dispute/judged': entry('nobody', 'never', 'this verifier has judged the dispute already'),
  'dispute/evidence-refused': entry('peer', 'never', 'the evidence does not hash to what the lease carries on chain'),

  // program, wallet, configuration
  'wallet/missing': entry('user', 'never', 'the key file does not exist'),
  'wallet/invalid': entry('user', 'never', 'the key file is not a Solana keypair'),
  'wallet/unsafe': entry('user', 'never', 'the key file can be read by others'),
  'wallet/locked': entry('user', 'never', 'the key file is encrypted and nobody can be asked for the passphrase'),
  'wallet/passphrase': entry('user', 'never', 'the passphrase does not open the key file, or may not be used'),
  'config/invalid': entry('user', 'never', 'a setting is unknown or has a value that cannot be'),
  'config/usage': entry('user', 'never', 'the command line is not understood'),
  'node/already-running': entry('user', 'never', 'another process uses this data directory'),
  'node/stopped': entry('nobody', 'never', 'the node or client was closed'),
  'node/journal-corrupt': entry('self', 'never', 'the journal cannot be read'),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof ERRORS;
export type ErrorContext = Readonly<Record<string, string | number | boolean | undefined>>;

/** Every operating error. `message` says what was expected, what came and what to do next; `context` holds no secrets. */
export class MoltError extends Error {
  override readonly name = 'MoltError';
  readonly code: ErrorCode;
  readonly context: ErrorContext;

  constructor(code: ErrorCode, message: string, context: ErrorContext = {}, options?: { readonly cause?: unknown }) {
    super(message, options);
    this.code = code;
    this.context = context;
  }

  get blame(): Blame {
    return ERRORS[this.code].blame;
  }

  get retry(): Retry {
    return ERRORS[this.code].retry;
  }

  /** The form that `--json` prints and job streams carry. */
  toJSON(): { code: ErrorCode; blame: Blame; retry: Retry; message: string; context: ErrorContext } {
    return { code: this.code, blame: this.blame, retry: this.retry, message: this.message, context: this.context };
  }
}

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(ERRORS, code);
}

/** True when `error` is an operating error with one of the codes. */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): error is MoltError {
  return error instanceof MoltError && codes.includes(error.code);
}

/** What a peer's data deserves. `ignore` is not the forwarder's fault, `reject` is. */
export type Verdict =
  | { readonly verdict: 'accept' }
  | { readonly verdict: 'ignore'; readonly code: ErrorCode; readonly reason: string }
  | { readonly verdict: 'reject'; readonly code: ErrorCode; readonly reason: string };

export const ACCEPT: Verdict = { verdict: 'accept' };

/**
 * The gossip verdict of a refusal: reject only what the forwarder could have checked itself, so
 * that honest forwarders are not punished for somebody else's stale or surplus message.
 */
export function verdictOf(error: MoltError): Verdict {
  const forwarderCouldTell = REJECTED.has(error.code);
  return { verdict: forwarderCouldTell ? 'reject' : 'ignore', code: error.code, reason: error.message };
}

const REJECTED: ReadonlySet<ErrorCode> = new Set([
  'protocol/malformed',
  'protocol/oversize',
  'protocol/not-canonical',
  'protocol/bad-signature',
  'protocol/wrong-kind',
  'protocol/wrong-network',
]);

/** Invariants: a broken one is a defect of this program, not an operating error, and is not caught. */
export function assert(condition: unknown, reason: string): asserts condition {
  if (!condition) throw new AssertionError(reason);
}

export class AssertionError extends Error {
  override readonly name = 'AssertionError';
}
