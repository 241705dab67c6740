import { expect, test } from 'vitest';
import { compileCel } from './cel.ts';

const context = { file: 'p.yaml', line: 7, variables: { record: 'map', now: 'int' }, result: 'bool' as const };

test.each([
  ['an unknown variable', 'nope == 1', /Unknown variable/],
  ['a type error', 'now + "a" == "b"', /no such overload/],
  ['a wrong result', 'now + 1', /gives int, expected bool/],
  ['a regex that backtracks', 'record.x.matches("(a+)+$")', /use re/],
  ['a bad pattern', 're(record.x, "(a")', /bad pattern/],
  ['a pattern from the payload', 're("a", record.x)', /written out/],
  ['an endless expression', Array(400).fill('now > 1').join(' && '), /longer|nodes|AST/i],
  ['nested loops', '[1].all(a, [1].all(b, [1].all(c, a == b && b == c)))', /loops/],
  ['a loop over a second list of the payload for each element of the first', 'record.a.all(x, record.b.exists(y, x == y))', /a loop in a loop/],
  ['a list of the payload looked through for each element of another', 'record.a.all(x, x in record.b)', /in a loop, in and functions/],
  ['a text of the payload gone through for each element', 'record.a.exists(x, size(record.b) == 3)', /in a loop, in and functions/],
  ['the same by a method', 'record.a.exists(x, x.n == 1 && record.b.lowerAscii() == "z")', /in a loop, in and functions/],
  ['a search in a text of the payload for each element', 'record.a.exists(x, record.b.c.contains(x))', /in a loop, in and functions/],
  ['broken syntax', 'record. ==', /CEL/],
])('%s is refused at compile with file and line', (_name, source, message) => {
  const compiled = compileCel(source, context);
  expect('problems' in compiled && compiled.problems[0]).toMatchObject({ file: 'p.yaml', line: 7, message: expect.stringMatching(message) });
});

test('it evaluates on objects without prototype, and an error is a value', () => {
  const compiled = compileCel('record.a == 1 && now > 3 && re(record.b, "^x+$")', context);
  if (!('cel' in compiled)) throw new Error(JSON.stringify(compiled.problems));
  const record = Object.assign(Object.create(null), { a: 1, b: 'xxx' });
  expect(compiled.cel.evaluate({ record, now: 5n })).toEqual({ ok: true, value: true });
  expect(compiled.cel.evaluate({ record: Object.create(null), now: 5n })).toMatchObject({ ok: false });
});

test.each([['[size(record.a), 2]', '[1,2]'], ['{"n": [3, 4]}', '{"n":[3,4]}'], ['[record.a]', '[["x"]]']])('ints are numbers wherever they stand, for a BigInt cannot be written as text: %s', (source, text) => {
  const compiled = compileCel(source, { ...context, result: 'any' });
  if (!('cel' in compiled)) throw new Error(JSON.stringify(compiled.problems));
  const result = compiled.cel.evaluate({ record: { a: ['x'] }, now: 0n });
  expect(result.ok && JSON.stringify(result.value)).toBe(text);
});

test('a loop over a part of the element, or over a written list, may stand in a loop', () => {
  for (const source of ['record.a.map(x, record.b + record.c) == record.d', 'record.a.all(x, bytes(record.b) == x)', 'record.a.exists(x, now > 1 && now < now + 1 && x == 1)', 'record.a.exists(x, x.b in ["a", "b"] && size(x.c) < 3 && x.d.lowerAscii() == record.e)', 'size(record.a) > 3 && record.a.exists(x, "k" in x)', 'record.a.all(x, x.b.exists(y, y == 1))', 'record.a.exists(x, ["a", "b"].exists(y, x == y))', 'record.a.filter(x, x == 1).exists(y, y == 1)']) expect(compileCel(source, context)).toHaveProperty('cel');
});

test('a subject made to blow up a backtracking engine takes no time', () => {
  const compiled = compileCel('re(record.x, "^(a+)+$")', context);
  if (!('cel' in compiled)) throw new Error('did not compile');
  expect(compiled.cel.evaluate({ record: { x: `${'a'.repeat(50_000)}!` }, now: 0n })).toEqual({ ok: true, value: false });
});

test('the host cannot be reached', () => {
  for (const source of ['record.constructor == record', 'record.__proto__ == record']) {
    const compiled = compileCel(source, context);
    if ('cel' in compiled) expect(compiled.cel.evaluate({ record: { a: 1 }, now: 0n }).ok).toBe(false);
  }
});
