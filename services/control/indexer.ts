import { findWeirError } from '@weir/errors';
import type { LogRecord, RecordBatch, Serde } from '@weir/log';
import { H, type TopicNames } from '@weir/pipeline';
import { isReadable } from '@weir/seal';
import { traceIdOf } from '@weir/telemetry';
import type { DeliveryState, Store, Transaction } from './store.ts';

type Where = { readonly topic: string; readonly partition: number; readonly offset: number };
type Value = Record<string, any>;

/** Text of a header; '' when it is not there. */
export function header(record: LogRecord, name: string): string {
  for (const [n, value] of record.headers) if (n === name) return value.toString('utf8');
  return '';
}

/** Output id of a dead letter's record, from its headers; null before it was routed. */
function outputOf(letter: Value): string | null {
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
  if (header(record, H.intent) !== '') tx.reopened(eventId, record.timestamp);
  tx.stage(eventId, { stage: 'accepted', at: Number(header(record, H.accepted)), source: header(record, H.source), traceId: traceIdOf(header(record, H.traceparent)), bytes: record.value?.length ?? 0, objectKey: header(record, H.objectKey) || undefined }, where);
}

function normalized(tx: Transaction, record: LogRecord, name: string, where: Where): void {
  const eventId = header(record, H.event);
  tx.stage(eventId, { stage: 'normalized', at: record.timestamp, mapping: header(record, H.mapping), release: header(record, H.release), output: header(record, H.outputName), outputId: header(record, H.output), record: name, subject: record.key?.toString('utf8') }, where);
}

function decided(tx: Transaction, v: Value, where: Where): void {
  tx.delivery(deliveryId(v, v['destination']), 'pending');
  tx.stage(v['eventId'], { stage: 'decided', at: v['decidedAt'], effect: 'allow', outputId: v['outputId'], destination: v['destination'], operation: v['operation'], rule: v['rule'], purpose: v['purpose'], legalBasis: v['legalBasis'], consent: v['consent'], release: v['release'], notBefore: v['notBefore'] ?? undefined, ...secondOf(v) }, where);
}

/** What the decision says of a second vendor, or of the first where this is the second. */
function secondOf({ standby, failedOver }: Value): { standby?: string; refused?: string; from?: string } {
  if (failedOver !== null) return { from: failedOver.destination };
  if (standby === null) return {};
  return { standby: standby.destination, ...(standby.refused === null ? {} : { refused: standby.refused }) };
}

function attempt(tx: Transaction, v: Value, where: Where): void {
  tx.stage(v['eventId'], { stage: 'attempt', at: v['at'], destination: v['destination'], operation: v['operation'], number: v['number'], verdict: v['verdict'], effect: v['effect'], status: v['status'], code: v['code'], ms: v['durationMs'], path: v['path'] ?? undefined }, where);
}

function outcome(tx: Transaction, v: Value, order: string, where: Where): void {
  const { eventId, destination, operation, state } = v;
  const before = v['outputId'] === null && v['stage'] === 'normalizer';
  if (before) tx.ended(eventId, state, v['at']);
  else tx.delivery(deliveryId(v, destination), stateOf[state] ?? 'quarantined');
  // Outcomes of an event stand on one partition, in their order.
  if (!before && v['stage'] === 'dispatcher') tx.held(deliveryId(v, destination), v['reason'] === 'delivery-held');
  if (order !== '') tx.replayed(order, before ? eventId : deliveryId(v, destination), stateOf[state] ?? (state === 'dropped' ? 'dropped' : 'quarantined'));
  if (v['stage'] === 'policy') tx.stage(eventId, { stage: 'decided', at: v['at'], effect: policyEffects[state] ?? 'deny', outputId: v['outputId'], destination, operation, rule: v['rule'], purpose: v['purpose'], reason: v['reason'], consent: v['consent'], release: v['release'] }, where);
  if (v['attempt'] !== null) tx.stage(eventId, { stage: 'attempt', at: v['attempt'].at, destination, operation, number: v['attempts'], verdict: v['attempt'].verdict, effect: v['attempt'].effect, status: v['status'], ms: v['attempt'].durationMs, path: v['attempt'].path ?? undefined }, where);
  tx.stage(eventId, { stage: 'outcome', at: v['at'], destination, operation, state, reason: v['reason'], detail: v['detail'] ?? undefined, attempts: v['attempts'], status: v['status'] ?? undefined, to: v['to'] ?? undefined, by: v['stage'] }, where);
}

function ended(tx: Transaction, v: Value, destination: string, partition: number): void {
  if (v['state'] === 'delivered') tx.delivery(deliveryId(v, destination), 'delivered');
  tx.end({ destination, key: v['key'], operation: v['operation'], subject: v['subject'], acceptedAt: v['acceptedAt'], state: v['state'], effect: v['effect'], itemHash: v['itemHash'], at: v['at'], offset: v['offset'], maybeSince: v['maybeSince'], partition, owner: v['owner'] });
}

/** Rule and end of a hold, from the header that the policy stage put on the letter. */
function heldOf(headers: readonly { readonly name: string; readonly value: Buffer }[]): { rule: string; until: number } | undefined {
  const [rule, until] = headers.find((h) => h.name === H.held)?.value.toString('utf8').split(';') ?? [];
  return rule === undefined || until === undefined ? undefined : { rule, until: Number(until) };
}

function deadLetter(tx: Transaction, v: Value, where: Where): void {
  tx.deadLetter(v['id'], { id: v['id'], eventId: v['eventId'], stage: v['stage'], codes: v['reasons'].map((r: Value) => r['code']), message: v['reasons'][0]?.message ?? '', source: v['source'], destination: v['destination'], operation: v['operation'], release: v['release'], at: v['at'], outputId: v['topic'].endsWith(`.dispatch.${v['destination']}`) ? outputOf(v) : null, partition: where.partition, offset: where.offset, held: heldOf(v['headers']) });
}

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

  function decode(tx: Transaction, record: LogRecord, bytes: Buffer, where: Where): void {
    let name: string;
    let value: Value;
    try {
      ({ name, value } = serde.decode(bytes));
    } catch (error) {
      // An erased person's record leaves no stage of its own: what was decided about it is in its outcomes.
      return findWeirError(error)?.code === 'subject-erased' ? undefined : onUndecodable(where.topic);
    }
    if (where.topic === topics.canonical) return normalized(tx, record, name, where);
    if (name === 'weir.internal.Delivery') decided(tx, value, where);
    else if (name === 'weir.internal.Attempt') attempt(tx, value, where);
    else if (name === 'weir.internal.Outcome') outcome(tx, value, header(record, H.intent), where);
    else if (name === 'weir.internal.DeadLetter') deadLetter(tx, value, where);
    else if (name === 'weir.internal.LedgerEnd') ended(tx, value, where.topic.slice(topics.ledger('').length), where.partition);
    else if (name === 'weir.internal.LedgerOwner') tx.owner(where.topic.slice(topics.ledger('').length), where.partition, value as { token: number; owner: string });
  }
}
