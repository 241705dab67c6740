import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { parseJson } from '@weir/adapter';
import type { ConfigOf } from '@weir/config';
import { findWeirError } from '@weir/errors';
import type { Readiness } from '@weir/service';
import type { Logger } from 'pino';
import type { options as schema } from './config.ts';
import { createFaults, type Fault } from './faults.ts';
import { openJournal, type Entry, type Journal } from './journal.ts';
import { bodyOf, createHttpVendor } from './vendors/http.ts';
import { createKlaviyo, isKlaviyo } from './vendors/klaviyo.ts';
import type { Reply, Vendor, VendorRequest } from './vendors/types.ts';

export interface Sandbox {
  readonly name: string;
  /** Port it listens on, after start(). */
  readonly port: number;
  start(): Promise<void>;
  readiness(): Readiness;
  stop(): Promise<void>;
  /** Resolves with the error that means the process must stop. */
  readonly failed: Promise<Error>;
}

const destinationPath = /^\/d\/([a-z0-9][a-z0-9-]{0,62})(?:\/(.*))?$/;
const jsonDepth = 64;

/** A vendor to deliver to: needs no Kafka, keeps a durable log of what arrived and what took effect, and can be told to misbehave. */
export function createSandbox(options: ConfigOf<typeof schema>, logger: Logger): Sandbox {
  const faults = createFaults(() => performance.now());
  const http = createHttpVendor({ webhookSecret: options.webhookSecret?.reveal() });
  const klaviyo = createKlaviyo({ key: options.klaviyoKey?.reveal() });
  const ending = new AbortController();
  let journal: Journal | undefined;
  let fail: (error: Error) => void;
  const failed = new Promise<Error>((resolve) => { fail = resolve; });
  const open = new Set<Promise<void>>();
  const server = createServer((request, response) => {
    const running = serve(request, response).catch((error: Error) => {
      const callerLeft = request.socket.destroyed;
      response.destroy();
      if (isDiskError(error)) fail(error);
      else if (!callerLeft) logger.error({ err: error }, 'request failed');
    }).finally(() => open.delete(running));
    open.add(running);
  });
  server.keepAliveTimeout = 60_000;

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://sandbox');
    const at = destinationPath.exec(url.pathname);
    if (at !== null) return vendorCall(request, response, at[1]!, at[2] ?? '', url.searchParams);
    if (request.method === 'GET' && (url.pathname === '/effects' || url.pathname === '/arrivals')) return list(request, response, url);
    if (url.pathname === '/faults') return orderFault(request, response);
    if (request.method === 'GET' && url.pathname === '/healthz') return send(response, 200, { status: 'ok' });
    if (request.method === 'GET' && url.pathname === '/readyz') return send(response, journal === undefined ? 503 : 200, { ready: journal !== undefined });
    return send(response, 404, { error: 'not-found', message: 'known are /d/<destination>/…, /effects, /arrivals, /faults, /healthz, /readyz' });
  }

  async function vendorCall(request: IncomingMessage, response: ServerResponse, destination: string, path: string, query: URLSearchParams): Promise<void> {
    const vendor = isKlaviyo(path) ? klaviyo : http;
    const raw = await readBody(request, options.bodyBytes);
    if (raw === undefined) return refuse(response, vendor, 413, 'payload_too_large', `more than ${options.bodyBytes} bytes`);
    if (journal!.count() >= options.maxArrivals) return refuse(response, vendor, 507, 'log-full', 'the log of the sandbox is full: delete it or raise WEIR_SANDBOX_MAX_ARRIVALS');
    const call: VendorRequest = { destination, method: request.method ?? 'GET', path: decodePath(path), query, headers: flat(request), raw, json: parse(raw), now: Date.now() };
    const about = vendor.look(call);
    const fault = faults.hit(destination, about.operation, about.subject, call.headers['idempotency-key'] ?? call.headers['webhook-id'] ?? raw.toString('latin1'));
    if (fault === undefined) return answer(response, await apply(vendor, call));
    return misbehave(fault, vendor, call, about, request, response);
  }

  /** The vendor's rule, then the log: what was answered is on disk. */
  async function apply(vendor: Vendor, call: VendorRequest): Promise<Reply> {
    const reply = vendor.handle(call, journal!.state);
    await journal!.append(call.destination, reply.status, reply.arrivals, reply.puts, call.now);
    return reply;
  }

  async function misbehave(fault: Fault, vendor: Vendor, call: VendorRequest, about: { operation: string; subject: string | null }, request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (fault.mode === 'slow') {
      await delay(fault.delayMs, ending.signal);
      // A caller that gave up meanwhile is not served.
      if (request.socket.destroyed) return refused(0);
      return answer(response, await apply(vendor, call));
    }
    if (fault.mode === 'late-after-commit') {
      const reply = await apply(vendor, call);
      if (fault.delayMs === 0) return void request.socket.destroy();
      await delay(fault.delayMs, ending.signal);
      return answer(response, reply);
    }
    if (fault.mode === 'truncated' || fault.mode === 'drip' || fault.mode === 'huge') return mangle(fault.mode, fault.delayMs, response, await apply(vendor, call), ending.signal);
    await refused(fault.mode === 'cut' ? 0 : fault.status);
    if (fault.mode === 'cut') return void request.socket.destroy();
    if (fault.retryAfter !== undefined) response.setHeader('retry-after', retryAfterOf(fault.retryAfter));
    return refuse(response, vendor, fault.status, `fault-${fault.mode}`, `ordered at /faults (${fault.id})`);

    function refused(status: number): Promise<void> {
      return journal!.append(call.destination, status, [{ ...about, idempotencyKey: null, applied: false, body: bodyOf(call) }], [], call.now);
    }
  }

  /** GET /effects and /arrivals: a JSON array, or lines for Accept: application/x-ndjson. */
  async function list(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const since = Number(url.searchParams.get('since') ?? 0);
    const limit = Number(url.searchParams.get('limit') ?? Number.MAX_SAFE_INTEGER);
    if (!Number.isSafeInteger(since) || since < 0 || !Number.isSafeInteger(limit) || limit < 1) return send(response, 400, { error: 'bad-request', message: 'since and limit: expected whole numbers' });
    const destination = url.searchParams.get('destination');
    const effects = url.pathname === '/effects';
    const lines = (request.headers.accept ?? '').includes('ndjson');
    response.writeHead(200, { 'content-type': lines ? 'application/x-ndjson' : 'application/json' });
    let text = lines ? '' : '[';
    let found = 0;
    for await (const entry of journal!.read(since)) {
      if ((destination !== null && entry.destination !== destination) || (effects && !entry.applied)) continue;
      text += (lines || found === 0 ? '' : ',') + JSON.stringify(effects ? effectOf(entry) : entry) + '\n';
      if (++found >= limit) break;
      if (text.length < 64 * 1024) continue;
      if (!response.write(text)) await drained(response);
      text = '';
    }
    response.end(lines ? text : `${text}]`);
  }

  async function orderFault(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.method === 'GET') return send(response, 200, faults.list().map(faultOf));
    if (request.method === 'DELETE') {
      faults.clear();
      return send(response, 200, { ok: true });
    }
    if (request.method !== 'POST') return send(response, 405, { error: 'method-not-allowed', message: 'GET, POST, DELETE' });
    const raw = await readBody(request, 16 * 1024);
    const fault = faults.add(raw === undefined ? undefined : parse(raw));
    return typeof fault === 'string' ? send(response, 400, { error: 'bad-request', message: fault }) : send(response, 201, faultOf(fault));
  }

  return {
    name: 'sandbox',
    get port() {
      return (server.address() as { port: number } | null)?.port ?? 0;
    },
    failed,
    async start() {
      journal = await openJournal({ dir: join(options.dataDir, 'sandbox'), onDiscard: (reason) => logger.warn({ reason }, 'sandbox log mended') });
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(options.port, options.host, resolve);
      });
    },
    readiness: () => (journal === undefined ? { ready: false, reason: 'starting' } : { ready: true }),
    async stop() {
      ending.abort();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeIdleConnections();
      const deadline = setTimeout(() => server.closeAllConnections(), 2000);
      await closed;
      clearTimeout(deadline);
      await Promise.all(open);
      await journal?.close();
    },
  };
}

function isDiskError(error: Error): boolean {
  return ['write', 'fdatasync', 'read'].includes((error as NodeJS.ErrnoException).syscall ?? '') && !['EPIPE', 'ECONNRESET'].includes((error as NodeJS.ErrnoException).code ?? '');
}

function effectOf(entry: Entry): Record<string, unknown> {
  const { destination, operation, idempotencyKey, subject, body, at, n } = entry;
  return { destination, operation, idempotencyKey, subject, body, at, n };
}

function retryAfterOf(text: string): string {
  const from = /^date\+(\d{1,9})$/.exec(text);
  return from === null ? text : new Date(Date.now() + Number(from[1])).toUTCString();
}

function faultOf(fault: Fault): Record<string, unknown> {
  const { id, mode, destination, operation, left, rate, status, retryAfter, delayMs, limit, perMs, fired } = fault;
  return { id, mode, destination, operation, left: Number.isFinite(left) ? left : undefined, rate, status, retryAfter, delayMs, limit, perMs, fired };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function answer(response: ServerResponse, reply: Pick<Reply, 'status' | 'contentType' | 'body'>): void {
  const text = reply.body === undefined ? '' : JSON.stringify(reply.body);
  response.writeHead(reply.status, { 'content-type': reply.contentType }).end(text);
}

const hugeBytes = 100 * 1024 * 1024;
const chunk = Buffer.alloc(64 * 1024, ' ');
const dripEveryMs = 50;

/** An answer that its caller cannot use: half of it, a blank every 50 ms for `ms`, or 100 MB. */
async function mangle(mode: 'truncated' | 'drip' | 'huge', ms: number, response: ServerResponse, reply: Pick<Reply, 'status' | 'contentType' | 'body'>, signal: AbortSignal): Promise<void> {
  const text = JSON.stringify(reply.body ?? {});
  response.writeHead(reply.status, { 'content-type': reply.contentType, ...(mode === 'truncated' ? { 'content-length': text.length } : {}) });
  if (mode === 'truncated') return void response.write(text.slice(0, text.length >> 1), () => response.destroy());
  if (mode === 'drip') for (let waited = 0; waited < ms && !response.destroyed && !signal.aborted; waited += dripEveryMs) {
    response.write(' ');
    await delay(dripEveryMs, signal);
  }
  else for (let sent = 0; sent < hugeBytes && !response.destroyed && !signal.aborted; sent += chunk.length) if (!response.write(chunk)) await drained(response);
  response.end(text);
}

function refuse(response: ServerResponse, vendor: Vendor, status: number, code: string, detail: string): void {
  answer(response, { status, ...vendor.refusal(status, code, detail) });
}

function flat(request: IncomingMessage): Record<string, string | undefined> {
  const out: Record<string, string | undefined> = Object.create(null);
  for (const [name, value] of Object.entries(request.headers)) out[name] = Array.isArray(value) ? value.join(', ') : value;
  return out;
}

function decodePath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch (error) {
    if (error instanceof URIError) return path;
    throw error;
  }
}

function parse(raw: Buffer): unknown {
  try {
    return parseJson(raw, jsonDepth);
  } catch (error) {
    if (findWeirError(error) !== undefined) return undefined;
    throw error;
  }
}

/** The body, or undefined when it is larger than `limit`. */
async function readBody(request: IncomingMessage, limit: number): Promise<Buffer | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size <= limit) chunks.push(chunk);
    else if (size > limit * 4) return undefined;
  }
  return size > limit ? undefined : Buffer.concat(chunks);
}

function delay(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, ms);
    function end(): void {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    }
    signal.addEventListener('abort', end);
  });
}

/** Resolves when the response takes more, or is gone. */
function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve();
    function end(): void {
      response.off('drain', end);
      response.off('close', end);
      resolve();
    }
    response.on('drain', end);
    response.on('close', end);
  });
}
