import { globSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { isolated } from './isolated.ts';

const root = resolve(import.meta.dirname, '../..');
const replaces = new RegExp(['vi', '\\.(?:do)?[mM]ock\\('].join(''));

test('what replaces a module is run by itself: the other tests of a worker would have got the replacement', () => {
  const files = globSync('{packages,services,adapters,cli,infra,scripts,schemas,tests}/**/*.test.ts', { cwd: root, exclude: (name) => name.includes('node_modules') });
  expect(files.length).toBeGreaterThan(200);
  expect(files.filter((file) => replaces.test(readFileSync(join(root, file), 'utf8'))).sort()).toEqual([...isolated].sort());
});
