import { headerBytes, type Headers, type LogRecord, type OutRecord, type Packer, type Serde, type Sink } from '@weir/log';
import { deliveryKey, H, linkedOutput } from '@weir/pipeline';
import type { CompiledRoute, Decision } from '@weir/policy';
import type { Onward } from '@weir/release';
import type { DeliveryBytes } from './delivery-bytes.ts';
import { carried, Heads } from './heads.ts';
import { limitText } from './limits.ts';
import type { PolicyPorts } from './ports.ts';

/** A canonical record on its way to its decisions. */
export interface Canonical {
  readonly record: LogRecord;
  readonly heads: Heads;
  /** Its value, opened where it is sealed. */
  readonly bytes: Buffer;
  /** Of weir.canonical. */
  readonly partition: number;
  readonly name: string;
  /** The whole record, decoded when it is asked for; undefined of an erased person. */
  readonly value: () => any;
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
  /** Told of each route to which nothing of it goes. */
  readonly stopped?: (route: CompiledRoute) => void;
}

/** The intent of each delivery of a record: 0, but where a replay order corrects one (architecture 3.5), the intent that it names. Undefined = 0 for all. */
export function intentsOf({ corrects, outputId }: Heads): ((route: CompiledRoute | undefined) => string) | undefined {
  if (corrects === undefined) return undefined;
  const named = new Map(corrects.split(',').map((part) => part.split('=', 2) as [string, string]));
  return (route) => named.get(`${outputId}/${route?.destination}/${route?.operation}`) ?? '0';
}

/** Whether a route is left out, because a replay order does not send what would come of it. Undefined = none is. */
export function routesLeftOut({ only, settled, outputId }: Heads): ((route: CompiledRoute) => boolean) | undefined {
  if (only === undefined && settled === undefined) return undefined;
  const own = settled?.split(',').filter((name) => name.startsWith(`${outputId}/`)) ?? [];
  if (only === undefined && own.length === 0) return undefined;
  const named = new Set(own);
  return ({ destination, operation }) => (only !== undefined && destination !== only) || named.has(`${outputId}/${destination}/${operation}`);
}

/** The same of a decision. That the person is erased by now is always told. */
export function leftOut(heads: Heads): ((decision: Decision) => boolean) | undefined {
  const isLeftOut = routesLeftOut(heads);
  return isLeftOut && ((decision) => {
    const { route } = decision;
    return route === undefined ? decision.effect === 'deny' && decision.reason === 'no-route' : isLeftOut(route);
  });
}

/** A change of consent once more, under a linked identifier: an output of its own, of the same record. */
export function onwardOf(from: Canonical, { id, record }: Pick<Onward, 'id' | 'record'>, serde: Pick<Serde, 'encode'>): Canonical {
  const outputId = linkedOutput(from.outputId, id);
  const { offset, timestamp, key, value, headers } = from.record;
  const heads = new Heads({ offset, timestamp, key, value, headers: headers.map((header) => (header[0] === H.output ? [H.output, Buffer.from(outputId)] as const : header)) });
  return { ...from, heads, outputId, bytes: serde.encode(from.name, record), value: () => record, ids: [...from.ids, id] };
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

/** What deliveries are put together with; `bytes` was told of the record. */
export interface Parts {
  readonly packer: Packer;
  readonly sink: Sink;
  readonly bytes: DeliveryBytes;
}

/** The release that decides, as a header. */
let releaseBytes: { readonly hash: string; readonly bytes: Buffer } | undefined;
function releaseHeader(hash: string): Buffer {
  if (releaseBytes?.hash !== hash) releaseBytes = { hash, bytes: headerBytes(H.release, hash) };
  return releaseBytes.bytes;
}
/** Its name with its length before it. */
const limitsName = headerBytes(H.limits, '').subarray(0, -1);

/** weir.internal.Delivery of an allowed decision, for weir.dispatch.<destination>. */
export function deliveryRecord({ context: { topics }, appender }: PolicyPorts, { packer, sink, bytes }: Parts, from: Canonical, decision: Extract<Decision, { effect: 'allow' }>, legalBasis: string | null, payload: Buffer, standby: Standby | null = null): OutRecord {
  const key = from.record.key!;
  const limited = limitText(decision, from.now);
  bytes.delivery(decision, from.intent, legalBasis, payload, standby, sink);
  packer.begin();
  packer.key(key, 0, key.length);
  packer.value(sink.bytes, 0, sink.at);
  from.heads.carry(packer);
  const release = releaseHeader(from.release);
  packer.headers(release, 0, release.length, 1);
  if (limited !== undefined) packer.header(limitsName, limited);
  return packer.end(appender.partitionFor(topics.dispatch(decision.route.destination), key));
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
