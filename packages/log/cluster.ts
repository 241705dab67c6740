import { WeirError } from '@weir/errors';
import { delay, withDeadline } from './deadline.ts';
import { E, type BrokerConnection, type Driver, type Endpoint } from './driver.ts';
import { isRefusal, reasonOf, tlsRefusal } from './refusal.ts';
import type { Secured } from './security.ts';

const connectTimeoutMs = 5000;
const metadataTimeoutMs = 5000;
/** Where a driver asks for no id of a topic: one that was unknown for less long was so to a broker that lagged. */
const laggingMs = 5000;

/** What a topic of this name was before. */
interface Past {
  readonly id: string | undefined;
  /** So many times it was made anew. */
  readonly made: number;
  /** The first and the last answer in a row that does not know it, monotonic ms. */
  readonly gone: { readonly since: number; readonly at: number } | undefined;
}

interface Open {
  readonly ready: Promise<BrokerConnection>;
  connection: BrokerConnection | undefined;
}

function parseBroker(text: string): Endpoint {
  const at = text.lastIndexOf(':');
  const port = Number(text.slice(at + 1));
  if (at <= 0 || !Number.isInteger(port) || port < 1 || port > 65535) throw new WeirError('config-invalid', `KAFKA_BROKERS: expected host:port, got ${JSON.stringify(text)}`);
  return { host: text.slice(0, at), port };
}

/**
 * Connections and metadata of one client, over any driver. Routing and deadlines are here; a connection whose
 * request failed or timed out is cut and never used again.
 */
export class Cluster {
  /** Numbers that this client gives out once: epochs of assignments, names of consumers. Of the client, not of the module: a run must not depend on the one before. */
  readonly counts = { last: 0, next(): number { return ++this.last; } };
  readonly deadlineMs: number;
  readonly #driver: Driver;
  readonly #bootstrap: readonly Endpoint[];
  readonly #clientId: string;
  readonly #secured: (() => Secured) | undefined;
  readonly #open = new Map<string, Open>();
  /** topic → leader per partition. */
  readonly #topics = new Map<string, readonly number[]>();
  readonly #past = new Map<string, Past>();
  readonly #wanted = new Set<string>();
  #brokers = new Map<number, Endpoint>();
  #refreshing: { readonly topics: ReadonlySet<string>; readonly done: Promise<void> } | undefined;
  #closed = false;

  constructor(driver: Driver, options: { brokers: readonly string[]; clientId: string; deadlineMs: number; secured?: () => Secured }) {
    this.#driver = driver;
    this.#bootstrap = options.brokers.map(parseBroker);
    this.#clientId = options.clientId;
    this.#secured = options.secured;
    this.deadlineMs = options.deadlineMs;
  }

  /** One request to a broker. Requests of one purpose share a connection and are answered in order, so long polls have a purpose of their own. */
  async ask<T>(purpose: string, node: number, what: string, deadlineMs: number, request: (broker: BrokerConnection) => Promise<T>): Promise<T> {
    const endpoint = this.#brokers.get(node);
    if (endpoint === undefined) throw new WeirError('log-unavailable', `${what}: broker ${node} is not known`);
    return this.#askAt(`${purpose}@${node}`, endpoint, what, deadlineMs, request);
  }

  async #askAt<T>(key: string, endpoint: Endpoint, what: string, deadlineMs: number, request: (broker: BrokerConnection) => Promise<T>): Promise<T> {
    const open = this.#connect(key, endpoint);
    try {
      return await withDeadline(open.ready.then(request), deadlineMs, what);
    } catch (error) {
      this.#drop(key, open);
      if (error instanceof WeirError) throw error;
      throw tlsRefusal(error, `broker ${endpoint.host}:${endpoint.port}`) ?? new WeirError('log-unavailable', `${what} failed: ${(error as Error).message}`, { cause: error });
    }
  }

  #connect(key: string, endpoint: Endpoint): Open {
    if (this.#closed) throw new WeirError('log-unavailable', 'the log client is closed');
    const known = this.#open.get(key);
    if (known !== undefined) return known;
    const forget = (): void => {
      if (this.#open.get(key) === open) this.#open.delete(key);
    };
    const secured = this.#secured?.();
    const ready = this.#driver.connect(this.#clientId, endpoint, connectTimeoutMs, forget, secured).then((connection) => {
      open.connection = connection;
      // Given up while it was being made.
      if (this.#open.get(key) !== open) {
        connection.destroy();
        throw new WeirError('log-unavailable', `connection to ${endpoint.host}:${endpoint.port} was given up`);
      }
      return connection;
    }, (error: unknown) => {
      forget();
      if (isRefusal(error)) throw error;
      const at = `${endpoint.host}:${endpoint.port}`;
      throw tlsRefusal(error, `broker ${at}${secured?.stale === undefined ? '' : ` (files of before are in use: ${secured.stale})`}`) ?? new WeirError('log-unavailable', `no connection to ${at}: ${reasonOf(error)}`, { cause: error });
    });
    const open: Open = { ready, connection: undefined };
    this.#open.set(key, open);
    return open;
  }

  #drop(key: string, open: Open): void {
    if (this.#open.get(key) === open) this.#open.delete(key);
    open.connection?.destroy();
  }

  /** Cut the connections of a purpose; what is asked on them rejects. */
  discard(purpose: string): void {
    for (const [key, open] of this.#open) if (key.startsWith(`${purpose}@`)) this.#drop(key, open);
  }

  /** Learn the leaders of these topics (and of all asked for before) from any broker. A topic that does not exist stays unknown. */
  async refresh(topics: readonly string[]): Promise<void> {
    for (const topic of topics) this.#wanted.add(topic);
    const running = this.#refreshing;
    if (running !== undefined) {
      await running.done;
      if (topics.every((topic) => running.topics.has(topic))) return;
      return this.refresh(topics);
    }
    const asked = new Set(this.#wanted);
    const done = this.#refresh([...asked]).finally(() => { this.#refreshing = undefined; });
    this.#refreshing = { topics: asked, done };
    await done;
  }

  async #refresh(topics: readonly string[]): Promise<void> {
    const known = [...this.#brokers.values()];
    // Another broker each time: one that hangs must not be the first asked for ever.
    const from = known.length > 0 ? Math.floor(Math.random() * known.length) : 0;
    const others = this.#bootstrap.filter((b) => !known.some((k) => k.host === b.host && k.port === b.port));
    let last: unknown;
    let refusal: WeirError | undefined;
    for (const endpoint of [...known.slice(from), ...known.slice(0, from), ...others]) {
      try {
        const found = await this.#askAt(`meta@${endpoint.host}:${endpoint.port}`, endpoint, 'metadata', metadataTimeoutMs, (broker) => broker.metadata(topics));
        this.#learn(found);
        return;
      } catch (error) {
        last = error;
        if (isRefusal(error)) refusal = error;
      }
    }
    throw refusal ?? new WeirError('log-unavailable', `no broker answers (${this.#bootstrap.map((b) => `${b.host}:${b.port}`).join(', ')}${this.#secured === undefined ? ', in plaintext' : ''}): ${(last as Error).message}`, { cause: last });
  }

  #learn(found: Awaited<ReturnType<BrokerConnection['metadata']>>): void {
    this.#brokers = new Map(found.brokers.map((b) => [b.nodeId, { host: b.host, port: b.port }]));
    for (const { name, id, errorCode, partitions } of found.topics) {
      const past = this.#past.get(name);
      if (errorCode === E.unknownTopic) {
        this.#topics.delete(name);
        this.#wanted.delete(name);
        const at = performance.now();
        if (past !== undefined) this.#past.set(name, { ...past, gone: { since: past.gone?.since ?? at, at } });
      }
      if (partitions.length === 0) continue;
      const anew = past !== undefined && (past.id === undefined || id === undefined ? this.goneMs(name) >= laggingMs : past.id !== id);
      this.#past.set(name, { id, made: (past?.made ?? 0) + (anew ? 1 : 0), gone: undefined });
      const leaders: number[] = [];
      for (const p of partitions) leaders[p.partition] = p.leader;
      this.#topics.set(name, leaders);
    }
  }

  /** Partition count; asks the brokers for a topic not seen yet. Rejects with log-fatal when it does not exist. */
  async partitions(topic: string): Promise<number> {
    for (let attempt = 0; attempt < 10; attempt++) {
      const known = this.#topics.get(topic);
      if (known !== undefined) return known.length;
      await this.refresh([topic]);
      // A topic just created may not be known to every broker yet.
      if (!this.#topics.has(topic)) await delay(50 * (attempt + 1));
    }
    throw new WeirError('log-fatal', `topic ${topic} does not exist; create it with: weir topics apply`);
  }

  partitionsKnown(topic: string): number | undefined {
    return this.#topics.get(topic)?.length;
  }

  /** Another number since the topic was deleted and made anew: offsets of before say nothing of it. */
  made(topic: string): number {
    return this.#past.get(topic)?.made ?? 0;
  }

  /** For how long brokers have answered that a topic which was there is not, ms; 0 = it is. While none answers it does not grow. */
  goneMs(topic: string): number {
    const gone = this.#past.get(topic)?.gone;
    return gone === undefined ? 0 : gone.at - gone.since;
  }

  /** Node id of the leader, or -1 when there is none now. */
  leader(topic: string, partition: number): number {
    return this.#topics.get(topic)?.[partition] ?? -1;
  }

  /** Whether the metadata has this broker: one that was away when it was read is not in it. */
  knows(node: number): boolean {
    return this.#brokers.has(node);
  }

  /** A broker that is in the metadata, another one each time; learns the metadata first if there is none. */
  async anyBroker(): Promise<number> {
    if (this.#brokers.size === 0) await this.refresh([]);
    const nodes = [...this.#brokers.keys()];
    return nodes[Math.floor(Math.random() * nodes.length)] ?? -1;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Cuts every connection; what is asked on them rejects. */
  close(): void {
    this.#closed = true;
    for (const [key, open] of this.#open) this.#drop(key, open);
  }
}

const final = new Set(['log-fatal', 'log-out-of-range', 'log-assignment-stale', 'log-append-failed', 'log-auth-failed', 'log-tls-failed', 'config-invalid']);

/** Repeat until it gives a value or the deadline is over; undefined or a passing error = not now. Ends at once when `signal` aborts. */
export async function eventually<T>(cluster: Cluster, what: string, attempt: () => Promise<T | undefined>, signal?: AbortSignal): Promise<T> {
  const end = performance.now() + cluster.deadlineMs;
  let last: unknown;
  for (let i = 0; ; i++) {
    try {
      const value = await attempt();
      if (value !== undefined) return value;
    } catch (error) {
      if (!(error instanceof WeirError) || final.has(error.code)) throw error;
      last = error;
    }
    if (signal?.aborted || cluster.closed) throw new WeirError('log-unavailable', `${what}: the client is being closed`, { cause: last });
    if (performance.now() > end) throw new WeirError('log-deadline', `${what}: not done within ${cluster.deadlineMs} ms${last instanceof Error ? `: ${last.message}` : ''}`, { cause: last });
    await delay(Math.min(500, 20 * 2 ** Math.min(i, 5)), signal);
  }
}
