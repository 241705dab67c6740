import { openVault } from '@weir/vault';
import { Finding, type Target } from './command.ts';

/** Name of the admin token in the vault. */
export const adminTokenSecret = 'ADMIN_TOKEN';
/** An API token or an OIDC access token to use instead. */
const tokenVariable = 'WEIR_TOKEN';
const callTimeoutMs = 30_000;

/** The control API of the running instance. */
export interface Client {
  get<T>(path: string, signal?: AbortSignal): Promise<T>;
  /** @param timeoutMs for an answer; default 30,000 */
  post<T>(path: string, body: unknown, signal?: AbortSignal, timeoutMs?: number): Promise<T>;
  delete<T>(path: string): Promise<T>;
  /** The text of an answer as it comes; no deadline but that of the server. */
  stream(path: string, body: unknown): AsyncIterable<string>;
  /** Undefined on 404. */
  find<T>(path: string): Promise<T | undefined>;
}

/** A refusal of the control API: its code and message, without a stack. */
export class Refused extends Finding {
  readonly status: number;
  readonly body: { readonly error?: string; readonly message?: string; readonly problems?: readonly { file: string; line: number; message: string; remedy: string }[] };
  constructor(status: number, body: Refused['body']) {
    super(`${body.message ?? 'refused'} (${body.error ?? status})`);
    this.status = status;
    this.body = body;
  }
}

/** Nobody answers at the address of the instance. */
export class Unreachable extends Finding {}

/** A fetch whose failure to connect names the remedy. */
export async function reach(url: URL, init: RequestInit): Promise<Response> {
  try {
    return await fetch(url, { redirect: 'error', ...init });
  } catch (error) {
    if (init.signal?.aborted === true && (init.signal.reason as Error | undefined)?.name !== 'TimeoutError') throw error;
    const cause = (error as Error).cause as NodeJS.ErrnoException | undefined;
    const why = (error as Error).name === 'TimeoutError' ? 'no answer in time' : cause?.code ?? (error as Error).message;
    throw new Unreachable(`no instance answers on ${url.host} (${why}): start one with npm start, or set WEIR_PORT and WEIR_DATA to the running one`);
  }
}

/** False: there is no token to ask a control API with, as before the first start. */
export function hasCredentials(target: Target): boolean {
  return (target.env[tokenVariable] ?? '') !== '' || openVault({ dataDir: target.dataDir, env: target.env }).has(adminTokenSecret);
}

export function createClient(target: Target): Client {
  const vault = openVault({ dataDir: target.dataDir, env: target.env });
  const own = target.env[tokenVariable] ?? '';
  if (!hasCredentials(target)) throw new Finding(`no admin token in ${target.dataDir}: start an instance with npm start, set WEIR_DATA to its data folder, or give WEIR_SECRET_${adminTokenSecret}`);
  const headers = { authorization: `Bearer ${own === '' ? vault.get(adminTokenSecret).reveal() : own}` };
  const base = `http://${target.host}:${target.port + 1}`;

  async function call(method: string, path: string, body: unknown, signal: AbortSignal): Promise<Response> {
    const response = await reach(new URL(path, base), { method, headers: body === undefined ? headers : { ...headers, 'content-type': 'application/json' }, body: body === undefined ? undefined : JSON.stringify(body), signal });
    if (response.ok) return response;
    const text = await response.text();
    let parsed: Refused['body'] = {};
    try {
      parsed = JSON.parse(text) as Refused['body'];
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      parsed = { message: `${base} is no control API` };
    }
    throw new Refused(response.status, parsed);
  }
  const ask = async <T>(method: string, path: string, body?: unknown, signal?: AbortSignal, timeoutMs = callTimeoutMs): Promise<T> => (await call(method, path, body, AbortSignal.any([AbortSignal.timeout(timeoutMs), ...(signal === undefined ? [] : [signal])]))).json() as Promise<T>;

  return {
    get: (path, signal) => ask('GET', path, undefined, signal),
    post: (path, body, signal, timeoutMs) => ask('POST', path, body, signal, timeoutMs),
    delete: (path) => ask('DELETE', path),
    async *stream(path, body) {
      const response = await call('POST', path, body, new AbortController().signal);
      for await (const text of response.body!.pipeThrough(new TextDecoderStream())) yield text;
    },
    async find<T>(path: string) {
      try {
        return await ask<T>('GET', path);
      } catch (error) {
        if (error instanceof Refused && error.status === 404 && error.body.error === 'not-found') return undefined;
        throw error;
      }
    },
  };
}
