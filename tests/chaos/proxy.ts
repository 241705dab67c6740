/** TCP proxies that fail on order: Toxiproxy where Go can build it, else our own with the same faults. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { freePort, waitFor } from '@weir/testing';
import { startGuarded } from '../../infra/local/guarded.ts';
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

async function startToxiproxy(path: string, dir: string): Promise<NetworkProxy> {
  const port = await freePort();
  const server = await startGuarded(path, ['-host', '127.0.0.1', '-port', String(port)], { cwd: dir, logFile: join(dir, 'toxiproxy.log') });
  const call = async (method: string, to: string, body?: unknown): Promise<any> => {
    const response = await fetch(`http://127.0.0.1:${port}${to}`, { method, headers: { 'content-type': 'application/json', 'user-agent': 'weir-chaos' }, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
    const text = await response.text();
    if (!response.ok) throw new Error(`toxiproxy ${method} ${to}: ${response.status} ${text.slice(0, 200)}`);
    return text === '' ? undefined : JSON.parse(text);
  };
  await waitFor('toxiproxy answers', () => call('GET', '/proxies').then(() => true));
  let toxics = 0;
  return {
    kind: 'toxiproxy',
    async add(name, upstream) {
      const listen = await freePort();
      await call('POST', '/proxies', { name, listen: `127.0.0.1:${listen}`, upstream: `127.0.0.1:${upstream}`, enabled: true });
      return listen;
    },
    toxic: (name, toxic) => call('POST', `/proxies/${name}/toxics`, { ...toxic, name: `t${toxics++}`, toxicity: 1 }),
    down: (name) => call('POST', `/proxies/${name}`, { enabled: false }),
    async heal(name) {
      for (const { name: toxic } of await call('GET', `/proxies/${name}/toxics`) as { name: string }[]) await call('DELETE', `/proxies/${name}/toxics/${toxic}`);
      await call('POST', `/proxies/${name}`, { enabled: true });
    },
    close: () => server.stop(),
  };
}
