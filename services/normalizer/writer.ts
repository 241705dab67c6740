import { createHash } from 'node:crypto';
import { failpoint } from '@weir/failpoint';
import { headerBytes, Packer, type Appender, type Headers, type LogRecord, type OutRecord, type RecordBody, type Serde, type Sink } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { aheadChange, H, ofAhead, ofDeadLetter, ofQuarantine, type Reason, type TopicNames } from '@weir/pipeline';
import { carried, linksOf, outputsOf, replayHeaders, type Encodable, type Encoded, type Person, type RawHeaders, type Release } from '@weir/release';
import { identifiersSealer, type KeyRing } from '@weir/seal';
import type { First } from './seen.ts';

/** One raw record with what came of it. */
export interface Work {
  readonly source: string;
  readonly topic: string;
  readonly partition: number;
  readonly record: LogRecord;
  readonly headers: RawHeaders;
  /** How its event id first came; null = it is new, undefined = nobody looked. */
  readonly known: First | null | undefined;
  /** Hash of the body that came first under its event id, when that was another one. */
  readonly firstHash: string | undefined;
  result: Encodable;
}

/** It goes to the dead letters because its event id came before with another body. */
export const isConflict = (result: Encodable): boolean => result.kind === 'dead' && result.reasons[0]!.code === 'event-conflict';

export interface WriterPorts {
  readonly appender: Appender;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly now: () => number;
  /** Undefined = nothing is sealed. */
  readonly keys?: Pick<KeyRing, 'byId' | 'open' | 'onErased'> | undefined;
  /** Told of so many headers that are not carried on: a name has come more than once. */
  readonly left: (source: string, headers: number) => void;
}


/** Headers that come again in every record of a batch, as bytes. Bounded: names of releases, sources, mappings and outputs. */
const maxConstants = 1000;
/** By name and text, which are the same objects each time: nothing is put together to look one up. */
const constants = new Map<string, Map<string, Buffer>>();
function constant(name: string, text: string): Buffer {
  let texts = constants.get(name);
  if (texts === undefined) constants.set(name, texts = new Map());
  let bytes = texts.get(text);
  if (bytes === undefined) {
    if (texts.size >= maxConstants) texts.clear();
    texts.set(text, bytes = headerBytes(name, text));
  }
  return bytes;
}

/** Of each of both; a link sent again changes nothing. */
const maxLinks = 100_000;

/** Links already acknowledged by this process. Bounded, whatever somebody with a public key sends. */
export interface LinkMemory {
  readonly links: Map<string, readonly [partition: number, offset: number]>;
  /** How far the links of a person got, by its identifiers, when all of them are acknowledged; as a source said it that is trusted, and as one that is not. */
  readonly linked: Readonly<Record<'trusted' | 'untrusted', Map<string, string>>>;
}
export const createLinkMemory = (): LinkMemory => ({ links: new Map(), linked: { trusted: new Map(), untrusted: new Map() } });

type Sources = Release['sources'] | undefined;

/** Key of a link that a source says which is not trusted: who reads links takes both ways as one (docs/decisions/0038). */
function otherWay(pair: string): string {
  const at = pair.indexOf('~');
  return `${pair.slice(at + 1)}~${pair.slice(0, at)}`;
}

/** A reader that is past the last offset of a partition is past the others: one position per partition says it all. */
function reach(last: Map<number, number>, partition: number, offset: number): void {
  last.set(partition, Math.max(offset, last.get(partition) ?? 0));
}
const positions = (last: ReadonlyMap<number, number>): string => [...last].map(([partition, offset]) => `${partition}:${offset}`).join(',');

/** Name of a header with its length before it. */
const named = (name: string): Buffer => headerBytes(name, '').subarray(0, -1);
const names = { hash: named(H.hash), event: named(H.event), accepted: named(H.accepted), traceparent: named(H.traceparent), output: named(H.output), ids: named(H.ids), logged: named(H.logged), afterConsent: named(H.afterConsent), afterIdentity: named(H.afterIdentity) };

/**
 * Writes one batch: consent changes (those of dead letters that close and can be read, too) and identity links first, and only when they are acknowledged the
 * canonical records, which name those positions; then dead letters and outcomes. Resolves when all of it is
 * acknowledged. Order per raw key is kept: canonical records are appended in the order of the batch.
 */
export function createWriter(ports: WriterPorts, { links, linked }: LinkMemory = createLinkMemory()) {
  const { appender, serde, topics, keys } = ports;
  const sealer = keys === undefined ? undefined : identifiersSealer(serde, keys);
  /** Identifiers erased since what is known was gone over: their links are written again, for the value that they keep cannot be read any more. */
  const erased = new Set<string>();
  /** How often that was; what was being written meanwhile is not taken for known. */
  let erasures = 0;
  keys?.onErased((id) => {
    erased.add(id);
    erasures++;
  });
  /** Whether the links that are known were written with values. */
  let kept: boolean | undefined;
  /** Packers whose records are acknowledged. */
  const spare: Packer[] = [];

  /** What goes on of a replay order: the first header of each name, whatever else somebody wrote into the raw topic. */
  function replayed({ source, record }: Work): ReadonlyMap<string, Buffer> {
    const found = new Map<string, Buffer>();
    let more = 0;
    for (const [name, value] of record.headers) {
      if (!replayHeaders.has(name)) continue;
      if (found.has(name)) more++;
      else found.set(name, value);
    }
    if (more > 0) ports.left(source, more);
    return found;
  }

  /** One record of a canonical type, in Kafka's form. */
  function pack(packer: Packer, work: Work, output: Encoded, sink: Sink, key: Buffer, partition: number, release: string, mapping: string, id: string, after: { readonly consent?: string; readonly identity?: string; readonly logged?: string }): OutRecord {
    const { headers, record } = work;
    const always = (name: string, text: string): void => {
      const bytes = constant(name, text);
      packer.headers(bytes, 0, bytes.length, 1);
    };
    packer.begin();
    packer.key(key, 0, key.length);
    packer.value(sink.bytes, output.from, output.to);
    if (headers.common !== undefined) packer.headers((record as LogRecord & RecordBody).bytes, headers.common.from, headers.common.to, carried.length);
    else {
      packer.header(names.event, headers.eventId);
      packer.header(names.hash, headers.hash);
      always(H.source, work.source);
      packer.header(names.accepted, String(headers.acceptedAt));
      packer.header(names.traceparent, headers.traceparent);
    }
    always(H.release, release);
    always(H.mapping, mapping);
    if (after.consent !== undefined) packer.header(names.afterConsent, after.consent);
    if (after.identity !== undefined) packer.header(names.afterIdentity, after.identity);
    if (after.logged !== undefined) packer.header(names.logged, after.logged);
    packer.header(names.output, id);
    always(H.outputName, output.outputName);
    packer.header(names.ids, output.person.text);
    if (headers.redriven) for (const [header, value] of replayed(work)) packer.header(named(header), value.toString('utf8'));
    return packer.end(partition);
  }

  /** Positions that the canonical records of a work must wait for; undefined = none. */
  interface Reached { readonly consent: ReadonlyMap<Work, string>; readonly identity: ReadonlyMap<Work, string> }

  function consentOf(works: readonly Work[], sink: Sink, release: string, packer: Packer, isAhead = false): { records: OutRecord[]; owners: Work[] } {
    const records: OutRecord[] = [];
    const owners: Work[] = [];
    for (const work of works) {
      const outputs = outputsOf(work.result);
      if (outputs.length === 0) continue;
      const mapping = work.result.kind === 'ok' ? work.result.mapping : ofDeadLetter;
      // One that was put back came onto the log when it first did.
      const logged = String(work.headers.redriven ? Math.min(work.headers.acceptedAt, work.record.timestamp) : work.record.timestamp);
      for (const output of outputs) {
        if (output.recordType !== consentRecord) continue;
        // A no of a second body is the same change when it is put back: nobody was told of it when it first held.
        const [by, change] = isAhead ? [ofAhead, aheadChange(output.outputId)] : output.changeId === undefined ? [mapping, output.outputId] : [ofQuarantine, output.changeId];
        for (const id of output.person.ids) {
          const key = Buffer.from(id);
          records.push(pack(packer, work, output, sink, key, appender.partitionFor(topics.consentChanges, key), release, by, change, { logged }));
          owners.push(work);
        }
      }
    }
    return { records, owners };
  }

  /** Of a source that is not trusted nothing has to be written that a trusted one has said. */
  const linkedText = (trusted: boolean, text: string): string | undefined => linked.trusted.get(text) ?? (trusted ? undefined : linked.untrusted.get(text));

  function forgetAll(): void {
    links.clear();
    forgetTexts();
  }

  /** Nothing is written again for it: the links say the same. */
  function forgetTexts(): void {
    linked.trusted.clear();
    linked.untrusted.clear();
  }

  /** What is known of links, less what has to be written again. */
  function forget(keeps: boolean): void {
    if (kept !== keeps) {
      kept = keeps;
      forgetAll();
    }
    if (erased.size === 0) return;
    for (const link of links.keys()) {
      const at = link.indexOf('~');
      if (erased.has(link.slice(0, at)) || erased.has(link.slice(at + 1))) links.delete(link);
    }
    for (const known of [linked.trusted, linked.untrusted]) for (const text of known.keys()) if (text.split(',').some((id) => erased.has(id))) known.delete(text);
    erased.clear();
  }

  /** A work whose links are not all known by the identifiers of one person; with where each of them is, as that becomes known. */
  interface Linking { readonly work: Work; readonly persons: readonly Person[]; readonly trusted: boolean }

  /** What is known of links now goes to `texts` and `known`: nothing that others forget meanwhile is asked for later. Those that nobody has written come back as records, once each. */
  function newLinks(works: readonly Work[], sink: Sink, keeps: boolean, texts: Map<Work, string>, known: Map<string, readonly [number, number]>, open: Linking[], sources: Sources): { records: OutRecord[]; names: string[] } {
    const records: OutRecord[] = [];
    const found = new Set<string>();
    forget(keeps);
    for (const work of works) {
      if (work.result.kind !== 'ok') continue;
      const { outputs } = work.result;
      const trusted = sources?.get(work.source)?.trustsLinks !== false;
      const text = outputs.length === 1 ? linkedText(trusted, outputs[0]!.person.text) : undefined;
      if (text !== undefined) {
        texts.set(work, text);
        continue;
      }
      const persons = outputs.map((output) => output.person).filter((person) => person.ids.length > 1);
      if (persons.length === 0) continue;
      open.push({ work, persons, trusted });
      for (const output of outputs) {
        if (output.person.ids.length < 2) continue;
        /** Of the record that says so; undefined = not asked for yet. */
        let sealed: Buffer | null | undefined;
        for (const pair of linksOf(output.person.ids)) {
          // What nobody trusted says never takes the place of what somebody trusted said: the topic is compacted by key.
          const link = trusted ? pair : otherWay(pair);
          const at = links.get(link) ?? links.get(pair);
          if (at !== undefined) known.set(link, at);
          if (at !== undefined || found.has(link)) continue;
          found.add(link);
          const [a, b] = pair.split('~');
          const key = Buffer.from(link);
          if (sealed === undefined) sealed = keeps ? sealer?.(output.recordType, sink.bytes.subarray(output.from, output.to)) ?? null : null;
          records.push({ partition: appender.partitionFor(topics.identity, key), key, value: serde.encode('weir.internal.IdentityLink', { a, b, source: work.source, at: work.headers.acceptedAt, sealed }) });
        }
      }
    }
    return { records, names: [...found] };
  }

  /** How far each of `works` got on the two topics, per partition, after all was acknowledged. */
  async function first(works: readonly Work[], sink: Sink, release: string, keeps: boolean, packer: Packer, sources: Sources): Promise<Reached> {
    const asked = consentOf(works, sink, release, packer);
    const identity = new Map<Work, string>();
    const known = new Map<string, readonly [number, number]>();
    const open: Linking[] = [];
    const fresh = newLinks(works, sink, keeps, identity, known, open, sources);
    const [before, mode] = [erasures, kept];
    const none: readonly number[] = [];
    const [consentOffsets, linkOffsets] = asked.records.length + fresh.records.length === 0 ? [none, none] : await Promise.all([appender.append(topics.consentChanges, asked.records), appender.append(topics.identity, fresh.records)]);
    if (links.size > maxLinks) forgetAll();
    // Few identifiers in all their combinations have few links.
    if (linked.trusted.size + linked.untrusted.size > maxLinks) forgetTexts();
    const counts = before === erasures && mode === kept;
    fresh.names.forEach((name, i) => {
      const at = [fresh.records[i]!.partition, linkOffsets[i]!] as const;
      if (counts) links.set(name, at);
      known.set(name, at);
    });
    for (const { work, persons, trusted } of open) {
      const last = new Map<number, number>();
      for (const person of persons) for (const pair of linksOf(person.ids)) reach(last, ...known.get(trusted ? pair : otherWay(pair))!);
      const text = positions(last);
      identity.set(work, text);
      if (counts && persons.length === 1) (trusted ? linked.trusted : linked.untrusted).set(persons[0]!.text, text);
    }
    const changes = new Map<Work, Map<number, number>>();
    asked.owners.forEach((work, i) => {
      let last = changes.get(work);
      if (last === undefined) changes.set(work, last = new Map());
      reach(last, asked.records[i]!.partition, consentOffsets[i]!);
    });
    return { consent: new Map([...changes].map(([work, last]) => [work, positions(last)])), identity };
  }

  /** Of a second body with the hash of the first: put back, it is one still when nobody remembers the first any more. */
  function letterHeaders({ record: { headers }, firstHash }: Work): Headers {
    return firstHash === undefined || headers.some(([name]) => name === H.firstHash) ? headers : [...headers, [H.firstHash, Buffer.from(firstHash)]];
  }

  function letterOf(work: Work, reasons: readonly Reason[], release: string): OutRecord {
    const { record, headers } = work;
    const key = Buffer.from(headers.eventId);
    const value = serde.encode('weir.internal.DeadLetter', {
      id: `dlq_${createHash('sha256').update(`normalizer\u0000${work.topic}\u0000${work.partition}\u0000${record.offset}`).digest('hex').slice(0, 32)}`,
      eventId: headers.eventId, stage: 'normalizer', reasons: reasons.map((r) => ({ code: r.code, message: r.message, file: r.file ?? null, line: r.line ?? null, field: r.field ?? null, path: r.path ?? null })),
      source: work.source, destination: null, operation: null, attempts: 0, release, topic: work.topic, partition: work.partition, offset: record.offset,
      key: record.key, value: record.value, headers: letterHeaders(work).map(([name, v]) => ({ name, value: v })), effect: 'none', acceptedAt: headers.acceptedAt, at: ports.now(),
    });
    return { partition: appender.partitionFor(topics.dlq, key), key, value, headers: [[H.event, key], [H.traceparent, Buffer.from(headers.traceparent)]] };
  }

  function outcome(work: Work, state: string, reason: string, detail: string | null, release: string): OutRecord {
    const key = Buffer.from(work.headers.eventId);
    const value = serde.encode('weir.internal.Outcome', { eventId: work.headers.eventId, outputId: null, destination: null, operation: null, key: null, state, reason, detail, stage: 'normalizer', release, rule: null, purpose: null, consent: [], attempts: 0, status: null, attempt: null, acceptedAt: work.headers.acceptedAt, at: ports.now() });
    return { partition: appender.partitionFor(topics.outcome, key), key, value, headers: [[H.traceparent, Buffer.from(work.headers.traceparent)], ...(work.headers.redriven ? replayed(work) : [])] };
  }

  /** Nothing of `sink` and of the raw records is used after it resolved. */
  async function write(works: readonly Work[], sink: Sink, { hash, linkedIdentifiers, sources }: Pick<Release, 'hash' | 'linkedIdentifiers'> & Partial<Pick<Release, 'sources'>>): Promise<void> {
    const packer = spare.pop() ?? new Packer();
    await writeAll(works, sink, hash, linkedIdentifiers === true, packer, sources);
    packer.reset();
    spare.push(packer);
  }

  /** The changes of consent of these works alone, of `sink`, before their turn; what is written after the call stands behind them. Resolves when they are acknowledged. */
  async function writeAhead(works: readonly Work[], sink: Sink, release: string): Promise<void> {
    const packer = spare.pop() ?? new Packer();
    await appender.append(topics.consentChanges, consentOf(works, sink, release, packer, true).records);
    packer.reset();
    spare.push(packer);
  }

  async function writeAll(works: readonly Work[], sink: Sink, release: string, keeps: boolean, packer: Packer, sources: Sources): Promise<void> {
    const { consent, identity } = await first(works, sink, release, keeps, packer, sources);
    failpoint('normalizer.dependencies-written');
    const canonical: OutRecord[] = [];
    const letters: OutRecord[] = [];
    const outcomes: OutRecord[] = [];
    for (const work of works) {
      const { result } = work;
      if (result.kind === 'ok') {
        const after = { consent: consent.get(work), identity: identity.get(work) };
        for (const output of result.outputs) {
          const { key } = output.person;
          canonical.push(pack(packer, work, output, sink, key, appender.partitionFor(topics.canonical, key), release, result.mapping, output.outputId, after as { consent?: string; identity?: string }));
        }
      } else if (result.kind === 'dropped') outcomes.push(outcome(work, 'dropped', result.reason, null, release));
      else {
        letters.push(letterOf(work, result.reasons, release));
        const [{ code, message }] = result.reasons as readonly [Reason, ...Reason[]];
        outcomes.push(isConflict(result) ? outcome(work, 'quarantined', code, null, release) : outcome(work, 'dead-lettered', code, message, release));
      }
    }
    if (letters.length > 0) {
      await appender.append(topics.dlq, letters);
      failpoint('normalizer.dlq-written');
    }
    await Promise.all([appender.append(topics.canonical, canonical), appender.append(topics.outcome, outcomes)]);
  }
  return { write, writeAhead };
}
export type Writer = ReturnType<typeof createWriter>;
