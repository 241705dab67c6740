import { freeze, waitFor } from '@weir/testing';
import { must, same, type Row } from '../row.ts';
import { append, createHistory, createMember, figures, finalLog, judge, settled, startWriter, type Writer } from '../traffic.ts';
import { brokerSessionMs, type DriverName, type World } from '../world.ts';

interface Scene {
  readonly topic: string;
  readonly groupId: string;
  readonly writer: Writer;
  /** Until so many more appends are acknowledged. */
  goesOn(acks?: number): Promise<void>;
}

/** Two members and a writer over six partitions, while the brokers suffer; then nothing may be missing, doubled or out of order. */
async function underLoad(world: World, driver: DriverName, act: (scene: Scene) => Promise<string>, rejects = false): Promise<string> {
  const topic = await world.topic(6);
  const history = createHistory(world, topic);
  const log = world.log(driver);
  const members = [1, 2].map(() => createMember(world, world.log(driver), history));
  await Promise.all(members.map((m) => m.consumer.start()));
  const writer = startWriter(history, await log.appender({ deadlineMs: rejects ? 4000 : 120_000 }), 6, 20);
  const goesOn = async (acks = 50): Promise<void> => {
    const before = writer.acked();
    await waitFor('appends are acknowledged', () => writer.acked() > before + acks, 120_000);
  };
  await goesOn();
  const said = await act({ topic, groupId: history.groupId, writer, goesOn });
  await goesOn();
  await world.healthy(topic);
  const rejected = await writer.stop();
  if (rejects) must(rejected.length > 0 && rejected.every((code) => code === 'log-append-failed'), `rejected: ${rejected.slice(0, 5).join()}`);
  else same(rejected, [], 'rejected');
  await settled(log, history, 120_000);
  await Promise.all(members.map((m) => m.consumer.close()));
  same(members.flatMap((m) => m.failures.map(String)), [], 'failures');
  const verdict = judge(history, await finalLog(log, topic), { seen: true });
  return `${said}, ${figures(verdict)}`;
}

async function kill(world: World, nodeId: number): Promise<void> {
  world.broker(nodeId).process().kill('SIGKILL');
  await world.broker(nodeId).process().exited;
}

export const faultRows: readonly Row[] = [
  {
    id: 'leader-killed', hazards: ['K13', '#206', 'faults.md: leader of a hot partition'], limitMs: 300_000,
    title: 'the leader of a third of the partitions is killed (SIGKILL) under load and comes back',
    guard: 'appender.ts, fetch-requests.ts, cluster.ts: a request that fails ends its connection, leaders are learnt anew, the same batch is sent again',
    run: (world, driver) => underLoad(world, driver, async ({ topic, goesOn }) => {
      const [leader] = await world.operator.leaders(topic);
      await kill(world, leader!);
      await waitFor('every partition has a leader', async () => (await world.operator.leaders(topic)).every((l) => l > 0 && l !== leader), 90_000);
      await goesOn();
      await world.broker(leader!).restart();
      return 'one kill';
    }),
  },
  {
    id: 'leader-stopped', hazards: ['K13', 'faults.md: SIGSTOP'], limitMs: 300_000,
    title: 'the leader of a third of the partitions is stopped (SIGSTOP) for three of its sessions, its connections stay open',
    guard: 'deadline.ts: every request has one; what has no answer is cut and asked elsewhere',
    run: (world, driver) => underLoad(world, driver, async ({ topic, goesOn }) => {
      const [leader] = await world.operator.leaders(topic);
      const thaw = await freeze(world.broker(leader!).process().pid);
      try {
        const end = performance.now() + 3 * brokerSessionMs;
        await goesOn();
        await waitFor('three sessions are over', () => performance.now() > end, 60_000);
      } finally {
        thaw();
      }
      return `stopped for ${(3 * brokerSessionMs) / 1000} s`;
    }),
  },
  {
    id: 'coordinator-killed', hazards: ['K12', '#376', 'faults.md: group coordinator'], limitMs: 300_000,
    title: 'the coordinator of the group is killed under load and comes back',
    guard: 'coordinator.ts: looked up again after every failure; group.ts: heartbeats go on until the lease ends',
    run: (world, driver) => underLoad(world, driver, async ({ groupId, goesOn }) => {
      const node = await world.operator.coordinator(groupId);
      await kill(world, node);
      await waitFor('another coordinator', async () => { try { return ![node, -1].includes(await world.operator.coordinator(groupId)); } catch { return false; } }, 90_000);
      await goesOn();
      await world.broker(node).restart();
      return 'one kill';
    }),
  },
  {
    id: 'rolling-restart', hazards: ['K12', 'K13', '#206', 'faults.md: rolling restart'], limitMs: 600_000,
    title: 'all brokers are restarted one after the other under load (the active controller and every leader among them)',
    guard: 'cluster.ts: leaders and brokers are learnt from whoever answers',
    run: (world, driver) => underLoad(world, driver, async ({ topic, goesOn }) => {
      for (const nodeId of [1, 2, 3]) {
        await world.broker(nodeId).restart();
        await world.healthy(topic);
        await goesOn();
      }
      return 'three restarts';
    }),
  },
  {
    id: 'no-quorum', hazards: ['faults.md: two at once'], limitMs: 600_000,
    title: 'two of three brokers are killed: appends are rejected at their deadline, none is acknowledged that is not in the log; all goes on when they are back',
    guard: 'producer.ts: acks = all; appender.ts: what waits behind a rejected batch is rejected with it',
    run: (world, driver) => underLoad(world, driver, async ({ topic, writer }) => {
      const [first] = await world.operator.leaders(topic);
      const gone = [first!, 1 + (first! % 3)];
      await Promise.all(gone.map((id) => kill(world, id)));
      const calls = writer.calls();
      // The writer stops calling at its bound of what waits: only rejections can move it on.
      await waitFor('appends are rejected', () => writer.calls() > calls + 700, 120_000);
      await Promise.all(gone.map((id) => world.broker(id).restart()));
      return 'two kills';
    }, true),
  },
  {
    id: 'nobody-answers', hazards: ['K13', '#918', '#1167'], limitMs: 300_000,
    title: 'all brokers are stopped, connections open: every call of the port ends by its deadline with a code, a close ends; afterwards all works',
    guard: 'deadline.ts, cluster.ts: no wait without an end',
    async run(world, driver) {
      const deadlineMs = 3000;
      const history = createHistory(world, await world.topic(3));
      const log = world.log(driver, { deadlineMs });
      const [appender, admin, reader] = await Promise.all([log.appender(), log.admin(), log.reader()]);
      await append(history, appender, [0, 1, 2]);
      const member = createMember(world, world.log(driver, { deadlineMs }), history, { sessionTimeoutMs: 6000, commits: 'on leaving' });
      await member.consumer.start();
      await waitFor('everything is given out', () => member.polled() === 3);
      const closing = world.log(driver, { deadlineMs });
      const leaving = createMember(world, closing, { ...history, groupId: world.name('group'), events: [] }, { rebalanceTimeoutMs: 5000 });
      await leaving.consumer.start();
      const [part] = member.consumer.assignments();
      const thaws = await Promise.all([1, 2, 3].map((id) => freeze(world.broker(id).process().pid)));
      // A call without its deadline never ends, and with it the row: nothing closes over brokers that stay stopped.
      world.atEnd(() => { for (const thaw of thaws) thaw(); });
      const began = performance.now();
      const took = new Map<string, number>();
      const call = async (what: string, work: Promise<unknown>): Promise<string> => {
        const code = await work.then(() => 'answered', (error: unknown) => (error as { code?: string }).code ?? String(error));
        took.set(what, performance.now() - began);
        return code;
      };
      let codes: string[];
      try {
        codes = await Promise.all([
          call('append', appender.append(history.topic, [{ partition: 0, key: null, value: Buffer.from('x') }])),
          call('end offsets', admin.endOffsets(history.topic)),
          call('committed', admin.committed(history.groupId, history.topic)),
          call('read', reader.readOne(history.topic, 0, 0)),
          call('commit', member.consumer.commit([{ topic: part!.topic, partition: part!.partition, epoch: part!.epoch, offset: 1 }])),
          call('close', closing.close()),
        ]);
      } finally {
        for (const thaw of thaws) thaw();
      }
      same(codes.slice(0, -1).filter((code) => !['log-append-failed', 'log-deadline', 'log-unavailable', 'log-assignment-stale'].includes(code)), [], 'codes');
      same(codes.at(-1), 'answered', 'close');
      const longest = Math.max(...took.values());
      // The deadline, and the requests and the look for another broker that were on the way at its end.
      must(longest < 60_000, `a call took ${Math.round(longest)} ms: ${JSON.stringify([...took])}`);
      history.events.push({ kind: 'send', partition: 0, value: 'x' });
      await waitFor('appends are acknowledged again', async () => typeof await append(history, appender, [0, 1, 2]) !== 'string', 60_000);
      await waitFor('everything is given out', async () => new Set(history.events.flatMap((e) => (e.kind === 'poll' ? [`${e.partition}@${e.offset}`] : []))).size >= [...(await finalLog(log, history.topic)).values()].flat().length, 60_000);
      await member.consumer.close();
      await settled(log, history);
      same(member.failures.map(String), [], 'failures');
      return `${took.size} calls ended within ${(longest / 1000).toFixed(1)} s, ${figures(judge(history, await finalLog(log, history.topic), { seen: true }))}`;
    },
  },
];
