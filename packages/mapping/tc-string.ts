/**
 * The core of an IAB TC string and the header of a GPP string, read bit by bit
 * (https://github.com/InteractiveAdvertisingBureau/GDPR-Transparency-and-Consent-Framework, "Consent string and vendor list
 * formats v2"; https://github.com/InteractiveAdvertisingBureau/Global-Privacy-Platform, "GPP String"). The frameworks' own
 * libraries write out every id of a range, and put it into a tree without balance: a string of 60 characters costs them
 * minutes. Here the time is linear in the characters: a range is asked, never written out.
 */

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const places = new Int8Array(128).fill(-1);
for (let i = 0; i < alphabet.length; i++) places[alphabet.charCodeAt(i)] = i;

/** Reads numbers of the bits of a base64url text. Past the end everything is `undefined`. */
class Bits {
  private readonly text: string;
  private at = 0;
  constructor(text: string) {
    this.text = text;
  }

  private bit(): number | undefined {
    const place = places[this.text.charCodeAt(Math.floor(this.at / 6))] ?? -1;
    return place < 0 ? undefined : (place >> (5 - (this.at++ % 6))) & 1;
  }

  /** At most 36 bits, the first one the most significant. */
  int(size: number): number | undefined {
    let value = 0;
    for (let i = 0; i < size; i++) {
      const bit = this.bit();
      if (bit === undefined) return undefined;
      value = value * 2 + bit;
    }
    return value;
  }

  skip(size: number): void {
    this.at += size;
  }

  /** In Fibonacci coding: ends with two ones. Undefined for what is larger than `most`. */
  fibonacci(most: number): number | undefined {
    let [value, before, smaller, larger] = [0, 0, 1, 2];
    for (;;) {
      const bit = this.bit();
      if (bit === undefined) return undefined;
      if (bit === 1 && before === 1) return value;
      if (bit === 1) value += smaller;
      if (value > most) return undefined;
      before = bit;
      [smaller, larger] = [larger, smaller + larger];
    }
  }
}

/** Whether an id is in a list of ranges; undefined = the text ends in it, or a range ends before it begins. */
function inRanges(bits: Bits, id: number | undefined): boolean | undefined {
  const entries = bits.int(12);
  if (entries === undefined) return undefined;
  let found = false;
  for (let i = 0; i < entries; i++) {
    const isRange = bits.int(1);
    const first = bits.int(16);
    const last = isRange === 1 ? bits.int(16) : first;
    if (first === undefined || last === undefined || last < first) return undefined;
    found ||= id !== undefined && id >= first && id <= last;
  }
  return found;
}

/** A list of vendors, as a bit for each or as ranges. */
function inVendors(bits: Bits, id: number | undefined): boolean | undefined {
  const most = bits.int(16);
  const isRange = bits.int(1);
  if (most === undefined || isRange === undefined) return undefined;
  if (isRange === 1) return inRanges(bits, id);
  let found = false;
  for (let vendor = 1; vendor <= most; vendor++) {
    const bit = bits.int(1);
    if (bit === undefined) return undefined;
    if (vendor === id) found = bit === 1;
  }
  return found;
}

/** What a TC string says of the purposes, and of one vendor where one is asked for. */
export interface TcCore {
  /** Purposes 1 to 24 with consent, and those whose legitimate interest was told and not objected to. */
  readonly consents: ReadonlySet<number>;
  readonly interests: ReadonlySet<number>;
  readonly vendorConsent: boolean;
  readonly vendorInterest: boolean;
  /** Restrictions of the publisher for the vendor, by purpose: 0 = not allowed, 1 = consent is needed, 2 = legitimate interest is needed. */
  readonly restrictions: ReadonlyMap<number, ReadonlySet<number>>;
}

function purposes(bits: Bits): ReadonlySet<number> | undefined {
  const found = new Set<number>();
  for (let purpose = 1; purpose <= 24; purpose++) {
    const bit = bits.int(1);
    if (bit === undefined) return undefined;
    if (bit === 1) found.add(purpose);
  }
  return found;
}

/** The core segment of a TC string of version 2; undefined for what is none, or ends before its end. */
export function readTcCore(text: string, vendor?: number): TcCore | undefined {
  const bits = new Bits(text.split('.', 1)[0]!);
  if (bits.int(6) !== 2) return undefined;
  // Created to special features: nothing of it says what is allowed.
  bits.skip(146);
  const consents = purposes(bits);
  const interests = purposes(bits);
  bits.skip(13);
  const vendorConsent = inVendors(bits, vendor);
  const vendorInterest = vendorConsent === undefined ? undefined : inVendors(bits, vendor);
  if (consents === undefined || interests === undefined || vendorConsent === undefined || vendorInterest === undefined) return undefined;
  const count = bits.int(12);
  if (count === undefined) return undefined;
  const restrictions = new Map<number, Set<number>>();
  for (let i = 0; i < count; i++) {
    const purpose = bits.int(6);
    const type = bits.int(2);
    const applies = inRanges(bits, vendor);
    if (purpose === undefined || type === undefined || applies === undefined) return undefined;
    if (applies) restrictions.set(purpose, (restrictions.get(purpose) ?? new Set<number>()).add(type));
  }
  return { consents, interests, vendorConsent, vendorInterest, restrictions };
}

/** Ids of sections that exist or may come. */
const maxSection = 1000;
const maxSections = 64;

/** Section id → its text, as the header of a GPP string orders them; undefined for what is none. */
export function readGppSections(text: string): ReadonlyMap<number, string> | undefined {
  const [header, ...parts] = text.split('~');
  const bits = new Bits(header!);
  if (bits.int(6) !== 3 || bits.int(6) !== 1) return undefined;
  const entries = bits.int(12);
  if (entries === undefined || entries > maxSections) return undefined;
  const ids: number[] = [];
  let last = 0;
  for (let i = 0; i < entries; i++) {
    const isRange = bits.int(1);
    const first = bits.fibonacci(maxSection);
    const more = isRange === 1 ? bits.fibonacci(maxSection) : 0;
    if (first === undefined || more === undefined || ids.length + more + 1 > maxSections) return undefined;
    for (let id = last + first; id <= last + first + more; id++) ids.push(id);
    last += first + more;
  }
  return ids.length === 0 || ids.length !== parts.length ? undefined : new Map(ids.map((id, i) => [id, parts[i]!]));
}
