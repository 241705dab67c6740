import type { First } from './seen.ts';

/** Bytes of an entry: where it stands in the order (two doubles), offset and accept time (two doubles), hash of the body. */
export const entryBytes = 48;
const doublesAn = entryBytes / 8;
const wordsAn = entryBytes / 4;
const hashBytes = 16;

/** Entries side by side, of one size each, in the byte order of this machine: a cache does not leave it. */
export class Entries {
  readonly doubles: Float64Array;
  readonly words: Uint32Array;
  readonly bytes: Buffer;

  constructor(buffer: ArrayBuffer) {
    this.doubles = new Float64Array(buffer);
    this.words = new Uint32Array(buffer);
    this.bytes = Buffer.from(buffer);
  }
  static room(capacity: number): Entries {
    return new Entries(new ArrayBuffer(capacity * entryBytes));
  }
  /** Of whole entries. A copy, unless they are all there is in their memory. */
  static of(bytes: Buffer): Entries {
    return new Entries(bytes.buffer instanceof ArrayBuffer && bytes.length === bytes.buffer.byteLength ? bytes.buffer : new Uint8Array(bytes).buffer);
  }
  get capacity(): number {
    return this.bytes.length / entryBytes;
  }
  high(entry: number): number {
    return this.doubles[entry * doublesAn]!;
  }
  low(entry: number): number {
    return this.doubles[entry * doublesAn + 1]!;
  }
  write(entry: number, high: number, low: number, hash: string, offset: number, acceptedAt: number): void {
    const at = entry * doublesAn;
    this.doubles[at] = high;
    this.doubles[at + 1] = low;
    this.doubles[at + 2] = offset;
    this.doubles[at + 3] = acceptedAt;
    this.bytes.write(hash, at * 8 + 32, hashBytes, 'hex');
  }
  read(entry: number): First {
    const at = entry * doublesAn;
    return { hash: this.bytes.toString('hex', at * 8 + 32, at * 8 + 32 + hashBytes), offset: this.doubles[at + 2]!, acceptedAt: this.doubles[at + 3]! };
  }
  /** By words: a hash that is copied as a double may not stay the same. */
  copy(entry: number, from: Entries, other: number): void {
    const { words } = this;
    const source = from.words;
    const at = entry * wordsAn;
    const of = other * wordsAn;
    for (let i = 0; i < wordsAn; i++) words[at + i] = source[of + i]!;
  }
  /** Where it is among the first `count`, which are in order; -1 = it is not. */
  find(count: number, high: number, low: number): number {
    const { doubles } = this;
    let from = 0;
    let to = count;
    while (from < to) {
      const middle = (from + to) >>> 1;
      const at = middle * doublesAn;
      if (doubles[at]! < high || (doubles[at] === high && doubles[at + 1]! < low)) from = middle + 1;
      else to = middle;
    }
    const at = from * doublesAn;
    return from < count && doubles[at] === high && doubles[at + 1] === low ? from : -1;
  }
}
