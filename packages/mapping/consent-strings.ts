import { GppModel } from '@iabgpp/cmpapi';
import { TCString, type TCModel } from '@iabtcf/core';
import type { Json, JsonObject } from '@weir/adapter';

/** What a string of a consent management platform says, as states of a ConsentChange. */
type State = 'granted' | 'denied' | 'unknown';
type Decode = (text: string) => State | undefined;

/** Longer is no string of the framework: the largest lists of vendors fit. */
const maxChars = 8192;
const isIdList = (value: Json | undefined, most: number): value is number[] => Array.isArray(value) && value.length > 0 && value.length <= 24 && value.every((n) => typeof n === 'number' && Number.isInteger(n) && n >= 1 && n <= most);
const tableOf = (options: Json): JsonObject | undefined => (options !== null && typeof options === 'object' && !Array.isArray(options) ? options : undefined);

/**
 * IAB TCF v2 (TC string, "Consent string and vendor list formats v2"): granted when every purpose, and the vendor when one
 * is named, has consent; else denied. Text = why the options are wrong. The decoder gives undefined for what is no TC string.
 */
export function tcfDecoder(options: Json): Decode | string {
  const { purposes, vendor, ...rest } = tableOf(options) ?? {};
  if (!isIdList(purposes, 24) || Object.keys(rest).length > 0 || (vendor !== undefined && !isIdList([vendor], 65_535))) return 'takes { purposes: [<TCF purpose 1 to 24>, …] } and, if one counts, vendor: <id of the Global Vendor List>';
  return (text) => {
    const model = decodeTcf(text);
    if (model === undefined) return undefined;
    const vendorOk = vendor === undefined || model.vendorConsents.has(vendor as number);
    return vendorOk && purposes.every((purpose) => model.purposeConsents.has(purpose)) ? 'granted' : 'denied';
  };
}

function decodeTcf(text: string): TCModel | undefined {
  if (text.length > maxChars || !/^[A-Za-z0-9_.-]+$/.test(text)) return undefined;
  try {
    const model = TCString.decode(text);
    return model.version === 2 ? model : undefined;
  } catch {
    // The decoder throws errors of many kinds for bytes that are no string; each means the same here.
    return undefined;
  }
}

/** Sections of the US states and the national one, https://github.com/InteractiveAdvertisingBureau/Global-Privacy-Platform */
const usSections = ['usnat', 'usca', 'usva', 'usco', 'usut', 'usct', 'usfl', 'usmt', 'usor', 'ustx', 'usde', 'usia', 'usne', 'usnh', 'usnj', 'ustn', 'usmn', 'usmd', 'usin', 'usky', 'usri'] as const;
const optOutFields = ['SaleOptOut', 'SharingOptOut', 'TargetedAdvertisingOptOut'];

/**
 * IAB GPP: with `optOut`, denied when any section of the US says opted out (1) for one of the fields, or carries the
 * Global Privacy Control, or the older US Privacy string (uspv1) in it says that the sale is opted out of; else unknown, because not to have opted out is no grant. With `purposes`, the TCF EU section as
 * `tcf`; unknown when the string has none.
 */
export function gppDecoder(options: Json): Decode | string {
  const { optOut, purposes, ...rest } = tableOf(options) ?? {};
  const fields = optOut === undefined ? undefined : Array.isArray(optOut) && optOut.length > 0 && optOut.every((f) => typeof f === 'string' && optOutFields.includes(f)) ? (optOut as string[]) : 'wrong';
  if (Object.keys(rest).length > 0 || fields === 'wrong' || (fields === undefined) === (purposes === undefined) || (purposes !== undefined && !isIdList(purposes, 24))) return `takes either { optOut: [${optOutFields.join(', ')}] } or { purposes: [<TCF purpose>, …] }`;
  return (text) => {
    if (text.length > maxChars || !/^[A-Za-z0-9_.~-]+$/.test(text)) return undefined;
    try {
      const model = new GppModel(text);
      if (model.getSectionIds().length === 0) return undefined;
      if (fields !== undefined) return usSections.some((section) => optedOut(model, section, fields)) || (fields.includes('SaleOptOut') && model.hasSection('uspv1') && model.getFieldValue('uspv1', 'OptOutSale') === 'Y') ? 'denied' : 'unknown';
      if (!model.hasSection('tcfeuv2')) return 'unknown';
      const consents = model.getFieldValue('tcfeuv2', 'PurposeConsents') as boolean[];
      return (purposes as number[]).every((purpose) => consents[purpose - 1] === true) ? 'granted' : 'denied';
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
