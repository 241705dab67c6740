import { createHash } from 'node:crypto';
import { roleNames, roles, type StoredToken } from '@weir/release';
import { expect, test } from 'vitest';
import { mayOpen, openConsentAccess } from './consent-access.ts';

const tokenOf = (letter: string): string => `weir_${letter.repeat(43)}`;
let now = 1000;

/** Access as weir.control tells it: `read` is there at the start, `tell` comes after. */
async function access(read: readonly StoredToken[]) {
  const batch = (tokens: readonly StoredToken[]) => ({ records: tokens.map((value) => ({ key: Buffer.from(`token/${value.id}`), value })) }) as never;
  let follow: (records: never) => Promise<void> = async () => {};
  const reader = {
    read: async (_topic: string, _partition: number, _from: number, _to: number, take: (records: never) => Promise<void>) => take(batch(read)),
    follow: async (_topic: string, _from: unknown, take: (records: never) => Promise<void>) => { follow = take; return { close: async () => {} }; },
  };
  const opened = await openConsentAccess({ reader: reader as never, admin: { endOffsets: async () => new Map([[0, 1]]) } as never, serde: { prepare: async () => {}, decode: (value: unknown) => ({ name: 'weir.internal.ApiToken', value }) } as never, topic: 'weir.control', now: () => now, adminToken: () => 'the-admin-token', fail: (error) => { throw error; } });
  const status = (authorization: string | undefined): Promise<string> => opened.authorize(authorization).then(({ id }) => id, (error: { code: string }) => error.code);
  return { status, principal: opened.authorize, tell: (token: StoredToken) => follow(batch([token])) };
}
const stored = (letter: string, grants: readonly string[], over: Partial<StoredToken> = {}): StoredToken => ({ id: `tok_${letter}`, name: letter, hash: createHash('sha256').update(tokenOf(letter)).digest('hex'), grants, createdAt: 0, createdBy: 'admin', expiresAt: 2000, revokedAt: null, leaf: 'leaf_x', ...over });

test('every role: only those with consent.write record consent', async () => {
  for (const role of roleNames) {
    const { status } = await access([stored('a', [role])]);
    expect([role, await status(`Bearer ${tokenOf('a')}`)]).toEqual([role, (roles[role] as readonly string[]).includes('consent.write') ? 'token:tok_a' : 'forbidden']);
  }
});

test('a grant over some sources or destinations is let in, and may open nobody; nor may two halves of one over everything', async () => {
  for (const [grants, opens] of [[['privacy@shop:crm'], false], [['consent@*:crm'], false], [['admin@shop:*'], false], [['consent@shop:*', 'consent@*:crm'], false], [['viewer@shop:crm', 'consent@*:*'], true]] as const) {
    const { principal } = await access([stored('a', grants)]);
    expect([grants, mayOpen(await principal(`Bearer ${tokenOf('a')}`))]).toEqual([grants, opens]);
  }
});

test('a token that is expired, revoked, unknown or malformed is none; a revocation counts at once', async () => {
  const { status, tell } = await access([stored('a', ['consent']), stored('b', ['consent'], { revokedAt: 500 }), stored('c', ['consent'], { expiresAt: 1000 })]);
  const a = `Bearer ${tokenOf('a')}`;
  expect([await status(a), await status('Bearer the-admin-token')]).toEqual(['token:tok_a', 'admin']);
  const bad = [undefined, '', 'Bearer', `Bearer ${tokenOf('b')}`, `Bearer ${tokenOf('c')}`, `Bearer ${tokenOf('z')}`, `Bearer ${tokenOf('a').slice(0, -1)}`, `Bearer ${tokenOf('a')}a`, `Basic ${tokenOf('a')}`, tokenOf('a'), 'Bearer the-admin-toke', `Bearer ${stored('a', []).hash}`, 'Bearer __proto__', `Bearer eyJhbGciOiJub25lIn0.${Buffer.from('{"sub":"admin"}').toString('base64url')}.`];
  for (const authorization of bad) expect([authorization, await status(authorization)]).toEqual([authorization, 'unauthorized']);
  now = 1999;
  expect(await status(a)).toBe('token:tok_a');
  now = 2000;
  expect(await status(a)).toBe('unauthorized');
  now = 1000;
  await tell(stored('a', ['consent'], { revokedAt: 900 }));
  expect(await status(a)).toBe('unauthorized');
});
