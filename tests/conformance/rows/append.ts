import { waitFor } from '@weir/testing';
import { never } from '../harm.ts';
import { must, same, type Row } from '../row.ts';
import { append, createHistory, figures, finalLog, judge, startWriter } from '../traffic.ts';

/** The batch is written, its answer is not: what a broker does that dies between the two. */
const answersLost = { produce: (send: any) => async (...args: any[]) => { await send(...args); return never(); } };

export const appendRows: readonly Row[] = [
  {
    id: 'leaders-move', hazards: ['K1'], limitMs: 120_000,
    title: 'leaders move while every append spans all of them: what was acknowledged is in the log, in order',
    guard: 'producer.ts: one acknowledgement per partition asked for; appender.ts: no batch of a partition before the one that has none',
    async run(world, driver) {
      const topic = await world.topic(6);
      const history = createHistory(world, topic);
      const log = world.log(driver);
      const writer = startWriter(history, await log.appender({ deadlineMs: 60_000 }), 6);
      let moves = 0;
      for (let round = 1; round <= 8; round++) {
        const before = writer.acked();
        await world.operator.moveLeaders(topic, [0, 1, 2, 3, 4, 5].map((p) => 1 + ((p + round) % 3)));
        moves += 6;
        await waitFor('traffic under the new leaders', () => writer.acked() > before + 50, 60_000);
      }
      same(await writer.stop(), [], 'rejected');
      const verdict = judge(history, await finalLog(log, topic), { seen: false });
      return `${moves} moves, ${figures(verdict)}`;
    },
  },
  {
    id: 'rejected-then-another', hazards: ['K2'], limitMs: 60_000,
    title: 'an append that is rejected although it was written, then another record: the other one is written, at the offset that it is told',
    guard: 'drivers/*: no producer id, so the broker has no sequence to take one record for another by',
    async run(world, driver) {
      const topic = await world.topic(1);
      const history = createHistory(world, topic);
      const { log, driver: harm } = world.harmedLog(driver, { deadlineMs: 1500 });
      const appender = await log.appender({ deadlineMs: 1500 });
      await append(history, appender, [0]);
      harm.harm(answersLost);
      for (let i = 0; i < 2; i++) same(await append(history, appender, [0]), 'log-append-failed', 'the append without an answer');
      harm.heal();
      const late = world.log(driver);
      const working = await late.appender();
      for (const by of [appender, working, appender]) await waitFor('another record is acknowledged', async () => typeof await append(history, by, [0]) !== 'string');
      const found = await finalLog(late, topic);
      const verdict = judge(history, found, { seen: false });
      const unacknowledged = found.get(0)!.length - verdict.acked;
      must(unacknowledged > 0, 'the harm did no harm: nothing that was rejected has been written');
      return `${figures(verdict)}, ${unacknowledged} written and rejected`;
    },
  },
  {
    id: 'same-partition-again', hazards: ['K3'], limitMs: 60_000,
    title: 'answers are lost: what is sent again goes to the partition it was given, without a key as with one',
    guard: 'appender.ts: the partition is part of the call, the batch is sent again as it is',
    async run(world, driver) {
      const topic = await world.topic(3);
      const history = createHistory(world, topic);
      const { log, driver: harm } = world.harmedLog(driver, { deadlineMs: 1000 });
      const appender = await log.appender({ deadlineMs: 60_000 });
      await append(history, appender, [0, 1, 2]);
      let lost = 0;
      harm.harm({ produce: (send) => async (...args) => { const answer = await send(...args); return ++lost % 2 === 1 && lost < 12 ? never() : answer; } });
      const ends = await Promise.all(Array.from({ length: 60 }, (_, i) => append(history, appender, [i % 3], i % 2 === 0 ? null : Buffer.from('k'))));
      must(ends.every((e) => typeof e !== 'string'), `an append was rejected: ${ends.find((e) => typeof e === 'string')}`);
      harm.heal();
      const found = await finalLog(log, topic);
      const wanted = new Map(history.events.flatMap((e) => (e.kind === 'send' ? [[e.value, e.partition]] : [])));
      for (const [partition, records] of found) for (const { value } of records) same(partition, wanted.get(value) as number, `the partition of ${value}`);
      const verdict = judge(history, found, { seen: false });
      must(verdict.resent > 0, 'nothing was sent again');
      return `${figures(verdict)}, ${lost} answers looked at`;
    },
  },
  {
    id: 'many-at-once', hazards: ['#326'], limitMs: 60_000,
    title: '3,000 appends at once: each has an offset of its own, all are in the log',
    guard: 'appender.ts: one request per partition on the way, offsets from the batch that was acknowledged',
    async run(world, driver) {
      const topic = await world.topic(3);
      const history = createHistory(world, topic);
      const log = world.log(driver);
      const appender = await log.appender();
      const offsets = await Promise.all(Array.from({ length: 3000 }, (_, i) => append(history, appender, [i % 3])));
      must(offsets.every((o) => typeof o !== 'string'), 'an append was rejected');
      const verdict = judge(history, await finalLog(log, topic), { seen: false });
      const distinct = new Set(history.events.flatMap((e) => (e.kind === 'ack' ? [`${e.partition}@${e.offset}`] : []))).size;
      same(distinct, 3000, 'distinct offsets');
      return figures(verdict);
    },
  },
  {
    id: 'history-deleted', hazards: ['#309'], limitMs: 60_000,
    title: 'everything that the producer wrote is deleted under it: it goes on',
    guard: 'drivers/*: no producer state at the broker that could be lost',
    async run(world, driver) {
      const topic = await world.topic(1);
      const history = createHistory(world, topic);
      const log = world.log(driver);
      const appender = await log.appender();
      const [last] = (await Promise.all(Array.from({ length: 100 }, () => append(history, appender, [0])))).at(-1) as number[];
      await world.operator.deleteRecords(topic, 0, last! + 1);
      const ends = await Promise.all(Array.from({ length: 100 }, () => append(history, appender, [0])));
      same(ends.map((e) => (typeof e === 'string' ? e : e[0])), Array.from({ length: 100 }, (_, i) => last! + 1 + i), 'offsets after it');
      same((await finalLog(log, topic)).get(0)!.map((r) => r.offset), ends.map((e) => (e as number[])[0]!), 'what the log has');
      return '100 deleted, 100 written after it';
    },
  },
];
