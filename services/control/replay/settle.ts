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

  /** Also true once what is waited for has left the release: no stage takes it. */
  async function until(reached: () => Promise<boolean>, goesOn: () => boolean, left: () => boolean = () => false): Promise<boolean> {
    for (let ms = pollMs; goesOn(); ms = Math.min(maxPollMs, ms * 1.2)) {
      if (left() || await reached()) return true;
      await pause(ms);
    }
    return false;
  }

  /** The group has committed the ends that the topic has now. */
  async function passed(group: string, topic: string, goesOn: () => boolean, left?: () => boolean): Promise<boolean> {
    if (left?.() === true) return true;
    const ends = await admin.endOffsets(topic);
    return until(async () => {
      // What retention has deleted is taken by nobody any more.
      const [committed, begins] = await Promise.all([admin.committed(group, topic), admin.beginningOffsets(topic)]);
      return [...ends].every(([partition, end]) => Math.max(committed.get(partition) ?? 0, begins.get(partition) ?? 0) >= end);
    }, goesOn, left);
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
  async function dispatched(order: string, startedAt: number, destination: string, goesOn: () => boolean, left: () => boolean): Promise<boolean> {
    if (left()) return true;
    const topic = topics.dispatch(destination);
    const wanted = new Map(await admin.endOffsets(topic));
    const taken = async (): Promise<boolean> => {
      const committed = await admin.committed(groups.dispatcher(destination), topic);
      for (const [partition, end] of wanted) if ((committed.get(partition) ?? 0) >= end) wanted.delete(partition);
      return wanted.size === 0;
    };
    const patient = clock.monotonic() + patienceMs;
    if (!await until(async () => await taken() || clock.monotonic() >= patient, goesOn, left)) return false;
    if (wanted.size === 0 || left()) return true;
    const [committed, started] = await Promise.all([admin.committed(groups.dispatcher(destination), topic), admin.offsetsAt(topic, Math.max(0, startedAt - clockSpareMs))]);
    for (const [partition, end] of wanted) {
      const last = await lastOf(order, topic, partition, Math.max(committed.get(partition) ?? 0, started.get(partition) ?? end), end, goesOn);
      if (last === undefined) return false;
      wanted.set(partition, last);
    }
    return until(taken, goesOn, left);
  }

  /** The index has what the topics that a selection asks it about hold now: where each delivery stands, and where the canonical records of an event are. */
  async function indexed(goesOn: () => boolean): Promise<boolean> {
    const isGone = (name: string) => () => !ports.release().destinations.has(name);
    const list: (readonly [topic: string, left?: () => boolean])[] = [[topics.canonical], [topics.dlq], [topics.outcome], ...[...ports.release().destinations.keys()].flatMap((name) => [[topics.dispatch(name), isGone(name)], [topics.ledger(name), isGone(name)]] as const)];
    const waits = await Promise.all(list.map(async ([topic, left]) => {
      const ends = await admin.endOffsets(topic);
      return until(async () => [...ends].every(([partition, end]) => store.position(topic, partition) >= end), goesOn, left);
    }));
    return waits.every(Boolean);
  }

  return {
    indexed,
    /** Undefined = stopped before; else the sources and destinations that have left the release, which were given up. `startedAt`: of the order, ms. */
    async taken(order: ReplayOrder, startedAt: number, goesOn: () => boolean): Promise<readonly string[] | undefined> {
      const gone = new Set<string>();
      const leaves = (kind: 'sources' | 'destinations', name: string) => (): boolean => {
        if (ports.release()[kind].has(name)) return false;
        gone.add(name);
        return true;
      };
      const { sources, destinations } = ports.release();
      const raw = order.from === 'raw' || order.from === 'dlq';
      const all = (waits: readonly Promise<boolean>[]): Promise<boolean> => Promise.all(waits).then((found) => found.every(Boolean));
      if (raw && !await all([...new Set([...sources.keys(), ...(order.source === null ? [] : [order.source])])].map((name) => passed(groups.normalizer, topics.raw(name), goesOn, leaves('sources', name))))) return undefined;
      if ((raw || order.from === 'canonical') && !await passed(groups.policy, topics.canonical, goesOn)) return undefined;
      if (!await all((order.destination === null ? [...destinations.keys()] : [order.destination]).map((name) => dispatched(order.id, startedAt, name, goesOn, leaves('destinations', name))))) return undefined;
      return await indexed(goesOn) ? [...gone].sort() : undefined;
    },
    /** How what was put back ended, by state, each delivery once. */
    outcomes: (order: string): Record<string, number> => store.counters(`o/${order}/`),
  };
}
