import type { AdapterConfig, Delivery } from '@weir/adapter';
import { expect, test } from 'vitest';
import { destination } from './destination.ts';
import { operationsOf } from './operations.ts';

const configOf = (value: unknown): AdapterConfig => ({ baseUrl: 'https://crm.example', authHeader: 'authorization', auth: 'first', operations: { put: { accepts: ['Profile'], path: '/people', headers: { 'X-App-Key': value }, verify: { path: '/people', headers: { 'X-App-Key': value }, answers: [{ status: 200, answer: 'applied' }] } } } }) as AdapterConfig;
const delivery = { operation: 'put', record: { email: 'ada@larkspur.example' }, recordType: 'weir.canonical.Profile', eventId: 'evt_1', outputId: 'out_1', acceptedAt: 1, identifiers: [] } as unknown as Delivery;

test('a header takes a secret by name, and has its value in calls and reads', () => {
  expect([...operationsOf(configOf({ secret: 'APP_KEY' })).keys()]).toEqual(['put']);
  // As the framework resolves it.
  const config = configOf('second');
  expect(destination.request(delivery, 'k', config, 1).headers).toMatchObject({ authorization: 'first', 'x-app-key': 'second' });
  expect(destination.verify!.request(delivery, 'k', config, 1).headers).toMatchObject({ authorization: 'first', 'x-app-key': 'second' });
});

test.each([{ secret: 'lower case' }, { secret: 'APP_KEY', more: 1 }, { value: 'x' }, { secret: 1 }, {}])('%j is no header', (value) => {
  expect(() => operationsOf(configOf(value))).toThrow(/operations\.put\.headers\.X-App-Key: a header is text, or \{ secret: NAME \}/);
});

test('what is wrong with a header is told without its text, which may be a secret', () => {
  for (const text of ['hunter2{{', 'hunter2 {{nobody.x}}']) {
    expect(() => operationsOf(configOf(text))).toThrow(/a placeholder is/);
    expect(() => operationsOf(configOf(text))).not.toThrow(/hunter2|nobody/);
  }
});
