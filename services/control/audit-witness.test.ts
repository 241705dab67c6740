import type * as FileSystem from 'node:fs';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';

/** Full: the first bytes of what is written fit, no more. */
const disk = { full: false, appendOnly: false };
const refuse = (code: string): never => { throw Object.assign(new Error(`${code}: of a test`), { code }); };
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof FileSystem>();
  return { ...fs,
    appendFileSync: (file: number, text: string) => {
      if (!disk.full) return fs.appendFileSync(file, text);
      fs.appendFileSync(file, text.slice(0, 5));
      return refuse('ENOSPC');
    },
    ftruncateSync: (file: number, size: number) => (disk.appendOnly ? refuse('EPERM') : fs.ftruncateSync(file, size)) };
});
const { fileWitness } = await import('./audit-witness.ts');
let dir: string;
let path: string;
const logger = { warn: () => undefined };
const text = (): string => readFileSync(path, 'utf8');

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-witness-'));
  path = join(dir, 'checkpoints.jsonl');
  Object.assign(disk, { full: false, appendOnly: false });
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

test('a checkpoint that the disk had no room for is cut off again, and what the disk says is told', async () => {
  const witness = fileWitness(path, logger);
  await witness.publish('first');
  disk.full = true;
  await expect(witness.publish('second')).rejects.toMatchObject({ code: 'ENOSPC' });
  expect(text()).toBe('"first"\n');
  disk.full = false;
  await witness.publish('third');
  expect(text()).toBe('"first"\n"third"\n');
});

test('of a file that only grows the lines that a full disk cut off are passed over', async () => {
  const witness = fileWitness(path, logger);
  await witness.publish('first');
  Object.assign(disk, { full: true, appendOnly: true });
  for (const note of ['second', 'third']) await expect(witness.publish(note)).rejects.toMatchObject({ code: 'ENOSPC' });
  disk.full = false;
  await witness.publish('fourth');
  expect([text(), fileWitness(path, logger).kept()]).toEqual(['"first"\n"seco\n"thi\n"fourth"\n', ['first', 'fourth']]);
});

test.each([
  ['a torn one is cut off', '"first"\n"sec', '"first"\n', ['first']],
  ['a torn one alone is cut off', '"fir', '', []],
  ['bytes of a machine that went down are cut off', '"first"\n\0\0\0', '"first"\n', ['first']],
  ['a whole one without its line end stays', '"first"\n"second"', '"first"\n"second"', ['first', 'second']],
  ['what has its line end stays', '"first"\n"sec\n', '"first"\n"sec\n', ['first', '']],
])('what stands behind the last line end when the service starts: %s', async (_name, before, after, kept) => {
  writeFileSync(path, before);
  const witness = fileWitness(path, logger);
  expect([text(), witness.kept()]).toEqual([after, kept]);
  await witness.publish('third');
  expect(text().endsWith('"third"\n')).toBe(true);
  disk.appendOnly = true;
  writeFileSync(path, before);
  expect(fileWitness(path, logger).kept()).toEqual(kept);
});
