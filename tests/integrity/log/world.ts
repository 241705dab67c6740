/** One real broker and registry for the suite, and hands to use and to harm them. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, type Assignment, type ConsumerHandlers, type GroupConsumer, type GroupConsumerOptions, type Log, type LogOptions, type LogRecord, type OutRecord, type RecordBatch } from '@weir/log';
import { freeze } from '@weir/testing';
import { startPlatform, type Platform } from '../../../infra/local/platform.ts';

export type DriverName = NonNullable<LogOptions['driver']>;

export interface World {
  readonly platform: Platform;
  /** A log of its own, closed when the world ends. */
  log(driver: DriverName, options?: Partial<LogOptions>): Log;
  /** A new topic, all of its partitions with a leader. */
  topic(log: Log, partitions: number, config?: Record<string, string>): Promise<string>;
  name(kind: string): string;
  /** Run while the broker is frozen; it goes on afterwards, whatever happened. */
  frozen<T>(work: () => Promise<T>): Promise<T>;
  stop(): Promise<void>;
}

export async function startWorld(): Promise<World> {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-log-'));
  const platform = await startPlatform({ dataDir, shortLived: true });
  const logs: Log[] = [];
  let count = 0;
  const world: World = {
    platform,
    log(driver, options) {
      const log = createLog({ brokers: platform.bootstrap, clientId: `conformance-${++count}`, driver, ...options });
      logs.push(log);
      return log;
    },
    async topic(log, partitions, config = {}) {
      const name = world.name('topic');
      const admin = await log.admin();
      await admin.createTopics([{ name, partitions, replicationFactor: 1, config }]);
      return name;
    },
    name: (kind) => `${kind}-${process.pid}-${++count}`,
    async frozen(work) {
      const thaw = await freeze(platform.brokers[0]!.process().pid);
      try {
        return await work();
      } finally {
        thaw();
      }
    },
    async stop() {
      await Promise.all(logs.map((log) => log.close()));
      await platform.stop();
      rmSync(dataDir, { recursive: true, force: true });
    },
  };
  return world;
}

/** Waits for a condition; what was last seen is in the error. */
export async function until<T>(what: string, look: () => T | Promise<T>, good: (seen: T) => boolean, deadlineMs = 30_000): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const seen = await look();
    if (good(seen)) return seen;
    if (performance.now() > end) throw new Error(`${what}: not within ${deadlineMs} ms, last seen ${JSON.stringify(seen)?.slice(0, 500)}`);
    await new Promise((done) => setTimeout(done, 10));
  }
}

export function record(partition: number, value: string): OutRecord {
  return { partition, key: Buffer.from(`k${partition}`), value: Buffer.from(value) };
}

export async function readAll(log: Log, topic: string): Promise<Map<number, LogRecord[]>> {
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  const all = new Map<number, LogRecord[]>();
  for (const [partition, end] of await admin.endOffsets(topic)) {
    const list: LogRecord[] = [];
    await reader.read(topic, partition, 0, end, (batch) => { list.push(...batch.records); });
    all.set(partition, list);
  }
  await reader.close();
  return all;
}

export const values = (records: readonly LogRecord[] = []): string[] => records.map((r) => r.value!.toString());

/** A group member that writes down what it was told, and commits what it was given when it is asked to give it back. */
export interface Member {
  readonly consumer: GroupConsumer;
  readonly events: string[];
  readonly batches: RecordBatch[];
  readonly failures: Error[];
  /** Next offset after the last batch, per partition of the present assignment. */
  readonly next: Map<number, Assignment & { next: number }>;
  records(): LogRecord[];
}

export function createMember(log: Log, options: Omit<GroupConsumerOptions, 'handlers'>, overrides: Partial<ConsumerHandlers> = {}): Member {
  const member: Member = {
    consumer: undefined as unknown as GroupConsumer,
    events: [], batches: [], failures: [], next: new Map(),
    records: () => member.batches.flatMap((b) => b.records),
  };
  const handlers: ConsumerHandlers = {
    async assigned(parts) {
      member.events.push(`assigned ${parts.map((p) => p.partition).join(',')}`);
      for (const part of parts) member.next.set(part.partition, { ...part, next: part.position });
    },
    async revoked(parts, reason) {
      if (reason !== 'lost' && parts.length > 0) await member.consumer.commit(parts.map((p) => ({ topic: p.topic, partition: p.partition, epoch: p.epoch, offset: member.next.get(p.partition)!.next })));
      member.events.push(`revoked ${reason} ${parts.map((p) => p.partition).join(',')}`);
      for (const part of parts) member.next.delete(part.partition);
    },
    batch(batch) {
      const at = member.next.get(batch.partition);
      if (at === undefined || at.epoch !== batch.epoch) throw new Error(`a batch of partition ${batch.partition} under epoch ${batch.epoch} came without an assignment`);
      const first = batch.records[0]?.offset;
      if (first !== undefined && first !== at.next) throw new Error(`partition ${batch.partition}: expected offset ${at.next}, got ${first}`);
      at.next = batch.nextOffset;
      member.batches.push(batch);
    },
    failed(error) { member.failures.push(error); },
    ...overrides,
  };
  (member as { consumer: GroupConsumer }).consumer = log.consumer({ ...options, handlers });
  return member;
}
