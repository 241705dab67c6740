import type { LogRecord, OutRecord } from '@weir/log';
import { deliveryKey, H, isPassing, patiently, soon } from '@weir/pipeline';
import { secondKey, type DestinationConfig, type SecondVendor } from '@weir/release';
import type { Ending } from './ends.ts';
import type { PartitionRunner } from './partition.ts';
import type { DestinationPorts } from './ports.ts';
import type { DeliveryValue, EndValue, Task } from './types.ts';

/**
 * A delivery goes to the second vendor of its route in this order: the end `failed-over` is acknowledged in the ledger
 * of the first; this owner knows that it still was the owner then; the delivery is appended to the second's topic, where
 * its own key absorbs repetitions; the offset is finished. A crash in between is made good by who reads the record next
 * and finds that end (docs/decisions/0015). Where the second's topic has been deleted meanwhile, it is a dead letter of the second.
 */
export interface HandOver {
  readonly destination: string;
  readonly operation: string;
  readonly key: string;
}

/** What another destination of this process says of itself. */
export interface SecondState {
  /** Nobody switched it off, and its breaker is closed, or lets a probe through for which it has nothing. */
  readonly usable: boolean;
  /** ms in which a delivery by this operation is expected to be through, as in paths.ts. */
  cost(): number;
  /** A delivery goes to it. */
  given(): void;
}

const keyAt = (delivery: DeliveryValue, destination: string, operation: string): string => deliveryKey(delivery.outputId, destination, operation, delivery.intent, 0);

/**
 * The second vendor that may take the delivery instead; undefined = it stays here. Only what surely had no effect: no call
 * of unknown effect, and no earlier owner of the partition that may have called. What an order put back is meant for the
 * vendor that the order names. The running release must still have the pair, and the second must be there.
 */
export function secondOf(ports: DestinationPorts, runner: Pick<PartitionRunner, 'neverCalledBefore'>, destination: DestinationConfig, task: Task): SecondVendor | undefined {
  const { standby, recordType, operation } = task.delivery;
  if (standby === undefined || standby === null || standby.refused !== null || task.maybeSince > 0 || task.redrive !== '' || !runner.neverCalledBefore(task.offset)) return undefined;
  const second = destination.seconds?.get(secondKey(recordType, operation));
  if (second === undefined || second.destination !== standby.destination || second.operation !== standby.operation) return undefined;
  return ports.second(second.destination, second.operation)?.usable === true ? second : undefined;
}

/** The end of a delivery that goes to the second vendor. */
export function failOver(task: Task, second: Pick<SecondVendor, 'destination' | 'operation'>, code: string, why: string): Ending {
  const key = keyAt(task.delivery, second.destination, second.operation);
  return { task, state: 'failed-over', effect: 'none', code, detail: `${why}; goes to ${second.destination} as ${key}`, deadLetter: false, handOver: { destination: second.destination, operation: second.operation, key } };
}

/** What is left to do when an earlier try wrote the end and may not have got further. */
export function handOverOf(end: EndValue): HandOver | undefined {
  if (end.state !== 'failed-over' || end.toDestination === null || end.toOperation === null || end.toKey === null) return undefined;
  return { destination: end.toDestination, operation: end.toOperation, key: end.toKey };
}

/** The delivery as the second vendor's: decided with the first, with what happened there. */
export function secondDelivery(delivery: DeliveryValue, first: EndValue, to: HandOver): DeliveryValue {
  const { standby } = delivery;
  return {
    ...delivery, destination: to.destination, operation: to.operation, rule: standby?.rule ?? delivery.rule, payload: standby?.payload ?? delivery.payload, notBefore: standby?.notBefore ?? null, standby: null,
    failedOver: { destination: delivery.destination, operation: delivery.operation, key: first.key, reason: first.code ?? '', detail: first.reason, attempts: first.attempts, status: first.status, at: first.at },
  };
}

/** The record for weir.dispatch.<second>, with the headers of the first but for what is said of its own topic. */
export async function secondRecord(ports: DestinationPorts, record: LogRecord, delivery: DeliveryValue, first: EndValue, to: HandOver): Promise<readonly [topic: string, record: OutRecord]> {
  const topic = ports.topics.dispatch(to.destination);
  await ports.appender.partitions(topic);
  const { key } = record;
  return [topic, { partition: ports.appender.partitionFor(topic, key!), key, ...secondBody(ports, record, delivery, first, to) }];
}

/** What the second vendor's topic has of it, or where that is gone, its dead letter. What it took of limits stands on the topic of the first. */
export function secondBody(ports: DestinationPorts, record: LogRecord, delivery: DeliveryValue, first: EndValue, to: HandOver): { readonly value: Buffer; readonly headers: LogRecord['headers'] } {
  return { value: ports.serde.encode('weir.internal.Delivery', secondDelivery(delivery, first, to)), headers: record.headers.filter(([name]) => name !== H.dispatched && name !== H.intent && name !== H.resend && name !== H.origin && name !== H.verified && name !== H.limits) };
}

/** A broker that has just begun may not know a topic yet. */
const looks = 5;

/** Those of these destinations whose topic the brokers do not have: it was deleted behind an end that names it. Waits for brokers that are away; undefined: `gone` came first. */
export async function withoutTopic(ports: DestinationPorts, destinations: Iterable<string>, gone: () => boolean): Promise<ReadonlySet<string> | undefined> {
  const missing = new Set<string>();
  for (const destination of new Set(destinations)) {
    for (let look = 1; ; look++) {
      try {
        await patiently(ports.clock, gone, () => ports.admin.partitions(ports.topics.dispatch(destination)));
        break;
      } catch (error) {
        if (gone() && isPassing(error)) return undefined;
        if ((error as { code?: string }).code !== 'log-fatal') throw error;
        if (look === looks) {
          missing.add(destination);
          break;
        }
        await soon(ports.clock);
      }
    }
  }
  return missing;
}
