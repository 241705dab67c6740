import type { OperationManifest } from '@weir/adapter';
import { deliveryKey, H } from '@weir/pipeline';
import type { Cap, DestinationConfig } from '@weir/release';
import { expect, test } from 'vitest';
import { consentRefusal, prepare } from './attempt.ts';
import type { Counted } from './caps.ts';
import { endValue } from './ends.ts';
import { coveredOnLeaving } from './ledger.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import type { EndValue, Task } from './types.ts';

const now = 1_800_000_000_000;
const hour = 3_600_000;
const ports = { name: 'crm', retention: { ledgerMs: () => 75 * 24 * hour, dispatchMs: () => 30 * 24 * hour, parkedMs: () => 30 * 24 * hour }, dedupeWindowMs: () => 7 * 24 * hour, clock: { now: () => now }, consent: { atLeast: () => true, allows: () => ({ ok: true }) }, ledger: { lastDelivered: () => undefined } } as unknown as DestinationPorts;
const verify = { settleMs: 5000, cite: 'test' };
type Rule = OperationManifest['idempotency']['pastWindow'];

interface Options { caps?: readonly Cap[]; counted?: readonly Counted[]; openedAt?: number; windowMs?: number; acceptedAt?: number; ended?: Partial<EndValue>; recent?: readonly Partial<EndValue>[]; recordType?: string; retired?: boolean; keys?: DestinationPorts['keys'] }
/** What is to be done with a delivery of a vendor without keys, in a word. */
function prepared(rule: Rule, readable: boolean, task: Partial<Task>, options: Options = {}) {
  const answer = given(rule, readable, task, options);
  return answer.kind === 'end' ? `end ${answer.ending.state} ${answer.ending.code}` : answer.kind;
}

/** @param into the task itself, to see what became of it */
function given(rule: Rule, readable: boolean, task: Partial<Task>, options: Options = {}, into: object = {}) {
  const operation: OperationManifest = { kind: 'use', accepts: [], doc: '', idempotency: options.windowMs === undefined ? { scheme: 'none', pastWindow: rule, cite: 'test' } : { scheme: 'header', windowMs: options.windowMs, pastWindow: rule, cite: 'test' }, ...(readable ? { verify } : {}) };
  const destination = { operations: options.retired === true ? {} : { put: operation }, caps: options.caps ?? [], retryHorizonMs: 72 * hour, adapter: { destination: { verify: readable ? {} : undefined } } } as unknown as DestinationConfig;
  const delivery = { outputId: 'out_1', destination: 'crm', operation: 'put', recordType: options.recordType ?? 'weir.canonical.Event', intent: '0', itemHash: 'h', acceptedAt: options.acceptedAt ?? now - 1000, notBefore: null, ids: [], purpose: 'service', consentOffsets: [], identityOffsets: [] };
  const end = options.ended === undefined ? undefined : { itemHash: 'h', offset: 1, ...options.ended } as EndValue;
  const runner = { openedAt: () => options.openedAt ?? now - hour, writer: { endOf: () => end, recentOf: () => options.recent ?? [] }, coveredBefore: () => false } as unknown as PartitionRunner;
  const full = Object.assign(into, { delivery, sealedBy: '', subject: 's', offset: 9, parkedOffset: -1, queuedAt: now - 1000, redrive: '', key: '', generation: 0, attempts: 1, readBacks: 0, maybeSince: now - 60_000, last: undefined, record: { timestamp: now - 1000, headers: [] }, ...task }) as unknown as Task;
  const all = { ...ports, ledger: { lastDelivered: () => undefined, counted: () => options.counted ?? [] } } as unknown as DestinationPorts;
  return prepare(options.keys === undefined ? all : { ...all, keys: options.keys }, runner, destination, full);
}

test('a delivery of unknown effect is asked for, held or sent again, as the manifest says', () => {
  expect(prepared('verify', true, {})).toBe('read-back');
  expect(prepared('hold', true, {})).toBe('end quarantined delivery-held');
  expect(prepared('hold', false, {})).toBe('end quarantined delivery-held');
  expect(prepared('resend', false, {})).toBe('call');
  expect(prepared('verify', false, {})).toBe('end quarantined delivery-held');
  expect(prepared('verify', true, { maybeSince: 0 })).toBe('call');
});

test('the vendor is not asked before the last call can show', () => {
  const last = { at: now - 4500, durationMs: 0, verdict: 'retry', effect: 'maybe', status: null, path: null };
  expect(prepared('verify', true, { last })).toBe('wait');
  expect(prepared('verify', true, { last: { ...last, at: now - 10 } })).toBe('park');
  // A marker on the ledger has whole ms, and what a call took has none.
  expect(given('verify', true, { last: { ...last, at: now - 10, durationMs: 3.25 } })).toEqual({ kind: 'park', due: now - 6 + 5000, reason: 'read-back' });
  expect(prepared('verify', true, { last: { ...last, at: now - 5000 } })).toBe('read-back');
  // An earlier owner may have called until this one took over.
  expect(prepared('verify', true, {}, { openedAt: now - 10 })).toBe('park');
});

test('a vendor that gives no answer to the question is asked until the horizon, then a person is', () => {
  const asked = (hours: number) => ({ queuedAt: now - 80 * hour, trouble: { since: now - hours * hour, at: now - 10_000 } });
  expect(prepared('verify', true, { ...asked(71), readBacks: 5 })).toBe('read-back');
  expect(prepared('verify', true, { ...asked(73), readBacks: 5 })).toBe('end quarantined delivery-held');
  expect(prepared('verify', true, { ...asked(73), readBacks: 0 })).toBe('read-back');
  // It waited for its turn, and then its first question met a limit.
  expect(prepared('verify', true, { queuedAt: now - 80 * hour, readBacks: 1 })).toBe('read-back');
});

test('what its topic is about to lose leaves for the dead letters, what the ledger would forget is not sent', () => {
  const one = (days: number, accepted: number) => prepared('resend', false, { maybeSince: 0, attempts: 0, record: { timestamp: now - days * 24 * hour, headers: [] } as unknown as Task['record'] }, { acceptedAt: now - accepted * 24 * hour });
  expect(one(26, 26)).toBe('call');
  expect(one(27, 27)).toBe('end dead-lettered expiring');
  expect(one(1, 68)).toBe('call');
  expect(one(1, 69)).toBe('end expired delivery-expired');
});

test('retries end when trouble of the delivery has lasted for the horizon, not for time in which nothing of it was called, nor for a limit of the vendor', () => {
  const last = { at: now - hour, durationMs: 1, verdict: 'retry', effect: 'none', status: 503, path: null };
  const queuedAt = now - 100 * hour;
  const lasted = (hours: number) => ({ since: now - (hours + 1) * hour, at: now - hour });
  // Its destination was off, or it waited for a cap or its time: the first call that fails is no reason to give it up.
  expect(prepared('resend', false, { queuedAt, last, trouble: lasted(0) })).toBe('call');
  expect(prepared('resend', false, { queuedAt, last: { ...last, verdict: 'throttled', status: 429 } })).toBe('call');
  expect(prepared('resend', false, { queuedAt, last: { ...last, verdict: 'auth-broken', status: 401 } })).toBe('call');
  expect(prepared('resend', false, { queuedAt, last, trouble: lasted(72) })).toBe('call');
  expect(prepared('resend', false, { queuedAt, last, trouble: lasted(73) })).toBe('end dead-lettered delivery-exhausted');
  // The letter says what it was that lasted.
  expect(given('resend', false, { queuedAt, maybeSince: 0, last: { ...last, code: 'address-forbidden' }, trouble: lasted(73) })).toMatchObject({ ending: { detail: '1 calls; last: retry, address-forbidden' } });
});

test('a redrive of unknown effect asks first where it can, and is the decision to send where it cannot', () => {
  const ended: Partial<EndValue> = { state: 'quarantined', effect: 'maybe', maybeSince: now - hour, at: now - hour };
  const redrive = { redrive: 'order-1', attempts: 0, maybeSince: 0 };
  expect(prepared('hold', true, redrive, { ended })).toBe('read-back');
  expect(prepared('hold', false, redrive, { ended })).toBe('end quarantined delivery-held');
  const told = (order: string) => ({ ...redrive, record: { timestamp: now - 1000, headers: [[H.resend, Buffer.from(order)]] } as unknown as Task['record'] });
  expect(prepared('hold', false, told('order-1'), { ended })).toBe('call');
  expect(prepared('hold', true, told('order-1'), { ended })).toBe('read-back');
  // Of an earlier order, whose headers another version of control did not know to drop.
  expect(prepared('hold', false, told('order-0'), { ended })).toBe('end quarantined delivery-held');
  // Answered: not applied. An answer that tells nothing (a limit, trouble of the vendor) leaves it in doubt.
  expect(prepared('hold', true, { ...redrive, readBacks: 1, attempts: 1, notApplied: true }, { ended })).toBe('call');
  expect(prepared('hold', true, { ...redrive, readBacks: 1, attempts: 1 }, { ended })).toBe('read-back');
  // The call of that end may not show yet, whoever made it.
  expect(prepared('hold', true, redrive, { ended: { ...ended, at: now - 100 } })).toBe('park');
  // What this redrive itself may have called before a crash is no decision of a person.
  expect(prepared('hold', false, { ...told('order-1'), maybeSince: now - 60_000 }, { ended })).toBe('end quarantined delivery-held');
  // Told by a person: not applied.
  expect(prepared('hold', false, { ...redrive, record: { timestamp: now - 1000, headers: [[H.verified, Buffer.from('not-applied')]] } as unknown as Task['record'] }, { ended })).toBe('call');
});

test('a redrive goes under the key that the vendor knows while it knows it, and not after: its turn may come later than its preview', () => {
  const keyed = (since: number, rule: Rule = 'hold', headers: Task['record']['headers'] = []) => prepared(rule, false, { redrive: 'order-1', attempts: 0, maybeSince: 0, record: { timestamp: now - 1000, headers } as unknown as Task['record'] }, { windowMs: 24 * hour, ended: { state: 'dead-lettered', effect: 'maybe', maybeSince: now - since, at: now - since + 1000 } });
  expect(keyed(24 * hour)).toBe('call');
  expect(keyed(24 * hour + 1)).toBe('end quarantined delivery-held');
  expect(keyed(24 * hour + 1, 'verify')).toBe('end quarantined delivery-held');
  expect(keyed(24 * hour + 1, 'resend')).toBe('call');
  expect(keyed(24 * hour + 1, 'hold', [[H.resend, Buffer.from('order-1')]])).toBe('call');
});

const day = 24 * hour;
const told = (order: string): Task['record'] => ({ timestamp: now - 1000, headers: [[H.resend, Buffer.from(order)]] }) as unknown as Task['record'];
const yesterday: Partial<EndValue> = { state: 'denied', effect: 'maybe', maybeSince: now - 20 * hour, at: now - 19 * hour };

test('a redrive under the same key is asked for its caps at the call, whatever an earlier call may have done; what it may have called itself was under them', () => {
  const cap = (over: 'deny' | 'delay'): Cap => ({ name: 'daily', max: 1, purpose: 'service', channel: undefined, operation: undefined, destination: undefined, timezone: 'UTC', over, file: 'x', line: 1 });
  const today: Counted = { key: 'another', at: now - 1, purpose: 'service', channel: null, operation: 'put' };
  const redriven = (over: 'deny' | 'delay', readable: boolean, task: Partial<Task> = {}, counted = [today]) => prepared('hold', readable, { redrive: 'order-1', attempts: 0, maybeSince: 0, ...task }, { windowMs: day, ended: yesterday, caps: [cap(over)], counted });
  for (const readable of [false, true]) {
    expect(redriven('deny', readable)).toBe('end denied cap:daily');
    expect(redriven('delay', readable)).toBe('park');
    expect(redriven('deny', readable, {}, [])).toBe('call');
  }
  expect(redriven('deny', false, { maybeSince: now - 1000 })).toBe('call');
  // Its own end of today, which may have been the one: under the same key it is one still. Who sends it again whatever it was may make it two.
  const own = { ...today, key: deliveryKey('out_1', 'crm', 'put', '0', 0) };
  expect(redriven('deny', false, {}, [own])).toBe('call');
  expect(redriven('deny', false, {}, [own, today])).toBe('end denied cap:daily');
  expect(redriven('deny', false, { record: told('order-1') }, [own])).toBe('end denied cap:daily');
  const found = { timestamp: now - 1000, headers: [[H.verified, Buffer.from('not-applied')]] } as unknown as Task['record'];
  expect(redriven('deny', false, { record: found }, [own])).toBe('call');
  expect(redriven('deny', true, { record: told('order-1'), readBacks: 1, notApplied: true }, [own])).toBe('call');
});

test('what an earlier end says may have taken effect is no call of the owner that has its redrive in hand: its neighbours are not taken for called when it leaves', () => {
  const redrive = { redrive: 'order-1', offset: 9, parkedOffset: -1, attempts: 0, maybeSince: 0 };
  for (const [readable, record] of [[false, undefined], [true, undefined], [true, told('order-1')]] as const) {
    const task = { ...redrive, ...(record === undefined ? {} : { record }) } as Task;
    const answer = given('hold', readable, task, { windowMs: day, ended: yesterday }, task);
    expect(answer.kind).toBe('call');
    expect(coveredOnLeaving(5, undefined, [{ offset: 5, parkedOffset: -1, maybeSince: 0 }, task])).toBeUndefined();
    // Its own call is, since it was made.
    task.maybeSince = now - 10;
    expect(coveredOnLeaving(5, undefined, [task])).toEqual({ fromOffset: 5, toOffset: 10, at: now - 10 });
  }
});

test('a redrive that ends without a call leaves in doubt what was, whether its order resends or not: the next one goes under the same key', () => {
  const waited = { timestamp: now - 29 * day, headers: [[H.resend, Buffer.from('order-1')]] } as unknown as Task['record'];
  const kept = { state: 'dead-lettered', effect: 'maybe' };
  const redrive = (record: Task['record']): Task => ({ redrive: 'order-1', attempts: 0, maybeSince: 0, record }) as unknown as Task;
  const ended = (task: Task, options: Options) => {
    const answer = given('hold', false, task, { ended: yesterday, ...options }, task);
    if (answer.kind !== 'end') throw new Error(`it is to ${answer.kind}`);
    expect(endValue(answer.ending, now, 'o').maybeSince).toBe(answer.ending.effect === 'maybe' ? now - 20 * hour : 0);
    return answer.ending;
  };
  for (const headers of [[], waited.headers]) expect(ended(redrive({ ...waited, headers }), {})).toMatchObject({ ...kept, code: 'expiring' });
  expect(ended(redrive(told('order-1')), { retired: true })).toMatchObject({ ...kept, code: 'destination-retired' });
  expect(ended(redrive(told('order-1')), { acceptedAt: now - 70 * day })).toMatchObject({ state: 'expired', effect: 'maybe' });
  // Told by a person, who may be wrong.
  expect(ended(redrive({ ...waited, headers: [[H.verified, Buffer.from('not-applied')]] }), {})).toMatchObject({ code: 'expiring', effect: 'maybe' });
  // The vendor has answered.
  expect(ended({ ...redrive(told('order-1')), readBacks: 1, notApplied: true }, { retired: true })).toMatchObject({ code: 'destination-retired', effect: 'none' });
});

test('a replayed profile is superseded by one that was delivered a moment ago, before its end is acknowledged', () => {
  const replayed = { redrive: 'rpl_1', attempts: 0, maybeSince: 0 };
  const just = (over: Partial<EndValue>) => prepared('resend', false, replayed, { recordType: 'weir.canonical.Profile', recent: [{ state: 'delivered', operation: 'put', acceptedAt: now - 500, ...over }] });
  expect(just({})).toBe('end superseded superseded');
  expect(just({ acceptedAt: now - 2000 })).toBe('call');
  expect(just({ state: 'denied' })).toBe('call');
  expect(just({ operation: 'other' })).toBe('call');
});

test('what went to a second vendor before a crash is given over again, by the record that waits; an order for the first does not send it', () => {
  const ended: Partial<EndValue> = { state: 'failed-over', effect: 'none', code: 'vendor-unavailable', toDestination: 'two', toOperation: 'put', toKey: 'dlv_two' };
  const again = given('resend', false, { maybeSince: now - 1000 }, { ended });
  expect(again).toMatchObject({ kind: 'end', ending: { state: 'failed-over', handOver: { destination: 'two', operation: 'put', key: 'dlv_two' } } });
  const ordered = given('resend', false, { redrive: 'rpl_1', maybeSince: 0 }, { ended });
  expect(ordered).toMatchObject({ kind: 'end', ending: { state: 'failed-over', repeated: ended } });
  expect((ordered as { ending: object }).ending).not.toHaveProperty('handOver');
});

test('what consent allowed is asked again as soon as its tables changed, a grant expired or the subject was erased, and not before', () => {
  let [version, asked, erasedUntil, ok, until] = [7, 0, 0, true, now + 100];
  const ports = { consent: { version: () => version, allows: () => (asked++, ok ? { ok: true, until } : { ok: false, reason: 'consent-withdrawn' }) }, keys: { erasedUntil: () => erasedUntil } } as unknown as DestinationPorts;
  const task = { delivery: { purpose: 'news', ids: ['a'], acceptedAt: 1000 } } as unknown as Task;
  const refusal = (at = now): string | undefined => consentRefusal(ports, task, 'use', at);
  expect([refusal(), refusal(), refusal(now + 99), asked]).toEqual([undefined, undefined, undefined, 1]);
  expect([refusal(now + 100), asked]).toEqual([undefined, 2]);
  until = Infinity;
  version++;
  expect([refusal(), refusal(now + 1e9), asked]).toEqual([undefined, undefined, 3]);
  erasedUntil = 1000;
  expect(refusal()).toBe('subject-erased');
  erasedUntil = 0;
  ok = false;
  version++;
  expect([refusal(), refusal(), asked]).toEqual(['consent-withdrawn', 'consent-withdrawn', 5]);
  // Closed, as while the tables cannot be followed.
  ok = true;
  expect(refusal()).toBeUndefined();
  [version, ok] = [-1, false];
  expect(refusal()).toBe('consent-withdrawn');
});

test('what cannot be opened any more is denied where an erasure covers it, and a dead letter where none does', () => {
  const until = (erasedUntil: number, recordType?: string) => prepared('resend', false, { sealedBy: 'gone' }, { ...(recordType === undefined ? {} : { recordType }), keys: { has: () => false, erasedUntil: () => erasedUntil } as never });
  expect(until(now)).toBe('end denied subject-erased');
  expect(until(now - 1001)).toBe('end dead-lettered key-destroyed');
  expect(until(now - 1001, 'weir.canonical.Erasure')).toBe('end denied subject-erased');
});
