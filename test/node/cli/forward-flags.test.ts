import { expect, test } from 'vitest';

import { parsePortPair, parseService } from '../../../node/cli/forward-flags.ts';
import { buildSpec, parseRequest } from '../../../node/cli/job-request.ts';

test('a port may be led to another one', () => {
  expect(parsePortPair('8080')).toEqual({ servicePort: 8080 });
  expect(parsePortPair('80:8080')).toEqual({ servicePort: 80, port: 8080 });
  for (const text of ['', '0', '65536', '8080:', ':80', '80:0', '80:65536', '08', '8080:127.0.0.1', 'web']) {
    expect(() => parsePortPair(text), text).toThrow(/expected PORT or PORT:LOCAL/);
  }
});

test('a service has a name, else its port names it', () => {
  expect(parseService('web=8080')).toEqual({ name: 'web', port: 8080 });
  expect(parseService('8080')).toEqual({ name: 'port-8080', port: 8080 });
  for (const text of ['web', '=80', 'web=0', 'a=b=80']) expect(() => parseService(text), text).toThrow(/NAME=PORT/);
});

test('what is forwarded is a service, once, and options add to the specification', async () => {
  const image = `busybox@sha256:${'0'.repeat(64)}`;
  const flags = { image, egress: ['a.org:443'], service: ['web=80'], forward: ['80', '9000:9001'] };
  const store = { add: () => Promise.reject(new Error('nothing to add')) };
  const spec = await buildSpec(store, await parseRequest(flags, ['serve']), new AbortController().signal);
  expect(spec).toMatchObject({
    network: { egress: ['a.org:443'] },
    services: [
      { name: 'web', port: 80 },
      { name: 'port-9000', port: 9000 },
    ],
  });
  const plain = await buildSpec(store, await parseRequest({ image }, []), new AbortController().signal);
  expect(plain).not.toHaveProperty('network');
  expect(plain).not.toHaveProperty('services');
});
