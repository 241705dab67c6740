/** Follows the topics of a run as they grow: what must be true at each moment, not only at the end. */
import { deliveryKey, groupNames, H, topicNames } from '@weir/pipeline';
import type { LogRecord, Serde } from '@weir/log';
import type { Release } from '@weir/release';
import type { SimBroker } from './broker.ts';
import type { Scheduler } from './time.ts';
import type { Call } from './vendor.ts';

const topics = topicNames('sim');
const groups = groupNames('sim');

/** Every group with each topic that it reads to the end. */
export function readers(release: Release): [group: string, topic: string][] {
  return [
    ...[...release.sources.keys()].map((s): [string, string] => [groups.normalizer, topics.raw(s)]), [groups.policy, topics.canonical], [groups.consentFold, topics.consentChanges],
    ...[...release.destinations.keys()].map((d): [string, string] => [groups.dispatcher(d), topics.dispatch(d)]),
  ];
}

/** Follows the topics as they grow: ends of deliveries, and commits that come before what they stand for. */
export function createWatch(of: SimBroker, scheduler: Scheduler, serde: Serde, destinations: readonly string[]) {
  /** topic family → event ids that it has. */
  const seen = new Set<string>();
  const ends = new Set<string>();
  /** When the first end of a delivery came onto its ledger, virtual ms. */
  const endedAt = new Map<string, number>();
  const parked = new Set<string>();
  /** What went to a second vendor, by the key at the first; and the keys of what stands on any dispatch topic. */
  const gone = new Map<string, string>();
  const dispatched = new Set<string>();
  const early: string[] = [];
  /** group and partition → offset up to which commits have been judged. */
  const judged = new Map<string, number>();
  /** Intents as they were appended: destination, partition, offsets covered, when. */
  const intents: { destination: string; partition: number; from: number; to: number; at: number }[] = [];
  const header = (record: LogRecord, name: string): string => record.headers.find(([n]) => n === name)?.[1].toString() ?? '';

  function through(group: string, record: LogRecord): boolean {
    const event = header(record, H.event);
    if (group === groups.normalizer) return seen.has(`normalized ${event}`);
    if (group === groups.policy) return seen.has(`decided ${header(record, H.output)}`) || seen.has(`decided ${event}`);
    if (!group.startsWith(groups.dispatcher(''))) return true;
    if (record.value === null) return true;
    const { value } = serde.decode(record.value);
    const key = deliveryKey(value.outputId, value.destination, value.operation, value.intent, 0);
    return (ends.has(key) && (!gone.has(key) || dispatched.has(gone.get(key)!))) || parked.has(`${value.destination} ${record.offset} ${record.key!.toString()}`) || seen.has(`conflict ${value.destination} ${value.eventId}`);
  }

  return {
    early,
    endedAt,
    appended(topic: string, records: readonly LogRecord[]): void {
      for (const record of records) {
        // Of an owner that was shown an empty ledger.
        if (topic.startsWith(topics.dispatch('')) && record.value === null) continue;
        if (topic === topics.canonical || topic === topics.dlq || topic === topics.outcome) seen.add(`normalized ${header(record, H.event) || record.key!.toString()}`);
        if (topic.startsWith(topics.dispatch('')) || topic === topics.outcome || topic === topics.dlq) seen.add(`decided ${header(record, H.output) || (topic === topics.outcome ? serde.decode(record.value!).value.outputId : '') || record.key!.toString()}`);
        const key = record.key?.toString() ?? '';
        if (topic.startsWith(topics.dispatch(''))) {
          const { value } = serde.decode(record.value!);
          dispatched.add(deliveryKey(value.outputId, value.destination, value.operation, value.intent, 0));
        }
        if (topic.startsWith(topics.ledger('')) && key.startsWith('#intent/') && record.value !== null) {
          const { value } = serde.decode(record.value);
          intents.push({ destination: value.destination, partition: value.partition, from: value.fromOffset, to: value.toOffset, at: scheduler.now });
        }
        if (topic.startsWith(topics.ledger('')) && key.endsWith('#end')) {
          const ended = ends.has(key.slice(0, -4));
          ends.add(key.slice(0, -4));
          if (!ended) endedAt.set(key.slice(0, -4), scheduler.now);
          if (record.value !== null) {
            const { value } = serde.decode(record.value);
            // An end that is none of these was written by who owns the partition: the other one came too late.
            if (value.state !== 'failed-over') gone.delete(value.key);
            else if (!ended) gone.set(value.key, value.toKey);
            if (value.code === 'event-conflict') seen.add(`conflict ${topic.slice(topics.ledger('').length)} ${value.eventId}`);
          }
        }
        if (topic.startsWith(topics.parked('')) && record.value !== null) parked.add(`${topic.slice(topics.parked('').length)} ${header(record, H.dispatched).split(':')[0]} ${key}`);
      }
    },
    committed(group: string, topic: string, partition: number, offset: number): void {
      const list = of.topics.get(topic)!.partitions[partition]!.records;
      const place = `${group} ${topic}/${partition}`;
      const from = Math.max(judged.get(place) ?? 0, offset - 60);
      if (offset > from) judged.set(place, offset);
      for (let i = offset - 1; i >= from; i--) if (!through(group, list[i]!)) early.push(`${group} committed ${topic}/${partition} ${offset}, but ${i} (${header(list[i]!, H.event)}) has left nothing`);
    },
    uncovered(calls: readonly Call[]): string[] {
      const at = new Map<string, { partition: number; offsets: number[] }>();
      for (const destination of destinations) {
        of.topics.get(topics.dispatch(destination))!.partitions.forEach((p, partition) => {
          for (const record of p.records) {
            if (record.value === null) continue;
            const { value } = serde.decode(record.value);
            const name = `${destination} ${deliveryKey(value.outputId, destination, value.operation, value.intent, 0)}`;
            const known = at.get(name);
            if (known === undefined) at.set(name, { partition, offsets: [record.offset] });
            else known.offsets.push(record.offset);
          }
        });
      }
      return calls.flatMap((call) => {
        const place = at.get(`${call.destination} ${call.key}`);
        const covered = place === undefined || intents.some((i) => i.destination === call.destination && i.partition === place.partition && i.at < call.at && place.offsets.some((o) => o < i.to));
        return covered ? [] : [`${call.actor} called ${call.destination} at ${call.at.toFixed(1)} for ${call.key} before any intent covered it`];
      });
    },
    /** What is still to be done; undefined = nothing. */
    pending(running: Release, polled: number): string | undefined {
      const found = new Set(of.topics.get(topics.raw('list'))!.partitions.flatMap((p) => p.records.map((r) => header(r, H.event))));
      if (found.size < polled) return `${found.size} of ${polled} objects of the polled list are on the raw topic`;
      for (const [group, topic] of readers(running)) {
        for (const [p, { end }] of of.topics.get(topic)!.partitions.entries()) {
          const at = of.groups.get(group)?.offsets.get(`${topic}/${p}`) ?? 0;
          if (at < end) return `${group} stands at ${at} of ${end} of ${topic}/${p}`;
        }
      }
      for (const destination of running.destinations.keys()) {
        for (const p of of.topics.get(topics.dispatch(destination))!.partitions) {
          for (const record of p.records) {
            if (record.value === null) continue;
            const { value } = serde.decode(record.value);
            if (!ends.has(deliveryKey(value.outputId, destination, value.operation, value.intent, 0))) return `a delivery to ${destination} has no end: ${value.outputId}`;
          }
        }
      }
      return undefined;
    },
  };
}