import type { RecordBatch } from '@weir/log';
import { H, type TopicNames } from '@weir/pipeline';
import { epochMs, integer, list, named, object, optional, text, type TypeOf } from '@weir/service';
import { header } from './indexer.ts';

const tailLine = named('TailLine', object('A record that came.', {
  n: integer('Its number.'), at: epochMs('When it was written.'), topic: text('Topic, without the prefix.', { example: 'raw.segment' }), eventId: text('Event, or the key of the record where it names none.'), source: optional(text('Source.')),
}));
export const tailReply = object('Records after the cursor.', { cursor: integer('Give it as `after` to go on.'), lines: list(tailLine, 'The oldest first; none without `after`.') });
export type TailLine = TypeOf<typeof tailLine>;

const kept = 1000;

/** The last thousand records of the raw, dispatch, outcome and dlq topics, for `weir tail`: a look, not a log. */
export function createTail() {
  const lines: TailLine[] = [];
  const waiting = new Set<() => void>();
  let n = 0;
  const since = (after: number): TailLine[] => lines.filter((line) => line.n > after);
  const wake = (): void => {
    for (const done of waiting) done();
    waiting.clear();
  };
  return {
    took(batch: RecordBatch, topics: TopicNames): void {
      const { topic } = batch;
      if (topic === topics.canonical || topic.startsWith(topics.ledger(''))) return;
      // What a thousand others wait behind on its own partition would be gone before anybody looked.
      const room = kept - (batch.highWatermark - batch.nextOffset);
      if (room <= 0) return;
      for (const record of batch.records.slice(-room)) lines.push({ n: ++n, at: record.timestamp, topic: topic.slice(topics.prefix.length + 1), eventId: header(record, H.event) || (record.key?.toString('utf8') ?? ''), source: header(record, H.source) || undefined });
      if (lines.length > kept) lines.splice(0, lines.length - kept);
      wake();
    },
    /** Lines after `after` (-1: only the cursor); waits up to `waitMs` for the first. */
    async next(after: number, waitMs: number): Promise<TypeOf<typeof tailReply>> {
      if (after < 0) return { cursor: n, lines: [] };
      if (since(after).length === 0 && waitMs > 0) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, waitMs);
          waiting.add(() => {
            clearTimeout(timer);
            resolve();
          });
        });
      }
      return { cursor: n, lines: since(after) };
    },
    close: wake,
  };
}
