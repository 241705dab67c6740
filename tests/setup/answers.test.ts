import { anyOf, count, flag, list, map, nullable, object, oneOf, optional, text, type AnySchema } from '@weir/service';
import fc from 'fast-check';
import Fastify from 'fastify';
import { expect, test } from 'vitest';
import { hold, mismatch } from './answers.ts';

const reply = object('What is there.', { name: text('Its name.'), parts: list(object('A part.', { size: count('Bytes.'), note: optional(text('A word.')) }), 'Its parts.') });

async function problems(answer: unknown, status = 200, type = 'application/json'): Promise<string[]> {
  const found: string[] = [];
  const app = Fastify();
  hold(app, (problem) => found.push(problem));
  app.get('/thing', { config: { replies: { 200: reply }, errors: ['not-found', { code: 'bad-request', status: 413 }] } }, async (_request, answered) => answered.code(status).type(type).send(JSON.stringify(answer)));
  app.get('/other', async () => ({ anything: 1 }));
  await app.inject('/thing');
  await app.inject('/other');
  await app.inject('/nothing');
  await app.inject({ method: 'HEAD', url: '/thing' });
  await app.close();
  return found;
}

test('an answer that is as its route declares it is let be', async () => {
  expect(await problems({ name: 'a', parts: [{ size: 1 }, { size: 0, note: 'x' }] })).toEqual([]);
  expect(await problems({ error: 'not-found', message: 'no' }, 404)).toEqual([]);
  expect(await problems({ error: 'bad-request', message: 'no' }, 413)).toEqual([]);
});

test('a wrong field, one that lacks, one that nobody declared, another status, another code and another type are each told', async () => {
  for (const [answer, what, status, type] of [
    [{ name: 1, parts: [] }, '/name must be string'], [{ parts: [] }, 'must have required property'], [{ name: 'a', parts: [{ size: 1, more: 2 }] }, '"additionalProperty":"more"'], [{ name: 'a', parts: [{ size: -1 }] }, 'must be >= 0'], [{ name: 'a', parts: null }, '/parts must be array'],
    [{ name: 'a', parts: [] }, 'is not declared', 201], [{ name: 'a', parts: [] }, 'is text/plain', 200, 'text/plain'],
    [{ error: 'forbidden', message: 'no' }, '403 forbidden is not declared', 403], [{ error: 'bad-request', message: 'no' }, '400 bad-request is not declared', 400], [{ error: 'not-found' }, "must have required property 'message'", 404],
  ] as const) expect(await problems(answer, status ?? 200, type ?? 'application/json')).toEqual([expect.stringContaining(what)]);
});

/** A schema, with a value that it describes. */
interface Described { readonly schema: AnySchema; readonly value: unknown }
const described: fc.Arbitrary<Described> = fc.letrec<{ any: Described }>((tie) => ({
  any: fc.oneof({ maxDepth: 3 },
    fc.string().map((value) => ({ schema: text('A text.'), value })),
    fc.nat().map((value) => ({ schema: count('A count.'), value })),
    fc.boolean().map((value) => ({ schema: flag('A flag.'), value })),
    fc.constantFrom('a', 'b').map((value) => ({ schema: oneOf(['a', 'b'], 'A word.'), value })),
    fc.tuple(tie('any'), fc.boolean()).map(([{ schema, value }, none]) => ({ schema: nullable(schema), value: none ? null : value })),
    fc.tuple(tie('any'), fc.nat(3)).map(([{ schema, value }, n]) => ({ schema: list(schema, 'A list.'), value: Array.from({ length: n }, () => value) })),
    fc.tuple(tie('any'), fc.array(fc.stringMatching(/^[a-z]{1,4}$/))).map(([{ schema, value }, names]) => ({ schema: map(schema, 'A table.'), value: Object.fromEntries(names.map((name) => [name, value])) })),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => ({ schema: anyOf('Either.', a.schema, b.schema), value: b.value })),
    fc.array(fc.tuple(tie('any'), fc.constantFrom('required', 'there', 'absent')), { maxLength: 4 }).map((fields) => ({
      schema: object('An object.', Object.fromEntries(fields.map(([{ schema }, kind], i) => [`f${i}`, kind === 'required' ? schema : optional(schema)]))),
      value: Object.fromEntries(fields.flatMap(([{ value }, kind], i) => (kind === 'absent' ? [] : [[`f${i}`, value]]))),
    }))),
})).any;

test('whatever is built: what it describes passes, and a field less or more, or of another type, does not', () => {
  fc.assert(fc.property(described, ({ schema, value }) => {
    expect(mismatch(schema, JSON.stringify(value))).toBe('');
    const whole = object('The answer.', { inner: schema, size: count('A count.') });
    expect(mismatch(whole, JSON.stringify({ inner: value, size: 0 }))).toBe('');
    for (const bad of [{ size: 0 }, { inner: value }, { inner: value, size: '0' }, { inner: value, size: 0, more: 1 }]) expect(mismatch(whole, JSON.stringify(bad))).not.toBe('');
  }), { numRuns: 200 });
});
