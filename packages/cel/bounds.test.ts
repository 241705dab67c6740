import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { compileCel, type CompiledCel } from './cel.ts';
import { maxSteps } from './meter.ts';

const context = { file: 'p.yaml', line: 7, variables: { item: 'dyn' }, result: 'any' as const };

/** Work on the data that was seen: reads of lists and tables, and characters of texts that functions went over. */
let work = 0;
/** Read as something that tells of each look at it and what is below. */
function watched<T>(value: T): T {
  if (typeof value !== 'object' || value === null) return value;
  const inner = (Array.isArray(value) ? value.map(watched) : Object.fromEntries(Object.entries(value).map(([key, child]) => [key, watched(child)]))) as object;
  return new Proxy(inner, {
    get: (target, key) => (work++, Reflect.get(target, key) as unknown),
    getOwnPropertyDescriptor: (target, key) => (work++, Reflect.getOwnPropertyDescriptor(target, key)),
    ownKeys(target) {
      const keys = Reflect.ownKeys(target);
      work += keys.length;
      return keys;
    },
  }) as T;
}

const methods = ['includes', 'indexOf', 'lastIndexOf', 'split', 'toLowerCase', 'toUpperCase', 'trim'] as const;
const originals = methods.map((name) => String.prototype[name] as (...args: unknown[]) => unknown);
beforeAll(() => methods.forEach((name, i) => {
  Reflect.defineProperty(String.prototype, name, { configurable: true, writable: true, value(this: string, ...args: unknown[]) {
    // Where the text that is looked for is long, each place may take all of it.
    work += this.length * (typeof args[0] === 'string' && args[0].length > 256 ? args[0].length : 1);
    return originals[i]!.apply(this, args);
  } });
}));
afterAll(() => methods.forEach((name, i) => { Reflect.defineProperty(String.prototype, name, { configurable: true, writable: true, value: originals[i] }); }));

const size = 10_000;
const plain = {
  list: Array.from({ length: size }, (_, i) => `v${i}`), ones: Array.from({ length: size }, () => 1), other: Array.from({ length: size }, (_, i) => `w${i}`),
  rows: Array.from({ length: size / 4 }, (_, i) => ({ id: `r${i}`, n: i, tags: ['a', 'b'], m: { k: 'v' } })), map: Object.fromEntries(Array.from({ length: size }, (_, i) => [`k${i}`, `v${i}`])),
  text: 'a'.repeat(10 * size), needle: `${'a'.repeat(size)}b${'a'.repeat(size)}`, digits: '1'.repeat(size), word: 'word',
};
const item = watched(plain);
/** Reads and characters of a step are at most about one; beside the steps stands what nodes outside of loops go over. */
const bound = 2 * maxSteps;

function compiled(source: string): CompiledCel | undefined {
  const found = compileCel(source, context);
  return 'cel' in found ? found.cel : undefined;
}
function workOf(cel: CompiledCel): number {
  work = 0;
  cel.evaluate({ item });
  return work;
}

test.each([
  'item.list.all(x, item.map == x)',
  'item.list.all(x, item.map != x || item.other == x)',
  'item.list.all(x, !item.map)',
  'item.list.all(x, item.map)',
  'item.list.exists(x, item.map && x == "a")',
  'item.list.all(x, item.word[item.list] == x)',
  'item.list.all(x, {item.other: 1} == {"a": 1})',
  'item.list.map(x, item.map).all(y, "k" in y)',
  'item.list.map(x, item.text).exists(y, y.contains("z"))',
  'item.list.map(x, item.text + x).exists(y, y.contains("z"))',
  'item.list.map(x, item.other + [x])',
  'item.list.filter(x, type(item.map) == string)',
  'item.list.map(x, string(item.text)).map(y, y.upperAscii())',
  'item.list.map(x, dyn(item.text)).map(y, bytes(y))',
  'item.rows.all(x, x.tags.all(y, x == y || item.rows == x))',
  'item.ones.all(x, x.b == 1)',
  'item.ones.all(x, x.b == 1 || x.c == 1 || x.d == 1)',
  'cel.bind(a, item.list + item.list, cel.bind(b, a + a, cel.bind(c, b + b, cel.bind(d, c + c, cel.bind(e, d + d, cel.bind(f, e + e, f + f))))))',
  'cel.bind(a, [item.list, item.list], cel.bind(b, [a, a, a, a], cel.bind(c, [b, b, b, b], cel.bind(d, [c, c, c, c], d == [[[[item.list]]]]))))',
  'item.text.contains(item.needle)',
  'item.text.indexOf(item.needle)',
  'item.text.lastIndexOf(item.needle)',
  'item.text.split(item.needle)',
  'item.list.join(item.text)',
  'item.text.split("").join(item.needle)',
  'duration(item.digits)',
  '[item.text, item.text, item.text].map(x, x.split("")).map(y, y + y + y + y)',
])('%s ends within the steps that an evaluation has', (source) => {
  const cel = compiled(source);
  if (cel === undefined) return;
  expect(workOf(cel)).toBeLessThan(bound);
}, 20_000);

test('a pattern with a large program is refused before any data comes: for each character all of it may be looked at', () => {
  expect(compileCel('re(item.text, "[a-z]{1,1000}@corp")', context)).toMatchObject({ problems: [{ file: 'p.yaml', line: 7, message: expect.stringMatching(/bad pattern: \d+ instructions, at most 700/) }] });
  for (const pattern of ['^[^@]{1,64}@[^@]{1,255}$', '^[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+[.][a-zA-Z]{2,}$', '(?i)@(example|test)[.]invalid$']) expect(compiled(`re(item.text, "${pattern}")`)).toBeDefined();
});

test('a long text takes more steps of a pattern with a larger program', () => {
  expect(compiled('re(item.text, "[a-z]{1,300}@corp")')!.evaluate({ item: plain })).toMatchObject({ ok: false, message: expect.stringMatching(/too many steps/) });
  expect(compiled('re(item.text, "[a-z]+@corp")')!.evaluate({ item: plain })).toEqual({ ok: true, value: false });
  expect(compiled('re(item.word, "^[^@]{1,64}@[^@]{1,255}$")')!.evaluate({ item: plain })).toEqual({ ok: true, value: false });
});

const names = Object.keys(plain).map((name) => `item.${name}`);
const loops = ['all', 'exists', 'exists_one', 'map', 'filter'];
/** Expressions with the names that are there: mostly of a type that fails, which takes time as well. */
const { expression } = fc.letrec<{ expression: string }>((tie) => {
  const sub = tie('expression');
  const variable = fc.constantFrom('x', 'y', 'z');
  return {
    expression: fc.oneof({ maxDepth: 5, depthSize: 'small' },
      fc.constantFrom(...names, 'x', 'y', 'z', 'x.tags', 'x.m', '"a"', '1', '[1, 2]'),
      fc.tuple(fc.constantFrom('item.list', 'item.ones', 'item.rows', 'item.map', 'x', 'y', 'x.tags', '["a", "b", "c"]', '[item.text, item.list]'), fc.constantFrom(...loops), variable, sub).map(([list, loop, name, body]) => `${list}.${loop}(${name}, ${body})`),
      fc.tuple(sub, fc.constantFrom(...loops), variable, sub).map(([list, loop, name, body]) => `(${list}).${loop}(${name}, ${body})`),
      fc.tuple(variable, sub, sub).map(([name, value, body]) => `cel.bind(${name}, ${value}, ${body})`),
      fc.tuple(sub, fc.constantFrom('==', '!=', '<', '+', 'in', '&&', '||'), sub).map(([a, op, b]) => `(${a} ${op} ${b})`),
      fc.tuple(fc.constantFrom('size', 'string', 'bytes', 'dyn', 'type', 'double', 'int', 'duration', 'bool'), sub).map(([f, a]) => `${f}(${a})`),
      fc.tuple(sub, fc.constantFrom('contains', 'indexOf', 'lastIndexOf', 'split', 'join', 'startsWith'), sub).map(([a, f, b]) => `(${a}).${f}(${b})`),
      fc.tuple(sub, fc.constantFrom('lowerAscii', 'upperAscii', 'trim', 'size', 'hex', 'join')).map(([a, f]) => `(${a}).${f}()`),
      fc.tuple(sub, sub).map(([a, b]) => `(${a})[${b}]`),
      fc.tuple(sub, sub, sub).map(([a, b, c]) => `(${a} ? ${b} : ${c})`),
      fc.array(sub, { maxLength: 4 }).map((list) => `[${list.join(', ')}]`),
      fc.tuple(sub, sub).map(([a, b]) => `{${a}: ${b}}`)),
  };
});

test('whatever an expression does with large data, it ends within its steps', () => {
  let ran = 0;
  // A name has to stand in a loop or a bind that gives it.
  const whole = expression.map((body) => `cel.bind(x, item.rows, cel.bind(y, item.text, cel.bind(z, item.list, ${body})))`);
  fc.assert(fc.property(fc.oneof(whole, expression.map((body) => `item.list.map(x, item.rows.exists(y, cel.bind(z, item.text, ${body})))`), expression.map((body) => `item.rows.map(x, cel.bind(y, item.text, cel.bind(z, item.list, ${body})))`)), (source) => {
    const cel = compiled(source);
    if (cel === undefined) return;
    ran++;
    expect(workOf(cel), source).toBeLessThan(bound);
  }), { numRuns: 2000, interruptAfterTimeLimit: 4_000, markInterruptAsFailure: false });
  expect(ran).toBeGreaterThan(3);
}, 60_000);
