import { isUtf8 } from 'node:buffer';
import { WeirError } from '@weir/errors';
import type { Item, Json, JsonObject } from './types.ts';

export interface JsonLimits {
  readonly depth: number;
  readonly items: number;
}

export const defaultJsonLimits: JsonLimits = { depth: 32, items: 1000 };

const quote = 0x22;
const backslash = 0x5c;

/** Byte after the string that begins at `at` (a quote). */
function endOfString(body: Buffer, at: number): number {
  for (;;) {
    const close = body.indexOf(quote, at + 1);
    if (close < 0) throw new WeirError('body-malformed', 'a string does not end');
    let slashes = 0;
    while (body[close - 1 - slashes] === backslash) slashes++;
    if (slashes % 2 === 0) return close + 1;
    at = close;
  }
}

/** Checks nesting before anything is parsed; JSON.parse does the rest of the grammar. */
export function checkDepth(body: Buffer, maxDepth: number): void {
  let depth = 0;
  for (let at = 0; at < body.length;) {
    const byte = body[at]!;
    if (byte === quote) {
      at = endOfString(body, at);
      continue;
    }
    if (byte === 0x7b || byte === 0x5b) {
      if (++depth > maxDepth) throw new WeirError('body-too-deep', `nests deeper than ${maxDepth}`);
    } else if (byte === 0x7d || byte === 0x5d) depth--;
    at++;
  }
}

/** True when there are no more than `max` opening brackets, in strings or out: then none can nest deeper, and the walk over the bytes is spared. */
function opensAtMost(text: string, max: number): boolean {
  let left = max;
  for (let at = text.indexOf('{'); at >= 0; at = text.indexOf('{', at + 1)) if (--left < 0) return false;
  for (let at = text.indexOf('['); at >= 0; at = text.indexOf('[', at + 1)) if (--left < 0) return false;
  return true;
}

/** Text that can hide a key `__proto__` or half a surrogate pair: written out, or behind an escape. */
const suspicious = /__proto__|\\u(?:00|[dD])/;

/** An integer of more digits than a double surely holds; those keep their digits as text. Fixed widths: an open `{16,}` is quadratic on a long run of digits. */
const longNumber = /(?:^|[^\d."])-?\d{16}/;
const longDigits = 16;

/** What longNumber needs, looked for first: a run of 16 digits has one at a 16th byte, so few bytes are looked at (the patterns take 1 to 1.5 µs a KiB). */
export function hasLongDigits(body: Buffer): boolean {
  for (let at = longDigits - 1; at < body.length; at += longDigits) {
    if (!isDigit(body[at]!)) continue;
    let first = at;
    while (first > 0 && at - first < longDigits && isDigit(body[first - 1]!)) first--;
    let end = at + 1;
    while (end < body.length && end - first < longDigits && isDigit(body[end]!)) end++;
    if (end - first >= longDigits) return true;
  }
  return false;
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}

function keepDigits(this: unknown, _key: string, value: unknown, context?: { source?: string }): unknown {
  if (typeof value === 'number' && context?.source !== undefined && !Number.isSafeInteger(value) && /^-?\d{16,}$/.test(context.source)) return context.source;
  return value;
}

/**
 * Parse JSON from a stranger: valid UTF-8 without BOM, bounded depth; integers beyond 2^53 become text with
 * all their digits; `__proto__` and lone surrogates (which no UTF-8 can carry on) are refused. Throws WeirError body-malformed or body-too-deep.
 */
export function parseJson(body: Buffer, maxDepth = defaultJsonLimits.depth): Json {
  if (!isUtf8(body)) throw new WeirError('body-malformed', 'not UTF-8');
  const text = body.toString('utf8');
  if (!opensAtMost(text, maxDepth)) checkDepth(body, maxDepth);
  let value: Json;
  try {
    value = (hasLongDigits(body) && longNumber.test(text) ? JSON.parse(text, keepDigits as Parameters<typeof JSON.parse>[1]) : JSON.parse(text)) as Json;
  } catch (error) {
    throw new WeirError('body-malformed', 'not JSON', { cause: error });
  }
  if ((text.includes('\\u') || text.includes('__proto__')) && suspicious.test(text)) inspect(value);
  return value;
}

function inspect(value: Json): void {
  if (typeof value === 'string' && !value.isWellFormed()) throw new WeirError('body-malformed', 'half a surrogate pair is not text');
  if (value === null || typeof value !== 'object') return;
  for (const [key, child] of Object.entries(value)) {
    if (key === '__proto__') throw new WeirError('body-malformed', 'the key __proto__ is not allowed');
    if (!key.isWellFormed()) throw new WeirError('body-malformed', 'half a surrogate pair is not text');
    inspect(child);
  }
}

function isSpace(byte: number): boolean {
  return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

/** Byte after the JSON value that begins at `at`. The body has been parsed before, so the grammar holds. */
function endOfValue(body: Buffer, at: number): number {
  const first = body[at]!;
  if (first === quote) return endOfString(body, at);
  if (first !== 0x7b && first !== 0x5b) {
    while (at < body.length && !isSpace(body[at]!) && body[at] !== 0x2c && body[at] !== 0x5d && body[at] !== 0x7d) at++;
    return at;
  }
  for (let depth = 0; ;) {
    const byte = body[at]!;
    if (byte === quote) {
      at = endOfString(body, at);
      continue;
    }
    if (byte === 0x7b || byte === 0x5b) depth++;
    else if (byte === 0x7d || byte === 0x5d) depth--;
    at++;
    if (depth === 0) return at;
  }
}

/** Exact bytes of each element of the array that begins at `at`. */
function elements(body: Buffer, at: number): Buffer[] {
  const found: Buffer[] = [];
  for (at++; ;) {
    while (isSpace(body[at]!) || body[at] === 0x2c) at++;
    if (body[at] === 0x5d) return found;
    const end = endOfValue(body, at);
    found.push(body.subarray(at, end));
    at = end;
  }
}

function skipSpace(body: Buffer, at: number): number {
  while (at < body.length && isSpace(body[at]!)) at++;
  return at;
}

/** Start of the value of a key of the object that begins at `at`, the last one when it repeats (as JSON.parse has it); -1 = no such key. */
function valueOfKey(body: Buffer, at: number, key: string): number {
  let found = -1;
  at++;
  for (;;) {
    at = skipSpace(body, at);
    if (body[at] === 0x2c) {
      at++;
      continue;
    }
    if (body[at] !== quote) return found;
    const end = endOfString(body, at);
    const name = JSON.parse(body.toString('utf8', at, end)) as string;
    at = skipSpace(body, skipSpace(body, end) + 1);
    if (name === key) found = at;
    at = endOfValue(body, at);
  }
}

function toItems(list: readonly Json[], slices: readonly Buffer[], limits: JsonLimits): Item[] {
  if (list.length > limits.items) throw new WeirError('too-many-items', `more than ${limits.items} items`);
  return list.map((value, i) => ({ bytes: slices[i]!, value }));
}

/** The bytes of the only value of a body, which has been parsed: what stands around it is white space. */
function withoutSpace(body: Buffer): Buffer {
  let end = body.length;
  while (isSpace(body[end - 1]!)) end--;
  return body.subarray(skipSpace(body, 0), end);
}

/** The items of a body that is one JSON array, each with its exact bytes. */
export function sliceArray(body: Buffer, limits: JsonLimits = defaultJsonLimits): Item[] {
  return slicePath(body, [], limits).items;
}

/** The items of the array under a path of keys (none = the body itself), each with its exact bytes, and the whole body parsed. */
export function slicePath(body: Buffer, path: readonly string[], limits: JsonLimits = defaultJsonLimits): { readonly items: Item[]; readonly value: Json } {
  const value = parseJson(body, limits.depth);
  let list: Json | undefined = value;
  let at = skipSpace(body, 0);
  for (const key of path) {
    list = isObject(list) && Object.hasOwn(list, key) ? list[key] : undefined;
    if (list === undefined) break;
    at = valueOfKey(body, at, key);
  }
  if (!Array.isArray(list)) throw new WeirError('body-malformed', path.length === 0 ? 'expected a JSON array' : `expected an array under ${JSON.stringify(path.join('.'))}`);
  return { items: toItems(list, elements(body, at), limits), value };
}

/** A body that is one object: the items of the array under `key` when it has one, else the object itself as the only item. */
export function sliceBatch(body: Buffer, key: string, limits: JsonLimits = defaultJsonLimits): { readonly items: Item[]; readonly object: JsonObject } {
  const object = parseJson(body, limits.depth);
  if (!isObject(object)) throw new WeirError('body-malformed', 'expected a JSON object');
  const start = skipSpace(body, 0);
  const list = Object.hasOwn(object, key) ? object[key] : undefined;
  if (Array.isArray(list)) return { items: toItems(list, elements(body, valueOfKey(body, start, key)), limits), object };
  return { items: [{ bytes: withoutSpace(body), value: object }], object };
}

/** A body that is one item, an object; surrounding white space is not part of it. */
export function oneObject(body: Buffer, limits: JsonLimits = defaultJsonLimits): Item & { readonly value: JsonObject } {
  const value = parseJson(body, limits.depth);
  if (!isObject(value)) throw new WeirError('body-malformed', 'expected a JSON object');
  return { bytes: withoutSpace(body), value };
}

function isObject(value: Json | undefined): value is JsonObject {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}
