import { expect, test } from 'vitest';
import { WorkspaceError } from '@weir/errors';
import { parseYaml } from './parse.ts';

const parse = (content: string) => parseYaml({ path: 'x.yaml', content });

test.each([
  ['a duplicate key', 'a: 1\na: 2', 2],
  ['a reserved key', 'a: 1\nb:\n  __proto__: 2', 3],
  ['an alias', 'a: &x 1\nb: *x', 2],
  ['a tag', 'a: !!js/function "x"', 1],
  ['broken YAML', 'a: [1, 2\nb: 3', 2],
  ['a number that is none', 'a: .inf', 1],
])('%s is refused with its line', (_name, content, line) => {
  try {
    parse(content);
    expect.unreachable('it was accepted');
  } catch (error) {
    expect(error).toBeInstanceOf(WorkspaceError);
    expect((error as WorkspaceError).problems[0]).toMatchObject({ file: 'x.yaml', line });
  }
});

test('values keep their lines and have no prototype', () => {
  const { value, lineOf } = parse('a:\n  - b: 1\n    c: text\nd: null');
  expect(value).toEqual({ a: [{ b: 1, c: 'text' }], d: null });
  expect(Object.getPrototypeOf(value)).toBeNull();
  expect(lineOf(['a', 0, 'c'])).toBe(3);
  expect(lineOf(['a', 0, 'missing'])).toBe(2);
});

test('a deep or huge file ends in a problem, not in a stack overflow', () => {
  expect(() => parse('['.repeat(5000))).toThrow(WorkspaceError);
  expect(() => parse(`a: "${'x'.repeat(300_000)}"`)).toThrow(/larger/);
  let problems: readonly unknown[] = [];
  try {
    parse(`- [${'x,'.repeat(100_000)}]`);
  } catch (error) {
    problems = (error as WorkspaceError).problems;
  }
  expect([problems.length > 0, problems.length <= 100]).toEqual([true, true]);
});
