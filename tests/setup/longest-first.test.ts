import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { long, longestFirst } from './longest-first.ts';

test('long files begin their project, longest first; all the others keep their order', () => {
  const [broker, sim] = [{}, {}];
  const files = [['tests/a.test.ts', broker], [long[1]!, broker], ['tests/b.test.ts', broker], [long[0]!, broker], ['tests/c.test.ts', sim]].map(([name, project]) => ({ moduleId: `/w/${name as string}`, project: project as object }));
  expect(longestFirst(files).map(({ moduleId }) => moduleId.slice(3))).toEqual([long[0], long[1], 'tests/a.test.ts', 'tests/b.test.ts', 'tests/c.test.ts']);
  expect(longestFirst(files)).toHaveLength(files.length);
});

test('each of them is a file', () => {
  expect(long.filter((name) => !existsSync(resolve(import.meta.dirname, '../..', name)))).toEqual([]);
});
