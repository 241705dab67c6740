import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const patches = ['tests/mutants', 'tests/conformance/unguarded'].flatMap((folder) => readdirSync(join(root, folder)).filter((f) => f.endsWith('.patch')).map((f) => `${folder}/${f}`));

// A planted bug whose place is gone plants nothing: the tables of `npm run mutants` and of the conformance would go on telling that it is caught.
test.each(patches)('%s still applies to the code', (patch) => {
  const { status, stderr } = spawnSync('git', ['apply', '--check', '-C1', patch], { cwd: root, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
});
