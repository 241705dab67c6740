import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import { getCACertificates } from 'node:tls';
import type { HttpFailure, HttpRequest, HttpResponse } from '@weir/adapter';
import { Agent, type Dispatcher } from 'undici';
import { addressRule } from './address.ts';
import { failureOf, forbiddenCode } from './failure.ts';

export interface HttpClientOptions {
  /** Loopback and private addresses that may be called (a local sandbox, an on-premise system): true = all, or networks in CIDR notation. Default none. */
  readonly allowPrivate?: boolean | readonly string[];
  /** Default 1 MiB; a longer body ends the call. */
  readonly maxResponseBytes?: number;
  /** All headers of an answer together; default 32 KiB. */
  readonly maxHeaderBytes?: number;
  /** Connections per origin; default 64. */
  readonly connections?: number;
  /** From the look-up to a usable (TLS) connection; default 5 s. */
  readonly connectTimeoutMs?: number;
  /** Certificates (PEM) trusted besides the default ones. */
  readonly ca?: readonly string[];
  /** Resolver, for tests of rebinding; default the system's. */
  readonly resolve?: (host: string, options: LookupOptions, callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void) => void;
}

export interface CallOptions {
  /** From now to the last byte of the answer. */
  readonly deadlineMs: number;
  /**
   * Runs on a connection that is open and idle, in the tick in which the request is written to it; false = nothing is
   * written, the call fails with `sent: false`. What it throws rejects the call, with nothing written.
   */
  readonly onBeforeWrite?: () => boolean;
}

export interface HttpClient {
  /**
   * A response, or why there is none. `sent: false` = no byte of the request was given to a connection; true = some may
   * have left. Redirects are not followed: a 3xx is a failure. A request is never repeated. Rejects only with what onBeforeWrite threw.
   */
  call(request: HttpRequest, options: CallOptions): Promise<HttpResponse | HttpFailure>;
  /** Ends every connection; calls under way fail. */
  close(): Promise<void>;
}

type AddressRule = (address: string) => boolean;

const headerName = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const badHeader = /[^\t\u0020-\u007e\u0080-\u00ff]/;

/** Every address of the name is checked, and the connection goes to one of those very addresses: no second look-up, no rebinding. */
function guardedLookup(options: HttpClientOptions, mayCall: AddressRule): LookupFunction {
  const resolve = options.resolve ?? ((host, lookupOptions, callback) => dnsLookup(host, { ...lookupOptions, all: true }, callback));
  return (host, lookupOptions, callback) => {
    resolve(host, lookupOptions as LookupOptions, (error, addresses) => {
      if (error !== null) return callback(error, []);
      if (addresses.length === 0 || !addresses.every((a) => mayCall(a.address))) return callback(Object.assign(new Error('address is not public'), { code: forbiddenCode }), []);
      if ((lookupOptions as LookupOptions).all === true) return (callback as (e: null, a: LookupAddress[]) => void)(null, addresses);
      callback(null, addresses[0]!.address, addresses[0]!.family);
    });
  };
}

/** The only way out of Weir: checked addresses, no redirects, no proxy, bounded answers, one deadline. */
export function createHttpClient(options: HttpClientOptions = {}): HttpClient {
  const maxResponseBytes = options.maxResponseBytes ?? 1024 * 1024;
  const mayCall = addressRule(options.allowPrivate);
  const targetOf = createTargets(mayCall);
  // HTTP/1.1, one request on a connection at a time: over HTTP/2 the write comes in a later tick than onBeforeWrite, and
  // a reset of one connection leaves many calls in doubt. undici's own timers are off: the deadline of the call is the only one.
  const agent = new Agent({
    connections: options.connections ?? 64, pipelining: 1, allowH2: false, keepAliveTimeout: 10_000, maxHeaderSize: options.maxHeaderBytes ?? 32 * 1024, headersTimeout: 0, bodyTimeout: 0,
    connect: { lookup: guardedLookup(options, mayCall), timeout: options.connectTimeoutMs ?? 5000, ...(options.ca === undefined ? {} : { ca: [...getCACertificates('default'), ...options.ca] }) },
  });

  return {
    call(request, callOptions) {
      const target = targetOf(request.url);
      if ('failure' in target) return Promise.resolve(target);
      const headers = headersOf(request.headers);
      if (!Array.isArray(headers)) return Promise.resolve(headers);
      return new Promise((settle, reject) => {
        agent.dispatch(
          { origin: target.origin, path: target.path, method: request.method, headers, body: request.body ?? null, idempotent: false },
          createHandler(callOptions, maxResponseBytes, settle, reject),
        );
      });
    },
    close: () => agent.destroy(),
  };
}

/** One call on its way: settles once, and aborts what goes on after that. */
function createHandler(options: CallOptions, maxResponseBytes: number, settle: (value: HttpResponse | HttpFailure) => void, reject: (error: unknown) => void): Dispatcher.DispatchHandler {
  const chunks: Buffer[] = [];
  let sent = false;
  let done = false;
  let size = 0;
  let status = 0;
  let headers: HttpResponse['headers'] = {};
  let running: Dispatcher.DispatchController | undefined;

  const end = (): void => {
    done = true;
    clearTimeout(timer);
  };
  const finish = (value: HttpResponse | HttpFailure): void => {
    if (done) return;
    end();
    settle(value);
  };
  const fail = (failure: HttpFailure['failure'], detail: string): void => {
    finish({ failure, sent, detail });
    running?.abort(new Error(detail));
  };
  const timer = setTimeout(() => fail('timeout', `no answer within ${options.deadlineMs} ms`), options.deadlineMs);

  return {
    onRequestStart(controller) {
      running = controller;
      // The deadline went by while the call waited for a connection.
      if (done) return controller.abort(new Error('deadline'));
      try {
        if (options.onBeforeWrite !== undefined && !options.onBeforeWrite()) return fail('connect', 'not sent');
      } catch (error) {
        end();
        reject(error);
        return controller.abort(new Error('not sent'));
      }
      sent = true;
    },
    onResponseStart(_controller, code, rawHeaders) {
      if (code < 200) return;
      status = code;
      headers = flatten(rawHeaders);
      if (code >= 300 && code < 400) fail('redirect', `redirect (${code})`);
      else if (Number(headers['content-length'] ?? 0) > maxResponseBytes) fail('too-large', `answer is over ${maxResponseBytes} bytes`);
    },
    onResponseData(_controller, chunk) {
      size += chunk.length;
      if (size > maxResponseBytes) fail('too-large', `answer is over ${maxResponseBytes} bytes`);
      else chunks.push(chunk);
    },
    onResponseEnd: () => finish({ status, headers, body: chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks) }),
    onResponseError: (_controller, error) => finish(failureOf(error as NodeJS.ErrnoException, sent)),
  };
}

/** Where a request goes. */
interface Target {
  readonly origin: string;
  readonly path: string;
}

const refuse = (detail: string, failure: HttpFailure['failure'] = 'forbidden-address'): HttpFailure => ({ failure, sent: false, detail });

/** URLs that are remembered: most operations have one for all of their calls. */
const maxTargets = 200;
const longestKnown = 1000;

/** The place of a URL, or the failure: only http(s), no credentials, no literal private address. */
function createTargets(mayCall: AddressRule): (url: string) => Target | HttpFailure {
  const known = new Map<string, Target>();
  return (text) => {
    const found = known.get(text);
    if (found !== undefined) return found;
    const url = URL.parse(text);
    if (url === null) return refuse('not a URL');
    if ((url.protocol !== 'https:' && url.protocol !== 'http:') || url.username !== '' || url.password !== '') return refuse('only http and https, without credentials');
    const host = url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : url.hostname;
    if (isIP(host) !== 0 && !mayCall(host)) return refuse('address is not public');
    const target = { origin: url.origin, path: url.pathname + url.search };
    if (text.length <= longestKnown) {
      if (known.size === maxTargets) known.clear();
      known.set(text, target);
    }
    return target;
  };
}

/** Names and values in turn, as the client takes them; no control characters in them. */
function headersOf(headers: HttpRequest['headers']): string[] | HttpFailure {
  const list: string[] = [];
  for (const name of Object.keys(headers)) {
    const value = headers[name]!;
    if (!headerName.test(name) || badHeader.test(value)) return refuse(`header ${JSON.stringify(name.slice(0, 40))} has characters that are not allowed`, 'unsendable');
    list.push(name, value);
  }
  return list;
}

function flatten(headers: Record<string, string | string[] | undefined>): HttpResponse['headers'] {
  const out = Object.create(null) as Record<string, string | undefined>;
  for (const name of Object.keys(headers)) {
    const value = headers[name];
    out[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
  }
  return out;
}
