import { expect, test } from 'vitest';
import { topicNames } from '@weir/pipeline';
import { createHeldDeliveries } from './deliveries.ts';
import type { Today } from './replay/today.ts';

const topics = topicNames('t');
const letter = { id: 'dlq_1', topic: topics.dispatch('crm'), partition: 2, key: Buffer.from('anna'), value: Buffer.from('body'), headers: [{ name: 'weir-event', value: Buffer.from('evt_1') }, { name: 'weir-intent', value: Buffer.from('rpl_old') }, { name: 'weir-verified', value: Buffer.from('applied') }] };

function world(over: { codes?: readonly string[]; state?: string; today?: Today } = {}) {
  const asked: (Buffer | null)[] = [];
  const put: { topic: string; partition: number; headers: Record<string, string> }[] = [];
  const held = createHeldDeliveries({
    topics, store: { deadLetter: (id) => (id === 'dlq_1' ? { codes: over.codes ?? ['delivery-held'], eventId: 'evt_1', outputId: 'o', destination: 'crm', operation: 'put', partition: 0, offset: 5 } : undefined), deliveryState: () => (over.state ?? 'quarantined') as 'quarantined' },
    reader: { readOne: () => Promise.resolve({ value: Buffer.alloc(5) }) } as never, serde: { prepare: () => Promise.resolve(), decode: () => ({ value: letter }) } as never,
    today: ({ value }) => { asked.push(value); return Promise.resolve(over.today ?? 'same'); },
    appender: { partitions: () => Promise.resolve(1), append: (topic, records) => { for (const r of records) put.push({ topic, partition: r.partition, headers: Object.fromEntries((r.headers ?? []).map(([n, v]) => [n, v.toString()])) }); return Promise.resolve([0]); } },
  });
  return { put, asked, resolve: (id: string, finding: 'applied' | 'not-applied') => held.resolve(id, finding, { actor: 'admin', leaf: 'leaf_1' }) };
}

test.each(['applied', 'not-applied'] as const)('%s goes back with the finding and the order of its audit leaf, without those of an earlier order', async (finding) => {
  const w = world();
  expect(await w.resolve('dlq_1', finding)).toMatchObject({ finding, order: 'res_1', destination: 'crm' });
  expect(w.put).toEqual([{ topic: topics.dispatch('crm'), partition: 2, headers: { 'weir-event': 'evt_1', 'weir-intent': 'res_1', 'weir-origin': 'dlq_1', 'weir-verified': finding } }]);
});

test('what is not held, is not there, or was delivered meanwhile is told, and nothing goes back', async () => {
  for (const [w, id, finding, error] of [[world(), 'dlq_2', 'applied', /no dead letter/], [world({ codes: ['delivery-rejected'] }), 'dlq_1', 'applied', /is not held/], [world({ state: 'delivered' }), 'dlq_1', 'not-applied', /delivered meanwhile/]] as const) {
    await expect(w.resolve(id, finding)).rejects.toThrow(error);
    expect(w.put).toEqual([]);
  }
  const w = world({ state: 'delivered' });
  expect(await w.resolve('dlq_1', 'applied')).toMatchObject({ order: null });
  expect(w.put).toEqual([]);
});

test.each(['denied', 'otherwise', 'undecided'] as const)('what was not applied, and policy of today says %s of, is not sent: it is told why; what was applied ends whatever policy says', async (today) => {
  const w = world({ today });
  await expect(w.resolve('dlq_1', 'not-applied')).rejects.toThrow({ denied: /does not let it go now/, otherwise: /less, or other values/, undecided: /canonical record is gone/ }[today]);
  expect([w.put, w.asked]).toEqual([[], [Buffer.from('body')]]);
  expect(await w.resolve('dlq_1', 'applied')).toMatchObject({ order: 'res_1' });
  expect(w.put).toHaveLength(1);
  expect(w.asked).toHaveLength(1);
});
