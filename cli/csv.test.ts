import fc from 'fast-check';
import { expect, test } from 'vitest';
import { importKey } from './consent-api.ts';
import { parseCsv } from './csv.ts';

const known = ['email', 'purpose', 'state', 'proof'];

test('quotes, separators, line ends, empty cells and a byte order mark are read as RFC 4180 has them', () => {
  expect(parseCsv('\ufeffemail,purpose,proof\r\nann@x.example,news,"said ""yes"",\nthen left"\r\n\r\nbob@x.example,,form\r\n', known, 10)).toEqual([
    { line: 2, values: { email: 'ann@x.example', purpose: 'news', proof: 'said "yes",\nthen left' } },
    { line: 5, values: { email: 'bob@x.example', proof: 'form' } },
  ]);
  expect(parseCsv('email;state\nann@x.example;granted', known, 10)).toEqual([{ line: 2, values: { email: 'ann@x.example', state: 'granted' } }]);
});

test.each([['', 'empty'], ['email,wat\n', 'column "wat"'], ['email,email\n', 'comes twice'], ['email\n"ann', 'quote does not end'], ['email\na,b', '2 cells'], ['email\na\nb\nc\n', 'more than 2 rows']])('%j is refused: %s', (text, message) => {
  expect(() => parseCsv(text, known, 2)).toThrow(message);
});

test('any cells that are written by the rules are read back', () => {
  const cell = fc.string({ maxLength: 30 }).map((s) => s.replaceAll('\u0000', '').trim()).filter((s) => s !== '');
  fc.assert(fc.property(fc.array(fc.tuple(cell, cell), { minLength: 1, maxLength: 20 }), (rows) => {
    const quote = (s: string): string => `"${s.replaceAll('"', '""')}"`;
    const text = `email,proof\n${rows.map(([a, b]) => `${quote(a)},${quote(b)}`).join('\n')}\n`;
    expect(parseCsv(text, known, 100).map((r) => [r.values['email'], r.values['proof']])).toEqual(rows);
  }));
});

test('a grant has the key of its content and place in every run, what closes has one of its own', () => {
  const order = { identifiers: { email: 'a' }, purpose: 'p', state: 'granted' };
  expect(importKey(order, 2, 'day 1')).toBe(importKey({ ...order }, 2, 'day 9'));
  expect(importKey(order, 3, 'day 1')).not.toBe(importKey(order, 2, 'day 1'));
  for (const state of ['denied', 'withdrawn', 'unknown']) {
    const no = { ...order, state };
    expect(importKey(no, 2, 'day 1')).toBe(importKey({ ...no }, 2, 'day 1'));
    expect(importKey(no, 2, 'day 1')).not.toBe(importKey(no, 2, 'day 9'));
    expect(importKey(no, 2, 'day 1')).not.toBe(importKey(no, 3, 'day 1'));
  }
});
