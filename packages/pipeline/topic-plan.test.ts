import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WorkspaceError } from '@weir/errors';
import { expect, test } from 'vitest';
import { checkArithmetic, compareTopics, planTopics } from './topic-plan.ts';

const file = { path: 'infra/topics.yaml', content: readFileSync(join(import.meta.dirname, '../../infra/topics.yaml'), 'utf8') };
const day = 86_400_000;
const scope = { sources: new Map([['shop', { dedupeWindowMs: 7 * day }], ['crm', { dedupeWindowMs: 3 * day }]]), destinations: new Map([['mail', { retryHorizonMs: 3 * day }]]) };
const plan = planTopics(file, scope, { prefix: 'acme', brokers: 1 });
const named = (name: string) => plan.find((t) => t.name === name)!;

test('every topic of the release is planned, durations in milliseconds, under the prefix', () => {
  expect(plan.map((t) => t.name).sort()).toEqual(['acme.audit', 'acme.canonical', 'acme.consent', 'acme.consent.applied', 'acme.consent.changes', 'acme.control', 'acme.dispatch.mail', 'acme.dlq', 'acme.identity', 'acme.keys', 'acme.ledger.mail', 'acme.outcome', 'acme.parked.mail', 'acme.raw.crm', 'acme.raw.shop']);
  expect(named('acme.raw.shop')).toMatchObject({ partitions: 6, replicationFactor: 1, config: { 'cleanup.policy': 'delete', 'retention.ms': String(7 * day), 'min.insync.replicas': '1', 'max.message.bytes': '2097152' } });
  // A broker that compresses anew makes other batches of what was written: what fits into a request may grow.
  expect(plan.every(({ config }) => config['compression.type'] === 'producer')).toBe(true);
  expect(named('acme.control').partitions).toBe(1);
  expect(planTopics(file, scope, { prefix: 'acme', brokers: 3 })[0]).toMatchObject({ replicationFactor: 3, config: { 'min.insync.replicas': '2' } });
});

test('the shipped file keeps its own rule; a ledger too short for the retention in force is found', () => {
  expect(checkArithmetic(file, scope, 'acme')).toEqual([]);
  const short = { ...file, content: file.content.replace('75d', '39d') };
  expect(checkArithmetic(short, scope, 'acme')).toMatchObject([{ topic: 'acme.ledger.mail', message: expect.stringContaining('needs 47 d') }]);
  expect(checkArithmetic(file, scope, 'acme', (topic) => (topic === 'acme.raw.crm' ? 60 * day : undefined))).toHaveLength(1);
  expect(checkArithmetic(file, scope, 'acme', (topic) => (topic === 'acme.dlq' ? -1 : undefined))).toHaveLength(1);
});

test('the rules are checked with what the workspace says, not with a constant', () => {
  const found = (over: object) => checkArithmetic(file, { ...scope, ...over }, 'acme').map((f) => f.topic);
  expect(found({ sources: new Map([['shop', { dedupeWindowMs: 8 * day }]]) })).toEqual(['acme.raw.shop']);
  expect(found({ destinations: new Map([['ads', { retryHorizonMs: day }], ['mail', { retryHorizonMs: 31 * day }]]) })).toEqual(['acme.dispatch.mail', 'acme.parked.mail']);
  expect(found({ destinations: new Map([['mail', { retryHorizonMs: 50 * day }], ['ads', { retryHorizonMs: day }]]) })).toEqual(['acme.ledger.mail', 'acme.dispatch.mail', 'acme.parked.mail']);
  // What the first vendor tried for its whole horizon comes to the second after that; its topic does not keep it longer.
  const seconds = new Map([['Profile/send', { destination: 'mail' }]]);
  expect(found({ destinations: new Map([['ads', { retryHorizonMs: 20 * day, seconds }], ['mail', { retryHorizonMs: 20 * day }]]) })).toEqual(['acme.ledger.mail']);
  expect(() => checkArithmetic({ ...file, content: file.content.replace('arithmetic:\n', 'arithmetic:\n  retryHorizon: 3d\n') }, scope, 'acme')).toThrow(WorkspaceError);
});

test('what differs in the cluster is named, what is the same in other words is not', () => {
  const same = plan.map((t) => ({ ...t, exists: true, config: { ...t.config, 'cleanup.policy': t.config['cleanup.policy']!.split(',').reverse().join(',') } }));
  expect(compareTopics(plan, same)).toEqual([]);
  const found = same.filter((t) => t.name !== 'acme.dlq').map((t) => (t.name === 'acme.outcome' ? { ...t, partitions: 3, config: { ...t.config, 'retention.ms': '1' } } : t));
  expect(compareTopics(plan, found).map((f) => [f.topic, f.message])).toEqual([['acme.outcome', expect.stringContaining('partitions')], ['acme.outcome', expect.stringContaining('retention.ms is 1')], ['acme.dlq', 'is missing']]);
});

test.each([['7 days', 'retention.ms: 7d', 'retention.ms: 7 days'], ['a rule over an unknown topic', 'dedupeWindow + dlq', 'dedupeWindow + nope'], ['no partitions', 'partitions: 6', 'partitions: 0']])('%s is refused with its line', (_name, from, to) => {
  try {
    planTopics({ ...file, content: file.content.replace(from, to) }, scope, { prefix: 'acme', brokers: 1 });
    expect.unreachable('it was accepted');
  } catch (error) {
    expect(error).toBeInstanceOf(WorkspaceError);
    expect((error as WorkspaceError).problems[0]!.line).toBeGreaterThan(1);
  }
});
