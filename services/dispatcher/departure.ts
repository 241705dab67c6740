import type { Clock } from '@weir/service';

export interface KeyedPut {
  readonly key: string;
  readonly value: Buffer | null;
}

/** What is left for the next owner is not waited for any longer. */
const leaveMs = 2000;

/** Writes what an owner leaves for the next one, part by part, as far as it gets in two seconds. `patience` resolves when these are over. */
export async function writeDeparture(clock: Pick<Clock, 'monotonic' | 'setTimer' | 'clearTimer'>, parts: Iterable<readonly KeyedPut[]>, write: (puts: readonly KeyedPut[], patience: Promise<undefined>) => Promise<void>): Promise<void> {
  const late = Promise.withResolvers<undefined>();
  const until = clock.monotonic() + leaveMs;
  const timer = clock.setTimer(() => { late.resolve(undefined); }, leaveMs);
  try {
    for (const puts of parts) {
      if (puts.length > 0) await write(puts, late.promise);
      if (clock.monotonic() >= until) return;
    }
  } finally {
    clock.clearTimer(timer);
  }
}
