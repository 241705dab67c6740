/** Transforms of plain text as bytes, for the values nearly all records have. Each gives up (`other`) where the transform itself must look: what they write is what transforms.ts gives. */
import { room, type Sink } from '@weir/log';
import { plainText, type Scan } from './scan.ts';

/** Nothing was written: the transform itself has to look at the value. */
export const other = -1;
/** The value is as good as absent. */
export const empty = 0;
export const written = 1;

/** Writes the text of a slot to the sink (a length before it), after `prefix` when it is not negative. `at` gets where the text begins. */
export type ByteStep = (scan: Scan, slot: number, sink: Sink, prefix: number) => number;

const shortText = 48;

/** Length and bytes; returns where the bytes begin. */
function open(sink: Sink, prefix: number, length: number): number {
  room(sink, length + 11);
  const { bytes } = sink;
  let { at } = sink;
  if (prefix >= 0) bytes[at++] = prefix;
  let v = length * 2;
  while (v > 127) {
    bytes[at++] = (v & 127) | 128;
    v >>>= 7;
  }
  bytes[at++] = v;
  sink.at = at + length;
  return at;
}

export function writeBytes(sink: Sink, prefix: number, src: Buffer, from: number, to: number): number {
  const length = to - from;
  const at = open(sink, prefix, length);
  const { bytes } = sink;
  if (length < shortText) for (let i = 0; i < length; i++) bytes[at + i] = src[from + i]!;
  else src.copy(bytes, at, from, to);
  return written;
}

const copy: ByteStep = (scan, slot, sink, prefix) => writeBytes(sink, prefix, scan.src, scan.from[slot]!, scan.to[slot]!);

/** Spaces are all of the white space that stands in JSON without an escape, among ASCII; what begins or ends with another character is for String.trim. */
const trim: ByteStep = (scan, slot, sink, prefix) => {
  const { src } = scan;
  let from = scan.from[slot]!;
  let to = scan.to[slot]!;
  while (from < to && src[from] === 0x20) from++;
  while (to > from && src[to - 1] === 0x20) to--;
  if (from === to) return empty;
  if (src[from]! > 127 || src[to - 1]! > 127) return other;
  return writeBytes(sink, prefix, src, from, to);
};

const lower: ByteStep = (scan, slot, sink, prefix) => {
  if (scan.wide[slot] === 1) return other;
  return writeLower(scan.src, scan.from[slot]!, scan.to[slot]!, sink, prefix);
};

function writeLower(src: Buffer, from: number, to: number, sink: Sink, prefix: number): number {
  const length = to - from;
  const at = open(sink, prefix, length);
  const { bytes } = sink;
  for (let i = 0; i < length; i++) {
    const c = src[from + i]!;
    bytes[at + i] = c >= 0x41 && c <= 0x5a ? c | 0x20 : c;
  }
  return written;
}

const isLetter = (c: number): boolean => (c | 0x20) >= 0x61 && (c | 0x20) <= 0x7a;
const isDigit = (c: number): boolean => c >= 0x30 && c <= 0x39;

/** Letters of A to Z, so many, upper-cased. */
const code = (letters: number): ByteStep => (scan, slot, sink, prefix) => {
  const { src } = scan;
  const from = scan.from[slot]!;
  if (scan.to[slot]! - from !== letters) return other;
  for (let i = 0; i < letters; i++) if (!isLetter(src[from + i]!)) return other;
  const at = open(sink, prefix, letters);
  for (let i = 0; i < letters; i++) sink.bytes[at + i] = src[from + i]! & 0xdf;
  return written;
};

const letters = code(2);
/** Two letters; UK and EL stand for others. */
const country: ByteStep = (scan, slot, sink, prefix) => {
  const from = scan.from[slot]!;
  const [first, second] = [scan.src[from]! & 0xdf, scan.src[from + 1]! & 0xdf];
  return (first === 0x55 && second === 0x4b) || (first === 0x45 && second === 0x4c) ? other : letters(scan, slot, sink, prefix);
};

/** The usual e-mail addresses: letters, digits and `.!#$%&'*+-/=?^_{|}~` before the @, a host of labels behind it. */
const email: ByteStep = (scan, slot, sink, prefix) => {
  const { src } = scan;
  const from = scan.from[slot]!;
  const to = scan.to[slot]!;
  if (scan.wide[slot] === 1 || to - from > 254) return other;
  let at = from;
  while (at < to && src[at] !== 0x40) {
    const c = src[at]!;
    // Of what is between space and delete: no white space, quotes, angle or square brackets, parentheses, comma, colon, semicolon, backslash.
    if (c <= 0x20 || c === 0x22 || c === 0x28 || c === 0x29 || c === 0x2c || c === 0x3a || c === 0x3b || c === 0x3c || c === 0x3e || (c >= 0x5b && c <= 0x5d) || c === 0x7f) return other;
    at++;
  }
  if (at === from || at - from > 64 || at === to) return other;
  let labels = 0;
  while (at < to) {
    const begin = ++at;
    while (at < to && (isLetter(src[at]!) || isDigit(src[at]!) || src[at] === 0x2d)) at++;
    if (at === begin || at - begin > 63 || src[begin] === 0x2d || src[at - 1] === 0x2d || (at < to && src[at] !== 0x2e)) return other;
    labels++;
  }
  return labels < 2 ? other : writeLower(src, from, to, sink, prefix);
};

const byteSteps: Readonly<Record<string, ByteStep>> = { trim, lower, email, country, currency: code(3), string: copy };

/** The transforms of a text field over bytes; undefined when they have no such form. */
export function byteStepOf(steps: readonly { readonly name: string }[]): ByteStep | undefined {
  return steps.length === 0 ? copy : steps.length === 1 ? byteSteps[steps[0]!.name] : undefined;
}

/** ms of a time in the form of Date.toISOString; NaN when it is another. */
export function timeOf(scan: Scan, slot: number): number {
  const { src } = scan;
  const from = scan.from[slot]!;
  if (scan.kind[slot] !== plainText || scan.to[slot]! - from !== 24 || src[from + 4] !== 0x2d || src[from + 7] !== 0x2d || src[from + 10] !== 0x54 || src[from + 13] !== 0x3a || src[from + 16] !== 0x3a || src[from + 19] !== 0x2e || src[from + 23] !== 0x5a) return Number.NaN;
  const year = digits(src, from, 4);
  const month = digits(src, from + 5, 2);
  const day = digits(src, from + 8, 2);
  const hour = digits(src, from + 11, 2);
  const minute = digits(src, from + 14, 2);
  const second = digits(src, from + 17, 2);
  // NaN is in none of these ranges; a day past the 28th is for the calendar.
  if (!(year >= 1971 && year < 2200 && month >= 1 && month <= 12 && day >= 1 && day <= 28 && hour <= 23 && minute <= 59 && second <= 59)) return Number.NaN;
  return (daysTo(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + digits(src, from + 20, 3);
}

/** Days since 1970-01-01 (H. Hinnant, chrono-compatible low-level date algorithms, days_from_civil). */
function daysTo(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const ofEra = y - era * 400;
  const ofYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1;
  return era * 146_097 + ofEra * 365 + Math.floor(ofEra / 4) - Math.floor(ofEra / 100) + ofYear - 719_468;
}

function digits(src: Buffer, at: number, count: number): number {
  let n = 0;
  for (let i = 0; i < count; i++) {
    const c = src[at + i]! - 0x30;
    if (c < 0 || c > 9) return Number.NaN;
    n = n * 10 + c;
  }
  return n;
}

/** Value of an integer slot: fewer than 16 digits, exact. */
export function integerOf(scan: Scan, slot: number): number {
  const { src } = scan;
  let at = scan.from[slot]!;
  const to = scan.to[slot]!;
  const negative = src[at] === 0x2d;
  if (negative) at++;
  let n = 0;
  for (; at < to; at++) n = n * 10 + src[at]! - 0x30;
  return negative ? -n : n;
}
