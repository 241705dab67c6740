import { parseJson } from '@weir/adapter';
import { findWeirError } from '@weir/errors';
import { RecordBody, type LogRecord, type Serde, type Sink } from '@weir/log';
import { consentRecord, type DirectMapping } from '@weir/mapping';
import { acceptedAs, createPersons, encodeAll, isRouted, maxIdentifiers, normalize, ofSecondBody, rawHeaders, setAside, tooLarge, type Encodable, type Encoded, type RawHeaders, type Release, type SourceConfig } from '@weir/release';
import type { Reason } from '@weir/pipeline';
import { isSealed } from '@weir/seal';

/** What is not usual with an item. */
export interface Special {
  /** Why it goes to the dead letters whatever its mapping makes of it; undefined = it does not. */
  readonly reasons?: readonly Reason[] | undefined;
  /** Another body came first under its event id. */
  readonly second: boolean;
}

/** Raw record + release → canonical records as bytes in the sink, or why not. */
export type Convert = (source: string, record: LogRecord, headers: RawHeaders, release: Release, sink: Sink, special?: Special) => Encodable;

/**
 * normalize, then encode; for plain items under a plain mapping both at once, straight from the bytes
 * (packages/mapping, direct), which gives the same and gives up on everything else.
 */
export function createConvert(serde: Pick<Serde, 'encodeTo' | 'idOf'>, keyed: (type: string, value: string) => string): Convert {
  const persons = createPersons(keyed, maxIdentifiers);
  /** By the release's own object: another release is another mapping. */
  const direct = new WeakMap<SourceConfig, DirectMapping | null>();

  function directOf(config: SourceConfig, release: Release): DirectMapping | null {
    let found = direct.get(config);
    if (found === undefined) {
      const rules = (recordType: string) => {
        const lists = (release.contracts.get(recordType) ?? []).map((contract) => contract.fieldRules(recordType));
        return lists.some((list) => list === undefined) ? undefined : lists.flatMap((list) => list!);
      };
      direct.set(config, found = config.mapping.direct({ rules, idOf: (name) => serde.idOf(name) }) ?? null);
    }
    return found;
  }

  /** Undefined: the general way says. */
  function straight(mapping: DirectMapping, config: SourceConfig, source: string, record: LogRecord, headers: RawHeaders, release: Release, sink: Sink): Encodable | undefined {
    const began = sink.at;
    const meta = { eventId: headers.eventId, source, acceptedAt: headers.acceptedAt };
    const { depth } = config.limits;
    const count = record instanceof RecordBody && record.valueLength >= 0 ? mapping.run(record.bytes, record.valueFrom, record.valueFrom + record.valueLength, depth, meta, sink) : record.value === null ? -1 : mapping.run(record.value, 0, record.value.length, depth, meta, sink);
    if (count < 0) return undefined;
    if (mapping.dropped !== undefined) return { kind: 'dropped', reason: mapping.dropped };
    const outputs: Encoded[] = [];
    for (let i = 0; i < count; i++) {
      const output = mapping.output(i);
      const person = persons(output.value, headers.eventId);
      // What is no case for the short way ends it: the general one says why.
      if (person === undefined || (output.recordType === consentRecord && (person.ids.length === 0 || !isRouted(output.value, release.policy)))) break;
      outputs.push({ recordType: output.recordType, outputId: output.outputId, outputName: output.name, person, from: output.from, to: output.to });
    }
    if (outputs.length < count || tooLarge(outputs).length > 0) {
      sink.at = began;
      return undefined;
    }
    return { kind: 'ok', mapping: config.mapping.name, outputs };
  }

  return (source, record, headers, release, sink, special) => {
    const general = () => normalize(source, record, plainHeaders(record, headers), release, keyed);
    const encoded = (result: ReturnType<typeof general>): Encodable => encodeAll(result, (name, value, to) => serde.encodeTo(name, value, to), sink);
    if (special !== undefined) {
      const result = special.second ? ofSecondBody(general(), headers.hash) : general();
      return encoded(special.reasons === undefined ? result : setAside(result, special.reasons));
    }
    const config = release.sources.get(source);
    if (config !== undefined && (headers.envelope === undefined || isSealed(headers.envelope) || isJson(headers.envelope, config.limits.depth))) {
      const mapping = directOf(config, release);
      const result = mapping === null ? undefined : straight(mapping, config, source, record, headers, release, sink);
      if (result !== undefined) return result;
    }
    return encoded(general());
  };
}

/** With the envelope opened, which the record does when it is asked for its headers. Throws avro-undecodable when it was changed. */
function plainHeaders(record: LogRecord, headers: RawHeaders): RawHeaders {
  return headers.envelope === undefined || !isSealed(headers.envelope) ? headers : acceptedAs(rawHeaders(record), headers.acceptedAt);
}

/** What surrounds the item is for mappings that need it; that it can be read holds for all. One that is sealed is what ingest wrote. */
function isJson(envelope: Buffer, depth: number): boolean {
  try {
    parseJson(envelope, depth);
    return true;
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return false;
  }
}
