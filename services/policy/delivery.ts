import type { Headers, LogRecord, OutRecord } from '@weir/log';
import { deliveryKey, H } from '@weir/pipeline';
import type { CompiledRoute, Decision } from '@weir/policy';
import { limitHeader } from './limits.ts';
import { headerOf, textOf, type PolicyPorts } from './ports.ts';

/** A canonical record on its way to its decisions. */
export interface Canonical {
  readonly record: LogRecord;
  /** Its value, opened where it is sealed. */
  readonly bytes: Buffer;
  /** Of weir.canonical. */
  readonly partition: number;
  readonly name: string;
  readonly value: any;
  readonly eventId: string;
  readonly outputId: string;
  readonly source: string;
  readonly acceptedAt: number;
  /** Part of the keys of its deliveries: 0, or what a replay order corrects it as. */
  readonly intent: string;
  readonly ids: readonly string[];
  readonly now: number;
  readonly consentOffsets: readonly number[];
  readonly identityOffsets: readonly number[];
  /** Release that decides. */
  readonly release: string;
}

const carried: ReadonlySet<string> = new Set([H.event, H.hash, H.source, H.accepted, H.traceparent, H.output, H.intent]);

/** The intent of each delivery of a record: 0, but where a replay order corrects one (architecture 3.5), the intent that it names. Undefined = 0 for all. */
export function intentsOf(record: LogRecord): ((route: CompiledRoute | undefined) => string) | undefined {
  const corrects = headerOf(record.headers, H.corrects)?.toString();
  if (corrects === undefined) return undefined;
  const named = new Map(corrects.split(',').map((part) => part.split('=', 2) as [string, string]));
  const output = textOf(record, H.output);
  return (route) => named.get(`${output}/${route?.destination}/${route?.operation}`) ?? '0';
}

/** Headers of what comes out of a record: those that go on, and the release that decided. */
export function outHeaders(record: LogRecord, release: string): Headers {
  const headers: (readonly [string, Buffer])[] = [];
  for (const header of record.headers) if (carried.has(header[0])) headers.push(header);
  headers.push([H.release, Buffer.from(release)]);
  return headers;
}

/** weir.internal.Standby: what was decided for the second vendor. */
export interface Standby {
  readonly destination: string;
  readonly operation: string;
  readonly refused: string | null;
  readonly rule: string | null;
  /** Null = as for the first. */
  readonly payload: Buffer | null;
  readonly notBefore: number | null;
}

/** weir.internal.Delivery of an allowed decision, for weir.dispatch.<destination>. */
export function deliveryRecord(ports: PolicyPorts, from: Canonical, decision: Extract<Decision, { effect: 'allow' }>, legalBasis: string | null, payload: Buffer, headers: Headers, standby: Standby | null = null): OutRecord {
  const { serde, topics } = ports.context;
  const { route } = decision;
  const key = from.record.key!;
  const limited = limitHeader(decision, from.now);
  const value = {
    outputId: from.outputId, eventId: from.eventId, destination: route.destination, operation: route.operation, kind: route.kind, recordType: from.name, payload,
    itemHash: headerOf(from.record.headers, H.hash)?.toString() ?? '', source: from.source, acceptedAt: from.acceptedAt, decidedAt: from.now, release: from.release, rule: decision.rule,
    purpose: route.purpose ?? null, channel: route.channel ?? null, topic: route.topic ?? null, legalBasis, consent: decision.consent,
    consentOffsets: from.consentOffsets, identityOffsets: from.identityOffsets, ids: from.ids, notBefore: decision.notBefore, intent: from.intent, standby,
  };
  return { partition: ports.appender.partitionFor(topics.dispatch(route.destination), key), key, value: serde.encode('weir.internal.Delivery', value), headers: limited === undefined ? headers : [...headers, limited] };
}

/** weir.internal.Outcome of a denied decision, for weir.outcome. */
export function deniedRecord(ports: PolicyPorts, from: Canonical, decision: Extract<Decision, { effect: 'deny' }>, headers: Headers): OutRecord {
  const { serde, topics } = ports.context;
  const { route } = decision;
  const key = Buffer.from(from.eventId);
  const value = {
    eventId: from.eventId, outputId: from.outputId, destination: route?.destination ?? null, operation: route?.operation ?? null,
    key: route === undefined ? null : deliveryKey(from.outputId, route.destination, route.operation, from.intent, 0),
    state: 'denied', reason: decision.reason, detail: decision.detail ?? null, stage: 'policy', release: from.release, rule: decision.rule, purpose: route?.purpose ?? null,
    consent: decision.consent, attempts: 0, status: null, attempt: null, acceptedAt: from.acceptedAt, at: from.now,
  };
  return { partition: ports.appender.partitionFor(topics.outcome, key), key, value: serde.encode('weir.internal.Outcome', value), headers };
}
