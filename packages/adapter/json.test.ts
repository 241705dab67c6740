import fc from 'fast-check';
import { cpuMs } from '@weir/testing';
import { expect, test } from 'vitest';
import { hasLongDigits, oneObject, parseJson, sliceArray, sliceBatch, slicePath } from './json.ts';

const limits = { depth: 20, items: 100 };

test('each item keeps its exact bytes, whatever the white space and the escapes', () => {
  const spaces = fc.stringMatching(/^[ \n\r\t]{0,3}$/);
  fc.assert(fc.property(fc.array(fc.tuple(spaces, fc.jsonValue({ maxDepth: 4 }), spaces), { maxLength: 12 }), spaces, (parts, around) => {
    const texts = parts.map(([, value]) => JSON.stringify(value));
    const body = Buffer.from(`${around}[${parts.map(([a, , b], i) => `${a}${texts[i]}${b}`).join(',')}]${around}`);
    if (body.includes('__proto__')) return;
    expect(sliceArray(body, limits).map((item) => item.bytes.toString())).toEqual(texts);
    const wrapped = Buffer.from(`{"a":"]}\\"","batch":${body.toString()},"z":[1]}`);
    expect(sliceBatch(wrapped, 'batch', limits).items.map((item) => item.bytes.toString())).toEqual(texts);
    const nested = Buffer.from(`{"page":{"batch":[[]]}, "page" : {"x":{"batch":0},"batch" :${body.toString()} } }`);
    expect(slicePath(nested, ['page', 'batch'], limits).items.map((item) => item.bytes.toString())).toEqual(texts);
  }));
});

test.each([['truncated', '[{"a":1}'], ['trailing bytes', '[1] x'], ['NaN', '[NaN]'], ['a BOM', '\ufeff[]'], ['a lone quote', '["a]'], ['a comment', '[1] // x'], ['an object', '{}'], ['nothing', '']])('%s is malformed', (_name, text) => {
  expect(() => sliceArray(Buffer.from(text), limits)).toThrow(expect.objectContaining({ code: 'body-malformed' }));
});

test('bytes that are not UTF-8 are malformed', () => {
  expect(() => parseJson(Buffer.from([0x22, 0xff, 0x22]))).toThrow(expect.objectContaining({ code: 'body-malformed' }));
});

test('a hundred thousand brackets are refused before they are parsed', () => {
  expect(() => parseJson(Buffer.from('['.repeat(100_000)))).toThrow(expect.objectContaining({ code: 'body-too-deep' }));
});

test('__proto__ is refused, also when any letter of it is escaped', () => {
  for (const text of ['{"__proto__":{"x":1}}', '{"a":[{"\\u005f_proto__":1}]}', '{"__pr\\u006fto__":1}']) expect(() => parseJson(Buffer.from(text))).toThrow(expect.objectContaining({ code: 'body-malformed' }));
  expect(({} as Record<string, unknown>)['x']).toBeUndefined();
});

test('half a surrogate pair is refused: two different ids would become one', () => {
  for (const text of ['"\\ud800"', '{"a":["\\uDC00x"]}', '{"\\ud83d":1}']) expect(() => parseJson(Buffer.from(text))).toThrow(expect.objectContaining({ code: 'body-malformed' }));
  expect(parseJson(Buffer.from('"\\ud83d\\ude00"'))).toBe('😀');
});

test('a key constructor is data like any other, a repeated key counts once', () => {
  expect(Object.keys(parseJson(Buffer.from('{"constructor":{"prototype":{"x":1}},"a":1,"a":2}')) as object)).toEqual(['constructor', 'a']);
  expect(({} as Record<string, unknown>)['x']).toBeUndefined();
});

test('an id of 20 digits keeps its digits', () => {
  expect(parseJson(Buffer.from('{"id":12345678901234567890,"n":12,"t":"12345678901234567890","f":0.12345678901234567}'))).toMatchObject({ id: '12345678901234567890', n: 12, t: '12345678901234567890' });
});

test('long integers keep their digits wherever they stand; fractions and text stay what they are', () => {
  expect(parseJson(Buffer.from('[12345678901234567890,-12345678901234567890, 12345678901234567890]'))).toEqual(['12345678901234567890', '-12345678901234567890', '12345678901234567890']);
  expect(parseJson(Buffer.from('12345678901234567890'))).toBe('12345678901234567890');
  expect(parseJson(Buffer.from('[0.1234567890123456,1234567890123456,"12345678901234567890"]'))).toEqual([0.1234567890123456, 1234567890123456, '12345678901234567890']);
});

test('a run of 16 digits is seen wherever it stands, and no shorter one', () => {
  const part = fc.oneof(fc.integer({ min: 1, max: 40 }).map((n) => '7'.repeat(n)), fc.constantFrom('14', '15', '16', '17').map((n) => '0'.repeat(Number(n))), fc.stringMatching(/^[a-z/:é{"]{1,20}$/));
  fc.assert(fc.property(fc.array(part, { maxLength: 12 }), (parts) => {
    const text = parts.join('');
    expect(hasLongDigits(Buffer.from(text))).toBe(/\d{16}/.test(text));
  }), { numRuns: 2000 });
});

test('a long run of digits is looked at once, not once per digit', () => {
  expect(cpuMs(() => { parseJson(Buffer.from(`{"a":"${'1'.repeat(500_000)}"}`)); })).toBeLessThan(1000);
});

test('too many items are refused', () => {
  expect(() => sliceArray(Buffer.from(JSON.stringify(Array(101).fill(1))), limits)).toThrow(expect.objectContaining({ code: 'too-many-items' }));
});

test('one object loses only the space around it', () => {
  expect(oneObject(Buffer.from(' {"a": "}"} \n'), limits).bytes.toString()).toBe('{"a": "}"}');
});
