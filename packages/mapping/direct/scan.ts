/**
 * One pass over the bytes of an item: the values that a mapping asks for, as places in the source, and the text of
 * what nobody asks for. It takes the plain form of JSON only: whatever could be read in two ways (a repeated key,
 * `__proto__`, an escape by code point, a number of 16 digits, bad UTF-8, a nesting over the limit) or is no JSON is
 * not decided here: the scan gives up, and the general parser (packages/adapter/json.ts) has the word.
 */
import { afterWide, backslash, closeArray, closeObject, colon, comma, escape, isDigit, isSpace, openArray, openObject, plain, quote } from './grammar.ts';
import { maxLearned, type Entry, type Keep, type Node, type Shape } from './shape.ts';

/** Kinds of value in a slot. */
export const absent = 0;
export const isNull = 1;
/** Text without escapes: its bytes are its value. */
export const plainText = 2;
export const escapedText = 3;
/** An integer as JavaScript writes it. */
export const integer = 4;
export const number = 5;
export const isTrue = 6;
export const isFalse = 7;
export const object = 8;
export const array = 9;

/** Keys of the shape that may be missing before another is looked up. */
const lookAhead = 6;
/** Zero bytes behind the item: the scan stops there without asking for the end. */
const sentinel = 8;
const maxKeys = 4096;

export class Scan {
  /** The item, with zeros behind it. */
  src: Buffer = Buffer.alloc(8192);
  /** What is left over, as compact JSON; empty = nothing. */
  rest: Buffer = Buffer.allocUnsafe(8192);
  restEnd = 0;
  readonly kind: Uint8Array;
  readonly from: Int32Array;
  readonly to: Int32Array;
  /** 1 = text with a byte over 127. */
  readonly wide: Uint8Array;
  readonly #shape: Shape;
  readonly #keyFrom = new Int32Array(maxKeys);
  readonly #keyTo = new Int32Array(maxKeys);
  #keys = 0;
  #maxDepth = 0;
  #escaped = false;
  #wide = false;
  #integer = false;
  /** The value is not written as JSON.stringify would write it: spaces, or another form. */
  #loose = false;
  #rewrite = false;

  constructor(shape: Shape) {
    this.#shape = shape;
    const slots = Math.max(1, shape.paths.size);
    this.kind = new Uint8Array(slots);
    this.from = new Int32Array(slots);
    this.to = new Int32Array(slots);
    this.wide = new Uint8Array(slots);
  }

  /** False: give up, the general parser decides. `keepRest` false spares the leftovers. */
  run(bytes: Buffer, from: number, to: number, maxDepth: number, keepRest: boolean): boolean {
    const length = to - from;
    if (this.src.length < length + sentinel) this.src = Buffer.alloc((length + sentinel) * 2);
    if (this.rest.length < length * 2 + 64) this.rest = Buffer.allocUnsafe(length * 4 + 64);
    const { src } = this;
    bytes.copy(src, 0, from, to);
    for (let i = 0; i < sentinel; i++) src[length + i] = 0;
    this.kind.fill(absent);
    this.restEnd = 0;
    this.#keys = 0;
    this.#maxDepth = maxDepth;
    let at = this.#space(0);
    if (src[at] !== openObject) return false;
    at = this.#object(this.#shape.root, at + 1, keepRest ? 'part' : 'none', 1);
    if (at < 0 || this.#space(at) !== length) return false;
    // Nothing was left: `part` wrote no bracket.
    return true;
  }

  #space(at: number): number {
    const { src } = this;
    if (src[at]! > 0x20) return at;
    const began = at;
    while (isSpace(src[at]!)) at++;
    if (at > began) this.#loose = true;
    return at;
  }

  /** Byte after the object whose first byte is at `at`; -1 = give up. With `part` its rest is written, with brackets when there is any. */
  #object(node: Node, at: number, keep: Keep, depth: number): number {
    if (depth > this.#maxDepth) return -1;
    const { src } = this;
    const first = this.#keys;
    const restFrom = this.restEnd;
    const { shape } = node;
    let cursor = 0;
    let unordered = false;
    at = this.#space(at);
    if (src[at] === closeObject) return at + 1;
    for (;;) {
      if (src[at] !== quote) return -1;
      const keyFrom = at + 1;
      let entry = this.#expected(shape, cursor, keyFrom);
      if (entry === undefined) {
        entry = this.#lookUp(node, cursor, keyFrom);
        if (entry === undefined) return -1;
        if (entry.place < cursor || this.#repeats(first, keyFrom, keyFrom + entry.bytes.length)) {
          if (this.#repeats(first, keyFrom, keyFrom + entry.bytes.length)) return -1;
          unordered = true;
        } else cursor = entry.place + 1;
      } else {
        cursor = entry.place + 1;
        if (unordered && this.#repeats(first, keyFrom, keyFrom + entry.bytes.length)) return -1;
      }
      const keyTo = keyFrom + entry.bytes.length;
      if (this.#keys >= maxKeys) return -1;
      this.#keyFrom[this.#keys] = keyFrom;
      this.#keyTo[this.#keys++] = keyTo;
      at = keyTo + 1;
      if (src[at] !== colon) {
        at = this.#space(at);
        if (src[at] !== colon) return -1;
      }
      at = this.#member(entry, this.#space(at + 1), keep, depth, restFrom);
      if (at < 0) return -1;
      at = this.#space(at);
      const next = src[at];
      if (next === comma) at = this.#space(at + 1);
      else if (next === closeObject) break;
      else return -1;
    }
    this.#keys = first;
    if (keep === 'part' && this.restEnd > restFrom) this.rest[this.restEnd++] = closeObject;
    return at + 1;
  }

  /** The key at `at` when it is the next of the shape, or one of the few behind it. */
  #expected(shape: readonly Entry[], cursor: number, at: number): Entry | undefined {
    const { src } = this;
    const end = Math.min(shape.length, cursor + lookAhead);
    for (let i = cursor; i < end; i++) {
      const { bytes } = shape[i]!;
      const { length } = bytes;
      if (src[at + length] !== quote) continue;
      let k = 0;
      while (k < length && bytes[k] === src[at + k]) k++;
      if (k === length) return shape[i];
    }
    return undefined;
  }

  /** A key out of order, or a new one. */
  #lookUp(node: Node, cursor: number, at: number): Entry | undefined {
    const { src } = this;
    let end = at;
    while (plain[src[end]!] === 1) end++;
    // Integer keys come first in an object of JavaScript, whatever their place.
    if (src[end] !== quote || end === at || isDigit(src[at]!)) return undefined;
    const name = src.toString('latin1', at, end);
    if (name === '__proto__') return undefined;
    const known = node.entries.get(name);
    if (known !== undefined && known.place >= 0) return known;
    return this.#shape.learn(node, name, cursor);
  }

  /** True when a key of the same object, from `first` on, has the same bytes. */
  #repeats(first: number, from: number, to: number): boolean {
    const { src } = this;
    if (this.#keys - first > maxLearned) return true;
    for (let i = first; i < this.#keys; i++) {
      const other = this.#keyFrom[i]!;
      if (this.#keyTo[i]! - other !== to - from) continue;
      let k = 0;
      while (from + k < to && src[other + k] === src[from + k]) k++;
      if (from + k === to) return true;
    }
    return false;
  }

  /** The value of a key of an object that a path goes into, or that is kept by paths only. */
  #member(entry: Entry, at: number, keep: Keep, depth: number, restFrom: number): number {
    const kept: Keep = keep === 'none' ? 'none' : entry.keep;
    const { src } = this;
    const keyAt = this.restEnd;
    if (kept === 'part' && src[at] === openObject) {
      this.#key(entry, restFrom);
      const valueAt = this.restEnd;
      const end = this.#object(entry.node!, at + 1, 'part', depth + 1);
      if (this.restEnd === valueAt) this.restEnd = keyAt;
      if (end >= 0 && entry.slot >= 0) this.#take(entry.slot, object, at, end);
      return end;
    }
    // What is left of an array is for the general way to say.
    if (kept === 'part' && src[at] === openArray) return -1;
    // Within a value that is kept whole they add up.
    if (kept !== 'none') {
      this.#loose = false;
      this.#rewrite = false;
    }
    const end = this.#value(entry, at, depth);
    if (end < 0 || kept === 'none') return end;
    this.#key(entry, restFrom);
    this.#keep(at, end);
    return end;
  }

  /** `{` or `,` and the key; the bracket of an object is written with the first of its rest. */
  #key(entry: Entry, restFrom: number): void {
    const { rest } = this;
    const { quoted } = entry;
    let at = this.restEnd;
    if (rest.length < at + quoted.length + 64) return this.#grow(entry, restFrom);
    rest[at] = at === restFrom ? openObject : comma;
    at++;
    for (let i = 0; i < quoted.length; i++) rest[at + i] = quoted[i]!;
    this.restEnd = at + quoted.length;
  }
  #grow(entry: Entry, restFrom: number): void {
    const grown = Buffer.allocUnsafe(this.rest.length * 2 + entry.quoted.length);
    this.rest.copy(grown, 0, 0, this.restEnd);
    this.rest = grown;
    this.#key(entry, restFrom);
  }

  /** The value of the source from `at` to `end`, as JSON.stringify writes it. */
  #keep(at: number, end: number): void {
    const { src } = this;
    if (this.#rewrite) {
      const text = JSON.stringify(JSON.parse(src.toString('utf8', at, end)));
      const size = Buffer.byteLength(text);
      this.#roomFor(size);
      this.restEnd += this.rest.write(text, this.restEnd, 'utf8');
      return;
    }
    this.#roomFor(end - at);
    const { rest } = this;
    let out = this.restEnd;
    if (!this.#loose) {
      if (end - at < 48) for (let i = at; i < end; i++) rest[out++] = src[i]!;
      else {
        src.copy(rest, out, at, end);
        out += end - at;
      }
    } else {
      let inText = false;
      for (let i = at; i < end; i++) {
        const c = src[i]!;
        if (!inText && isSpace(c)) continue;
        rest[out++] = c;
        if (c === backslash) rest[out++] = src[++i]!;
        else if (c === quote) inText = !inText;
      }
    }
    this.restEnd = out;
  }
  #roomFor(bytes: number): void {
    if (this.restEnd + bytes + 64 <= this.rest.length) return;
    const grown = Buffer.allocUnsafe((this.restEnd + bytes) * 2 + 64);
    this.rest.copy(grown, 0, 0, this.restEnd);
    this.rest = grown;
  }

  #take(slot: number, kind: number, from: number, to: number): void {
    this.kind[slot] = kind;
    this.from[slot] = from;
    this.to[slot] = to;
  }

  /** Byte after the value at `at`, which is checked and, when it has a slot, kept; -1 = give up. */
  #value(entry: Entry, at: number, depth: number): number {
    const { src } = this;
    const { slot } = entry;
    const c = src[at]!;
    if (c === quote) {
      const close = this.#text(at + 1);
      if (close >= 0 && slot >= 0) {
        this.#take(slot, this.#escaped ? escapedText : plainText, at + 1, close);
        this.wide[slot] = this.#wide ? 1 : 0;
      }
      return close < 0 ? -1 : close + 1;
    }
    if (c === openObject) {
      const node = this.#shape.below(entry);
      const end = node === undefined ? -1 : this.#object(node, at + 1, 'none', depth + 1);
      if (end >= 0 && slot >= 0) this.#take(slot, object, at, end);
      return end;
    }
    if (c === openArray) {
      const end = this.#array(entry, at + 1, depth + 1);
      if (end >= 0 && slot >= 0) this.#take(slot, array, at, end);
      return end;
    }
    if (c === 0x74 || c === 0x66 || c === 0x6e) return this.#literal(c, slot, at);
    const end = this.#number(at);
    if (end >= 0 && slot >= 0) this.#take(slot, this.#integer ? integer : number, at, end);
    return end;
  }

  #literal(c: number, slot: number, at: number): number {
    const { src } = this;
    let end = -1;
    if (c === 0x66) end = src[at + 1] === 0x61 && src[at + 2] === 0x6c && src[at + 3] === 0x73 && src[at + 4] === 0x65 ? at + 5 : -1;
    else if (c === 0x74) end = src[at + 1] === 0x72 && src[at + 2] === 0x75 && src[at + 3] === 0x65 ? at + 4 : -1;
    else end = src[at + 1] === 0x75 && src[at + 2] === 0x6c && src[at + 3] === 0x6c ? at + 4 : -1;
    if (end >= 0 && slot >= 0) this.#take(slot, c === 0x66 ? isFalse : c === 0x74 ? isTrue : isNull, at, end);
    return end;
  }

  /** The elements have no slots; objects among them share one node under the key of the array. */
  #array(entry: Entry, at: number, depth: number): number {
    if (depth > this.#maxDepth) return -1;
    const { src } = this;
    at = this.#space(at);
    if (src[at] === closeArray) return at + 1;
    const element = this.#elementOf(entry);
    if (element === undefined) return -1;
    for (;;) {
      at = this.#value(element, at, depth);
      if (at < 0) return -1;
      at = this.#space(at);
      const next = src[at];
      if (next === comma) at = this.#space(at + 1);
      else if (next === closeArray) return at + 1;
      else return -1;
    }
  }
  #elementOf(entry: Entry): Entry | undefined {
    const node = this.#shape.below(entry);
    // No key is empty here: the look-up refuses it.
    return node === undefined ? undefined : node.entries.get('') ?? this.#shape.element(node);
  }

  /** The closing quote of the text that begins at `at`; -1 = give up. */
  #text(at: number): number {
    const { src } = this;
    this.#escaped = false;
    this.#wide = false;
    for (;;) {
      let c = src[at]!;
      while (plain[c] === 1) c = src[++at]!;
      if (c === quote) return at;
      if (c === backslash) {
        const next = src[at + 1]!;
        if (next === 0x2f) this.#rewrite = true;
        else if (escape[next] !== 1) return -1;
        this.#escaped = true;
        at += 2;
      } else if (c >= 0x80) {
        at = afterWide(src, at);
        if (at < 0) return -1;
        this.#wide = true;
      } else return -1;
    }
  }

  /** Byte after the number at `at`; -1 = it is none, or has 16 digits or more. */
  #number(at: number): number {
    const { src } = this;
    const began = at;
    if (src[at] === 0x2d) at++;
    const whole = at;
    if (!isDigit(src[at]!)) return -1;
    while (isDigit(src[at]!)) at++;
    const wholeEnd = at;
    if (src[whole] === 0x30 && wholeEnd > whole + 1) return -1;
    this.#integer = true;
    let fraction = -1;
    if (src[at] === 0x2e) {
      this.#integer = false;
      fraction = ++at;
      while (isDigit(src[at]!)) at++;
      if (at === fraction) return -1;
    }
    const fractionEnd = at;
    if ((src[at]! | 0x20) === 0x65) {
      this.#integer = false;
      this.#rewrite = true;
      at++;
      if (src[at] === 0x2b || src[at] === 0x2d) at++;
      if (!isDigit(src[at]!)) return -1;
      while (isDigit(src[at]!)) at++;
    }
    if (at - began >= 16) return -1;
    if (fraction >= 0) {
      // At most 15 digits come back from a double as they were, when no zero ends them and they are not tiny.
      if (src[fractionEnd - 1] === 0x30 || (src[whole] === 0x30 && src[fraction] === 0x30)) this.#rewrite = true;
    } else if (src[began] === 0x2d && src[whole] === 0x30) {
      this.#integer = false;
      this.#rewrite = true;
    }
    return at;
  }
}
