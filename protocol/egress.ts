/**
 * Egress rules: what a job asks to reach, and what a provider lets jobs reach.
 *
 * `example.com:443` is one host at one TCP port; `*.example.com:443` is every name below a suffix, not the suffix itself.
 * Only a provider's policy may also say `*:443`, every public host at that port. Names are lower-case; addresses are not
 * names, so nothing here lets a job reach one by its number.
 */
import { MoltError } from './errors.ts';
import { LIMITS } from './limits.ts';

export interface EgressRule {
  /** The name itself, or with `any` what every name must end with: `.example.com`, or nothing. */
  readonly host: string;
  readonly any: boolean;
  readonly port: number;
}

const LABEL = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
/** The last label starts with a letter, so that no address is a name. */
const NAME = `(?:${LABEL}\\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?`;
const HOST_PATTERN = new RegExp(`^${NAME}$`);
const RULE_PATTERN = new RegExp(`^(\\*(?:\\.${NAME})?|${NAME}):([1-9]\\d{0,4})$`);
const NAME_CHARACTERS_MAX = 253;

/** True for a lower-case DNS name of two or more labels that is no IP address in any notation. */
export function isHostName(text: string): boolean {
  return text.length <= NAME_CHARACTERS_MAX && HOST_PATTERN.test(text);
}

/** Reads a rule of a job or of a policy. Throws `protocol/invalid-spec`. */
export function parseEgressRule(text: string): EgressRule {
  const [, name = '', digits = ''] = text.length <= NAME_CHARACTERS_MAX + 8 ? (RULE_PATTERN.exec(text) ?? []) : [];
  const port = Number(digits);
  if (name === '' || port > 65_535) {
    throw new MoltError(
      'protocol/invalid-spec',
      `"${text.slice(0, 300)}" is no egress rule; write host:port, *.suffix:port or, for a provider, *:port`,
    );
  }
  return name.startsWith('*') ? { host: name.slice(1), any: true, port } : { host: name, any: false, port };
}

/** True when the rule names this host at this port. `host` must be a name as `isHostName` has it. */
export function egressAllows(rule: EgressRule, host: string, port: number): boolean {
  if (rule.port !== port) return false;
  return rule.any ? host.endsWith(rule.host) && host.length > rule.host.length : host === rule.host;
}

/** The first of the wanted rules that asks for more than every rule of the policy gives; undefined when there is none. */
export function beyondPolicy(wanted: readonly string[], policy: readonly string[]): string | undefined {
  const given = policy.map(parseEgressRule);
  return wanted.find((text) => {
    const rule = parseEgressRule(text);
    return !given.some((each) => covers(each, rule));
  });
}

function covers(policy: EgressRule, wanted: EgressRule): boolean {
  if (policy.port !== wanted.port) return false;
  if (!wanted.any) return egressAllows(policy, wanted.host, wanted.port);
  return policy.any && wanted.host.endsWith(policy.host);
}

/**
 * Where an input's URL really points: `s3://bucket/key` is the public HTTPS address of the object. A private object needs a
 * presigned https URL: that gives a stranger's machine one object for an hour, where keys would give it the account.
 */
export function locate(url: string): URL {
  const { protocol, hostname, pathname, search } = new URL(url);
  if (protocol !== 's3:') return new URL(url);
  // A bucket with a dot is no single label, and the certificate of the service covers single labels only.
  const isLabel = /^[a-z0-9-]+$/.test(hostname);
  const base = isLabel ? `https://${hostname}.s3.amazonaws.com` : `https://s3.amazonaws.com/${hostname}`;
  return new URL(`${base}${pathname}${search}`);
}

/**
 * Throws `market/egress-refused` for the first rule that goes beyond the policy, `protocol/oversize` for more rules than a
 * specification can need, and `protocol/invalid-spec` for what is no rule.
 */
export function assertWithinPolicy(wanted: readonly string[], policy: readonly string[]): void {
  const most = LIMITS.egressRules + LIMITS.inputs;
  if (wanted.length > most) {
    throw new MoltError('protocol/oversize', `a job reaches at most ${most} hosts, this one asks for ${wanted.length}`);
  }
  const beyond = beyondPolicy(wanted, policy);
  if (beyond === undefined) return;
  throw new MoltError(
    'market/egress-refused',
    `this provider does not let jobs reach ${beyond}; leave it out, or try another provider`,
    { rule: beyond },
  );
}
