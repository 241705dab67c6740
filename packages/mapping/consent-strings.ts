import { GppModel } from '@iabgpp/cmpapi';
import type { Json, JsonObject } from '@weir/adapter';
import { readGppSections, readTcCore, type TcCore } from './tc-string.ts';

/** What a string of a consent management platform says, as states of a ConsentChange. */
type State = 'granted' | 'denied' | 'unknown';
type Decode = (text: string) => State | undefined;

/** Longer is no string of the framework: the largest lists of vendors fit. */
const maxChars = 8192;
const isIdList = (value: Json | undefined, most: number): value is number[] => Array.isArray(value) && value.length > 0 && value.length <= 24 && value.every((n) => typeof n === 'number' && Number.isInteger(n) && n >= 1 && n <= most);
const tableOf = (options: Json): JsonObject | undefined => (options !== null && typeof options === 'object' && !Array.isArray(options) ? options : undefined);

/**
 * IAB TCF v2 (TC string, "Consent string and vendor list formats v2"): granted when each of `purposes` has consent and
 * each of `legitimateInterests` was told and not objected to; else denied. With `vendor`, the vendor must have the same
 * (consent where there are purposes, legitimate interest where there are such), and what the publisher restricts for it
 * narrows: a purpose that is not allowed denies, one for which the publisher wants the other basis needs both. Text = why
 * the options are wrong. The decoder gives undefined for what is no TC string, or ends before its end.
 */
export function tcfDecoder(options: Json): Decode | string {
  const { purposes = null, legitimateInterests = null, vendor, ...rest } = tableOf(options) ?? {};
  const lists = [purposes, legitimateInterests].filter((list) => list !== null);
  if (lists.length === 0 || lists.some((list) => !isIdList(list, 24)) || Object.keys(rest).length > 0 || (vendor !== undefined && !isIdList([vendor], 65_535))) return 'takes { purposes: [<TCF purpose 1 to 24>, …] } or { legitimateInterests: [<TCF purpose>, …] }, or both, and, if one counts, vendor: <id of the Global Vendor List>';
  const [byConsent, byInterest, of] = [(purposes ?? []) as number[], (legitimateInterests ?? []) as number[], vendor as number | undefined];
  return (text) => {
    const core = text.length > maxChars || !/^[A-Za-z0-9_.-]+$/.test(text) ? undefined : readTcCore(text, of);
    return core === undefined ? undefined : allows(core, byConsent, byInterest, of) ? 'granted' : 'denied';
  };
}

function allows(core: TcCore, byConsent: readonly number[], byInterest: readonly number[], vendor: number | undefined): boolean {
  const restricted = (purpose: number, type: number): boolean => core.restrictions.get(purpose)?.has(type) === true;
  const consent = (purpose: number): boolean => core.consents.has(purpose) && (vendor === undefined || core.vendorConsent);
  const interest = (purpose: number): boolean => core.interests.has(purpose) && (vendor === undefined || core.vendorInterest);
  // A type that the format does not have yet is taken for the strictest.
  const forbidden = (purpose: number): boolean => restricted(purpose, 0) || restricted(purpose, 3);
  return byConsent.every((purpose) => !forbidden(purpose) && consent(purpose) && (!restricted(purpose, 2) || interest(purpose)))
    && byInterest.every((purpose) => !forbidden(purpose) && interest(purpose) && (!restricted(purpose, 1) || consent(purpose)));
}

/** Of the TCF in Europe. */
const euSection = 2;
/** Sections of the US states and the national one, https://github.com/InteractiveAdvertisingBureau/Global-Privacy-Platform */
const usSections = ['usnat', 'usca', 'usva', 'usco', 'usut', 'usct', 'usfl', 'usmt', 'usor', 'ustx', 'usde', 'usia', 'usne', 'usnh', 'usnj', 'ustn', 'usmn', 'usmd', 'usin', 'usky', 'usri'] as const;
const optOutFields = ['SaleOptOut', 'SharingOptOut', 'TargetedAdvertisingOptOut'];

/**
 * IAB GPP: with `optOut`, denied when any section of the US says opted out (1) for one of the fields, or carries the
 * Global Privacy Control, or the older US Privacy string (uspv1) in it says that the sale is opted out of; else unknown, because not to have opted out is no grant. With the options of
 * `tcf`, its TCF EU section as there; unknown when the string has none.
 */
export function gppDecoder(options: Json): Decode | string {
  const { optOut, ...eu } = tableOf(options) ?? {};
  const ofEu = optOut === undefined ? tcfDecoder(eu) : undefined;
  const fields = optOut === undefined ? undefined : Array.isArray(optOut) && optOut.length > 0 && optOut.every((f) => typeof f === 'string' && optOutFields.includes(f)) ? (optOut as string[]) : 'wrong';
  if (fields === 'wrong' || typeof ofEu === 'string' || (fields !== undefined && Object.keys(eu).length > 0)) return `takes either { optOut: [${optOutFields.join(', ')}] }, or { purposes: [<TCF purpose>, …] } and what else tcf takes`;
  return (text) => {
    if (text.length > maxChars || !/^[A-Za-z0-9_.~-]+$/.test(text)) return undefined;
    // A TC string by itself, as before GPP.
    if (text.startsWith('C')) return fields === undefined ? (ofEu as Decode)(text) : readTcCore(text) === undefined ? undefined : 'unknown';
    // The header first: the library writes out the ids of its ranges, however many.
    const sections = readGppSections(text);
    if (sections === undefined) return undefined;
    if (fields === undefined) {
      const eu = sections.get(euSection);
      return eu === undefined ? 'unknown' : (ofEu as Decode)(eu);
    }
    try {
      const model = new GppModel(text);
      if (model.getSectionIds().length === 0) return undefined;
      return usSections.some((section) => optedOut(model, section, fields)) || (fields.includes('SaleOptOut') && model.hasSection('uspv1') && model.getFieldValue('uspv1', 'OptOutSale') === 'Y') ? 'denied' : 'unknown';
    } catch {
      return undefined;
    }
  };
}

function optedOut(model: GppModel, section: string, fields: readonly string[]): boolean {
  if (!model.hasSection(section)) return false;
  return [...fields, 'Gpc'].some((field) => {
    if (!model.hasField(section, field)) return false;
    const value: unknown = model.getFieldValue(section, field);
    return value === 1 || value === true;
  });
}
