import type { OperationManifest } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import type { Serde } from '@weir/log';
import { deliveryKey, isNewer, isOtherBody, objectOf, objectsLike, type Age, type Standing } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import type { DeliveryState, EndFacts } from '../store.ts';

/** One delivery as a replay looks at it. */
export interface DeliveryFacts {
  readonly outputId: string;
  readonly eventId: string;
  readonly destination: string;
  readonly operation: string;
  readonly source: string;
  readonly recordType: string;
  readonly itemHash: string;
  readonly acceptedAt: number;
  readonly subject: string;
  readonly purpose: string | null;
  readonly channel: string | null;
  readonly topic: string | null;
  readonly legalBasis: string | null;
  readonly ids: readonly string[];
  readonly intent: string;
}

export interface Found {
  readonly standing: Standing;
  /** Of unknown effect: its key, and since when. */
  readonly key?: string;
  readonly since?: number;
  /** When that end was written, ms. */
  readonly at?: number;
  /** Of what was delivered: the record that ended, on weir.dispatch.<destination>. */
  readonly delivered?: EndFacts;
}

export interface StandingPorts {
  end(destination: string, key: string): EndFacts | undefined;
  newest(destination: string, operation: string, subject: string, object: string): Age | undefined;
  /** What the delivery sets (objectOf), by its record (Confluent wire format, sealed or not); empty = not known. */
  objectOf(facts: DeliveryFacts, operation: OperationManifest, payload: Buffer | undefined): string;
  deliveryState(id: string): DeliveryState | undefined;
  allows(ids: readonly string[], purpose: string, channel: string | null, topic: string | null, legalBasis: string | null, now: number): boolean;
  destination(name: string): DestinationConfig | undefined;
  /** How old an event of this source may be that the dispatcher sends there still, ms: by the ledger's retention in force. */
  oldestSent(destination: string, source: string): number;
  /** False: no path of Weir may read this person any more (I11). */
  mayRead(ids: readonly string[], acceptedAt: number): boolean;
}

const maxGenerations = 1000;

type Ledger = { readonly kind: 'none' | 'conflict' | 'notApplied' | 'failedOver' } | { readonly kind: 'delivered'; readonly end: EndFacts } | { readonly kind: 'unknown'; readonly key: string; readonly end: EndFacts };

/** The dispatcher's walk over the generations of a delivery (services/dispatcher/ledger.ts; a test holds the two together). */
export function walk(ports: Pick<StandingPorts, 'end'>, d: DeliveryFacts): Ledger {
  for (let generation = 0; generation < maxGenerations; generation++) {
    const key = deliveryKey(d.outputId, d.destination, d.operation, d.intent, generation);
    const end = ports.end(d.destination, key);
    if (end === undefined) return { kind: generation === 0 ? 'none' : 'notApplied' };
    if (isOtherBody(end, d)) return { kind: 'conflict' };
    if (end.state === 'delivered') return { kind: 'delivered', end };
    if (end.state === 'failed-over') return { kind: 'failedOver' };
    if (end.effect !== 'none') return { kind: 'unknown', key, end };
    if (end.more === false && d.intent === '0') break;
  }
  return { kind: 'notApplied' };
}

/**
 * Where a delivery stands now, in the order in which the dispatcher's rules bind. It is what the index knows: the
 * dispatcher decides again, on the ledger itself and in the tick of the call, so a wrong guess here costs a record on
 * the topic and never an effect. `queued` = the delivery's own record stands on weir.dispatch: without an end it is on
 * its way. `payload`: the record that the vendor gets.
 */
export function standingOf(ports: StandingPorts, d: DeliveryFacts, queued: boolean, now: number, payload: Buffer | undefined): Found {
  if (!ports.mayRead(d.ids, d.acceptedAt)) return { standing: 'erased' };
  const ledger = walk(ports, d);
  if (ledger.kind === 'delivered') return { standing: 'confirmed', delivered: ledger.end };
  if (ledger.kind === 'conflict' || ledger.kind === 'failedOver') return { standing: ledger.kind };
  if (ledger.kind === 'none' && (queued || ports.deliveryState(`${d.outputId}|${d.destination}|${d.operation}`) === 'pending')) return { standing: 'pending' };
  const destination = ports.destination(d.destination);
  const operation = destination?.operations[d.operation];
  if (destination === undefined || operation === undefined) return { standing: 'retired' };
  if (now - d.acceptedAt > ports.oldestSent(d.destination, d.source)) return { standing: 'expired' };
  if (isSuperseded(ports, d, payload)) return { standing: 'superseded' };
  if (operation.kind === 'use' && (d.purpose === null || !ports.allows(d.ids, d.purpose, d.channel, d.topic, d.legalBasis, now))) return { standing: 'denied' };
  if (ledger.kind !== 'unknown') return { standing: 'notApplied' };
  const since = ledger.end.maybeSince || ledger.end.at;
  return { standing: unknownOf(operation, canReadBack(destination, operation), since, now), key: ledger.key, since, at: ledger.end.at };
}

function unknownOf(operation: OperationManifest, readable: boolean, since: number, now: number): Standing {
  const { scheme, windowMs, pastWindow } = operation.idempotency;
  const window = scheme === 'none' ? Number.NEGATIVE_INFINITY : windowMs ?? Number.POSITIVE_INFINITY;
  if (now - since <= window || pastWindow === 'resend') return 'unknownKeyed';
  return readable ? 'unknownReadable' : 'unknownHeld';
}

/** A newer record that set the same was delivered, and this one would roll it back: the dispatcher's rule (services/dispatcher/attempt.ts). */
export function isSuperseded(ports: Pick<StandingPorts, 'destination' | 'newest' | 'objectOf' | 'end'>, d: DeliveryFacts, payload: Buffer | undefined): boolean {
  const operation = ports.destination(d.destination)?.operations[d.operation];
  if (operation === undefined) return false;
  return objectsLike(ports.objectOf(d, operation, payload)).some((of) => {
    const newest = ports.newest(d.destination, d.operation, d.subject, of);
    if (newest === undefined || newest.acceptedAt < d.acceptedAt) return false;
    return isNewer(newest, { acceptedAt: d.acceptedAt, firstOffset: newest.acceptedAt === d.acceptedAt ? firstOffsetOf(ports, d) : -1 });
  });
}

/** Of a profile: where its first record stood, by the first end of the delivery, as the dispatcher knows it (services/dispatcher/attempt.ts). */
function firstOffsetOf({ end }: Pick<StandingPorts, 'end'>, { recordType, outputId, destination, operation }: DeliveryFacts): number {
  return recordType === 'weir.canonical.Profile' ? end(destination, deliveryKey(outputId, destination, operation, '0', 0))?.firstOffset ?? -1 : -1;
}

/** Tells what deliveries set, by their records; empty where key or schema are not here. */
export function objectReader(serde: Pick<Serde, 'decode'>, workspaceKey: Buffer): StandingPorts['objectOf'] {
  return (facts, operation, payload) => objectOf(workspaceKey, facts, operation, () => {
    try {
      return payload === undefined ? undefined : serde.decode(payload).value;
    } catch (error) {
      if (findWeirError(error) === undefined) throw error;
      return undefined;
    }
  });
}

/** Whether the vendor can be asked whether a delivery took effect. */
export function canReadBack(destination: DestinationConfig, operation: OperationManifest | undefined): boolean {
  return operation?.verify !== undefined && destination.adapter.destination?.verify !== undefined;
}

/** Whether a replay puts it back. What stays unknown past the key window goes only where the operator said resend, or the dispatcher reads it back. */
export function sends(standing: Standing, unknown: 'hold' | 'resend'): boolean {
  if (standing === 'notApplied' || standing === 'unknownKeyed' || standing === 'unknownReadable' || standing === 'applied') return true;
  return standing === 'unknownHeld' && unknown === 'resend';
}
