import { Environment } from '@marcbachmann/cel-js';
import { expect, test } from 'vitest';
import { compileCel } from './cel.ts';

/** Stands in every text, key and name of a constructor of the data; no expression has it. */
const marker = 'Zq7Marker';
const number = 7_771_234_567;
const item = {
  text: `ada@${marker}.example`, other: `x${marker}`, number, int: 7_771_234_567_891n, big: 9_223_372_036_854_775_807n, zero: 0n, bool: true, none: null,
  list: [`${marker}a`, `${marker}b`], numbers: [number, 1], map: { a: marker, [marker]: marker }, nested: [{ a: marker }], empty: [],
  strange: { constructor: { name: marker } }, texts: { constructor: marker },
};
const context = { file: 'p.yaml', line: 7, variables: { item: 'dyn', typed: 'map' }, result: 'any' as const };
/** Each kind of value that an operand may have. */
const operands = [...Object.keys(item).map((name) => `item.${name}`), 'item[item.text]', 'item.map[item.text]', 'item.list[item.int]', 'item.list[0]', 'typed.text', 'typed[item.text]', '"a"', '1', '1.5', 'bytes(item.text)', 'timestamp(0)', 'duration("1s")', '[item.text]', '{item.text: 1}'];

/** All that a library gives to call, as it says itself. */
function calls(): string[] {
  const { functions } = new Environment({}).getDefinitions();
  return functions.flatMap(({ name, receiverType, params }) => {
    const args = (operand: string): string => params.map(() => operand).join(', ');
    const receivers = ['item.text', 'item.list', 'item.map', 'item.strange', 'item.number', 'bytes(item.text)', 'timestamp(0)', 'duration("1s")', 'item[item.text]'];
    return operands.flatMap((operand) => (receiverType === null ? [`${name}(${args(operand)})`] : params.length === 0 ? [`${operand}.${name}()`] : receivers.map((receiver) => `${receiver}.${name}(${args(operand)})`)));
  });
}

const binary = ['==', '!=', '<', '<=', '>', '>=', '+', '-', '*', '/', '%', 'in', '&&', '||'].flatMap((op) => operands.flatMap((left, i) => operands.filter((_right, j) => (i + j) % 2 === 0 || j > 16).map((right) => `${left} ${op} ${right}`)));
const others = operands.flatMap((a) => [`!${a}`, `-${a}`, `${a} ? 1 : 2`, `${a}.b`, `${a}["b"]`, `${a}[item.text]`, `has(${a}.b)`, `re(${a}, "^x$")`, ...['all', 'exists', 'exists_one', 'map', 'filter'].flatMap((loop) => [`${a}.${loop}(x, x.b == 1)`, `${a}.${loop}(x, x)`, `item.list.${loop}(x, ${a})`]), `${a}.map(x, x, x)`, `cel.bind(x, ${a}, x.b)`]);

test('what an evaluation says of its failure has no value of the data, whatever the function or operator', () => {
  const said = new Map<string, string>();
  let failed = 0;
  for (const source of new Set([...calls(), ...binary, ...others])) {
    const compiled = compileCel(source, context);
    if (!('cel' in compiled)) continue;
    const result = compiled.cel.evaluate({ item, typed: item });
    if (result.ok) continue;
    failed++;
    said.set(result.message.replace(/:.*$/, ''), source);
    if (result.message.includes(marker) || /7.?771/.test(result.message)) expect.fail(`${source} says ${result.message}`);
    expect(result.message.length).toBeLessThan(300);
  }
  expect(failed).toBeGreaterThan(1000);
  // A closed set, whose texts tell failures apart.
  expect(said.size).toBeGreaterThan(12);
  expect([...said.keys()].filter((text) => text.includes(`item`))).toEqual([]);
});
