/** JSON-RPC 2.0 over HTTP and websocket: requests in, answers out, batches, error codes. Knows no method itself. */
import websocket from '@fastify/websocket';
import fastify, { type FastifyInstance } from 'fastify';

import type { Env } from '../../protocol/env.ts';
import { MoltError } from '../../protocol/errors.ts';
import { callMethod } from './methods.ts';
import { CODES, RpcError, type MethodContext } from './rpc.ts';
import { Subscriptions } from './subscriptions.ts';

const BODY_BYTES_MAX = 256 * 1024;
const BATCH_MAX = 100;

const CROSS_ORIGIN = {
  'access-control-allow-origin': '*',
  'access-control-allow-methods': 'POST, GET, OPTIONS',
  'access-control-allow-headers': 'content-type, solana-client',
  'access-control-max-age': '86400',
};

interface Answer {
  readonly jsonrpc: '2.0';
  readonly id: unknown;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown };
}

function failure(id: unknown, error: unknown, env: Env): Answer {
  if (error instanceof RpcError) {
    const { code, message, data } = error;
    return { jsonrpc: '2.0', id, error: data === undefined ? { code, message } : { code, message, data } };
  }
  env.logger.log('error', 'rpc request failed', { error: error instanceof Error ? error.message : String(error) });
  const message = error instanceof MoltError ? error.message : 'Internal error';
  return { jsonrpc: '2.0', id, error: { code: CODES.internalError, message } };
}

interface Request {
  readonly id: unknown;
  readonly method: string;
  readonly params: readonly unknown[];
}

function parseRequest(body: unknown): Request {
  const {
    jsonrpc,
    id,
    method,
    params = [],
  } = typeof body === 'object' && body !== null ? (body as Partial<Record<string, unknown>>) : {};
  if (jsonrpc !== '2.0' || typeof method !== 'string' || !Array.isArray(params)) {
    throw new RpcError(CODES.invalidRequest, 'Invalid request: expected { jsonrpc: "2.0", id, method, params: [] }');
  }
  return { id: id ?? null, method, params };
}

async function answer(env: Env, context: MethodContext, body: unknown): Promise<Answer> {
  let id: unknown = null;
  try {
    const request = parseRequest(body);
    id = request.id;
    return { jsonrpc: '2.0', id, result: await callMethod(context, request.method, request.params) };
  } catch (error) {
    return failure(id, error, env);
  }
}

/** One message of a websocket: a subscription call, or any method that HTTP has. Notifications (no id) get no answer. */
async function answerSocket(
  env: Env,
  context: MethodContext,
  subscriptions: Subscriptions,
  text: string,
): Promise<{ readonly reply?: Answer; readonly after?: (() => void) | undefined }> {
  let id: unknown = null;
  try {
    const body = parseJson(text);
    const request = parseRequest(body);
    if (!Object.hasOwn(body as object, 'id')) return {};
    id = request.id;
    const subscribed = await subscriptions.call(request.method, request.params);
    if (subscribed) return { reply: { jsonrpc: '2.0', id, result: subscribed.result }, after: subscribed.after };
    return { reply: { jsonrpc: '2.0', id, result: await callMethod(context, request.method, request.params) } };
  } catch (error) {
    return { reply: failure(id, error, env) };
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new RpcError(CODES.parseError, 'Parse error');
  }
}

/** One HTTP body: a request, or a batch of them. */
async function answerBody(env: Env, context: MethodContext, text: string): Promise<Answer | Answer[]> {
  try {
    const body = parseJson(text);
    if (!Array.isArray(body)) return await answer(env, context, body);
    if (body.length === 0 || body.length > BATCH_MAX)
      throw new RpcError(CODES.invalidRequest, `a batch has 1 to ${BATCH_MAX} requests`);
    return await Promise.all(body.map((one) => answer(env, context, one)));
  } catch (error) {
    return failure(null, error, env);
  }
}

/** A server with `POST /`, `GET /health` and a websocket at `/`. Not listening yet. */
export async function createServer(env: Env, context: MethodContext): Promise<FastifyInstance> {
  const server = fastify({ bodyLimit: BODY_BYTES_MAX, forceCloseConnections: true });
  await server.register(websocket, { options: { maxPayload: BODY_BYTES_MAX } });
  // The body is parsed here and not by fastify, so that broken JSON gets JSON-RPC's answer.
  server.removeAllContentTypeParsers();
  server.addContentTypeParser('application/json', { parseAs: 'string' }, (_request, body, done) => done(null, body));
  server.setErrorHandler((error, _request, reply) => {
    const status = error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : 500;
    return reply
      .status(status)
      .send(
        failure(
          null,
          new RpcError(CODES.invalidRequest, error instanceof Error ? error.message : 'Invalid request'),
          env,
        ),
      );
  });
  // Explorers are web pages of other origins; a Solana node lets them ask, too.
  server.addHook('onRequest', (_request, reply, done) => {
    void reply.headers(CROSS_ORIGIN);
    done();
  });
  server.options('/', (_request, reply) => reply.status(204).send());
  server.post('/', (request) => answerBody(env, context, String(request.body)));
  server.get('/health', () => 'ok');
  server.get('/', { websocket: true }, (socket) => {
    const send = (message: unknown): void => {
      if (socket.readyState === socket.OPEN) socket.send(JSON.stringify(message));
    };
    const subscriptions = new Subscriptions(env, context, send);
    socket.on('message', (data: Buffer) => {
      void answerSocket(env, context, subscriptions, data.toString('utf8')).then(({ reply, after }) => {
        if (reply) send(reply);
        after?.();
      });
    });
    socket.on('error', () => socket.close());
    socket.on('close', () => subscriptions[Symbol.dispose]());
  });
  return server;
}
