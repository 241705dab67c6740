import type { LogRecord, OutRecord } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import type { CompiledRoute, Decision, Minimiser } from '@weir/policy';
import type { Incident } from '@weir/release';
import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import { beforeEach, expect, test } from 'vitest';
import type { Canonical } from './delivery.ts';
import { Heads } from './heads.ts';
import { createDecisionWriter, createOutputs } from './write.ts';

const topics = topicNames('weir');
const route: CompiledRoute = { destination: 'crm', operation: 'send', on: 'Profile', kind: 'use', purpose: 'service', when: undefined };
const minimiser: Minimiser = { withheld: ['email'], changed: [], bytes: () => Buffer.from('cut'), record: (record) => ({ ...record, email: null }) };
const allow: Decision = { effect: 'allow', route, rule: 'all', consent: [], notBefore: null, minimiser };
const hold = (escalate: boolean): Decision => ({ effect: 'hold', route, rule: 'big', reason: escalate ? 'escalate:big' : 'approval:big', consent: [], expiresMs: 1000, escalate });
const canonical = Buffer.from([0, 0, 0, 0, 1, 42]);
const record: LogRecord = { offset: 9, timestamp: 1, key: Buffer.from('email:x'), value: canonical, headers: [[H.event, Buffer.from('evt_a')], [H.output, Buffer.from('out_a')], [H.approval, Buffer.from('old/send/x')]],
};
const from: Canonical = {
  record, heads: new Heads(record), bytes: canonical, partition: 4, name: 'weir.canonical.Profile', value: () => ({ email: 'a@b.example' }), eventId: 'evt_a', outputId: 'out_a', source: 'shop', acceptedAt: 5, intent: '0', ids: ['email:x'], now: 500, consentOffsets: [], identityOffsets: [], release: 'rel_a',
};

let incidents: Map<string, Incident>;
let write: ReturnType<typeof createDecisionWriter>;
beforeEach(() => {
  incidents = new Map();
  const counter = { inc: () => {} };
  const encode = (name: string, value: object): Buffer => Buffer.from(JSON.stringify({ name, ...value }));
  const serde = { encode, idOf: () => 1 };
  write = createDecisionWriter({ appender: { partitionFor: () => 0 }, metrics: { decisions: counter, deadLettered: counter }, context: { serde, topics, releases: { incidents: () => incidents } } } as never);
});
const releaseWith = (contract?: object) => ({ hash: 'rel_a', policy: { purposes: new Map([['service', { legalBasis: 'contract' }]]) }, destinations: new Map([['crm', { contract }]]) }) as never;
function written(decision: Decision, contract?: object, of = from): Record<string, any[]> {
  const outputs = createOutputs();
  write([decision], of, releaseWith(contract), outputs);
  return Object.fromEntries([...outputs.topics].map(([topic, records]) => [topic, records.map((r: OutRecord) => (topic === topics.dispatch('crm') ? delivered(r) : JSON.parse(r.value!.toString())))]));
}
const deliveries = avsc.Type.forSchema(loadSchemas().get('weir.internal.Delivery') as avsc.Schema);
const delivered = (record: OutRecord): any => deliveries.fromBuffer(record.value!.subarray(5));
const text = (of: Buffer | { data: number[] }): string => Buffer.from(Buffer.isBuffer(of) ? of : of.data).toString();

test('what is sent is the cut, not the record', () => {
  const out = written(allow);
  expect(Object.keys(out)).toEqual([topics.dispatch('crm')]);
  expect(text(out[topics.dispatch('crm')]![0].payload)).toBe('cut');
});

test('each destination gets its own cut of each record, whatever the one before got', () => {
  const cutting = (what: string): Minimiser => ({ ...minimiser, bytes: (bytes) => Buffer.concat([Buffer.from(what), bytes]) });
  const [less, more] = [cutting('less'), cutting('more')];
  const outputs = createOutputs();
  for (const value of ['a', 'b']) {
    const bytes = Buffer.concat([canonical, Buffer.from(value)]);
    write([less, less, more, less].map((of): Decision => ({ ...allow, minimiser: of })), { ...from, record: { ...record, value: bytes }, bytes }, releaseWith(), outputs);
  }
  const sent = outputs.topics.get(topics.dispatch('crm'))!.map((r) => text(delivered(r).payload));
  expect(sent.map((payload) => payload.slice(0, 4) + payload.slice(-1))).toEqual(['lessa', 'lessa', 'morea', 'lessa', 'lessb', 'lessb', 'moreb', 'lessb']);
});

test('the contract of the destination is asked about what would leave; a breach sets the whole delivery aside with every reason and sends nothing', () => {
  const asked: unknown[] = [];
  const contract = { check: (name: string, record: unknown) => {
    asked.push([name, record]);
    return [{ code: 'contract-breached', message: 'email is required', file: 'contracts/crm.yaml', line: 9, field: 'email' }, { code: 'contract-breached', message: 'plan is required' }];
  } };
  const out = written(allow, contract);
  expect(asked).toEqual([['weir.canonical.Profile', { email: null }]]);
  expect(Object.keys(out).sort()).toEqual([topics.dlq, topics.outcome]);
  expect(out[topics.dlq]![0]).toMatchObject({ stage: 'policy', destination: 'crm', operation: 'send', topic: topics.canonical, partition: 4, offset: 9, reasons: [{ message: 'email is required', file: 'contracts/crm.yaml', line: 9, field: 'email' }, { message: 'plan is required' }] });
  expect(text(out[topics.dlq]![0].value)).toBe(canonical.toString());
  expect(out[topics.outcome]![0]).toMatchObject({ state: 'dead-lettered', reason: 'contract-breached', detail: 'email is required; plan is required', destination: 'crm', key: expect.stringMatching(/^dlv_/) });
});

test('a contract that holds lets it through', () => {
  expect(Object.keys(written(allow, { check: () => [] }))).toEqual([topics.dispatch('crm')]);
});

test('a held delivery is a letter with rule and end, and a quarantined end; a repeated run gives the same letter', () => {
  const [first, again] = [written(hold(false)), written(hold(false), undefined, { ...from, now: 800 })];
  expect(Object.keys(first).sort()).toEqual([topics.dlq, topics.outcome]);
  expect(first[topics.outcome]![0]).toMatchObject({ state: 'quarantined', reason: 'approval:big', rule: 'big' });
  const header = first[topics.dlq]![0].headers.find((h: { name: string }) => h.name === H.held);
  expect(text(header.value)).toBe('big;1500');
  expect(again[topics.dlq]![0].id).toBe(first[topics.dlq]![0].id);
  expect(written(hold(false), undefined, { ...from, intent: 'replay_1' })[topics.dlq]![0].id).not.toBe(first[topics.dlq]![0].id);
});

test('an escalating rule raises one incident, not one for each delivery, and none while it is open', () => {
  expect(written(hold(true))[topics.control]).toEqual([expect.objectContaining({ destination: 'policy/big', since: 500, until: null })]);
  expect(written(hold(true))[topics.control]).toBeUndefined();
  expect(written(hold(true), undefined, { ...from, now: 60_000 })[topics.control]).toHaveLength(1);
  incidents.set('policy/big', { destination: 'policy/big', code: 'approval-required', since: 1, until: null });
  expect(written(hold(true), undefined, { ...from, now: 120_000 })[topics.control]).toBeUndefined();
});

const other = (over: Partial<Extract<Decision, { effect: 'allow' }>> = {}): Decision => ({ ...allow, second: { ...allow, route: { ...route, destination: 'crm-two' }, rule: 'two', notBefore: 900, ...over } as Decision });
const standbyOf = (decision: Decision, of = from): any => written(decision, undefined, of)[topics.dispatch('crm')]![0].standby;

test('what the second vendor would get stands in the delivery of the first, once where it is the same, and on no topic of its own', () => {
  expect(Object.keys(written(other()))).toEqual([topics.dispatch('crm')]);
  expect(standbyOf(allow)).toBeNull();
  expect(standbyOf(other())).toEqual({ destination: 'crm-two', operation: 'send', refused: null, rule: 'two', payload: null, notBefore: 900 });
  const cut = standbyOf(other({ minimiser: { ...minimiser, bytes: () => Buffer.from('less') } }));
  expect(text(cut.payload)).toBe('less');
});

test('the second vendor is refused with the reason: by policy, for a correction, and where both would be too large', () => {
  expect(standbyOf({ ...allow, second: { effect: 'deny', route: { ...route, destination: 'crm-two' }, rule: 'x', reason: 'rule:x', consent: [] } })).toMatchObject({ refused: 'rule:x', payload: null });
  expect(standbyOf(other(), { ...from, intent: 'fix_1' })).toMatchObject({ refused: 'correction' });
  expect(standbyOf(other({ minimiser: { ...minimiser, bytes: () => Buffer.alloc(1_000_000) } }))).toMatchObject({ refused: 'too-large', payload: null });
});

test('a second vendor whose contract the record would break is refused, the first gets it', () => {
  const outputs = createOutputs();
  const release = { hash: 'rel_a', policy: { purposes: new Map([['service', { legalBasis: 'contract' }]]) }, destinations: new Map([['crm-two', { contract: { check: () => [{ code: 'contract-breached', message: 'email is required' }] } }]]) };
  write([other()], from, release as never, outputs);
  expect(delivered(outputs.topics.get(topics.dispatch('crm'))![0]!).standby).toMatchObject({ refused: 'contract-breached' });
});

test('of a record that was put back nothing is written again of a delivery that a replay order does not send; of its others and of other records it is', () => {
  const heads = (headers: readonly (readonly [string, string])[]): Canonical => ({ ...from, heads: new Heads({ ...record, headers: [[H.output, Buffer.from('out_a')], ...headers.map(([name, value]) => [name, Buffer.from(value)] as const)] }) });
  const to = (destination: string, operation = 'send'): Decision => ({ ...allow, route: { ...route, destination, operation } });
  const noRoute: Decision = { effect: 'deny', route: undefined, rule: null, reason: 'no-route', consent: [] };
  const deny = (destination: string): Decision => ({ effect: 'deny', route: { ...route, destination }, rule: null, reason: 'consent-missing', consent: [] });
  const topicsOf = (of: Canonical): string[] => {
    const outputs = createOutputs();
    write([to('crm'), to('crm', 'tag'), to('mail'), deny('ads'), noRoute], of, releaseWith(), outputs);
    return [...outputs.topics].flatMap(([topic, { length }]) => Array.from({ length }, () => topic.slice('weir.'.length))).sort();
  };
  const all = ['dispatch.crm', 'dispatch.crm', 'dispatch.mail', 'outcome', 'outcome'];
  expect(topicsOf(heads([]))).toEqual(all);
  expect(topicsOf(heads([[H.settled, 'out_a/crm/send,out_b/mail/send']]))).toEqual(['dispatch.crm', 'dispatch.mail', 'outcome']);
  expect(topicsOf(heads([[H.settled, 'out_a/crm/send,out_a/crm/tag,out_a/ads/send']]))).toEqual(['dispatch.mail']);
  expect(topicsOf(heads([[H.settled, 'out_b/crm/send,out_b/ads/send']]))).toEqual(all);
  expect(topicsOf(heads([[H.settled, 'out_a/crm/send'], [H.only, 'crm']]))).toEqual(['dispatch.crm']);
  const erased: Decision = { effect: 'deny', route: undefined, rule: null, reason: 'subject-erased', consent: [] };
  for (const header of [[H.only, 'crm'], [H.settled, 'out_a/crm/send']] as const) expect(Object.keys(written(erased, undefined, heads([header])))).toEqual([topics.outcome]);
});
