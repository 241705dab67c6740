import type { ConsumerHandlers, LogRecord, OutRecord } from '@weir/log';
import { groupNames, H, topicNames } from '@weir/pipeline';
import { canonicalSchemas, compilePurposes, compileRoutes, compileRules } from '@weir/policy';
import type { Release } from '@weir/release';
import { createHandClock, createLocalSerde } from '@weir/testing';
import { parseYaml } from '@weir/yaml';
import { Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createMetrics } from './metrics.ts';
import type { PolicyPorts } from './ports.ts';
import { createStage } from './stage.ts';

const topics = topicNames('t');
const serde = await createLocalSerde();
const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  service: { legalBasis: contract, doc: Service. }\n' });
const operations = { send: { kind: 'use', accepts: ['weir.canonical.Profile'] } } as const;
/** Lacks a first name: the contract of mail. */
const contract = { check: (_name: string, record: { readonly firstName: string | null }) => (record.firstName === null ? [{ code: 'contract-breached', message: 'firstName is required' }] : []) };

/** Profiles go to crm and to mail, by these rules beside one that allows all. */
function releaseOf(rules: string, ofMail?: object): Release {
  const routes = ['crm', 'mail'].flatMap((destination) => {
    const file = { path: `destinations/${destination}.yaml`, content: 'routes:\n  - { on: Profile, operation: send, purpose: service }\n' };
    const yaml = parseYaml(file);
    return compileRoutes((yaml.value as { routes: never }).routes, destination, operations, purposes, file, yaml, []);
  });
  return {
    hash: 'rel_a', sources: new Map(), destinations: new Map<string, object>([['crm', { operations }], ['mail', { operations, contract: ofMail }]]),
    policy: { purposes, rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n  - { name: all, effect: allow }\n${rules}` }, purposes), routes: new Map([['Profile', routes]]) },
  } as unknown as Release;
}

const defaults = Object.fromEntries(canonicalSchemas().get('Profile')!.fields.map((field) => [field.name, 'default' in field ? field.default : null]));
interface Given { readonly event: string; readonly firstName?: string; readonly more?: Readonly<Record<string, string>> }
/** A record of weir.canonical about one person; `more`: what a replay order put on it. */
function recordOf({ event, firstName, more = {} }: Given, offset: number, at: number): LogRecord {
  const headers = { [H.event]: `evt_${event}`, [H.output]: `out_${event}`, [H.source]: 'shop', [H.accepted]: '1000', [H.hash]: 'h', [H.ids]: 'email:x', ...more };
  return {
    offset, timestamp: at, key: Buffer.from('email:x'), value: serde.encode('weir.canonical.Profile', { ...defaults, id: 'o', source: 'shop', occurredAt: 5, email: 'ann@larkspur.example', firstName: firstName ?? null }),
    headers: Object.entries(headers).map(([name, text]) => [name, Buffer.from(text)] as const),
  };
}

/** Deliveries that are on each dispatch topic when the partition is assigned; their read waits until `open` has resolved. */
interface Before { readonly records: (now: number) => readonly LogRecord[]; readonly open: (written: readonly string[], reason: () => string | undefined) => Promise<void> }

/** What a stage that owns the one partition makes of these records: deliveries and other ends, in the order of their text. */
async function decided(release: Release, given: readonly Given[], before?: Before): Promise<readonly string[]> {
  const clock = createHandClock(Date.UTC(2026, 0, 1));
  const written: string[] = [];
  const failed = Promise.withResolvers<never>();
  const committed = Promise.withResolvers<void>();
  const opened = Promise.withResolvers<void>();
  const found = before?.records(clock.now()) ?? [];
  let handlers: ConsumerHandlers | undefined;
  const stage = createStage({
    context: {
      topics, groups: groupNames('t'), serde, clock, workspaceKey: Buffer.alloc(32), releases: { current: () => release, incidents: () => new Map() }, logger: { error() {}, info() {} },
      log: {
        reader: async () => ({ read: async (_topic: string, _partition: number, _from: number, to: number, take: (batch: object) => void) => { await opened.promise; take({ records: found, nextOffset: to }); }, close: async () => {} }),
        consumer: (options: { handlers: ConsumerHandlers }) => {
          handlers = options.handlers;
          return { close: async () => {}, commit: async ([part]: readonly { readonly offset: number }[]) => { if (part!.offset === given.length) committed.resolve(); } };
        },
      },
    },
    appender: {
      partitions: async () => 1, partitionFor: () => 0,
      append: async (topic: string, records: readonly OutRecord[]) => {
        for (const { value } of records) {
          const { name, value: of } = serde.decode(value!) as { readonly name: string; readonly value: Readonly<Record<string, string | null>> };
          if (name === 'weir.internal.Delivery') written.push(`${of['eventId']} to ${of['destination']}`);
          else if (topic === topics.outcome) written.push(`${of['eventId']} not to ${of['destination']}: ${of['reason']}`);
        }
        return records.map(() => 0);
      },
    },
    admin: { partitions: async () => 1, offsetsAt: async () => new Map(before === undefined ? [] : [[0, 0]]), endOffsets: async () => new Map([[0, found.length]]) },
    tables: {
      onAdvance() {}, readToEnd: async () => {}, caughtUp: () => true, consentPositions: () => [0], identityPositions: () => [0], identityPosition: () => 0, folded: () => 0,
      linked: (ids: readonly string[]) => ids, check: () => ({ ok: true, seen: [] }), regions() {},
    },
    metrics: createMetrics(new Registry()), progress: { lag() {}, committed() {} }, retention: { expiringBefore: () => 0, oldest() {} },
    fail: (error: unknown) => { failed.reject(error as Error); }, windowRecords: 1000, windowBytes: 1_000_000,
  } as unknown as PolicyPorts);
  await handlers!.assigned([{ topic: topics.canonical, partition: 0, epoch: 1, position: 0 }]);
  const records = given.map((one, offset) => recordOf(one, offset, clock.now()));
  handlers!.batch({ topic: topics.canonical, partition: 0, epoch: 1, records, nextOffset: records.length, highWatermark: records.length });
  await before?.open(written, stage.lacks);
  opened.resolve();
  await Promise.race([committed.promise, failed.promise]);
  await stage.stop();
  return written.sort();
}

const once = (where: string): string => `  - { name: once, effect: limit, when: ${where}, limit: { count: 1, per: 1d } }\n`;

test.each<[string, Readonly<Record<string, string>>]>([
  ['to another destination', { [H.intent]: 'rpl_a', [H.only]: 'crm' }],
  ['that has ended', { [H.intent]: 'rpl_a', [H.settled]: 'out_1/mail/send' }],
])('a delivery %s, which a replay order leaves out, takes nothing of a limit: what is live is delivered', async (_what, more) => {
  expect(await decided(releaseOf(once('destination == "mail"')), [{ event: '1', more }, { event: '2' }, { event: '3' }])).toEqual(['evt_1 to crm', 'evt_2 to crm', 'evt_2 to mail', 'evt_3 not to mail: limit:once', 'evt_3 to crm']);
});

test('a delivery that the contract of its destination stops takes nothing of a limit', async () => {
  const given: readonly Given[] = [{ event: '1' }, { event: '2', firstName: 'Ann' }, { event: '3', firstName: 'Ann' }];
  expect(await decided(releaseOf(once('destination == "mail"'), contract), given)).toEqual(['evt_1 not to mail: contract-breached', 'evt_1 to crm', 'evt_2 to crm', 'evt_2 to mail', 'evt_3 not to mail: limit:once', 'evt_3 to crm']);
});

test('what one limit refuses takes nothing of another', async () => {
  const rules = `  - { name: twice, effect: limit, limit: { count: 2, per: 1d } }\n${once('destination == "crm"')}`;
  // Of the two of a day one goes to crm; what crm may not have of the next record is left for mail.
  expect(await decided(releaseOf(rules), [{ event: '1', more: { [H.intent]: 'rpl_a', [H.only]: 'crm' } }, { event: '2' }])).toEqual(['evt_1 to crm', 'evt_2 not to crm: limit:once', 'evt_2 to mail']);
});

test('deliveries that are longer to read than a handler may take hold up no group: nothing is decided before it is known what limits have counted', async () => {
  const reasons: (string | undefined)[] = [];
  const ends = await decided(releaseOf(once('destination == "mail"')), [{ event: '2' }], {
    records: (now) => [{ offset: 0, timestamp: now, key: Buffer.from('email:x'), value: null, headers: ([[H.output, 'out_1'], [H.limits, `${now};send;once`]] as const).map(([name, text]) => [name, Buffer.from(text)] as const) }],
    async open(written, reason) {
      for (let turn = 0; turn < 20; turn++) await new Promise((done) => { setImmediate(done); });
      expect(written).toEqual([]);
      reasons.push(reason());
    },
  });
  expect(ends).toEqual(['evt_2 not to mail: limit:once', 'evt_2 to crm']);
  expect(reasons).toEqual([`reading what limit rules have counted of ${topics.dispatch('mail')}/0: 0 of 1 records are read`]);
});
