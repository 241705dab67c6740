import type { Adapter } from '@weir/adapter';
import { Packer, type OutRecord } from '@weir/log';
import { H, topicNames } from '@weir/pipeline';
import { canonicalSchemas, decide } from '@weir/policy';
import { compileRelease, nothing, parseGrant, type Principal, type Release, type Scope } from '@weir/release';
import { createLocalSerde } from '@weir/testing';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { createApi, type ApiPorts } from '../../services/control/api.ts';
import { parseRequest, scopeOfOrder, type ReplayOrder, type ReplayRequest } from '../../services/control/replay/order.ts';
import { createRecords, recordOf } from '../../services/control/replay/put-back.ts';
import { createSelector, goesBack, type SelectPorts } from '../../services/control/replay/select.ts';
import type { Canonical } from '../../services/policy/delivery.ts';
import { Heads } from '../../services/policy/heads.ts';
import { createDecisionWriter, createOutputs } from '../../services/policy/write.ts';

/** What an order that a scope allows puts back, and what the policy stage makes of that, by the code of both. */
const serde = await createLocalSerde();
const topics = topicNames('t');
const names = ['crm', 'news', 'ads'] as const;
type Name = (typeof names)[number];
const put = { kind: 'use', accepts: ['weir.canonical.Profile'], idempotency: { scheme: 'natural-upsert', pastWindow: 'hold' } };
const sink = { manifest: { name: 'sink', title: 'Sink', docs: '', apiVersion: '1', destination: { config: {}, operations: { put } } }, destination: {} } as unknown as Adapter;

const releases = new Map<string, Release>();
/** A release that lets the record go to `lets`; the contracts of `breaks` refuse it. */
function release(lets: readonly Name[], breaks: readonly Name[] = []): Release {
  const known = releases.get(lets.join());
  const files = {
    'weir.yaml': 'name: acme\n', 'purposes.yaml': 'purposes:\n  service: { legalBasis: contract, doc: S. }\n',
    'policies/a.yaml': `rules:\n  - { name: all, effect: allow, when: 'destination in [${lets.map((name) => `"${name}"`).join(', ')}]' }\n`,
    ...Object.fromEntries(names.map((name) => [`destinations/${name}.yaml`, 'adapter: sink\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n'])),
  };
  const made = known ?? compileRelease(Object.entries(files).map(([path, content]) => ({ path, content })), { adapters: new Map([['sink', sink]]) });
  releases.set(lets.join(), made);
  const contract = (name: string) => ({ check: () => (breaks.includes(name as Name) ? [{ code: 'contract-breached', message: 'phone is missing' }] : []) });
  return { ...made, sources: new Map([['shop', {}]]), destinations: new Map([...made.destinations].map(([name, d]) => [name, { ...d, contract: contract(name) }])) } as unknown as Release;
}

const empty = Object.fromEntries(canonicalSchemas().get('Profile')!.fields.map(({ name }) => [name, null]));
const bytes = serde.encode('weir.canonical.Profile', { ...empty, id: 'o', source: 'shop', occurredAt: 5, externalIds: [], attributes: {}, email: 'ann@larkspur.example' });
const hex = (c: string): string => c.repeat(32);
const headers = Object.entries({ [H.event]: `evt_${hex('a')}`, [H.output]: `out_${hex('a')}`, [H.source]: 'shop', [H.accepted]: '1000', [H.hash]: 'h', [H.ids]: 'email:x' }).map(([name, text]) => [name, Buffer.from(text)] as const);

const counter = { inc: () => undefined };
const write = createDecisionWriter({ appender: { partitionFor: () => 0 }, metrics: { decisions: counter, deadLettered: counter }, context: { serde, topics, releases: { incidents: () => new Map() } } } as never);

/** What the policy stage writes of a canonical record, by topic. */
function decided(by: Release, { headers = [], ...rest }: OutRecord): Map<string, readonly OutRecord[]> {
  const outputs = createOutputs();
  const record = { offset: 9, timestamp: 1, key: rest.key, value: rest.value, headers };
  const heads = new Heads(record);
  const value = (): any => serde.decode(rest.value!).value;
  const decisions = decide(by.policy, { recordName: 'Profile', record: value(), source: 'shop', key: 'email:x', ids: ['email:x'], regions: () => [], eventId: heads.eventId, acceptedAt: 1000 } as never, { now: 2000, take: () => true, consent: () => ({ ok: true, seen: [] }) });
  const from: Canonical = { record, heads, bytes: rest.value!, partition: 0, name: 'weir.canonical.Profile', value, eventId: heads.eventId, outputId: heads.outputId, source: 'shop', acceptedAt: 1000, intent: '0', ids: ['email:x'], now: 2000, consentOffsets: [], identityOffsets: [], release: by.hash };
  write(decisions, from, by, outputs);
  return outputs.topics;
}
const sentTo = (written: ReadonlyMap<string, readonly OutRecord[]>): Name[] => names.filter((name) => written.has(topics.dispatch(name)));

const orderId = 'rpl_00000000-0000-4000-8000-000000000000';
let principal: Principal;
let letterScope: (id: string) => Scope;
let add: (request: ReplayRequest, by: unknown, touches: Scope | undefined) => Promise<object>;
/** The last one, as weir.control has it. */
let stored: ReplayOrder | undefined;
const api = createApi({
  authenticate: async () => principal, audit: () => ({ record: async () => 'leaf_x' }), endFailed: () => undefined, unexpected: (error: unknown) => { throw error; },
  replays: { add: (...order: Parameters<typeof add>) => add(...order), letterScope: (id: string) => letterScope(id), scope: (id: string) => (id === stored?.id ? scopeOfOrder(stored) : nothing), view: async () => ({}), change: async () => ({}) }, access: {}, releases: {},
} as unknown as ApiPorts);
afterAll(() => api.close());

interface Run { readonly status: number; readonly sent: readonly Name[]; readonly shown: readonly string[]; readonly intents: readonly string[] }

/** An order over the API by this grant, of the letters that policy wrote under `then`: what it sends under `now`. */
async function ordered(then: Release, now: Release, grant: string, order: Omit<ReplayRequest, 'from'>, of: (letters: readonly any[]) => readonly any[] = (all) => all): Promise<Run> {
  const letters = (decided(then, { partition: 0, key: Buffer.from('email:x'), value: bytes, headers }).get(topics.dlq) ?? []);
  const known = new Map(letters.map(({ value }) => serde.decode(value!).value as any).map((letter) => [letter.id as string, letter] as const));
  const run = { sent: new Set<Name>(), shown: [] as string[], intents: [] as string[] };
  const ports = {
    serde, topics, release: () => now, workspaceKey: Buffer.alloc(32), keys: undefined, tables: { linked: (ids: readonly string[]) => ids, check: () => ({ ok: true, seen: [] }), regions: () => undefined }, open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined,
    canonicalOf: async () => [], decidedLater: () => false, endedAs: () => undefined, now: () => 2000,
    standing: { end: () => undefined, newest: () => undefined, objectOf: () => '', deliveryState: () => 'dead-lettered', allows: () => true, destination: (name: string) => now.destinations.get(name), oldestSent: () => 1e12, mayRead: () => true },
  } as unknown as SelectPorts;
  add = async (request, _by, touches) => {
    const replay: ReplayOrder = { ...parseRequest(request, now, Buffer.alloc(32), 2000, () => true, touches), id: orderId, at: 2000, by: 'token:t', leaf: 'leaf_x', range: [] };
    stored = serde.decode(serde.encode('weir.internal.ReplayOrder', replay)).value as ReplayOrder;
    const items = await createSelector(ports, replay).take(letters.map(({ key, value }, offset) => ({ topic: topics.dlq, partition: 0, record: { offset, timestamp: 1500, key, value, headers: [] } as never })));
    const back = items.filter((item) => goesBack(item, replay));
    run.shown.push(...back.flatMap((item) => item.deliveries.map((d) => d.facts.destination)).sort());
    const make = createRecords(replay);
    const packer = new Packer();
    for (const item of back) {
      const { key, value, headers, partition } = make(packer, item);
      expect([...headers!]).toEqual(recordOf(replay, item).headers);
      for (const name of sentTo(decided(now, { partition, key, value, headers }))) run.sent.add(name);
      run.intents.push(item.only ?? '*');
    }
    return {};
  };
  principal = { id: 'token:t', grants: [parseGrant(grant)] };
  letterScope = (id) => (known.has(id) ? { sources: [known.get(id).source], destinations: [known.get(id).destination] } : nothing);
  const ids = of([...known.values()]).map((letter) => letter.id as string);
  const { statusCode } = await api.inject({ method: 'POST', url: '/v1/replays', headers: { authorization: 'Bearer t' }, payload: { from: 'dlq', ids, ...order } });
  return { status: statusCode, sent: [...run.sent], shown: run.shown, intents: run.intents };
}
const letterOf = (name: Name) => (all: readonly any[]) => all.filter((letter) => letter.destination === name);

test('the letter of one destination goes to that one, by whomever it is ordered, also where policy lets its record go elsewhere since', async () => {
  // Denied to news then, and ads was not there: both are open now.
  const [then, now] = [release(['crm'], ['crm']), release(['crm', 'news', 'ads'])];
  for (const grant of ['operator@shop:crm', 'operator']) for (const order of [{}, { destination: 'crm' }]) {
    expect([grant, order, await ordered(then, now, grant, order)]).toEqual([grant, order, { status: 200, sent: ['crm'], shown: ['crm'], intents: ['crm'] }]);
  }
  expect(await ordered(then, now, 'operator@shop:news', {})).toEqual({ status: 403, sent: [], shown: [], intents: [] });
});

test('letters of one record and several destinations each go back, for their own', async () => {
  const [then, now] = [release([...names], ['crm', 'ads']), release([...names])];
  expect(await ordered(then, now, 'operator@shop:crm/ads', {})).toEqual({ status: 200, sent: ['crm', 'ads'], shown: ['ads', 'crm'], intents: ['crm', 'ads'] });
  expect(await ordered(then, now, 'operator@shop:crm', {}, letterOf('crm'))).toMatchObject({ status: 200, sent: ['crm'] });
  expect(await ordered(then, now, 'operator@shop:crm', {})).toMatchObject({ status: 403, sent: [] });
});

test('who ordered letters within his scope sees the order and starts it; others do not, and one without its letters\' scope, of an earlier version, is as it was', async () => {
  const [then, now] = [release(['crm'], ['crm']), release(['crm', 'news'])];
  const asks = async (grant: string): Promise<number[]> => {
    principal = { id: 'token:t', grants: [parseGrant(grant)] };
    const [path, headers] = [`/v1/replays/${orderId}`, { authorization: 'Bearer t' }];
    return [(await api.inject({ url: path, headers })).statusCode, (await api.inject({ method: 'POST', url: `${path}/start`, headers })).statusCode];
  };
  for (const order of [{}, { destination: 'crm' }]) {
    await ordered(then, now, 'operator@shop:crm', order);
    expect([await asks('operator@shop:crm'), await asks('operator@shop/blog:*'), await asks('operator@shop:news'), await asks('operator@blog:crm')]).toEqual([[200, 200], [200, 200], [403, 403], [403, 403]]);
  }
  stored = { ...stored!, touches: null };
  expect([await asks('operator@*:crm'), await asks('operator@shop:crm')]).toEqual([[200, 200], [403, 403]]);
});

test('a letter that nobody knows may be of anybody', async () => {
  const [then, now] = [release(['crm'], ['crm']), release(['crm'])];
  const ids = [`dlq_${hex('f')}`];
  expect(await ordered(then, now, 'operator@shop:crm', { ids, destination: 'crm' })).toMatchObject({ status: 403 });
  expect(await ordered(then, now, 'operator@*:crm', { ids, destination: 'crm' })).toMatchObject({ status: 200, sent: [] });
});

test('what an order sends is within what its orderer may, and what its preview shows', async () => {
  const some = fc.subarray([...names]);
  await fc.assert(fc.asyncProperty(fc.record({ lets: fc.subarray([...names], { minLength: 1 }), breaks: some, later: fc.subarray([...names], { minLength: 1 }), granted: fc.subarray([...names], { minLength: 1 }), of: fc.subarray([...names], { minLength: 1 }) }), async ({ lets, breaks, later, granted, of }) => {
    const [then, now] = [release(lets, breaks), release(later)];
    const letters = lets.filter((name) => breaks.includes(name) && of.includes(name));
    const { status, sent, shown } = await ordered(then, now, `operator@shop:${granted.join('/')}`, letters.length === 0 ? { ids: [`dlq_${hex('f')}`] } : {}, (all) => all.filter((letter) => of.includes(letter.destination)));
    const allowed = letters.length > 0 && letters.every((name) => granted.includes(name));
    const open = letters.filter((name) => later.includes(name));
    expect([status, [...sent].sort(), shown]).toEqual(allowed ? [200, [...open].sort(), [...open].sort()] : [403, [], []]);
  }), { numRuns: 60 });
});
