/**
 * Goal: no address that is private, local or special counts as the internet, and a name that changes its mind after the
 * look-up is without effect. Method: addresses of every special range in every notation; a resolver of the test's own.
 */
import { type AddressInfo, createServer } from 'node:net';
import { networkInterfaces } from 'node:os';

import { describe, expect, test } from 'vitest';

import { type Outside, connectOutside, publicInternet, reachableAddresses } from '../../node/outside.ts';
import { isOwnAddress, isPublicAddress } from '../../node/public-address.ts';

const SPECIAL = [
  '0.0.0.0',
  '10.1.2.3',
  '100.64.0.1',
  '100.100.100.200',
  '127.0.0.1',
  '127.255.255.255',
  '168.63.129.16',
  '169.254.169.254',
  '172.16.0.1',
  '172.31.255.255',
  '192.0.0.192',
  '192.0.2.1',
  '192.88.99.1',
  '192.168.1.1',
  '198.18.0.1',
  '198.19.255.255',
  '198.51.100.1',
  '203.0.113.1',
  '224.0.0.1',
  '239.255.255.255',
  '240.0.0.1',
  '255.255.255.255',
  '::',
  '::1',
  '::127.0.0.1',
  '::ffff:127.0.0.1',
  '::ffff:8.8.8.8',
  '::ffff:0808:0808',
  '::ffff:0:8.8.8.8',
  '64:ff9b::7f00:1',
  '64:ff9b::8.8.8.8',
  '64:ff9b:1::1',
  '100::1',
  '2001::1',
  '2001:0:53aa:64c::1',
  '2001:2::1',
  '2001:10::1',
  '2001:20::1',
  '2001:db8::1',
  '2002:7f00:1::',
  '2002:c0a8:101::1',
  '3fff::1',
  '4000::1',
  '5f00::1',
  'fc00::1',
  'fd00:ec2::254',
  'fe80::1',
  'fe80::1%eth0',
  '2606:4700::1%eth0',
  'fec0::1',
  'ff02::1',
];

describe('a public address', () => {
  test.each(SPECIAL)('%s is none', (address) => {
    expect(isPublicAddress(address)).toBe(false);
  });

  test.each(['', 'example.com', '1.2.3', '0x8.8.8.8', '010.8.8.8', '134744072', '8.8.8.8 ', '[2606:4700::1]'])(
    '"%s" is no address at all',
    (text) => {
      expect(isPublicAddress(text)).toBe(false);
    },
  );

  test.each(['1.1.1.1', '8.8.8.8', '100.63.255.255', '100.128.0.1', '172.32.0.1', '2606:4700::1111', '2a00:1450::1'])(
    '%s is one',
    (address) => {
      expect(isPublicAddress(address)).toBe(true);
    },
  );

  test('an address of this machine is its own, and never reached for a stranger', () => {
    const addresses = (): string[] =>
      Object.values(networkInterfaces()).flatMap((all = []) => all.map((one) => one.address));
    const before = addresses();
    const judged = before.map((address) => ({ address, own: isOwnAddress(address) }));
    // Containers of other tests come and go with an interface each: what counts is what stays.
    const after = new Set(addresses());
    const own = judged.filter(({ address }) => after.has(address));
    expect(own.length).toBeGreaterThan(0);
    expect(own.filter((one) => !one.own)).toEqual([]);
    expect(before.filter((address) => publicInternet.mayReach(address))).toEqual([]);
    expect(isOwnAddress('1.1.1.1')).toBe(false);
  });
});

describe('the way out', () => {
  const outside = (answers: readonly (readonly string[])[], good: readonly string[]): Outside => {
    let asked = 0;
    return {
      resolve: async () => answers[Math.min(asked++, answers.length - 1)] ?? [],
      mayReach: (address) => good.includes(address),
    };
  };

  test('a name that points to private addresses only is refused, of a mixed one the public part is kept', async () => {
    await expect(reachableAddresses(outside([['10.0.0.1']], ['1.1.1.1']), 'evil.test')).rejects.toMatchObject({
      code: 'job/egress-refused',
    });
    await expect(reachableAddresses(outside([[]], []), 'nothing.test')).rejects.toMatchObject({
      code: 'job/egress-refused',
    });
    expect(await reachableAddresses(outside([['10.0.0.1', '1.1.1.1']], ['1.1.1.1']), 'mixed.test')).toEqual([
      '1.1.1.1',
    ]);
  });

  test('the connection goes to the judged address, whatever the name says by then', async () => {
    const server = createServer((socket) => socket.on('error', () => undefined).end('pinned'));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const rebinding = outside([['127.0.0.1'], ['127.0.0.2']], ['127.0.0.1']);
    const addresses = await reachableAddresses(rebinding, 'a.test');
    const { signal } = new AbortController();
    const socket = await connectOutside(rebinding, { host: 'a.test', addresses, port }, signal);
    expect(socket.remoteAddress).toBe('127.0.0.1');
    socket.destroy();
    await expect(
      connectOutside(rebinding, { host: 'a.test', addresses: ['127.0.0.2'], port }, signal),
    ).rejects.toMatchObject({ code: 'job/egress-refused' });
    server.close();
  });

  test('a port that nobody listens at is told as such', async () => {
    const loopback = outside([['127.0.0.1']], ['127.0.0.1']);
    await expect(
      connectOutside(loopback, { host: 'a.test', addresses: ['127.0.0.1'], port: 1 }, new AbortController().signal),
    ).rejects.toMatchObject({ code: 'job/egress-refused', message: expect.stringContaining('ECONNREFUSED') });
  });
});
