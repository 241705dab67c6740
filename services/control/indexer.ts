import { findWeirError } from '@weir/errors';
import { fieldReader, type FieldReader, type LogRecord, type RecordBatch, type Serde } from '@weir/log';
import { H, linkedFrom, linkedOperation, type TopicNames } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import { isReadable } from '@weir/seal';
import { traceIdOf } from '@weir/telemetry';
import { settledReason } from './event-ends.ts';
import type { DeliveryState, Store, Transaction } from './store.ts';

type Where = { readonly topic: string; readonly partition: number; readonly offset: number };
type Value = Record<string, any>;

/** Text of a header; '' when it is not there. */
export function header(record: LogRecord, name: string): string {
  for (const [n, value] of record.headers) if (n === name) return value.toString('utf8');
  return '';
}

/** Output id of a dead letter's record, from its headers; null before it was routed: what policy set aside for a destination was. */
function outputOf(letter: Value): string | null {
  if (letter['destination'] === null || (letter['stage'] !== 'policy' && !letter['topic'].endsWith(`.dispatch.${letter['destination']}`))) return null;
  const found = (letter['headers'] as { name: string; value: Buffer }[]).find((h) => h.name === H.output);
  return found === undefined ? null : found.value.toString('latin1');
}

/** A record that could not be read has no output id: its event stands for it, or all such records would be one. */
const deliveryId = (v: Value, destination: string | null): string => `${v['outputId'] ?? v['eventId']}|${destination ?? ''}|${v['operation'] ?? ''}`;

/** What the policy stage decided, by the end that it wrote. */
const policyEffects: Record<string, string> = { denied: 'deny', quarantined: 'hold', 'dead-lettered': 'dead-letter' };
const stateOf: Record<string, DeliveryState> = { delivered: 'delivered', denied: 'denied', 'dead-lettered': 'dead-lettered', quarantined: 'quarantined', superseded: 'superseded', expired: 'quarantined', 'failed-over': 'failed-over' };

function accepted(tx: Transaction, record: LogRecord, where: Where): void {
  const eventId = header(record, H.event);
  tx.accepted(eventId);
  const order = header(record, H.intent);
  if (order !== '') tx.reopened(eventId, order, record.timestamp);
  tx.stage(eventId, { stage: 'accepted', at: Number(header(record, H.accepted)), source: header(record, H.source), traceId: traceIdOf(header(record, H.traceparent)), bytes: record.value?.length ?? 0, objectKey: header(record, H.objectKey) || undefined }, where);
}

function normalized(tx: Transaction, record: LogRecord, name: string, where: Where): void {
  const eventId = header(record, H.event);
  tx.stage(eventId, { stage: 'normalized', at: record.timestamp, mapping: header(record, H.mapping), release: header(record, H.release), output: header(record, H.outputName), outputId: header(record, H.output), record: name, subject: record.key?.toString('utf8'), actor: header(record, H.actor) || undefined }, where);
}

/** As stages name it. What goes out once more under a linked identifier is an operation beside that of its change. */
function named(outputId: string | null, operation: string | null): { readonly outputId: string | null; readonly operation: string | null } {
  const linked = outputId === null ? undefined : linkedFrom(outputId);
  return linked === undefined || operation === null ? { outputId, operation } : { outputId: linked.output, operation: linkedOperation(operation, linked.id) };
}

function decided(tx: Transaction, v: Value, where: Where): void {
  tx.delivery(deliveryId(v, v['destination']), 'pending', v['decidedAt']);
  tx.stage(v['eventId'], { stage: 'decided', at: v['decidedAt'], effect: 'allow', destination: v['destination'], ...named(v['outputId'], v['operation']), rule: v['rule'], purpose: v['purpose'], legalBasis: v['legalBasis'], consent: v['consent'], release: v['release'], notBefore: v['notBefore'] ?? undefined, ...secondOf(v) }, where);
}

/** What the decision says of a second vendor, or of the first where this is the second. */
function secondOf({ standby, failedOver }: Value): { standby?: string; refused?: string; from?: string } {
  if (failedOver !== null) return { from: failedOver.destination };
  if (standby === null) return {};
  return { standby: standby.destination, ...(standby.refused === null ? {} : { refused: standby.refused }) };
}

function attempt(tx: Transaction, v: Value, where: Where): void {
  tx.stage(v['eventId'], { stage: 'attempt', at: v['at'], destination: v['destination'], ...named(v['outputId'], v['operation']), number: v['number'], verdict: v['verdict'], effect: v['effect'], status: v['status'], code: v['code'], ms: v['durationMs'], path: v['path'] ?? undefined }, where);
}

function outcome(tx: Transaction, v: Value, order: string, where: Where): void {
  const { eventId, destination, state } = v;
  const { outputId, operation } = named(v['outputId'], v['operation']);
  const before = v['outputId'] === null && v['stage'] === 'normalizer';
  // A person closes what they saw set aside, whatever had put it back.
  if (before) tx.ended(eventId, state, v['at'], v['reason'] === settledReason ? undefined : order);
  else tx.delivery(deliveryId(v, destination), stateOf[state] ?? 'quarantined', v['at']);
  // Outcomes of an event stand on one partition, in their order.
  if (!before && v['stage'] === 'dispatcher') tx.held(deliveryId(v, destination), v['reason'] === 'delivery-held');
  if (order !== '') tx.replayed(order, before ? eventId : deliveryId(v, destination), stateOf[state] ?? (state === 'dropped' ? 'dropped' : 'quarantined'));
  if (v['stage'] === 'policy') tx.stage(eventId, { stage: 'decided', at: v['at'], effect: policyEffects[state] ?? 'deny', outputId, destination, operation, rule: v['rule'], purpose: v['purpose'], reason: v['reason'], consent: v['consent'], release: v['release'] }, where);
  if (v['attempt'] !== null) tx.stage(eventId, { stage: 'attempt', at: v['attempt'].at, destination, outputId, operation, number: v['attempts'], verdict: v['attempt'].verdict, effect: v['attempt'].effect, status: v['status'], ms: v['attempt'].durationMs, path: v['attempt'].path ?? undefined }, where);
  tx.stage(eventId, { stage: 'outcome', at: v['at'], destination, outputId, operation, state, reason: v['reason'], detail: v['detail'] ?? undefined, attempts: v['attempts'], status: v['status'] ?? undefined, to: v['to'] ?? undefined, by: v['stage'] }, where);
}

function ended(tx: Transaction, v: Value, destination: string, partition: number): void {
  if (v['state'] === 'delivered') tx.delivery(deliveryId(v, destination), 'delivered', v['at']);
  tx.end({ destination, key: v['key'], operation: v['operation'], subject: v['subject'], acceptedAt: v['acceptedAt'], firstOffset: v['firstOffset'] ?? -1, object: v['object'] ?? '', state: v['state'], effect: v['effect'], itemHash: v['itemHash'], at: v['at'], offset: v['offset'], maybeSince: v['maybeSince'], partition, owner: v['owner'], outputId: v['outputId'], generation: v['generation'] });
}

/** Rule and end of a hold, from the header that the policy stage put on the letter. */
function heldOf(headers: readonly { readonly name: string; readonly value: Buffer }[]): { rule: string; until: number } | undefined {
  const [rule, until] = headers.find((h) => h.name === H.held)?.value.toString('utf8').split(';') ?? [];
  return rule === undefined || until === undefined ? undefined : { rule, until: Number(until) };
}

function deadLetter(tx: Transaction, v: Value, where: Where): void {
  tx.deadLetter(v['id'], { id: v['id'], eventId: v['eventId'], stage: v['stage'], codes: v['reasons'].map((r: Value) => r['code']), message: v['reasons'][0]?.message ?? '', source: v['source'], destination: v['destination'], operation: v['operation'], release: v['release'], at: v['at'], outputId: outputOf(v), partition: where.partition, offset: where.offset, held: heldOf(v['headers']) });
}

/** What is read of a record, and what becomes of it. */
interface Kind {
  readonly name: string;
  readonly read: FieldReader<Value>;
  apply(tx: Transaction, value: Value, record: LogRecord, where: Where, topics: TopicNames): void;
}
const kind = (name: string, fields: readonly string[], apply: Kind['apply']): Kind => ({ name, read: fieldReader<Value>(name, fields), apply });
const destinationOf = (topic: string, topics: TopicNames): string => topic.slice(topics.ledger('').length);

/** The rest of what stands on these topics (intents, markers) tells of no stage. */
const kinds: readonly Kind[] = [
  kind('weir.internal.Delivery', ['outputId', 'eventId', 'destination', 'operation', 'decidedAt', 'release', 'rule', 'purpose', 'legalBasis', 'consent', 'notBefore', 'standby', 'failedOver'], (tx, v, _record, where) => decided(tx, v, where)),
  kind('weir.internal.Attempt', ['eventId', 'outputId', 'at', 'destination', 'operation', 'number', 'verdict', 'effect', 'status', 'code', 'durationMs', 'path'], (tx, v, _record, where) => attempt(tx, v, where)),
  kind('weir.internal.Outcome', ['eventId', 'outputId', 'destination', 'operation', 'state', 'stage', 'at', 'reason', 'detail', 'attempts', 'status', 'to', 'rule', 'purpose', 'consent', 'release', 'attempt'], (tx, v, record, where) => outcome(tx, v, header(record, H.intent), where)),
  kind('weir.internal.DeadLetter', ['id', 'eventId', 'stage', 'reasons', 'source', 'destination', 'operation', 'release', 'topic', 'at', 'headers'], (tx, v, _record, where) => deadLetter(tx, v, where)),
  kind('weir.internal.LedgerEnd', ['key', 'outputId', 'eventId', 'operation', 'state', 'effect', 'generation', 'itemHash', 'subject', 'offset', 'at', 'acceptedAt', 'maybeSince', 'owner', 'firstOffset', 'object'], (tx, v, _record, { topic, partition }, topics) => ended(tx, v, destinationOf(topic, topics), partition)),
  kind('weir.internal.LedgerOwner', ['token', 'owner'], (tx, v, _record, { topic, partition }, topics) => tx.owner(destinationOf(topic, topics), partition, v as { token: number; owner: string })),
];

/** Records that retention deleted before they were indexed. */
export interface IndexGap {
  readonly topic: string;
  readonly partition: number;
  readonly from: number;
  /** Not included. */
  readonly to: number;
}

/**
 * Where indexing goes on in each of the partitions 0 to `partitions` - 1: behind what is in the index, or at the beginning of
 * the topic where retention deleted what stands between (an index that is built anew, or that was stopped for long). The index
 * is a view and no stage: it goes without what is gone, which counts as indexed, and `missed` is told.
 */
export function indexFrom(store: Pick<Store, 'begin' | 'position'>, topic: string, partitions: number, begins: ReadonlyMap<number, number>, missed: (gap: IndexGap) => void): Map<number, number> {
  const positions = new Map<number, number>();
  for (let partition = 0; partition < partitions; partition++) {
    const from = store.position(topic, partition);
    const to = begins.get(partition) ?? 0;
    if (from < to) {
      // Of a partition that is empty now nothing would ever be read, and who waits for the index would wait for ever.
      store.begin().commit(topic, partition, to);
      missed({ topic, partition, from, to });
    }
    positions.set(partition, Math.max(from, to));
  }
  return positions;
}

/** Applies batches of every topic to the store. A record that cannot be decoded is skipped here and counted: the stage that owns it dead-letters it. */
export function createIndexer(store: Store, serde: Serde, topics: TopicNames, onUndecodable: (topic: string) => void): (batch: RecordBatch) => Promise<void> {
  /** By the schema ids of this version, which nearly all is of: what is no kind is not decoded at all. */
  let byId: ReadonlyMap<number, Kind | undefined> | undefined;

  return async function index(batch) {
    const { topic, partition } = batch;
    const raw = topic.startsWith(topics.raw(''));
    if (!raw) await prepare(batch);
    const tx = store.begin();
    for (const record of batch.records) {
      const where = { topic, partition, offset: record.offset };
      if (raw) accepted(tx, record, where);
      else if (record.value !== null) decode(tx, record, record.value, where);
    }
    tx.commit(topic, partition, batch.nextOffset);
  };

  /** Look up the writer schemas of the batch. What has none is counted when it is decoded. */
  async function prepare(batch: RecordBatch): Promise<void> {
    for (const { value } of batch.records) {
      if (!isReadable(value) || serde.known(value)) continue;
      try {
        await serde.prepare(value);
      } catch (error) {
        if (findWeirError(error)?.code !== 'schema-unknown') throw error;
      }
    }
  }

  function kindOf(bytes: Buffer): Kind | undefined | 'other' {
    byId ??= new Map([...loadSchemas().keys()].map((name) => [serde.idOf(name), kinds.find((k) => k.name === name)]));
    const id = bytes.length >= 5 && bytes[0] === 0 ? bytes.readInt32BE(1) : -1;
    return byId.has(id) ? byId.get(id) : 'other';
  }

  function decode(tx: Transaction, record: LogRecord, bytes: Buffer, where: Where): void {
    let found: Kind | undefined;
    let value: Value | undefined;
    try {
      if (where.topic === topics.canonical) return normalized(tx, record, serde.check(bytes), where);
      const kind = kindOf(bytes);
      if (kind === 'other') {
        // Of another version of Weir, or sealed.
        const decoded = serde.decode(bytes);
        [found, value] = [kinds.find((k) => k.name === decoded.name), decoded.value as Value];
      } else if (kind !== undefined) [found, value] = [kind, kind.read(serde, bytes)];
    } catch (error) {
      const code = findWeirError(error)?.code;
      // Not of the record.
      if (code === undefined) throw error;
      // An erased person's record leaves no stage of its own: what was decided about it is in its outcomes.
      return code === 'subject-erased' ? undefined : onUndecodable(where.topic);
    }
    if (value !== undefined) found?.apply(tx, value, record, where, topics);
  }
}
