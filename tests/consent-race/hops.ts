import { createSerde, type LogAdmin, type Reader } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';

/** A withdrawal that was answered as applied: where its records are on weir.consent.changes, and the times of its sender, ms since the epoch. */
export interface Asked {
  readonly offsets: ReadonlyArray<{ readonly partition: number; readonly offset: number }>;
  readonly askedAt: number;
  readonly answeredAt: number;
}

/** What the topics say of the ways of all changes, each list in the order of its topic. Times in ms since the epoch, of one machine. */
export interface Trail {
  /** `<partition>/<offset>` of weir.consent.changes → when the broker took it. */
  readonly logged: ReadonlyMap<string, number>;
  /** Watermarks on weir.consent, and when the policy service sent them with the states. */
  readonly folds: ReadonlyArray<{ readonly partition: number; readonly next: number; readonly at: number }>;
  /** Reports of the dispatchers, and when each was sent. */
  readonly reports: ReadonlyArray<{ readonly instance: string; readonly folded: readonly number[]; readonly at: number }>;
  /** The last call of each delivery: when it began, and how long the dispatcher waited for its answer, ms. */
  readonly calls: ReadonlyArray<{ readonly at: number; readonly ms: number }>;
}

/** How long each part of the way took, ms; together they are the time from request to answer. */
export interface Hops {
  readonly 'asked → on the log': number;
  readonly 'on the log → state sent': number;
  readonly 'state sent → last report sent': number;
  readonly 'last report sent → answered': number;
}

/** The way of each withdrawal; one whose records are not found has none. */
export function hopsOf(asked: readonly Asked[], { logged, folds, reports }: Pick<Trail, 'logged' | 'folds' | 'reports'>): Hops[] {
  return asked.flatMap(({ offsets, askedAt, answeredAt }) => {
    const onLog = offsets.map(({ partition, offset }) => logged.get(`${partition}/${offset}`));
    const sent = offsets.map(({ partition, offset }) => folds.find((f) => f.partition === partition && f.next > offset)?.at);
    const told = new Map<string, number>();
    for (const { instance, folded, at } of reports) if (!told.has(instance) && at <= answeredAt && offsets.every(({ partition, offset }) => (folded[partition] ?? 0) > offset)) told.set(instance, at);
    if (told.size === 0 || [...onLog, ...sent].includes(undefined)) return [];
    const [a, b, c] = [Math.max(...onLog as number[]), Math.max(...sent as number[]), Math.max(...told.values())];
    return [{ 'asked → on the log': a - askedAt, 'on the log → state sent': b - a, 'state sent → last report sent': c - b, 'last report sent → answered': answeredAt - c }];
  });
}

/** Read from the topics, after the race: what the records say themselves, no counter of a service. */
export async function readTrail(topics: Pick<TopicNames, 'consentChanges' | 'consent' | 'consentApplied' | 'outcome'>, ports: { readonly reader: Reader; readonly admin: LogAdmin; readonly registryUrl: string }): Promise<Trail> {
  const serde = createSerde({ registryUrl: ports.registryUrl });
  await serde.start();
  const logged = new Map<string, number>();
  const folds: Trail['folds'][number][] = [];
  const reports: Trail['reports'][number][] = [];
  const calls: Trail['calls'][number][] = [];
  const each = async (topic: string, take: (partition: number, record: { readonly offset: number; readonly timestamp: number }, value: { readonly name: string; readonly value: any } | undefined) => void, decode = true): Promise<void> => {
    for (const [partition, end] of await ports.admin.endOffsets(topic)) {
      await ports.reader.read(topic, partition, 0, end, async ({ records }) => {
        for (const record of records) {
          if (decode && record.value !== null) await serde.prepare(record.value);
          take(partition, record, decode && record.value !== null ? serde.decode(record.value) : undefined);
        }
      });
    }
  };
  // The changes themselves are sealed.
  await each(topics.consentChanges, (partition, { offset, timestamp }) => logged.set(`${partition}/${offset}`, timestamp), false);
  await each(topics.consent, (partition, { timestamp }, found) => { if (found?.name === 'weir.internal.ConsentFolded') folds.push({ partition, next: Number(found.value.nextOffset), at: timestamp }); });
  await each(topics.consentApplied, (_, { timestamp }, found) => { if (found !== undefined) reports.push({ instance: found.value.instance, folded: found.value.folded.map(Number), at: timestamp }); });
  await each(topics.outcome, (_, __, found) => { if (found?.value.attempt !== undefined && found.value.attempt !== null) calls.push({ at: Number(found.value.attempt.at), ms: found.value.attempt.durationMs }); });
  return { logged, folds, reports, calls };
}
