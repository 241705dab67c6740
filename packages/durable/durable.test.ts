import type * as FileSystem from 'node:fs';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';

const calls: string[] = [];
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof FileSystem>();
  const names = new Map<number, string>();
  return { ...fs,
    openSync: (path: string, ...rest: [string, number]) => {
      const handle = fs.openSync(path, ...rest);
      names.set(handle, path);
      return handle;
    },
    fsyncSync: (handle: number) => {
      calls.push(`sync ${names.get(handle)}`);
      fs.fsyncSync(handle);
    },
    renameSync: (from: string, to: string) => {
      calls.push(`rename ${from} ${to}`);
      fs.renameSync(from, to);
    } };
});
const { replaceFile } = await import('./durable.ts');
const dir = mkdtempSync(join(tmpdir(), 'weir-durable-'));
afterAll(() => rmSync(dir, { recursive: true }));

test('the bytes are on the disk before the name points to them, and the name before it returns', () => {
  const file = join(dir, 'a');
  replaceFile(file, 'one', 0o600);
  calls.length = 0;
  replaceFile(file, 'two', 0o600);
  const part = `${file}.${process.pid}.part`;
  expect(calls).toEqual([`sync ${part}`, `rename ${part} ${file}`, `sync ${dir}`]);
  expect([readFileSync(file, 'utf8'), statSync(file).mode & 0o777, readdirSync(dir)]).toEqual(['two', 0o600, ['a']]);
});

test('what cannot be replaced is told, and nothing has changed', () => {
  mkdirSync(join(dir, 'folder', 'in'), { recursive: true });
  expect(() => replaceFile(join(dir, 'folder'), 'x', 0o600)).toThrow(/EISDIR|ENOTEMPTY|EEXIST/);
  expect(readdirSync(join(dir, 'folder'))).toEqual(['in']);
});
