import type { HttpFailure, HttpResponse, OperationManifest, Verdict } from '@weir/adapter';
import { findWeirError, type ErrorCode } from '@weir/errors';
import { failpoint, failpointSoon } from '@weir/failpoint';
import { deliveryKey, H } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import type { Ending } from './ends.ts';
import { lookUp, pastWindow } from './ledger.ts';
import type { DestinationPorts } from './ports.ts';
import { headerOf, type PartitionRunner } from './partition.ts';
import type { EndValue, Task } from './types.ts';

/** What is to be done with the head of a lane before (or instead of) a call. */
export type Preparation =
  | { readonly kind: 'call'; readonly operation: OperationManifest }
  | { readonly kind: 'end'; readonly ending: Ending }
  /** Ended earlier; nothing to write. */
  | { readonly kind: 'silent' }
  | { readonly kind: 'park'; readonly due: number; readonly reason: string }
  /** Tables behind the decision: look again when they moved. */
  | { readonly kind: 'wait'; readonly ms: number };

function give(task: Task, state: Ending['state'], code: string | null, detail: string | null, deadLetter: boolean, effect: Ending['effect'] = task.maybeSince > 0 ? 'maybe' : 'none'): Preparation {
  return { kind: 'end', ending: { task, state, effect, code, detail, deadLetter } };
}

/** Every rule that can end, park or delay a delivery without a call, in the order in which they bind. */
export function prepare(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task): Preparation {
  const { delivery } = task;
  const now = ports.clock.now();
  const found = lookUp(delivery, task.redrive, task.offset, runner.writer.endOf);
  if (found.kind === 'conflict') return conflict(runner, task, found.end);
  if (found.kind === 'ended') {
    task.key = found.key;
    // A replayed record tells its order that there was nothing to do; an end without an outcome (a crash between the two) gets it.
    if (task.redrive !== '' || (task.parkedOffset < 0 && runner.coveredBefore(task.offset))) return repeat(task, found.end);
    return { kind: 'silent' };
  }
  task.key = found.key;
  task.generation = found.generation;
  if (task.redrive !== '' && headerOf(task.record, H.verified) === 'applied') return give(task, 'delivered', null, `read back by ${task.redrive}`, false, 'done');
  const operation = destination.operations[delivery.operation];
  if (operation === undefined) return give(task, 'dead-lettered', 'destination-retired', `${ports.name} has no operation ${delivery.operation}`, true);
  if (now - delivery.acceptedAt > ports.maxAgeMs) return give(task, 'expired', 'delivery-expired', 'older than the ledger remembers', true);
  if (delivery.notBefore !== null && delivery.notBefore > now) return { kind: 'park', due: delivery.notBefore, reason: 'delay-until' };
  if (pastWindow(task.maybeSince, now, operation.idempotency) === 'hold') return give(task, 'quarantined', 'delivery-held', 'unknown whether it was applied, and the key window has passed', true, 'maybe');
  if (task.attempts > 0 && now - task.queuedAt > destination.retryHorizonMs) return give(task, 'dead-lettered', 'delivery-exhausted', `${task.attempts} calls; last: ${task.last?.verdict ?? 'unknown'}`, true);
  if (task.redrive !== '' && setsState(delivery.recordType, operation) && ports.ledger.lastDelivered(task.subject, delivery.operation) > delivery.acceptedAt) return give(task, 'superseded', 'superseded', 'a newer record of the subject was delivered', false);
  if (!ports.consent.atLeast(delivery.consentOffsets, delivery.identityOffsets)) return { kind: 'wait', ms: 5 };
  const refusal = consentRefusal(ports, task, operation, now);
  if (refusal !== undefined) return give(task, 'denied', refusal, null, false);
  return { kind: 'call', operation };
}

/** Its end is in the ledger; the outcome is written again. */
function repeat(task: Task, end: EndValue): Preparation {
  return { kind: 'end', ending: { task, state: end.state, effect: end.effect, code: end.code, detail: end.reason, deadLetter: false, repeated: end } };
}

/**
 * Whether a record replaces what an earlier one of its subject set, so that a replayed older one would roll it back
 * (I4). A profile does, whatever the vendor's rule for repeated calls; of the others only what the vendor upserts.
 */
function setsState(recordType: string, operation: OperationManifest): boolean {
  return recordType === 'weir.canonical.Profile' || operation.idempotency.scheme === 'natural-upsert';
}

/** The key of the first body stays with the first body; the second is set aside with its bytes, once. */
function conflict(runner: PartitionRunner, task: Task, first: EndValue): Preparation {
  const { delivery } = task;
  const key = deliveryKey(delivery.outputId, delivery.destination, delivery.operation, `conflict/${delivery.itemHash}`, 0);
  task.key = key;
  const known = runner.writer.endOf(key);
  if (known !== undefined) return task.redrive === '' ? { kind: 'silent' } : repeat(task, known);
  return { kind: 'end', ending: { task, key, state: 'quarantined', effect: 'none', code: 'event-conflict', detail: `the event arrived before with another body (hash ${first.itemHash}, now ${delivery.itemHash})`, deadLetter: true } };
}

/** Consent at this moment; undefined = may be sent. `restrict` needs none and is never refused. */
export function consentRefusal(ports: DestinationPorts, task: Task, operation: OperationManifest, now: number): string | undefined {
  if (operation.kind === 'restrict') return undefined;
  const { delivery } = task;
  if (delivery.purpose === null) return 'no-purpose';
  const answer = ports.consent.allows(delivery.ids, delivery.purpose, delivery.channel, delivery.topic, delivery.legalBasis, now);
  return answer.ok ? undefined : answer.reason;
}

export type CallResult =
  | { readonly kind: 'verdict'; readonly verdict: Verdict }
  /** Nothing was sent. */
  | { readonly kind: 'refused'; readonly reason: 'lease' | 'consent' | 'disabled'; readonly detail: string }
  | { readonly kind: 'unbuildable'; readonly code: ErrorCode; readonly detail: string };

/**
 * One call. Lease, consent and switch are checked again in the tick of the socket write (I3, I6). Fills
 * `task.last`, counts the attempt, and remembers since when an effect is possible.
 */
export async function call(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task, operation: OperationManifest): Promise<CallResult> {
  const adapter = destination.adapter.destination!;
  const deadlineMs = Math.min(operation.timeoutMs ?? ports.callTimeoutMs, ports.callTimeoutMs);
  let request: ReturnType<typeof adapter.request>;
  try {
    request = adapter.request(toAdapterDelivery(ports, task), task.key, destination.config, ports.clock.now());
  } catch (error) {
    const known = findWeirError(error);
    if (known === undefined) throw error;
    return { kind: 'unbuildable', code: known.code, detail: known.message };
  }
  let refused: Extract<CallResult, { kind: 'refused' }> | undefined;
  const startedAt = ports.clock.now();
  const started = ports.clock.monotonic();
  failpoint('dispatcher.before-connect');
  const response = await ports.http.call(request, {
    deadlineMs,
    onBeforeWrite: () => {
      refused = refusal(ports, runner, task, operation, deadlineMs);
      if (refused === undefined) failpointSoon('dispatcher.sent');
      return refused === undefined;
    },
  });
  if (refused !== undefined) return refused;
  failpoint('dispatcher.response-read');
  const verdict = adapter.classify(response, toAdapterDelivery(ports, task), destination.config);
  task.attempts++;
  if (verdict.effect === 'maybe' && task.maybeSince === 0) task.maybeSince = startedAt;
  const durationMs = ports.clock.monotonic() - started;
  task.last = { at: startedAt, durationMs, verdict: verdict.kind, effect: verdict.effect, status: statusOf(response) };
  ports.metrics.calls.observe({ destination: ports.name, operation: task.delivery.operation, verdict: verdict.kind }, durationMs / 1000);
  return { kind: 'verdict', verdict };
}

function refusal(ports: DestinationPorts, runner: PartitionRunner, task: Task, operation: OperationManifest, deadlineMs: number): Extract<CallResult, { kind: 'refused' }> | undefined {
  const consumer = ports.consumer();
  const topic = ports.topics.dispatch(ports.name);
  if (runner.closed() || !consumer.holds(topic, runner.partition, runner.epoch) || ports.clock.monotonic() >= consumer.leaseUntil() - deadlineMs) return { kind: 'refused', reason: 'lease', detail: 'the lease does not cover the call' };
  if (ports.destination()?.enabled !== true) return { kind: 'refused', reason: 'disabled', detail: 'the destination is disabled' };
  const reason = consentRefusal(ports, task, operation, ports.clock.now());
  return reason === undefined ? undefined : { kind: 'refused', reason: 'consent', detail: reason };
}

function statusOf(response: HttpResponse | HttpFailure): number | null {
  return 'status' in response ? response.status : null;
}

const identifierFields = [['userId', 'userId'], ['email', 'email'], ['phone', 'phone'], ['anonymousId', 'anonymousId']] as const;

function toAdapterDelivery(ports: DestinationPorts, task: Task): Parameters<NonNullable<DestinationConfig['adapter']['destination']>['request']>[0] {
  const { delivery } = task;
  const record = ports.serde.decode(delivery.payload).value;
  const identifiers: { type: 'userId' | 'email' | 'phone' | 'external' | 'anonymousId'; value: string }[] = [];
  for (const [field, type] of identifierFields) {
    if (type === 'anonymousId') for (const e of record.externalIds ?? []) identifiers.push({ type: 'external', value: `${e.type}:${e.value}` });
    if (typeof record[field] === 'string') identifiers.push({ type, value: record[field] });
  }
  return { destination: delivery.destination, operation: delivery.operation, recordType: delivery.recordType, record, identifiers, eventId: delivery.eventId, outputId: delivery.outputId, acceptedAt: delivery.acceptedAt };
}
