import { hash } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import type { LogAdmin, Reader, Serde } from '@weir/log';
import { deliveryKey, H, type TopicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import type { Put, Table } from '@weir/state';
import { isUnreadable } from '../policy/history.ts';
import { textOf } from './derive.ts';
import type { ReplayOrder } from './order.ts';
import type { Item, Looked } from './select.ts';
import { isSuperseded, type StandingPorts } from './standing.ts';

export interface CorrectPorts {
  readonly reader: Reader;
  readonly admin: LogAdmin;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly release: () => Release;
  readonly standing: StandingPorts;
  /** Cache of what was delivered, for the time of a pass; it may be deleted. */
  readonly table: Table;
}

export interface Difference {
  readonly eventId: string;
  readonly outputId: string;
  readonly destination: string;
  readonly operation: string;
  readonly fields: readonly string[];
}
export interface FieldDifference extends Omit<Difference, 'fields'> {
  readonly fields: ReadonlyArray<{ readonly field: string; readonly before: unknown; readonly after: unknown }>;
}

/** What was delivered and differs from what the running release makes of the same record. Of what an approver let through nothing is corrected: he was shown what was delivered, and an approval is of that alone. */
export interface Corrections {
  differences(item: Item): readonly Difference[];
  /** How many deliveries differ that an approver let through. */
  approved(item: Item): number;
  /** The item with the intents of what it corrects; itself when there is nothing. */
  mark(item: Item): Item;
  /** The pass is over: what was delivered stands in the clear, and is dropped. */
  close(): void;
}

export interface Corrector {
  /** Reads what was delivered since the order's range began; resolves when it is at hand. */
  open(order: ReplayOrder, goesOn: () => boolean): Promise<Corrections>;
  /** The first 50 differences of an order with their values, for who may see payloads; in memory only, and without those of who was erased since. */
  samples(order: string): readonly FieldDifference[];
  /** Whether this process has made them: a restart, and newer orders (20 are kept), forget them. */
  has(order: string): boolean;
  forget(order: string): void;
}

/** With what tells whether its person may be read still. */
interface Sample {
  readonly detail: FieldDifference;
  readonly ids: readonly string[];
  readonly acceptedAt: number;
}

interface DeliveryRecord {
  readonly outputId: string;
  readonly destination: string;
  readonly operation: string;
  readonly intent: string;
  readonly payload: Buffer;
}

const maxSamples = 50;
/** Orders whose differences are kept. */
export const maxOrders = 20;
const maxGenerations = 1000;
const flushRecords = 2000;
const deliveryName = 'weir.internal.Delivery';
/** Fields that say how a record came about, not what it says. */
const notCompared = new Set(['extras']);

const isApproved = ({ origin }: Item): boolean => textOf(origin.headers, H.approval) !== '';

export function createCorrector(ports: CorrectPorts): Corrector {
  const { serde, table, topics, standing } = ports;
  const kept = new Map<string, Sample[]>();
  const storeKey = (order: string, d: { outputId: string; destination: string; operation: string }): string => `p/${order}/${d.outputId}|${d.destination}|${d.operation}`;

  /** The key under which this very record was delivered, and when; undefined when it was not. */
  function deliveredAs(d: DeliveryRecord, offset: number): { key: string; at: number } | undefined {
    for (let generation = 0; generation < maxGenerations; generation++) {
      const key = deliveryKey(d.outputId, d.destination, d.operation, d.intent, generation);
      const end = standing.end(d.destination, key);
      if (end === undefined) return undefined;
      if (end.state === 'delivered') return end.offset === offset ? { key, at: end.at } : undefined;
    }
    return undefined;
  }

  /** Of several deliveries of one output (an earlier correction) the last one counts: it is what the vendor has. */
  async function collect(order: ReplayOrder, goesOn: () => boolean): Promise<void> {
    const names = order.destination === null ? [...ports.release().destinations.keys()] : [order.destination];
    for (const topic of names.map(topics.dispatch)) {
      const [ends, begins, since] = await Promise.all([ports.admin.endOffsets(topic), ports.admin.beginningOffsets(topic), order.since === null ? undefined : ports.admin.offsetsAt(topic, order.since)]);
      for (const [partition, end] of ends) {
        const from = since === undefined ? begins.get(partition) ?? 0 : since.get(partition) ?? end;
        await ports.reader.read(topic, partition, from, end, async (batch) => {
          if (!goesOn()) return;
          const puts = new Map<string, Buffer>();
          for (const { value, offset } of batch.records) {
            const d = value === null ? undefined : await deliveryOf(value);
            const delivered = d === undefined ? undefined : deliveredAs(d, offset);
            if (d === undefined || delivered === undefined) continue;
            const key = storeKey(order.id, d);
            const before = puts.get(key) ?? table.get(key);
            if (before === undefined || Number(before.toString('latin1', 0, 16)) < delivered.at) puts.set(key, Buffer.concat([Buffer.from(`${String(delivered.at).padStart(16, '0')}${delivered.key}`.padEnd(64), 'latin1'), d.payload]));
            if (puts.size >= flushRecords) flush(puts);
          }
          flush(puts);
        });
      }
    }
  }

  /** Undefined: its person was erased, or it is no delivery. */
  async function deliveryOf(value: Buffer): Promise<DeliveryRecord | undefined> {
    try {
      if (!serde.known(value)) await serde.prepare(value);
      const decoded = serde.decode(value);
      if (decoded.name !== deliveryName) return undefined;
      const delivery = decoded.value as DeliveryRecord;
      if (!serde.known(delivery.payload)) await serde.prepare(delivery.payload);
      return delivery;
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }

  function flush(puts: Map<string, Buffer>): void {
    table.putBatch([...puts].map(([key, value]): Put => ({ key, value })));
    puts.clear();
  }

  /** Undefined = nobody can read it any more: who was erased since has nothing to correct. */
  function recordOf(payload: Buffer): Record<string, unknown> | undefined {
    try {
      return serde.decode(payload).value as Record<string, unknown>;
    } catch (error) {
      if (isUnreadable(error)) return undefined;
      throw error;
    }
  }

  function differs(order: ReplayOrder, looked: Looked): { readonly detail: FieldDifference; readonly intent: string } | undefined {
    const { facts, found, payload } = looked;
    if (found.standing !== 'confirmed' || !looked.allowed || payload === undefined || isSuperseded(standing, facts, payload)) return undefined;
    const stored = table.get(storeKey(order.id, facts));
    if (stored === undefined) return undefined;
    const [before, after] = [recordOf(stored.subarray(64)), recordOf(payload)];
    if (before === undefined || after === undefined) return undefined;
    const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => !notCompared.has(name) && !isDeepStrictEqual(before[name] ?? null, after[name] ?? null));
    if (fields.length === 0) return undefined;
    const { eventId, outputId, destination, operation } = facts;
    const deliveredKey = stored.toString('latin1', 16, 64).trimEnd();
    // Of what was delivered last and what is to be delivered: whoever orders the same correction has the same key.
    const intent = `fix_${hash('sha256', Buffer.concat([Buffer.from(deliveredKey), payload]), 'hex').slice(0, 32)}`;
    return { intent, detail: { eventId, outputId, destination, operation, fields: fields.map((field) => ({ field, before: before[field] ?? null, after: after[field] ?? null })) } };
  }

  function drop(prefix: string): void {
    for (;;) {
      const puts: Put[] = [];
      for (const { key } of table.range(prefix)) if (puts.push({ key, value: null }) >= flushRecords) break;
      if (puts.length === 0) return;
      table.putBatch(puts);
    }
  }

  // Of a pass that a crash cut off: the next one reads anew.
  drop('p/');
  return {
    async open(order, goesOn) {
      drop(`p/${order.id}/`);
      await collect(order, goesOn);
      // Those of the preview stay.
      const samples = kept.get(order.id) ?? [];
      kept.delete(order.id);
      kept.set(order.id, samples);
      if (kept.size > maxOrders) kept.delete(kept.keys().next().value!);
      return {
        differences: (item) => (isApproved(item) ? [] : item.deliveries.flatMap((looked) => {
          const found = differs(order, looked);
          if (found === undefined) return [];
          if (samples.length < maxSamples) samples.push({ detail: found.detail, ids: looked.facts.ids, acceptedAt: looked.facts.acceptedAt });
          return [{ ...found.detail, fields: found.detail.fields.map((f) => f.field) }];
        })),
        approved: (item) => (isApproved(item) ? item.deliveries.filter((looked) => differs(order, looked) !== undefined).length : 0),
        mark(item) {
          if (isApproved(item)) return item;
          const parts = item.deliveries.flatMap((looked) => {
            const found = differs(order, looked);
            return found === undefined ? [] : [`${looked.facts.outputId}/${looked.facts.destination}/${looked.facts.operation}=${found.intent}`];
          });
          return parts.length === 0 ? item : { ...item, corrects: parts.join(',') };
        },
        close: () => drop(`p/${order.id}/`),
      };
    },
    samples: (order) => (kept.get(order) ?? []).filter(({ ids, acceptedAt }) => standing.mayRead(ids, acceptedAt)).map(({ detail }) => detail),
    has: (order) => kept.has(order),
    forget(order) {
      kept.delete(order);
      drop(`p/${order}/`);
    },
  };
}
