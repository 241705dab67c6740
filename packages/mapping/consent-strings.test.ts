import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { GppModel, Sections } from '@iabgpp/cmpapi';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { gppDecoder, tcfDecoder } from './consent-strings.ts';

/** Written by hand of the format's bits, not by the library that reads it: version 2, purposes 1, 2 and 4. */
function tcString(purposes: readonly number[], vendors: readonly number[] = []): string {
  const bits = (value: number, size: number): string => value.toString(2).padStart(size, '0');
  const created = bits(Math.floor(Date.UTC(2026, 0, 1) / 100), 36);
  const field = (ids: readonly number[], size: number): string => Array.from({ length: size }, (_, i) => (ids.includes(i + 1) ? '1' : '0')).join('');
  const most = Math.max(0, ...vendors);
  const text = bits(2, 6) + created + created + bits(31, 12) + bits(1, 12) + bits(1, 6) + bits(4, 6) + bits(13, 6) + bits(100, 12) + bits(4, 6) + '10' + field([], 12) + field(purposes, 24) + field([], 24) + '0' + bits(3, 6) + bits(4, 6)
    + bits(most, 16) + '0' + field(vendors, most) + bits(0, 16) + '0' + bits(0, 12);
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
  expect(decode('DBAA')).toBeUndefined();
});

test.each([[{}], [null], [{ purposes: [] }], [{ purposes: [0] }], [{ purposes: [25] }], [{ purposes: [1], vendor: 'x' }], [{ purposes: [1], wat: 1 }]])('options %j of tcf are refused', (options) => {
  expect(tcfDecoder(options as never)).toBeTypeOf('string');
});

const samples = resolve(import.meta.dirname, '../../../../shared/vendor-samples/iab/tc-strings.json');
test.skipIf(!existsSync(samples))('strings of the framework’s own tests give a state or nothing, never an error (skipped where the samples are absent)', () => {
  for (const { tc_string: text } of JSON.parse(readFileSync(samples, 'utf8')) as { tc_string: string }[]) expect([undefined, 'granted', 'denied']).toContain(tcf({ purposes: [1] })(text));
});
