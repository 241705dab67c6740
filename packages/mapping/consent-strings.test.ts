import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { GppModel, Sections } from '@iabgpp/cmpapi';
import { TCString } from '@iabtcf/core';
import fc from 'fast-check';
import { cpuMs } from '@weir/testing';
import { expect, test } from 'vitest';
import { gppDecoder, tcfDecoder } from './consent-strings.ts';

interface Said { readonly interests?: readonly number[]; readonly vendorInterests?: readonly number[]; /** Vendors as ranges. */ readonly ranges?: boolean; readonly restrictions?: readonly { readonly purpose: number; readonly type: number; readonly vendors: readonly (readonly [number, number])[] }[] }

/** Written by hand of the format's bits, not by a library: version 2. */
function tcString(purposes: readonly number[], vendors: readonly number[] = [], { interests = [], vendorInterests = [], ranges = false, restrictions = [] }: Said = {}): string {
  const bits = (value: number, size: number): string => value.toString(2).padStart(size, '0');
  const created = bits(Math.floor(Date.UTC(2026, 0, 1) / 100), 36);
  const field = (ids: readonly number[], size: number): string => Array.from({ length: size }, (_, i) => (ids.includes(i + 1) ? '1' : '0')).join('');
  const list = (pairs: readonly (readonly [number, number])[]): string => bits(pairs.length, 12) + pairs.map(([from, to]) => (from === to ? `0${bits(from, 16)}` : `1${bits(from, 16)}${bits(to, 16)}`)).join('');
  const section = (ids: readonly number[]): string => {
    const most = Math.max(0, ...ids);
    return bits(most, 16) + (ranges ? `1${list(ids.map((id) => [id, id]))}` : `0${field(ids, most)}`);
  };
  const text = bits(2, 6) + created + created + bits(31, 12) + bits(1, 12) + bits(1, 6) + bits(4, 6) + bits(13, 6) + bits(100, 12) + bits(4, 6) + '10' + field([], 12) + field(purposes, 24) + field(interests, 24) + '0' + bits(3, 6) + bits(4, 6)
    + section(vendors) + section(vendorInterests) + bits(restrictions.length, 12) + restrictions.map((r) => bits(r.purpose, 6) + bits(r.type, 2) + list(r.vendors)).join('');
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
  return (text.padEnd(Math.ceil(text.length / 24) * 24, '0').match(/.{6}/g) ?? []).map((six) => alphabet[parseInt(six, 2)]).join('');
}
const tcf = (options: object) => tcfDecoder(options as never) as (text: string) => string | undefined;
const gpp = (options: object) => gppDecoder(options as never) as (text: string) => string | undefined;

test.each([
  [[1, 2, 4], [], { purposes: [2, 4] }, 'granted'],
  [[1, 2], [], { purposes: [2, 4] }, 'denied'],
  [[], [], { purposes: [1] }, 'denied'],
  [[1, 2, 4], [755], { purposes: [2], vendor: 755 }, 'granted'],
  [[1, 2, 4], [755], { purposes: [2], vendor: 754 }, 'denied'],
])('a TC string with purposes %j and vendors %j under %j is %s', (purposes, vendors, options, state) => {
  expect(tcf(options)(tcString(purposes, vendors))).toBe(state);
});

test.each([
  ['objected to', { interests: [2] }, { legitimateInterests: [7] }, 'denied'],
  ['told, not objected to', { interests: [7] }, { legitimateInterests: [7] }, 'granted'],
  ['told, but not for the vendor', { interests: [7] }, { legitimateInterests: [7], vendor: 755 }, 'denied'],
  ['told, also for the vendor', { interests: [7], vendorInterests: [755] }, { legitimateInterests: [7], vendor: 755 }, 'granted'],
  ['one of two bases missing', { interests: [2], vendorInterests: [755] }, { purposes: [2], legitimateInterests: [7], vendor: 755 }, 'denied'],
  ['both bases', { interests: [7], vendorInterests: [755] }, { purposes: [2], legitimateInterests: [7], vendor: 755 }, 'granted'],
  ['both bases, vendors as ranges', { interests: [7], vendorInterests: [755], ranges: true }, { purposes: [2], legitimateInterests: [7], vendor: 755 }, 'granted'],
])('legitimate interest: %s', (_name, said, options, state) => {
  expect(tcf(options)(tcString([1, 2], [755], said))).toBe(state);
});

const restricted = (type: number, from = 700, to = 800, purpose = 2) => ({ interests: [7], vendorInterests: [755], restrictions: [{ purpose: 9, type: 0, vendors: [[1, 65_535]] as const }, { purpose, type, vendors: [[1, 3], [from, to]] as const }] });
test.each([
  ['a purpose that is not allowed', restricted(0), { purposes: [2], vendor: 755 }, 'denied'],
  ['another vendor', restricted(0, 756), { purposes: [2], vendor: 755 }, 'granted'],
  ['another purpose', restricted(0, 700, 800, 3), { purposes: [2], vendor: 755 }, 'granted'],
  ['no vendor asked for: restrictions are of vendors', restricted(0), { purposes: [2] }, 'granted'],
  ['consent is needed, and there', restricted(1), { purposes: [2], vendor: 755 }, 'granted'],
  ['legitimate interest is needed, and not there', restricted(2), { purposes: [2], vendor: 755 }, 'denied'],
  ['consent is needed for a legitimate interest, and not there', restricted(1, 755, 755, 7), { legitimateInterests: [7], vendor: 755 }, 'denied'],
  ['a legitimate interest that is not allowed', restricted(0, 755, 755, 7), { legitimateInterests: [7], vendor: 755 }, 'denied'],
  ['a type that nobody knows', restricted(3), { purposes: [2], vendor: 755 }, 'denied'],
])('what the publisher restricts: %s', (_name, said, options, state) => {
  expect(tcf(options)(tcString([1, 2], [755], said))).toBe(state);
});

test('any TC string says the same as to the library of the framework, restrictions included', () => {
  const ids = (most: number) => fc.uniqueArray(fc.integer({ min: 1, max: most }), { maxLength: 12 });
  const range = fc.tuple(fc.integer({ min: 1, max: 30 }), fc.nat(9)).map(([from, more]) => [from, from + more] as const);
  const restrictions = fc.array(fc.record({ purpose: fc.integer({ min: 1, max: 4 }), type: fc.nat(2), vendors: fc.array(range, { maxLength: 4 }) }), { maxLength: 6 });
  fc.assert(fc.property(ids(4), ids(4), ids(30), ids(30), restrictions, fc.boolean(), fc.integer({ min: 1, max: 30 }), (consents, interests, vendors, vendorInterests, restricted_, ranges, vendor) => {
    const text = tcString(consents, vendors, { interests, vendorInterests, restrictions: restricted_, ranges });
    const model = TCString.decode(text);
    for (const purpose of [1, 2, 3, 4]) {
      const types = model.publisherRestrictions.getRestrictions(vendor).filter((r) => r.purposeId === purpose).map((r) => Number(r.restrictionType));
      const consent = model.purposeConsents.has(purpose) && model.vendorConsents.has(vendor);
      const interest = model.purposeLegitimateInterests.has(purpose) && model.vendorLegitimateInterests.has(vendor);
      expect(tcf({ purposes: [purpose], vendor })(text)).toBe(consent && !types.includes(0) && (!types.includes(2) || interest) ? 'granted' : 'denied');
      expect(tcf({ legitimateInterests: [purpose], vendor })(text)).toBe(interest && !types.includes(0) && (!types.includes(1) || consent) ? 'granted' : 'denied');
    }
  }), { numRuns: 300 });
});

test('ranges over every vendor, as often as a string holds, take no time', () => {
  const everyone = Array.from({ length: 800 }, (_, i) => ({ purpose: (i % 24) + 1, type: 1, vendors: [[1, 65_535]] as const }));
  const text = tcString([2], [755], { restrictions: everyone });
  expect(text.length).toBeLessThan(8192);
  expect(cpuMs(() => expect(tcf({ purposes: [2], vendor: 755 })(text)).toBe('granted'))).toBeLessThan(500);
  // Of a header of 40 characters: one range of 10^9 sections.
  expect(cpuMs(() => expect(gpp({ optOut: ['SaleOptOut'] })(`DBAB${'g'.repeat(2)}${'A'.repeat(7)}M~x`)).toBeUndefined())).toBeLessThan(500);
});

test('a string that was cut is no consent', () => {
  const text = tcString([1, 2], [755], { interests: [7], vendorInterests: [755] });
  for (let length = 0; length < text.length - 4; length++) expect(tcf({ purposes: [1] })(text.slice(0, length))).toBeUndefined();
});

test('a string of TCF v1, noise and over-long text are no consent, and none takes long', () => {
  const decode = tcf({ purposes: [1] });
  expect(decode('BOhwdphOxFC7tAHABBFRC--AAAAuhr_7__7-_9_-_f__9uj3Or_v_f__32ccL59v_h_7v-_7fi_20nV4u_1vft9yfk1-5ctDztp507iakivXmqdeb9v_nz3_5pxP78k89r7337Ew_v8_v-b7BCON_YxEiA')).toBeUndefined();
  expect(decode('')).toBeUndefined();
  expect(decode(`C${'_'.repeat(100_000)}`)).toBeUndefined();
  fc.assert(fc.property(fc.stringMatching(/^[A-Za-z0-9_.~-]{0,300}$/), (text) => {
    expect([undefined, 'granted', 'denied']).toContain(decode(text));
    expect([undefined, 'unknown', 'denied']).toContain(gpp({ optOut: ['SaleOptOut'] })(text));
  }), { numRuns: 300 });
});

test('GPP: an opt-out in any section of the US that the library knows denies', () => {
  const decode = gpp({ optOut: ['SaleOptOut'] });
  const said = (set: (model: GppModel) => void): string | undefined => {
    const model = new GppModel();
    set(model);
    return decode(model.encode());
  };
  const states = [...Sections.SECTION_ID_NAME_MAP.values()].filter((name) => name.startsWith('us') && name !== 'uspv1');
  expect(states.length).toBeGreaterThan(20);
  for (const name of states) expect([name, said((m) => m.setFieldValue(name, 'SaleOptOut', 1))]).toEqual([name, 'denied']);
  expect([said((m) => m.setFieldValue('uspv1', 'OptOutSale', 'Y')), said((m) => m.setFieldValue('uspv1', 'OptOutSale', 'N'))]).toEqual(['denied', 'unknown']);
});

test('GPP: an opt-out and the Global Privacy Control deny, anything less is unknown, and the EU section counts as TCF', () => {
  const made = (set: (model: GppModel) => void): string => {
    const model = new GppModel();
    set(model);
    return model.encode();
  };
  const decode = gpp({ optOut: ['SaleOptOut', 'SharingOptOut'] });
  expect(decode(made((m) => m.setFieldValue('usnat', 'SaleOptOut', 1)))).toBe('denied');
  expect(decode(made((m) => m.setFieldValue('usca', 'SharingOptOut', 1)))).toBe('denied');
  expect(decode(made((m) => { m.setFieldValue('usnat', 'SaleOptOut', 2); m.setFieldValue('usnat', 'Gpc', true); }))).toBe('denied');
  expect(decode(made((m) => m.setFieldValue('usnat', 'SaleOptOut', 2)))).toBe('unknown');
  expect(decode(made((m) => m.setFieldValue('usnat', 'TargetedAdvertisingOptOut', 1)))).toBe('unknown');
  const eu = made((m) => m.setFieldValue('tcfeuv2', 'PurposeConsents', Array.from({ length: 24 }, (_, i) => i === 1 || i === 3)));
  expect(gpp({ purposes: [2, 4] })(eu)).toBe('granted');
  expect(gpp({ purposes: [1] })(eu)).toBe('denied');
  const more = made((m) => { m.setFieldValue('tcfeuv2', 'PurposeConsents', Array.from({ length: 24 }, (_, i) => i === 1)); m.setFieldValue('tcfeuv2', 'VendorConsents', [700, 701, 755]); m.setFieldValue('usnat', 'SaleOptOut', 2); m.setFieldValue('usky', 'SaleOptOut', 1); });
  expect([gpp({ purposes: [2], vendor: 755 })(more), gpp({ purposes: [2], vendor: 754 })(more), decode(more)]).toEqual(['granted', 'denied', 'denied']);
  expect([gpp({ purposes: [2] })(made((m) => m.setFieldValue('usca', 'SaleOptOut', 1))), gpp({ purposes: [2] })(tcString([2])), decode(tcString([2])), decode('CCC')]).toEqual(['unknown', 'granted', 'unknown', undefined]);
  expect(decode('DBAA')).toBeUndefined();
});

test.each([[{}], [null], [{ purposes: [] }], [{ purposes: [0] }], [{ purposes: [25] }], [{ purposes: [1], vendor: 'x' }], [{ purposes: [1], wat: 1 }], [{ legitimateInterests: [] }], [{ purposes: [1], legitimateInterests: 'all' }]])('options %j of tcf are refused', (options) => {
  expect(tcfDecoder(options as never)).toBeTypeOf('string');
});

const samples = resolve(import.meta.dirname, '../../../../shared/vendor-samples/iab/tc-strings.json');
test.skipIf(!existsSync(samples))('strings of the framework’s own tests give a state or nothing, never an error (skipped where the samples are absent)', () => {
  for (const { tc_string: text } of JSON.parse(readFileSync(samples, 'utf8')) as { tc_string: string }[]) expect([undefined, 'granted', 'denied']).toContain(tcf({ purposes: [1] })(text));
});
