import { count, list, object, optional, text } from '@weir/service';
import Fastify from 'fastify';
import { expect, test } from 'vitest';
import { hold } from './answers.ts';

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
