/** Set-up of a test file: what control and ingest answer while it runs is as they declare it. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'weir-answers-'));
const file = join(dir, 'problems');
process.env['WEIR_TEST_ANSWERS'] = file;
process.env['NODE_OPTIONS'] = [process.env['NODE_OPTIONS'] ?? '', `--import=${join(import.meta.dirname, 'answers-preload.mjs')}`].join(' ').trim();

afterAll(() => {
  const problems = existsSync(file) ? [...new Set(readFileSync(file, 'utf8').trim().split('\n'))] : [];
  rmSync(dir, { recursive: true });
  if (problems.length > 0) throw new Error(`answers that are not as their route declares them:\n${problems.join('\n')}`);
});
