import type { Appender } from '@weir/log';
import { waitFor } from '@weir/testing';
import { never, type HarmedDriver, type Requests } from '../harm.ts';
import { must, same, type Row } from '../row.ts';
import { append, createHistory, createMember, figures, finalLog, judge, settled, startWriter, type History, type Member } from '../traffic.ts';
import type { World } from '../world.ts';

const silence: Requests = { heartbeat: () => never, commit: () => never, joinGroup: () => never, syncGroup: () => never, leaveGroup: () => never, fetch: () => never };

async function fill(history: History, appender: Appender, partitions: number, calls: number): Promise<void> {
  const ends = await Promise.all(Array.from({ length: calls }, () => append(history, appender, Array.from({ length: partitions }, (_, p) => p))));
  must(ends.every((e) => typeof e !== 'string'), 'an append was rejected');
}

/** The committed offsets as somebody else sees them, from now on; returns how to stop looking. */
async function observe(world: World, history: History): Promise<() => Promise<number>> {
  const admin = await world.log('platformatic').admin();
  let looks = 0;
  let open = true;
  world.atEnd(() => { open = false; });
  const looking = (async () => {
    while (open) {
      for (const [partition, offset] of await admin.committed(history.groupId, history.topic)) history.events.push({ kind: 'committed', partition, offset });
      looks++;
      await new Promise((done) => setTimeout(done, 20));
    }
  })();
  // A row that failed meanwhile does not wait for it.
  looking.catch((error: unknown) => error);
  return async () => {
    open = false;
    await looking;
    return looks;
  };
}

export const groupRows: readonly Row[] = [
  {
    id: 'slow-work', hazards: ['K8'], limitMs: 120_000,
    title: 'work that takes longer than two sessions: the member keeps its partitions, nothing is given twice',
    guard: 'group.ts: heartbeats run on a timer of their own, `batch` is never awaited',
    async run(world, driver) {
      const sessionTimeoutMs = 3000;
      const history = createHistory(world, await world.topic(2));
      const log = world.log(driver);
      await fill(history, await log.appender(), 2, 50);
      const slow = createMember(world, log, history, { sessionTimeoutMs, commits: 'on leaving' });
      await slow.consumer.start();
      await waitFor('everything is given out', () => slow.polled() >= 100);
      const before = slow.consumer.assignments();
      const end = performance.now() + 3 * sessionTimeoutMs;
      await waitFor('leases of two more sessions', () => slow.consumer.leaseUntil() > end, 60_000);
      same(slow.consumer.assignments(), before, 'assignments');
      await slow.consumer.close();
      await settled(log, history);
      same(slow.polled(), 100, 'given out');
      return figures(judge(history, await finalLog(log, history.topic), { seen: true }));
    },
  },
  {
    id: 'hand-over', hazards: ['K9', 'K10', '#223'], limitMs: 180_000,
    title: 'partitions are handed over ten times under load: each owner begins exactly where the one before has committed',
    guard: 'group.ts: eager protocol, the drain commits before the member joins again; membership.ts: committed offsets are asked for in the new generation',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(3));
      const log = world.log(driver);
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 3);
      let member = createMember(world, world.log(driver), history, { commits: 'on leaving' });
      await member.consumer.start();
      const failures: Error[] = [];
      for (let i = 0; i < 10; i++) {
        const next = createMember(world, world.log(driver), history, { commits: 'on leaving' });
        await next.consumer.start();
        await member.consumer.close();
        const before = next.polled();
        await waitFor('the next one reads', () => next.polled() > before + 30);
        failures.push(...member.failures);
        member = next;
      }
      same(await writer.stop(), [], 'rejected');
      await waitFor('everything is given out', async () => new Set(history.events.flatMap((e) => (e.kind === 'poll' ? [e.value] : []))).size >= 3 * writer.calls());
      await member.consumer.close();
      same([...failures, ...member.failures].map(String), [], 'failures');
      const verdict = judge(history, await finalLog(log, history.topic), { seen: true });
      same(verdict.polled, verdict.sent + verdict.resent, 'records given out: drained and committed work is not given again');
      return figures(verdict);
    },
  },
  {
    id: 'many-commits', hazards: ['#368', 'K10'], limitMs: 60_000,
    title: '1,000 commits at once, in any order: what others see never goes back and ends at the highest',
    guard: 'commits.ts: one request at a time, the highest of what waits',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(1));
      const log = world.log(driver);
      await fill(history, await log.appender(), 1, 1000);
      const member = createMember(world, log, history, { commits: 'on leaving' });
      await member.consumer.start();
      await waitFor('everything is given out', () => member.polled() >= 1000);
      const stop = await observe(world, history);
      const [part] = member.consumer.assignments();
      const order = Array.from({ length: 1000 }, (_, i) => 1 + ((i * 617) % 1000));
      for (let from = 0; from < 1000; from += 100) await Promise.all(order.slice(from, from + 100).map((offset) => member.consumer.commit([{ topic: history.topic, partition: 0, epoch: part!.epoch, offset }])));
      await settled(log, history);
      const looks = await stop();
      judge(history, await finalLog(log, history.topic), { seen: true });
      return `1,000 commits, ${looks} looks`;
    },
  },
  {
    id: 'out-of-range', hazards: ['K11', '#304'], limitMs: 120_000,
    title: 'the committed position is deleted, or lies past the end: the line stops once, with the exact offsets; nothing is skipped or read again',
    guard: 'fetch-requests.ts: an out-of-range answer is checked against the range and then ends the consumer; there is no reset',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(1));
      const log = world.log(driver);
      await fill(history, await log.appender(), 1, 100);
      const commitAt = async (offset: number): Promise<void> => {
        const member = createMember(world, world.log(driver), history, { commits: 'on leaving', handlers: { batch() {}, async revoked() {} } });
        await member.consumer.start();
        await member.consumer.commit([{ topic: history.topic, partition: 0, epoch: member.consumer.assignments()[0]!.epoch, offset }]);
        await member.consumer.close();
      };
      const stops = async (wanted: number, start: number): Promise<void> => {
        const member = createMember(world, world.log(driver), history);
        await member.consumer.start();
        const [error] = await waitFor('the line stops', () => (member.failures.length > 0 ? member.failures : undefined), 60_000);
        same({ ...(error as { details?: object }).details, code: (error as { code?: string }).code } as object, { topic: history.topic, partition: 0, wanted, start, end: 100, code: 'log-out-of-range' }, 'the error');
        same([member.polled(), member.failures.length, member.consumer.assignments().length], [0, 1, 0], 'records, errors, assignments');
        await member.consumer.close();
      };
      await commitAt(20);
      await world.operator.deleteRecords(history.topic, 0, 60);
      await stops(20, 60);
      await commitAt(5000);
      await stops(5000, 60);
      return 'stopped at 20 of [60, 100) and at 5000 of [60, 100)';
    },
  },
  {
    id: 'first-start', hazards: ['K11', '#267'], limitMs: 120_000,
    title: 'eight members start at once, with and without commits: all begin at what is committed or at the beginning, never at the end',
    guard: 'group.ts: positions come from the commits of the group, else from the beginning',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(8));
      const log = world.log(driver);
      const appender = await log.appender();
      await fill(history, appender, 8, 40);
      for (let round = 0; round < 3; round++) {
        const members = Array.from({ length: 8 }, () => createMember(world, world.log(driver), history, { commits: 'on leaving' }));
        await Promise.all(members.map((m) => m.consumer.start()));
        await fill(history, appender, 8, 10);
        await waitFor('everything is given out', () => new Set(history.events.flatMap((e) => (e.kind === 'poll' ? [e.value] : []))).size === 8 * (40 + 10 * (round + 1)), 60_000);
        await Promise.all(members.map((m) => m.consumer.close()));
        same(members.flatMap((m) => m.failures.map(String)), [], 'failures');
      }
      return figures(judge(history, await finalLog(log, history.topic), { seen: true }));
    },
  },
  {
    id: 'pause-resume', hazards: ['#228', '#260'], limitMs: 120_000,
    title: 'partitions are paused and resumed all the time under load: none of them is forgotten',
    guard: 'fetch-requests.ts: what came while paused is held and given first; a resume wakes the loop',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(6));
      const log = world.log(driver);
      const member = createMember(world, log, history);
      await member.consumer.start();
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 6);
      const paused = new Set<number>();
      for (let turn = 0; turn < 400; turn++) {
        const partition = (turn * 7) % 6;
        if (paused.delete(partition)) member.consumer.resume(history.topic, partition);
        else {
          paused.add(partition);
          member.consumer.pause(history.topic, partition);
        }
        await new Promise((done) => setTimeout(done, turn % 20));
      }
      for (const partition of paused) member.consumer.resume(history.topic, partition);
      same(await writer.stop(), [], 'rejected');
      await settled(log, history);
      same(member.failures.map(String), [], 'failures');
      return figures(judge(history, await finalLog(log, history.topic), { seen: true }));
    },
  },
  {
    id: 'rebalance-storm', hazards: ['K9', 'K15', '#223'], limitMs: 180_000,
    title: 'a member joins or leaves every second under load, some without a word: nothing is lost, no commit goes back, the lag ends',
    guard: 'group.ts: drain before joining again; membership.ts: commits carry the generation',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(6));
      const log = world.log(driver);
      const stop = await observe(world, history);
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 6, 10);
      const all: Member[] = [];
      const inside: { member: Member; harm: HarmedDriver }[] = [];
      for (let second = 0; second < 12; second++) {
        const next = performance.now() + 1000;
        if (second % 3 === 2) {
          const { member, harm } = inside.shift()!;
          // Some leave without a word: nothing that they ask is answered any more, the group finds out by the session.
          if (second === 5) harm.harm(silence);
          else void member.consumer.close();
        } else {
          const { log: own, driver: harm } = world.harmedLog(driver, { deadlineMs: 5000 });
          const member = createMember(world, own, history, { sessionTimeoutMs: 3000 });
          all.push(member);
          inside.push({ member, harm });
          void member.consumer.start().catch((error: unknown) => member.told.push(String(error)));
        }
        await waitFor('the second is over', () => performance.now() > next);
      }
      same(await writer.stop(), [], 'rejected');
      await settled(log, history, 120_000);
      const looks = await stop();
      await Promise.all(all.map((m) => m.consumer.close()));
      same(all.flatMap((m) => m.failures.map(String)), [], 'failures');
      return `${all.length} members, ${looks} looks at the commits, ${figures(judge(history, await finalLog(log, history.topic), { seen: true }))}`;
    },
  },
  {
    id: 'new-partitions', hazards: ['faults.md: partitions added to a live topic'], limitMs: 120_000,
    title: 'partitions are added to a live topic: members and followers read them from offset 0',
    guard: 'group.ts: the leader of the group looks whether the topics still have the partitions that it gave out, and joins again; reader.ts: followers look themselves',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(2));
      const log = world.log(driver);
      const members = [1, 2].map(() => createMember(world, world.log(driver), history, { watchMs: 1000 }));
      for (const m of members) await m.consumer.start();
      const followed = new Set<string>();
      const errors: Error[] = [];
      const reader = await log.reader();
      const follower = await reader.follow(history.topic, new Map(), (batch) => { for (const r of batch.records) followed.add(`${batch.partition}@${r.offset}`); }, (error) => errors.push(error));
      await fill(history, await log.appender(), 2, 50);
      await world.operator.addPartitions(history.topic, 5);
      // A producer that knows them is there before any reader does.
      const late = await world.log(driver).appender();
      await waitFor('the partitions are there', async () => { try { return (await late.partitions(history.topic)) >= 0 && (await world.operator.leaders(history.topic)).length === 5 && await world.operator.inSync(history.topic); } catch { return false; } }, 60_000);
      await fill(history, await world.log(driver).appender(), 5, 50);
      await settled(log, history);
      const found = await finalLog(world.log(driver), history.topic);
      same(found.size, 5, 'partitions');
      await waitFor('the follower has it all', () => followed.size === [...found.values()].flat().length, 60_000);
      await follower.close();
      same([...errors, ...members.flatMap((m) => m.failures)].map(String), [], 'failures');
      return figures(judge(history, found, { seen: true }));
    },
  },
];
