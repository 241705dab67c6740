import type { LogAdmin, Reader } from '@weir/log';
import { H, type groupNames, type TopicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Store } from '../store.ts';
import { textOf } from './derive.ts';
import type { ReplayOrder } from './order.ts';

export interface SettlePorts {
  readonly admin: LogAdmin;
  readonly reader: Pick<Reader, 'read'>;
  readonly store: Pick<Store, 'position' | 'counters'>;
  readonly topics: TopicNames;
  readonly groups: ReturnType<typeof groupNames>;
  readonly release: () => Release;
  readonly clock: Clock;
}

const pollMs = 100;
/** Many orders may wait for days. */
const maxPollMs = 1000;
/** How long a dispatcher has for the ends of its topic, before it is asked which of what it has not taken is of the order. */
const patienceMs = 2000;
/** A record of an order is at most this much older than its start: clocks differ. */
const clockSpareMs = 3_600_000;
/** Records of one look, between two of which it can be stopped. */
const lookRecords = 20_000;

/** Whether what a replay put back has been taken by the stages, one after the other, and is in the index. */
export function createSettled(ports: SettlePorts) {
  const { admin, reader, store, topics, groups, clock } = ports;
  const pause = (ms: number): Promise<void> => new Promise((resolve) => { clock.setTimer(resolve, ms); });

  async function until(reached: () => Promise<boolean>, goesOn: () => boolean): Promise<boolean> {
    for (let ms = pollMs; goesOn(); ms = Math.min(maxPollMs, ms * 1.2)) {
      if (await reached()) return true;
      await pause(ms);
    }
    return false;
  }

  /** The group has committed the ends that the topics have now. */
  async function passed(group: string, list: readonly string[], goesOn: () => boolean): Promise<boolean> {
    const waits = await Promise.all(list.map(async (topic) => {
      const ends = await admin.endOffsets(topic);
      return until(async () => {
        // What retention has deleted is taken by nobody any more.
        const [committed, begins] = await Promise.all([admin.committed(group, topic), admin.beginningOffsets(topic)]);
        return [...ends].every(([partition, end]) => Math.max(committed.get(partition) ?? 0, begins.get(partition) ?? 0) >= end);
      }, goesOn);
    }));
    return waits.every(Boolean);
  }

  /** Behind the last record of the order in this range of a partition; 0 = none is of it, undefined = stopped before. */
  async function lastOf(order: string, topic: string, partition: number, from: number, to: number, goesOn: () => boolean): Promise<number | undefined> {
    let last = 0;
    for (let at = from; at < to; at += lookRecords) {
      if (!goesOn()) return undefined;
      await reader.read(topic, partition, at, Math.min(to, at + lookRecords), (batch) => {
        for (const { offset, headers } of batch.records) if (textOf(headers, H.intent) === order) last = offset + 1;
      });
    }
    return last;
  }

  /** The dispatcher has committed what of the order is on its topic now: others' records are not waited for, which may be of a destination that is paused for days. */
  async function dispatched(order: string, startedAt: number, destination: string, goesOn: () => boolean): Promise<boolean> {
    const topic = topics.dispatch(destination);
    const wanted = new Map(await admin.endOffsets(topic));
    const taken = async (): Promise<boolean> => {
      const committed = await admin.committed(groups.dispatcher(destination), topic);
      for (const [partition, end] of wanted) if ((committed.get(partition) ?? 0) >= end) wanted.delete(partition);
      return wanted.size === 0;
    };
    const patient = clock.monotonic() + patienceMs;
    if (!await until(async () => await taken() || clock.monotonic() >= patient, goesOn)) return false;
    if (wanted.size === 0) return true;
    const [committed, started] = await Promise.all([admin.committed(groups.dispatcher(destination), topic), admin.offsetsAt(topic, Math.max(0, startedAt - clockSpareMs))]);
    for (const [partition, end] of wanted) {
      const last = await lastOf(order, topic, partition, Math.max(committed.get(partition) ?? 0, started.get(partition) ?? end), end, goesOn);
      if (last === undefined) return false;
      wanted.set(partition, last);
    }
    return until(taken, goesOn);
  }

  /** The index has what the topics that a selection asks it about hold now: where each delivery stands, and where the canonical records of an event are. */
  async function indexed(goesOn: () => boolean): Promise<boolean> {
    const list = [topics.canonical, topics.dlq, topics.outcome, ...[...ports.release().destinations.keys()].flatMap((name) => [topics.dispatch(name), topics.ledger(name)])];
    const waits = await Promise.all(list.map(async (topic) => {
      const ends = await admin.endOffsets(topic);
      return until(async () => [...ends].every(([partition, end]) => store.position(topic, partition) >= end), goesOn);
    }));
    return waits.every(Boolean);
  }

  return {
    indexed,
    /** False = stopped before. `startedAt`: of the order, ms. */
    async taken(order: ReplayOrder, startedAt: number, goesOn: () => boolean): Promise<boolean> {
      const { sources, destinations } = ports.release();
      const raw = order.from === 'raw' || order.from === 'dlq';
      const canonical = raw || order.from === 'canonical';
      if (raw && !(await passed(groups.normalizer, [...sources.keys()].map(topics.raw), goesOn))) return false;
      if (canonical && !(await passed(groups.policy, [topics.canonical], goesOn))) return false;
      const waits = await Promise.all((order.destination === null ? [...destinations.keys()] : [order.destination]).map((destination) => dispatched(order.id, startedAt, destination, goesOn)));
      if (!waits.every(Boolean)) return false;
      return indexed(goesOn);
    },
    /** How what was put back ended, by state, each delivery once. */
    outcomes: (order: string): Record<string, number> => store.counters(`o/${order}/`),
  };
}
