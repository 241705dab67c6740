import { hash } from 'node:crypto';
import type { First } from './seen.ts';

/** Bytes of an entry: where it stands in the order (two doubles), offset and accept time (two doubles), hash of the body (four words). */
export const entryBytes = 48;
const doublesAn = entryBytes / 8;
const wordsAn = entryBytes / 4;

const notHex = 255;
const digitOf = new Uint8Array(128).fill(notHex);
for (const [value, digit] of [...'0123456789abcdef'].entries()) digitOf[digit.charCodeAt(0)] = value;

/** 32 lower-case hex digits of a text, from a place on, as four words, the first digits in the first; false = some are none. */
export function hexWords(text: string, from: number, out: Uint32Array, at: number): boolean {
  if (text.length !== from + 32) return false;
  let all = 0;
  for (let word = 0; word < 4; word++) {
    let value = 0;
    for (let i = from + 8 * word; i < from + 8 * word + 8; i++) {
      const code = text.charCodeAt(i);
      const digit = code < 128 ? digitOf[code]! : notHex;
      all |= digit;
      value = (value << 4) | digit;
    }
    out[at + word] = value;
  }
  return all < 16;
}

/** Of a body as 32 hex digits; what is none (somebody else wrote the record) by its own hash. */
export const bodyHash = (text: string): string => (hexWords(text, 0, scratch, 0) ? text : hash('sha256', text, 'hex').slice(0, 32));
const scratch = new Uint32Array(4);

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
  /** @param body what `bodyHash` takes */
  write(entry: number, high: number, low: number, body: string, offset: number, acceptedAt: number): void {
    const at = entry * doublesAn;
    this.doubles[at] = high;
    this.doubles[at + 1] = low;
    this.doubles[at + 2] = offset;
    this.doubles[at + 3] = acceptedAt;
    if (!hexWords(body, 0, this.words, 2 * at + 8)) hexWords(bodyHash(body), 0, this.words, 2 * at + 8);
  }
  read(entry: number): First {
    const at = entry * doublesAn;
    let body = '';
    for (let i = 0; i < 4; i++) body += this.words[2 * at + 8 + i]!.toString(16).padStart(8, '0');
    return { hash: body, offset: this.doubles[at + 2]!, acceptedAt: this.doubles[at + 3]! };
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
