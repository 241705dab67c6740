import type { Gauge } from 'prom-client';
import type { Logger } from 'pino';
import type { Clock } from './types.ts';

/** What is being read before a partition is worked on: it may take longer than a handler of its group may. Shown by /readyz and a gauge, told every few seconds. */
export interface Loads {
  begin(topic: string, partition: number): Load;
  /** Why nothing is worked on; undefined = nothing is being read, nor asked for since seconds. */
  reason(): string | undefined;
}

export interface Load {
  /** Records read, of so many. */
  readonly at: (read: number, total: number) => void;
  /** Read, or given up; a second time it does nothing. */
  end(): void;
}

const tellMs = 5000;

export function createLoads({ what, gauge, clock, logger }: { readonly what: string; readonly gauge: Gauge<'topic' | 'partition'>; readonly clock: Pick<Clock, 'monotonic'>; readonly logger: Pick<Logger, 'info'> }): Loads {
  interface State { readonly topic: string; readonly partition: number; readonly since: number; told: boolean; read: number; total: number; toldAt: number }
  const open = new Set<State>();
  return {
    begin(topic, partition) {
      const since = clock.monotonic();
      const state: State = { topic, partition, since, told: false, read: 0, total: 0, toldAt: since };
      open.add(state);
      return {
        at(read, total) {
          if (!open.has(state)) return;
          Object.assign(state, { read, total });
          gauge.set({ topic, partition }, total - read);
          if (clock.monotonic() - state.toldAt < tellMs) return;
          state.told = true;
          state.toldAt = clock.monotonic();
          logger.info({ topic, partition, read, total }, `reading ${what}`);
        },
        end() {
          if (!open.delete(state)) return;
          // The next assignment may have begun to read it meanwhile.
          if (![...open].some((other) => other.topic === topic && other.partition === partition)) gauge.remove({ topic, partition });
          if (state.told) logger.info({ topic, partition, read: state.read, total: state.total }, `${what} read`);
        },
      };
    },
    reason() {
      for (const { topic, partition, read, total } of open) if (total > 0) return `reading ${what} of ${topic}/${partition}: ${read} of ${total} records are read`;
      const now = clock.monotonic();
      for (const { topic, partition, since, total } of open) if (total === 0 && now - since >= tellMs) return `asking for ${what} of ${topic}/${partition}`;
      return undefined;
    },
  };
}
