import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { WorkspaceError } from '@weir/errors';
import type { ReleaseFile } from './types.ts';

const folders = ['sources', 'destinations', 'mappings', 'policies', 'contracts'];
const rootFiles = ['weir.yaml', 'purposes.yaml', 'regions.yaml'];
const filePattern = /^[a-z0-9][a-z0-9.-]{0,80}\.ya?ml$/;
const maxFiles = 500;
const maxFileBytes = 256 * 1024;

/**
 * Files of a workspace folder: weir.yaml, purposes.yaml, regions.yaml and the YAML of its five folders, each at most 256 KiB.
 * Links are not followed, neither of files nor of the folders. What looks as if it were read and is not (a folder in one of the
 * five, an ending in capitals) is refused: a policy that nobody reads forbids nothing.
 */
export function readWorkspace(dir: string): ReleaseFile[] {
  const files: ReleaseFile[] = [];
  const take = (path: string): void => {
    const found = lstatSync(join(dir, path));
    if (!found.isFile()) throw new WorkspaceError([{ file: path, line: 0, message: 'not a plain file', remedy: 'links and folders are not read' }]);
    if (found.size > maxFileBytes) throw new WorkspaceError([{ file: path, line: 0, message: `larger than ${maxFileBytes} bytes`, remedy: 'split it into several files' }]);
    files.push({ path, content: readFileSync(join(dir, path), 'utf8') });
  };
  let names: string[];
  try {
    names = readdirSync(dir);
  } catch (error) {
    throw new WorkspaceError([{ file: dir, line: 0, message: 'no workspace here', remedy: `give a folder with ${rootFiles.join(', ')} (${(error as NodeJS.ErrnoException).code ?? ''})` }]);
  }
  for (const name of rootFiles) if (names.includes(name)) take(name);
  for (const folder of folders) {
    if (!names.includes(folder)) continue;
    if (!lstatSync(join(dir, folder)).isDirectory()) throw new WorkspaceError([{ file: folder, line: 0, message: 'not a plain folder', remedy: 'links are not read' }]);
    for (const entry of readdirSync(join(dir, folder), { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))) {
      const { name } = entry;
      if ((entry.isDirectory() || (entry.isSymbolicLink() && !name.includes('.'))) && !name.startsWith('.')) throw new WorkspaceError([{ file: `${folder}/${name}`, line: 0, message: 'a folder, which is not read', remedy: `put its files into ${folder}/` }]);
      if (!/\.ya?ml$/i.test(name)) continue;
      if (!filePattern.test(name)) throw new WorkspaceError([{ file: `${folder}/${name}`, line: 0, message: 'a file name that is not allowed', remedy: 'use lower case, digits, - and .' }]);
      take(`${folder}/${name}`);
      if (files.length > maxFiles) throw new WorkspaceError([{ file: folder, line: 0, message: `more than ${maxFiles} files`, remedy: 'merge some' }]);
    }
  }
  return files;
}

/** Content hash: the same files give the same release, whatever their order and age. */
export function releaseHash(files: readonly ReleaseFile[]): string {
  const lines = files.map((f) => `${f.path}\u0000${createHash('sha256').update(f.content).digest('hex')}\n`).sort();
  return `rel_${createHash('sha256').update(lines.join('')).digest('hex').slice(0, 16)}`;
}
