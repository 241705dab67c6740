import { lookup as dnsLookup, type LookupAddress, type LookupOptions } from 'node:dns';
import { isIP, type LookupFunction } from 'node:net';
import type { HttpFailure, HttpRequest, HttpResponse } from '@weir/adapter';
import { Agent, type Dispatcher } from 'undici';
import { isPublicAddress } from './address.ts';

export interface HttpClientOptions {
  /** Allow loopback and private addresses: a local sandbox, an on-premise system. Default false. */
  readonly allowPrivate?: boolean;
  /** Default 1 MiB; a longer body ends the call. */
  readonly maxResponseBytes?: number;
  /** Connections per origin; default 64. */
  readonly connections?: number;
  /** Resolver, for tests of rebinding; default the system's. */
  readonly resolve?: (host: string, options: LookupOptions, callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void) => void;
}

export interface CallOptions {
  /** From now to the last byte of the answer. */
  readonly deadlineMs: number;
  /** Runs in the tick of the socket write; false = nothing is written, the call fails with `sent: false`. */
  readonly onBeforeWrite?: () => boolean;
}

export interface HttpClient {
  /** Never throws: a response, or why there is none and whether bytes may have left. Redirects are not followed: a 3xx is a failure. */
  call(request: HttpRequest, options: CallOptions): Promise<HttpResponse | HttpFailure>;
  close(): Promise<void>;
}

const forbidden = 'WEIR_FORBIDDEN_ADDRESS';
const badHeader = /[^\t\u0020-\u007e\u0080-\u00ff]/;

class VetoError extends Error {}

/** Every address of the name is checked, and the connection goes to one of those very addresses: no second look-up, no rebinding. */
function guardedLookup(options: HttpClientOptions): LookupFunction {
  const resolve = options.resolve ?? ((host, lookupOptions, callback) => dnsLookup(host, { ...lookupOptions, all: true }, callback));
  return (host, lookupOptions, callback) => {
    resolve(host, lookupOptions as LookupOptions, (error, addresses) => {
      if (error !== null) return callback(error, []);
      const refused = addresses.length === 0 || (options.allowPrivate !== true && !addresses.every((a) => isPublicAddress(a.address)));
      if (refused) return callback(Object.assign(new Error('address is not public'), { code: forbidden }), []);
      if ((lookupOptions as LookupOptions).all === true) return (callback as (e: null, a: LookupAddress[]) => void)(null, addresses);
      callback(null, addresses[0]!.address, addresses[0]!.family);
    });
  };
}

/** The only way out of Weir: checked addresses, no redirects, no proxy, bounded answers, one deadline. */
export function createHttpClient(options: HttpClientOptions = {}): HttpClient {
  const maxResponseBytes = options.maxResponseBytes ?? 1024 * 1024;
  const agent = new Agent({ connections: options.connections ?? 64, pipelining: 1, keepAliveTimeout: 10_000, maxHeaderSize: 32 * 1024, headersTimeout: 120_000, bodyTimeout: 120_000, connect: { lookup: guardedLookup(options), timeout: 5000 } });

  return {
    call(request, callOptions) {
      const target = check(request, options);
      if ('failure' in target) return Promise.resolve(target);
      return new Promise((settle) => {
        const state = { sent: false, done: false };
        let abort: ((reason: Error) => void) | undefined;
        const finish = (value: HttpResponse | HttpFailure): void => {
          if (state.done) return;
          state.done = true;
          clearTimeout(timer);
          settle(value);
        };
        const timer = setTimeout(() => {
          finish({ failure: 'timeout', sent: state.sent, detail: `no answer within ${callOptions.deadlineMs} ms` });
          abort?.(new Error('deadline'));
        }, callOptions.deadlineMs);
        const chunks: Buffer[] = [];
        let size = 0;
        let status = 0;
        let headers: Record<string, string | undefined> = {};
        const handler: Dispatcher.DispatchHandler = {
          onRequestStart(controller) {
            abort = (reason) => controller.abort(reason);
            if (state.done || (callOptions.onBeforeWrite !== undefined && !callOptions.onBeforeWrite())) {
              finish({ failure: 'connect', sent: false, detail: 'not sent' });
              controller.abort(new VetoError());
              return;
            }
            state.sent = true;
          },
          onResponseStart(controller, code, rawHeaders) {
            if (code < 200) return;
            status = code;
            headers = flatten(rawHeaders);
            if (code >= 300 && code < 400) {
              finish({ failure: 'redirect', sent: true, detail: `redirect (${code})` });
              controller.abort(new Error('redirect'));
            }
          },
          onResponseData(controller, chunk) {
            size += chunk.length;
            if (size > maxResponseBytes) {
              finish({ failure: 'too-large', sent: true, detail: `answer is over ${maxResponseBytes} bytes` });
              controller.abort(new Error('too large'));
            } else chunks.push(chunk);
          },
          onResponseEnd() {
            finish({ status, headers, body: Buffer.concat(chunks) });
          },
          onResponseError(_controller, error) {
            finish(failureOf(error as NodeJS.ErrnoException, state.sent));
          },
        };
        agent.dispatch({ origin: target.origin, path: target.pathname + target.search, method: request.method, headers: { ...request.headers }, body: request.body ?? null, idempotent: false }, handler);
      });
    },
    close: () => agent.destroy(),
  };
}

/** The URL, or the failure: only http(s), no credentials, no literal private address, no control characters in headers. */
function check(request: HttpRequest, options: HttpClientOptions): URL | HttpFailure {
  const refuse = (failure: HttpFailure['failure'], detail: string): HttpFailure => ({ failure, sent: false, detail });
  let url: URL;
  try {
    url = new URL(request.url);
  } catch {
    return refuse('forbidden-address', 'not a URL');
  }
  if ((url.protocol !== 'https:' && url.protocol !== 'http:') || url.username !== '' || url.password !== '') return refuse('forbidden-address', 'only http and https, without credentials');
  const host = url.hostname.startsWith('[') ? url.hostname.slice(1, -1) : url.hostname;
  if (isIP(host) !== 0 && options.allowPrivate !== true && !isPublicAddress(host)) return refuse('forbidden-address', 'address is not public');
  for (const [name, value] of Object.entries(request.headers)) {
    if (!/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) || badHeader.test(value)) return refuse('forbidden-address', `header ${JSON.stringify(name.slice(0, 40))} has characters that are not allowed`);
  }
  return url;
}

function flatten(headers: Record<string, string | string[] | undefined>): Record<string, string | undefined> {
  const out: Record<string, string | undefined> = Object.create(null) as Record<string, string | undefined>;
  for (const [name, value] of Object.entries(headers)) out[name.toLowerCase()] = Array.isArray(value) ? value.join(', ') : value;
  return out;
}

function failureOf(error: NodeJS.ErrnoException, sent: boolean): HttpFailure {
  const code = error.code ?? '';
  if (code === forbidden) return { failure: 'forbidden-address', sent: false, detail: 'address is not public' };
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID' || code.startsWith('CERT_') || code.includes('_CERT') || code.startsWith('ERR_SSL') || code === 'EPROTO') return { failure: 'tls', sent: false, detail: code };
  if (!sent) return { failure: code === 'UND_ERR_CONNECT_TIMEOUT' ? 'timeout' : 'connect', sent, detail: code || error.message };
  return { failure: 'reset', sent, detail: code || error.message };
}
