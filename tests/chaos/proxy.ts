/** TCP proxies that fail on order: Toxiproxy where Go can build it, else our own with the same faults. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { freePort, waitFor } from '@weir/testing';
import { startGuarded, type Guarded } from '../../infra/local/guarded.ts';
import { startOwnProxy } from './own-proxy.ts';

const version = 'v2.5.0';
const cache = resolve(import.meta.dirname, '../../.cache/bin');

/** https://github.com/Shopify/toxiproxy#toxics: times in ms, rate in KB/s, the slicer's delay in µs. */
export interface Toxic {
  readonly type: 'latency' | 'bandwidth' | 'slow_close' | 'timeout' | 'reset_peer' | 'slicer' | 'limit_data';
  /** upstream = what the client sends; one stream alone is a one-way loss. */
  readonly stream: 'upstream' | 'downstream';
  readonly attributes: Readonly<Record<string, number>>;
}

export interface NetworkProxy {
  readonly kind: 'toxiproxy' | 'own';
  /** Listens on a free port and leads to 127.0.0.1:<upstream>; gives the port. */
  add(name: string, upstream: number): Promise<number>;
  toxic(name: string, toxic: Toxic): Promise<void>;
  /** Connections are cut and refused. */
  down(name: string): Promise<void>;
  /** No toxic any more, and up. */
  heal(name: string): Promise<void>;
  close(): Promise<void>;
  /** The server dies, where there is one of its own: tests only. */
  kill?(): void;
}

/** Path of a toxiproxy server of the pinned version; text = why there is none. */
async function findToxiproxy(): Promise<{ path: string } | string> {
  const path = join(cache, `toxiproxy-${version}`);
  if (existsSync(path)) return { path };
  mkdirSync(cache, { recursive: true });
  try {
    await promisify(execFile)('go', ['install', `github.com/Shopify/toxiproxy/v2/cmd/server@${version}`], { env: { ...process.env, GOBIN: cache }, timeout: 600_000 });
    renameSync(join(cache, 'server'), path);
    return { path };
  } catch (error) {
    return (error as Error).message.split('\n')[0]!;
  }
}

export async function startProxy(dir: string, kind?: NetworkProxy['kind']): Promise<NetworkProxy> {
  if (kind === 'own') return startOwnProxy();
  const found = await findToxiproxy();
  if (typeof found !== 'string') return startToxiproxy(found.path, dir);
  if (kind === 'toxiproxy') throw new Error(found);
  console.log(`no Toxiproxy (${found}): the network fails by our own proxy`);
  return startOwnProxy();
}

/** Longer than it answers itself with 503 when it waits for a lock. */
const answerMs = 15_000;

class Stuck extends Error {}

/**
 * A proxy whose peer stands still can lock itself up for ever when a toxic is taken away (it answers 503 then): a server that
 * does not answer is replaced by one with the same proxies, which for the connections is one more reset.
 */
async function startToxiproxy(path: string, dir: string): Promise<NetworkProxy> {
  const port = await freePort();
  const proxies: object[] = [];
  const begin = (): Promise<Guarded> => startGuarded(path, ['-host', '127.0.0.1', '-port', String(port)], { cwd: dir, logFile: join(dir, 'toxiproxy.log') });
  let server = await begin();
  let renewing: Promise<void> | undefined;

  async function call(method: string, to: string, body?: unknown): Promise<any> {
    const response = await fetch(`http://127.0.0.1:${port}${to}`, { method, headers: { 'content-type': 'application/json', 'user-agent': 'weir-chaos' }, signal: AbortSignal.timeout(answerMs), ...(body === undefined ? {} : { body: JSON.stringify(body) }) })
      .catch((error: unknown) => { throw new Stuck(`toxiproxy ${method} ${to}: ${(error as Error).message}`); });
    const text = await response.text();
    if (response.ok) return text === '' ? undefined : JSON.parse(text);
    const message = `toxiproxy ${method} ${to}: ${response.status} ${text.slice(0, 200)}`;
    throw response.status === 503 ? new Stuck(message) : new Error(message);
  }
  const ready = (): Promise<unknown> => waitFor('toxiproxy answers', () => call('GET', '/proxies').then(() => true));

  async function renew(): Promise<void> {
    try {
      server.kill('SIGKILL');
    } catch (error) {
      // It has died by itself, and nobody was told yet.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
    await server.exited;
    server = await begin();
    await ready();
    for (const proxy of proxies) await call('POST', '/proxies', proxy);
  }

  async function steadily<T>(work: () => Promise<T>): Promise<T> {
    await renewing;
    const asked = server;
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof Stuck)) throw error;
      console.log(`${error.message.split('\n')[0]!.slice(0, 120)}: it is started again`);
      if (server === asked) renewing ??= renew().finally(() => { renewing = undefined; });
      await renewing;
      return work();
    }
  }

  await ready();
  let toxics = 0;
  return {
    kind: 'toxiproxy',
    async add(name, upstream) {
      const listen = await freePort();
      const proxy = { name, listen: `127.0.0.1:${listen}`, upstream: `127.0.0.1:${upstream}`, enabled: true };
      await call('POST', '/proxies', proxy);
      proxies.push(proxy);
      return listen;
    },
    toxic: (name, toxic) => steadily(() => call('POST', `/proxies/${name}/toxics`, { ...toxic, name: `t${toxics++}`, toxicity: 1 })),
    down: (name) => steadily(() => call('POST', `/proxies/${name}`, { enabled: false })),
    heal: (name) => steadily(async () => {
      for (const { name: toxic } of await call('GET', `/proxies/${name}/toxics`) as { name: string }[]) await call('DELETE', `/proxies/${name}/toxics/${toxic}`);
      await call('POST', `/proxies/${name}`, { enabled: true });
    }),
    close: () => server.stop(),
    kill: () => server.kill('SIGKILL'),
  };
}
