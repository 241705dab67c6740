import { createHmac } from 'node:crypto';
import type { Json, JsonObject } from '@weir/adapter';
import { isSupportedCountry, parsePhoneNumberFromString, type CountryCode } from 'libphonenumber-js/min';
import { unknownCountry } from '@weir/schemas';
import { gppDecoder, tcfDecoder } from './consent-strings.ts';
import { parsePath, readPath, type Roots } from './path.ts';

/** A value that the transform cannot take; the message says what it expected, never the value. */
export class TransformError extends Error {}

/** One that takes `roots` reads other paths, too. */
export type Transform = (value: Json, roots: Roots) => Json | undefined;
export interface TransformContext { readonly workspaceKey?: Buffer }

function text(value: Json): string {
  if (typeof value === 'string') return value;
  if (typeof value === 'number' || typeof value === 'boolean') return String(value);
  throw new TransformError('expected text');
}

/** A decoder of the text; what it does not know fails the field. */
function decoded(decode: ((text: string) => Json | undefined) | string, expected: string): Transform | string {
  if (typeof decode === 'string') return decode;
  return (value) => {
    const found = decode(text(value).trim());
    if (found === undefined) throw new TransformError(expected);
    return found;
  };
}

/** Longer text is no number; the bound also keeps the pattern, which backtracks, from quadratic time. */
const maxNumberText = 64;

function number(value: Json): number {
  if (typeof value === 'number') return value;
  if (typeof value === 'string' && value.length <= maxNumberText && /^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$/.test(value)) return Number(value);
  throw new TransformError('expected a number');
}

// Deliberately loose on the local part (RFC 5321 allows nearly anything); strict on shape and length.
const emailPattern = /^[^\s@"<>(),:;[\]\\]{1,64}@[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+$/;

function email(value: Json): string {
  const normal = text(value).trim().toLowerCase();
  if (normal.length > 254 || !emailPattern.test(normal)) throw new TransformError('expected an e-mail address');
  return normal;
}

const isoDate = /^\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?(?:Z|[+-]\d{2}:?\d{2})?)?$/;
/** 1971 to 2200: what a timestamp of a marketing event can be. */
const earliest = 31_536_000_000;
const latest = 7_258_118_400_000;

function inRange(ms: number): number {
  if (!Number.isFinite(ms) || ms < earliest || ms > latest) throw new TransformError('expected a time between 1971 and 2200');
  return Math.trunc(ms);
}

/** False for a day that no month has: Date.parse takes 30 February for 2 March. */
const isDay = (day: string): boolean => Number(day.slice(8)) <= 28 || (!Number.isNaN(Date.parse(day)) && new Date(day).toISOString().startsWith(day));

/** The form of Date.toISOString, read without a pattern; undefined when it is another, or no day of a month. */
function canonicalTime(iso: string): number | undefined {
  if (iso.length !== 24 || iso[4] !== '-' || iso[7] !== '-' || iso[10] !== 'T' || iso[13] !== ':' || iso[16] !== ':' || iso[19] !== '.' || iso[23] !== 'Z') return undefined;
  const digits = (from: number, to: number): number => {
    let n = 0;
    for (let i = from; i < to; i++) {
      const digit = iso.charCodeAt(i) - 48;
      if (digit < 0 || digit > 9) return NaN;
      n = n * 10 + digit;
    }
    return n;
  };
  const [year, month, day, hour, minute, second] = [digits(0, 4), digits(5, 7), digits(8, 10), digits(11, 13), digits(14, 16), digits(17, 19)];
  // NaN is in none of these ranges; a day past the 28th is for the calendar.
  if (!(year >= 1971 && month >= 1 && month <= 12 && day >= 1 && day <= 28 && hour <= 23 && minute <= 59 && second <= 59)) return undefined;
  const ms = Date.UTC(year, month - 1, day, hour, minute, second, digits(20, 23));
  return Number.isNaN(ms) ? undefined : ms;
}

/** ms since the epoch. `auto`: numbers below 10^11 are seconds; text is ISO 8601, without a zone UTC. */
function timestamp(unit: 's' | 'ms' | 'iso' | 'auto'): Transform {
  return (value) => {
    if (unit !== 'iso' && (typeof value === 'number' || (typeof value === 'string' && /^\d+(\.\d+)?$/.test(value)))) {
      const n = Number(value);
      return inRange(unit === 's' || (unit === 'auto' && n < 1e11) ? n * 1000 : n);
    }
    if (unit === 's' || unit === 'ms') throw new TransformError(`expected a time in ${unit}`);
    const iso = text(value).trim();
    const known = canonicalTime(iso);
    if (known !== undefined) return inRange(known);
    if (!isoDate.test(iso) || !isDay(iso.slice(0, 10))) throw new TransformError('expected an ISO 8601 time');
    const zoned = /(?:Z|[+-]\d{2}:?\d{2})$/.test(iso) || iso.length === 10 ? iso : `${iso}Z`;
    return inRange(Date.parse(zoned.replace(' ', 'T')));
  };
}

/** Codes that people write for another one (ISO 3166-1 has them reserved, or not at all). */
const countryAliases: Readonly<Record<string, string>> = { UK: 'GB', EL: 'GR' };

/** ISO 3166-1 alpha-2; what is said and is none says that nobody knows where (`ZZ`): not said would let the region of the source stand for it. */
function country(value: Json): string | undefined {
  const said = typeof value === 'string' ? value.trim().toUpperCase() : unknownCountry;
  return said === '' ? undefined : countryAliases[said] ?? (/^[A-Z]{2}$/.test(said) ? said : unknownCountry);
}

function phone(options: JsonObject): Transform | string {
  const country = options['country'];
  const expected = 'takes { country: <ISO code or path> }';
  if (Object.keys(options).some((key) => key !== 'country') || (country !== undefined && typeof country !== 'string')) return expected;
  const fixed = country?.length === 2 ? country.toUpperCase() : undefined;
  const path = country === undefined || fixed !== undefined ? undefined : parsePath(country);
  if (fixed === undefined ? country !== undefined && path === undefined : !isSupportedCountry(fixed)) return expected;
  if (path === undefined) return (value) => numberOf(value, fixed);
  return (value, roots) => {
    const from = readPath(path, roots);
    return numberOf(value, typeof from === 'string' && /^[A-Za-z]{2}$/.test(from) ? from.toUpperCase() : fixed);
  };
}

/** A number with + and country code as E.164, as the transform `phone` makes it; undefined when it is none. */
export function phoneNumber(text: string): string | undefined {
  try {
    return numberOf(text, undefined);
  } catch (error) {
    if (error instanceof TransformError) return undefined;
    throw error;
  }
}

/** E.164, read as dialled in the region. */
function numberOf(value: Json, region: string | undefined): string {
  const input = text(value).trim();
  if (input.length > 64) throw new TransformError('expected a phone number');
  const parsed = parsePhoneNumberFromString(input, region as CountryCode | undefined);
  if (parsed === undefined || !parsed.isPossible()) throw new TransformError('expected a phone number, with + and country code or with `country` set');
  return parsed.number;
}

/** What CEL made of an item may be longer than any text, or nothing that JSON has: that is the item's fault, and no reason to stop. */
function jsonText(value: Json): string {
  try {
    return JSON.stringify(value);
  } catch (error) {
    if (!(error instanceof TypeError) && !(error instanceof RangeError)) throw error;
    throw new TransformError('expected what can be written as JSON');
  }
}

function mapEnum(options: JsonObject): Transform {
  const table = new Map(Object.entries(options));
  return (value) => {
    const key = text(value);
    const found = table.get(key) ?? table.get('*');
    if (found === undefined) throw new TransformError(`expected one of ${[...table.keys()].slice(0, 20).join(', ')}`);
    return found;
  };
}

type Factory = (options: Json, context: TransformContext) => Transform | string;
const plain = (transform: Transform): Factory => (options) => (options === null ? transform : 'takes no options');

/** The closed set. A factory gives a message when its options are wrong. */
export const transforms: Readonly<Record<string, Factory>> = Object.assign(Object.create(null) as Record<string, Factory>, {
  lower: plain((v) => text(v).toLowerCase()),
  upper: plain((v) => text(v).toUpperCase()),
  trim: plain((v) => text(v).trim() || undefined),
  string: plain((v) => text(v)),
  number: plain(number),
  integer: plain((v) => {
    const n = number(v);
    if (!Number.isSafeInteger(n)) throw new TransformError('expected a whole number');
    return n;
  }),
  boolean: plain((v) => {
    if (typeof v === 'boolean') return v;
    if (v === 'true' || v === 1 || v === '1') return true;
    if (v === 'false' || v === 0 || v === '0') return false;
    throw new TransformError('expected true or false');
  }),
  email: plain(email),
  phone: ((options) => (options === null ? phone({}) : typeof options === 'object' && !Array.isArray(options) ? phone(options) : 'takes { country: <ISO code or path> }')) satisfies Factory,
  timestamp: ((options) => (options === null ? timestamp('auto') : options === 's' || options === 'ms' || options === 'iso' || options === 'auto' ? timestamp(options) : 'takes s, ms, iso or auto')) satisfies Factory,
  date: plain((v) => {
    const iso = text(v).trim().slice(0, 10);
    if (!/^\d{4}-\d{2}-\d{2}$/.test(iso) || Number.isNaN(Date.parse(iso)) || !isDay(iso)) throw new TransformError('expected a date, YYYY-MM-DD');
    return iso;
  }),
  country: plain(country),
  currency: plain((v) => {
    const code = text(v).trim().toUpperCase();
    if (!/^[A-Z]{3}$/.test(code)) throw new TransformError('expected an ISO 4217 code');
    return code;
  }),
  json: plain(jsonText),
  first: plain((v) => (Array.isArray(v) ? (v[0] ?? undefined) : v)),
  join: ((options) => (typeof options === 'string' || options === null ? (v) => (Array.isArray(v) ? v.map(text).join(options ?? ', ') : text(v)) : 'takes the text between the parts')) satisfies Factory,
  map: ((options) => (options !== null && typeof options === 'object' && !Array.isArray(options) ? mapEnum(options) : 'takes a table of values')) satisfies Factory,
  prefix: ((options) => (typeof options === 'string' ? (v) => options + text(v) : 'takes the text to put before')) satisfies Factory,
  tcf: ((options) => decoded(tcfDecoder(options), 'expected a TCF v2 consent string')) satisfies Factory,
  gpp: ((options) => decoded(gppDecoder(options), 'expected a GPP string')) satisfies Factory,
  hash: ((options, context) => {
    if (options !== null) return 'takes no options';
    return (v) => {
      if (context.workspaceKey === undefined) throw new TransformError('needs the workspace key');
      return createHmac('sha256', context.workspaceKey).update(text(v)).digest('hex');
    };
  }) satisfies Factory,
});
