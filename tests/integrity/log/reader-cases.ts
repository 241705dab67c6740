import type { Log, RecordBatch } from '@weir/log';
import { beforeAll, expect, test } from 'vitest';
import { createMember, readAll, record, until, values, type DriverName, type World } from './world.ts';

export function readerCases(world: () => World, driver: DriverName): void {
  let log: Log;
  beforeAll(() => { log = world().log(driver); });

  test('a range gives its records and no others', async () => {
    const topic = await world().topic(log, 2);
    const appender = await log.appender();
    await appender.append(topic, Array.from({ length: 500 }, (_, i) => record(1, `${i}`)));
    const reader = await log.reader();
    const read = async (from: number, to: number): Promise<string[]> => {
      const list: string[] = [];
      await reader.read(topic, 1, from, to, async (batch) => { list.push(...values(batch.records)); });
      return list;
    };
    expect(await read(100, 103)).toEqual(['100', '101', '102']);
    expect(await read(498, 10_000)).toEqual(['498', '499']);
    expect(await read(500, 600)).toEqual([]);
    expect(await read(900, 1000)).toEqual([]);
    expect((await reader.readOne(topic, 1, 321))?.value?.toString()).toBe('321');
    expect(await reader.readOne(topic, 1, 500)).toBeUndefined();
    expect(await reader.readOne(topic, 0, 0)).toBeUndefined();
  });

  test('a follower gets what comes later, one batch at a time, and heals over a restart of the broker', async () => {
    const topic = await world().topic(log, 2);
    const appender = await log.appender({ deadlineMs: 60_000 });
    const reader = await log.reader();
    const group = createMember(log, { groupId: world().name('group'), topics: [topic], sessionTimeoutMs: 3000 });
    await group.consumer.start();
    await appender.append(topic, [record(0, 'skipped'), record(0, 'a')]);
    const seen: string[] = [];
    const errors: Error[] = [];
    let inside = 0;
    let most = 0;
    const follower = await reader.follow(topic, new Map([[0, 1]]), async (batch: RecordBatch) => {
      most = Math.max(most, ++inside);
      await new Promise((done) => setImmediate(done));
      seen.push(...values(batch.records));
      inside--;
    }, (error) => errors.push(error));
    await appender.append(topic, [record(1, 'b')]);
    await until('both', () => seen.length, (n) => n === 2);
    expect(seen.sort()).toEqual(['a', 'b']);
    await until('positions after them', () => [...follower.positions()].sort(), (p) => JSON.stringify(p) === '[[0,2],[1,1]]');

    const [broker] = world().platform.brokers;
    broker!.process().kill('SIGKILL');
    const later = appender.append(topic, [record(0, 'c'), record(1, 'd')]);
    await broker!.restart();
    await later;
    await until('what came after the restart', () => new Set(seen).size, (n) => n === 4, 60_000);
    await until('the group to go on', () => new Set(group.records().map((r) => r.value!.toString())).size, (n) => n === 5, 60_000);
    expect([errors, group.failures, most]).toEqual([[], [], 1]);
    await group.consumer.close();
    await follower.close();
    await appender.append(topic, [record(0, 'e')]);
    expect(values((await readAll(log, topic)).get(0)).slice(-1)).toEqual(['e']);
    expect(seen).not.toContain('e');
  });

  test('a position past the end stops the follower', async () => {
    const topic = await world().topic(log, 1);
    const reader = await log.reader();
    const errors: Error[] = [];
    await reader.follow(topic, new Map([[0, 5]]), () => {}, (error) => errors.push(error));
    await until('an error', () => errors.length, (n) => n === 1);
    expect(errors[0]).toMatchObject({ code: 'log-out-of-range', details: { wanted: 5, start: 0, end: 0 } });
  });

  test('topics are created once, described, and deleted', async () => {
    const admin = await log.admin();
    const [one, two] = [world().name('topic'), world().name('topic')];
    const spec = (name: string) => ({ name, partitions: 3, replicationFactor: 1, config: { 'cleanup.policy': 'compact' } });
    expect(await admin.createTopics([spec(one)])).toEqual([one]);
    expect(await admin.createTopics([spec(one), spec(two)])).toEqual([two]);
    const [found, missing] = await admin.describeTopics([one, world().name('nowhere')]);
    expect(found).toMatchObject({ name: one, partitions: 3, replicationFactor: 1, exists: true });
    expect(found!.config['cleanup.policy']).toBe('compact');
    expect(missing!.exists).toBe(false);
    expect(await admin.listTopics()).toEqual(expect.arrayContaining([one, two]));
    expect([...await admin.endOffsets(one)].sort()).toEqual([[0, 0], [1, 0], [2, 0]]);
    expect([...await admin.beginningOffsets(one)].sort()).toEqual([[0, 0], [1, 0], [2, 0]]);
    expect(await admin.committed(world().name('group'), one)).toEqual(new Map());
    await admin.deleteTopics([one, two, world().name('nowhere')]);
    await until('they are gone', () => admin.listTopics(), (names) => !names.includes(one) && !names.includes(two));
    await expect(admin.createTopics([{ ...spec(one), config: { 'no.such': '1' } }])).rejects.toMatchObject({ code: 'log-fatal' });
  });

  test('no broker answers: every call ends within its deadline', async () => {
    const away = world().log(driver, { brokers: ['127.0.0.1:1'], deadlineMs: 1000 });
    const [admin, reader, appender] = await Promise.all([away.admin(), away.reader(), away.appender()]);
    const ended = await Promise.allSettled([admin.endOffsets('t'), reader.readOne('t', 0, 0), appender.append('t', [record(0, 'x')]), createMember(away, { groupId: 'g', topics: ['t'] }).consumer.start()]);
    expect(ended.map((e) => (e.status === 'rejected' ? (e.reason as { code: string }).code : 'fulfilled'))).toEqual(Array.from({ length: 4 }, () => 'log-unavailable'));
  });
}
