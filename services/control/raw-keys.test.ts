import { topicNames } from '@weir/pipeline';
import { beforeEach, expect, test } from 'vitest';
import { createRawKeyJanitor, type RawKeyJanitor } from './raw-keys.ts';

const topics = topicNames('t');
const day = 86_400_000;
const now = Date.parse('2026-03-31T12:00:00Z');
/** One within every retention, one past that of raw topics, one past every retention; of a source of the release and of one that left it. */
const dates = ['2026-03-30', '2026-03-15', '2026-01-01'];
let owners: Set<string>;
let shown: Record<string, string | undefined>;
let errors: number;
let janitor: RawKeyJanitor;
let again: (() => void) | undefined;

beforeEach(() => {
  owners = new Set(['shop', 'left'].flatMap((source) => dates.map((date) => `raw/${source}/${date}`)));
  shown = { [topics.raw('shop')]: `${7 * day}`, [topics.raw('left')]: `${7 * day}`, [topics.dlq]: `${30 * day}` };
  errors = 0;
  janitor = createRawKeyJanitor({
    keys: { owners: () => owners, destroy: async (list) => { for (const owner of list) owners.delete(owner); return list.length; } },
    admin: { describeTopics: async (names) => names.map((name) => ({ name, partitions: 1, replicationFactor: 1, exists: Object.hasOwn(shown, name), config: Object.fromEntries(shown[name] === undefined ? [] : [['retention.ms', shown[name]]]) })) },
    topics, release: () => ({ sources: new Map([['shop', {} as never]]) }), audit: async () => 'leaf', logger: { info: () => undefined, error: () => { errors++; } }, now: () => now,
    setTimer: (run) => { again = run; }, clearTimer: () => undefined,
  });
});
/** The look of the next hour. */
async function next(): Promise<void> {
  again!();
  await new Promise((done) => setImmediate(done));
}
const left = (source: string): string[] => [...owners].filter((o) => o.startsWith(`raw/${source}/`)).map((o) => o.split('/')[2]!);

test('keys are destroyed once nothing sealed under them can be on a topic', async () => {
  await janitor.start();
  expect([left('shop'), left('left'), errors]).toEqual([dates.slice(0, 2), dates.slice(0, 2), 0]);
});

test.each([
  ['the dead letters', () => topics.dlq],
  ['a source of the release', () => topics.raw('shop')],
])('while the brokers do not show the topic of %s, or not its retention, nothing is destroyed: it would be gone for ever', async (_what, topic) => {
  const before = shown[topic()];
  delete shown[topic()];
  await janitor.start();
  shown[topic()] = undefined;
  await next();
  expect([owners.size, errors]).toEqual([6, 2]);
  shown[topic()] = before;
  await next();
  expect([left('shop'), errors]).toEqual([dates.slice(0, 2), 2]);
});

test('the topic of a source that left the release counts as deleted when it is missing three times in a row', async () => {
  shown[topics.raw('left')] = `${90 * day}`;
  await janitor.start();
  expect(left('left')).toEqual(dates);
  delete shown[topics.raw('left')];
  await next();
  await next();
  expect(left('left')).toEqual(dates);
  await next();
  expect([left('left'), errors]).toEqual([dates.slice(0, 2), 0]);
});

test('the last raw key of a day is destroyed when its receipt says at the latest, also by a look that comes late, or behind one that failed; a source that left the release counts by its own topic', async () => {
  const today = Date.parse('2026-03-31');
  const late = 2 * 3_600_000;
  expect(await janitor.until(now)).toBe(today + 32 * day + late);
  // Its last key is of yesterday, and what is sealed under it stays longer than what the release has.
  shown[topics.raw('left')] = `${90 * day}`;
  expect(await janitor.until(now)).toBe(today + 91 * day + late);
  shown[topics.raw('shop')] = `${95 * day}`;
  expect(await janitor.until(now)).toBe(today + 97 * day + late);
});

test('when a raw key dies is not told where that is not known: a topic is kept for ever, does not tell, or is not to be seen, of a source that left the release before it counts as deleted', async () => {
  for (const topic of [topics.dlq, topics.raw('shop'), topics.raw('left')]) {
    const before = shown[topic];
    for (const kept of ['-1', undefined]) {
      shown[topic] = kept;
      expect([topic, kept, await janitor.until(now)]).toEqual([topic, kept, null]);
    }
    delete shown[topic];
    expect([topic, await janitor.until(now)]).toEqual([topic, null]);
    shown[topic] = before;
  }
  delete shown[topics.raw('left')];
  await janitor.start();
  for (let looks = 1; looks < 3; looks++) {
    expect(await janitor.until(now)).toBe(null);
    await next();
  }
  expect(await janitor.until(now)).toBe(Date.parse('2026-03-31') + 32 * day + 2 * 3_600_000);
});
