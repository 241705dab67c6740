import { encodeConsumerProtocolAssignment } from '@platformatic/kafka';
import { expect, test } from 'vitest';
import { Cluster } from './cluster.ts';
import { E, type BrokerConnection, type Driver, type Member } from './driver.ts';
import { Membership } from './membership.ts';

/** A coordinator that takes every member, in a new generation each time. `state.wait`: the next look-up of the coordinator waits for it. `state.beat` = what a heartbeat is answered. */
function world() {
  const state: { wait: Promise<void> | undefined; looks: number; moved: boolean; beat: number } = { wait: undefined, looks: 0, moved: false, beat: 0 };
  const asked: (readonly [what: string, member: Pick<Member, 'generationId' | 'memberId'> | undefined])[] = [];
  let generationId = 0;
  const note = (what: string, { generationId: of, memberId }: Member): void => { asked.push([what, { generationId: of, memberId }]); };
  const connection = {
    metadata: async () => ({ brokers: [{ nodeId: 1, host: 'one', port: 1 }], topics: [{ name: 't', errorCode: 0, internal: false, partitions: [{ partition: 0, leader: 1, replicas: 1 }] }] }),
    findCoordinator: async () => {
      state.looks++;
      const { wait } = state;
      state.wait = undefined;
      await wait;
      return { errorCode: 0, nodeId: 1 };
    },
    joinGroup: async ({ memberId }: { readonly memberId: string }) => {
      asked.push(['join', undefined]);
      return { errorCode: 0, generationId: ++generationId, leader: 'other', memberId: memberId === '' ? `m${generationId}` : memberId, protocol: 'roundrobin', members: [] };
    },
    syncGroup: async () => {
      asked.push(['sync', undefined]);
      return { errorCode: 0, assignment: encodeConsumerProtocolAssignment({ version: 1, assignedPartitions: [{ topic: 't', partitions: [0] }] }) };
    },
    commit: async (member: Member) => {
      note('commit', member);
      return [{ errorCode: state.moved ? E.notCoordinator : 0 }];
    },
    heartbeat: async (member: Member) => {
      note('heartbeat', member);
      return state.beat;
    },
    destroy: () => undefined,
  } as unknown as BrokerConnection;
  const cluster = new Cluster({ name: 'platformatic', connect: async () => connection } as unknown as Driver, { brokers: ['one:1'], clientId: 'test', deadlineMs: 5000 });
  const closing = new AbortController();
  const membership = new Membership(cluster, { groupId: 'g', topics: ['t'], sessionMs: 10_000, rebalanceMs: 30_000 }, 'group', closing.signal);
  return { membership, state, asked, closing };
}

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((done) => { setImmediate(done); });
}

/** A member of generation 1 whose coordinator has moved, and what it asks meanwhile waits for the look-up. */
async function waiting(ask: (membership: Membership) => Promise<unknown>) {
  const w = world();
  await w.membership.join();
  w.state.moved = true;
  await w.membership.commit([{ topic: 't', partition: 0, offset: 1 }]);
  w.state.moved = false;
  const found = Promise.withResolvers<void>();
  w.state.wait = found.promise;
  const asking = ask(w.membership);
  await until(() => w.state.looks === 2);
  w.asked.length = 0;
  await w.membership.join();
  found.resolve();
  return { ...w, answer: await asking };
}

test('a commit is sent as the member that it was asked of, also when that has joined again before its coordinator is found', async () => {
  const { asked, answer } = await waiting((membership) => membership.commit([{ topic: 't', partition: 0, offset: 2 }]));
  expect(asked).toEqual([['join', undefined], ['sync', undefined], ['commit', { generationId: 1, memberId: 'm1' }]]);
  expect(answer).toBe(0);
});

test('what is said to a member of an earlier generation does not end the one of now', async () => {
  const { asked, membership, state, answer } = await waiting((own) => own.heartbeat(5000));
  expect([asked.at(-1), answer]).toEqual([['heartbeat', { generationId: 1, memberId: 'm1' }], 'alive']);
  const late = Promise.withResolvers<void>();
  state.moved = true;
  await membership.commit([{ topic: 't', partition: 0, offset: 2 }]);
  state.wait = late.promise;
  const beat = membership.heartbeat(5000);
  await membership.join();
  state.beat = E.unknownMember;
  late.resolve();
  expect(await beat).toBe('lost');
  state.beat = 0;
  expect(await membership.heartbeat(5000)).toBe('alive');
  expect(asked.at(-1)).toEqual(['heartbeat', { generationId: 3, memberId: 'm1' }]);
});

test('whoever is closing joins nothing any more, though its coordinator is found', async () => {
  const { membership, state, asked, closing } = world();
  const found = Promise.withResolvers<void>();
  state.wait = found.promise;
  const joining = membership.join();
  await until(() => state.looks === 1);
  closing.abort();
  found.resolve();
  await expect(joining).rejects.toMatchObject({ code: 'log-unavailable' });
  expect(asked).toEqual([]);
});
