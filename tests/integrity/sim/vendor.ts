/** The vendors of a run, by the sandbox's own rules (services/sandbox/vendors), and an HTTP client that leads to them and fails. */
import type { HttpFailure, HttpRequest, HttpResponse } from '@weir/adapter';
import type { HttpClient } from '@weir/http';
import { createHttpVendor } from '../../../services/sandbox/vendors/http.ts';
import type { Faults } from './faults.ts';
import type { Actor, Random, Scheduler } from './time.ts';
import type { PolledList } from './workload.ts';

/** One request that was written to a connection, as the run saw it. */
export interface Call {
  readonly at: number;
  readonly actor: string;
  readonly destination: string;
  readonly key: string;
  readonly operation: string;
  /** When the vendor has it; Infinity = never. */
  readonly arrivesAt: number;
  /** What the instance had read of weir.consent when it wrote. */
  readonly consent: ReadonlyMap<number, number>;
  /** How long before it the instance could read weir.control last, virtual ms. */
  readonly controlAgeMs: number;
  /** dispatch partition → instance that held it by the broker's books. */
  readonly holders: ReadonlyMap<number, string | undefined>;
}
/** One request that took effect. */
export interface Effect { readonly at: number; readonly destination: string; readonly key: string; readonly body: unknown }

export interface Vendors {
  readonly calls: Call[];
  readonly effects: Effect[];
  /** Requests about this user are refused for so long: its deliveries are parked. */
  refuse(user: string, ms: number): void;
  /** Nobody reaches this destination for so long: what is tried has no effect. */
  down(destination: string, ms: number): void;
  /** The client of a poller: pages of the list, and the ways in which they do not come. */
  pages(actor: Actor, list: PolledList): HttpClient;
  client(actor: Actor, look: (destination: string) => Pick<Call, 'consent' | 'controlAgeMs' | 'holders'>): HttpClient;
}

export function createVendors(options: { scheduler: Scheduler; random: Random; faults: Faults; tight: boolean }): Vendors {
  const { scheduler, random, faults } = options;
  const vendor = createHttpVendor({});
  const state = new Map<string, string>();
  const calls: Call[] = [];
  const effects: Effect[] = [];
  const refused = new Map<string, number>();
  const unreachable = new Map<string, number>();

  function isRefused(request: HttpRequest): boolean {
    const text = String(request.body ?? '');
    return [...refused].some(([user, until]) => until > scheduler.now && text.includes(`"${user}`));
  }

  function arrive(destination: string, path: string, request: HttpRequest): HttpResponse {
    const raw = Buffer.from(request.body ?? '');
    const reply = vendor.handle({ destination, method: request.method, path, headers: request.headers, raw, json: JSON.parse(raw.toString()), now: Date.now() }, state);
    for (const [key, value] of reply.puts) state.set(key, value);
    for (const arrival of reply.arrivals) if (arrival.applied) effects.push({ at: scheduler.now, destination, key: request.headers['x-key']!, body: arrival.body });
    return { status: reply.status, headers: {}, body: Buffer.from(JSON.stringify(reply.body)) };
  }

  return {
    calls,
    effects,
    refuse: (user, ms) => { refused.set(user, scheduler.now + ms); },
    down: (destination, ms) => { unreachable.set(destination, scheduler.now + ms); },
    pages: (actor, list) => ({
      close: () => Promise.resolve(),
      call: (request, { deadlineMs, onBeforeWrite }) => new Promise((resolve) => {
        const fail = (failure: HttpFailure['failure']): void => resolve({ failure, sent: true, detail: failure });
        scheduler.after(deadlineMs, actor, () => fail('timeout'));
        if (faults.hit('poll.refused')) return void scheduler.after(1, actor, () => fail('connect'));
        if (onBeforeWrite?.() === false) return fail('connect');
        if (faults.hit('poll.reset')) return void scheduler.after(5, actor, () => fail('reset'));
        scheduler.after(faults.hit('poll.slow') ? 500 + random() * 8000 : 1 + random() * 20, actor, () => {
          const { data, next } = list.page(new URL(request.url).searchParams.get('cursor'), scheduler.now);
          const broken = faults.hit('poll.cut');
          const text = JSON.stringify({ data, next });
          resolve({ status: 200, headers: { 'content-type': 'application/json' }, body: Buffer.from(broken ? text.slice(0, -4) : text) });
        });
      }),
    }),
    client: (actor, look) => ({
      close: () => Promise.resolve(),
      call: (request, { deadlineMs, onBeforeWrite }) => new Promise((resolve, reject) => {
        const [, destination, path] = /\/d\/([^/]+)\/(.*)$/.exec(request.url)! as unknown as [string, string, string];
        let sent = false;
        const fail = (failure: HttpFailure['failure'], detail: string): void => resolve({ failure, sent, detail });
        scheduler.after(deadlineMs, actor, () => fail('timeout', 'no answer'));
        if ((unreachable.get(destination) ?? 0) > scheduler.now || faults.hit('http.connect-refused')) return void scheduler.after(1, actor, () => fail('connect', 'refused'));
        const connectMs = faults.hit('http.connect-slow') ? 20 + random() * 600 : 0.5 + random() * 2;
        const answer = (ms: number, response: HttpResponse): void => { scheduler.after(ms, actor, () => resolve(response)); };
        const refusal = (status: number, retryAfter = '1'): HttpResponse => ({ status, headers: status === 429 ? { 'retry-after': retryAfter } : {}, body: Buffer.from('{}') });

        function write(): void {
          try {
            if (onBeforeWrite?.() === false) return fail('connect', 'not sent');
          } catch (error) {
            return reject(error);
          }
          sent = true;
          // A request may be long on its way; its deadline is longer.
          const wayMs = faults.hit('http.slow-way') ? 20 + random() * deadlineMs * 0.7 : 0.5 + random() * 3;
          const lost = faults.hit('http.reset-before');
          calls.push({ at: scheduler.now, arrivesAt: lost ? Infinity : scheduler.now + wayMs, actor: actor.name, destination, key: request.headers['x-key']!, operation: path, ...look(destination) });
          if (lost) return void scheduler.after(wayMs, actor, () => fail('reset', 'reset'));
          if (faults.hit('http.429')) return answer(wayMs, refusal(429));
          if (options.tight && faults.hit('http.429-for-long')) return answer(wayMs, refusal(429, '45'));
          if (faults.hit('http.400')) return answer(wayMs, refusal(400));
          if (isRefused(request) || faults.hit('http.503')) return answer(wayMs, refusal(503));
          const appliedMs = faults.hit('http.applied-after-timeout') ? deadlineMs + 50 + random() * 2000 : wayMs;
          const silent = faults.hit('http.timeout-after-commit');
          const reset = faults.hit('http.reset-after');
          const workMs = faults.hit('http.slow') ? random() * deadlineMs * 0.9 : 1 + random() * 20;
          scheduler.after(appliedMs, scheduler.world, () => {
            const response = arrive(destination, path, request);
            if (reset) scheduler.after(1, actor, () => fail('reset', 'reset'));
            else if (!silent) answer(workMs, response);
          });
        }
        scheduler.after(connectMs, actor, write);
      }),
    }),
  };
}
