/**
 * Node's HTTP without what an `import` of it brings along. Such an import reads every export of `node:http`, and those
 * that are made when they are read load the library behind `fetch`: 14 MB of a process that asks and answers over HTTP
 * only.
 */
import type * as http from 'node:http';

const { Agent, createServer: create, request: ask } = process.getBuiltinModule('node:http');

export const createServer: typeof http.createServer = create;
export const request: typeof http.request = ask;

/** Connections that are opened for one request and closed after it. */
export function freshConnections(): http.Agent {
  return new Agent({ keepAlive: false });
}
