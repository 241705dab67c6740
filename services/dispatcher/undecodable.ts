import { recordFault } from '@weir/errors';
import type { LogRecord } from '@weir/log';
import { H } from '@weir/pipeline';
import { deadLetterValue } from './ends.ts';
import { headerOf } from './task.ts';
import type { DestinationPorts } from './ports.ts';

/** A record of the dispatch topic that is no delivery, for a fault of its bytes: dead letter with its bytes, then its outcome; resolves when both are acknowledged. */
export async function deadLetterUndecodable(ports: DestinationPorts, partition: number, record: LogRecord, error: unknown): Promise<void> {
  const code = recordFault(error)!;
  const eventId = headerOf(record, H.event) ?? '';
  // Nothing of such a record can be relied on, its headers neither.
  const accepted = Number(headerOf(record, H.accepted));
  const acceptedAt = Number.isSafeInteger(accepted) && accepted >= 0 ? accepted : 0;
  const letter = deadLetterValue(ports, partition, record.offset, record, [{ code, message: (error as Error).message }], { eventId, source: headerOf(record, H.source) ?? null, operation: null, attempts: 0, release: headerOf(record, H.release) ?? null, effect: 'none', acceptedAt });
  const outcome = { eventId, outputId: headerOf(record, H.output) ?? null, destination: ports.name, operation: null, key: null, state: 'dead-lettered', reason: code, detail: null, stage: 'dispatcher', release: null, rule: null, purpose: null, consent: [], attempts: 0, status: null, attempt: null, acceptedAt, at: ports.clock.now() };
  const key = Buffer.from(eventId);
  await ports.appender.append(ports.topics.dlq, [{ partition: ports.appender.partitionFor(ports.topics.dlq, key), key, value: ports.serde.encode('weir.internal.DeadLetter', letter) }]);
  await ports.appender.append(ports.topics.outcome, [{ partition: ports.appender.partitionFor(ports.topics.outcome, key), key, value: ports.serde.encode('weir.internal.Outcome', outcome) }]);
  ports.metrics.end(ports.name, '', 'dead-lettered', code);
}
