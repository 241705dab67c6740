import type { Clock } from '@weir/service';
import type { Store } from '../store.ts';
import { endedStates, type Orders } from './orders.ts';

/** How long after its end an order's rows are kept: what comes late still counts by its highest state. */
const keptMs = 86_400_000;
const everyMs = 60_000;
const againMs = 100;
/** Rows in one go: a few milliseconds. */
const atOnce = 1000;

interface Ports {
  readonly store: Pick<Store, 'replayedOrder' | 'forgetReplayed'>;
  readonly orders: Pick<Orders, 'list'>;
  readonly clock: Clock;
}

/** Deletes some of the rows that tell what orders put back, of orders that ended a day ago or that nobody knows any more; their counts stay. True: there is more. */
export function forgetRows({ store, orders, clock }: Ports): boolean {
  const list = orders.list();
  for (const { order, progress } of list) {
    if (endedStates.has(progress.state) && clock.now() - progress.at > keptMs && store.forgetReplayed(order.id, atOnce) > 0) return true;
  }
  const first = store.replayedOrder();
  return first !== undefined && list.every(({ order }) => order.id !== first) && store.forgetReplayed(first, atOnce) > 0;
}

export function createRowSweep(ports: Ports): { close(): void } {
  let timer: unknown;
  const later = (ms: number): void => {
    timer = ports.clock.setTimer(() => later(forgetRows(ports) ? againMs : everyMs), ms);
  };
  later(everyMs);
  return { close: () => ports.clock.clearTimer(timer) };
}
