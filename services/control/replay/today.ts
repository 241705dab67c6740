import { isDeepStrictEqual } from 'node:util';
import { WeirError } from '@weir/errors';
import type { LogRecord, Serde } from '@weir/log';
import { H } from '@weir/pipeline';
import { dependsOnTime, type CompiledPolicy } from '@weir/policy';
import type { Release } from '@weir/release';
import { textOf, type DecidedNow } from './derive.ts';
import type { DeliveryFacts } from './standing.ts';

/** A delivery as policy decided it then. */
export interface DecidedDelivery extends Pick<DeliveryFacts, 'outputId' | 'eventId' | 'destination' | 'operation' | 'recordType'> {
  /** That decided. */
  readonly release: string;
  /** ms; of copies of one decision the same. */
  readonly decidedAt: number;
  readonly notBefore: number | null;
  readonly payload: Buffer;
}

/**
 * What the policy of the running release says today of a delivery that was decided earlier. `same`: it may go as it stands.
 * `denied`: a rule, residency, an approval that is wanted, or no route says no; or it would have to wait (quiet hours).
 * `otherwise`: it would go with less, or other values, than it carries. `undecided`: its record is not there, or cannot be read.
 */
export type Today = 'same' | 'denied' | 'otherwise' | 'undecided';

export interface TodayPorts {
  readonly release: () => Release;
  readonly serde: Pick<Serde, 'decode' | 'known' | 'prepare'>;
  /** Records of an output that are on weir.canonical still. */
  readonly canonicalOf: (eventId: string, outputId: string) => Promise<readonly LogRecord[]>;
  /** Whether it was decided again later, by another release, and let through. */
  readonly decidedLater: (delivery: DecidedDelivery) => boolean;
  /** Keys and schemas of records of weir.canonical. */
  readonly prepare: (records: readonly LogRecord[]) => Promise<void>;
  readonly decideNow: (record: LogRecord, destination: string, operation: string) => DecidedNow;
  readonly now: () => number;
}

const canonicalPrefix = 'weir.canonical.';

export interface DecidesToday {
  /** What was decided stands: by the running release, and time cannot change it. Nothing is read. */
  stands(delivery: DecidedDelivery): boolean;
  /** A later decision counts in its place: its payload is of before. The index is asked only of what does not stand. */
  isOlder(delivery: DecidedDelivery): boolean;
  /** Of an older one `otherwise`. Rejects with what nobody declared, and while brokers or registry are away. */
  decide(delivery: DecidedDelivery): Promise<Today>;
}

/**
 * Decides deliveries again, on the record that they were made of: a delivery carries only what its destination was to have, and
 * a rule may read the rest. What the running release itself decided stands, unless time alone can change it. Consent is asked
 * elsewhere, also at the call.
 */
export function createToday(ports: TodayPorts): DecidesToday {
  const { serde } = ports;
  let timed: { readonly policy: CompiledPolicy; readonly routes: Map<string, boolean> } | undefined;

  function stands({ release, recordType, destination, operation }: DecidedDelivery): boolean {
    const { hash, policy } = ports.release();
    if (release !== hash) return false;
    if (timed?.policy !== policy) timed = { policy, routes: new Map() };
    const route = `${recordType}/${destination}/${operation}`;
    let answer = timed.routes.get(route);
    if (answer === undefined) timed.routes.set(route, answer = dependsOnTime(policy, recordType.slice(canonicalPrefix.length), destination, operation));
    return !answer;
  }

  /** Records that the delivery may have been made of, the newest first: a replay of the raw item by another mapping makes a new one. Where an approver let this very delivery through, those that say so. */
  async function recordsOf({ eventId, outputId, destination, operation }: DecidedDelivery): Promise<readonly LogRecord[]> {
    const own = (await ports.canonicalOf(eventId, outputId)).filter(({ headers }) => textOf(headers, H.output) === outputId).sort((a, b) => b.timestamp - a.timestamp);
    const approved = own.filter(({ headers }) => textOf(headers, H.approval).startsWith(`${destination}/${operation}/`));
    return approved.length > 0 ? approved : own.filter(({ headers }) => textOf(headers, H.approval) === '');
  }

  const isOlder = (delivery: DecidedDelivery): boolean => !stands(delivery) && ports.decidedLater(delivery);

  async function decide(delivery: DecidedDelivery): Promise<Today> {
    if (isOlder(delivery)) return 'otherwise';
    const records = await recordsOf(delivery);
    await ports.prepare(records);
    const decided = records.map((record) => ports.decideNow(record, delivery.destination, delivery.operation));
    // The newest is what is known of the item now; of an older one the delivery may have its values.
    const [now = { kind: 'undecided' as const }] = decided;
    if (now.kind !== 'allowed') return now.kind;
    if (now.notBefore !== null && now.notBefore > ports.now() && now.notBefore > (delivery.notBefore ?? 0)) return 'denied';
    try {
      if (!serde.known(delivery.payload)) await serde.prepare(delivery.payload);
      const payload = serde.decode(delivery.payload).value;
      return decided.some((d) => d.kind === 'allowed' && isWithin(payload, serde.decode(d.payload).value)) ? 'same' : 'otherwise';
    } catch (error) {
      if (!(error instanceof WeirError) || !['avro-undecodable', 'schema-unknown', 'subject-erased'].includes(error.code)) throw error;
      return 'undecided';
    }
  }

  return { stands, isOlder, decide };
}

/** Fields that are never sent. */
const notSent = new Set(['extras']);
const isAbsent = (value: unknown): boolean => value === null || value === undefined || (typeof value === 'object' && Object.keys(value).length === 0);
const isMap = (value: unknown): value is Readonly<Record<string, unknown>> => value !== null && typeof value === 'object' && !Array.isArray(value) && !Buffer.isBuffer(value);

/** Whether a payload has nothing but what the other one has: each of its fields, and each key of its maps, with the same value. */
export function isWithin(payload: Readonly<Record<string, unknown>>, allowed: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(payload).every(([name, value]) => {
    const other = allowed[name];
    if (notSent.has(name) || isAbsent(value) || isDeepStrictEqual(value, other)) return true;
    return isMap(value) && isMap(other) && Object.entries(value).every(([key, one]) => Object.hasOwn(other, key) && isDeepStrictEqual(one, other[key]));
  });
}
