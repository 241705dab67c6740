import { createLog, type Log } from '@weir/log';
import { expect, test } from 'vitest';
import { SimBroker } from './broker.ts';
import { createActor, createRandom, Scheduler } from './time.ts';

/** Work of one client on a topic of one partition with three records, in virtual time. */
async function onTopic(work: (log: Log, broker: SimBroker) => Promise<void>): Promise<void> {
  const scheduler = new Scheduler();
  const broker = new SimBroker({ scheduler, random: createRandom(1), nodes: 3, faults: { on: false, counts: new Map(), count: () => undefined, hit: () => false, hitBy: () => false } });
  broker.create('t', 1, false);
  const restore = scheduler.install(createRandom(2));
  let ended: { readonly error: unknown } | undefined;
  try {
    const actor = createActor('a');
    scheduler.as(actor, () => {
      (async () => {
        const log = createLog({ brokers: broker.brokers, clientId: 'a' }, broker.driver(actor));
        await (await log.appender()).append('t', [1, 2, 3].map((n) => ({ partition: 0, key: null, value: Buffer.from([n]) })));
        await work(log, broker);
      })().then(() => { ended = { error: undefined }; }, (error: unknown) => { ended = { error }; });
    });
    await scheduler.run(() => ended !== undefined, 600_000);
  } finally {
    restore();
  }
  expect(ended).toEqual({ error: undefined });
}

test('a topic that is deleted while it is read and written ends both with an error that names it, and so the next start', async () => {
  await onTopic(async (log, broker) => {
    const reader = await log.reader();
    const failed = Promise.withResolvers<Error>();
    await reader.follow('t', new Map([[0, 3]]), () => undefined, failed.resolve);
    const appender = await log.appender({ deadlineMs: 5000 });
    await appender.append('t', [{ partition: 0, key: null, value: Buffer.from([4]) }]);
    broker.topics.delete('t');
    await expect(appender.append('t', [{ partition: 0, key: null, value: Buffer.from([5]) }])).rejects.toMatchObject({ code: 'log-append-failed', message: expect.stringContaining('t/0') as string });
    expect(await failed.promise).toMatchObject({ code: 'log-fatal', message: expect.stringMatching(/\bt(\/0)?\b.*(unknown to the brokers|does not exist)/) as string });
    await expect(reader.read('t', 0, 0, 5, () => undefined)).rejects.toMatchObject({ code: 'log-fatal', message: expect.stringContaining('weir topics apply') as string });
    // Nobody made it by asking.
    expect(broker.topics.has('t')).toBe(false);
  });
});

test('a topic that is made anew while it is followed ends that, with the offsets', async () => {
  await onTopic(async (log, broker) => {
    const failed = Promise.withResolvers<Error>();
    await (await log.reader()).follow('t', new Map([[0, 3]]), () => undefined, failed.resolve);
    broker.create('t', 1, false);
    expect(await failed.promise).toMatchObject({ code: 'log-out-of-range', details: { wanted: 3, start: 0, end: 0 } });
  });
});

/** A member of a group that commits nothing, once it was given what there is. */
async function member(log: Log): Promise<{ readonly offsets: number[]; readonly failed: Promise<Error> }> {
  const offsets: number[] = [];
  const failed = Promise.withResolvers<Error>();
  const consumer = log.consumer({ groupId: 'g', topics: ['t'], handlers: { assigned: async () => {}, revoked: async () => {}, batch: ({ records }) => { offsets.push(...records.map((r) => r.offset)); }, failed: failed.resolve } });
  await consumer.start();
  while (offsets.length < 3) await new Promise((done) => { setTimeout(done, 10); });
  return { offsets, failed: failed.promise };
}

test('a group whose topic is deleted ends with an error that names it', async () => {
  await onTopic(async (log, broker) => {
    const { failed } = await member(log);
    broker.topics.delete('t');
    expect(await failed).toMatchObject({ code: 'log-fatal', message: expect.stringContaining('t/0 has been unknown to the brokers') as string });
  });
});

test('a group whose topic is made anew, longer than it was, is given nothing of it behind its position in the one before', async () => {
  await onTopic(async (log, broker) => {
    const { offsets, failed } = await member(log);
    broker.topics.delete('t');
    // Until it has been told so for so long that no broker lags: no id is asked for here.
    await new Promise((done) => { setTimeout(done, 10_000); });
    broker.create('t', 1, false);
    await (await log.appender()).append('t', Array.from({ length: 5 }, (_, n) => ({ partition: 0, key: null, value: Buffer.from([n]) })));
    expect(await failed).toMatchObject({ code: 'log-out-of-range', details: { wanted: 3, start: 0, end: 5 } });
    expect(offsets).toEqual([0, 1, 2]);
  });
});
