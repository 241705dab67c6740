import type { Appender, Log } from '@weir/log';
import { afterEach, beforeAll, expect, test, vi } from 'vitest';
import { createMember, record, until, type DriverName, type Member, type World } from './world.ts';

/** @param long false = without those that wait for seconds, and are about what is written once above the drivers */
export function groupCases(world: () => World, driver: DriverName, long: boolean): void {
  let log: Log;
  let appender: Appender;
  const members: Member[] = [];
  beforeAll(async () => {
    log = world().log(driver);
    appender = await log.appender();
  });
  afterEach(async () => { await Promise.all(members.splice(0).map((m) => m.consumer.close())); });

  function join(...args: Parameters<typeof createMember>): Member {
    const member = createMember(...args);
    members.push(member);
    return member;
  }

  async function fill(topic: string, partitions: number, from: number, count: number): Promise<void> {
    await appender.append(topic, Array.from({ length: count }, (_, i) => record((from + i) % partitions, `${from + i}`)));
  }

  test('without a commit reading begins at the beginning, never at the end', async () => {
    const topic = await world().topic(log, 2);
    await fill(topic, 2, 0, 100);
    const member = join(log, { groupId: world().name('group'), topics: [topic] });
    await member.consumer.start();
    await until('all records', () => member.records().length, (n) => n === 100);
    expect(member.failures).toEqual([]);
  });

  test('members come and go under load: no gap, no partition with two owners, every record delivered', async () => {
    const topic = await world().topic(log, 6);
    const groupId = world().name('group');
    const owners = new Map<number, Member>();
    const problems: string[] = [];
    const seen = new Set<string>();
    const member = (): Member => {
      // Each member has a client of its own, as each process has.
      const m: Member = join(world().log(driver), { groupId, topics: [topic], sessionTimeoutMs: 6000 }, {});
      return m;
    };
    const watch = (m: Member): void => {
      const look = (): void => {
        for (const a of m.consumer.assignments()) {
          const other = owners.get(a.partition);
          if (other !== undefined && other !== m && other.consumer.holds(topic, a.partition, other.next.get(a.partition)?.epoch ?? 0)) problems.push(`partition ${a.partition} has two owners`);
          owners.set(a.partition, m);
        }
      };
      timers.push(setInterval(look, 5));
    };
    const timers: NodeJS.Timeout[] = [];
    let sent = 0;
    const load = (async () => {
      while (sent < 30_000) {
        await fill(topic, 6, sent, 500);
        sent += 500;
      }
    })();
    try {
      const all: Member[] = [];
      for (const leaving of [undefined, undefined, 0, undefined, 1]) {
        const m = member();
        all.push(m);
        watch(m);
        await m.consumer.start();
        if (leaving !== undefined) await all[leaving]!.consumer.close();
      }
      await load;
      const collect = (): number => {
        for (const m of all) for (const r of m.batches.splice(0).flatMap((b) => b.records)) seen.add(r.value!.toString());
        return seen.size;
      };
      await until('every record', collect, (n) => n === sent, 40_000);
      expect(all.flatMap((m) => m.failures)).toEqual([]);
    } finally {
      for (const timer of timers) clearInterval(timer);
    }
    expect(problems).toEqual([]);
  });

  test('a commit under an epoch that has ended is rejected and moves nothing', async () => {
    const topic = await world().topic(log, 2);
    const groupId = world().name('group');
    await fill(topic, 2, 0, 40);
    const first = join(log, { groupId, topics: [topic] });
    await first.consumer.start();
    await until('all records', () => first.records().length, (n) => n === 40);
    const old = first.consumer.assignments().map((a) => ({ topic, partition: a.partition, epoch: a.epoch, offset: 7 }));
    await first.consumer.commit(old);
    const second = join(world().log(driver), { groupId, topics: [topic] });
    await second.consumer.start();
    await until('one partition each', () => [first, second].map((m) => m.consumer.assignments().length), (n) => n.join() === '1,1');
    const admin = await log.admin();
    const before = await admin.committed(groupId, topic);
    await expect(first.consumer.commit(old.map((o) => ({ ...o, offset: 19 })))).rejects.toMatchObject({ code: 'log-assignment-stale' });
    for (const o of old) expect(first.consumer.holds(topic, o.partition, o.epoch)).toBe(false);
    // The drain of the first committed everything it had been given.
    expect([...before.values()]).toEqual([20, 20]);
    expect(await admin.committed(groupId, topic)).toEqual(before);
  });

  test('a lower or late commit never moves the committed offset back', async () => {
    const topic = await world().topic(log, 1);
    const groupId = world().name('group');
    await fill(topic, 1, 0, 100);
    const member = join(log, { groupId, topics: [topic] });
    await member.consumer.start();
    await until('all records', () => member.records().length, (n) => n === 100);
    const [part] = member.consumer.assignments();
    const commit = (offset: number): Promise<void> => member.consumer.commit([{ topic, partition: 0, epoch: part!.epoch, offset }]);
    await Promise.all([90, 30, 60, 95, 10].map(commit));
    const admin = await log.admin();
    expect(await admin.committed(groupId, topic)).toEqual(new Map([[0, 95]]));
    await commit(20);
    expect(await admin.committed(groupId, topic)).toEqual(new Map([[0, 95]]));
  });

  test('the lease runs out when heartbeats are not acknowledged, and the member heals when they are again', async () => {
    const topic = await world().topic(log, 1);
    const sessionTimeoutMs = 3000;
    await fill(topic, 1, 0, 10);
    const member = join(world().log(driver, { deadlineMs: 5000 }), { groupId: world().name('group'), topics: [topic], sessionTimeoutMs });
    await member.consumer.start();
    await until('records', () => member.records().length, (n) => n === 10);
    const part = await until('a lease', () => member.consumer.assignments().find((a) => member.consumer.holds(topic, 0, a.epoch)), (a) => a !== undefined);
    await world().frozen(async () => {
      const frozenAt = performance.now();
      expect(member.consumer.leaseUntil()).toBeLessThanOrEqual(frozenAt + sessionTimeoutMs);
      await until('the lease to run out', () => member.consumer.holds(topic, 0, part!.epoch), (h) => !h, sessionTimeoutMs + 1000);
      await until('the assignment to be lost', () => member.events.at(-1)!, (e) => e === 'revoked lost 0');
      await expect(member.consumer.commit([{ topic, partition: 0, epoch: part!.epoch, offset: 10 }])).rejects.toMatchObject({ code: 'log-assignment-stale' });
    });
    await fill(topic, 1, 10, 10);
    await until('the records after it', () => new Set(member.records().map((r) => r.offset)).size, (n) => n === 20);
    expect(member.consumer.assignments()[0]!.epoch).toBeGreaterThan(part!.epoch);
    expect(member.failures).toEqual([]);
  });

  test.runIf(long)('paused for longer than the session: nothing is delivered, membership stays, and nothing is missing after resume', async () => {
    const topic = await world().topic(log, 2);
    const sessionTimeoutMs = 4000;
    const member = join(log, { groupId: world().name('group'), topics: [topic], sessionTimeoutMs });
    await member.consumer.start();
    const before = member.consumer.assignments();
    for (const p of [0, 1]) member.consumer.pause(topic, p);
    await fill(topic, 2, 0, 200);
    const longer = performance.now() + 2.25 * sessionTimeoutMs;
    await until('a lease beyond the next session', () => member.consumer.leaseUntil(), (lease) => lease > longer);
    expect(member.batches).toEqual([]);
    expect(member.consumer.assignments()).toEqual(before);
    // As after a suspension, in which only the wall clock went on: not before the next acknowledged heartbeat.
    const { epoch } = before[0]!;
    const wall = vi.spyOn(Date, 'now').mockImplementation(() => performance.timeOrigin + performance.now() + 3_600_000);
    try {
      expect([member.consumer.holds(topic, 0, epoch), member.consumer.leaseUntil() < performance.now()]).toEqual([false, true]);
      // What comes meanwhile is given out: a step of the clock is no reason to stop the whole group.
      member.consumer.resume(topic, 1);
      await until('the resumed half', () => member.records().length, (n) => n === 100);
      await until('the heartbeat after it', () => member.consumer.holds(topic, 0, epoch), (h) => h);
      expect(member.consumer.assignments()).toEqual(before);
    } finally {
      wall.mockRestore();
    }
    expect(member.consumer.holds(topic, 0, epoch)).toBe(true);
    expect(new Set(member.batches.map((b) => b.partition))).toEqual(new Set([1]));
    member.consumer.resume(topic, 0);
    await until('all records', () => member.records().length, (n) => n === 200);
    expect(member.events).toHaveLength(1);
  });

  test.runIf(long)('tables that take longer than the session to load do not cost the assignment, and no batch comes before', async () => {
    const topic = await world().topic(log, 1);
    const sessionTimeoutMs = 3000;
    await fill(topic, 1, 0, 10);
    let loaded = false;
    let early = 0;
    let records = 0;
    const member = join(log, { groupId: world().name('group'), topics: [topic], sessionTimeoutMs }, {
      async assigned() {
        const end = performance.now() + 2.1 * sessionTimeoutMs;
        await until('a lease beyond the next session', () => member.consumer.leaseUntil(), (lease) => lease > end);
        loaded = true;
      },
      batch(batch) {
        if (!loaded) early++;
        records += batch.records.length;
      },
      async revoked() {},
    });
    await member.consumer.start();
    await until('all records', () => records, (n) => n === 10);
    const [part] = member.consumer.assignments();
    expect(early).toBe(0);
    expect(member.consumer.holds(topic, 0, part!.epoch)).toBe(true);
  });

  test('a committed offset that is not in the log stops the line with the exact range', async () => {
    const topic = await world().topic(log, 1);
    const groupId = world().name('group');
    await fill(topic, 1, 0, 10);
    const first = createMember(log, { groupId, topics: [topic] }, { async revoked() {} });
    await first.consumer.start();
    await first.consumer.commit([{ topic, partition: 0, epoch: first.consumer.assignments()[0]!.epoch, offset: 1000 }]);
    await first.consumer.close();
    const second = join(log, { groupId, topics: [topic] });
    await second.consumer.start();
    const [error] = await until('a failure', () => second.failures, (f) => f.length > 0);
    expect(error).toMatchObject({ code: 'log-out-of-range', details: { topic, partition: 0, wanted: 1000, start: 0, end: 10 } });
    expect(second.batches).toEqual([]);
    expect(second.consumer.assignments()).toEqual([]);
  });

  test('a batch handler that throws stops the line: nothing more is delivered or committed', async () => {
    const topic = await world().topic(log, 1);
    await fill(topic, 1, 0, 10);
    let calls = 0;
    const member = join(log, { groupId: world().name('group'), topics: [topic] }, {
      batch() {
        calls++;
        throw new Error('undeclared');
      },
    });
    await member.consumer.start();
    const [part] = member.next.values();
    await until('a failure', () => member.failures.length, (n) => n === 1);
    await fill(topic, 1, 10, 10);
    await expect(member.consumer.commit([{ topic, partition: 0, epoch: part!.epoch, offset: 5 }])).rejects.toMatchObject({ code: 'log-assignment-stale' });
    expect([calls, member.failures.length]).toEqual([1, 1]);
  });

  test.runIf(long)('a drain that takes its time is waited for: the next owner begins where it ended', async () => {
    const topic = await world().topic(log, 1);
    const groupId = world().name('group');
    await fill(topic, 1, 0, 10);
    const order: string[] = [];
    const first = join(log, { groupId, topics: [topic], sessionTimeoutMs: 3000 }, {
      async revoked(parts, reason) {
        if (reason === 'close') return;
        const end = performance.now() + 3500;
        await until('the drain', () => performance.now(), (now) => now > end);
        await first.consumer.commit(parts.map((p) => ({ topic, partition: p.partition, epoch: p.epoch, offset: 4 })));
        order.push('drained');
      },
    });
    await first.consumer.start();
    await until('all records', () => first.records().length, (n) => n === 10);
    const second = join(world().log(driver), { groupId, topics: [topic], sessionTimeoutMs: 3000 }, {
      async assigned(parts) { order.push(`second ${parts.map((p) => p.position).join()}`); },
      batch() {}, async revoked() {},
    });
    await second.consumer.start();
    expect(order[0]).toBe('drained');
    const positions = (): number[] => [...first.consumer.assignments(), ...second.consumer.assignments()].map((a) => a.position);
    expect(await until('an owner', positions, (p) => p.length > 0)).toEqual([4]);
  });
}
