import type { LogAdmin } from '@weir/log';
import type { groupNames, TopicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Store } from '../store.ts';
import type { ReplayOrder } from './order.ts';

export interface SettlePorts {
  readonly admin: LogAdmin;
  readonly store: Pick<Store, 'position' | 'counters'>;
  readonly topics: TopicNames;
  readonly groups: ReturnType<typeof groupNames>;
  readonly release: () => Release;
  readonly clock: Clock;
}

const pollMs = 100;

/** Whether what a replay put back has been taken by the stages, one after the other, and is in the index. */
export function createSettled(ports: SettlePorts) {
  const { admin, store, topics, groups, clock } = ports;
  const pause = (): Promise<void> => new Promise((resolve) => { clock.setTimer(resolve, pollMs); });

  async function until(reached: () => Promise<boolean>, goesOn: () => boolean): Promise<boolean> {
    while (goesOn()) {
      if (await reached()) return true;
      await pause();
    }
    return false;
  }

  /** The group has committed the ends that the topics have now. */
  async function passed(group: (topic: string) => string, list: readonly string[], goesOn: () => boolean): Promise<boolean> {
    const waits = await Promise.all(list.map(async (topic) => {
      const ends = await admin.endOffsets(topic);
      return until(async () => {
        const committed = await admin.committed(group(topic), topic);
        return [...ends].every(([partition, end]) => end === 0 || (committed.get(partition) ?? 0) >= end);
      }, goesOn);
    }));
    return waits.every(Boolean);
  }

  /** The index has what the topics hold now. */
  async function indexed(goesOn: () => boolean = () => true): Promise<boolean> {
    const list = [topics.dlq, topics.outcome, ...[...ports.release().destinations.keys()].map(topics.ledger)];
    const waits = await Promise.all(list.map(async (topic) => {
      const ends = await admin.endOffsets(topic);
      return until(async () => [...ends].every(([partition, end]) => store.position(topic, partition) >= end), goesOn);
    }));
    return waits.every(Boolean);
  }

  return {
    indexed,
    /** False = stopped before. */
    async taken(order: ReplayOrder, goesOn: () => boolean): Promise<boolean> {
      const { sources, destinations } = ports.release();
      const raw = order.from === 'raw' || order.from === 'dlq';
      const canonical = raw || order.from === 'canonical';
      if (raw && !(await passed(() => groups.normalizer, [...sources.keys()].map(topics.raw), goesOn))) return false;
      if (canonical && !(await passed(() => groups.policy, [topics.canonical], goesOn))) return false;
      const dispatch = order.destination === null ? [...destinations.keys()] : [order.destination];
      if (!(await passed((topic) => groups.dispatcher(topic.slice(topics.dispatch('').length)), dispatch.map(topics.dispatch), goesOn))) return false;
      return indexed(goesOn);
    },
    /** How what was put back ended, by state, each delivery once. */
    outcomes: (order: string): Record<string, number> => store.counters(`o/${order}/`),
  };
}
