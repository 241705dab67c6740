import { createKnownRegions, type ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import type { Headers, LogRecord, Serde } from '@weir/log';
import { H } from '@weir/pipeline';
import { decide, type Decision, type DecisionContext, type Subject } from '@weir/policy';
import { createKeyedCache, normalize, rawHeaders, type Release } from '@weir/release';
import type { KeyRing } from '@weir/seal';
import type { DeliveryFacts, StandingPorts } from './standing.ts';

/** What the running release makes of a record: the deliveries that policy lets through today, and those that it denies. */
export type Derived =
  | { readonly kind: 'ok'; readonly deliveries: readonly DerivedDelivery[]; /** Keyed identifiers of each canonical record. */ readonly ids: readonly (readonly string[])[] }
  /** The mapping or contract refuses it (still), or drops it; or the person is erased; or its key is destroyed without that: a raw item past its retention, or sealed too late. */
  | { readonly kind: 'fails' | 'dropped' | 'erased' | 'key-destroyed' };

export interface DerivedDelivery {
  readonly facts: DeliveryFacts;
  readonly allowed: boolean;
  readonly payload: Buffer;
}

/** What policy says now of one delivery of a canonical record. Undecided: nobody can read the record. */
export type DecidedNow = { readonly kind: 'allowed'; readonly payload: Buffer; /** ms; null = at once. */ readonly notBefore: number | null } | { readonly kind: 'denied' | 'undecided' };

export interface DerivePorts {
  readonly serde: Serde;
  readonly release: () => Release;
  readonly workspaceKey: Buffer;
  readonly tables: Pick<ConsentTables, 'linked' | 'check' | 'regions'>;
  /** Undefined = nothing is sealed, and nobody is erased. */
  readonly keys: Pick<KeyRing, 'erasedUntil'> | undefined;
  /** The plain bytes of a value; undefined when its key is destroyed (I11). */
  readonly open: (bytes: Buffer) => Buffer | undefined;
  readonly standing: Pick<StandingPorts, 'mayRead'>;
  readonly now: () => number;
}

interface CanonicalRecord {
  readonly outputId: string;
  readonly approval?: Subject['approval'];
  readonly ids: readonly string[];
  readonly subject: string;
  readonly value: Buffer;
}

/** Text of a header; '' when it is not there. */
export const textOf = (headers: Headers, name: string): string => headers.find(([n]) => n === name)?.[1].toString('utf8') ?? '';

const canonicalPrefix = 'weir.canonical.';

/** What an approver let through, as the policy stage reads it from the record. */
function approvalOf(headers: Headers): Subject['approval'] {
  const text = textOf(headers, H.approval);
  if (text === '') return undefined;
  const [destination = '', operation = '', rules = ''] = text.split('/');
  return { destination, operation, rules: rules.split(',') };
}

/** Mapping and policy of the running release, as the stages run them; rate limits are not counted. */
export function createDeriver(ports: DerivePorts) {
  const { serde, tables } = ports;
  const keyed = createKeyedCache(ports.workspaceKey);
  const regions = createKnownRegions({ tables, keys: ports.keys });

  function decideNow(from: CanonicalRecord, eventId: string, source: string, acceptedAt: number) {
    const { policy } = ports.release();
    const now = ports.now();
    const { name, value } = serde.decode(from.value);
    let current: Buffer | undefined;
    const basisOf = (purpose: string | undefined): string | null => (purpose === undefined ? null : policy.purposes.get(purpose)?.legalBasis ?? null);
    const context: DecisionContext = {
      now, take: () => true,
      consent: (linked, route) => tables.check(linked, route.purpose!, route.channel ?? null, route.topic ?? null, basisOf(route.purpose), now, policy),
    };
    const linked = tables.linked(from.ids);
    return {
      name, basisOf,
      decisions: decide(policy, { recordName: name.slice(canonicalPrefix.length), record: value, source, key: from.subject, ids: linked, regions: (own) => regions.of(linked, from.ids, own), eventId, acceptedAt, approval: from.approval }, context),
      /** What the vendor would get: the record in the schema of this version, less what the destination has no purpose for. */
      payloadOf: (decision: Extract<Decision, { effect: 'allow' }>): Buffer => decision.minimiser.bytes(current ??= from.value.readInt32BE(1) === serde.idOf(name) ? from.value : serde.encode(name, value)),
    };
  }

  function decideOne(from: CanonicalRecord, eventId: string, source: string, itemHash: string, acceptedAt: number, into: DerivedDelivery[]): void {
    const { name, basisOf, decisions, payloadOf } = decideNow(from, eventId, source, acceptedAt);
    for (const decision of decisions) {
      const { route } = decision;
      if (route === undefined) continue;
      into.push({
        allowed: decision.effect === 'allow', payload: decision.effect === 'allow' ? payloadOf(decision) : from.value,
        facts: { outputId: from.outputId, eventId, destination: route.destination, operation: route.operation, source, recordType: name, itemHash, acceptedAt, subject: from.subject, purpose: route.purpose ?? null, channel: route.channel ?? null, topic: route.topic ?? null, legalBasis: basisOf(route.purpose), ids: from.ids, intent: '0' },
      });
    }
  }

  /** A record of weir.canonical as it is decided on. Throws what its key or its bytes are refused for. */
  function canonicalOf({ headers, key, value }: LogRecord): CanonicalRecord {
    const ids = textOf(headers, H.ids);
    return { outputId: textOf(headers, H.output), ids: ids === '' ? [] : ids.split(','), subject: key?.toString('utf8') ?? '', value: ports.open(value ?? Buffer.alloc(0)) ?? value!, approval: approvalOf(headers) };
  }

  /** Undefined: its key is destroyed; changed: somebody wrote into the sealed bytes. */
  function opened(record: LogRecord): LogRecord | undefined | 'changed' {
    const envelope = record.headers.find(([name]) => name === H.envelope)?.[1];
    try {
      const value = record.value === null ? null : ports.open(record.value);
      const plain = envelope === undefined ? undefined : ports.open(envelope);
      if (value === undefined || (envelope !== undefined && plain === undefined)) return undefined;
      return value === record.value && plain === envelope ? record : { offset: record.offset, timestamp: record.timestamp, key: record.key, value, headers: record.headers.map((h) => (h[0] === H.envelope ? [H.envelope, plain!] as const : h)) };
    } catch (error) {
      if (error instanceof WeirError) return 'changed';
      throw error;
    }
  }

  /** Does not fit its schema: the stage makes a dead letter of it. */
  class Misfit extends Error {}
  function encoded(recordType: string, record: unknown): Buffer {
    try {
      return serde.encode(recordType, record);
    } catch (error) {
      if (error instanceof WeirError) throw error;
      throw new Misfit();
    }
  }

  return {
    raw(sealed: LogRecord, source: string): Derived {
      const record = opened(sealed);
      if (record === 'changed') return { kind: 'fails' };
      if (record === undefined) return { kind: 'key-destroyed' };
      const headers = rawHeaders(record);
      const result = normalize(source, record, headers, ports.release(), keyed);
      if (result.kind !== 'ok') return { kind: result.kind === 'dropped' ? 'dropped' : 'fails' };
      const deliveries: DerivedDelivery[] = [];
      try {
        for (const { outputId, ids, subject, recordType, record: made } of result.outputs) decideOne({ outputId, ids, subject, value: encoded(recordType, made) }, headers.eventId, source, headers.hash, headers.acceptedAt, deliveries);
      } catch (error) {
        if (error instanceof Misfit) return { kind: 'fails' };
        throw error;
      }
      return { kind: 'ok', deliveries, ids: result.outputs.map((o) => o.ids) };
    },
    canonical(record: LogRecord, source: string): Derived | 'unreadable' {
      const deliveries: DerivedDelivery[] = [];
      const idText = textOf(record.headers, H.ids);
      const ids = idText === '' ? [] : idText.split(',');
      try {
        decideOne(canonicalOf(record), textOf(record.headers, H.event), source, textOf(record.headers, H.hash), Number(textOf(record.headers, H.accepted)), deliveries);
      } catch (error) {
        if (!(error instanceof WeirError)) throw error;
        if (error.code !== 'subject-erased') return 'unreadable';
        return { kind: ports.standing.mayRead(ids, Number(textOf(record.headers, H.accepted))) ? 'key-destroyed' : 'erased' };
      }
      return { kind: 'ok', deliveries, ids: [ids] };
    },
    /** Of a record of weir.canonical: the delivery to this destination by this operation, also where it is the second vendor of a route. */
    now(record: LogRecord, destination: string, operation: string): DecidedNow {
      try {
        const { decisions, payloadOf } = decideNow(canonicalOf(record), textOf(record.headers, H.event), textOf(record.headers, H.source), Number(textOf(record.headers, H.accepted)));
        const of = decisions.flatMap((d) => (d.effect === 'allow' && d.second !== undefined ? [d, d.second] : [d])).filter(({ route }) => route?.destination === destination && route.operation === operation);
        const allowed = of.find((d) => d.effect === 'allow');
        return allowed === undefined ? { kind: 'denied' } : { kind: 'allowed', payload: payloadOf(allowed), notBefore: allowed.notBefore };
      } catch (error) {
        if (!(error instanceof WeirError)) throw error;
        return { kind: 'undecided' };
      }
    },
  };
}
