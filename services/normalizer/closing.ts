import { parseJson, type JsonObject } from '@weir/adapter';
import { RecordBody, type LogRecord, type Serde, type Sink } from '@weir/log';
import { consentRecord, type MayGive } from '@weir/mapping';
import { H } from '@weir/pipeline';
import { saysNo, type Encodable, type Encoded, type SourceConfig } from '@weir/release';

/** Whether an item of a source may say something of consent, by the conditions of its mapping: false is sure. */
export function createMaySay(): (config: SourceConfig, plain: LogRecord) => boolean {
  /** By the release's own object. */
  const known = new WeakMap<SourceConfig, MayGive | 'never' | 'always'>();
  return (config, plain) => {
    let may = known.get(config);
    if (may === undefined) known.set(config, may = config.mapping.records.has(consentRecord) ? config.mapping.mayGive(consentRecord) ?? 'always' : 'never');
    if (may === 'always' || may === 'never') return may === 'always';
    const { depth } = config.limits;
    const envelope = (): JsonObject | undefined => {
      const bytes = plain.headers.find(([name]) => name === H.envelope)?.[1];
      return bytes === undefined ? undefined : parseJson(bytes, depth) as JsonObject;
    };
    if (plain instanceof RecordBody && plain.valueLength >= 0) return may(plain.bytes, plain.valueFrom, plain.valueFrom + plain.valueLength, depth, envelope);
    return plain.value !== null && may(plain.value, 0, plain.value.length, depth, envelope);
  };
}

/** What of a result closes, as a result of its own; undefined = nothing. @param sink where its outputs are, not sealed yet */
export function closingOf(serde: Pick<Serde, 'decode'>, result: Encodable, sink: Sink): Encodable | undefined {
  if (result.kind === 'dead') return (result.closing ?? []).length > 0 ? result : undefined;
  if (result.kind !== 'ok') return undefined;
  const isNo = ({ recordType, from, to }: Encoded): boolean => recordType === consentRecord && saysNo({ recordType, record: serde.decode(sink.bytes.subarray(from, to)).value });
  const outputs = result.outputs.filter(isNo);
  return outputs.length > 0 ? { ...result, outputs } : undefined;
}
