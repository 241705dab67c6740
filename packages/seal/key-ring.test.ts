import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Follower, Log, OutRecord, RecordBatch } from '@weir/log';
import { createLocalSerde } from '@weir/testing';
import { pino } from 'pino';
import { afterEach, expect, test, vi } from 'vitest';
import { createKeyRing, type KeyRing } from './key-ring.ts';

const serde = await createLocalSerde();
const workspaceKey = randomBytes(32);
const dirs: string[] = [];
afterEach(() => {
  vi.useRealTimers();
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});

/** A topic of one partition, with a ring that writes to it, and one that reads by way of a leader that may have been cut off: it tells and shows `shown` records. */
async function world() {
  const records: OutRecord[] = [];
  const at = { shown: Number.POSITIVE_INFINITY, asked: 0 };
  async function ring(leader: { shown: number; asked: number }): Promise<KeyRing> {
    const dir = mkdtempSync(join(tmpdir(), 'weir-key-ring-'));
    dirs.push(dir);
    let next = 0;
    let take: (batch: RecordBatch) => void | Promise<void> = () => undefined;
    const fetch = async (): Promise<void> => {
      const end = Math.min(leader.shown, records.length);
      if (next >= end) return;
      const from = next;
      next = end;
      await take({ topic: 'keys', partition: 0, epoch: 0, bytes: 1, highWatermark: end, nextOffset: end, records: records.slice(from, end).map(({ key, value }, i) => ({ offset: from + i, timestamp: 1, key, value, headers: [] })) } as unknown as RecordBatch);
    };
    const log = {
      reader: async () => ({
        read: async () => undefined, readOne: async () => undefined, close: async () => undefined,
        follow: async (_topic: string, _from: unknown, onBatch: typeof take): Promise<Follower> => {
          take = onBatch;
          return { close: async () => undefined } as Follower;
        },
      }),
      admin: async () => ({
        beginningOffsets: async () => new Map([[0, 0]]), close: async () => undefined,
        endOffsets: async () => {
          leader.asked++;
          const end = Math.min(leader.shown, records.length);
          void fetch();
          return new Map([[0, end]]);
        },
      }),
      appender: async () => ({
        partitions: async () => 1, partitionFor: () => 0, close: async () => undefined,
        append: async (_topic: string, added: readonly OutRecord[]) => {
          records.push(...added);
          setImmediate(() => { void fetch(); });
          return added.map((_, i) => records.length - added.length + i);
        },
      }),
    } as unknown as Log;
    const made = await createKeyRing({ log, serde, topic: 'keys', workspaceKey, stateDir: dir, logger: pino({ level: 'silent' }), now: () => 1 }, (error) => { throw error; });
    await made.start();
    return made;
  }
  const [writer, reader] = [await ring({ shown: Number.POSITIVE_INFINITY, asked: 0 }), await ring(at)];
  return { writer, reader, at, stop: () => Promise.all([writer.stop(), reader.stop()]) };
}
const never = (): boolean => false;

/** Lets what waits half a second between two questions go on, until it is done. */
async function soon(work: Promise<void>, each: (round: number) => void = () => undefined): Promise<number> {
  let done = false;
  void work.then(() => { done = true; });
  let rounds = 0;
  for (; !done && rounds < 100; rounds++) {
    each(rounds);
    await vi.advanceTimersByTimeAsync(500);
  }
  await work;
  return rounds;
}

test('a key behind the end that a leader tells which was cut off is looked for, and is not taken for destroyed', async () => {
  const { writer, reader, at, stop } = await world();
  at.shown = 0;
  await writer.ensure(['email:ann']);
  const id = Buffer.from(writer.current('email:ann')!.id).toString('latin1');
  await reader.readToEnd();
  expect(reader.has(id)).toBe(false);
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  await soon(reader.find([id], never), (round) => { if (round === 7) at.shown = Number.POSITIVE_INFINITY; });
  expect(reader.has(id)).toBe(true);
  await stop();
});

test('a key whose tombstone was read is known to be destroyed; one that is nowhere is looked for once, and not by who has lost its partition', async () => {
  const { writer, reader, at, stop } = await world();
  await writer.ensure(['email:ann']);
  const id = Buffer.from(writer.current('email:ann')!.id).toString('latin1');
  await writer.destroy(['email:ann']);
  await reader.readToEnd();
  at.asked = 0;
  await reader.find([id], never);
  expect(at.asked).toBe(0);
  const lost = randomBytes(16).toString('latin1');
  vi.useFakeTimers({ toFake: ['setTimeout'] });
  await reader.find([lost], () => true);
  expect(at.asked).toBe(1);
  expect(await soon(reader.find([id, lost], never))).toBe(19);
  expect(at.asked).toBe(21);
  await reader.find([lost], never);
  expect([at.asked, reader.has(lost)]).toEqual([21, false]);
  await stop();
});
