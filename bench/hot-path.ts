/** `node bench/hot-path.ts [rounds] [direct]`: µs of CPU per record of each step of the normalizer, in one process without a broker: where the time goes, steadier than the whole. */
import { parseJson } from '@weir/adapter';
import { compileContract, compileMapping } from '@weir/mapping';
import { handOn, headerBytes, Packer, type LogRecord, type RecordBody } from '@weir/log';
import { H } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import { compileEncoder } from '../packages/log/encoder.ts';
import { decodeBatches, encodeBatch } from '../packages/log/records.ts';
import { contract, mapping, rawContact } from './contacts.ts';
import { createSteps } from './measure.ts';

const rounds = Number(process.argv[2] ?? 40);
/** Only what most items take. */
const onlyDirect = process.argv[3] === 'direct';
const size = 5000;
const raw = Array.from({ length: size }, (_, i) => rawContact(i, () => 0));
const bytes = encodeBatch(raw, 1_790_000_000_000);
const compiled = compileMapping({ path: 'm.yaml', content: mapping });
const checks = compileContract({ path: 'c.yaml', content: contract });
const write = compileEncoder(loadSchemas().get('weir.canonical.Profile'))!;
const direct = compiled.direct({ rules: (type) => checks.fieldRules(type), idOf: () => 1 })!;
const packer = new Packer();
const constants = Buffer.concat([headerBytes(H.release, 'rel_0123456789abcdef'), headerBytes(H.mapping, 'contacts')]);
const outputName = headerBytes(H.output, '').subarray(0, -1);
const sink = { bytes: Buffer.allocUnsafe(65536), at: 0 };
const H2: [string, Buffer][] = [[H.release, Buffer.from('rel_0123456789abcdef')], [H.mapping, Buffer.from('contacts')]];
const { step, clear, print } = createSteps();
function general(records: readonly LogRecord[]): void {
  const parsed = step('parse', () => records.map((r) => parseJson(r.value!, 32)));
  const mapped = step('map', () => parsed.map((item, i) => compiled.apply(item, undefined, { eventId: `evt_${String(i).padStart(32, '0')}`, source: 'contacts', acceptedAt: 1 })));
  step('check', () => mapped.forEach((m) => { if (m.kind !== 'mapped' || checks.check(m.outputs[0]!.recordType, m.outputs[0]!.record).length > 0) throw new Error('no'); }));
  const out = step('avro', () => mapped.map((m) => {
    sink.at = 5;
    write(sink, (m as Extract<typeof m, { kind: 'mapped' }>).outputs[0]!.record);
    return Buffer.from(sink.bytes.subarray(0, sink.at));
  }));
  step('batch', () => encodeBatch(records.map((r, i) => ({ partition: 0, key: r.key, value: out[i]!, headers: [...r.headers, ...H2] })), 1));
}
for (let round = 0; round < rounds * 2; round++) {
  if (round === rounds) clear();
  const { records } = step('decode', () => decodeBatches(bytes, 0));
  if (!onlyDirect) general(records);
  packer.reset();
  sink.at = 0;
  const packed = step('direct, packed', () => records.map((record) => {
    const r = record as RecordBody & typeof record;
    sink.at = 0;
    if (direct.run(r.bytes, r.valueFrom, r.valueFrom + r.valueLength, 32, { eventId: 'evt_0123456789abcdef0123456789abcdef', source: 'contacts', acceptedAt: 1 }, sink) !== 1) throw new Error('no');
    const output = direct.output(0);
    packer.begin();
    packer.key(r.bytes, r.keyFrom, r.keyFrom + r.keyLength);
    packer.value(sink.bytes, output.from, output.to);
    packer.headers(r.bytes, r.headersFrom + 1, r.to, 5);
    packer.headers(constants, 0, constants.length, 2);
    packer.header(outputName, output.outputId);
    return packer.end(0);
  }));
  step('batch of packed', () => encodeBatch(packed, 1));
  step('batch handed on', () => encodeBatch(records.map((r) => handOn(r, 0)), 1));
}
print(rounds * size);
