import type { OperationManifest } from '@weir/adapter';
import { steadyPerSecond } from '@weir/http';
import type { Release } from '@weir/release';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { goesBack, type Item, type Looked } from './select.ts';
import { createSurvey } from './survey.ts';

const passed = { repeated: 0, unreadable: 0, keyDestroyed: 0, held: 0 };
const options = { derived: false, rate: 0, goneBefore: null };
type Operations = Readonly<Record<string, Partial<OperationManifest>>>;
const releaseOf = (destinations: Readonly<Record<string, { readonly account?: string; readonly accountLimit?: object; readonly operations: Operations }>>): Release => ({ hash: 'rel_x', destinations: new Map(Object.entries(destinations).map(([name, d]) => [name, { account: name, ...d }])) }) as unknown as Release;
const item = (destination: string, operation: string, standing: Looked['found']['standing'] = 'notApplied'): Item => ({ kind: 'delivery', note: undefined, deliveries: [{ facts: { destination, operation }, found: { standing }, allowed: true }] }) as unknown as Item;
const order = { from: 'dlq', destination: null, unknown: 'hold' } as const;
function preview(release: Release, items: readonly Item[]) {
  const survey = createSurvey();
  for (const one of items) survey.add(one, false, order);
  return survey.result(release, passed, options);
}
const many = (n: number, ...args: Parameters<typeof item>): Item[] => Array.from({ length: n }, () => item(...args));
const minute = (count: number) => ({ steady: { count, perMs: 60_000 } });

test('an account that alone has a limit tells its time, over all of its destinations', () => {
  const release = releaseOf({ crm: { account: 'shop', accountLimit: minute(60), operations: { put: {} } }, news: { account: 'shop', accountLimit: minute(60), operations: { send: {} } } });
  const { calls, limits, seconds } = preview(release, [...many(300, 'crm', 'put'), ...many(306, 'news', 'send')]);
  const perSecond = Math.round(steadyPerSecond(minute(60)) * 100) / 100;
  expect(limits).toEqual([{ account: 'shop', bucket: null, calls: 606, perSecond, seconds: Math.ceil((606 - 6) / steadyPerSecond(minute(60))), windows: 10.1 }]);
  expect(calls.map((c) => [c.destination, c.calls, c.perSecond, c.seconds])).toEqual([['news', 306, perSecond, seconds], ['crm', 300, perSecond, seconds]]);
});

test('operations that the vendor counts together add up; those that it counts apart do not', () => {
  const together = { limit: { ...minute(60), bucket: 'write', cite: '' } };
  const apart = { limit: { ...minute(60), cite: '' } };
  const { limits } = preview(releaseOf({ crm: { operations: { put: together, post: together, tell: apart } } }), [...many(30, 'crm', 'put'), ...many(40, 'crm', 'post'), ...many(20, 'crm', 'tell')]);
  expect(Object.fromEntries(limits!.map((l) => [l.bucket, l.calls]))).toEqual({ write: 70, tell: 20 });
});

test('a batch is one call; what is asked about before is one more each, of the limit that questions have', () => {
  const put = { batch: { maxItems: 50, maxBytes: 1, cite: '' }, limit: { ...minute(60), cite: '' }, verify: { limit: { ...minute(30), cite: '' }, cite: '' } };
  const { calls, limits } = preview(releaseOf({ crm: { operations: { put } } }), [...many(101, 'crm', 'put'), ...many(20, 'crm', 'put', 'unknownReadable'), ...many(5, 'crm', 'put', 'confirmed'), ...many(5, 'crm', 'put', 'applied')]);
  expect(calls).toMatchObject([{ calls: 3, deliveries: 121, readBacks: 20 }]);
  expect(Object.fromEntries(limits!.map((l) => [l.bucket, l.calls]))).toEqual({ put: 3, 'put read-back': 20 });
});

test('where nothing is stated nothing is told, and the rate of the order counts beside the limits', () => {
  const release = releaseOf({ crm: { operations: { put: {} } } });
  expect(preview(release, many(3, 'crm', 'put'))).toMatchObject({ calls: [{ calls: 3, perSecond: null, seconds: null }], limits: [], seconds: null });
  // A destination that has left the release.
  expect(preview(release, many(3, 'gone', 'put'))).toMatchObject({ calls: [{ calls: 3, seconds: null }], limits: [], seconds: null });
  const survey = createSurvey();
  for (const one of many(30, 'crm', 'put')) survey.add(one, false, order);
  expect(survey.result(release, passed, { ...options, rate: 10 }).seconds).toBe(3);
});

test('the time is never less with more deliveries, a smaller limit or a smaller batch', () => {
  const one = fc.record({ n: fc.integer({ min: 1, max: 500 }), limit: fc.integer({ min: 1, max: 100 }), account: fc.integer({ min: 1, max: 100 }), items: fc.integer({ min: 1, max: 50 }) });
  const seconds = ({ n, limit, account, items }: { n: number; limit: number; account: number; items: number }): number => preview(releaseOf({ crm: { accountLimit: minute(account), operations: { put: { limit: { ...minute(limit), cite: '' }, batch: { maxItems: items, maxBytes: 1, cite: '' } } } } }), many(n, 'crm', 'put')).seconds!;
  fc.assert(fc.property(one, one, (a, b) => {
    const harder = { n: Math.max(a.n, b.n), limit: Math.min(a.limit, b.limit), account: Math.min(a.account, b.account), items: Math.min(a.items, b.items) };
    expect(seconds(harder)).toBeGreaterThanOrEqual(Math.max(seconds(a), seconds(b)));
  }), { numRuns: 30 });
});

test('of a dead letter that is no delivery what nothing can tell of is held, in the preview as in the run, unless the order is for one destination', () => {
  const release = releaseOf({ mail: { operations: { send: {} } } });
  const told = (from: 'dlq' | 'raw', destination: string | null, unknown: 'hold' | 'resend', kind: Item['kind']): number[] => {
    const order = { from, destination, unknown };
    const survey = createSurvey();
    const one = { ...item('mail', 'send', 'unknownHeld'), kind };
    survey.add(one, false, order);
    const { back, calls } = survey.result(release, passed, options);
    return [Number(goesBack(one, order)), back, calls?.length ?? 0];
  };
  const [sent, held] = [[1, 1, 1], [0, 0, 0]];
  expect(told('dlq', null, 'resend', 'delivery')).toEqual(sent);
  expect(told('dlq', null, 'resend', 'derived')).toEqual(held);
  expect(told('dlq', 'mail', 'resend', 'derived')).toEqual(sent);
  expect(told('raw', null, 'resend', 'derived')).toEqual(sent);
  for (const kind of ['delivery', 'derived'] as const) expect(told('dlq', 'mail', 'hold', kind)).toEqual(held);
});

test('what the vendor said it has is no reason to put back the record that it came of: nothing of that goes with it, and it could be called again', () => {
  const of = (kind: Item['kind'], note: Item['note'], ...standing: Looked['found']['standing'][]): boolean => goesBack({ kind, note, deliveries: standing.map((s) => ({ facts: {}, found: { standing: s }, allowed: true })) } as unknown as Item, order);
  // The answer goes with a delivery, and ends it without a call.
  expect(of('delivery', undefined, 'applied')).toBe(true);
  expect(of('derived', undefined, 'applied')).toBe(false);
  expect(of('derived', undefined, 'applied', 'confirmed')).toBe(false);
  expect(of('derived', 'goes-on', 'applied')).toBe(false);
  expect(of('derived', undefined, 'applied', 'notApplied')).toBe(true);
});
