import { hash } from 'node:crypto';
import type { ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import { fieldReader, type FieldReader, type Headers, type LogRecord, type Serde } from '@weir/log';
import { H, linkedFrom, type TopicNames } from '@weir/pipeline';
import { rawHeaders, type Release } from '@weir/release';
import { isReadable, isSealed, type KeyRing } from '@weir/seal';
import { recentAnswers } from './answers.ts';
import { createDeriver, textOf, type Derived } from './derive.ts';
import type { LetterHeaders } from './letter-headers.ts';
import { LetterOrigin, type Letter } from './letter-origin.ts';
import { idFilter, type ReplayOrder } from './order.ts';
import type { ScannedRecord } from './scan.ts';
import { createIdSet, type IdSet } from './seen.ts';
import { sends, standingOf, type DeliveryFacts, type Found, type StandingPorts } from './standing.ts';
import { createToday, type Today, type TodayPorts } from './today.ts';

/** A record that a replay may put back, where it stood. */
export interface Origin {
  readonly topic: string;
  readonly partition: number;
  readonly offset: number;
  readonly key: Buffer | null;
  readonly value: Buffer | null;
  readonly headers: Headers;
  /** Of a dead letter: its headers as they stand in it. */
  readonly encoded?: LetterHeaders;
  /** It never stood on that topic: partition and offset are those of another one, and it goes to the partition of its key. */
  readonly unplaced?: boolean;
  /** Of a dead letter: the one destination that it is of; null = of every one that its record leads to. */
  readonly destination?: string | null;
}

export interface Looked {
  readonly facts: DeliveryFacts;
  found: Found;
  /** derived: policy lets it through today. */
  readonly allowed: boolean;
  /** Of a delivery that was decided earlier and would be put back: what policy says of it today; absent = not asked. Anything but `same` denies it. */
  today?: Today;
  /** Canonical record, Confluent wire format: what the vendor is asked about. */
  readonly payload: Buffer | undefined;
}

/** What was selected, once, with everything that a replay knows of it. */
export interface Item {
  readonly origin: Origin;
  /** `<topic>/<partition>/<offset>` of the record that was selected: the dead letter, or the record itself. */
  readonly from: string;
  readonly eventId: string;
  /** delivery: the record is one. derived: what the running release makes of it. */
  readonly kind: 'delivery' | 'derived';
  readonly deliveries: readonly Looked[];
  /** derived: the one destination that it goes to, of the order or of its letter; absent = every one that policy lets it. */
  readonly only?: string;
  /** derived: why nothing comes of it, or that it ended before it was routed and would now go on. */
  readonly note: 'fails' | 'dropped' | 'erased' | 'key-destroyed' | 'goes-on' | undefined;
  /** `H.corrects` of what is put back. */
  readonly corrects?: string;
}

/** Records that were read and are no item. */
export interface Passed {
  /** Met before in the same order. */
  repeated: number;
  /** Bytes that are not what their topic holds. */
  unreadable: number;
  /** Deliveries that nobody can read: their key is destroyed. */
  keyDestroyed: number;
  /** Deliveries that wait for an approver: only he lets them through. */
  held: number;
}

export interface SelectPorts {
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly release: () => Release;
  readonly workspaceKey: Buffer;
  readonly tables: Pick<ConsentTables, 'linked' | 'check' | 'regions'>;
  /** Undefined = nothing is sealed, and nobody is erased. */
  readonly keys: Pick<KeyRing, 'erasedUntil'> | undefined;
  readonly standing: StandingPorts;
  /** The plain bytes of a value; undefined when its key is destroyed. */
  readonly open: (bytes: Buffer) => Buffer | undefined;
  /** Whether the key of a sealed value is here. */
  readonly hasKey: (sealed: Buffer) => boolean;
  /** Resolves when every key that was written is here. */
  readonly keysToEnd: () => Promise<void>;
  /** Records of an output that are on weir.canonical still. */
  readonly canonicalOf: TodayPorts['canonicalOf'];
  readonly decidedLater: TodayPorts['decidedLater'];
  /** How an event ended before it was routed. */
  readonly endedAs: (eventId: string) => string | undefined;
  readonly now: () => number;
}

interface DeliveryRecord extends DeliveryFacts {
  /** Of the record's key. */
  subject: string;
  readonly payload: Buffer;
  readonly release: string;
  readonly decidedAt: number;
  readonly notBefore: number | null;
  /** Of a second vendor's: the first. Absent: of another version of Weir. */
  readonly failedOver?: { readonly destination: string } | null;
}

function letterReader({ code, stage, source, release, events, letters }: ReplayOrder): FieldReader<Letter> {
  const asked: readonly (readonly [keyof Letter, boolean])[] = [['reasons', code !== null], ['stage', stage !== null], ['source', source !== null], ['release', release !== null], [letters ? 'id' : 'eventId', events.length > 0]];
  return fieldReader<Letter>('weir.internal.DeadLetter', [...asked.flatMap(([name, is]) => (is ? [name] : [])), 'destination', 'topic', 'partition', 'offset', 'key', 'value', 'headers'], ['headers']);
}

const readDelivery = fieldReader<DeliveryRecord>('weir.internal.Delivery', ['outputId', 'eventId', 'destination', 'operation', 'recordType', 'payload', 'itemHash', 'source', 'acceptedAt', 'purpose', 'channel', 'topic', 'legalBasis', 'ids', 'intent', 'release', 'decidedAt', 'notBefore', 'failedOver']);

/** Deliveries that are decided again at a time: each takes a read of weir.canonical. */
const decidedAtOnce = 16;

/**
 * Scanned records → items: filters of the order, each delivery or event once, where each stands now. One selector goes
 * with one pass over the order's range, because it remembers what it met.
 */
export interface Selector {
  take(records: readonly ScannedRecord[]): Promise<Item[]>;
  /** As if they had been taken: copies of them that come later are known. Nothing but the index is looked up. */
  meet(records: readonly ScannedRecord[]): Promise<void>;
  readonly passed: Passed;
}

/** Of records: keys and schemas that are not here yet. A key that is still missing after that is destroyed. */
function createPrepare({ serde, topics, hasKey, keysToEnd }: SelectPorts): (records: ReadonlyArray<{ readonly topic: string; readonly value: Buffer | null }>) => Promise<void> {
  const rawPrefix = topics.raw('');
  return async (records) => {
    let readKeys = false;
    for (const { topic, value } of records) {
      if (value === null) continue;
      const sealed = isSealed(value);
      if (sealed && !readKeys && !hasKey(value)) {
        readKeys = true;
        await keysToEnd();
      }
      if (topic.startsWith(rawPrefix) || !isReadable(value) || (sealed && !hasKey(value)) || serde.known(value)) continue;
      await serde.prepare(value).catch((error: unknown) => { if (!(error instanceof WeirError) || error.code !== 'schema-unknown') throw error; });
    }
  };
}

const usesData = (standing: Pick<StandingPorts, 'destination'>, { destination, operation }: DeliveryFacts): boolean => standing.destination(destination)?.operations[operation]?.kind === 'use';

/**
 * What policy says today of one delivery that was decided earlier, as a replay of it asks (docs/decisions/0033). What restricts use
 * is not asked, nor is what nobody can read or what has no such operation any more: `same`, and the dispatcher ends it.
 * @param record of a dispatch topic
 */
export function createAsksToday(ports: SelectPorts): (record: Pick<Origin, 'topic' | 'value'>) => Promise<Today> {
  const prepare = createPrepare(ports);
  const today = createToday({ ...ports, decideNow: createDeriver(ports).now, prepare: (records) => prepare(records.map(({ value }) => ({ topic: ports.topics.canonical, value }))) });
  return async (record) => {
    await prepare([record]);
    let delivery: DeliveryRecord | undefined;
    try {
      delivery = isReadable(record.value) ? readDelivery(ports.serde, record.value) : undefined;
    } catch (error) {
      if (!(error instanceof WeirError)) throw error;
    }
    return delivery === undefined || !usesData(ports.standing, delivery) || today.stands(delivery) ? 'same' : today.decide(delivery);
  };
}

export function createSelector(ports: SelectPorts, order: ReplayOrder): Selector {
  const { serde, topics } = ports;
  const rawPrefix = topics.raw('');
  const prepare = createPrepare(ports);
  const dispatchPrefix = topics.dispatch('');
  const readLetter = letterReader(order);
  const standing: StandingPorts = { ...ports.standing, allows: recentAnswers(ports.standing.allows) };
  const passed: Passed = { repeated: 0, unreadable: 0, keyDestroyed: 0, held: 0 };
  const wantedId = idFilter(order.events);
  const subjects = subjectsOf(ports, order);
  const met = new Map<string, IdSet>();
  const derive = createDeriver(ports);
  const today = createToday({ ...ports, decideNow: derive.now, prepare: (records) => prepare(records.map(({ value }) => ({ topic: topics.canonical, value }))) });
  let onlyMeets = false;
  /** Most records are of the operation of the one before. */
  let last = { destination: '', operation: '', among: '' };

  /** Ids are hex behind their prefix; of any other form (somebody else's record) they are not counted as repeated. */
  function isNew(kind: string, id: string): boolean {
    let set = met.get(kind);
    if (set === undefined) met.set(kind, set = createIdSet());
    const fresh = !/^[a-z]{3}_[0-9a-f]{32}$/.test(id) || set.add(id.slice(4));
    if (!fresh) passed.repeated++;
    return fresh;
  }

  /** Of a kind that is nearly always `usual`. Every other kind is one of its own, in a set for all: there may be as many as ids. */
  function isNewOf(kind: string, usual: string, id: string, among: string): boolean {
    return kind === usual ? isNew(among, id) : isNew(`${among}/other`, `oth_${hash('sha256', `${kind}\n${id}`).slice(0, 32)}`);
  }

  function decode<T>(value: Buffer | null, read: FieldReader<T>): T | undefined {
    try {
      const decoded = isReadable(value) ? read(serde, value) : undefined;
      if (decoded !== undefined) return decoded;
    } catch (error) {
      if (!(error instanceof WeirError)) throw error;
      if (error.code === 'subject-erased') {
        passed.keyDestroyed++;
        return undefined;
      }
    }
    passed.unreadable++;
    return undefined;
  }

  function wantsLetter(letter: Letter): boolean {
    if (order.stage !== null && letter.stage !== order.stage) return false;
    if (order.code !== null && !letter.reasons!.some((r) => r.code === order.code)) return false;
    if (order.source !== null && letter.source !== order.source) return false;
    if (order.destination !== null && letter.destination !== null && letter.destination !== order.destination) return false;
    if (order.release !== null && letter.release !== order.release) return false;
    return wantedId((order.letters ? letter.id : letter.eventId) ?? '');
  }

  function fromDelivery(origin: Origin, from: string): Item | undefined {
    const d = decode(origin.value, readDelivery);
    if (d === undefined || (order.source !== null && d.source !== order.source) || (order.destination !== null && d.destination !== order.destination) || (!order.letters && !wantedId(d.eventId)) || !subjects(d.ids)) return undefined;
    if (d.destination !== last.destination || d.operation !== last.operation) last = { destination: d.destination, operation: d.operation, among: `${d.destination}/${d.operation}` };
    const kind = linkedFrom(d.outputId) === undefined ? d.intent : `linked ${d.intent}`;
    // One of before is known by itself, also when it is only met: the decision that counts is not taken for its copy, whichever comes first.
    const older = usesData(standing, d) && today.isOlder(d);
    if (!isNewOf(older ? `${kind} ${d.decidedAt}` : kind, '0', d.outputId, last.among) || onlyMeets) return undefined;
    d.subject = origin.key?.toString('utf8') ?? '';
    const now = ports.now();
    let found = standingOf(standing, d, true, now, d.payload);
    if (origin instanceof LetterOrigin && d.failedOver && origin.wasNeverOn(serde, topics.dispatch(d.failedOver.destination))) {
      origin.unplaced = true;
      // No end of it is on its way: that it is a dead letter is its only one (docs/decisions/0015).
      if (found.standing === 'pending' && standing.deliveryState(`${d.outputId}|${d.destination}|${d.operation}`) === 'dead-lettered') found = standingOf(standing, d, false, now, d.payload);
    }
    return { origin, from, eventId: d.eventId, kind: 'delivery', note: undefined, deliveries: [{ facts: d, payload: d.payload, allowed: true, found }] };
  }

  /** Those whose record could not be read for want of its schema, or of its key: what it sets tells whether it is superseded. */
  async function readAgain(items: readonly Item[]): Promise<void> {
    const unread = items.filter(({ kind, deliveries: [looked] }) => kind === 'delivery' && looked?.payload !== undefined && looked.facts.recordType !== 'weir.canonical.Profile' && (looked.found.standing === 'superseded' || sends(looked.found.standing, 'resend')) && isReadable(looked.payload) && !serde.known(looked.payload));
    if (unread.length === 0) return;
    await prepare(unread.map(({ deliveries: [looked] }) => ({ topic: topics.canonical, value: looked!.payload! })));
    for (const { origin, deliveries: [looked] } of unread) looked!.found = standingOf(standing, looked!.facts, origin.unplaced !== true, ports.now(), looked!.payload);
  }

  /** A delivery that was decided earlier does not go when policy would not let it through as it stands today (I3: consent alone is asked again at the call). What restricts use goes whatever the rules say. */
  async function decideAgain(items: readonly Item[]): Promise<void> {
    const asked = items.flatMap(({ kind, deliveries: [looked] }) => (kind === 'delivery' && looked !== undefined && sends(looked.found.standing, 'resend') && usesData(standing, looked.facts) && !today.stands(looked.facts as DeliveryRecord) ? [looked] : []));
    let at = 0;
    async function worker(): Promise<void> {
      while (at < asked.length) {
        const looked = asked[at++]!;
        looked.today = await today.decide(looked.facts as DeliveryRecord);
        if (looked.today !== 'same') looked.found = { standing: 'denied' };
      }
    }
    await Promise.all(Array.from({ length: Math.min(decidedAtOnce, asked.length) }, worker));
  }

  /** A letter that names a destination (its contract was broken there) is of that one alone: the decisions about the others stood. */
  const onlyOf = ({ destination }: Origin): string | undefined => order.destination ?? destination ?? undefined;

  function fromDerived(origin: Origin, from: string, eventId: string, derived: Derived): Item | undefined {
    const only = onlyOf(origin);
    const base = { origin, from, eventId, kind: 'derived', ...(only === undefined ? {} : { only }) } as const;
    if (derived.kind !== 'ok') return subjects([]) ? { ...base, deliveries: [], note: derived.kind } : undefined;
    if (!derived.ids.some((ids) => subjects(ids))) return undefined;
    const now = ports.now();
    const deliveries: Looked[] = [];
    for (const { facts, payload, allowed } of derived.deliveries) {
      if (only !== undefined && facts.destination !== only) continue;
      const found = standingOf(standing, facts, false, now, payload);
      // Policy says no today, whatever consent alone would say.
      const denied = !allowed && sends(found.standing, 'resend');
      deliveries.push({ facts, payload, allowed, found: denied ? { standing: 'denied' } : found });
    }
    return { ...base, deliveries, note: ports.endedAs(eventId) === undefined ? undefined : 'goes-on' };
  }

  function fromOrigin(origin: Origin, from: string): Item | undefined {
    const { topic } = origin;
    if (topic.startsWith(dispatchPrefix)) return fromDelivery(origin, from);
    const record: LogRecord = { offset: origin.offset, timestamp: Number(textOf(origin.headers, H.accepted)), key: origin.key, value: origin.value, headers: origin.headers };
    const eventId = textOf(origin.headers, H.event);
    const source = topic.startsWith(rawPrefix) ? topic.slice(rawPrefix.length) : textOf(origin.headers, H.source);
    if ((order.source !== null && source !== order.source) || (!order.letters && !wantedId(eventId))) return undefined;
    if (topic === topics.canonical) {
      const output = textOf(origin.headers, H.output);
      // What an approver let through is one delivery of the record, not the record again; so is the letter of one destination.
      const [approval, only] = [textOf(origin.headers, H.approval), onlyOf(origin) ?? ''];
      const derived = isNewOf(only === (order.destination ?? '') ? approval : `${approval}\n${only}`, '', output, 'canonical') && !onlyMeets ? derive.canonical(record, source) : undefined;
      if (derived === 'unreadable') passed.unreadable++;
      return derived === undefined || derived === 'unreadable' ? undefined : fromDerived(origin, from, eventId, derived);
    }
    if (!topic.startsWith(rawPrefix)) {
      passed.unreadable++;
      return undefined;
    }
    // The same event id with another body is another item: it was set aside as a conflict.
    return isNew('raw', `evt_${eventId.slice(4, 20)}${rawHeaders(record).hash.slice(0, 16)}`) && !onlyMeets ? fromDerived(origin, from, eventId, derive.raw(record, source)) : undefined;
  }

  async function select(records: readonly ScannedRecord[]): Promise<Item[]> {
    const inTime = order.since === null && order.until === null ? records : records.filter(({ record }) => (order.since === null || record.timestamp >= order.since) && (order.until === null || record.timestamp < order.until));
    await prepare(inTime.map(({ topic, record }) => ({ topic, value: record.value })));
    const origins: [Origin, string][] = [];
    for (const { topic, partition, record } of inTime) {
      const from = `${topic}/${partition}/${record.offset}`;
      if (topic !== topics.dlq) origins.push([{ topic, partition, offset: record.offset, key: record.key, value: record.value, headers: record.headers }, from]);
      else {
        const letter = decode(record.value, readLetter);
        if (letter === undefined || !wantsLetter(letter)) continue;
        const origin = new LetterOrigin(letter, record.value!);
        if (origin.held) passed.held++;
        else origins.push([origin, from]);
      }
    }
    // Dead letters of one moment, in the order in which their records stood.
    if (order.from === 'dlq') {
      await prepare(origins.map(([origin]) => origin));
      origins.sort(([a], [b]) => (a.topic === b.topic ? a.partition - b.partition || a.offset - b.offset : a.topic < b.topic ? -1 : 1));
    }
    const items: Item[] = [];
    for (const [origin, from] of origins) {
      const item = fromOrigin(origin, from);
      if (item !== undefined) items.push(item);
    }
    await readAgain(items);
    await decideAgain(items);
    return items;
  }

  return {
    passed,
    take(records) {
      onlyMeets = false;
      return select(records);
    },
    async meet(records) {
      onlyMeets = true;
      await select(records);
    },
  };
}

/** Whether a record with these keyed identifiers is of the person asked for, by all identifiers that are linked to him. */
function subjectsOf(ports: SelectPorts, order: ReplayOrder): (ids: readonly string[]) => boolean {
  if (order.subject.length === 0) return () => true;
  const all = new Set(ports.tables.linked(order.subject) ?? order.subject);
  return (ids) => ids.some((id) => all.has(id));
}

export type UnknownRule = Pick<ReplayOrder, 'from' | 'destination' | 'unknown'>;

/**
 * What an order does with what nothing can tell of, by record. A dead letter that is no delivery may lead to destinations that
 * nobody named, whose deliveries of unknown effect nobody looked at: these are held, unless the order is for one destination.
 */
export function unknownRule(order: UnknownRule, kind: Item['kind']): 'hold' | 'resend' {
  return kind === 'delivery' || order.from !== 'dlq' || order.destination !== null ? order.unknown : 'hold';
}

/** True when a replay puts the record back. */
export function goesBack(item: Item, order: UnknownRule): boolean {
  if (item.note !== undefined && item.note !== 'goes-on') return false;
  if (item.corrects !== undefined) return true;
  const unknown = unknownRule(order, item.kind);
  // What the vendor said goes with a delivery and ends it. A record that is decided anew says of which deliveries nothing is sent (H.settled): for these alone it does not go.
  if (item.deliveries.some(({ found: { standing } }) => sends(standing, unknown) && (item.kind === 'delivery' || standing !== 'applied'))) return true;
  return item.note === 'goes-on' && !item.deliveries.some((d) => d.found.standing === 'erased' || d.found.standing === 'applied' || d.found.standing === 'confirmed' || d.found.standing === 'conflict');
}
