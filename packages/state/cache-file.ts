/** Whether the files of a cache can be trusted. LMDB maps its file: a torn one ends the process instead of giving an error. */
import { closeSync, existsSync, fstatSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { join } from 'node:path';

const magic = 0xbeefc0de;
const bootFile = '/proc/sys/kernel/random/boot_id';

/** Names this run of the machine: what a killed process wrote is there as long as it is the same. */
function bootId(): string {
  if (existsSync(bootFile)) return readFileSync(bootFile, 'latin1').trim();
  // To the nearest ten minutes: clocks are corrected.
  return `boot-${Math.round((Date.now() / 1000 - uptime()) / 600)}`;
}

const markerOf = (path: string): string => join(path, 'in-use');

/** Marks the cache as open on this run of the machine; removed by a clean close. */
export function markOpen(path: string): void {
  writeFileSync(markerOf(path), bootId());
}

export function markClosed(path: string): void {
  rmSync(markerOf(path), { force: true });
}

interface Meta {
  readonly transaction: bigint;
  readonly bytes: bigint;
}

/** The meta page at `at`: header 24, magic 4, version 4, address 8, map size 8, two databases of 48 (the first begins with the page size), last page 8, transaction 8. */
function readMeta(head: Buffer, at: number): Meta | undefined {
  if (head.length < at + 160 || head.readUInt32LE(at + 24) !== magic) return undefined;
  const pageSize = BigInt(head.readUInt32LE(at + 48));
  return { transaction: head.readBigUInt64LE(at + 152), bytes: (head.readBigUInt64LE(at + 144) + 1n) * pageSize };
}

/** Why the cache in this folder must not be opened; undefined when it may. */
export function distrust(path: string): string | undefined {
  const file = join(path, 'data.mdb');
  if (!existsSync(file)) return undefined;
  const marker = markerOf(path);
  if (existsSync(marker) && readFileSync(marker, 'latin1') !== bootId()) return 'the machine ended while the cache was open';
  const fd = openSync(file, 'r');
  try {
    const { size } = fstatSync(fd);
    if (size === 0) return undefined;
    const head = Buffer.alloc(Math.min(size, 65_536 + 4096));
    readSync(fd, head, 0, head.length, 0);
    const first = readMeta(head, 0);
    if (first === undefined) return `${file} is not an LMDB file`;
    const second = readMeta(head, head.readUInt32LE(48));
    if (second === undefined) return `${file} is cut`;
    const last = first.transaction > second.transaction ? first : second;
    return BigInt(size) < last.bytes ? `${file} has ${size} of ${last.bytes} bytes` : undefined;
  } finally {
    closeSync(fd);
  }
}
