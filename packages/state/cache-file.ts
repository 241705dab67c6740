/** Whether the file of a cache can be trusted, before it is opened. */
import { randomUUID } from 'node:crypto';
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';
import { sync } from '@weir/durable';

const magic = 'SQLite format 3\0';
const bootFile = '/proc/sys/kernel/random/boot_id';

export const fileOf = (path: string): string => join(path, 'cache.db');

/** Names this run of the machine: what a killed process wrote is there as long as it is the same. */
function bootId(): string {
  if (existsSync(bootFile)) return readFileSync(bootFile, 'latin1').trim();
  // To the nearest ten minutes: clocks are corrected.
  return `boot-${Math.round((Date.now() / 1000 - uptime()) / 600)}`;
}

const markerOf = (path: string): string => join(path, 'in-use');

function mark(path: string, text: string): void {
  writeFileSync(markerOf(path), text);
  sync(markerOf(path));
  sync(path);
}

/** Marks the cache as open on this run of the machine, on the disk before anything is written; a clean close removes it. Returns the mark. */
export function markOpen(path: string): string {
  const text = `${bootId()} ${randomUUID()}`;
  mark(path, text);
  return text;
}

/** Marks the cache as not to be opened again, and why. */
export function markBroken(path: string, reason: string): void {
  mark(path, `broken: ${reason}`);
}

/** The cache is closed: what it holds is on the disk before its mark goes, and only its own mark goes. */
export function markClosed(path: string, own: string): void {
  sync(fileOf(path));
  sync(path);
  if (existsSync(markerOf(path)) && readFileSync(markerOf(path), 'latin1') === own) rmSync(markerOf(path));
}

/** Why the cache in this folder must not be opened; undefined when it may. */
export function distrust(path: string): string | undefined {
  const file = fileOf(path);
  if (!existsSync(file)) return existsSync(join(path, 'data.mdb')) ? 'the cache is of an earlier version' : undefined;
  const marker = markerOf(path);
  if (existsSync(marker)) {
    const text = readFileSync(marker, 'latin1');
    if (text.startsWith('broken: ')) return text.slice('broken: '.length);
    if (text.split(' ')[0] !== bootId()) return 'the machine ended while the cache was open';
  }
  const fd = openSync(file, 'r');
  try {
    const { size } = fstatSync(fd);
    if (size === 0) return undefined;
    const head = Buffer.alloc(100);
    readSync(fd, head, 0, head.length, 0);
    if (head.toString('latin1', 0, 16) !== magic) return `${file} is not a SQLite file`;
    // https://www.sqlite.org/fileformat.html 1.3: page size at 16 (1 = 65,536), pages of the file at 28. The content of a page beyond the end would be read as zeros.
    const pageSize = head.readUInt16BE(16) === 1 ? 65_536 : head.readUInt16BE(16);
    const bytes = head.readUInt32BE(28) * pageSize;
    return size < bytes ? `${file} has ${size} of ${bytes} bytes` : undefined;
  } finally {
    closeSync(fd);
  }
}
