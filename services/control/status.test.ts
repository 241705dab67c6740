import type { LogAdmin } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import type { Incident, Release } from '@weir/release';
import { expect, test } from 'vitest';
import { status } from './status.ts';
import type { Store } from './store.ts';

test('open incidents of destinations, rules and polled sources of the release are shown, each with the replay that fits it; others are not', async () => {
  const none = () => Promise.resolve(new Map<number, number>());
  const incidents = new Map(['crm', 'gone', 'policy/night', 'source/members', 'source/gone', 'consent/shop'].map((destination): [string, Incident] => [destination, { destination, code: 'x', since: 0, until: null }]));
  incidents.set('source/over', { destination: 'source/over', code: 'x', since: 0, until: 1 });
  const release = { hash: 'rel', sources: new Map([['members', {}], ['over', {}]]), destinations: new Map([['crm', {}]]) } as unknown as Release;
  const shown = await status({ endOffsets: none, beginningOffsets: none, committed: none } as unknown as LogAdmin, { counter: () => 0, position: () => 0 } as unknown as Store, release, topicNames('t'), groupNames('t'), [], incidents, [], new Map(), null, 0);
  expect(shown.incidents.map(({ destination, replay }) => [destination, replay])).toEqual([['crm', expect.stringContaining('weir replay dispatch')], ['policy/night', null], ['source/members', null]]);
});

test('the replay of what a broken credential gave up is offered for seven days after its end, bounded by it; not of rules, sources and destinations that left', async () => {
  const none = () => Promise.resolve(new Map<number, number>());
  const now = 1_800_000_000_000;
  const day = 86_400_000;
  const many = Array.from({ length: 30 }, (_, i) => [`d${i}`, now - 1000 * (i + 1)] as const);
  const ends = [['crm', now - 7 * day + 1], ['old', now - 7 * day], ['gone', now - 1], ['source/members', now - 1], ['policy/night', now - 1]] as const;
  const of = async (list: readonly (readonly [string, number])[]) => {
    const incidents = new Map(list.map(([destination, until]): [string, Incident] => [destination, { destination, code: 'credential-rejected', since: until - day, until }]));
    const release = { hash: 'rel', sources: new Map([['members', {}]]), destinations: new Map(['crm', 'old', ...many.map(([name]) => name)].map((name) => [name, {}])) } as unknown as Release;
    return status({ endOffsets: none, beginningOffsets: none, committed: none } as unknown as LogAdmin, { counter: () => 0, position: () => 0 } as unknown as Store, release, topicNames('t'), groupNames('t'), [], incidents, [], new Map(), null, now);
  };
  const { incidents, ended } = await of(ends);
  const [since, until] = [now - 8 * day + 1, now - 7 * day + 1].map((at) => new Date(at).toISOString());
  expect([incidents, ended]).toEqual([[], [{ destination: 'crm', code: 'credential-rejected', since, until, replay: `weir replay dlq --destination crm --since ${since} --until ${until} --stage dispatcher` }]]);
  expect((await of([...ends, ...many.toReversed()])).ended.map(({ destination }) => destination)).toEqual(many.slice(0, 20).map(([name]) => name));
});

test('while deliveries are pending it tells which destinations have left the release, with what is on their topics', async () => {
  const topics = topicNames('t');
  const ends = (topic: string) => Promise.resolve(new Map([[0, topic === topics.dispatch('gone') ? 7 : 4]]));
  const admin = { endOffsets: ends, beginningOffsets: () => Promise.resolve(new Map()), committed: () => Promise.resolve(new Map([[0, 4]])), listTopics: () => Promise.resolve([topics.dispatch('crm'), topics.dispatch('gone'), topics.ledger('gone'), topics.dispatch('empty'), 'other.dispatch.x']) } as unknown as LogAdmin;
  const release = { hash: 'rel', sources: new Map(), destinations: new Map([['crm', {}]]) } as unknown as Release;
  const of = async (pending: number) => status(admin, { counter: (name: string) => (name === 'deliveries.pending' ? pending : 0), position: () => 4 } as unknown as Store, release, topics, groupNames('t'), [], new Map(), [], new Map(), null, 0);
  expect(await of(3)).toMatchObject({ deliveries: { pending: 3 }, retired: [{ destination: 'empty', waiting: 0 }, { destination: 'gone', waiting: 3 }] });
  expect((await of(0)).retired).toEqual([]);
});
