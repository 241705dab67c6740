import type { Log } from '@weir/log';
import { beforeAll, expect, test } from 'vitest';
import { readAll, record, until, values, type DriverName, type World } from './world.ts';

const tooMuch = 1_500_000;

/** First time each value is in the log: what a reader that knows the keys makes of it. */
function firsts(list: readonly string[]): string[] {
  return [...new Set(list)];
}

/** @param long false = without those that wait for seconds, and are about what is written once above the drivers */
export function appendCases(world: () => World, driver: DriverName, long: boolean): void {
  let log: Log;
  beforeAll(() => { log = world().log(driver); });

  test('concurrent appends keep the order of the calls, and each offset is that of its record', async () => {
    const topic = await world().topic(log, 3);
    const appender = await log.appender();
    const sent: { value: string; partition: number }[][] = [];
    const acks: Promise<readonly number[]>[] = [];
    for (let call = 0; call < 2000; call++) {
      const list = Array.from({ length: 1 + (call % 5) }, (_, i) => ({ value: `${call}/${i}`, partition: (call + i) % 3 }));
      sent.push(list);
      acks.push(appender.append(topic, list.map((r) => record(r.partition, r.value))));
      // Some calls meet an idle partition, most a busy one.
      if (call % 400 === 0) await acks[call];
    }
    const offsets = await Promise.all(acks);
    const found = await readAll(log, topic);
    for (const partition of [0, 1, 2]) expect(values(found.get(partition))).toEqual(sent.flat().filter((r) => r.partition === partition).map((r) => r.value));
    sent.forEach((list, call) => list.forEach((r, i) => expect(found.get(r.partition)![offsets[call]![i]!]!.value!.toString()).toBe(r.value)));
    expect(appender.pendingBytes()).toBe(0);
  });

  test('keys, null values and headers come back as they went', async () => {
    const topic = await world().topic(log, 1);
    const appender = await log.appender();
    const odd = [
      { partition: 0, key: null, value: Buffer.from('no key') },
      { partition: 0, key: Buffer.from('gone'), value: null },
      { partition: 0, key: Buffer.alloc(0), value: Buffer.alloc(0), headers: [['a', Buffer.from([0, 255])], ['a', Buffer.alloc(0)]] as const },
    ];
    await appender.append(topic, odd);
    const found = (await readAll(log, topic)).get(0)!;
    expect(found.map((r) => ({ key: r.key, value: r.value, headers: r.headers }))).toEqual(odd.map((r) => ({ key: r.key, value: r.value, headers: r.headers ?? [] })));
  });

  test.runIf(long)('a broker that hangs: every append is acknowledged after it goes on, nothing is lost or overtaken', async () => {
    const quick = world().log(driver, { deadlineMs: 2000 });
    const topic = await world().topic(log, 2);
    const appender = await quick.appender({ deadlineMs: 60_000 });
    await appender.append(topic, [record(0, 'first'), record(1, 'first')]);
    const acks: Promise<readonly number[]>[] = [];
    let sent = 0;
    const send = (): void => {
      acks.push(appender.append(topic, [record(0, `${sent}`), record(1, `${sent}`)]));
      sent++;
    };
    await world().frozen(async () => {
      const thawAt = performance.now() + 5000;
      // Longer than the request's own time-out, so that requests are given up and sent again.
      await until('five seconds of a frozen broker', () => { send(); return performance.now(); }, (now) => now > thawAt);
    });
    for (let i = 0; i < 100; i++) send();
    const offsets = await Promise.all(acks);
    const found = await readAll(log, topic);
    for (const partition of [0, 1]) {
      const list = values(found.get(partition));
      expect(firsts(list)).toEqual(['first', ...Array.from({ length: sent }, (_, i) => `${i}`)]);
      offsets.forEach((o, i) => expect(list[o[partition]!]).toBe(`${i}`));
    }
  });

  test('an append over its deadline is rejected with everything behind it, and what is called then is not overtaken', async () => {
    const quick = world().log(driver, { deadlineMs: 1000 });
    const topic = await world().topic(log, 1);
    const appender = await quick.appender({ deadlineMs: 1500 });
    await appender.append(topic, [record(0, 'before')]);
    const codes = await world().frozen(async () => {
      const first = appender.append(topic, [record(0, 'a')]);
      // Later than the next request may begin: not in the request of the first, but behind it.
      await new Promise((done) => { setTimeout(done, 20); });
      const second = appender.append(topic, [record(0, 'b')]);
      const third = first.catch(() => appender.append(topic, [record(0, 'c')]));
      const codes = (await Promise.allSettled([first, second, third])).map((r) => (r.status === 'rejected' ? (r.reason as { code: string }).code : 'acknowledged'));
      expect(appender.pendingBytes()).toBe(0);
      return codes;
    });
    expect(codes).toEqual(['log-append-failed', 'log-append-failed', 'log-append-failed']);
    const offset = await until('the appender works again', () => appender.append(topic, [record(0, 'after')]).then(([o]) => o!, () => -1), (o) => o >= 0);
    const list = values((await readAll(log, topic)).get(0));
    expect(list[offset]).toBe('after');
    // The first may have been written, its outcome was unknown; what waited behind it was never sent.
    expect(firsts(list).filter((v) => v !== 'a')).toEqual(['before', 'after']);
  });

  test('a record that the topic refuses is rejected for good, and the partition goes on', async () => {
    const topic = await world().topic(log, 1, { 'max.message.bytes': '1048588' });
    const appender = await log.appender();
    await expect(appender.append(topic, [{ partition: 0, key: null, value: Buffer.alloc(tooMuch) }])).rejects.toMatchObject({ code: 'log-fatal' });
    await expect(appender.append(topic, [{ partition: 0, key: null, value: Buffer.alloc(2 * tooMuch) }])).rejects.toMatchObject({ code: 'log-fatal' });
    expect(await until('the partition goes on', () => appender.append(topic, [record(0, 'small')]).catch((error: Error) => error.message), Array.isArray)).toEqual([0]);
  });

  test('a topic or partition that is not there is refused', async () => {
    const topic = await world().topic(log, 1);
    const appender = await log.appender();
    await expect(appender.append(topic, [record(1, 'x')])).rejects.toMatchObject({ code: 'log-fatal' });
    await expect(appender.append(world().name('nowhere'), [record(0, 'x')])).rejects.toMatchObject({ code: 'log-fatal' });
    expect(() => appender.partitionFor(world().name('nowhere'), 'k')).toThrow(/not loaded/);
    expect(await appender.append(topic, [])).toEqual([]);
  });

  test('more than the cap waits for its acknowledgement: the next append is refused before any of it is taken', async () => {
    const topic = await world().topic(log, 1);
    const appender = await log.appender({ maxPendingBytes: 10_000 });
    const first = appender.append(topic, [{ partition: 0, key: null, value: Buffer.alloc(9000) }]);
    await appender.partitions(topic);
    await expect(appender.append(topic, [{ partition: 0, key: null, value: Buffer.alloc(9000) }])).rejects.toMatchObject({ code: 'overloaded' });
    expect(await first).toEqual([0]);
    expect(await appender.append(topic, [record(0, 'next')])).toEqual([1]);
  });
}
