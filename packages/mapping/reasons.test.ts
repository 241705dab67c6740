import { expect, test } from 'vitest';
import { compileContract, compileMapping } from './index.ts';
import { transforms } from './transforms.ts';

/** In every text and key of the data, and in no mapping. */
const marker = 'Zq7Marker';
const meta = { eventId: 'evt_1', source: 'shop', acceptedAt: 1_700_000_000_000 };
const file = (content: string) => ({ path: 'm.yaml', content });
const values = { text: `ada@${marker}.example\u0000`, number: 77_712.5, list: [marker, { a: marker }], table: { [marker]: marker }, strange: { constructor: { name: marker } } };
const item = { ...values, word: marker, rows: [{ id: marker }, { id: marker }] };

/** Options with which each transform compiles; the others take none. */
const options: Readonly<Record<string, string>> = { phone: '{ country: DE }', timestamp: 'iso', map: '{ a: b }', prefix: '"x"', tcf: '{ purposes: [2] }', gpp: '{ optOut: [SaleOptOut] }', join: '","' };
const expressions = ['item.table[item.word]', 'bool(item.text)', 'duration(item.text)', 'timestamp(item.text)', 'int(item.text)', 'item.text + 1', 'item.list.map(x, x.a)', 'item.text.contains(item.list)', 'item.strange.a', 'timestamp(0).getHours(item.text)', 'bytes(item.text).json()'];

/** Reasons that a mapping of one output gives for the item. */
function reasonsOf(output: string): string {
  const result = compileMapping(file(`mapping: x\noutputs:\n  a:\n${output}\n`)).apply(item as never, undefined, meta);
  return result.kind === 'failed' ? JSON.stringify(result.reasons) : '';
}

test('no reason of a mapping has a value of the item, whatever the transform or expression', () => {
  const said: string[] = [];
  for (const from of Object.keys(values)) {
    for (const name of Object.keys(transforms)) for (const pipe of [name, ...(options[name] === undefined ? [] : [`{ ${name}: ${options[name]} }`])]) {
      for (const field of ['plan', 'createdAt', 'balance']) {
        try {
          said.push(reasonsOf(`    record: Profile\n    fields: { ${field}: { from: ${from}, pipe: [${pipe}] } }`));
        } catch (error) {
          if ((error as { code?: unknown }).code !== 'workspace-invalid') throw error;
        }
      }
    }
    said.push(reasonsOf(`    record: Profile\n    fields: { attributes: { entries: { a: ${from} } }, createdAt: ${from} }`), reasonsOf(`    record: Profile\n    each: ${from}\n    objectKey: $item.id\n    fields: {}`), reasonsOf(`    record: ConsentChange\n    each: ${from}\n    objectKey: { all: [$item.id] }\n    fields: { purpose: { const: a }, state: { const: denied } }`));
  }
  for (const cel of expressions) said.push(reasonsOf(`    record: Profile\n    fields: { plan: { cel: '${cel}' } }`), reasonsOf(`    record: Profile\n    when: { cel: 'dyn(${cel}) == 1' }\n    fields: { userId: number }`));
  said.push(reasonsOf('    record: Order\n    each: rows\n    objectKey: $item.id\n    fields: { orderId: $item.id, status: { const: completed } }'));
  expect(said.filter((reasons) => reasons !== '').length).toBeGreaterThan(60);
  expect(said.filter((reasons) => reasons.includes(marker) || reasons.includes('77712'))).toEqual([]);
});

test('a reason says which field, and which part of the expression failed how', () => {
  expect(reasonsOf("    record: Profile\n    fields: { plan: { cel: 'item.word + item.table[item.word + \"x\"]' } }")).toContain('a.plan CEL: a field that it reads is not there: item.table[item.word + \\"x\\"]');
});

test('no breach of a contract has a value of the record', () => {
  const rules = ['minLength: 900', 'maxLength: 1', 'pattern: "^0$"', 'format: uuid', 'format: uri', 'format: email', 'format: hostname'].map((option) => `{ name: plan, logicalTypeOptions: { ${option} } }`);
  const metrics = [`{ name: plan, quality: [ { metric: invalidValues, mustBe: 0, arguments: { validValues: [a] } }, { metric: invalidValues, mustBe: 0, arguments: { pattern: "^0$" } } ] }`, '{ name: balance, logicalTypeOptions: { maximum: 1 } }'];
  const quality = expressions.map((cel) => `      - { type: custom, engine: cel, implementation: 'dyn(${cel.replaceAll('item', 'record')}) == 1' }`);
  const contract = compileContract(file(`apiVersion: v3.1.0\nkind: DataContract\nid: c\nversion: 1.0.0\nstatus: active\nschema:\n  - name: Profile\n    properties:\n${[...rules, ...metrics].map((rule) => `      - ${rule}`).join('\n')}\n    quality:\n${quality.join('\n')}\n`));
  const reasons = contract.check('weir.canonical.Profile', { ...item, plan: marker, balance: 77_712 });
  expect(reasons.length).toBeGreaterThan(15);
  expect(JSON.stringify(reasons)).not.toMatch(/Zq7Marker|77712/);
});

test('what CEL gives is no larger than a record: a list can hold one long text a thousand times', () => {
  const mapping = compileMapping(file("mapping: x\noutputs:\n  a: { record: Profile, fields: { userId: id, plan: { cel: '[item.text, item.text, item.text]', pipe: json } } }\n"));
  expect(mapping.apply({ id: 'u', text: 'x'.repeat(400_000) }, undefined, meta)).toMatchObject({ kind: 'failed', reasons: [{ field: 'plan', message: 'a.plan CEL: gives more than 1000000 characters' }] });
  expect(mapping.apply({ id: 'u', text: 'x'.repeat(300_000) }, undefined, meta).kind).toBe('mapped');
});
