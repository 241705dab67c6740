import type { OperationManifest } from '@weir/adapter';
import type { YamlValue } from '@weir/yaml';
import { expect, test } from 'vitest';
import { compilePaths } from './paths.ts';

const operation = (over: Partial<OperationManifest> = {}): OperationManifest => ({ kind: 'use', accepts: ['weir.canonical.Event'], doc: '', idempotency: { scheme: 'body-field', pastWindow: 'hold', cite: '' }, ...over });
const operations = { track: operation(), bulk: operation(), drop: operation({ kind: 'restrict' }), other: operation({ accepts: ['weir.canonical.Order'] }), brief: operation({ idempotency: { scheme: 'body-field', windowMs: 1000, pastWindow: 'hold', cite: '' } }), again: operation({ idempotency: { scheme: 'body-field', pastWindow: 'resend', cite: '' } }), blind: operation({ idempotency: { scheme: 'none', pastWindow: 'hold', cite: '' } }) };
function compile(...routes: YamlValue[]) {
  const problems: string[] = [];
  return { paths: compilePaths(routes, operations, (at, message) => { problems.push(`${at.join('.')}: ${message}`); }), problems };
}

test('a route lists operations that do the same, its own among them', () => {
  expect(compile({ on: 'Event', operation: 'track', via: ['bulk'] }, { on: 'Event', operation: 'bulk' })).toEqual({ paths: new Map([['track', ['track', 'bulk']]]), problems: [] });
});

test.each<[YamlValue, RegExp]>([
  [{ on: 'Event', operation: 'track', via: ['bukl'] }, /routes.0.via: no operation bukl: did you mean bulk/], [{ on: 'Event', operation: 'track', via: 'bulk' }, /no list/], [{ on: 'Event', operation: 'track', via: [['bulk']] }, /no list/],
  [{ on: 'Event', operation: 'track', via: ['drop'] }, /same kind/], [{ on: 'Event', operation: 'track', via: ['other'] }, /does not take Event/], [{ on: 'Event', operation: 'track', via: ['blind'] }, /repetition/], [{ on: 'Event', operation: 'track', via: ['brief'] }, /as long as track/], [{ on: 'Event', operation: 'track', via: ['again'] }, /as long as track/], [{ on: 'Event', operation: 'blind', via: ['blind'] }, /repetition/],
])('%j is refused', (route, message) => {
  expect(compile(route).problems.join()).toMatch(message);
});

test('two routes of one operation that list other paths are refused', () => {
  expect(compile({ on: 'Event', operation: 'track', via: ['bulk'] }, { on: 'Event', operation: 'track', via: ['track'] }).problems).toHaveLength(1);
});
