import type { OutRecord } from '@weir/log';
import { beforeEach, expect, test } from 'vitest';
import { openAccess, type Access } from './tokens.ts';

const day = 86_400_000;
let now: number;
/** weir.control, as it was written. */
let log: OutRecord[];
let access: Access;

/** The log is the edge here: bytes are JSON, as this test has no registry. */
const open = (): Promise<Access> => openAccess({
  reader: { read: async (_t: string, _p: number, from: number, to: number, take: (batch: object) => Promise<void>) => take({ records: log.slice(from, to).map((r) => ({ headers: [], ...r })), nextOffset: to }), follow: async () => ({ close: async () => {} }) } as never,
  appender: { append: async (_t: string, records: OutRecord[]) => records.map((r) => log.push(r) - 1) } as never, admin: { endOffsets: async () => new Map([[0, log.length]]) },
  serde: { prepare: async () => {}, encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)), decode: (bytes: Buffer) => ({ value: JSON.parse(bytes.toString()) }) } as never,
  topic: 'weir.control', now: () => now, failed: (error) => { throw error; },
});
beforeEach(async () => {
  now = 1000 * day;
  log = [];
  access = await open();
});
const issuedBy = async (by: string): Promise<string> => `token:${(await access.issue({ name: 'x', grants: ['approver'], days: 30 }, by, 'leaf_t')).id}`;
const proposedBy = async (by: string, hash = 'rel_a'): Promise<string> => (await access.propose({ hash, files: [], message: null }, by, `leaf_${hash}`)).id;
const refused = expect.objectContaining({ code: 'self-approval' });

test('who may issue tokens can not approve with one of his own making, through however many tokens in between', async () => {
  const one = await issuedBy('oidc:eve');
  const two = await issuedBy(one);
  const id = await proposedBy('oidc:eve');
  for (const by of ['oidc:eve', one, two]) expect(() => access.approvable(id, by)).toThrow(refused);
  // The chain is on the log: another instance knows it.
  access = await open();
  for (const by of ['oidc:eve', one, two]) expect(() => access.approvable(id, by)).toThrow(refused);
  expect(access.approvable(id, 'oidc:bob')).toMatchObject({ id });
  expect(access.approvable(id, await issuedBy('oidc:bob'))).toMatchObject({ id });
});

test('nor can he propose with a token of his own making and approve himself, or with a second one, also when they are revoked', async () => {
  const [one, two] = [await issuedBy('oidc:eve'), await issuedBy('oidc:eve')];
  const id = await proposedBy(one);
  await access.revoke(one.slice('token:'.length), 'leaf_r');
  for (const by of ['oidc:eve', two]) expect(() => access.approvable(id, by)).toThrow(refused);
});

test('two tokens that the admin token issued are of two people, and neither of them is the admin', async () => {
  const [alice, bob] = [await issuedBy('admin'), await issuedBy('admin')];
  expect(access.approvable(await proposedBy(alice), bob)).toMatchObject({ proposedBy: alice });
  expect(() => access.approvable('prop_none', bob)).toThrow(expect.objectContaining({ code: 'not-found' }));
  const own = await proposedBy('admin');
  for (const by of ['admin', alice]) expect(() => access.approvable(own, by)).toThrow(refused);
  const ofAlice = await proposedBy(alice);
  expect(() => access.approvable(ofAlice, 'admin')).toThrow(refused);
});

test('a proposal that nobody approves is gone after 30 days, and of more than 100 the oldest is: from memory and from the log', async () => {
  const old = await proposedBy('oidc:a', 'rel_old');
  now += 30 * day;
  expect(access.proposals()).toEqual([]);
  expect(() => access.approvable(old, 'oidc:b')).toThrow(expect.objectContaining({ code: 'not-found' }));
  const ids: string[] = [];
  for (let i = 0; i < 101; i++) ids.push(await proposedBy('oidc:a', `rel_${now++}`));
  expect(access.proposals().map((p) => p.id)).toEqual(ids.slice(1).reverse());
  const gone = log.filter((r) => r.value === null).map((r) => r.key!.toString());
  expect(gone).toEqual([`proposal/${old}`, `proposal/${ids[0]}`]);
  access = await open();
  expect(access.proposals()).toHaveLength(100);
});
