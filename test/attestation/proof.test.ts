/**
 * Goal: a proof is one encoding of one statement by one signer, bound to one lease; every change is refused with the
 * code that says who is to blame for what. Method: an honest proof, then each field changed three ways: in the bytes
 * (signature breaks), re-signed by the operator (a lying provider), and against what the buyer knows.
 */
import { createHash } from 'node:crypto';

import * as fc from 'fast-check';
import { expect, test } from 'vitest';

import {
  type ExpectedProof,
  type ProofFacts,
  EXIT_REASONS,
  PREDICATE_TYPE,
  createTranscript,
  describeProof,
  makeProof,
  parseProof,
  verifyProof,
} from '../../attestation/index.ts';
import { encodeCommit } from '../../protocol/commit.ts';
import { decodeAddress } from '../../protocol/address.ts';
import { AssertionError, type ErrorCode, MoltError } from '../../protocol/errors.ts';
import { LIMITS } from '../../protocol/limits.ts';
import { baseUnits } from '../../protocol/units.ts';
import {
  address,
  CID_A,
  CID_B,
  digestOf,
  FACTS,
  HONEST,
  key,
  operator,
  PAYLOAD_TYPE,
  payloadOf,
  preAuthenticationEncoding,
  rewrap,
  sealText,
  SUMMARY,
} from './fixtures.ts';

const { envelope, commit, commitSignature } = HONEST;

const EXPECTED: ExpectedProof = {
  network: FACTS.network as ExpectedProof['network'] & string,
  lease: address('lease'),
  budget: address('budget'),
  buyer: address('buyer'),
  provider: address('provider'),
  operator: operator.address,
  specDigest: digestOf('spec'),
  termsDigest: digestOf('terms'),
  image: CID_A,
  inputs: [
    { path: 'more/data.csv', cid: CID_B },
    { path: 'data.csv', cid: CID_A },
  ],
  outputs: [{ name: 'report', cid: CID_B }],
  locked: baseUnits(600_000_000n),
  pricePerSecond: baseUnits(1_000_000n),
  transcript: SUMMARY,
};

function codeOf(action: () => unknown): ErrorCode | 'accepted' {
  try {
    action();
    return 'accepted';
  } catch (error) {
    if (error instanceof MoltError) return error.code;
    throw error;
  }
}

function facts(changes: Partial<ProofFacts>): ProofFacts {
  return { ...FACTS, ...changes };
}

test('the pre-authentication encoding is the published one', () => {
  const encoded = preAuthenticationEncoding('http://example.com/HelloWorld', Buffer.from('hello world'));
  expect(Buffer.from(encoded).toString()).toBe('DSSEv1 29 http://example.com/HelloWorld 11 hello world');
  const ours = preAuthenticationEncoding(PAYLOAD_TYPE, Buffer.from('é'));
  expect(Buffer.from(ours).toString()).toBe('DSSEv1 28 application/vnd.in-toto+json 2 é');
});

test('an honest proof verifies alone, with its commit, and against everything the buyer knows', () => {
  expect(codeOf(() => verifyProof(envelope))).toBe('accepted');
  const proof = verifyProof(envelope, { expected: EXPECTED, commit, commitSignature });
  expect(proof.claimed).toBe(2_500_000n);
  expect(proof.outputs[0]?.sha256).toBe(digestOf('report'));
});

test('a run that began when its quote promised is good, one that began a millisecond later is not', () => {
  const startByMs = FACTS.startedAtMs;
  expect(codeOf(() => verifyProof(envelope, { expected: { ...EXPECTED, startByMs } }))).toBe('accepted');
  expect(() => verifyProof(envelope, { expected: { ...EXPECTED, startByMs: startByMs - 1 } })).toThrow(
    expect.objectContaining({
      code: 'proof/started-late',
      message: 'the proof says that the job began 1 ms later than its quote promised; do not pay on it',
    }),
  );
});

test('the digest is SHA-256 of the decoded payload, and the commit carries it', () => {
  const digest = createHash('sha256').update(payloadOf(envelope)).digest();
  expect(Buffer.from(HONEST.proofDigest)).toEqual(digest);
  expect(parseProof(envelope).digest).toBe(digest.toString('hex'));
  expect(Buffer.from(commit.subarray(72, 104))).toEqual(digest);
});

test('the payload is an in-toto statement with the outputs as subjects', () => {
  const statement = JSON.parse(payloadOf(envelope)) as Record<string, unknown>;
  expect(Object.keys(statement)).toEqual(['_type', 'subject', 'predicateType', 'predicate']);
  expect(statement).toMatchObject({
    _type: 'https://in-toto.io/Statement/v1',
    predicateType: PREDICATE_TYPE,
    subject: [
      { name: 'report', digest: { sha256: digestOf('report') } },
      { name: 'molt:logs', digest: { rfc6962Sha256: SUMMARY.logRoot } },
    ],
    predicate: { pricePerSecond: '1000000', claimed: '2500000' },
  });
});

test('what is stated is what is read', () => {
  const { digest: _digest, ...read } = parseProof(envelope);
  const amounts = { pricePerSecond: 1_000_000n, locked: 600_000_000n, claimed: 2_500_000n };
  expect(read).toEqual({ ...FACTS, ...amounts });
});

test('the order in which facts are given does not change the bytes', () => {
  const reversed = Object.fromEntries(Object.entries(FACTS).toReversed()) as unknown as ProofFacts;
  expect(makeProof({ signer: operator, facts: reversed }).envelope).toEqual(envelope);
});

test('a job without outputs, log and samples has a proof too', () => {
  const subject = { network: address('network'), lease: address('lease'), attempt: 1, specDigest: digestOf('spec') };
  const { logRoot, meterHead, stdoutSha256 } = createTranscript(subject).finish();
  const bare = facts({
    outputs: [],
    inputs: [],
    exit: { reason: 'timed-out', exitCode: undefined, detail: '' },
    usage: { cpuMs: 0, memoryPeakBytes: 0 },
    logs: { root: logRoot, leaves: 0, stdoutBytes: 0, stderrBytes: 0, stdoutSha256 },
    metering: { head: meterHead, samples: 0 },
    chain: undefined,
  });
  const proof = verifyProof(makeProof({ signer: operator, facts: bare }).envelope);
  expect(proof.exit).toEqual({ reason: 'timed-out', detail: '' });
  expect(proof.chain).toBeUndefined();
});

test('the largest proof that the limits allow fits into its envelope', () => {
  const large = facts({
    inputs: Array.from({ length: LIMITS.inputs }, (_, index) => ({ path: `${index}`.padEnd(255, 'é'), cid: CID_A })),
    outputs: Array.from({ length: LIMITS.outputs }, (_, index) => ({
      name: `${index}`.padEnd(64, 'x'),
      path: `${index}`.padEnd(255, 'é'),
      cid: CID_A,
      sha256: digestOf('x'),
      sizeBytes: 2 ** 46,
    })),
    exit: { reason: 'exited', exitCode: 0, detail: 'é'.repeat(LIMITS.refusalCharacters) },
  });
  expect(makeProof({ signer: operator, facts: large }).envelope.length).toBeLessThan(LIMITS.proofBytes);
});

test('a detail of several lines becomes one of bounded length, for it is shown on terminals', () => {
  const detail = `\u001b[31mred\r\n${'x'.repeat(2_000)}`;
  const { envelope } = makeProof({ signer: operator, facts: facts({ exit: { reason: 'crashed', detail } }) });
  const read = verifyProof(envelope).exit.detail;
  expect(read.startsWith(' [31mred xxx')).toBe(true);
  expect(read).toHaveLength(LIMITS.refusalCharacters);
});

test('a wall clock that was set back during the run does not make the proof disagree with itself', () => {
  const { envelope } = makeProof({ signer: operator, facts: facts({ finishedAtMs: FACTS.startedAtMs - 5_000 }) });
  expect(verifyProof(envelope).finishedAtMs).toBe(FACTS.startedAtMs + FACTS.billedMs);
});

test('the claim is capped by the lock', () => {
  const capped = facts({ locked: '2000000', claimed: '2000000' });
  expect(codeOf(() => verifyProof(makeProof({ signer: operator, facts: capped }).envelope))).toBe('accepted');
});

test('a provider cannot make what others would refuse', () => {
  const cases: readonly [Partial<ProofFacts>, ErrorCode][] = [
    [{ claimed: '2500001' }, 'proof/wrong-metering'],
    [{ claimed: '01' }, 'proof/malformed'],
    [{ locked: '18446744073709551616' }, 'proof/malformed'],
    [{ specDigest: 'ab' }, 'proof/malformed'],
    [{ lease: 'not an address' }, 'proof/malformed'],
    [{ attempt: 65_536 }, 'proof/malformed'],
    [{ billedMs: 0.5 }, 'proof/malformed'],
    [{ exit: { reason: 'bored', detail: '' } }, 'proof/malformed'],
    [{ software: '\u001b[2J' }, 'proof/malformed'],
    [{ inputs: [{ path: 'a', cid: 'not a cid' }] }, 'proof/malformed'],
    [
      {
        inputs: [
          { path: 'a', cid: CID_A },
          { path: 'a', cid: CID_B },
        ],
      },
      'proof/malformed',
    ],
  ];
  for (const [changes, code] of cases) {
    expect([changes, codeOf(() => makeProof({ signer: operator, facts: facts(changes) }))]).toEqual([changes, code]);
  }
  expect(() => makeProof({ signer: key('somebody'), facts: FACTS })).toThrow(AssertionError);
});

test('every reason for which a run can end can be stated', () => {
  for (const reason of EXIT_REASONS) {
    const { envelope } = makeProof({ signer: operator, facts: facts({ exit: { reason, detail: '' } }) });
    expect(verifyProof(envelope).exit.reason).toBe(reason);
  }
});

/** One change per field that keeps the schema and, where it can be kept, the sums. */
const LIES: readonly (readonly [string, Partial<ProofFacts>, ErrorCode])[] = [
  ['network', { network: address('x') }, 'proof/wrong-binding'],
  ['lease', { lease: address('x') }, 'proof/wrong-binding'],
  ['termsDigest', { termsDigest: digestOf('x') }, 'proof/wrong-binding'],
  ['specDigest', { specDigest: digestOf('x') }, 'proof/wrong-binding'],
  ['budget', { budget: address('x') }, 'proof/wrong-binding'],
  ['buyer', { buyer: address('x') }, 'proof/wrong-binding'],
  ['provider', { provider: address('x') }, 'proof/wrong-binding'],
  ['image', { image: { reference: CID_B } }, 'proof/wrong-binding'],
  ['an input', { inputs: [FACTS.inputs[0]!, { path: 'more/data.csv', cid: CID_A }] }, 'proof/wrong-binding'],
  ['a missing input', { inputs: [FACTS.inputs[0]!] }, 'proof/wrong-binding'],
  ['an added input', { inputs: [...FACTS.inputs, { path: 'third', cid: CID_A }] }, 'proof/wrong-binding'],
  ['an output', { outputs: [{ ...FACTS.outputs[0]!, cid: CID_A }] }, 'proof/wrong-binding'],
  ['a missing output', { outputs: [] }, 'proof/wrong-binding'],
  ['locked', { locked: '600000001' }, 'proof/wrong-binding'],
  ['price', { pricePerSecond: '1000001', claimed: '2500003' }, 'proof/wrong-binding'],
  ['log root', { logs: { ...FACTS.logs, root: digestOf('x') } }, 'proof/wrong-metering'],
  ['log leaves', { logs: { ...FACTS.logs, leaves: 3 } }, 'proof/wrong-metering'],
  ['meter head', { metering: { ...FACTS.metering, head: digestOf('x') } }, 'proof/wrong-metering'],
  ['samples', { metering: { ...FACTS.metering, samples: 3 } }, 'proof/wrong-metering'],
];

test.each(LIES)('an operator that signs another %s is found out by the buyer', (_what, changes, code) => {
  const lie = makeProof({ signer: operator, facts: facts(changes) });
  expect(codeOf(() => verifyProof(lie.envelope))).toBe('accepted');
  expect(codeOf(() => verifyProof(lie.envelope, { expected: EXPECTED }))).toBe(code);
});

test('a proof by another operator is not the one expected', () => {
  const other = key('other operator');
  const forged = makeProof({ signer: other, facts: facts({ operator: other.address }) });
  expect(codeOf(() => verifyProof(forged.envelope, { expected: { operator: operator.address } }))).toBe(
    'proof/wrong-binding',
  );
});

test('a message says what was expected, what came and what to do', () => {
  const lie = makeProof({ signer: operator, facts: facts({ attempt: 1, lease: address('x') }) });
  expect(() => verifyProof(lie.envelope, { expected: { lease: address('lease') } })).toThrow(
    `the proof is about something else: it names lease ${address('x')}, expected ${address('lease')}; do not pay on it`,
  );
});

test.each<[string, Record<string, unknown>]>([
  ['more time than the run took', { billedMs: 2_601, claimed: '2601000' }],
  ['an end before the start', { finishedAtMs: 1_799_999_999_999 }],
  ['another sum than price times time', { claimed: '2500001' }],
  ['less than price times time', { claimed: '2499999' }],
  ['chunks without a root', { logs: { ...FACTS.logs, leaves: 0 } }],
  ['a root without chunks', { logs: { ...FACTS.logs, root: createHash('sha256').digest('hex') } }],
  ['samples without a chain', { metering: { ...FACTS.metering, samples: 0 } }],
])('a signed proof that states %s does not add up, also offline', (_what, changes) => {
  const statement = JSON.parse(payloadOf(envelope)) as { subject: unknown[]; predicate: Record<string, unknown> };
  Object.assign(statement.predicate, changes);
  const { root } = statement.predicate['logs'] as { root: string };
  statement.subject[1] = { name: 'molt:logs', digest: { rfc6962Sha256: root } };
  expect(codeOf(() => verifyProof(sealText(JSON.stringify(statement))))).toBe('proof/wrong-metering');
});

test('any other bytes under the signature are refused, every character of them', () => {
  const payload = payloadOf(envelope);
  for (let at = 0; at < payload.length; at++) {
    const changed = `${payload.slice(0, at)}${payload[at] === '1' ? '2' : '1'}${payload.slice(at + 1)}`;
    const forged = rewrap(envelope, { payload: Buffer.from(changed, 'utf8').toString('base64') });
    expect(['proof/bad-signature', 'proof/malformed']).toContain(codeOf(() => verifyProof(forged)));
  }
});

test('a changed signature is refused, every byte of it', () => {
  const [{ sig }] = (JSON.parse(Buffer.from(envelope).toString()) as { signatures: [{ sig: string }] }).signatures;
  const signature = Buffer.from(sig, 'base64');
  for (let at = 0; at < signature.length; at++) {
    const changed = Buffer.from(signature);
    changed[at]! ^= 1;
    const forged = rewrap(envelope, { signatures: [{ sig: changed.toString('base64') }] });
    expect(codeOf(() => verifyProof(forged))).toBe('proof/bad-signature');
  }
});

test('a key id is a hint that nothing trusts', () => {
  const [{ sig }] = (JSON.parse(Buffer.from(envelope).toString()) as { signatures: [{ sig: string }] }).signatures;
  expect(codeOf(() => verifyProof(rewrap(envelope, { signatures: [{ keyid: 'anything', sig }] })))).toBe('accepted');
  const forged = sealText(payloadOf(envelope), key('somebody'));
  expect(codeOf(() => verifyProof(forged))).toBe('proof/bad-signature');
});

test('both base64 alphabets are read, with and without padding', () => {
  const { payload, signatures } = JSON.parse(Buffer.from(envelope).toString()) as {
    payload: string;
    signatures: [{ sig: string }];
  };
  const urlSafe = (text: string): string => Buffer.from(text, 'base64').toString('base64url');
  const other = rewrap(envelope, { payload: urlSafe(payload), signatures: [{ sig: urlSafe(signatures[0].sig) }] });
  expect(verifyProof(other).digest).toBe(parseProof(envelope).digest);
});

test.each<[string, () => Uint8Array]>([
  ['nothing', () => new Uint8Array()],
  ['no JSON', () => Buffer.from('proof')],
  ['broken UTF-8', () => Uint8Array.of(0x22, 0xff, 0x22)],
  ['null', () => Buffer.from('null')],
  ['too many bytes', () => new Uint8Array(LIMITS.proofBytes + 1)],
  ['deep nesting', () => Buffer.from('['.repeat(LIMITS.proofBytes))],
  ['another payload type', () => rewrap(envelope, { payloadType: 'application/json' })],
  ['no signature', () => rewrap(envelope, { signatures: [] })],
  ['two signatures', () => rewrap(envelope, { signatures: [{ sig: '' }, { sig: '' }] })],
  ['characters outside base64', () => rewrap(envelope, { payload: '!!!!' })],
  ['another statement type', () => sealText(payloadOf(envelope).replace('Statement/v1', 'Statement/v0.1'))],
  ['another predicate type', () => sealText(payloadOf(envelope).replace(PREDICATE_TYPE, 'https://example.com/v1'))],
  ['white space', () => sealText(payloadOf(envelope).replace(':', ': '))],
  ['a field twice', () => sealText(payloadOf(envelope).replace('"attempt":1', '"attempt":2,"attempt":1'))],
  ['another spelling of a number', () => sealText(payloadOf(envelope).replace('"attempt":1,', '"attempt":1.0,'))],
  ['an unknown field', () => sealText(payloadOf(envelope).replace('"attempt":1', '"attempt":1,"more":1'))],
  ['a missing field', () => sealText(payloadOf(envelope).replace('"attempt":1,', ''))],
  ['a subject that is no output', () => sealText(payloadOf(envelope).replace('"name":"report"', '"name":"other"'))],
])('%s is malformed, whoever signed it', (_what, make) => {
  const bytes = make();
  expect(codeOf(() => parseProof(bytes))).toBe('proof/malformed');
  expect(codeOf(() => verifyProof(bytes))).toBe('proof/malformed');
});

const COMMIT = {
  kind: 'result' as const,
  attempt: 1,
  network: address('network'),
  subject: decodeAddress(address('lease')),
  index: 0n,
  aux: 0n,
  value: HONEST.proofDigest,
  slot: 77n,
  account: address('budget'),
};

test.each([
  ['kind', { kind: 'lease' as const }],
  ['attempt', { attempt: 2 }],
  ['network', { network: address('x') }],
  ['lease', { subject: decodeAddress(address('x')) }],
  ['index', { index: 1n }],
  ['index', { aux: 1n }],
  ['proof digest', { value: decodeAddress(address('x')) }],
  ['slot', { slot: 78n }],
  ['budget', { account: address('x') }],
])('a commit signed over another %s does not belong to the proof', (what, changes) => {
  expect(Buffer.from(encodeCommit(COMMIT)).equals(commit)).toBe(true);
  const other = encodeCommit({ ...COMMIT, ...changes });
  expect(() => verifyProof(envelope, { commit: other, commitSignature: operator.sign(other) })).toThrow(
    expect.objectContaining({
      code: 'proof/wrong-binding',
      message: expect.stringContaining(`its commit carries another ${what};`),
    }),
  );
});

test('a commit that is unsigned, signed by another, cut or alone is refused', () => {
  const by = key('somebody').sign(commit);
  expect(codeOf(() => verifyProof(envelope, { commit, commitSignature: by }))).toBe('proof/bad-signature');
  expect(codeOf(() => verifyProof(envelope, { commit }))).toBe('proof/malformed');
  expect(codeOf(() => verifyProof(envelope, { commitSignature }))).toBe('proof/malformed');
  const cut = commit.subarray(0, 135);
  expect(codeOf(() => verifyProof(envelope, { commit: cut, commitSignature }))).toBe('proof/malformed');
  const foreign = commit.slice();
  foreign[0] = 0;
  expect(codeOf(() => verifyProof(envelope, { commit: foreign, commitSignature }))).toBe('proof/malformed');
});

test('an absurdly long CID or number is refused by its length, not by decoding it', () => {
  const long = 'z'.repeat(180_000);
  for (const [from, to] of [
    [`"cid":"${CID_A}"`, `"cid":"${long}"`],
    ['"locked":"600000000"', `"locked":"${'9'.repeat(180_000)}"`],
  ] as const) {
    const forged = sealText(payloadOf(envelope).replace(from, to));
    // Decoding that much base58 takes minutes.
    expect(codeOf(() => verifyProof(forged))).toBe('proof/malformed');
  }
});

test('random bytes, random JSON and damaged proofs raise nothing but a MoltError', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 300 }),
    fc.json().map((json) => Buffer.from(json)),
    fc.json().map((json) => sealText(json)),
    fc
      .tuple(fc.nat(envelope.length - 1), fc.nat(255))
      .map(([at, byte]) => Uint8Array.from(envelope, (old, index) => (index === at ? byte : old))),
  );
  fc.assert(
    fc.property(bytes, (candidate) => {
      // A damaged byte may sit in a part that nothing trusts (the key id) or change nothing.
      const code = codeOf(() => verifyProof(candidate, { expected: EXPECTED, commit, commitSignature }));
      expect(['proof/malformed', 'proof/bad-signature', 'accepted']).toContain(code);
      if (code === 'accepted') expect(parseProof(candidate).digest).toBe(parseProof(envelope).digest);
    }),
    { numRuns: 1_000 },
  );
});

test('a damaged payload, signed by the operator, still raises nothing but a MoltError and keeps one encoding', () => {
  const payload = payloadOf(envelope);
  fc.assert(
    fc.property(
      fc.nat(payload.length - 1),
      fc.constantFrom('0', '9', 'a', '"', '{', ',', ' ', '-', 'é'),
      (at, text) => {
        const changed = `${payload.slice(0, at)}${text}${payload.slice(at + 1)}`;
        const sealed = sealText(changed);
        const code = codeOf(() => verifyProof(sealed));
        expect(code).toMatch(/^(?:proof\/(?:malformed|bad-signature|wrong-metering)|accepted)$/);
        if (code !== 'accepted') return;
        const { digest, ...statement } = parseProof(sealed);
        const amounts = {
          pricePerSecond: statement.pricePerSecond.toString(),
          locked: statement.locked.toString(),
          claimed: statement.claimed.toString(),
        };
        const again = makeProof({ signer: operator, facts: { ...statement, ...amounts } });
        expect(Buffer.from(again.proofDigest).toString('hex')).toBe(digest);
      },
    ),
    { numRuns: 1_000 },
  );
});

test('a proof is described in rows that answer what, who, how it ended and what it cost', () => {
  const rows = Object.fromEntries(describeProof(parseProof(envelope)).map(({ label, value }) => [label, value]));
  expect(rows).toMatchObject({
    lease: `${address('lease')}, attempt 1`,
    operator: `${operator.address} (signed this)`,
    ended: 'exited with code 0: the program ended',
    started: '2027-01-15T08:00:00.000Z',
    billed: '2.5 s at 0.001 MOLT a second',
    claimed: '0.0025 MOLT of 0.6 MOLT locked',
    usage: '2.4 s of CPU, 64 MB of memory at most, 123456789 instructions',
    log: `14 B in 2 chunks, root ${SUMMARY.logRoot}`,
    'output report': `1.2 kB, sha256 ${digestOf('report')}, ${CID_B}`,
  });
});
