import { fork, type ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { freeze, waitFor } from '@weir/testing';
import type { Asked, ChildOptions, Told } from '../member.ts';
import { must, same, type Row } from '../row.ts';
import { append, createHistory, createMember, figures, finalLog, judge, settled, type History } from '../traffic.ts';
import type { DriverName, World } from '../world.ts';

const sessionTimeoutMs = 3000;
const partitions = 4;
const clock = (): number => performance.timeOrigin + performance.now();

interface Child {
  readonly process: ChildProcess;
  /** When it took which partitions for its own. */
  readonly holds: { readonly holds: readonly number[]; readonly at: number; readonly now?: true }[];
  readonly commits: string[];
  readonly failures: string[];
  ask(asked: Asked): void;
}

async function startChild(world: World, driver: DriverName, history: History): Promise<Child> {
  const options: ChildOptions = { brokers: world.platform.bootstrap, clientId: 'child', driver, deadlineMs: 10_000, topic: history.topic, groupId: history.groupId, name: world.name('child'), sessionTimeoutMs };
  const child: Child = { process: fork(join(import.meta.dirname, '../member.ts'), [JSON.stringify(options)]), holds: [], commits: [], failures: [], ask: (asked) => child.process.send(asked) };
  let started = false;
  child.process.on('message', (told: Told) => {
    if ('event' in told) history.events.push(told.event);
    else if ('holds' in told) child.holds.push(told);
    else if ('commit' in told) child.commits.push(told.commit);
    else if ('failed' in told) child.failures.push(told.failed);
    else started = true;
  });
  await waitFor('the child is a member', () => started, 60_000);
  return child;
}

/** A member stands still past its session while another one takes over its partitions and works; then it goes on. */
async function takenOver(world: World, driver: DriverName, standStill: (child: Child, whileStill: () => Promise<void>) => Promise<void>): Promise<string> {
  const history = createHistory(world, await world.topic(partitions));
  const log = world.log(driver);
  const appender = await log.appender();
  const fill = async (): Promise<void> => { for (let i = 0; i < 50; i++) must(typeof await append(history, appender, [0, 1, 2, 3]) !== 'string', 'an append was rejected'); };
  const child = await startChild(world, driver, history);
  try {
    await fill();
    await settled(log, history);
    const other = createMember(world, world.log(driver), history, { sessionTimeoutMs });
    let takenAt = 0;
    await standStill(child, async () => {
      await fill();
      await other.consumer.start();
      await waitFor('the other one has all of it', () => other.consumer.assignments().length === partitions, 60_000);
      takenAt = clock();
      await settled(log, history);
    });
    const first = await waitFor('the first look of the one that stood still', () => child.holds.find((h) => h.now), 60_000);
    same(first.holds, [], 'what it took for its own when it went on');
    must(!child.holds.some((h) => h.holds.length > 0 && h.at > takenAt && h.at <= first.at), 'it took partitions for its own that another one had');
    same(await waitFor('the end of its commit', () => child.commits[0], 60_000), 'log-assignment-stale', 'its commit');
    await waitFor('it is a member again', () => child.holds.at(-1)!.holds.length > 0 && other.consumer.assignments().length === partitions / 2, 60_000);
    await fill();
    await settled(log, history);
    same([...child.failures, ...other.failures.map(String)], [], 'failures');
    child.ask('close');
    await other.consumer.close();
    const verdict = judge(history, await finalLog(log, history.topic), { seen: true });
    // All was committed before it stood still: whatever is given out twice was given to a zombie.
    same(verdict.polled, verdict.sent + verdict.resent, 'records given out');
    return figures(verdict);
  } finally {
    child.process.kill('SIGKILL');
  }
}

export const zombieRows: readonly Row[] = [
  {
    id: 'stopped-past-session', hazards: ['K8', 'I6'], limitMs: 180_000,
    title: 'a member is stopped (SIGSTOP) past its session and another one takes over: going on, it holds nothing, is given nothing, its commit is refused, and it joins again',
    guard: 'group.ts: the lease counts from the send time of the last acknowledged heartbeat; commits carry the generation',
    run: (world, driver) => takenOver(world, driver, async (child, whileStill) => {
      const thaw = await freeze(child.process.pid!);
      try {
        await whileStill();
      } finally {
        thaw();
      }
    }),
  },
  {
    id: 'blocked-past-session', hazards: ['K8', 'I6'], limitMs: 180_000,
    title: 'the event loop of a member is blocked past its session and another one takes over: the same',
    guard: 'group.ts: the lease is a time on the monotonic clock, not a timer that would have to fire',
    run: (world, driver) => takenOver(world, driver, async (child, whileStill) => {
      child.ask({ block: 20_000 });
      await whileStill();
    }),
  },
];
