import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const patches = readdirSync(import.meta.dirname).filter((f) => f.endsWith('.patch'));

// A planted bug whose place is gone plants nothing: the table of `npm run mutants` would go on telling that it is caught.
test.each(patches)('%s still applies to the code', (patch) => {
  const { status, stderr } = spawnSync('git', ['apply', '--check', '-C1', join(import.meta.dirname, patch)], { cwd: root, encoding: 'utf8' });
  expect(status, stderr).toBe(0);
});
