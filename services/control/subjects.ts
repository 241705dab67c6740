import { createKnownRegions, regionsIn, type ConsentTables } from '@weir/consent';
import { findWeirError, recordFault } from '@weir/errors';
import type { Appender, LogAdmin, LogRecord, Reader, Serde } from '@weir/log';
import { deliveryOfStage, endsOf, erasureSource, H, keyedId, ofAhead, type TopicNames } from '@weir/pipeline';
import { keyedIdsOf, type Identifiers, type Release } from '@weir/release';
import { count, flag, instant, integer, list, named, nullable, object, text, type TypeOf } from '@weir/service';
import { openIdentifiers, type ClearIdentifiers, type KeyRing } from '@weir/seal';
import { viewOf, type StateView } from './consent.ts';
import { header } from './indexer.ts';
import type { Stage, Store } from './store.ts';
import { createNewestEvents, type SubjectEvent } from './subject-events.ts';

export interface SubjectPorts {
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets' | 'beginningOffsets'>;
  readonly appender: Pick<Appender, 'partitionFor' | 'partitions'>;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly keys: KeyRing;
  readonly tables: Pick<ConsentTables, 'linked' | 'trusted' | 'allows' | 'readToEnd' | 'states' | 'stored' | 'linkValues' | 'regions'>;
  readonly store: Pick<Store, 'stages'>;
  readonly workspaceKey: Buffer;
  readonly release: () => Release;
  readonly now: () => number;
}

/** One canonical record of a person, or a change of consent; `value` is undefined when its key is destroyed, or, with `broken`, when its bytes are none of a record. */
export interface SubjectRecord {
  readonly at: number;
  /** ms since the epoch; NaN = not told. */
  readonly acceptedAt: number;
  readonly eventId: string;
  readonly outputId: string;
  readonly source: string;
  readonly type: string | undefined;
  readonly value: Readonly<Record<string, unknown>> | undefined;
  readonly broken: boolean;
}

/** What no key and no schema makes readable: it leaves with the retention of the topic, and must not hold up an erasure. */
const broken: ReadonlySet<string> = new Set(['avro-undecodable', 'schema-unknown']);

/** The keyed identifiers of a person. */
export interface Person {
  readonly ids: readonly string[];
  /** More than 64 are linked to those given, too many for one person: `ids` are those given alone. */
  readonly onlyGiven: boolean;
  /** What only sources that are not trusted have linked with one of `ids`, at most 64. */
  readonly leftOut: readonly string[];
}

/** Which links make a person: those that a trusted source said, or all that there are. */
export type Follow = 'trusted' | 'all';

const leftOutDoc = 'What only sources with `identityLinks: untrusted` have linked with the person, at most 64: no part of it unless `linked` is `all`.';
export const leftOutList = list(text('Keyed identifier.'), leftOutDoc);

/** Events whose deliveries and decisions are looked up at once. */
const maxEvents = 20_000;
const turnEvents = 500;
export const cut = flag(`The person has more than ${maxEvents} events: deliveries and decisions are those of the newest ones alone.`);

export const subjectReply = named('Subject', object('What is known of a person, in short.', {
  ids: list(text('Keyed identifier, `<type>:<keyed id>`.'), 'The person\'s.'), onlyGiven: flag('More than 64 are linked to those given, too many for one person: `ids` are those given alone.'), leftOut: leftOutList,
  erasedUntil: nullable(instant('What was accepted until then is erased; null = never erased.')),
  purposes: list(object('A purpose and channel that some route uses.', { purpose: text('Purpose.'), channel: nullable(text('Channel.')), allowed: flag('The person may be used for it now.'), reason: nullable(text('Why not.')) }), 'Per purpose and channel.'),
  records: object('Canonical records.', { total: count('All that are kept.'), readable: count('Those whose key is not destroyed.') }),
  destinations: list(object('A destination.', { destination: text('Destination.'), delivered: count('Deliveries.'), last: instant('The last of them.') }), 'Where something of the person was delivered.'), cut,
}));
export type SubjectSummary = TypeOf<typeof subjectReply>;

const decision = named('SubjectDecision', object('What was decided about one record of a person for one operation of a destination, and what became of it.', {
  eventId: text('Event.'), at: instant('When it was decided.'), source: text('Source.'), record: nullable(text('Canonical record name without namespace; null when its key is destroyed.')), destination: nullable(text('Destination; null = of all.')), operation: nullable(text('Operation there.')),
  effect: text('allow, deny, hold or dead-letter.'), rule: nullable(text('Rule that decided.')), purpose: nullable(text('Purpose.')), reason: nullable(text('Why not.')), release: nullable(text('Hash of the release.')),
  end: nullable(object('How it ended.', { state: text('delivered, denied, dead-lettered, …'), at: instant('When.'), reason: nullable(text('Why.')), status: nullable(integer('HTTP status of the last answer.')) })),
}));
export type SubjectDecision = TypeOf<typeof decision>;
export const decisionsReply = object('What was decided about a person.', { decisions: list(decision, 'The newest first; of a decision that was made again the last.'), onlyGiven: flag('More than 64 are linked to those given: only the records under those are looked at.'), cut });

/** Every purpose with each channel that a route uses it on. */
function usesOf(release: Release): [purpose: string, channel: string | null][] {
  const found = new Map<string, [string, string | null]>();
  for (const route of [...release.policy.routes.values()].flat()) if (route.purpose !== undefined) found.set(`${route.purpose}/${route.channel ?? ''}`, [route.purpose, route.channel ?? null]);
  return [...found.values()].sort((a, b) => (a.join() < b.join() ? -1 : 1));
}

type Decided = SubjectDecision & { readonly order: number };

/** Stages of an event that are of these outputs: it may be of several people. Those that name none count: of the event as a whole, or indexed before ends named their output. */
const ofOutputs = (stages: readonly Stage[], { outputs }: SubjectEvent): Stage[] => stages.filter(({ outputId }) => typeof outputId !== 'string' || outputs.has(outputId));

/** The last decision per output and operation, with its end. */
function decisionsOf(stages: readonly Stage[], wanted: string | undefined, { eventId, source, outputs }: SubjectEvent): Decided[] {
  const found = new Map<string, Decided>();
  const text = (value: unknown): string | null => (typeof value === 'string' ? value : null);
  const endOf = endsOf(stages);
  for (const s of stages) {
    if (s.stage !== 'decided' || (wanted !== undefined && s['destination'] !== wanted && s['destination'] !== null)) continue;
    const end = endOf(s);
    found.set(deliveryOfStage(s), {
      eventId, source, record: outputs.get(String(s['outputId']))?.slice('weir.canonical.'.length) ?? null,
      order: s.at, at: new Date(s.at).toISOString(), destination: text(s['destination']), operation: text(s['operation']), effect: String(s['effect']), rule: text(s['rule']), purpose: text(s['purpose']), reason: text(s['reason']), release: text(s['release']),
      end: end === undefined ? null : { state: String(end['state']), at: new Date(end.at).toISOString(), reason: text(end['reason']), status: typeof end['status'] === 'number' ? end['status'] : null },
    });
  }
  return [...found.values()];
}

/** What is known of one person, read from the topics: nothing of it is kept. */
export function createSubjects(ports: SubjectPorts) {
  const { reader, admin, appender, serde, topics, keys, tables } = ports;

  /** The keyed identifiers of the person: those given and what is linked to them now by the links that are followed. */
  const resolve = (identifiers: Identifiers, follow: Follow): Promise<Person> => close(keyedIdsOf(ports.workspaceKey, identifiers), follow);

  async function close(given: readonly string[], follow: Follow): Promise<Person> {
    await tables.readToEnd();
    const { ids, leftOut } = follow === 'all' ? { ids: tables.linked(given), leftOut: [] } : tables.trusted(given, trusts);
    return { ids: ids ?? given, onlyGiven: ids === undefined, leftOut };
  }

  /** As the release of now says of the source; of one that it does not have, as it was when the link was written. */
  const trusts = (source: string, trusted: boolean): boolean => ports.release().sources.get(source)?.trustsLinks ?? trusted;

  /** Whether what a record of this source says belongs to its person. */
  const trustsSource = (source: string): boolean => trusts(source, true);

  /** Whether a key, a link, a state of consent or a mark of erasure is of one of these; records are for `scan`. */
  function known(ids: readonly string[]): boolean {
    return keys.erasedUntil(ids) > 0 || ids.some((id) => keys.current(id) !== undefined || tables.states(id).length > 0 || tables.linked([id])?.length !== 1);
  }

  async function read(record: LogRecord): Promise<SubjectRecord> {
    const about = { at: record.timestamp, acceptedAt: Number(header(record, H.accepted) || Number.NaN), eventId: header(record, H.event), outputId: header(record, H.output), source: header(record, H.source) };
    try {
      if (!serde.known(record.value!)) await serde.prepare(record.value!);
      const { name, value } = serde.decode(record.value!);
      // What an order of erasure tells the destinations is nobody's to read: its key stands until they have it.
      return { ...about, type: name, value: about.source === erasureSource ? undefined : value as Record<string, unknown>, broken: false };
    } catch (error) {
      const code = findWeirError(error)?.code ?? '';
      if (code !== 'subject-erased' && !broken.has(code)) throw error;
      return { ...about, type: undefined, value: undefined, broken: broken.has(code) };
    }
  }

  /** Every canonical record under these identifiers, partition by partition in order. `take` is awaited. */
  const scan = (ids: readonly string[], take: (record: SubjectRecord) => void | Promise<void>): Promise<void> => scanTopic(topics.canonical, ids, () => true, take);

  /** Every change of consent under these identifiers, in the same way. One of several of them stands under each, and is taken once. */
  function scanChanges(ids: readonly string[], take: (change: SubjectRecord) => void | Promise<void>): Promise<void> {
    const isFirst = (record: LogRecord): boolean => {
      // The same comes at its turn.
      if (header(record, H.mapping) === ofAhead) return false;
      const own = header(record, H.ids).split(',').find((id) => ids.includes(id));
      return own === undefined || own === record.key!.toString();
    };
    return scanTopic(topics.consentChanges, ids, isFirst, take);
  }

  async function scanTopic(topic: string, ids: readonly string[], isWanted: (record: LogRecord) => boolean, take: (record: SubjectRecord) => void | Promise<void>): Promise<void> {
    await appender.partitions(topic);
    const wanted = new Set(ids);
    const partitions = new Set(ids.map((id) => appender.partitionFor(topic, id)));
    const [begins, ends] = await Promise.all([admin.beginningOffsets(topic), admin.endOffsets(topic)]);
    for (const partition of partitions) {
      await reader.read(topic, partition, begins.get(partition) ?? 0, ends.get(partition) ?? 0, async (batch) => {
        for (const record of batch.records) if (record.value !== null && wanted.has(record.key?.toString() ?? '') && isWanted(record)) await take(await read(record));
      });
    }
  }

  /** What stands of the consent of these identifiers; of one that has too many states, for which everything is closed, none. */
  function states(ids: readonly string[]): readonly StateView[] {
    return ids.flatMap((id) => {
      const found = tables.states(id);
      return found === 'too-many' ? [] : found.map((entry) => viewOf(tables, id.split(':')[0]!, id, entry));
    });
  }

  /** What the links of a person keep in the clear, the newest first; nothing of what was erased. @param ids as `resolve` gives them for one person */
  async function linkValues(ids: readonly string[]): Promise<ReadonlyArray<ClearIdentifiers & { readonly at: number }>> {
    const found: (ClearIdentifiers & { readonly at: number })[] = [];
    for (const { at, sealed } of tables.linkValues(ids)) {
      // Bytes that nobody can read must hold up no erasure.
      if (!serde.known(sealed)) await serde.prepare(sealed).catch((error: unknown) => { if (recordFault(error) === undefined) throw error; });
      const clear = openIdentifiers(serde, sealed);
      if (clear === undefined) continue;
      // A record may name somebody beside the person, and a link that is not followed does.
      const isOwn = (id: string): boolean => ids.includes(id) && keys.erasedUntil([id]) < at;
      const own = (type: 'userId' | 'email' | 'phone'): string | null => (clear[type] !== null && isOwn(`${type}:${keyedId(ports.workspaceKey, type, clear[type])}`) ? clear[type] : null);
      const link = { userId: own('userId'), email: own('email'), phone: own('phone') };
      if (Object.values(link).some((value) => value !== null)) found.push({ at, ...link });
    }
    return found;
  }

  /** Where a person is known to be, by each identifier that says it; nothing of what was erased. @param ids as `resolve` gives them for one person */
  function regions(ids: readonly string[]): ReadonlyArray<{ readonly at: number; readonly region: string }> {
    const found: { at: number; region: string }[] = [];
    createKnownRegions({ tables, keys }).each(ids, (_id, { at, code }) => { for (const region of regionsIn(code)) found.push({ at, region }); });
    return found;
  }

  async function summary(identifiers: Identifiers, follow: Follow): Promise<SubjectSummary> {
    const { ids, onlyGiven, leftOut } = await resolve(identifiers, follow);
    const events = createNewestEvents(maxEvents);
    let total = 0;
    let readable = 0;
    await scan(ids, (record) => {
      total++;
      if (record.value !== undefined) readable++;
      events.add(record);
    });
    const destinations = await deliveredTo(events.newest());
    const until = keys.erasedUntil(ids);
    return {
      ids, onlyGiven, leftOut: [...leftOut], erasedUntil: until === 0 ? null : new Date(until).toISOString(),
      purposes: usesOf(ports.release()).map(([purpose, channel]) => {
        const answer = tables.allows(ids, purpose, channel, null, ports.release().policy.purposes.get(purpose)?.legalBasis ?? null, ports.now(), ports.release().policy);
        return { purpose, channel, allowed: answer.ok, reason: answer.ok ? null : answer.reason };
      }),
      records: { total, readable },
      destinations, cut: events.cut(),
    };
  }

  /** Stages of one event after another: between so many the event loop gets a turn, for which a kill switch waits. */
  async function eachEvent(events: readonly SubjectEvent[], take: (stages: readonly Stage[], event: SubjectEvent) => void): Promise<void> {
    for (const [i, event] of events.entries()) {
      if (i % turnEvents === turnEvents - 1) await new Promise<void>((resume) => { setImmediate(resume); });
      take(ofOutputs(ports.store.stages(event.eventId), event), event);
    }
  }

  async function deliveredTo(events: readonly SubjectEvent[]): Promise<SubjectSummary['destinations']> {
    const found = new Map<string, { delivered: number; last: number }>();
    await eachEvent(events, (stages) => {
      for (const stage of stages) {
        if (stage.stage !== 'outcome' || stage['state'] !== 'delivered') continue;
        const name = String(stage['destination']);
        const before = found.get(name) ?? { delivered: 0, last: 0 };
        found.set(name, { delivered: before.delivered + 1, last: Math.max(before.last, stage.at) });
      }
    });
    return [...found].map(([destination, { delivered, last }]) => ({ destination, delivered, last: new Date(last).toISOString() })).sort((a, b) => (a.destination < b.destination ? -1 : 1));
  }

  /** The newest `limit` decisions about the person, of the destination when one is named, the newest first; of a decision that was made again the last. By every link, as decisions are made. */
  async function decisions(identifiers: Identifiers, destination: string | undefined, limit: number): Promise<TypeOf<typeof decisionsReply>> {
    const { ids, onlyGiven } = await resolve(identifiers, 'all');
    const events = createNewestEvents(maxEvents);
    await scan(ids, events.add);
    const found: Decided[] = [];
    await eachEvent(events.newest(), (stages, event) => { found.push(...decisionsOf(stages, destination, event)); });
    return { onlyGiven, cut: events.cut(), decisions: found.sort((a, b) => b.order - a.order).slice(0, limit).map(({ order: _order, ...decision }) => decision) };
  }

  return { resolve, close, trustsSource, known, scan, scanChanges, states, newestEvents: () => createNewestEvents(maxEvents), deliveredTo, linkValues, regions, summary, decisions };
}
export type Subjects = ReturnType<typeof createSubjects>;
