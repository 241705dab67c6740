import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/** A folder with the files of HEAD, the packages of this checkout and its binaries of the platform: to plant a bug in. */
export function makeCopy(): string {
  const copy = mkdtempSync(join(tmpdir(), 'weir-copy-'));
  execFileSync('sh', ['-c', `git archive HEAD | tar -x -C '${copy}' && cp -al node_modules '${copy}/node_modules'`], { cwd: root });
  execFileSync('git', ['init', '-q'], { cwd: copy });
  if (existsSync(join(root, '.cache'))) symlinkSync(join(root, '.cache'), join(copy, '.cache'));
  return copy;
}
