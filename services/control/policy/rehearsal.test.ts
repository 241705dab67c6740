import { compilePurposes, compileRoutes, compileRules, fieldUses, standardRegions, type Decision, type FieldTerms, type Subject } from '@weir/policy';
import type { Release } from '@weir/release';
import { parseYaml } from '@weir/yaml';
import { beforeEach, expect, test } from 'vitest';
import type { History, Recorded } from './history.ts';
import { createRehearsals, tallyFlips, type Rehearsal } from './rehearsal.ts';

const route = (destination: string) => ({ destination, operation: 'send', on: 'Profile', kind: 'use' as const, when: undefined });
const allow = (destination: string): Decision => ({ effect: 'allow', route: route(destination), rule: 'all', consent: [], notBefore: null, minimiser: {} as never });
const deny = (destination: string, reason: string, rule: string | null = null): Decision => ({ effect: 'deny', route: route(destination), rule, reason, consent: [] });
const hold = (destination: string): Decision => ({ effect: 'hold', route: route(destination), rule: 'big', reason: 'approval:big', consent: [], expiresMs: 1, escalate: false });
const recorded = (destination: string | null, effect: string, reason: string | null = null): Recorded => ({ destination, operation: destination === null ? null : 'send', effect, reason, rule: null, release: 'rel_a', at: 1, consent: [], outputId: 'out_a' });

let flips: Map<string, { count: number; readonly examples: string[] }>;
beforeEach(() => { flips = new Map(); });
const told = (...given: Parameters<typeof tallyFlips> extends [unknown, unknown, ...infer Rest] ? Rest : never): string[] => {
  tallyFlips({ flips }, 'evt_a', ...given);
  return [...flips].map(([key, { count }]) => `${count} ${key.split('\0').join('|')}`);
};

test('what is decided as it was recorded is no flip, whatever the running release says', () => {
  expect(told([recorded('crm', 'allow'), recorded('mail', 'deny', 'rule:x')], [deny('crm', 'rule:y')], [allow('crm'), deny('mail', 'rule:x', 'x')])).toEqual([]);
});
test('a flip names destination, what was, what would be, and the rule', () => {
  expect(told([recorded('crm', 'allow')], [], [deny('crm', 'rule:new', 'new')])).toEqual(['1 crm|send|allow|deny rule:new|new']);
  expect(told([recorded('crm', 'allow')], [], [deny('crm', 'rule:new', 'new')])).toEqual(['2 crm|send|allow|deny rule:new|new']);
});
test('a route that is gone, and one that is new, are flips', () => {
  expect(told([recorded('crm', 'allow')], [], [allow('mail')]).sort()).toEqual(['1 crm|send|allow|none|', '1 mail|send|none|allow|all']);
});
test('without a recorded decision the running release is the measure', () => {
  expect(told([], [allow('crm')], [deny('crm', 'no-allow-rule')])).toEqual(['1 crm|send|allow|deny no-allow-rule|']);
});
test('what an approver decided on a held delivery is not taken for a decision of the rules', () => {
  expect(told([recorded('crm', 'hold', 'approval:big'), recorded('crm', 'allow')], [], [hold('crm')])).toEqual([]);
  expect(told([recorded('crm', 'hold', 'approval:big'), recorded('crm', 'deny', 'approval-refused')], [], [hold('crm')])).toEqual([]);
  expect(told([recorded('crm', 'hold', 'approval:big'), recorded('crm', 'allow')], [], [allow('crm')])).toEqual(['1 crm|send|hold approval:big|allow|all']);
});
test('what lacked something for its destination was let through by the rules; a record that could not be read was not decided', () => {
  expect(told([recorded('crm', 'dead-letter', 'contract-breached'), recorded(null, 'dead-letter', 'avro-undecodable')], [], [allow('crm')])).toEqual([]);
});
test('examples are few, whatever the count', () => {
  for (let i = 0; i < 50; i++) tallyFlips({ flips }, `evt_${i}`, [recorded('crm', 'allow')], [], [deny('crm', 'rule:new', 'new')]);
  expect([...flips.values()].map(({ count, examples }) => [count, examples.length])).toEqual([[50, 5]]);
});

const minute = 60_000;
const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: News. }\n' });

/** Profiles go to `crm`, by these rules and what a contract says of their fields. */
function releaseOf(rules: string, terms: Readonly<Record<string, FieldTerms>> = {}): Release {
  const file = { path: 'destinations/crm.yaml', content: 'routes:\n  - { on: Profile, operation: send, purpose: news }\n' };
  const yaml = parseYaml(file);
  const problems: never[] = [];
  const routes = compileRoutes((yaml.value as { routes: never }).routes, 'crm', { send: { kind: 'use', accepts: ['weir.canonical.Profile'] } }, purposes, file, yaml, problems);
  expect(problems).toEqual([]);
  const fields = new Map([['Profile', fieldUses('Profile', new Map(Object.entries(terms)), undefined, purposes.keys())]]);
  return { hash: 'rel_a', files: [], policy: { purposes, rules: compileRules({ path: 'policies/a.yaml', content: `rules:\n${rules}  - { name: all, effect: allow }\n` }, purposes), routes: new Map([['Profile', routes]]), governance: { regions: standardRegions, sourceRegions: new Map(), destinationRegions: new Map(), fields } } } as unknown as Release;
}

/** A Profile of the history: decided at `at`, as it was recorded. */
interface Past { readonly partition: number; readonly person: string; readonly at: number; readonly recorded?: Recorded; readonly fields?: Readonly<Record<string, unknown>> }

/** What a rehearsal of `after` tells of these records, which stand in this order on their partitions. */
async function rehearsed(before: Release, after: Release, past: readonly Past[]): Promise<Rehearsal> {
  const history = {
    clearLinks: () => () => undefined, compile: () => after, whole: (subject: Subject) => subject, tables: { check: () => ({ ok: true, seen: [] }) },
    recordedOf: (eventId: string) => past.flatMap(({ recorded: one, at }, i) => (eventId !== `evt_${i}` || one === undefined ? [] : [{ ...one, at }])),
    subjectOf({ value }: { readonly value: Buffer }) {
      const eventId = value.toString();
      const { person, at, fields } = past[Number(eventId.slice('evt_'.length))]!;
      return { eventId, outputId: 'out_a', acceptedAt: at, subject: { recordName: 'Profile', record: { id: person, ...fields }, source: 'shop', key: person, ids: [person], eventId, acceptedAt: at } };
    },
  } as unknown as History;
  const recordsOf = (partition: number) => past.flatMap((one, i) => (one.partition === partition ? [{ timestamp: one.at, key: Buffer.from(one.person), value: Buffer.from(`evt_${i}`), headers: [] }] : [])).map((record, offset) => ({ ...record, offset }));
  const rehearsals = createRehearsals({
    history, topic: 'canonical', current: () => before, now: () => 60 * minute, serde: { known: () => true } as never,
    admin: { beginningOffsets: async () => new Map([[0, 0], [1, 0]]), endOffsets: async () => new Map([[0, recordsOf(0).length], [1, recordsOf(1).length]]) },
    reader: { readOne: async () => undefined, read: async (_topic: string, partition: number, _from: number, _to: number, take: (batch: never) => Promise<void>) => take({ records: recordsOf(partition) } as never) } as never,
  });
  const { id } = await rehearsals.start([], 60 * minute);
  await expect.poll(() => rehearsals.get(id).state).toBe('done');
  return rehearsals.get(id);
}

const passed = recorded('crm', 'allow');
test('a limit counts each partition by itself: the newest window of one does not swallow what is older on the next', async () => {
  const release = releaseOf('  - { name: cap, effect: limit, limit: { count: 1, per: 1m } }\n');
  const found = await rehearsed(release, release, [
    { partition: 0, person: 'userId:a', at: 9 * minute, recorded: passed },
    { partition: 1, person: 'userId:b', at: minute, recorded: passed }, { partition: 1, person: 'userId:b', at: 2 * minute, recorded: passed }, { partition: 1, person: 'userId:b', at: 3 * minute, recorded: passed },
  ]);
  expect(found).toMatchObject({ read: 4, decisions: 4, flips: [] });
});
test('a limit by destination is divided over the partitions as it was: who had its share used up is no flip', async () => {
  const release = releaseOf('  - { name: cap, effect: limit, limit: { count: 2, per: 1m, by: destination } }\n');
  const found = await rehearsed(release, release, [
    { partition: 0, person: 'userId:a', at: minute, recorded: passed }, { partition: 0, person: 'userId:c', at: minute + 1, recorded: recorded('crm', 'deny', 'limit:cap') },
    { partition: 1, person: 'userId:b', at: minute + 2, recorded: passed },
  ]);
  expect(found).toMatchObject({ read: 3, decisions: 3, flips: [] });
});

const hashed = '  - { name: phones, effect: hash, hash: { as: sha256, fields: [phone] } }\n';
const masked = '  - { name: phones, effect: mask, mask: { fields: [phone], first: 30 } }\n';
const open = releaseOf('');
const closed = releaseOf('', { 'attributes.passport': { class: 'kyc-sensitive' } });
test.each<[string, Release, Release, readonly (readonly [readonly string[], readonly string[]])[]]>([
  ['nothing else', closed, closed, []],
  ['a key of a map, too', closed, open, [[['attributes.passport'], []]]],
  ['a key of a map less', open, closed, [[[], ['attributes.passport']]]],
  ['a map less', open, releaseOf('  - { name: few, effect: minimise, fields: [attributes] }\n'), [[[], ['attributes']]]],
  ['a field hashed', open, releaseOf(hashed), [[['phone (changed)'], ['phone']]]],
  ['a field masked that was hashed', releaseOf(hashed), releaseOf(masked), [[['phone (changed)'], ['phone (changed)']]]],
  ['a field hashed as it was', releaseOf(hashed), releaseOf(hashed), []],
])('a rehearsal tells which fields would leave otherwise: %s', async (_name, before, after, fields) => {
  const found = await rehearsed(before, after, [{ partition: 0, person: 'userId:a', at: minute, fields: { phone: '+49301234567', email: null, attributes: { tier: 'gold', passport: 'P1' } } }]);
  expect(found.fields.map(({ added, removed }) => [added, removed])).toEqual(fields);
});
