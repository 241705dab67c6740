/** The invariants (docs/architecture.md) over the sender's log, the topics and the vendor's own log. Each gives what does not hold. */
import { deliveryKey, H } from '@weir/pipeline';
import type { LogRecord } from '@weir/log';
import { epoch } from './time.ts';
import type { History } from './world.ts';

export const header = (record: LogRecord, name: string): string => record.headers.find(([n]) => n === name)?.[1].toString() ?? '';
const all = (history: History, topic: string): LogRecord[] => (history.records.get(topic) ?? []).flat();
const destinationsOf = (history: History): string[] => [...history.records.keys()].filter((t) => t.startsWith('sim.dispatch.')).map((t) => t.slice('sim.dispatch.'.length));

/** A redrive of what was not applied has the key of the next generation; a run puts nothing back more often. */
export const generations = Array.from({ length: 16 }, (_, generation) => generation);

interface Delivery { readonly destination: string; readonly key: string; readonly partition: number; readonly offset: number; readonly subject: string; readonly value: any }
/** Deliveries by key; of a repeated one the first. */
function deliveries(history: History): Map<string, Delivery> {
  const found = new Map<string, Delivery>();
  for (const destination of destinationsOf(history)) {
    history.records.get(`sim.dispatch.${destination}`)!.forEach((records, partition) => {
      for (const record of records) {
        // Of an owner that was shown an empty ledger.
        if (record.value === null) continue;
        const { value } = history.decode(record.value);
        const key = deliveryKey(value.outputId, destination, value.operation, value.intent, 0);
        if (!found.has(`${destination} ${key}`)) found.set(`${destination} ${key}`, { destination, key, partition, offset: record.offset, subject: record.key!.toString(), value });
      }
    });
  }
  return found;
}

/** Where a delivery was first put back on its topic, by its first key, and the keys that it may have from then on. */
function putBacks(history: History): Map<string, { readonly offset: number; readonly at: number; readonly later: ReadonlySet<string> }> {
  const found = new Map<string, { offset: number; at: number; later: Set<string> }>();
  for (const destination of destinationsOf(history)) {
    for (const record of all(history, `sim.dispatch.${destination}`)) {
      if (header(record, H.intent) === '') continue;
      const { value } = history.decode(record.value!);
      const [first, ...later] = generations.map((g) => deliveryKey(value.outputId, destination, value.operation, value.intent, g));
      const name = `${destination} ${first!}`;
      if (!found.has(name)) found.set(name, { offset: record.offset, at: record.timestamp - epoch, later: new Set(later) });
    }
  }
  return found;
}

/** I1: what was acknowledged is on its raw topic, left the normalizer, was decided for each route, and each delivery ended and was told. */
export function nothingLost(history: History): string[] {
  const problems: string[] = [];
  const raw = new Set([...history.records.keys()].filter((t) => t.startsWith('sim.raw.')).flatMap((t) => all(history, t)).map((r) => `${header(r, H.event)} ${header(r, H.hash)}`));
  const outcomes = all(history, 'sim.outcome').map((r) => history.decode(r.value!).value as { eventId: string; outputId: string | null; destination: string | null; state: string; key: string });
  const told = new Set(outcomes.map((o) => `${o.destination} ${o.key}`));
  const ended = new Set(outcomes.filter((o) => o.outputId === null).map((o) => o.eventId));
  const decided = new Set(outcomes.map((o) => `${o.eventId} ${o.destination}`));
  for (const { destination, value } of deliveries(history).values()) decided.add(`${value.eventId} ${destination}`);
  const mapped = new Set(all(history, 'sim.canonical').map((r) => header(r, H.event)));
  for (const item of history.sent) {
    const name = `${item.kind} ${item.eventId}`;
    if (item.ackedBy === undefined) continue;
    if (!raw.has(`${item.eventId} ${item.hash}`)) problems.push(`I1: ${name} was acknowledged and is not on its raw topic`);
    else if (item.kind === 'poison' || item.kind === 'conflict') {
      if (!ended.has(item.eventId) && !outcomes.some((o) => o.eventId === item.eventId)) problems.push(`I1: ${name} has no outcome`);
    } else if (!mapped.has(item.eventId)) {
      // The first body of an event is mapped; the other one is the conflict.
      if (!ended.has(item.eventId)) problems.push(`I1: ${name} did not leave the normalizer`);
    } else for (const destination of item.kind === 'profile' ? ['warehouse', 'blind', 'newsletter'] : item.kind === 'event' ? ['warehouse'] : []) if (!decided.has(`${item.eventId} ${destination}`)) problems.push(`I1: ${name} was not decided for ${destination}`);
  }
  const ends = endsOf(history);
  const known = deliveries(history);
  for (const [key, { value }] of known) {
    if (!ends.has(key)) problems.push(`I1: the delivery of ${value.eventId} to ${key} has no end`);
    else if (!told.has(key)) problems.push(`I1: the end of the delivery of ${value.eventId} to ${key} has no outcome`);
    else if (ends.get(key)!.every((state) => state === 'failed-over') && !['track', 'copy'].some((operation) => known.has(`newsletter ${deliveryKey(value.outputId, 'newsletter', operation, value.intent, 0)}`))) problems.push(`I1: the delivery of ${value.eventId} to ${key} went to the second vendor and is not there`);
  }
  return problems;
}

function endsOf(history: History): Map<string, string[]> {
  const ends = new Map<string, string[]>();
  for (const destination of destinationsOf(history)) {
    for (const record of all(history, `sim.ledger.${destination}`)) {
      const key = record.key!.toString();
      if (!key.endsWith('#end') || record.value === null) continue;
      const name = `${destination} ${key.slice(0, -4)}`;
      ends.set(name, [...(ends.get(name) ?? []), history.decode(record.value).value.state as string]);
    }
  }
  return ends;
}

/** I2: one effect per output and destination, of a delivery that was decided; what is told as delivered took effect. */
export function effectsOnce(history: History): string[] {
  const problems: string[] = [];
  const known = deliveries(history);
  const counts = new Map<string, number>();
  const byKey = new Map([...known.values()].flatMap((d) => generations.map((g) => [`${d.destination} ${deliveryKey(d.value.outputId, d.destination, d.value.operation, d.value.intent, g)}`, d] as const)));
  for (const { destination, key } of history.effects) {
    const delivery = byKey.get(`${destination} ${key}`);
    if (delivery === undefined) problems.push(`I2: an effect at ${destination} under ${key}, which nobody decided`);
    else {
      const name = `${destination} ${delivery.value.operation} ${delivery.value.outputId}`;
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
  }
  for (const [name, count] of counts) if (count > 1) problems.push(`I2: ${count} effects of ${name}`);
  for (const [name, count] of counts) {
    const [destination, operation, output] = name.split(' ') as [string, string, string];
    if (destination === 'warehouse' && operation === 'insert' && count + (counts.get(`newsletter track ${output}`) ?? counts.get(`newsletter copy ${output}`) ?? 0) > 1) problems.push(`I2: ${output} took effect at the first and at the second vendor`);
  }
  const effects = new Set(history.effects.map((e) => `${e.destination} ${e.key}`));
  for (const [name, states] of endsOf(history)) if (states.includes('delivered') && !effects.has(name)) problems.push(`I2: ${name} is told as delivered and had no effect`);
  return problems;
}

/** I3: no `use` that needs consent was written while the instance's own table said withdrawn; restrict passes. */
export function consentHeld(history: History): string[] {
  const problems: string[] = [];
  const known = deliveries(history);
  const states = new Map<string, { partition: number; offset: number; state: string; version: number }[]>();
  (history.records.get('sim.consent') ?? []).forEach((records, partition) => {
    for (const record of records) {
      const key = record.key!.toString();
      if (record.value === null || key.startsWith('#')) continue;
      const { value } = history.decode(record.value);
      if (value.state === undefined) continue;
      const list = states.get(key) ?? [];
      list.push({ partition, offset: record.offset, state: value.state, version: Number(value.version) });
      states.set(key, list);
    }
  });
  const byId = Map.groupBy(states, ([key]) => key.slice(0, key.indexOf('|')));
  for (const call of history.calls) {
    if (call.operation !== 'subscribe') continue;
    const delivery = known.get(`${call.destination} ${call.key}`);
    for (const id of (delivery?.value.ids as string[] | undefined) ?? []) {
      for (const [key, list] of byId.get(id) ?? []) {
        if (!key.includes('email-marketing')) continue;
        // By version: an owner that had lost the partition may write an older state late.
        const last = list.filter((s) => s.offset < (call.consent.get(s.partition) ?? 0)).reduce<(typeof list)[number] | undefined>((best, s) => (best === undefined || s.version >= best.version ? s : best), undefined);
        if (last?.state === 'withdrawn') problems.push(`I3: ${call.actor} sent ${call.key} at ${call.at.toFixed(1)} although its table had the withdrawal at ${last.partition}/${last.offset}`);
      }
    }
  }
  return problems;
}

/** First occurrence of each name, in order. */
const firsts = (names: readonly string[]): string[] => [...new Set(names)];

/** Whether `later` keeps the order of `earlier`, for the names that both have; `may` tells which may come before an earlier one. */
function outOfOrder(earlier: readonly string[], later: readonly string[], may: (ahead: string, of: string) => boolean = () => false): string | undefined {
  const place = new Map(firsts(earlier).map((name, i) => [name, i]));
  const before: string[] = [];
  for (const name of firsts(later)) {
    const at = place.get(name);
    if (at === undefined) continue;
    if (before.some((b) => place.get(b)! > at && !may(b, name))) return name;
    before.push(name);
  }
  return undefined;
}

/**
 * What restricts may go ahead of uses of its subject that wait on the parked topic, where the outcome of that very call says so:
 * what was put back has the key of the next generation, and its outcome too. `ahead` is the key of the call, `first` its first
 * key; `of` is the first key of a use, with ` again` where its record was put back.
 */
function mayGoAhead(history: History): (destination: string, order: readonly Delivery[]) => (ahead: string, first: string, of: string) => boolean {
  const named = new Map<string, readonly [from: number, to: number]>();
  for (const record of all(history, 'sim.outcome')) {
    const { value } = history.decode(record.value!);
    const range = /ahead of \d+ that wait, (\d+) to (\d+) on/.exec(value.detail ?? '');
    if (range !== null) named.set(`${value.destination} ${value.key}`, [Number(range[1]), Number(range[2])]);
  }
  const parked = new Map<string, number[]>();
  for (const destination of destinationsOf(history)) {
    for (const record of all(history, `sim.parked.${destination}`)) {
      if (record.value === null) continue;
      const { value } = history.decode(record.value!);
      const key = `${destination} ${deliveryKey(value.outputId, destination, value.operation, value.intent, 0)}${header(record, H.intent) === '' ? '' : ' again'}`;
      parked.set(key, [...(parked.get(key) ?? []), record.offset]);
    }
  }
  return (destination, order) => {
    const kinds = new Map(order.map((d) => [d.key, d.value.kind as string]));
    return (ahead, first, of) => {
      const range = named.get(`${destination} ${ahead}`);
      return kinds.get(first) === 'restrict' && kinds.get(of.replace(' again', '')) === 'use' && range !== undefined && (parked.get(`${destination} ${of}`) ?? []).some((offset) => offset >= range[0] && offset <= range[1]);
    };
  };
}

/** I4: the order of the sender on the raw topics, of those on canonical, of that on dispatch, and of that at the vendor; per object and subject. */
export function ordered(history: History): string[] {
  const problems: string[] = [];
  const report = (what: string, name: string | undefined): void => { if (name !== undefined) problems.push(`I4: ${name} is out of order ${what}`); };
  const raws = [...history.records.keys()].filter((t) => t.startsWith('sim.raw.'));
  // One that was sent twice may come first by the second way, while the first process stands still (seed 2023).
  const times = new Map<string, number>();
  for (const { eventId } of history.sent) times.set(eventId, (times.get(eventId) ?? 0) + 1);
  const canonicalOf = Map.groupBy(all(history, 'sim.canonical'), (r) => `${header(r, H.source)}|${header(r, H.objectKey)}`);
  for (const topic of raws) {
    const source = topic.slice('sim.raw.'.length);
    for (const [object, records] of Map.groupBy(all(history, topic), (r) => header(r, H.objectKey))) {
      const rawOrder = records.map((r) => header(r, H.event));
      for (const list of Map.groupBy(history.sent.filter((s) => s.source === source && s.user === object && times.get(s.eventId) === 1 && s.ackedBy === s.firstBy), (s) => s.firstBy).values()) {
        report(`on ${topic} after the sender`, outOfOrder(list.toSorted((a, b) => a.firstAt - b.firstAt).map((s) => s.eventId), rawOrder));
      }
      report(`on canonical after ${topic}`, outOfOrder(rawOrder, (canonicalOf.get(`${source}|${object}`) ?? []).map((r) => header(r, H.event))));
    }
  }
  const known = deliveries(history);
  const may = mayGoAhead(history);
  const putBack = putBacks(history);
  const denied = new Set(all(history, 'sim.outcome').map((r) => history.decode(r.value!).value).filter((o) => o.state === 'denied').map((o) => `${o.destination} ${o.outputId}`));
  const bySubject = Map.groupBy(all(history, 'sim.canonical'), (r) => r.key!.toString());
  for (const [name, list] of Map.groupBy(known.values(), (d) => `${d.destination} ${d.subject}`)) {
    const order = list.toSorted((a, b) => a.offset - b.offset);
    // Decided again after a crash, a record once denied may pass: it was never ahead of the others. The crash may have
    // kept the denied outcome from the log (seed 9), so where consent decides, only the order of calls is judged.
    const passed = order.filter((d) => !denied.has(`${d.destination} ${d.value.outputId}`));
    const canonical = (bySubject.get(order[0]!.subject) ?? []).map((r) => header(r, H.output));
    // What comes from a first vendor comes later than what policy sends here itself; each of the two is in order.
    for (const [from, part] of Map.groupBy(passed, (d) => d.value.failedOver?.destination ?? '')) {
      if (!order.some((d) => d.value.failedOver === null && d.value.legalBasis === 'consent') || from !== '') report(`on dispatch of ${name}${from === '' ? '' : ` from ${from}`}`, outOfOrder(canonical, part.map((d) => d.value.outputId as string)));
    }
    // A call that was given up may be applied after later ones: the order that Weir gives is that of its calls. Each
    // process is judged by itself: what one denied and did not get onto the ledger, its successor decides again.
    const { destination } = order[0]!;
    const again = new Map(order.flatMap((d) => {
      const back = putBack.get(`${destination} ${d.key}`);
      return back === undefined ? [] : [[d.key, back] as const];
    }));
    const places = [...order.map(({ key, offset }) => ({ key, offset })), ...[...again].map(([key, { offset }]) => ({ key: `${key} again`, offset }))].toSorted((x, y) => x.offset - y.offset);
    const firstKey = new Map([...order.map(({ key }) => [key, key] as const), ...[...again].flatMap(([key, { later }]) => [...later].map((other) => [other, key] as const))]);
    const nameOf = (key: string): string => (key === firstKey.get(key) ? key : `${firstKey.get(key)!} again`);
    // Under its own key it may have either place: the letter is written before the end, so what a killed owner set aside and
    // a person put back may still be called where it stood first. Under a later key it has the later one.
    const calls = history.calls.filter((c) => c.destination === destination && firstKey.has(c.key) && (nameOf(c.key) !== c.key || c.at < (again.get(c.key)?.at ?? Number.POSITIVE_INFINITY)));
    const mayBe = may(destination, order);
    for (const [actor, own] of Map.groupBy(calls, (c) => c.actor)) {
      const keyOf = new Map(own.toReversed().map((c) => [nameOf(c.key), c.key]));
      report(`in the calls of ${actor} to ${name}`, outOfOrder(places.map(({ key }) => key), own.map((c) => nameOf(c.key)), (ahead, of) => mayBe(keyOf.get(ahead)!, ahead.replace(' again', ''), of)));
    }
  }
  return problems;
}

/** Since when and until when a marker of an instance stands for a subject, by destination, instance and subject: it calls everything of it from the parked topic then. One of an earlier owner that is written late is none of the owner of now. */
function staysOf(history: History): Map<string, { readonly from: number; to: number }[]> {
  const found = new Map<string, { readonly from: number; to: number }[]>();
  const byKey = new Map<string, { readonly from: number; to: number }>();
  for (const destination of destinationsOf(history)) for (const record of all(history, `sim.ledger.${destination}`)) {
    const key = record.key!.toString();
    if (!key.startsWith('#park/')) continue;
    // #park/<instance>/<epoch>/<random>/<n>/<subject>
    const [, instance, , , , ...subject] = key.split('/');
    const name = `${destination} ${instance} ${subject.join('/')}`;
    const at = record.timestamp - epoch;
    const stay = byKey.get(`${destination} ${key}`);
    if (record.value === null) {
      if (stay !== undefined) stay.to = Math.min(stay.to, at);
    } else if (stay === undefined) {
      const begun = { from: at, to: Number.POSITIVE_INFINITY };
      byKey.set(`${destination} ${key}`, begun);
      found.set(name, [...(found.get(name) ?? []), begun]);
    }
  }
  return found;
}

/**
 * I4 across owners: before a delivery is called, the one that its owner called before it, for the same subject, has taken
 * effect or its end is on the ledger: a successor would call it once more, behind this one. A restrict may overtake.
 * Of what is parked the end must be there: no intent tells a successor that more than the first of it was called (I2).
 */
export function endedBeforeTheNext(history: History): string[] {
  const problems: string[] = [];
  const known = deliveries(history);
  const effectAt = new Map<string, number>();
  for (const { destination, key, at } of history.effects) effectAt.set(`${destination} ${key}`, Math.min(at, effectAt.get(`${destination} ${key}`) ?? Number.POSITIVE_INFINITY));
  const stays = staysOf(history);
  const isParked = (call: { readonly destination: string; readonly key: string; readonly actor: string; readonly at: number }): boolean => (stays.get(`${call.destination} ${call.actor.split('.')[0]} ${known.get(`${call.destination} ${call.key}`)!.subject}`) ?? []).some(({ from, to }) => from <= call.at && call.at < to);
  const calls = history.calls.filter((c) => known.has(`${c.destination} ${c.key}`));
  for (const own of Map.groupBy(calls, (c) => `${c.actor} ${c.destination} ${known.get(`${c.destination} ${c.key}`)!.subject}`).values()) {
    const seen = new Set<string>();
    own.forEach((call, i) => {
      const before = own[i - 1];
      if (before !== undefined && before.key !== call.key && !seen.has(call.key) && known.get(`${call.destination} ${call.key}`)!.value.kind !== 'restrict') {
        const done = (at: number | undefined): boolean => at !== undefined && at <= call.at;
        if (isParked(call) && isParked(before) && !done(history.endedAt.get(before.key))) problems.push(`I2: ${call.actor} called ${call.key}, which was parked, at ${call.at.toFixed(1)} while ${before.key} before it had no end`);
        else if (!done(effectAt.get(`${before.destination} ${before.key}`)) && !done(history.endedAt.get(before.key))) problems.push(`I4: ${call.actor} called ${call.key} at ${call.at.toFixed(1)} while ${before.key} before it had neither effect nor end`);
      }
      seen.add(call.key);
    });
  }
  return problems;
}

/**
 * I5: one output of one item, one record. Another body under the same id, put back by an operator, is another item; of
 * such a body no first copy is known, so each copy that was set aside and put back keeps the time it was accepted at.
 */
export function sameBytes(history: History): string[] {
  const problems: string[] = [];
  const firstHash = new Map<string, string>();
  for (const topic of history.records.keys()) if (topic.startsWith('sim.raw.')) for (const r of all(history, topic)) if (!firstHash.has(header(r, H.event))) firstHash.set(header(r, H.event), header(r, H.hash));
  const item = (r: LogRecord): string => (firstHash.get(header(r, H.event)) === header(r, H.hash) ? '' : ` accepted ${header(r, H.accepted)}`);
  for (const [output, records] of Map.groupBy(all(history, 'sim.canonical'), (r) => `${header(r, H.output)} of ${header(r, H.hash)}${item(r)}`)) {
    if (new Set(records.map((r) => `${r.key!.toString()} ${r.value!.toString('base64')}`)).size > 1) problems.push(`I5: ${output} has several contents`);
  }
  for (const topic of [...history.records.keys()].filter((t) => t.startsWith('sim.raw.'))) for (const record of all(history, topic)) if (history.sent.every((s) => s.eventId !== header(record, H.event))) problems.push(`I5: ${header(record, H.event)} is not the id of anything sent`);
  return problems;
}

/** I6: no call by an instance while the group had given the partition to another; no offset before what it stands for. */
export function leased(history: History): string[] {
  const problems = history.early.map((text) => `I6: ${text}`);
  const known = deliveries(history);
  for (const call of history.calls) {
    const delivery = known.get(`${call.destination} ${call.key}`);
    const holder = delivery === undefined ? undefined : call.holders.get(delivery.partition);
    if (holder !== undefined && holder !== call.actor) problems.push(`I6: ${call.actor} called ${call.destination} at ${call.at.toFixed(1)} for partition ${delivery!.partition}, which ${holder} holds`);
  }
  return problems;
}

/** I2 of the ledger: a call is covered by an intent that was acknowledged before. */
export function intended(history: History): string[] {
  return history.uncovered.map((text) => `I2: ${text}`);
}

/** I7: what ingest cannot take is refused before it is accepted, with 429 or 503 and a time to come back; no sender is told anything else. */
export function bounded(history: History): string[] {
  return history.answers.filter((a) => a.status !== 200 && !((a.status === 429 || a.status === 503) && a.retryAfter)).map((a) => `I7: ${a.by} answered ${a.status}${a.retryAfter ? '' : ' without Retry-After'} at ${a.at.toFixed(1)}`);
}

/** Kill switch: who could not read weir.control for a lease may have missed a switch, and starts no call. */
export function switchable(history: History): string[] {
  return history.calls.filter((c) => c.controlAgeMs >= history.leaseMs).map((c) => `switch: ${c.actor} called ${c.destination} at ${c.at.toFixed(1)}, ${c.controlAgeMs.toFixed(1)} ms after it could read weir.control last`);
}

/** I8: all lag was gone in time. */
export function settled(history: History): string[] {
  return history.stuck === undefined ? [] : [`I8: ${history.stuck}`];
}

export const checkers = { settled, bounded, nothingLost, effectsOnce, consentHeld, ordered, endedBeforeTheNext, sameBytes, leased, switchable, intended } as const;

/** Everything that does not hold. */
export function check(history: History): string[] {
  return Object.values(checkers).flatMap((checker) => checker(history));
}

/** How many problems of a seed are of which invariant, as a line of its own; empty when there is none. `npm run mutants` reads it. */
export function brokenLine(problems: readonly string[]): string {
  const counts = [...Map.groupBy(problems, (p) => /^I\d+/.exec(p)?.[0] ?? 'other')].map(([invariant, list]) => `${invariant} ${list.length}`);
  return counts.length === 0 ? '' : `\n  broken: ${counts.join(', ')}`;
}
