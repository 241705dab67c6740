import { WeirError } from '@weir/errors';
import type { Principal } from '@weir/release';
import { expect, test } from 'vitest';
import { createAuthenticate } from './authenticate.ts';

const apiToken = `weir_${'a'.repeat(43)}`;
const oncall: Principal = { id: 'token:oncall', grants: [] };
const away = (): never => { throw new WeirError('secret-unavailable', 'secret ADMIN_TOKEN cannot be had: vault vault.internal:8200: secret/weir sealed (503)'); };
const create = (adminToken: () => string | undefined) => createAuthenticate({ adminToken, principalOf: (token) => (token === apiToken ? oncall : undefined), now: () => 0 });
const answer = async (adminToken: () => string | undefined, token: string): Promise<string> => create(adminToken)(`Bearer ${token}`).then(({ id }) => id, (error: WeirError) => `${error.code}: ${error.message}`);

test('an API token is taken while the admin token cannot be had: a kill switch does not wait for the vault', async () => {
  expect(await answer(away, apiToken)).toBe('token:oncall');
});

test('what is no other token is told to come again while the admin token cannot be had, and learns nothing of the vault', async () => {
  for (const token of ['x', `weir_${'b'.repeat(43)}`, 'a.b.c']) expect([token, await answer(away, token)]).toEqual([token, expect.stringMatching(/^secret-unavailable: (?!.*(vault\.internal|8200|ADMIN_TOKEN))/)]);
});

test('without an admin token nobody has it, and a stranger is not told how it would be set', async () => {
  const unset = (): never => { throw new WeirError('config-invalid', 'secret ADMIN_TOKEN is not set: give it as WEIR_SECRET_ADMIN_TOKEN'); };
  for (const none of [unset, () => undefined]) for (const token of ['x', 'undefined']) expect(await answer(none, token)).toMatch(/^unauthorized: (?!.*ADMIN_TOKEN)/);
});

test('the admin token counts whatever it looks like, and a part of it does not', async () => {
  for (const admin of ['the-admin-token', 'a.b.c', `weir_${'b'.repeat(43)}`]) expect([await answer(() => admin, admin), await answer(() => admin, admin.slice(0, -1))]).toEqual(['admin', expect.stringMatching(/^unauthorized/)]);
});

test('an error that is no answer about the admin token is not taken for one', async () => {
  const broken = new Error('a bug');
  await expect(create(() => { throw broken; })('Bearer x')).rejects.toBe(broken);
});
