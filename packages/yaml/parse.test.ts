import { expect, test } from 'vitest';
import { WorkspaceError } from '@weir/errors';
import { parseYaml } from './parse.ts';

const parse = (content: string) => parseYaml({ path: 'x.yaml', content });

test.each([
  ['a duplicate key', 'a: 1\na: 2', 2],
  ['a duplicate key in a list in a map', 'a:\n  - b: 1\n    c: 2\n    b: 3', 4],
  ['a duplicate key in a flow map', 'a: 1\nb: {x: 1,\n  x: 2}', 3],
  ['a key that is the same text when quoted', 'a:\n  1: x\n  "1": y', 3],
  ['a reserved key twice', '__proto__: 1\n__proto__: 2', 1],
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

/** Text of at most 256 KiB with as many entries as asked for. */
const entries = (count: number, [open, close]: readonly [string, string]): string => open + Array.from({ length: count }, (_, i) => i.toString(36)).join(',') + close;

test('60,000 keys of one map cost what as many items of a list cost, and count as nodes', () => {
  const ms = (content: string): number => {
    const started = performance.now();
    expect(() => parse(content)).toThrow(/too large/);
    return performance.now() - started;
  };
  const [list, map] = [entries(60_000, ['[', ']']), entries(60_000, ['{', '}'])];
  ms(list);
  const [ofList, ofMap] = [ms(list), ms(map)];
  // 1.8 * 10^9 comparisons are some hundred times the list.
  expect(ofMap / ofList).toBeLessThan(12);
});

test('places need memory as the file does, not as the paths of its values do', () => {
  const depth = 28;
  const content = `${Array.from({ length: depth }, (_, i) => `${' '.repeat(i)}${'k'.repeat(1000)}:\n`).join('')}${' '.repeat(depth)}[${'x,'.repeat(15_000)}]`;
  const before = process.memoryUsage().heapUsed;
  const { lineOf } = parse(content);
  // Every path as a text would be 420 MB.
  expect(process.memoryUsage().heapUsed - before).toBeLessThan(200e6);
  expect(lineOf([...Array.from({ length: depth }, () => 'k'.repeat(1000)), 14_999])).toBe(depth + 1);
});
