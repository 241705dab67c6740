import { createHash } from 'node:crypto';

/**
 * Keys as a table can hold them. Keys may come from hostile data: a long one, one with half a surrogate pair (which
 * UTF-8 cannot tell from another), with a control character or in the table's own namespace is stored by its beginning and its hash, with the key itself in the value.
 */
const longest = 300;
const mark = '\uffff';
const unfit = /[\u0000-\u001f\uffff]|\p{Surrogate}/u;
/** Nearly every key: a pair of surrogates is fit too, and looked at again. */
const surelyFit = /^[\u0020-\ud7ff]*$/;

/** Prefix of the table's own entries; no stored key of a caller begins with it. */
export const own = mark + mark;

/** The beginning of a text up to the first character that a stored key cannot have. */
function clean(text: string): string {
  const short = text.length > longest ? text.slice(0, longest) : text;
  const at = short.search(unfit);
  return at < 0 ? short : short.slice(0, at);
}

/** Whether a key is stored as it is, by a quick look; false = ask `storedKey`. */
export function isPlain(key: string): boolean {
  return key.length <= longest && key !== '' && surelyFit.test(key);
}

/** The key to store under; `wrapped` tells that the value must carry the key. */
export function storedKey(key: string): { readonly key: string; readonly wrapped: boolean } {
  if (isPlain(key)) return { key, wrapped: false };
  const begin = clean(key);
  if (begin.length === key.length && key !== '') return { key, wrapped: false };
  return { key: begin + mark + createHash('sha256').update(key, 'utf16le').digest('hex'), wrapped: true };
}

export function isWrapped(stored: string): boolean {
  return stored.includes(mark);
}

export function wrap(key: string, value: Buffer): Buffer {
  const bytes = Buffer.from(key, 'utf16le');
  const head = Buffer.alloc(4);
  head.writeUInt32LE(bytes.length);
  return Buffer.concat([head, bytes, value]);
}

export function unwrap(stored: Buffer): { readonly key: string; readonly value: Buffer } {
  const end = 4 + stored.readUInt32LE(0);
  return { key: stored.toString('utf16le', 4, end), value: stored.subarray(end) };
}

/** A prefix that every stored key of a key with this prefix has. */
export const storedPrefix = clean;
