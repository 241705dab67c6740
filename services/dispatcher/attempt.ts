import type { OperationManifest } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { deliveryKey, expiringBefore, H, isNewer, objectOf, objectsLike, oldestSent, type Age } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import { isSealed } from '@weir/seal';
import { cappedBy, countedOf, type Counted } from './caps.ts';
import { repeat, type Ending } from './ends.ts';
import { failOver, handOverOf, secondOf } from './fail-over.ts';
import { lookUp, pastWindow, type Lookup } from './ledger.ts';
import type { DestinationPorts } from './ports.ts';
import type { PartitionRunner } from './partition.ts';
import { isErased } from './read-delivery.ts';
import { effectSoFar, headerOf, unsureSince } from './task.ts';
import type { EndValue, Task } from './types.ts';

/** What is to be done with the head of a lane before (or instead of) a call. */
export type Preparation =
  | { readonly kind: 'call'; readonly operation: OperationManifest }
  /** Ask the vendor whether an earlier call took effect. */
  | { readonly kind: 'read-back'; readonly operation: OperationManifest }
  | { readonly kind: 'end'; readonly ending: Ending }
  /** Ended earlier; nothing to write. */
  | { readonly kind: 'silent' }
  | { readonly kind: 'park'; readonly due: number; readonly reason: string }
  /** Tables behind the decision: look again when they moved. */
  | { readonly kind: 'wait'; readonly ms: number };

export type ToStart = Extract<Preparation, { readonly kind: 'call' | 'read-back' }>;

function give(task: Task, state: Ending['state'], code: string | null, detail: string | null, deadLetter: boolean, effect: Ending['effect'] = effectSoFar(task)): Preparation {
  return { kind: 'end', ending: { task, state, effect, code, detail, deadLetter } };
}

/**
 * The key under which the delivery is open. An end of unknown effect that stands there leaves it in doubt, whatever becomes of
 * this redrive, until the vendor has said that it was not applied. A person who says so lets it be called; whether they are right is not known.
 */
export function takeUp(task: Task, { key, generation, reopened }: Extract<Lookup, { readonly kind: 'open' }>): void {
  task.key = key;
  task.generation = generation;
  task.doubtSince = reopened === undefined || task.notApplied ? 0 : reopened.maybeSince || reopened.at;
}

/** What the ledger has of the delivery: an end (then nothing is left to do), or the key under which it is open. */
function standing(runner: PartitionRunner, task: Task): { readonly ended: Preparation } | { readonly reopened: EndValue | undefined } {
  const found = lookUp(task.delivery, task.redrive, task.offset, runner.writer.endOf);
  if (task.redrive !== '') task.firstOffset = firstOffsetOf(task, runner);
  if (found.kind === 'conflict') return { ended: conflict(runner, task, found.end) };
  if (found.kind === 'open') {
    takeUp(task, found);
    return { reopened: found.reopened };
  }
  task.key = found.key;
  const { end } = found;
  // The crash may have been before the second vendor's topic had it.
  if (end.state === 'failed-over' && task.redrive === '') return { ended: again(task, end, handOverOf(end)) };
  // A replayed record tells its order that there was nothing to do; an end without an outcome (a crash between the two) gets it.
  if (task.redrive !== '' || (task.parkedOffset < 0 && runner.coveredBefore(task.offset))) return { ended: again(task, end) };
  return { ended: { kind: 'silent' } };
}

/** The end of a record that its topic is about to lose, whatever state its destination is in; undefined = it is not. */
export function expire(ports: DestinationPorts, runner: PartitionRunner, task: Task): Exclude<Preparation, ToStart> | undefined {
  const retentionMs = task.parkedOffset < 0 ? ports.retention.dispatchMs() : ports.retention.parkedMs();
  if (task.record.timestamp > expiringBefore(retentionMs, ports.clock.now())) return undefined;
  const found = standing(runner, task);
  if ('ended' in found) return found.ended as Exclude<Preparation, ToStart>;
  return give(task, 'dead-lettered', 'expiring', `it waited for nine tenths of the retention of ${task.parkedOffset < 0 ? 'its' : 'the parked'} topic`, true) as Exclude<Preparation, ToStart>;
}

/** Every rule that can end, park or delay a delivery without a call, in the order in which they bind. */
export function prepare(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task): Preparation {
  const prepared = byRules(ports, runner, destination, task);
  // What this record may have done already was under its caps then.
  return prepared.kind === 'call' && destination.caps.length > 0 && task.maybeSince === 0 ? overCap(ports, runner, destination, task) ?? prepared : prepared;
}

function overCap(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task): Preparation | undefined {
  const counted = (since: number): Counted[] => [...ports.ledger.counted(task.subject, since), ...runner.writer.recentOf(task.subject).flatMap((end) => countedOf(end) ?? [])];
  // Under the key that it had it counts once, by its end of before or by this call; unless both may take effect.
  const again = task.doubtSince > 0 && resends(task);
  const capped = cappedBy(destination.caps, task.delivery, (since) => (again ? counted(since) : counted(since).filter(({ key }) => key !== task.key)), ports.clock.now());
  if (capped === undefined) return undefined;
  const { cap, until } = capped;
  if (cap.over === 'delay') return { kind: 'park', due: until, reason: `cap:${cap.name}` };
  return give(task, 'denied', `cap:${cap.name}`, `the subject has had ${cap.max} today`, false);
}

function byRules(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task): Preparation {
  const { delivery } = task;
  const now = ports.clock.now();
  const expired = expire(ports, runner, task);
  if (expired !== undefined) return expired;
  const found = standing(runner, task);
  if ('ended' in found) return found.ended;
  if (ports.keys !== undefined && task.sealedBy !== '' && !ports.keys.has(task.sealedBy)) {
    // It was sealed by one that had not read the mark.
    if (!isErased(ports.keys, delivery)) return give(task, 'dead-lettered', 'key-destroyed', null, true);
    return give(task, 'denied', 'subject-erased', null, false);
  }
  const operation = destination.operations[delivery.operation];
  // A live record's is read for its call.
  if (task.redrive !== '' && task.object === '') task.object = objectOf(ports.workspaceKey, delivery, operation, () => recordOf(ports, delivery.payload));
  if (task.redrive !== '' && headerOf(task.record, H.verified) === 'applied') return give(task, 'delivered', null, `known by ${task.redrive}`, false, 'done');
  if (operation === undefined) return give(task, 'dead-lettered', 'destination-retired', `${ports.name} has no operation ${delivery.operation}`, true);
  if (now - delivery.acceptedAt > oldestSent(ports.retention.ledgerMs(), ports.dedupeWindowMs(delivery.source))) return give(task, 'expired', 'delivery-expired', 'older than the ledger remembers', true);
  if (delivery.notBefore !== null && delivery.notBefore > now) return { kind: 'park', due: delivery.notBefore, reason: 'delay-until' };
  const unknown = settleUnknown(runner, destination, task, operation, found.reopened?.at ?? 0, now);
  if (unknown !== undefined) return unknown;
  if (lastsTooLong(task, destination)) return exhausted(ports, runner, destination, task);
  if (task.redrive !== '' && isOvertaken(ports, runner, task)) return give(task, 'superseded', 'superseded', 'a newer record of the subject was delivered', false);
  if (!ports.consent.atLeast(delivery.consentOffsets, delivery.identityOffsets)) return { kind: 'wait', ms: 5 };
  const refusal = consentRefusal(ports, task, operation.kind, now);
  if (refusal !== undefined) return give(task, 'denied', refusal, null, false);
  return { kind: 'call', operation };
}

/** Given up only after a call that failed so long after the first one that did: how long it waited, also for a destination that was off or at its limit, is not held against it. */
const lastsTooLong = ({ trouble }: Task, { retryHorizonMs }: DestinationConfig): boolean => trouble !== undefined && trouble.at - trouble.since > retryHorizonMs;

/** Out of time, without an effect: the second vendor gets it, or the dead letters. */
function exhausted(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task): Preparation {
  const second = secondOf(ports, runner, destination, task);
  const why = `${task.attempts} calls; last: ${[task.last?.verdict ?? 'unknown', task.last?.code].filter(Boolean).join(', ')}`;
  return second === undefined ? give(task, 'dead-lettered', 'delivery-exhausted', why, true) : { kind: 'end', ending: failOver(task, second, 'delivery-exhausted', why) };
}

const again = (task: Task, end: EndValue, handOver?: Ending['handOver']): Preparation => ({ kind: 'end', ending: repeat(task, end, handOver) });

/** The record as the vendor would get it; undefined = it cannot be read now. */
export function recordOf({ serde }: Pick<DestinationPorts, 'serde'>, payload: Buffer): Readonly<Record<string, unknown>> | undefined {
  if (isSealed(payload)) return undefined;
  try {
    return serde.decode(payload).value;
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return undefined;
  }
}

/**
 * Whether a newer record that set the same (objectOf) was delivered by this operation, so that this one would roll it back (I4);
 * also one whose end is not acknowledged yet, which may have been called a moment ago. Of ends that do not say what they set any may have set it.
 */
function isOvertaken(ports: DestinationPorts, runner: PartitionRunner, { subject, delivery: { operation, acceptedAt }, firstOffset, object }: Task): boolean {
  const objects = objectsLike(object);
  const own: Age = { acceptedAt, firstOffset };
  for (const of of objects) {
    const newest = ports.ledger.lastDelivered(subject, operation, of);
    if (newest !== undefined && isNewer(newest, own)) return true;
  }
  return runner.writer.recentOf(subject).some((end) => end.state === 'delivered' && end.operation === operation && objects.includes(end.object ?? '') && isNewer({ acceptedAt: end.acceptedAt, firstOffset: end.firstOffset ?? -1 }, own));
}

/** Of a profile that an order put back: where its first record stood, by the first end of the delivery; of a correction that of what it corrects. */
function firstOffsetOf({ delivery: { recordType, outputId, destination, operation } }: Task, runner: PartitionRunner): number {
  return recordType === 'weir.canonical.Profile' ? runner.writer.endOf(deliveryKey(outputId, destination, operation, '0', 0))?.firstOffset ?? -1 : -1;
}

/** The order that put it back sends what may have taken effect. One of which nothing tells so holds it: records of a control service before this header, too. */
const resends = (task: Task): boolean => headerOf(task.record, H.resend) === task.redrive;

/** A person found that it was not applied, and the order that put it back says so: of the calls before that, not of one that another order has made since. */
const foundNotApplied = (task: Task, endedAt: number): boolean => task.redrive !== '' && endedAt <= task.queuedAt && headerOf(task.record, H.verified) === 'not-applied';

function canReadBack(destination: DestinationConfig, operation: OperationManifest): boolean {
  return operation.verify !== undefined && destination.adapter.destination?.verify !== undefined;
}

/** Sooner than this the head waits in its lane; longer waits are parked. */
const waitInLaneMs = 1000;

/**
 * A delivery that may have taken effect, past the time for which the vendor knows its key: asked for at the vendor
 * (verify), set aside for a person (hold, and what the vendor cannot tell), or sent again (resend). A redrive that
 * resends what cannot be read back, or says that a person found it not applied, is that person's decision to send: only what it may have called itself counts.
 * @param endedAt when the end was written that it takes up: a call was made before that. 0 = it takes up none
 */
function settleUnknown(runner: PartitionRunner, destination: DestinationConfig, task: Task, operation: OperationManifest, endedAt: number, now: number): Preparation | undefined {
  const readable = canReadBack(destination, operation);
  const decided = task.doubtSince > 0 && ((!readable && resends(task)) || foundNotApplied(task, endedAt));
  const since = decided ? task.maybeSince : unsureSince(task);
  const rule = pastWindow(since, now, operation.idempotency);
  if (rule === 'send') return undefined;
  const held = (why: string): Preparation => give(task, 'quarantined', 'delivery-held', `unknown whether it was applied, and the key window has passed${why}`, true, 'maybe');
  if (rule === 'hold' && task.redrive === '') return held('');
  if (!readable) return held(': the vendor cannot be asked');
  if (task.readBacks > 0 && lastsTooLong(task, destination)) return held(`: ${task.readBacks} questions to the vendor had no answer`);
  const lastCall = Math.max(endedAt, task.last === undefined ? runner.openedAt() : Math.ceil(task.last.at + task.last.durationMs));
  const wait = lastCall + (operation.verify!.settleMs ?? defaultSettleMs) - now;
  if (wait > waitInLaneMs) return { kind: 'park', due: now + wait, reason: 'read-back' };
  return wait > 0 ? { kind: 'wait', ms: wait } : { kind: 'read-back', operation };
}

const defaultSettleMs = 5000;

/** The key of the first body stays with the first body; the second is set aside with its bytes, once. */
function conflict(runner: PartitionRunner, task: Task, first: EndValue): Preparation {
  const { delivery } = task;
  const key = deliveryKey(delivery.outputId, delivery.destination, delivery.operation, `conflict/${delivery.itemHash}`, 0);
  task.key = key;
  const known = runner.writer.endOf(key);
  if (known !== undefined) return task.redrive !== '' || task.parkedOffset >= 0 || runner.coveredBefore(task.offset) ? again(task, known) : { kind: 'silent' };
  return { kind: 'end', ending: { task, key, state: 'quarantined', effect: 'none', code: 'event-conflict', detail: `the event arrived before with another body (hash ${first.itemHash}, now ${delivery.itemHash})`, deadLetter: true } };
}

/**
 * Consent at this moment; undefined = may be sent. `restrict` needs none and is never refused. It is asked before a call and
 * again in the tick of its write: what was allowed is so while no record of consent or identity was applied, and no grant of it expired.
 */
export function consentRefusal(ports: Pick<DestinationPorts, 'keys' | 'consent'>, task: Task, kind: OperationManifest['kind'], now: number): string | undefined {
  if (kind === 'restrict') return undefined;
  const { delivery } = task;
  if (delivery.purpose === null) return 'no-purpose';
  if (ports.keys !== undefined && ports.keys.erasedUntil(delivery.ids) >= delivery.acceptedAt) return 'subject-erased';
  const { allowed } = task;
  if (allowed !== undefined && allowed.version === ports.consent.version() && now < allowed.until) return undefined;
  const answer = ports.consent.allows(delivery.ids, delivery.purpose, delivery.channel, delivery.topic, delivery.legalBasis, now);
  if (!answer.ok) return answer.reason;
  if (answer.until !== undefined) task.allowed = { version: ports.consent.version(), until: answer.until };
  return undefined;
}
