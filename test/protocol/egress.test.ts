/** Goal: an egress rule means one thing, and a policy never gives more than it says. */
import { describe, expect, test } from 'vitest';

import { assertWithinPolicy, beyondPolicy, egressAllows, isHostName, parseEgressRule } from '../../protocol/egress.ts';

describe('an egress rule', () => {
  test('names one host, or every name below a suffix, at one port', () => {
    expect(parseEgressRule('example.com:443')).toEqual({ host: 'example.com', any: false, port: 443 });
    expect(parseEgressRule('*.example.com:80')).toEqual({ host: '.example.com', any: true, port: 80 });
    expect(parseEgressRule('*:443')).toEqual({ host: '', any: true, port: 443 });
  });

  test.each([
    'example.com',
    'example.com:0',
    'example.com:65536',
    'Example.com:443',
    'localhost:443',
    '127.0.0.1:443',
    '0x7f.1:443',
    '2130706433:443',
    '[::1]:443',
    '*example.com:443',
    'a.*.com:443',
    '*.com:443',
    '**:443',
    'exa mple.com:443',
    'example.com.:443',
    '-a.com:443',
    `${'a.'.repeat(200)}com:443`,
  ])('%s is refused', (text) => {
    expect(() => parseEgressRule(text)).toThrow(/is no egress rule/);
  });

  test('allows the host at the port and nothing beside it', () => {
    const exact = parseEgressRule('example.com:443');
    expect(egressAllows(exact, 'example.com', 443)).toBe(true);
    expect(egressAllows(exact, 'example.com', 80)).toBe(false);
    expect(egressAllows(exact, 'a.example.com', 443)).toBe(false);
    const below = parseEgressRule('*.example.com:443');
    expect(egressAllows(below, 'a.b.example.com', 443)).toBe(true);
    expect(egressAllows(below, 'example.com', 443)).toBe(false);
    expect(egressAllows(below, 'evilexample.com', 443)).toBe(false);
    expect(egressAllows(below, 'example.com.evil.org', 443)).toBe(false);
  });

  test('no notation of an address is a host name', () => {
    for (const text of ['127.0.0.1', '1.1', '0x7f.0.0.1', '2130706433', '::1', '1.2.3.4.', 'a..b', '']) {
      expect(isHostName(text), text).toBe(false);
    }
    expect(isHostName('files.pythonhosted.org')).toBe(true);
  });
});

describe('a policy', () => {
  test('gives what one of its rules covers, and the first rule beyond it is named', () => {
    expect(beyondPolicy(['a.com:443', '*.b.com:443'], ['*:443'])).toBeUndefined();
    expect(beyondPolicy(['a.com:443', 'a.com:80'], ['*:443'])).toBe('a.com:80');
    expect(beyondPolicy(['*.c.b.com:443', 'x.b.com:443'], ['*.b.com:443'])).toBeUndefined();
    expect(beyondPolicy(['b.com:443'], ['*.b.com:443'])).toBe('b.com:443');
    expect(beyondPolicy(['*.b.com:443'], ['b.com:443'])).toBe('*.b.com:443');
    expect(beyondPolicy(['*.c.com:443'], ['*.b.com:443'])).toBe('*.c.com:443');
    expect(beyondPolicy(['a.com:443'], [])).toBe('a.com:443');
    expect(beyondPolicy([], [])).toBeUndefined();
  });

  test('refuses with the rule that it does not give, and what no job can ask for as what it is', () => {
    expect(() => assertWithinPolicy(['a.com:443'], ['*:443'])).not.toThrow();
    const codeOf = (wanted: readonly string[]): unknown => {
      try {
        return assertWithinPolicy(wanted, ['*:443']);
      } catch (error) {
        return error;
      }
    };
    expect(codeOf(['a.com:443', 'b.com:22'])).toMatchObject({
      code: 'market/egress-refused',
      message: expect.stringContaining('b.com:22'),
    });
    expect(codeOf(['*:443', 'a.com'])).toMatchObject({ code: 'protocol/invalid-spec' });
    expect(codeOf(Array.from({ length: 81 }, () => 'a.com:443'))).toMatchObject({ code: 'protocol/oversize' });
  });
});
