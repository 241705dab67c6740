import { expect, test } from 'vitest';
import { createHoldings, describeRequest, readDescribed, type GroupMember } from './groups.ts';
import { holdsWork } from './world.ts';

const int = (n: number, bytes: 2 | 4): Buffer => {
  const out = Buffer.alloc(bytes);
  out.writeIntBE(n, 0, bytes);
  return out;
};
const text = (s: string): Buffer => Buffer.concat([int(s.length, 2), Buffer.from(s)]);
const bytes = (b: Buffer): Buffer => Buffer.concat([int(b.length, 4), b]);
const list = (items: readonly Buffer[]): Buffer => Buffer.concat([int(items.length, 4), ...items]);
const assignment = (topics: Record<string, number[]>): Buffer => Buffer.concat([int(1, 2), list(Object.entries(topics).map(([topic, p]) => Buffer.concat([text(topic), list(p.map((n) => int(n, 4)))]))), bytes(Buffer.alloc(0))]);
const member = (id: string, client: string, topics?: Record<string, number[]>): Buffer => Buffer.concat([text(id), text(client), text('/127.0.0.1'), bytes(Buffer.from('sub')), bytes(topics === undefined ? Buffer.alloc(0) : assignment(topics))]);
const group = (error: number, name: string, state: string, members: readonly Buffer[]): Buffer => Buffer.concat([int(error, 2), text(name), text(state), text('consumer'), text('range'), list(members)]);
const answer = (...groups: Buffer[]): Buffer => Buffer.concat([int(1, 4), list(groups)]);

test('members and their partitions are read from what a coordinator answers; a group that it does not coordinate, or that is joining, is not told', () => {
  const found = readDescribed(answer(group(0, 'g', 'Stable', [member('m1', 'weir-policy-1', { t: [0, 3], u: [1] }), member('m2', 'weir-policy-2')]), group(16, 'h', 'Dead', []), group(0, 'i', 'PreparingRebalance', [member('m3', 'weir-policy-3')])));
  expect(found).toEqual(new Map([['g', [{ memberId: 'm1', clientId: 'weir-policy-1', partitions: new Map([['t', [0, 3]], ['u', [1]]]) }, { memberId: 'm2', clientId: 'weir-policy-2', partitions: new Map() }]]]));
  expect(() => readDescribed(answer(group(0, 'g', 'Stable', [])).subarray(0, 20))).toThrow(/ends early/);
  expect(describeRequest(['g']).readInt32BE()).toBe(describeRequest(['g']).length - 4);
});

const policy = (memberId: string, instance: number, partitions: readonly number[]): GroupMember => ({ memberId, clientId: `weir-policy-${instance}`, partitions: new Map([['t', partitions]]) });

test('what a member held before a rebalance counts while nobody tells of it; what a dead process of the name held does not', async () => {
  let told: GroupMember[] | undefined = [policy('a', 1, [0, 1]), policy('b', 2, [2])];
  const holdings = createHoldings(['one', 'two'], ['g'], async (address) => {
    if (address === 'two') throw new Error('away');
    return told === undefined ? new Map() : new Map([['g', told]]);
  });
  await holdings.refresh();
  expect([1, 2, 3].map((n) => holdings.held('g', 't', `weir-policy-${n}`))).toEqual([[0, 1], [2], []]);
  told = undefined;
  await holdings.refresh();
  expect(holdings.held('g', 't', 'weir-policy-1')).toEqual([0, 1]);
  await holdings.begins('weir-policy-1');
  expect(holdings.held('g', 't', 'weir-policy-1')).toEqual([]);
  told = [policy('c', 1, [2])];
  await holdings.refresh();
  expect([holdings.held('g', 't', 'weir-policy-1'), holdings.held('g', 't', 'weir-policy-2')]).toEqual([[2], []]);
});

test('a victim without a partition holds nothing, and neither does one whose own partitions are committed, however far behind the others are', async () => {
  const holdings = createHoldings(['one'], ['g'], async () => new Map([['g', [policy('a', 1, [0]), policy('b', 2, [1])]]]));
  const admin = { endOffsets: async () => new Map([[0, 10], [1, 10]]), committed: async () => new Map([[0, 3], [1, 10]]) };
  const world = { holdings, admin, reads: { policy: [['g', 't']] }, traffic: { log: { inFlight: [0], cutAt: [0] } } } as unknown as Parameters<typeof holdsWork>[0];
  expect(await Promise.all([1, 2, 3].map((n) => holdsWork(world, 'policy', n)))).toEqual([true, false, false]);
});
