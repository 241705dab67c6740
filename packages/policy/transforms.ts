import { hash as digest } from 'node:crypto';
import { unknownCountry } from '@weir/schemas';

/** Text in, text out; null = there is nothing a receiver could use, so nothing is sent. Pure. */
export type Transform = (value: string) => string | null;

type Normalise = (value: string) => string;
const sha256: Normalise = (text) => digest('sha256', text, 'hex');
const then = (normalise: Transform): Transform => (value) => {
  const normal = normalise(value);
  return normal === null || normal === '' ? null : sha256(normal);
};

const lower: Normalise = (value) => value.trim().toLowerCase();
const address = /^[^\s@]{1,64}@[^\s@]{1,255}$/;
const email: Transform = (value) => {
  const normal = lower(value);
  return address.test(normal) ? normal : null;
};
const gmail = new Set(['gmail.com', 'googlemail.com']);
const googleEmail: Transform = (value) => {
  const normal = email(value);
  if (normal === null) return null;
  const at = normal.lastIndexOf('@');
  return gmail.has(normal.slice(at + 1)) ? `${normal.slice(0, at).replaceAll('.', '')}${normal.slice(at)}` : normal;
};
/** Canonical phones are E.164; anything that is not would match nobody. */
const e164: Transform = (value) => {
  const normal = value.replace(/[\s().-]/g, '');
  return /^\+[1-9]\d{6,14}$/.test(normal) ? normal : null;
};
const digits: Transform = (value) => e164(value)?.slice(1) ?? null;
const unpunctuated: Normalise = (value) => lower(value).replace(/[\p{P}\p{S}]/gu, '').trim();
const compact: Normalise = (value) => unpunctuated(value).replace(/\s/g, '');
const isoDate: Transform = (value) => {
  const match = /^(\d{4})-(\d{2})-(\d{2})$/.exec(value.trim());
  return match === null ? null : `${match[1]}${match[2]}${match[3]}`;
};
const zip: Normalise = (value) => lower(value).replace(/[\s-]/g, '');
/** Of a US ZIP+4 the first five digits. */
const metaZip: Normalise = (value) => zip(value.trim().replace(/^(\d{5})-\d{4}$/, '$1'));
/** Words of which the gender is sure. A first letter is not: Mme and mujer say female. */
const genders = new Map(Object.entries({
  f: ['f', 'female', 'woman', 'girl', 'w', 'weiblich', 'frau', 'femme', 'féminin', 'feminin', 'femenino', 'mujer', 'feminino', 'mulher', 'femminile', 'donna', 'vrouw', 'vrouwelijk', 'kvinna', 'kvinde', 'kvinne', 'kobieta'],
  m: ['m', 'male', 'man', 'boy', 'männlich', 'maennlich', 'mann', 'homme', 'masculin', 'masculino', 'hombre', 'homem', 'maschile', 'uomo', 'mannelijk', 'mand', 'mężczyzna'],
}).flatMap(([letter, words]) => words.map((word) => [word, letter] as const)));
const genderLetter: Transform = (value) => genders.get(lower(value)) ?? null;
const exact: Normalise = (value) => value.trim();
/** That Weir does not know the country is nothing to tell a vendor. */
const country = (normalise: Normalise): Transform => (value) => (value === unknownCountry ? null : normalise(value));

/**
 * How each vendor wants values before SHA-256 (lower-case hex). Fields that a vendor does not want hashed are not here.
 * google: trim, lower case; dots before the @ go for gmail.com and googlemail.com only (Google Ads API, "Manage online
 *   click conversions", Normalize and hash user-provided data, with the rule of its own samples,
 *   https://developers.google.com/google-ads/api/docs/conversions/upload-online); phones E.164 with +.
 * meta: Conversions API, Customer Information Parameters, whose sample digests are the golden cases
 *   (https://developers.facebook.com/docs/marketing-api/conversions-api/parameters/customer-information-parameters).
 * tiktok: Events API, user parameters: lower-cased e-mail, E.164 phone with +
 *   (https://business-api.tiktok.com/portal/docs?id=1739585700402178).
 * sha256: the value as it is, trimmed.
 */
export const hashers = {
  google: { email: then(googleEmail), phone: then(e164), firstName: then(lower), lastName: then(lower), street: then(lower) },
  meta: {
    email: then(email), phone: then(digits), firstName: then(unpunctuated), lastName: then(unpunctuated), birthday: then(isoDate), gender: then(genderLetter),
    city: then(compact), region: then(compact), postalCode: then(metaZip), country: then(country(lower)), userId: then(exact), anonymousId: then(exact),
  },
  tiktok: { email: then(email), phone: then(e164), firstName: then(unpunctuated), lastName: then(unpunctuated), postalCode: then(zip), userId: then(exact), anonymousId: then(exact) },
} as const satisfies Record<string, Readonly<Record<string, Transform>>>;
export type HashScheme = keyof typeof hashers | 'sha256';
export const hashSchemes: readonly string[] = [...Object.keys(hashers), 'sha256'];

/** The transform of a field for a scheme; undefined = the vendor does not take this field hashed. */
export function hasher(scheme: string, field: string): Transform | undefined {
  if (scheme === 'sha256') return then(field === 'country' ? country(exact) : exact);
  const fields: Readonly<Record<string, Transform>> | undefined = Object.hasOwn(hashers, scheme) ? hashers[scheme as keyof typeof hashers] : undefined;
  return fields !== undefined && Object.hasOwn(fields, field) ? fields[field] : undefined;
}

const stars = (count: number): string => '*'.repeat(Math.min(count, 32));

/** Keeps the last `n` characters; a text that is not longer is masked whole. */
export const keepLast = (n: number): Transform => (value) => {
  const characters = [...value];
  return characters.length <= n ? stars(characters.length) : stars(characters.length - n) + characters.slice(-n).join('');
};
/** The same from the front. */
export const keepFirst = (n: number): Transform => (value) => {
  const characters = [...value];
  return characters.length <= n ? stars(characters.length) : characters.slice(0, n).join('') + stars(characters.length - n);
};

function network(value: string): string | null {
  const v4 = /^(\d{1,3}\.\d{1,3}\.\d{1,3})\.\d{1,3}$/.exec(value.trim());
  if (v4 !== null) return `${v4[1]}.0`;
  const text = value.trim().toLowerCase();
  if (!/^[0-9a-f:]{2,39}$/.test(text) || !text.includes(':')) return null;
  const head = text.split('::')[0]!.split(':').filter((part) => part !== '');
  return `${[...head, '0', '0', '0'].slice(0, 3).join(':')}::`;
}

/** Named masks: the domain of an address, the network of an IP address (IPv4 /24, IPv6 /48), the year of a date. */
export const masks: Readonly<Record<string, Transform>> = {
  domain: (value) => (value.includes('@') ? `***${value.slice(value.lastIndexOf('@'))}` : null),
  network,
  year: (value) => /^\d{4}/.exec(value.trim())?.[0] ?? null,
};
