import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Appender, Log, OutRecord, RecordBatch } from '@weir/log';
import { createTopicTable, openTable, type TopicTable, type TopicTableOptions } from '@weir/state';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { until, type World } from './world.ts';

const puts = (batch: RecordBatch) => batch.records.map((r) => ({ key: r.key!.toString(), value: r.value }));
const entry = (key: string, value: string | null): OutRecord => ({ partition: key.length % 2, key: Buffer.from(key), value: value === null ? null : Buffer.from(value) });

export function tableCases(world: () => World): void {
  let log: Log;
  let appender: Appender;
  const opened: TopicTable[] = [];
  const dirs: string[] = [];
  beforeAll(async () => {
    log = world().log('platformatic');
    appender = await log.appender();
  });
  afterEach(async () => {
    await Promise.all(opened.splice(0).map((t) => t.close()));
    for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
  });

  function dir(): string {
    const path = mkdtempSync(join(tmpdir(), 'weir-topic-table-'));
    dirs.push(path);
    return path;
  }

  async function create(topic: string, path: string, extra: Partial<TopicTableOptions> = {}) {
    const cache = openTable({ path });
    const errors: Error[] = [];
    const table = createTopicTable({ reader: await log.reader(), admin: await log.admin(), topic, table: cache, puts, onError: (e) => errors.push(e), ...extra });
    opened.push(table);
    return { cache, table, errors };
  }

  async function closed(table: TopicTable): Promise<void> {
    opened.splice(opened.indexOf(table), 1);
    await table.close();
  }

  test('a table is read whole, follows on, and after a restart goes on from its checkpoint', async () => {
    const topic = await world().topic(log, 2, { 'cleanup.policy': 'compact' });
    const path = dir();
    await appender.append(topic, [entry('a', '1'), entry('bb', '2'), entry('a', '3'), entry('cc', '4'), entry('cc', null)]);
    const first = await create(topic, path);
    expect(first.table.atLeast([])).toBe(false);
    expect(await first.table.start()).toMatchObject({ reason: 'there was no checkpoint', records: 5 });
    expect(['a', 'bb', 'cc'].map((k) => first.cache.get(k)?.toString())).toEqual(['3', '2', undefined]);
    const [offset] = await appender.append(topic, [entry('dd', '5')]);
    await first.table.waitFor([offset! + 1, 0], 10_000);
    expect(first.cache.get('dd')?.toString()).toBe('5');
    await expect(first.table.waitFor([offset! + 2], 50)).rejects.toMatchObject({ code: 'log-deadline' });
    await closed(first.table);

    await appender.append(topic, [entry('a', '6')]);
    const second = await create(topic, path);
    expect(await second.table.start()).toMatchObject({ reason: undefined, records: 1 });
    expect([second.cache.get('a')?.toString(), second.cache.get('dd')?.toString()]).toEqual(['6', '5']);
    expect([...second.table.positions()]).toEqual([4, 3]);
    expect(second.errors).toEqual([]);
  });

  test.each([
    ['shorter', [entry('a', 'new')], /was read to \d+ and ends at/],
    ['longer', [entry('x', 'new'), entry('x', 'new'), entry('x', 'new'), entry('yy', 'new'), entry('yy', 'new'), entry('a', 'new')], /has another record at/],
  ] as const)('a topic that was made anew, %s than before, is read from its beginning', async (_which, records, reason) => {
    const topic = await world().topic(log, 2, { 'cleanup.policy': 'compact' });
    const path = dir();
    await appender.append(topic, [entry('a', 'old'), entry('gone', 'old'), entry('a', 'old')]);
    const first = await create(topic, path);
    await first.table.start();
    await closed(first.table);

    const admin = await log.admin();
    await admin.deleteTopics([topic]);
    await until('the topic is gone', () => admin.listTopics(), (names) => !names.includes(topic));
    await admin.createTopics([{ name: topic, partitions: 2, replicationFactor: 1, config: {} }]);
    const fresh = await log.appender();
    await fresh.append(topic, records);
    const second = await create(topic, path);
    expect((await second.table.start()).reason).toMatch(reason);
    expect([second.cache.get('a')?.toString(), second.cache.get('gone')]).toEqual(['new', undefined]);
  });

  test('a checkpoint so old that tombstones may be gone is not used', async () => {
    const topic = await world().topic(log, 2, { 'cleanup.policy': 'compact' });
    const path = dir();
    await appender.append(topic, [entry('a', '1')]);
    const first = await create(topic, path);
    await first.table.start();
    await closed(first.table);
    await appender.append(topic, [entry('a', '2')]);
    const second = await create(topic, path, { maxAgeMs: -1 });
    expect((await second.table.start()).reason).toMatch(/longer than/);
    expect(second.cache.get('a')?.toString()).toBe('2');
  });
}
