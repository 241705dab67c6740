import { ledgerKeys } from './ledger.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

/** A call that ended nothing, for the trace; the ledger topic keeps it, the ledger cache only passes it. Not waited for. */
export function recordAttempt(ports: DestinationPorts, { partition, writer, closed }: Pick<PartitionRunner, 'partition' | 'writer' | 'closed'>, task: Task, verdict: { readonly kind: string; readonly effect: string; readonly code: string | null; readonly detail?: string }): void {
  const { delivery, last } = task;
  const value = ports.serde.encode('weir.internal.Attempt', { key: task.key, eventId: delivery.eventId, outputId: delivery.outputId, destination: ports.name, operation: delivery.operation, number: task.attempts, verdict: verdict.kind, effect: verdict.effect, status: last?.status ?? null, code: verdict.code, detail: verdict.detail ?? null, durationMs: last?.durationMs ?? 0, path: last?.path ?? null, at: last?.at ?? ports.clock.now() });
  ports.appender.append(ports.topics.ledger(ports.name), [{ partition, key: Buffer.from(ledgerKeys.attempt(task.key, task.attempts)), value }]).then((offsets) => { if (!closed()) writer.applyOwn([], [], offsets); }).catch(ports.fail);
}
