import { randomBytes } from 'node:crypto';
import type { CompiledRoute } from '@weir/policy';
import { keyedIdsOf, type Release } from '@weir/release';
import { expect, test } from 'vitest';
import { furtherTold, operationsTold } from './erasure-identifiers.ts';

const workspaceKey = randomBytes(32);
const operations = { deletes: { identifiers: ['email', 'phone'], takesOne: true }, both: { identifiers: ['email', 'phone'] }, user: { identifiers: ['userId'] }, whole: {} };
const destinations = new Map([['crm', { operations }]]) as unknown as Release['destinations'];
const routes = Object.keys(operations).map((operation) => ({ destination: 'crm', operation }) as unknown as CompiledRoute);
const person = { userId: 'u-7', email: 'ada@larkspur.example', externalIds: [] };

test('a request that takes the address or else the number is made for each of them, and no other twice', () => {
  const told = furtherTold(workspaceKey, { ...person, phone: '+4930901820' }, routes, destinations);
  const phone = '+4930901820';
  expect(told).toEqual([{ id: keyedIdsOf(workspaceKey, { phone })[0], identifiers: { userId: 'u-7', phone, externalIds: [] }, leftOut: ['crm/both', 'crm/user', 'crm/whole'] }]);
  expect(routes.map((route) => operationsTold(route, told).length)).toEqual([2, 1, 1, 1]);
  expect(furtherTold(workspaceKey, person, routes, destinations)).toEqual([]);
  expect(furtherTold(workspaceKey, { ...person, phone: '+4930901820' }, routes.slice(1), destinations)).toEqual([]);
});

test('a second address goes to what names people by an address, or does not say by what', () => {
  const told = furtherTold(workspaceKey, { ...person, further: [{ type: 'email', value: 'a@old.example' }] }, routes, destinations);
  expect(told.map(({ leftOut }) => leftOut)).toEqual([['crm/user']]);
});
