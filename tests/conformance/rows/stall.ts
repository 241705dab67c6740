import { fork } from 'node:child_process';
import { join } from 'node:path';
import { waitFor } from '@weir/testing';
import { Cluster } from '../../../packages/log/cluster.ts';
import { createReader } from '../../../packages/log/reader.ts';
import { never } from '../harm.ts';
import type { Measured } from '../idle.ts';
import { must, same, type Row } from '../row.ts';
import { createHistory, createMember, figures, finalLog, judge, settled, startWriter } from '../traffic.ts';

/** Generous: idle takes about 0.02 of a processor; a client whose timer spins takes 0.07 and more, and makes a thousand timers a second. */
const maxIdleShare = 0.25;
const maxTimersPerSecond = 150;

export const stallRows: readonly Row[] = [
  {
    id: 'nothing-comes', hazards: ['K12', '#228', '#260', '#558', '#659'], limitMs: 120_000,
    title: 'the process lives, heartbeats are answered, fetches bring nothing although there is something: first cured by new connections, then told as an error',
    guard: 'watchdog.ts: the position is compared with the end of the partition, which is asked for on another connection',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(2));
      const { log, driver: harm } = world.harmedLog(driver);
      // Before the first fetch: one that is on the way would bring what is written meanwhile.
      harm.harm({ fetch: (send) => async (...args) => ({ ...await send(...args), partitions: [] }) });
      const member = createMember(world, log, history, { watchMs: 500 });
      await member.consumer.start();
      const cluster = new Cluster(harm, { brokers: world.platform.bootstrap, clientId: 'follower', deadlineMs: 30_000 });
      world.atEnd(() => cluster.close());
      const told: unknown[] = [];
      await createReader(cluster, { watchMs: 500 }).follow(history.topic, new Map(), () => { told.push('a batch came'); }, (error) => told.push((error as { code?: string }).code));
      const writer = startWriter(history, await world.log(driver).appender(), 2, 20);
      await waitFor('the stall is told by both', () => member.failures.length > 0 && told.length > 0, 60_000);
      same(told, ['log-deadline'], 'what the follower tells');
      same([(member.failures[0] as { code?: string }).code, member.polled(), member.consumer.assignments().length], ['log-deadline', 0, 0], 'code, records, assignments');
      await member.consumer.close();
      // The next one has a fetch that never ends: cut and made anew by the same look, it goes on.
      let hung = 0;
      harm.harm({ fetch: (send) => (...args) => (hung++ < 2 ? never() : send(...args)) });
      const next = createMember(world, log, history, { watchMs: 500 });
      await next.consumer.start();
      await waitFor('it goes on', () => next.polled() > 0, 60_000);
      same(await writer.stop(), [], 'rejected');
      await settled(log, history);
      await next.consumer.close();
      same(next.failures.map(String), [], 'failures');
      return `told, then healed; ${figures(judge(history, await finalLog(world.log(driver), history.topic), { seen: true }))}`;
    },
  },
  {
    id: 'connections-cut', hazards: ['#206', 'K13', '#919'], limitMs: 180_000,
    title: 'every connection is cut twice a second for ten seconds under load: reading and writing go on by themselves',
    guard: 'cluster.ts: a connection that ended is forgotten, the next request makes a new one',
    async run(world, driver) {
      const history = createHistory(world, await world.topic(4));
      const { log, driver: harm } = world.harmedLog(driver);
      const member = createMember(world, log, history);
      await member.consumer.start();
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 4);
      let cut = 0;
      for (let i = 0; i < 20; i++) {
        const end = performance.now() + 500;
        await waitFor('half a second', () => performance.now() > end);
        cut += harm.cut();
      }
      same(await writer.stop(), [], 'rejected');
      await settled(log, history);
      await member.consumer.close();
      same(member.failures.map(String), [], 'failures');
      return `${cut} connections cut, ${figures(judge(history, await finalLog(log, history.topic), { seen: true }))}`;
    },
  },
  {
    id: 'answers-swallowed', hazards: ['#376', 'K13'], limitMs: 180_000,
    title: 'heartbeats, commits and fetches have no answer for two thirds of a session, again and again: heartbeats are scheduled again, the member works on',
    guard: 'group.ts: the next heartbeat does not depend on the answer of the last',
    async run(world, driver) {
      const sessionTimeoutMs = 6000;
      const history = createHistory(world, await world.topic(2));
      const { log, driver: harm } = world.harmedLog(driver);
      const member = createMember(world, log, history, { sessionTimeoutMs });
      await member.consumer.start();
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 2);
      for (let i = 0; i < 4; i++) {
        harm.harm({ heartbeat: () => never, commit: () => never, fetch: () => never });
        const end = performance.now() + (sessionTimeoutMs * 2) / 3;
        await waitFor('two thirds of a session', () => performance.now() > end);
        harm.heal();
        const before = member.consumer.leaseUntil();
        await waitFor('the lease is renewed', () => member.consumer.leaseUntil() > Math.max(before, performance.now()), 60_000);
      }
      same(await writer.stop(), [], 'rejected');
      await settled(log, history);
      await member.consumer.close();
      same(member.failures.map(String), [], 'failures');
      return figures(judge(history, await finalLog(log, history.topic), { seen: true }));
    },
  },
  {
    id: 'throttled', hazards: ['K13'], limitMs: 180_000,
    title: 'the brokers throttle the client by a quota of bytes, far below what it writes and reads, and lift it again: calls are answered late, none is rejected, lost or doubled, and the member keeps its partitions',
    guard: 'appender.ts: one request per partition on the way, what comes meanwhile goes with the next one; cluster.ts: heartbeats, fetches and appends have a connection each, so a muted one holds up no other',
    async run(world, driver) {
      const bytesPerSecond = 2000;
      const clientId = world.name('throttled');
      await world.operator.throttle(clientId, bytesPerSecond);
      const history = createHistory(world, await world.topic(3));
      const { log, driver: harm } = world.harmedLog(driver, { clientId });
      let longest = { produce: 0, fetch: 0 };
      const timed = (what: 'produce' | 'fetch') => (send: any) => async (...args: any[]) => {
        const asked = performance.now();
        try {
          return await send(...args);
        } finally {
          longest = { ...longest, [what]: Math.max(longest[what], performance.now() - asked) };
        }
      };
      harm.harm({ produce: timed('produce'), fetch: timed('fetch') });
      const member = createMember(world, log, history);
      await member.consumer.start();
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 3);
      await waitFor('brokers keep both back', () => longest.produce > 2000 && longest.fetch > 2000, 60_000);
      for (let i = 0; i < 3; i++) {
        const [acked, polled] = [writer.acked(), member.polled()];
        await waitFor('it goes on under the quota', () => writer.acked() > acked && member.polled() > polled, 60_000);
      }
      await world.operator.throttle(clientId, undefined);
      same(await writer.stop(), [], 'rejected');
      await settled(log, history);
      same(member.told.filter((said) => !said.startsWith('assigned')), [], 'what the member lost');
      await member.consumer.close();
      same(member.failures.map(String), [], 'failures');
      const verdict = judge(history, await finalLog(world.log(driver), history.topic), { seen: true });
      same([verdict.resent, verdict.polled], [0, verdict.sent], 'in the log again, and read');
      return `answers up to ${(longest.produce / 1000).toFixed(1)} s (append) and ${(longest.fetch / 1000).toFixed(1)} s (fetch) late, ${figures(verdict)}`;
    },
  },
  {
    id: 'idle', hazards: ['K14', '#1704', '#1751'], limitMs: 120_000,
    title: 'an idle member, follower and appender: processor time and timers over five seconds, no warning of Node about negative time-outs',
    guard: 'drivers/kafkajs.ts: the timer of the request queue runs only while something waits',
    async run(world, driver) {
      const topic = await world.topic(3);
      const child = fork(join(import.meta.dirname, '../idle.ts'), [JSON.stringify({ brokers: world.platform.bootstrap, clientId: 'idle', driver, topic, groupId: world.name('group') })]);
      try {
        const measured = await new Promise<Measured>((done, reject) => {
          child.once('message', (m) => done(m as Measured));
          child.once('exit', (code) => reject(new Error(`the idle process ended with ${code}`)));
        });
        same(measured.warnings, [], 'warnings');
        must(measured.cpuShare < maxIdleShare, `it takes ${measured.cpuShare.toFixed(3)} of a processor`);
        must(measured.timersPerSecond < maxTimersPerSecond, `it makes ${Math.round(measured.timersPerSecond)} timers a second`);
        return `${(measured.cpuShare * 100).toFixed(1)} % of a processor, ${Math.round(measured.timersPerSecond)} timers a second`;
      } finally {
        child.kill('SIGKILL');
      }
    },
  },
];
