import { WeirError } from '@weir/errors';
import { Entries, entryBytes } from './entries.ts';

/** Entries of one row of the table: with its key it takes one page of 4 KiB, and what of it stands in the tree. */
export const blockEntries = 92;
/** Entries of a part: its summary is a row of about 140 KB. */
export const partEntries = 65_536;
const headWords = 4;
const firstBytes = 16;
/** Of a filter: of what is not there it lets one in a thousand through, that of a large run, of which there are few, one in fifty. */
const bitsAnEntry = (level: number): number => (level < 2 ? 16 : 8);
const bitsSet = 6;

export const pad = (number: number, width: number): string => number.toString(36).padStart(width, '0');

/** Some of a run, one piece of the order: its blocks are in the table, what tells where a place may be is in memory. */
export interface Part {
  readonly blocks: number;
  readonly entries: number;
  /** Place of the first entry of each block. */
  readonly firsts: Float64Array;
  /** undefined = it lets everything through. */
  filter: Uint32Array | undefined;
}

/** As murmur3 ends. */
function mix(of: number): number {
  let hash = Math.imul(of ^ (of >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

/** Of all bits of a place, for ids may be numbered; what filters are asked with. */
export const filterHash = (high: number, low: number): number => mix(mix((low >>> 0) + mix((low / 2 ** 32) >>> 0)) + mix((high >>> 0) ^ ((high / 2 ** 32) >>> 0)));

/** From one bit to the next of an entry (Kirsch and Mitzenmacher, Less hashing, same performance, 2006). */
const strideOf = (hash: number): number => mix(hash + 0x9e3779b9) | 1;
const bitOf = (hash: number, bits: number): number => Math.floor((hash >>> 0) * bits / 2 ** 32);

export const filterWords = (entries: number, level: number): number => Math.max(1, Math.ceil(entries * bitsAnEntry(level) / 32));

export function addTo(filter: Uint32Array, high: number, low: number): void {
  let hash = filterHash(high, low);
  const stride = strideOf(hash);
  const bits = filter.length * 32;
  for (let i = 0; i < bitsSet; i++) {
    const bit = bitOf(hash, bits);
    filter[bit >>> 5]! |= 1 << (bit & 31);
    hash = (hash + stride) | 0;
  }
}

function lets(filter: Uint32Array, of: number): boolean {
  let hash = of;
  const stride = strideOf(hash);
  const bits = filter.length * 32;
  for (let i = 0; i < bitsSet; i++) {
    const bit = bitOf(hash, bits);
    if ((filter[bit >>> 5]! & (1 << (bit & 31))) === 0) return false;
    hash = (hash + stride) | 0;
  }
  return true;
}

/** The part in which a place would be; -1 = before all. */
export function partOf(parts: readonly Part[], high: number, low: number): number {
  let from = 0;
  let to = parts.length;
  while (from < to) {
    const middle = (from + to) >>> 1;
    const { firsts } = parts[middle]!;
    if (firsts[0]! < high || (firsts[0] === high && firsts[1]! <= low)) from = middle + 1;
    else to = middle;
  }
  return from - 1;
}

/** The block in which a place may be, given its filterHash; -1 = it is surely in none. */
export function blockOf({ firsts, filter, blocks }: Part, high: number, low: number, hash: number): number {
  if (filter !== undefined && !lets(filter, hash)) return -1;
  let from = 0;
  let to = blocks;
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (firsts[2 * middle]! < high || (firsts[2 * middle] === high && firsts[2 * middle + 1]! <= low)) from = middle + 1;
    else to = middle;
  }
  return from - 1;
}

/** A part as its row, with the level of its run. */
export function summaryOf({ blocks, entries, firsts, filter }: Part & { readonly filter: Uint32Array }, level: number): Buffer {
  const bytes = Buffer.from(new ArrayBuffer(headWords * 4 + blocks * firstBytes + filter.byteLength));
  new Uint32Array(bytes.buffer, 0, headWords).set([level, entries, blocks, filter.length]);
  new Float64Array(bytes.buffer, headWords * 4, blocks * 2).set(firsts.subarray(0, blocks * 2));
  new Uint32Array(bytes.buffer, headWords * 4 + blocks * firstBytes).set(filter);
  return bytes;
}

export function readSummary(row: Buffer): { readonly part: Part; readonly level: number } {
  const { buffer } = new Uint8Array(row);
  const [level, entries, blocks, words] = new Uint32Array(buffer, 0, headWords) as unknown as [number, number, number, number];
  if (row.length !== headWords * 4 + blocks * firstBytes + words * 4) throw new WeirError('invariant-broken', `a summary of ${blocks} blocks and ${words} words has ${row.length} bytes`);
  return { level, part: { blocks, entries, firsts: new Float64Array(buffer, headWords * 4, blocks * 2), filter: new Uint32Array(buffer, headWords * 4 + blocks * firstBytes, words) } };
}

/** A row of entries. */
export function readBlock(row: Buffer | undefined, key: string): Entries {
  if (row === undefined || row.length === 0 || row.length % entryBytes !== 0) throw new WeirError('invariant-broken', `block ${key} of event ids has ${row?.length ?? 'no'} bytes`);
  return Entries.of(row);
}
