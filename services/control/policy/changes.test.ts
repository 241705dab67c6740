import { registry } from '@weir/adapters';
import { compilePurposes, compileRoutes, type Subject } from '@weir/policy';
import type { Release } from '@weir/release';
import { parseYaml } from '@weir/yaml';
import { expect, test } from 'vitest';
import { explainEvent } from './explain.ts';
import type { History, PastRecord, Recorded } from './history.ts';
import { createRehearsals } from './rehearsal.ts';

const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Newsletter. }\n' });
const http = registry.get('http')!;
const operations = http.destination!.operations!({ baseUrl: 'https://vendor.example', operations: {
  unsubscribe: { kind: 'restrict', accepts: ['ConsentChange'], path: '/unsubscribes', body: { email: '{{record.email}}' } },
  stop: { kind: 'restrict', accepts: ['ConsentChange'], path: '/stops/{{record.userId}}' },
} } as never);

/** `mail` knows people by the address, `crm` by the user id; the change came from `crm`. */
function releaseOf(): Release {
  const routesOf = (destination: string, routes: string) => {
    const file = { path: `destinations/${destination}.yaml`, content: `routes:\n${routes}` };
    const yaml = parseYaml(file);
    const problems: never[] = [];
    const found = compileRoutes((yaml.value as { routes: never }).routes, destination, operations, purposes, file, yaml, problems);
    expect(problems).toEqual([]);
    return found;
  };
  const routes = [...routesOf('mail', '  - { on: ConsentChange, operation: unsubscribe, when: record.email != null }\n'), ...routesOf('crm', '  - { on: ConsentChange, operation: stop, when: record.userId != null }\n')];
  return { hash: 'rel_a', policy: { purposes, rules: [], routes: new Map([['ConsentChange', routes]]) }, sources: new Map([['crm', { adapter: http }]]), destinations: new Map([['mail', { adapter: { manifest: { name: 'mailer' } }, operations }], ['crm', { adapter: http, operations }]]), files: [] } as unknown as Release;
}
const release = releaseOf();
const past: PastRecord = { eventId: 'evt_a', outputId: 'out_a', acceptedAt: 1, subject: { recordName: 'ConsentChange', record: { purpose: 'news', channel: null, topic: null, state: 'withdrawn', userId: 'u', email: null, phone: null }, source: 'crm', key: 'userId:u', ids: ['userId:u'], eventId: 'evt_a', acceptedAt: 1 } };
const decided = (destination: string, operation: string, reason: string): Recorded => ({ destination, operation, effect: 'deny', reason, rule: 'restrict', release: 'rel_a', at: 1, consent: [], outputId: 'out_a' });
const recorded = [decided('crm', 'stop', 'consent-origin'), decided('mail', 'unsubscribe', 'identifier-unknown')];
const history = { clearLinks: () => () => undefined, recordedOf: () => recorded, recordsOf: async () => [past], subjectOf: () => past, release: async () => release, compile: () => release, whole: (subject: Subject) => ({ ...subject, ids: [...subject.ids ?? [], 'email:e'] }), tables: { linked: (ids: readonly string[]) => [...ids, 'email:e'], stored: () => undefined, check: () => ({ ok: true, seen: [] }) } } as unknown as History;

test.each(['recorded', 'current'] as const)('explain (%s) says why a tool is not told of a change of consent: it told it, or it knows the person by what the change lacks', async (against) => {
  const { records } = await explainEvent(history, 'evt_a', against, release, 5);
  expect(records[0]!.routes.map((r) => [r.destination, r.effect, r.reason, r.detail])).toEqual([
    ['mail', 'deny', 'identifier-unknown', 'linked, and not in the change: email'],
    ['crm', 'deny', 'consent-origin', null],
  ]);
});

test('a rehearsal of an unchanged policy over changes of consent finds nothing that would be decided otherwise', async () => {
  const rehearsals = createRehearsals({
    history, topic: 'canonical', current: () => release, now: () => 10, serde: { known: () => true } as never,
    admin: { beginningOffsets: async () => new Map([[0, 0]]), endOffsets: async () => new Map([[0, 1]]) },
    reader: { readOne: async () => undefined, read: async (_topic: string, _partition: number, _from: number, _to: number, take: (batch: never) => Promise<void>) => take({ records: [{ offset: 0, timestamp: 9, key: Buffer.from('k'), value: Buffer.from('v'), headers: [] }] } as never) } as never,
  });
  const { id } = await rehearsals.start([], 5000);
  await expect.poll(() => rehearsals.get(id).state).toBe('done');
  expect(rehearsals.get(id)).toMatchObject({ read: 1, decisions: 2, flips: [] });
});
