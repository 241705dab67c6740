import { H } from '@weir/pipeline';
import { compilePurposes, compileRoutes, compileRules, standardRegions } from '@weir/policy';
import type { Release } from '@weir/release';
import { parseYaml } from '@weir/yaml';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createWorld, releaseOf, startWorld, stopWorld, until, type World } from './policy-world.ts';

beforeAll(startWorld, 120_000);
afterAll(stopWorld, 60_000);

/** The source says that its people are in the US, crm keeps data there, and what is of the EEA stays in it. */
function usRelease(): Release {
  const base = releaseOf('rel_us', 'rules: [ { name: everything, effect: allow } ]');
  const purposes = compilePurposes({ path: 'purposes.yaml', content: 'purposes:\n  analytics: { legalBasis: legitimate-interest, doc: How it is used. }\n' });
  const file = { path: 'destinations/crm.yaml', content: 'routes:\n  - { on: Event, operation: send, purpose: analytics }\n' };
  const yaml = parseYaml(file);
  const problems: never[] = [];
  const routes = compileRoutes((yaml.value as { routes: never }).routes, 'crm', { send: { kind: 'use', accepts: ['weir.canonical.Event'] } } as never, purposes, file, yaml, problems, { regions: standardRegions });
  expect(problems).toEqual([]);
  const rules = compileRules({ path: 'policies/a.yaml', content: 'rules:\n  - { name: stay, effect: residency, residency: { subject: [EEA], destinations: [EEA] } }\n  - { name: everything, effect: allow }\n' }, purposes, standardRegions);
  const tool = { manifest: { name: 'shop' } };
  const sources = new Map([['shop', { movesPeople: true, adapter: tool }], ['web', { movesPeople: false, adapter: tool }]]) as never;
  return { ...base, sources, policy: { purposes, rules, routes: new Map([['Event', routes]]), governance: { regions: standardRegions, sourceRegions: new Map([['shop', 'US'], ['web', 'US']]), destinationRegions: new Map([['crm', ['US']]]), fields: new Map() } } };
}
const release = usRelease();
const at = (accepted: number): Record<string, string> => ({ [H.accepted]: String(accepted) });

/** How an event ended at crm. */
async function endOf(world: World, event: string): Promise<string> {
  const look = async (): Promise<readonly string[]> => [
    ...(await world.all(world.topics.outcome)).filter((o) => o.value.eventId === event).map((o) => `${o.value.state} ${o.value.reason}`),
    ...(await world.all(world.topics.dispatch('crm'))).filter((d) => d.value.eventId === event).map(() => 'delivered'),
  ];
  return (await until(`the end of ${event}`, look, (seen) => seen.length > 0)).join();
}
const regionsOn = async (world: World): Promise<unknown[]> => (await world.all(world.topics.identity)).filter(({ name }) => name === 'weir.internal.PersonRegion').map(({ key, value }) => [key, value.region]);

test('an event without a country is judged by where the person was last said to be, by any linked identifier, also after the tables are lost', async () => {
  const world = await createWorld('residency');
  const policy = await world.policy(() => release);
  const [user, mail] = [{ userId: 'u1' }, { email: 'ada@example.com' }];
  const [userId, mailId] = world.idsOf({ ...user, ...mail }) as [string, string];
  const send = async (fields: Record<string, string>): Promise<string> => {
    const event = world.next('page');
    await world.canonical(event, fields, world.event(fields), at(9000));
    return endOf(world, event);
  };
  expect(await send(user)).toBe('delivered');
  const afterIdentity = await world.link(userId, mailId);
  const said = async (fields: Record<string, string>, country: string, accepted: number): Promise<void> => {
    const event = world.next('profile');
    await world.canonical(event, fields, world.profile({ ...fields, country }), { ...at(accepted), [H.afterIdentity]: afterIdentity });
    await endOf(world, event);
  };
  await said({ ...user, ...mail }, 'DE', 1000);
  expect([await send(user), await send(mail), await send({ email: 'bob@example.com' })]).toEqual(['denied residency:stay', 'denied residency:stay', 'delivered']);
  await said({ ...user, ...mail }, 'DE', 2000);
  expect(await regionsOn(world)).toEqual([[`@${userId}`, 'DE']]);
  await policy.close();

  const anew = await world.policy(() => release);
  expect(await send(mail)).toBe('denied residency:stay');
  // What was accepted before does not count; what came since does.
  await said({ ...user, ...mail }, 'US', 500);
  expect(await send(mail)).toBe('denied residency:stay');
  await said({ ...user, ...mail }, 'US', 3000);
  expect(await send(mail)).toBe('delivered');
  // Where two of linked identifiers say different things the stricter holds.
  await said(mail, 'FR', 4000);
  expect([await send(user), await send(mail)]).toEqual(['denied residency:stay', 'denied residency:stay']);
  await anew.close();
  await world.close();
}, 120_000);

test('a source that may not move people does not take a region from anybody, whatever it says of them', async () => {
  const world = await createWorld('resweb', 1);
  let policy = await world.policy(() => release);
  const user = { userId: 'v1' };
  const send = async (source: string): Promise<string> => {
    const event = world.next('page');
    await world.canonical(event, user, world.event(user), { ...at(9000), [H.source]: source });
    return endOf(world, event);
  };
  const said = async (source: string, country: string, accepted: number): Promise<void> => {
    const event = world.next('profile');
    await world.canonical(event, user, world.profile({ ...user, country }), { ...at(accepted), [H.source]: source });
    await endOf(world, event);
  };
  await said('shop', 'DE', 1000);
  await said('web', 'US', 2000);
  expect([await send('shop'), await send('web')]).toEqual(['denied residency:stay', 'denied residency:stay']);
  await policy.close();
  policy = await world.policy(() => release);
  expect(await send('shop')).toBe('denied residency:stay');
  expect((await regionsOn(world)).at(-1)).toEqual([expect.any(String), 'DE+US']);
  await said('shop', 'US', 3000);
  expect(await send('web')).toBe('delivered');
  // What it adds closes all the same.
  await said('web', 'FR', 4000);
  expect(await send('shop')).toBe('denied residency:stay');
  await policy.close();
  await world.close();
}, 120_000);

test('an event that stands right behind the first profile of its person is judged by that', async () => {
  const world = await createWorld('resnext', 1);
  const people = Array.from({ length: 300 }, (_, i) => ({ userId: `n${i}` }));
  const events: string[] = [];
  for (const person of people) {
    await world.canonical(world.next('profile'), person, world.profile({ ...person, country: 'DE' }), at(1000));
    events.push(world.next('page'));
    await world.canonical(events.at(-1)!, person, world.event(person), at(1001));
  }
  const policy = await world.policy(() => release);
  await endOf(world, events.at(-1)!);
  const ends = new Map((await world.all(world.topics.outcome)).map(({ value }) => [value.eventId as string, `${value.state} ${value.reason}`]));
  expect(new Set(events.map((event) => ends.get(event)))).toEqual(new Set(['denied residency:stay']));
  expect(await world.all(world.topics.dispatch('crm'))).toEqual([]);
  expect(await regionsOn(world)).toHaveLength(people.length);
  await policy.close();
  await world.close();
}, 120_000);
