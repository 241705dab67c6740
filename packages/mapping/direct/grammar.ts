/** The bytes of JSON (RFC 8259) and of UTF-8. */
export const quote = 0x22;
export const backslash = 0x5c;
export const comma = 0x2c;
export const colon = 0x3a;
export const openObject = 0x7b;
export const closeObject = 0x7d;
export const openArray = 0x5b;
export const closeArray = 0x5d;
/** 1 = a byte of text that stands for itself: ASCII, no control, no quote, no backslash. */
export const plain = new Uint8Array(256);
for (let i = 0x20; i < 0x80; i++) plain[i] = i === quote || i === backslash ? 0 : 1;
/** 1 = what may stand behind a backslash, apart from `u` and `/`. */
export const escape = new Uint8Array(256);
for (const c of '"\\bfnrt') escape[c.charCodeAt(0)] = 1;

export const isDigit = (c: number): boolean => c >= 0x30 && c <= 0x39;
export const isSpace = (c: number): boolean => c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09;

/** Byte after the well-formed UTF-8 sequence of more than one byte at `at`; -1 = there is none (Unicode 15, table 3-7). */
export function afterWide(src: Uint8Array, at: number): number {
  const a = src[at]!;
  const b = src[at + 1]!;
  if (a >= 0xc2 && a <= 0xdf) return (b & 0xc0) === 0x80 ? at + 2 : -1;
  const c = src[at + 2]!;
  if ((c & 0xc0) !== 0x80) return -1;
  if (a >= 0xe0 && a <= 0xef) return b >= (a === 0xe0 ? 0xa0 : 0x80) && b <= (a === 0xed ? 0x9f : 0xbf) ? at + 3 : -1;
  if (a >= 0xf0 && a <= 0xf4) return b >= (a === 0xf0 ? 0x90 : 0x80) && b <= (a === 0xf4 ? 0x8f : 0xbf) && (src[at + 3]! & 0xc0) === 0x80 ? at + 4 : -1;
  return -1;
}

