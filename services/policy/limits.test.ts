import { WeirError } from '@weir/errors';
import type { LogRecord } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { compileRules, createLimits, type CompiledRoute, type CompiledRule } from '@weir/policy';
import type { Release } from '@weir/release';
import { expect, test } from 'vitest';
import { countOnce, readTaken, takenBefore, type TakenSlot } from './limits.ts';
import type { PolicyPorts } from './ports.ts';

const topics = topicNames('t');
const now = Date.UTC(2026, 0, 1, 12);
const rules = compileRules({ path: 'policies/a.yaml', content: 'rules:\n  - { name: few, effect: limit, when: destination == "crm", limit: { count: 1, per: 1d } }\n  - { name: many, effect: limit, limit: { count: 100000, per: 1d } }\n' }, new Map());
const [few, many] = rules as [CompiledRule, CompiledRule];
const route = (destination: string): CompiledRoute => ({ destination, operation: 'send', on: 'Profile', kind: 'use', purpose: 'service', when: undefined });
const release = { destinations: new Map([['crm', {}], ['mail', {}]]), policy: { purposes: new Map(), rules, routes: new Map([['Profile', [route('crm'), route('mail')]]]) } } as unknown as Release;

/** As it stands on a dispatch topic; `at`: when it was decided. */
function delivery(output: string, at: number, order = ''): LogRecord {
  const headers = { [H.output]: output, [H.intent]: order, [H.limits]: `${at};send;few` };
  return { offset: 0, timestamp: at, key: Buffer.from('email:x'), value: null, headers: Object.entries(headers).filter(([, text]) => text !== '').map(([name, text]) => [name, Buffer.from(text)] as const) };
}

/** Slots that a new owner of the one partition finds, where these deliveries stand on the topic of crm. */
async function found(records: readonly LogRecord[]): Promise<readonly TakenSlot[]> {
  const reader = { read: async (topic: string, _partition: number, _from: number, to: number, take: (batch: object) => void) => { take({ records: topic === topics.dispatch('crm') ? records : [], nextOffset: to }); }, close: async () => {} };
  const ports = {
    context: { topics, clock: { now: () => now }, log: { reader: async () => reader } },
    admin: { offsetsAt: async () => new Map([[0, 0]]), endOffsets: async () => new Map([[0, records.length]]) },
    appender: { partitions: async () => 1, partitionFor: () => 0 },
  } as unknown as PolicyPorts;
  return (await readTaken(ports, release, new Set([0]))).get(0)!;
}
const told = (slots: readonly TakenSlot[]): string[] => slots.map(({ rule, output, order, at }) => `${rule.name} ${output} ${order} ${now - at}`);

test('what was decided once more after a crash, at another time, is one slot', async () => {
  expect(told(await found([delivery('out_1', now - 900), delivery('out_1', now - 20), delivery('out_2', now - 20)]))).toEqual(['few out_1  900', 'few out_2  20']);
});

test('a delivery that was put back is one slot with its copies, also with those of what a crash had decided once more; what an order decided anew has one of its own', async () => {
  const before = [delivery('out_1', now - 900), delivery('out_1', now - 800)];
  const copies = [delivery('out_1', now - 900, 'rpl_a'), delivery('out_1', now - 800, 'rpl_b')];
  expect(told(await found([...before, ...copies]))).toEqual(['few out_1  900']);
  expect(told(await found([...before, ...copies, delivery('out_1', now - 30, 'rpl_c'), delivery('out_1', now - 10, 'rpl_c')]))).toEqual(['few out_1  900', 'few out_1 rpl_c 30']);
});

test('partitions that wait for brokers say so once, and each is asked for until it is read', async () => {
  const told: unknown[] = [];
  const open = new Set<string>();
  const seen: number[] = [];
  let away = 3;
  const ports = {
    context: { topics, clock: { now: () => now, setTimer: (call: () => void) => { setImmediate(call); } }, log: { reader: async () => ({ close: async () => {} }) }, logger: { warn: (of: object) => { told.push(of); } }, releases: { current: () => release } },
    admin: {
      offsetsAt: async () => {
        seen.push(open.size);
        if (away-- > 0) throw new WeirError('log-unavailable', 'no broker answers');
        return new Map();
      },
      endOffsets: async () => new Map(),
    },
    appender: { partitions: async () => 1, partitionFor: () => 0 },
  } as unknown as PolicyPorts;
  const loads = { begin: (topic: string, partition: number) => {
    open.add(`${topic}/${partition}`);
    return { at: () => undefined, end: () => { open.delete(`${topic}/${partition}`); } };
  }, reason: () => undefined };
  const taken = await takenBefore(ports, new Set([0, 1]), () => false, loads);
  expect([[...taken!.keys()], seen.every((size) => size === 2), open.size]).toEqual([[0, 1], true, 0]);
  expect(told).toMatchObject([{ err: { code: 'log-unavailable' }, partitions: [0, 1] }]);
});

test('what was decided last before a restart has its slot, however many were taken at a destination that is read after it', () => {
  const slot = (rule: CompiledRule, destination: string, output: string, at: number): TakenSlot => ({ rule, key: 'email:x', at, destination, operation: 'send', output, order: '' });
  const older = Array.from({ length: 10_000 }, (_, i) => slot(many, 'mail', `out_${i}`, now - 20_000 + i));
  const counter = countOnce(createLimits(), [slot(few, 'crm', 'out_last', now - 1), ...older], now);
  const takes = (output: string): boolean => {
    counter.begin(output, '', undefined);
    return counter.take(few, 'email:x', now, route('crm'));
  };
  expect([takes('out_last'), takes('out_next')]).toEqual([true, false]);
});

test('a refusal is the answer for an output whether it was asked for or tried, and duplicates get it, too', () => {
  const counter = countOnce(createLimits(), [], now);
  const [crm, next] = [route('crm'), now + 86_400_000];
  counter.begin('out_1', '', undefined);
  expect([counter.has(few, 'email:x', now, crm), counter.take(few, 'email:x', now, crm)]).toEqual([true, true]);
  counter.begin('out_2', '', undefined);
  expect([counter.has(few, 'email:x', now, crm), counter.take(few, 'email:x', next, crm), counter.has(few, 'email:x', next, crm)]).toEqual([false, false, false]);
  counter.begin('out_1', '', undefined);
  expect([counter.has(few, 'email:x', now, crm), counter.take(few, 'email:x', now, crm)]).toEqual([true, true]);
});

test('a slot of what is not sent is free again, but for one that the same output had taken before', () => {
  const counter = countOnce(createLimits(), [], now);
  const crm = route('crm');
  const takes = (output: string): boolean => {
    counter.begin(output, '', undefined);
    return counter.take(few, 'email:x', now, crm);
  };
  expect(takes('out_1')).toBe(true);
  counter.stopped(route('mail'));
  counter.stopped(crm);
  counter.stopped(crm);
  expect([takes('out_2'), takes('out_3')]).toEqual([true, false]);
  expect(takes('out_2')).toBe(true);
  counter.stopped(crm);
  expect(takes('out_4')).toBe(false);
});
