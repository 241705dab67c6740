/** Senders that behave as SDKs do: again, with the same ids, until a 2xx; and the list that the poller reads. */
import { createServer, type Server } from 'node:http';
import type { Random } from './random.ts';

/** What the senders know, and nothing else may know better: their own log. */
export interface SendersLog {
  /** Event ids that were answered 2xx, by object key, in the order in which that person's calls were answered. */
  readonly answered: Map<string, string[]>;
  /** By e-mail address: what the last answered consent call said, and the event ids that were answered after it. */
  readonly consent: Map<string, { readonly said: boolean; readonly later: string[] }>;
  /** Event ids of what no mapping takes. */
  readonly poison: string[];
  events: number;
  /** Requests that were answered 2xx. */
  requests: number;
  /** Every other answer. A connection that was refused, cut or timed out is none. */
  readonly refusals: Refusal[];
  /** Requests that are not answered yet, per ingest instance. */
  readonly inFlight: number[];
  /** When a request was last cut off, per ingest instance (performance.now()): what an instance had in hand when it died. */
  readonly cutAt: number[];
}

/** Of an ingest instance, at a time (ms since the epoch). `retryAfter`: null = there was none. */
export interface Refusal { readonly at: number; readonly instance: number; readonly status: number; readonly retryAfter: string | null }

export interface Traffic {
  readonly log: SendersLog;
  /** Members in the polled list. */
  members(): number;
  readonly feedUrl: string;
  /** The next `n` calls are such as no mapping takes. */
  poison(n: number): void;
  /** E-mail address of somebody the calls are about. */
  person(random: Random): string;
  /** While true nothing new is sent. */
  hold(on: boolean): void;
  /** Calls a second from now on, all workers together. */
  setRate(rate: number): void;
  /** Sends these in one request, again until it is answered; their event ids, none when it was refused for good. */
  send(calls: readonly SentCall[]): Promise<readonly string[]>;
  /** Nothing new is sent; resolves when everything begun was answered. */
  stop(): Promise<void>;
}

export interface SentCall {
  readonly userId: string;
  readonly email: string;
  readonly body: object;
  /** What it says of email-marketing, if it does. */
  readonly consent?: boolean;
  /** No mapping takes it. */
  readonly poison?: boolean;
}

export interface Feed { readonly url: string; grow(): void; size(): number; close(): Promise<void> }

export interface TrafficOptions {
  /** Base URLs of the ingest instances. */
  readonly ingest: readonly string[];
  readonly authorization: () => string;
  readonly random: Random;
  readonly people: number;
  readonly workers: number;
  /** Calls of a request; up to five times as many where some are late. */
  readonly batch: number;
  /** Calls a second, all workers together. What falls due while nobody answers is sent after it, for up to `lateMs`. */
  readonly rate: number;
}

const requestTimeoutMs = 8000;
const lateMs = 30_000;

/** Who has the address: people of the calls (p7@ is u-7), members of the polled list (mu7@ is mu-7), those that are erased (x7@ is x-7). */
export const userIdOf = (email: string): string => email.replace(/^(p|mu|x)(\d+)@.*$/, (_, kind: string, n: string) => `${kind === 'p' ? 'u' : kind}-${n}`);

export async function startFeed(): Promise<Feed> {
  let size = 0;
  const server: Server = createServer((request, response) => {
    const cursor = Math.min(size, Number(new URL(request.url!, 'http://x').searchParams.get('cursor') ?? 0));
    const to = Math.min(size, cursor + 20);
    const data = Array.from({ length: to - cursor }, (_, i) => ({ id: `mem-${cursor + i}`, updated_at: 1, user_id: `mu-${(cursor + i) % 50}`, email: `mu${(cursor + i) % 50}@larkspur.example`, plan: `p${cursor + i}` }));
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data, next_cursor: String(to) }));
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  return {
    url: `http://127.0.0.1:${(server.address() as { port: number }).port}/members`,
    grow: () => { size++; },
    size: () => size,
    close: () => new Promise((done) => {
      server.close(() => done());
      server.closeAllConnections();
    }),
  };
}

export function startTraffic(options: TrafficOptions, feed: Feed): Traffic {
  const { random } = options;
  const log: SendersLog = { answered: new Map(), consent: new Map(), poison: [], events: 0, requests: 0, refusals: [], inFlight: options.ingest.map(() => 0), cutAt: options.ingest.map(() => -Infinity) };
  let stopping = false;
  let held = false;
  let { rate } = options;
  let poisons = 0;
  let ids = 0;

  function call(person: number): SentCall {
    const n = ids++;
    const userId = `u-${person}`;
    const common = { messageId: `m-${n}`, userId, timestamp: new Date(Date.UTC(2026, 0, 1) + n * 1000).toISOString() };
    const email = `p${person}@larkspur.example`;
    const roll = random.next();
    // What the mapping cannot take and may not leave out: it must end in the dead letters, with its bytes.
    if (roll < 0.01 || poisons-- > 0) return { userId, email, poison: true, body: { ...common, type: 'identify', traits: { email, marketingConsent: 'perhaps' } } };
    if (roll < 0.06) {
      const consent = random.next() < 0.5;
      return { userId, email, consent, body: { ...common, type: 'identify', traits: { email, marketingConsent: consent } } };
    }
    if (roll < 0.5) return { userId, email, body: { ...common, type: 'identify', traits: { email, plan: `plan-${n}` } } };
    return { userId, email, body: { ...common, type: 'track', event: 'Product Viewed', properties: { n } } };
  }

  /** Undefined: it was told not to try again. */
  async function post(body: string): Promise<{ eventIds: string[] } | undefined> {
    for (let attempt = 0; ; attempt++) {
      const at = random.below(log.inFlight.length);
      log.inFlight[at]!++;
      try {
        const response = await fetch(`${options.ingest[at]}/v1/batch`, { method: 'POST', body, headers: { 'authorization': options.authorization(), 'content-type': 'application/json' }, signal: AbortSignal.timeout(requestTimeoutMs) });
        if (response.status === 200) {
          const taken = (await response.json()) as { eventIds: string[] };
          log.requests++;
          return taken;
        }
        log.refusals.push({ at: Date.now(), instance: at + 1, status: response.status, retryAfter: response.headers.get('retry-after') });
        await response.arrayBuffer();
        if (response.status < 500 && response.status !== 429) return undefined;
      } catch (error) {
        // Refused, cut or late: sent again, as an SDK does.
        const { code } = (error as { cause?: { code?: string } }).cause ?? {};
        if (code === 'UND_ERR_SOCKET' || code === 'ECONNRESET') log.cutAt[at] = performance.now();
      } finally {
        log.inFlight[at]!--;
      }
      await new Promise((done) => { setTimeout(done, Math.min(1000, 50 * 2 ** attempt)); });
    }
  }

  async function send(calls: readonly SentCall[]): Promise<readonly string[]> {
    const taken = await post(JSON.stringify({ batch: calls.map((c) => c.body) }));
    if (taken === undefined) return [];
    const { eventIds } = taken;
    calls.forEach(({ userId, email, consent, poison }, i) => {
      const list = log.answered.get(userId);
      if (list === undefined) log.answered.set(userId, [eventIds[i]!]);
      else list.push(eventIds[i]!);
      if (poison === true) log.poison.push(eventIds[i]!);
      if (consent === undefined) log.consent.get(email)?.later.push(eventIds[i]!);
      else log.consent.set(email, { said: consent, later: [] });
    });
    log.events += calls.length;
    return eventIds;
  }

  async function worker(index: number): Promise<void> {
    /** When the last call that was made fell due. */
    let due = performance.now();
    while (!stopping) {
      const callMs = (1000 * options.workers) / rate;
      due = Math.max(due, performance.now() - lateMs);
      const late = Math.floor((performance.now() - due) / callMs);
      if (held || late < options.batch) {
        if (held) due = performance.now();
        await new Promise((done) => { setTimeout(done, held ? 200 : Math.min(1000, (options.batch - late) * callMs)); });
        continue;
      }
      const size = Math.min(late, 5 * options.batch);
      due += size * callMs;
      const calls = Array.from({ length: size }, () => call(index + options.workers * random.below(Math.floor(options.people / options.workers))));
      await send(calls);
      for (let n = 0; index === 0 && n < size; n += options.batch) feed.grow();
    }
  }

  const running = Promise.all(Array.from({ length: options.workers }, (_, i) => worker(i)));
  running.catch(() => undefined);
  return {
    log,
    send,
    members: feed.size,
    feedUrl: feed.url,
    poison: (n) => { poisons = n; },
    person: (from) => `p${from.below(options.people)}@larkspur.example`,
    hold: (on) => { held = on; },
    setRate: (n) => { rate = n; },
    async stop() {
      stopping = true;
      await running;
    },
  };
}
