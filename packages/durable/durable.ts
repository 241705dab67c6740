import { closeSync, fsyncSync, openSync, renameSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';

/** On the disk when this returns: a file's bytes, or of a folder the names in it. */
export function sync(path: string): void {
  const handle = openSync(path, 'r');
  try {
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
}

/**
 * A file with these bytes under this name, in one step: after a crash at any moment, of the machine too, the name has all
 * of the old bytes or all of the new, and the new ones once this has returned. Throws what the disk says; the old file is
 * as it was then.
 */
export function replaceFile(path: string, bytes: string | Uint8Array, mode: number): void {
  const part = `${path}.${process.pid}.part`;
  const handle = openSync(part, 'w', mode);
  try {
    writeFileSync(handle, bytes);
    fsyncSync(handle);
  } finally {
    closeSync(handle);
  }
  renameSync(part, path);
  sync(dirname(path));
}
