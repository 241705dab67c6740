import { createHash } from 'node:crypto';
import { failpoint } from '@weir/failpoint';
import type { Appender, LogRecord, OutRecord, Serde } from '@weir/log';
import { H, type Reason, type TopicNames } from '@weir/pipeline';
import type { Encodable, Encoded, RawHeaders } from '@weir/release';

/** One raw record with what came of it. */
export interface Work {
  readonly source: string;
  readonly topic: string;
  readonly partition: number;
  readonly record: LogRecord;
  readonly headers: RawHeaders;
  readonly result: Encodable | { readonly kind: 'conflict'; readonly first: string };
}

export interface WriterPorts {
  readonly appender: Appender;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly now: () => number;
}

const consentRecord = 'weir.canonical.ConsentChange';
/** Texts that come again in every record of a batch, as bytes. Bounded: names of releases, sources, mappings and outputs. */
const maxConstants = 1000;
const constants = new Map<string, Buffer>();
function constant(text: string): Buffer {
  let bytes = constants.get(text);
  if (bytes === undefined) {
    if (constants.size >= maxConstants) constants.clear();
    constants.set(text, bytes = Buffer.from(text));
  }
  return bytes;
}

/** Links already acknowledged by this process: link → partition and offset. Bounded; a link sent again changes nothing. */
const maxLinks = 100_000;

/** A reader that is past the last offset of a partition is past the others: one position per partition says it all. */
function reach(last: Map<number, number>, partition: number, offset: number): void {
  last.set(partition, Math.max(offset, last.get(partition) ?? 0));
}
const positions = (last: ReadonlyMap<number, number>): Buffer => Buffer.from([...last].map(([partition, offset]) => `${partition}:${offset}`).join(','));

/**
 * Writes one batch: consent changes and identity links first, and only when they are acknowledged the
 * canonical records, which name those positions; then dead letters and outcomes. Resolves when all of it is
 * acknowledged. Order per raw key is kept: canonical records are appended in the order of the batch.
 */
export function createWriter(ports: WriterPorts) {
  const { appender, serde, topics } = ports;
  const links = new Map<string, readonly [partition: number, offset: number]>();

  function commonHeaders(work: Work, release: string, mapping: string): [string, Buffer][] {
    const { headers, source } = work;
    const base: [string, Buffer][] = [[H.event, Buffer.from(headers.eventId)], [H.hash, Buffer.from(headers.hash)], [H.source, constant(source)], [H.accepted, Buffer.from(String(headers.acceptedAt))], [H.traceparent, Buffer.from(headers.traceparent)], [H.release, constant(release)], [H.mapping, constant(mapping)]];
    if (headers.replay !== undefined) for (const header of headers.replay) base.push([header[0], header[1]]);
    return base;
  }

  function outputHeaders(base: readonly [string, Buffer][], output: Encoded): [string, Buffer][] {
    return [...base, [H.output, Buffer.from(output.outputId)], [H.outputName, constant(output.outputName)], [H.ids, Buffer.from(output.ids.join(','))]];
  }

  /** How far each of `works` got on the two topics, per partition, after all was acknowledged. */
  async function first(works: readonly Work[], release: string): Promise<{ consent: Map<Work, Map<number, number>>; identity: Map<Work, Map<number, number>> }> {
    const consentRecords: OutRecord[] = [];
    const consentOwners: Work[] = [];
    const linkRecords: OutRecord[] = [];
    const linkNames: string[] = [];
    const asked = new Set<string>();
    for (const work of works) {
      if (work.result.kind !== 'ok') continue;
      for (const output of work.result.outputs) {
        if (output.recordType !== consentRecord) continue;
        const headers = outputHeaders(commonHeaders(work, release, work.result.mapping), output);
        for (const id of output.ids) {
          const key = Buffer.from(id);
          consentRecords.push({ partition: appender.partitionFor(topics.consentChanges, key), key, value: output.value, headers });
          consentOwners.push(work);
        }
      }
      for (const link of work.result.links) {
        if (links.has(link) || asked.has(link)) continue;
        asked.add(link);
        const [a, b] = link.split('~');
        const key = Buffer.from(link);
        linkRecords.push({ partition: appender.partitionFor(topics.identity, key), key, value: serde.encode('weir.internal.IdentityLink', { a, b, source: work.source, at: work.headers.acceptedAt }) });
        linkNames.push(link);
      }
    }
    const [consentOffsets, linkOffsets] = await Promise.all([appender.append(topics.consentChanges, consentRecords), appender.append(topics.identity, linkRecords)]);
    if (links.size > maxLinks) links.clear();
    linkNames.forEach((name, i) => links.set(name, [linkRecords[i]!.partition, linkOffsets[i]!]));
    const consent = new Map<Work, Map<number, number>>();
    consentOwners.forEach((work, i) => {
      let last = consent.get(work);
      if (last === undefined) consent.set(work, last = new Map());
      reach(last, consentRecords[i]!.partition, consentOffsets[i]!);
    });
    const identity = new Map<Work, Map<number, number>>();
    for (const work of works) {
      if (work.result.kind !== 'ok' || work.result.links.length === 0) continue;
      const last = new Map<number, number>();
      for (const link of work.result.links) reach(last, ...links.get(link)!);
      identity.set(work, last);
    }
    return { consent, identity };
  }

  function deadLetter(work: Work, reasons: readonly Reason[], release: string): OutRecord {
    const { record, headers } = work;
    const key = Buffer.from(headers.eventId);
    const value = serde.encode('weir.internal.DeadLetter', {
      id: `dlq_${createHash('sha256').update(`normalizer\u0000${work.topic}\u0000${work.partition}\u0000${record.offset}`).digest('hex').slice(0, 32)}`,
      eventId: headers.eventId, stage: 'normalizer', reasons: reasons.map((r) => ({ code: r.code, message: r.message, file: r.file ?? null, line: r.line ?? null, field: r.field ?? null, path: r.path ?? null })),
      source: work.source, destination: null, operation: null, attempts: 0, release, topic: work.topic, partition: work.partition, offset: record.offset,
      key: record.key, value: record.value, headers: record.headers.map(([name, v]) => ({ name, value: v })), effect: 'none', acceptedAt: headers.acceptedAt, at: ports.now(),
    });
    return { partition: appender.partitionFor(topics.dlq, key), key, value, headers: [[H.event, key], [H.traceparent, Buffer.from(headers.traceparent)]] };
  }

  function outcome(work: Work, state: string, reason: string, detail: string | null, release: string): OutRecord {
    const key = Buffer.from(work.headers.eventId);
    const value = serde.encode('weir.internal.Outcome', { eventId: work.headers.eventId, outputId: null, destination: null, operation: null, key: null, state, reason, detail, stage: 'normalizer', release, rule: null, purpose: null, consent: [], attempts: 0, status: null, attempt: null, acceptedAt: work.headers.acceptedAt, at: ports.now() });
    return { partition: appender.partitionFor(topics.outcome, key), key, value, headers: [[H.traceparent, Buffer.from(work.headers.traceparent)], ...(work.headers.replay ?? [])] };
  }

  return async function write(works: readonly Work[], release: string): Promise<void> {
    const { consent, identity } = await first(works, release);
    failpoint('normalizer.dependencies-written');
    const canonical: OutRecord[] = [];
    const letters: OutRecord[] = [];
    const outcomes: OutRecord[] = [];
    for (const work of works) {
      const { result } = work;
      if (result.kind === 'ok') {
        const base = commonHeaders(work, release, result.mapping);
        const after = consent.get(work);
        const afterLinks = identity.get(work);
        if (after !== undefined) base.push([H.afterConsent, positions(after)]);
        if (afterLinks !== undefined) base.push([H.afterIdentity, positions(afterLinks)]);
        for (const output of result.outputs) {
          const key = Buffer.from(output.subject);
          canonical.push({ partition: appender.partitionFor(topics.canonical, key), key, value: output.value, headers: outputHeaders(base, output) });
        }
      } else if (result.kind === 'dropped') outcomes.push(outcome(work, 'dropped', result.reason, null, release));
      else if (result.kind === 'conflict') {
        letters.push(deadLetter(work, [{ code: 'event-conflict', message: `event ${work.headers.eventId} arrived before with another body (hash ${result.first}, now ${work.headers.hash})` }], release));
        outcomes.push(outcome(work, 'quarantined', 'event-conflict', null, release));
      } else {
        letters.push(deadLetter(work, result.reasons, release));
        outcomes.push(outcome(work, 'dead-lettered', result.reasons[0]!.code, result.reasons[0]!.message, release));
      }
    }
    if (letters.length > 0) {
      await appender.append(topics.dlq, letters);
      failpoint('normalizer.dlq-written');
    }
    await Promise.all([appender.append(topics.canonical, canonical), appender.append(topics.outcome, outcomes)]);
  };
}
export type Writer = ReturnType<typeof createWriter>;
