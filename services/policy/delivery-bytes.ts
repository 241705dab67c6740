import { WeirError } from '@weir/errors';
import { compileFields, copyBytes, room, type FieldWrite, type Serde, type Sink } from '@weir/log';
import type { CompiledRoute, Decision } from '@weir/policy';
import { loadSchemas } from '@weir/schemas';
import type { Canonical, Standby } from './delivery.ts';

/** What a value of weir.internal.Delivery is the same for: all deliveries of a record, or all of a route under one rule; the others are written each time. */
const sameFor: Readonly<Record<string, 'record' | 'route'>> = {
  outputId: 'record', eventId: 'record', itemHash: 'record', source: 'record', acceptedAt: 'record', decidedAt: 'record', consentOffsets: 'record', identityOffsets: 'record', ids: 'record',
  destination: 'route', operation: 'route', kind: 'route', recordType: 'route', release: 'route', rule: 'route', purpose: 'route', channel: 'route', topic: 'route', legalBasis: 'route',
};
const deliveryName = 'weir.internal.Delivery';
const head = 5;

/** Neighbouring fields that are the same for as many. */
interface Run { readonly of: 'record' | 'route' | 'delivery'; readonly fields: readonly FieldWrite[] }

function runsOf(fields: readonly FieldWrite[]): readonly Run[] {
  const runs: { readonly of: Run['of']; readonly fields: FieldWrite[] }[] = [];
  for (const field of fields) {
    const of = sameFor[field.name] ?? 'delivery';
    if (runs.at(-1)?.of === of) runs.at(-1)!.fields.push(field);
    else runs.push({ of, fields: [field] });
  }
  return runs;
}

/** Runs that were written before: where each ends in `bytes`, and the first begins at 0. */
interface Written { readonly bytes: Buffer; readonly ends: readonly number[] }
interface OfRoute extends Written { readonly release: string; readonly rule: string; readonly recordType: string; readonly legalBasis: string | null }

/** Of a decision that allows it. */
type Allowed = Pick<Extract<Decision, { effect: 'allow' }>, 'route' | 'rule' | 'consent' | 'notBefore'>;

/** Writes deliveries: the same bytes as `serde.encode('weir.internal.Delivery', …)`, put together of those that come again. */
export interface DeliveryBytes {
  /** The next deliveries are of this record. */
  record(from: Canonical): void;
  /** A delivery of it, from the beginning of the sink on. */
  delivery(decision: Allowed, intent: string, legalBasis: string | null, payload: Buffer, standby: Standby | null, sink: Sink): void;
}

export function createDeliveryBytes(serde: Pick<Serde, 'idOf'>): DeliveryBytes {
  const fields = compileFields(loadSchemas().get(deliveryName));
  if (fields === undefined) throw new WeirError('invariant-broken', `${deliveryName} is no record that can be written`);
  const runs = runsOf(fields);
  const routes = new WeakMap<CompiledRoute, OfRoute>();
  const ofRecord: Sink = { bytes: Buffer.allocUnsafe(4096), at: 0 };
  const recordEnds: number[] = [];
  let from: Canonical;

  function writeRuns(of: Run['of'], values: Readonly<Record<string, unknown>>, sink: Sink, ends: number[]): void {
    for (const run of runs) {
      if (run.of !== of) continue;
      for (const field of run.fields) write(field, values, sink);
      ends.push(sink.at);
    }
  }

  function write({ name, write: one, fallback }: FieldWrite, values: Readonly<Record<string, unknown>>, sink: Sink): void {
    const value = values[name];
    one(sink, value === undefined ? fallback : value);
  }

  function ofRoute({ route, rule }: Allowed, legalBasis: string | null): OfRoute {
    const known = routes.get(route);
    const { release, name: recordType } = from;
    if (known !== undefined && known.release === release && known.rule === rule && known.recordType === recordType && known.legalBasis === legalBasis) return known;
    const sink: Sink = { bytes: Buffer.allocUnsafe(512), at: 0 };
    const ends: number[] = [];
    writeRuns('route', { destination: route.destination, operation: route.operation, kind: route.kind, recordType, release, rule, purpose: route.purpose ?? null, channel: route.channel ?? null, topic: route.topic ?? null, legalBasis }, sink, ends);
    const made = { bytes: sink.bytes.subarray(0, sink.at), ends, release, rule, recordType, legalBasis };
    routes.set(route, made);
    return made;
  }

  return {
    record(of) {
      from = of;
      ofRecord.at = 0;
      recordEnds.length = 0;
      writeRuns('record', { outputId: of.outputId, eventId: of.eventId, itemHash: of.heads.hash, source: of.source, acceptedAt: of.acceptedAt, decidedAt: of.now, consentOffsets: of.consentOffsets, identityOffsets: of.identityOffsets, ids: of.ids }, ofRecord, recordEnds);
    },
    delivery(decision, intent, legalBasis, payload, standby, sink) {
      const route = ofRoute(decision, legalBasis);
      const own = { payload, consent: decision.consent, notBefore: decision.notBefore, intent, standby };
      sink.at = 0;
      room(sink, head + ofRecord.at + route.bytes.length + payload.length + 64);
      sink.bytes[0] = 0;
      sink.at = sink.bytes.writeInt32BE(serde.idOf(deliveryName), 1);
      let [records, ofRoutes, recordAt, routeAt] = [0, 0, 0, 0];
      for (const run of runs) {
        if (run.of === 'delivery') for (const field of run.fields) write(field, own, sink);
        else if (run.of === 'record') recordAt = copy(sink, ofRecord.bytes, recordAt, recordEnds[records++]!);
        else routeAt = copy(sink, route.bytes, routeAt, route.ends[ofRoutes++]!);
      }
    },
  };
}

/** Gives where the next run begins. */
function copy(sink: Sink, bytes: Buffer, begin: number, end: number): number {
  room(sink, end - begin);
  sink.at = copyBytes(sink.bytes, sink.at, bytes, begin, end);
  return end;
}
