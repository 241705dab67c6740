import { createPartitionCounts, createSerde, type Log, type OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { createReleaseFeed } from '@weir/release';
import { expect, test } from 'vitest';
import { createTopicCounts } from './topic-counts.ts';

const topics = topicNames('t');

/** A cluster of these topics and the control topic as it was written. */
async function world(cluster: Record<string, number>) {
  const known: { schema: string }[] = [];
  const registry = { register: (schema: unknown) => Promise.resolve({ id: known.push(schema as { schema: string }) }), getSchema: (id: number) => Promise.resolve(JSON.parse(known[id - 1]!.schema) as unknown) };
  const serde = createSerde({ registryUrl: '', registry: registry as never });
  await serde.start();
  const control: OutRecord[] = [];
  const admin = {
    listTopics: async () => Object.keys(cluster),
    describeTopics: async (names: readonly string[]) => names.map((name) => ({ name, partitions: cluster[name] ?? 0, exists: name in cluster })) as never,
  };
  return {
    cluster, control,
    keeper: (counts = createPartitionCounts()) => createTopicCounts({ topics, counts, clock: { now: () => 1 } as never }, { admin, serde, appender: { append: async (_topic: string, records: readonly OutRecord[]) => { control.push(...records); return []; } } as never }),
    /** What a service that starts now hashes over. */
    async started() {
      const counts = createPartitionCounts();
      const records = control.map((record, offset) => ({ ...record, offset, timestamp: 0, headers: [] }));
      const log = { reader: async () => ({ read: async (_t: string, _p: number, _from: number, _to: number, take: (batch: unknown) => Promise<void>) => take({ records }), follow: async () => ({ close: async () => {} }), close: async () => {} }), admin: async () => ({ endOffsets: async () => new Map([[0, records.length]]) }) } as unknown as Log;
      const feed = await createReleaseFeed({ log, serde, topic: topics.control, adapters: new Map(), logger: { info() {}, error() {} } as never, workspaceKey: Buffer.alloc(32), counts });
      await feed.close();
      return counts;
    },
  };
}

test('what a topic was made with is kept once, and every service that starts later hashes over it', async () => {
  const { cluster, keeper, started, control } = await world({ [topics.consentChanges]: 6, [topics.keys]: 6, 'other.topic': 3 });
  await keeper().keep([]);
  cluster[topics.consentChanges] = 8;
  // The control service starts anew: what was kept stands.
  await keeper(await started()).keep([]);
  const counts = await started();
  expect([counts.of(topics.consentChanges, 8), counts.of(topics.keys, 6), counts.kept('other.topic')]).toEqual([6, 6, undefined]);
  expect(control.length).toBe(2);
});

test('a topic that was gone and is made by weir topics apply has the count that it has then', async () => {
  const { cluster, keeper, started } = await world({ [topics.dispatch('crm')]: 6 });
  await keeper().keep([]);
  cluster[topics.dispatch('crm')] = 12;
  const counts = await started();
  await keeper(counts).keep([topics.dispatch('crm')]);
  expect([counts.kept(topics.dispatch('crm')), (await started()).kept(topics.dispatch('crm'))]).toEqual([12, 12]);
});
