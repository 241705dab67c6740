import { createHash } from 'node:crypto';
import type { ErrorCode } from '@weir/errors';
import type { LogRecord, OutRecord } from '@weir/log';
import { H } from '@weir/pipeline';
import { numberOf, textOf, type PolicyPorts } from './ports.ts';

/**
 * A record that can not be read, with its bytes and headers for weir.dlq, and its end for weir.outcome. Its id
 * depends on the record and the code only, so a repeated run writes the same.
 */
export function deadLetter(ports: PolicyPorts, record: LogRecord, topic: string, partition: number, code: ErrorCode, message: string): { readonly dlq: OutRecord; readonly outcome: OutRecord } {
  const { serde, topics, clock } = ports.context;
  const eventId = textOf(record, H.event);
  const outputId = textOf(record, H.output);
  const at = clock.now();
  const acceptedAt = numberOf(record, H.accepted);
  const key = Buffer.from(eventId === '' ? `${topic}/${partition}/${record.offset}` : eventId);
  const letter = {
    id: 'dlq_' + createHash('sha256').update(`policy\0${topic}\0${partition}\0${record.offset}\0${code}`).digest('hex').slice(0, 32),
    eventId, stage: 'policy', reasons: [{ code, message: message.slice(0, 500), file: null, line: null, field: null, path: null }],
    source: textOf(record, H.source) || null, destination: null, operation: null, attempts: 0, release: textOf(record, H.release) || null,
    topic, partition, offset: record.offset, key: record.key, value: record.value,
    headers: record.headers.map(([name, value]) => ({ name, value })), effect: 'none', acceptedAt, at,
  };
  const outcome = {
    eventId, outputId: outputId || null, destination: null, operation: null, key: null, state: 'dead-lettered', reason: code, detail: message.slice(0, 500), stage: 'policy',
    release: letter.release, rule: null, purpose: null, consent: [], attempts: 0, status: null, attempt: null, acceptedAt, at,
  };
  const headers = record.headers.filter(([name]) => name === H.event || name === H.source || name === H.accepted || name === H.traceparent || name === H.output);
  return {
    dlq: { partition: ports.appender.partitionFor(topics.dlq, key), key, value: serde.encode('weir.internal.DeadLetter', letter), headers },
    outcome: { partition: ports.appender.partitionFor(topics.outcome, key), key, value: serde.encode('weir.internal.Outcome', outcome), headers },
  };
}
