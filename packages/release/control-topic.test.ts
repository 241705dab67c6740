import type { LogRecord, RecordBatch } from '@weir/log';
import { expect, test } from 'vitest';
import { followControl, readControl, valuesUnder } from './control-topic.ts';

/** weir.control with these entries, read two at a time; `later` is what comes to who follows it from `from`. Values are JSON, as this test has no registry. */
function world(entries: readonly (readonly [key: string | null, value: unknown])[]) {
  const records = entries.map(([key, value], offset) => ({ offset, key: key === null ? null : Buffer.from(key), value: value === null ? null : Buffer.from(JSON.stringify(value)) }) as LogRecord);
  const prepared: string[] = [];
  const following: { from: number | undefined; take: (batch: RecordBatch) => void | Promise<void>; failed: (error: Error) => void }[] = [];
  const batch = (list: readonly LogRecord[]) => ({ records: list }) as unknown as RecordBatch;
  const ports = {
    topic: 'weir.control',
    admin: { endOffsets: (topic: string) => Promise.resolve(new Map(topic === 'weir.control' && records.length > 0 ? [[0, records.length]] : [])) },
    reader: {
      async read(_topic: string, _partition: number, from: number, to: number, take: (of: RecordBatch) => void | Promise<void>) { for (let at = from; at < to; at += 2) await take(batch(records.slice(at, Math.min(to, at + 2)))); },
      follow(_topic: string, from: ReadonlyMap<number, number>, take: (of: RecordBatch) => void | Promise<void>, failed: (error: Error) => void) {
        following.push({ from: from.get(0), take, failed });
        return Promise.resolve('follower' as never);
      },
    },
  };
  const serde = { prepare: (bytes: Buffer) => Promise.resolve().then(() => { prepared.push(bytes.toString()); }), decode: (bytes: Buffer) => {
    if (!prepared.includes(bytes.toString())) throw new Error('decoded before its schema was there');
    return { name: '', value: JSON.parse(bytes.toString()) as unknown };
  } };
  return { ports, serde, following, prepared, batch };
}

test('what stands under one kind of key is told in order, up to the end; other keys, no keys and what was deleted are not looked at', async () => {
  const { ports, serde, prepared } = world([['erasure/1', 'a'], ['cursor/shop', 'x'], ['erasure/2', 'b'], ['erasure/1', null], [null, 'y'], ['erasure/1', 'c']]);
  const found: string[] = [];
  expect(await readControl(ports as never, valuesUnder<string>(serde as never, 'erasure/', (value) => { found.push(value); }))).toBe(6);
  expect(found).toEqual(['a', 'b', 'c']);
  expect(prepared).toHaveLength(3);
});

test('who follows has all up to the end first, and is told from there', async () => {
  const { ports, serde, following, batch } = world([['token/1', 'a'], ['token/2', 'b'], ['token/3', 'c']]);
  const found: string[] = [];
  const failed = (): void => undefined;
  expect(await followControl(ports as never, valuesUnder<string>(serde as never, 'token/', (value) => { found.push(value); }), failed)).toBe('follower');
  expect([found, following.map((f) => [f.from, f.failed])]).toEqual([['a', 'b', 'c'], [[3, failed]]]);
  await following[0]!.take(batch([{ offset: 3, key: Buffer.from('token/1'), value: Buffer.from('"d"') } as LogRecord]));
  expect(found.at(-1)).toBe('d');
  expect(await readControl(world([]).ports as never, () => { throw new Error('there is nothing'); })).toBe(0);
});
