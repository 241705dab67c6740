import { WeirError } from '@weir/errors';
import type { HttpFailure, HttpResponse, OperationManifest } from '@weir/adapter';
import type { CallOptions } from '@weir/http';
import type { Serde } from '@weir/log';
import type { DestinationConfig, Release } from '@weir/release';
import type { Put, Table } from '@weir/state';
import { createHandClock, mostInWindow } from '@weir/testing';
import { expect, test } from 'vitest';
import { createAskQuota } from './ask-quota.ts';
import type { Looked } from './select.ts';
import { createVerifier, pageOfAnswers } from './verify.ts';

/** A vendor whose answers take 20 ms, and a verifier on a clock turned by hand. */
function world(options: { limit?: OperationManifest['limit']; operations?: readonly string[]; accountLimit?: DestinationConfig['accountLimit'] } = {}) {
  const clock = createHandClock(1_800_000_000_000);
  const state = { /** When its secret can be had. */ secretAt: 0, /** What is decoded from now on is of people who were erased. */ erased: false, /** Payloads that are known still. */ registry: undefined as number | undefined, paused: false, enabled: true, pauseBeforeWrite: false, unreadSince: Number.POSITIVE_INFINITY, readAt: Number.POSITIVE_INFINITY, answer: (_path: string): HttpResponse | HttpFailure => ({ status: 200, headers: {}, body: Buffer.alloc(0) }) };
  const calls: { at: number; path: string }[] = [];
  const operation = { kind: 'use', accepts: [], doc: '', idempotency: { scheme: 'header', pastWindow: 'verify', cite: '' }, limit: options.limit, verify: { settleMs: 0, cite: '' } } as unknown as OperationManifest;
  const adapter = { destination: { verify: {
    request: (_d: unknown, key: string) => ({ method: 'GET', url: `http://till/${key}`, headers: {} }),
    classify: (r: HttpResponse | HttpFailure) => ('failure' in r ? { kind: 'retry', effect: 'none', code: 'vendor-unavailable' } : r.status === 200 ? { kind: 'applied' } : r.status === 404 ? { kind: 'not-applied' } : { kind: 'throttled', effect: 'none', code: 'vendor-throttled', retryAfterMs: Number(r.headers['retry-after']) * 1000 }),
  } } };
  const till = (): DestinationConfig => ({ name: 'till', account: 'shop', accountLimit: options.accountLimit, enabled: state.enabled, config: {}, adapter, operations: Object.fromEntries((options.operations ?? ['put']).map((name) => [name, operation])) }) as unknown as DestinationConfig;
  const rows = new Map<string, Buffer>();
  const table = {
    get: (key: string) => rows.get(key),
    putBatch: (puts: readonly Put[]) => { for (const { key, value } of puts) if (value === null) rows.delete(String(key)); else rows.set(String(key), value as Buffer); },
    range: (prefix: string, after = '') => [...rows].filter(([key]) => key.startsWith(prefix) && key > after).sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, value]) => ({ key, value })),
  } as unknown as Table;
  const quota = createAskQuota({ release: () => ({ sources: new Map(), destinations: new Map([['till', till()]]) }) as unknown as Release, partitions: async () => 6, save: async () => undefined, clock });
  const unreadMs = (): number => (clock.at < state.readAt ? Math.max(0, clock.at - state.unreadSince) : 0);
  const verifier = createVerifier({
    serde: { known: () => state.registry === undefined || --state.registry >= 0, prepare: async () => { throw new Error('the registry is away'); }, decode: () => {
      if (state.erased) throw new WeirError('subject-erased', 'the key of the person was destroyed');
      return { name: 'weir.canonical.Event', value: {} };
    } } as unknown as Serde, table, clock, quota,
    http: {
      async call({ url }: { url: string }, { onBeforeWrite }: CallOptions) {
        if (state.pauseBeforeWrite) state.paused = true;
        if (onBeforeWrite?.() === false) return { failure: 'connect', sent: false, detail: 'not sent' } as HttpFailure;
        calls.push({ at: clock.at, path: url });
        await new Promise<void>((resolve) => { clock.setTimer(resolve, 20); });
        return state.answer(url);
      },
    },
    destination: () => till(), withSecrets: (destination) => (clock.at < state.secretAt ? undefined : destination), mayCall: () => state.enabled && !state.paused && unreadMs() === 0, unreadMs, asked: () => undefined,
  });
  const looked = (n: number): Looked[] => Array.from({ length: n }, (_, i): Looked => ({ facts: { outputId: `out_${i}`, eventId: `evt_${i}`, destination: 'till', operation: (options.operations ?? ['put'])[i % (options.operations ?? ['put']).length]!, recordType: 'weir.canonical.Event' } as Looked['facts'], found: { standing: 'unknownKeyed', key: `k${i}`, at: 0 }, allowed: true, payload: Buffer.alloc(1) }));
  /** The answers, after as long as they take. */
  async function ask(n: number, share = 0.1, goesOn: () => boolean = () => true): Promise<string[]> {
    let answers: string[] | undefined;
    const asking = verifier.ask({ id: 'o', share }, looked(n), goesOn).then((found) => { answers = found; }, (error: unknown) => {
      answers = [];
      throw error;
    });
    asking.catch(() => undefined);
    for (let i = 0; answers === undefined && i < 20_000; i++) {
      for (const _ of clock.turn(20)) await new Promise(setImmediate);
      await new Promise(setImmediate);
    }
    await asking;
    return answers!;
  }
  return { clock, state, calls, verifier, ask };
}

test('answers are told page by page, each once, with how many are left', async () => {
  const { state, ask, verifier } = world();
  state.answer = (path) => ({ status: /[05]$/.test(path) ? 404 : 200, headers: {}, body: Buffer.alloc(0) });
  await ask(50);
  for (const [answer, wanted] of [['applied', 40], ['not-applied', 10], [undefined, 50]] as const) {
    const names = new Set<string>();
    const left: number[] = [];
    for (let after: string | undefined; ;) {
      const page = await pageOfAnswers(verifier.answers('o', after), answer, 15);
      for (const d of page.deliveries) names.add(d.eventId);
      left.push(page.left);
      if (page.next === null) break;
      after = page.next;
    }
    expect([names.size, left]).toEqual([wanted, Array.from({ length: Math.ceil(wanted / 15) }, (_, i) => Math.max(0, wanted - 15 * (i + 1)))]);
  }
});

test('what was answered before a registry went away is not asked again', async () => {
  const { state, calls, ask } = world();
  state.registry = 10;
  await expect(ask(40)).rejects.toThrow(/registry is away/);
  const asked = calls.length;
  expect(asked).toBe(10);
  state.registry = undefined;
  expect(await ask(40)).toEqual(Array.from({ length: 40 }, () => 'applied'));
  expect(calls).toHaveLength(40);
});

test.each(['paused', 'enabled'] as const)('a destination that is off (%s) is not called; its deliveries are unknown, and are asked about in the next pass after it is on', async (how) => {
  const { state, calls, ask, verifier } = world();
  state[how] = how === 'paused';
  expect(await ask(3)).toEqual(['unknown', 'unknown', 'unknown']);
  expect(calls).toEqual([]);
  expect([...verifier.answers('o')].map((a) => a.answer)).toEqual(['unknown', 'unknown', 'unknown']);
  state[how] = how !== 'paused';
  expect(await ask(3)).toEqual(['applied', 'applied', 'applied']);
  expect(calls).toHaveLength(3);
  // An answer of the vendor counts in the next pass.
  await ask(3);
  expect(calls).toHaveLength(3);
});

test('a token that nobody asked for before is waited for; a secret that stays away leaves the rest unknown at once, and it is asked about in the next pass', async () => {
  const { state, calls, ask, clock, verifier } = world();
  state.secretAt = clock.at + 700;
  expect(await ask(20)).toEqual(Array.from({ length: 20 }, () => 'applied'));
  verifier.forget('o');
  calls.length = 0;
  state.secretAt = Number.POSITIVE_INFINITY;
  const began = clock.at;
  expect(await ask(1000)).toEqual(Array.from({ length: 1000 }, () => 'unknown'));
  expect([calls.length, clock.at - began < 12_000]).toEqual([0, true]);
  const later = clock.at;
  expect(await ask(1000)).toEqual(Array.from({ length: 1000 }, () => 'unknown'));
  expect(clock.at - later).toBeLessThan(1000);
  state.secretAt = 0;
  expect(await ask(20)).toEqual(Array.from({ length: 20 }, () => 'applied'));
});

test('while weir.control cannot be read nothing is asked, and the order waits for it; for half a minute, then the rest is unknown', async () => {
  const { state, calls, ask, clock } = world();
  state.unreadSince = clock.at - 1;
  state.readAt = clock.at + 20_000;
  const back = state.readAt;
  expect(await ask(3)).toEqual(['applied', 'applied', 'applied']);
  expect(calls).toHaveLength(3);
  expect(Math.min(...calls.map((c) => c.at))).toBeGreaterThanOrEqual(back);
  Object.assign(state, { unreadSince: clock.at - 1, readAt: Number.POSITIVE_INFINITY });
  const from = clock.at;
  const answers = await ask(40);
  expect(new Set(answers.slice(3))).toEqual(new Set(['unknown']));
  expect(calls).toHaveLength(3);
  expect(clock.at - from).toBeLessThan(35_000);
  // Nobody waits for an order that was stopped.
  state.unreadSince = clock.at - 1;
  expect(await ask(9, 0.1, () => false)).toContain('unknown');
});

test('a kill switch that comes while the call waits for its connection holds in the tick of the write', async () => {
  const { state, calls, ask } = world();
  state.pauseBeforeWrite = true;
  expect(await ask(20)).toEqual(Array.from({ length: 20 }, () => 'unknown'));
  expect(calls).toEqual([]);
});

test('an order that was paused meanwhile asks no more, and what it did not ask counts for nothing in the next pass', async () => {
  const { calls, ask } = world({ limit: { steady: { count: 100, perMs: 1000 }, cite: '' } });
  expect(await ask(50, 0.1, () => calls.length < 3)).toContain('unknown');
  expect(calls.length).toBeLessThan(12);
  expect(new Set(await ask(50))).toEqual(new Set(['applied']));
});

const limit = { count: 50, perMs: 1000 };
test.each([
  ['of the operation', { limit: { steady: limit, cite: '' } }],
  ['of the account alone, over two operations', { accountLimit: { steady: limit }, operations: ['put', 'post'] }],
  ['of a bucket that two operations share', { limit: { steady: limit, bucket: 'all', cite: '' }, operations: ['put', 'post'] }],
])('the share of the limit %s holds in every window, over all who ask', async (_name, options) => {
  const { calls, ask } = world(options);
  expect(new Set(await ask(100, 0.2))).toEqual(new Set(['applied']));
  const times = calls.map((c) => c.at);
  // A fifth of 50.
  expect(mostInWindow(times, 1000)).toBeLessThanOrEqual(10);
  expect(times.length / ((times.at(-1)! - times[0]!) / 1000)).toBeGreaterThan(8);
});

test('a refusal for the rate closes the quota for everybody who asks, then one asks at a time', async () => {
  const { state, calls, ask, clock } = world();
  let refusals = 0;
  let until = 0;
  state.answer = () => {
    if (refusals === 0) until = clock.at + 5000;
    return clock.at < until ? (refusals++, { status: 429, headers: { 'retry-after': '5' }, body: Buffer.alloc(0) }) : { status: 404, headers: {}, body: Buffer.alloc(0) };
  };
  expect(new Set(await ask(40))).toEqual(new Set(['not-applied']));
  // Those that were on the way.
  expect(refusals).toBeLessThanOrEqual(8);
  const first = calls.filter((c) => c.at >= until).map((c) => c.at)[0]!;
  expect(calls.filter((c) => c.at >= until && c.at < first + 20)).toHaveLength(1);
});

test('a vendor that wants to be left alone for long is not waited for: the rest is unknown, and is asked about in the next pass', async () => {
  const { state, calls, ask, clock } = world();
  state.answer = () => ({ status: 429, headers: { 'retry-after': '3000' }, body: Buffer.alloc(0) });
  const began = clock.at;
  expect(new Set(await ask(100))).toEqual(new Set(['unknown']));
  expect(calls.length).toBeLessThanOrEqual(8);
  expect(clock.at - began).toBeLessThan(10_000);
  clock.at += 3_000_000;
  state.answer = () => ({ status: 200, headers: {}, body: Buffer.alloc(0) });
  expect(new Set(await ask(100))).toEqual(new Set(['applied']));
});

test('who was erased while the others were asked about ends no order: the vendor is not asked, and nothing can be told', async () => {
  const { state, ask, calls } = world({ limit: { cite: '', steady: { count: 100, perMs: 1000 } } });
  state.answer = () => {
    state.erased = true;
    return { status: 200, headers: {}, body: Buffer.alloc(0) };
  };
  const answers = await ask(30, 1);
  expect(answers.filter((answer) => answer === 'applied')).toHaveLength(calls.length);
  expect(answers.filter((answer) => answer === 'unreadable')).toHaveLength(30 - calls.length);
  expect(calls.length).toBeLessThan(30);
});
