import { parseJson, type JsonObject } from '@weir/adapter';
import { RecordBody, type LogRecord, type Serde, type Sink } from '@weir/log';
import { consentRecord, type Around, type MayGive } from '@weir/mapping';
import { outputsOf, rawHeaders, saysNo, type Encodable, type Encoded, type Release, type SourceConfig } from '@weir/release';
import type { Turns } from '@weir/service';
import type { AheadPart } from './ahead.ts';
import type { NormalizerMetrics } from './metrics.ts';
import type { Sealing } from './sealing.ts';
import type { First } from './seen.ts';
import { isConflict, type Work } from './writer.ts';

/** Whether an item of a source may say something of consent, by the conditions of its mapping: false is sure. */
function createMaySay(): (source: string, config: SourceConfig, plain: LogRecord) => boolean {
  /** By the release's own object. */
  const known = new WeakMap<SourceConfig, MayGive | 'never' | 'always'>();
  return (source, config, plain) => {
    let may = known.get(config);
    if (may === undefined) known.set(config, may = config.mapping.records.has(consentRecord) ? config.mapping.mayGive(consentRecord) ?? 'always' : 'never');
    if (may === 'always' || may === 'never') return may === 'always';
    const { depth } = config.limits;
    const around = (): Around => {
      const { envelope, eventId, acceptedAt } = rawHeaders(plain);
      return { envelope: envelope === undefined ? undefined : parseJson(envelope, depth) as JsonObject, meta: { eventId, source, acceptedAt } };
    };
    if (plain instanceof RecordBody && plain.valueLength >= 0) return may(plain.bytes, plain.valueFrom, plain.valueFrom + plain.valueLength, depth, around);
    return plain.value !== null && may(plain.value, 0, plain.value.length, depth, around);
  };
}

/** What of a result closes, as a result of its own; undefined = nothing. @param sink where its outputs are, not sealed yet */
function closingOf(serde: Pick<Serde, 'decode'>, result: Encodable, sink: Sink): Encodable | undefined {
  if (result.kind === 'dead') return (result.closing ?? []).length > 0 ? result : undefined;
  if (result.kind !== 'ok') return undefined;
  const isNo = ({ recordType, from, to }: Encoded): boolean => recordType === consentRecord && saysNo({ recordType, record: serde.decode(sink.bytes.subarray(from, to)).value });
  const outputs = result.outputs.filter(isNo);
  return outputs.length > 0 ? { ...result, outputs } : undefined;
}

/** Of several works that say no of the same by the same identifiers the last: each is closed by it, and by its turn. @param sink where their outputs are, not sealed yet */
function keepLast(serde: Pick<Serde, 'decode'>, works: readonly Work[], sink: Sink): Work[] {
  const said = new Set<string>();
  const isFirst = ({ person, from, to }: Encoded): boolean => {
    const { purpose, channel, topic, standing } = serde.decode(sink.bytes.subarray(from, to)).value;
    const what = JSON.stringify([person.text, purpose, channel, topic, standing]);
    return !said.has(what) && said.add(what).size > 0;
  };
  return works.toReversed().flatMap((work) => {
    const { result } = work;
    const outputs = outputsOf(result).filter(isFirst);
    if (outputs.length === 0) return [];
    return { ...work, result: result.kind === 'dead' ? { ...result, closing: outputs } : { ...result, outputs } as Encodable };
  }).reverse();
}

/** One partition whose backlog is looked at. */
export interface ClosingPart extends AheadPart {
  /** First bodies of event ids that were looked at ahead, and may say something of consent. */
  readonly lookedAt: Map<string, First>;
  /** What the stage has written, or writes, is before this offset. */
  begun: number;
}

export interface ClosingPorts<P extends ClosingPart> {
  readonly serde: Pick<Serde, 'decode'>;
  readonly sealing: Sealing;
  readonly turns: Turns;
  readonly metrics: Pick<NormalizerMetrics, 'lookedAhead' | 'closedAhead'>;
  readonly releases: { current(): Release };
  /** Bytes of records that are written at once. */
  readonly sliceBytes: number;
  sourceOf(topic: string): string;
  classify(source: string, part: P, record: LogRecord, known: Map<string, First>, expiring: number, release: Release, sink: Sink): Work;
  expiringBefore(topic: string): number;
  write(works: readonly Work[], sink: Sink, release: string): Promise<void>;
}

const firstSink = 64 * 1024;
/** Records between two looks at the clock. */
const clockEvery = 16;
const maxLookedAt = 50_000;

/** What closes of records that wait for their turn (ahead.ts). Another body under a known event id has to wait: whether it is older is not known before. */
export function createClosing<P extends ClosingPart>({ serde, sealing, turns, metrics, releases, sliceBytes, sourceOf, classify, expiringBefore, write }: ClosingPorts<P>) {
  const maySay = createMaySay();
  return async (part: P, records: readonly LogRecord[], done: number): Promise<void> => {
    const source = sourceOf(part.topic);
    const release = releases.current();
    const config = release.sources.get(source);
    if (config === undefined) return;
    const { lookedAt } = part;
    const expiring = expiringBefore(part.topic);
    await sealing.prepare(records, part.gone);
    const sink = { bytes: Buffer.allocUnsafe(firstSink), at: 0 };
    let works: Work[] = [];

    async function close(): Promise<void> {
      const closing = keepLast(serde, works, sink);
      await sealing.seal(closing, sink);
      // In the tick of the append: what the stage writes is decided there.
      const waiting = closing.filter(({ record }) => record.offset >= part.begun);
      if (waiting.length > 0 && !part.gone()) {
        await write(waiting, sink, release.hash);
        metrics.closedAhead.inc({ source }, waiting.length);
      }
      works = [];
      sink.at = 0;
    }

    await turns.next();
    for (const [i, record] of records.entries()) {
      if (i % clockEvery === clockEvery - 1 && turns.over()) await turns.next();
      const plain = sealing.open(record);
      if (plain === undefined || plain === 'changed' || !maySay(source, config, plain)) continue;
      const { at } = sink;
      const work = classify(source, part, record, lookedAt, expiring, release, sink);
      const result = isConflict(work.result) || lookedAt.get(work.headers.eventId)?.offset !== record.offset ? undefined : closingOf(serde, work.result, sink);
      if (result === undefined) sink.at = at;
      else works.push({ ...work, result });
      if (sink.at >= sliceBytes) await close();
    }
    if (works.length > 0) await close();
    for (const [eventId, { offset }] of lookedAt) {
      if (offset >= done && lookedAt.size <= maxLookedAt) break;
      lookedAt.delete(eventId);
    }
    metrics.lookedAhead.inc({ source }, records.length);
  };
}
