/** Writers and members that write down what they did and were told, for the checker. */
import type { Appender, Assignment, ConsumerHandlers, GroupConsumer, GroupConsumerOptions, Log } from '@weir/log';
import { waitFor } from '@weir/testing';
import { check, type Event, type FinalLog, type Verdict } from './checker.ts';
import type { World } from './world.ts';

export interface History {
  readonly events: Event[];
  readonly topic: string;
  readonly groupId: string;
  /** A value that no other record has. */
  value(): string;
  atEnd(cleanup: () => void): void;
}

export function createHistory(world: World, topic: string): History {
  let count = 0;
  return { events: [], topic, groupId: world.name('group'), value: () => `v${++count}`, atEnd: (cleanup) => world.atEnd(cleanup) };
}

/** One append, written down. Resolves with the offsets, or with the code of the rejection. */
export async function append(history: History, appender: Appender, partitions: readonly number[], key: Buffer | null = Buffer.from('k')): Promise<readonly number[] | string> {
  const records = partitions.map((partition) => ({ partition, key, value: history.value() }));
  for (const { partition, value } of records) history.events.push({ kind: 'send', partition, value });
  try {
    const offsets = await appender.append(history.topic, records.map((r) => ({ ...r, value: Buffer.from(r.value) })));
    records.forEach(({ partition, value }, i) => history.events.push({ kind: 'ack', partition, value, offset: offsets[i]! }));
    return offsets;
  } catch (error) {
    return (error as { code?: string }).code ?? String(error);
  }
}

export interface Writer {
  /** Stops calling and waits for every answer; the codes of the appends that were rejected. */
  stop(): Promise<string[]>;
  calls(): number;
  acked(): number;
}

/** Appends that span all partitions, one call every few milliseconds, whether earlier ones are answered or not (up to a bound). */
export function startWriter(history: History, appender: Appender, partitions: number, everyMs = 5): Writer {
  const all = Array.from({ length: partitions }, (_, p) => p);
  const waiting = new Set<Promise<unknown>>();
  const rejected: string[] = [];
  let calls = 0;
  let acked = 0;
  const timer = setInterval(() => {
    if (waiting.size > 500) return;
    calls++;
    const call = append(history, appender, all).then((end) => {
      waiting.delete(call);
      if (typeof end === 'string') rejected.push(end);
      else acked++;
    });
    waiting.add(call);
  }, everyMs);
  history.atEnd(() => clearInterval(timer));
  return {
    async stop() {
      clearInterval(timer);
      await Promise.all(waiting);
      return rejected;
    },
    calls: () => calls,
    acked: () => acked,
  };
}

export interface Member {
  readonly name: string;
  readonly consumer: GroupConsumer;
  /** Assignments and revocations, in words. */
  readonly told: string[];
  readonly failures: Error[];
  /** Records given out so far. */
  polled(): number;
}

export interface MemberOptions extends Partial<Omit<GroupConsumerOptions, 'handlers'>> {
  readonly handlers?: Partial<ConsumerHandlers>;
  /** Commit after each batch (default), or only when partitions leave. */
  readonly commits?: 'each batch' | 'on leaving';
}

/** A member that commits what it was given, and gives its partitions back with everything committed. */
export function createMember(world: World, log: Log, history: History, { handlers, commits = 'each batch', ...options }: MemberOptions = {}): Member {
  const name = world.name('member');
  const next = new Map<number, Assignment & { next: number }>();
  let polled = 0;
  const told: string[] = [];
  const failures: Error[] = [];
  const commit = async (parts: readonly Assignment[]): Promise<void> => {
    const offsets = parts.flatMap((p) => {
      const at = next.get(p.partition);
      return at?.epoch === p.epoch && at.next > at.position ? [{ topic: p.topic, partition: p.partition, epoch: p.epoch, offset: at.next }] : [];
    });
    await consumer.commit(offsets).then(() => { for (const o of offsets) history.events.push({ kind: 'commit', partition: o.partition, offset: o.offset }); }, (error: unknown) => { told.push(`commit ${(error as { code: string }).code}`); });
  };
  const consumer = log.consumer({
    groupId: history.groupId, topics: [history.topic], sessionTimeoutMs: 6000, ...options,
    handlers: {
      async assigned(parts) {
        told.push(`assigned ${parts.map((p) => p.partition).join()}`);
        for (const part of parts) {
          next.set(part.partition, { ...part, next: part.position });
          history.events.push({ kind: 'assigned', member: name, epoch: part.epoch, partition: part.partition, position: part.position });
        }
      },
      async revoked(parts, reason) {
        if (reason !== 'lost') await commit(parts);
        told.push(`revoked ${reason} ${parts.map((p) => p.partition).join()}`);
        for (const part of parts) next.delete(part.partition);
      },
      batch(batch) {
        for (const r of batch.records) history.events.push({ kind: 'poll', member: name, epoch: batch.epoch, partition: batch.partition, offset: r.offset, value: r.value!.toString() });
        polled += batch.records.length;
        const at = next.get(batch.partition);
        if (at === undefined || at.epoch !== batch.epoch) throw new Error(`a batch of partition ${batch.partition} under epoch ${batch.epoch} without its assignment`);
        at.next = batch.nextOffset;
        if (commits === 'each batch') void commit([at]);
      },
      failed(error) { failures.push(error); },
      ...handlers,
    },
  });
  return { name, consumer, told, failures, polled: () => polled };
}

/** The log as it is now; it has no end that moves: the writers have stopped. */
export async function finalLog(log: Log, topic: string): Promise<FinalLog> {
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  const all = new Map<number, { offset: number; value: string }[]>();
  for (const [partition, end] of await admin.endOffsets(topic)) {
    const list: { offset: number; value: string }[] = [];
    await reader.read(topic, partition, 0, end, (batch) => { for (const r of batch.records) list.push({ offset: r.offset, value: r.value!.toString() }); });
    all.set(partition, list);
  }
  await reader.close();
  return all;
}

/** Until the group has committed everything that the log has. */
export async function settled(log: Log, history: History, deadlineMs = 90_000): Promise<void> {
  const admin = await log.admin();
  await waitFor(`${history.groupId} has no lag`, async () => {
    const [ends, committed] = [await admin.endOffsets(history.topic), await admin.committed(history.groupId, history.topic)];
    return [...ends].every(([p, end]) => end === 0 || committed.get(p) === end);
  }, deadlineMs);
}

/** The verdict over a history; throws what is wrong, else says the figures. */
export function judge(history: History, log: FinalLog, options: { seen: boolean }): Verdict {
  const verdict = check(history.events, log, options);
  if (verdict.anomalies.length > 0) throw new Error(`${verdict.anomalies.length} anomalies: ${verdict.anomalies.slice(0, 5).map((a) => `${a.kind}: ${a.detail}`).join('; ')}`);
  return verdict;
}

export const figures = (v: Verdict): string => `${v.sent} sent, ${v.acked} acknowledged${v.polled > 0 ? `, ${v.polled} read` : ''}${v.resent > 0 ? `, ${v.resent} in the log again` : ''}`;
