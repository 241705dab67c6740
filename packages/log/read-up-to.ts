import { WeirError } from '@weir/errors';
import { delay } from './deadline.ts';
import type { Reader, RecordBatch } from './types.ts';

const againMs = 100;
const defaultDeadlineMs = 60_000;

/**
 * Reads [from, to) of one partition, where `to` is surely not behind its end: a broker told it as such, or acknowledged what
 * stands before it. A leader that shows less was cut off from the others and does not know it yet (or the next one was just elected): it
 * is waited for, where `Reader.read` ends. Ends early when `gone` says so. Rejects with log-deadline when there is no more than
 * before for `deadlineMs`: the topic was made anew.
 */
export async function readUpTo(reader: Pick<Reader, 'read'>, topic: string, partition: number, from: number, to: number, onBatch: (batch: RecordBatch) => void | Promise<void>, { gone = () => false, deadlineMs = defaultDeadlineMs }: { readonly gone?: () => boolean; readonly deadlineMs?: number } = {}): Promise<void> {
  let next = from;
  let movedAt = performance.now();
  while (next < to) {
    await reader.read(topic, partition, next, to, (batch) => {
      const taken = (): void => {
        next = batch.nextOffset;
        movedAt = performance.now();
      };
      const taking = onBatch(batch);
      return taking instanceof Promise ? taking.then(taken) : taken();
    });
    if (next >= to || gone()) return;
    if (performance.now() - movedAt > deadlineMs) throw new WeirError('log-deadline', `${topic}/${partition} shows nothing from ${next} on, though it had records up to ${to}`);
    await delay(againMs);
  }
}
