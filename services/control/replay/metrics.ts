import { Counter, Gauge, type Registry } from 'prom-client';
import type { State } from './orders.ts';

/** Metrics of replays; labels are closed sets and names of the release. */
export function createReplayMetrics(registry: Registry) {
  const registers = [registry];
  const orders = new Gauge({ name: 'weir_replay_orders', help: 'Replay orders by state.', labelNames: ['state'], registers });
  return {
    requeued: new Counter({ name: 'weir_replay_records_total', help: 'Records that replays put back.', registers }),
    asked: new Counter({ name: 'weir_replay_verify_total', help: 'Questions to vendors whether a delivery took effect, by answer.', labelNames: ['destination', 'answer'], registers }),
    moved(from: State | undefined, to: State): void {
      if (from !== undefined) orders.dec({ state: from });
      orders.inc({ state: to });
    },
  };
}
export type ReplayMetrics = ReturnType<typeof createReplayMetrics>;
