import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTree, encodeLeaf, newSigningKey, signCheckpoint, signingKey, verifierOf } from '@weir/audit';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { Refused } from './client.ts';
import { proveEvent } from './prove-event.ts';

const signer = signingKey('weir.audit', newSigningKey());
const paint = (text: string): string => text;
let dir: string;
beforeEach(() => { dir = mkdtempSync(join(tmpdir(), 'weir-prove-')); });
afterEach(() => rmSync(dir, { recursive: true, force: true }));

const decided = { stage: 'decided', at: '2026-11-26T00:00:00.000Z', release: 'rel_1', destination: 'crm', operation: 'upsert', outputId: 'out_1', effect: 'allow', rule: 'r', consent: [] };

/** One event that was decided once, under a release with its leaf. `explain`: what the control service answers. */
function world(explain: () => object, values: object = {}, more: object[] = []) {
  const leaf = encodeLeaf({ id: 'leaf_00000000-0000-4000-8000-000000000001', kind: 'intent', at: 0, actor: 'ann', action: 'release.apply', target: 'rel_1', of: null, details: {} });
  const tree = createTree();
  tree.append(leaf);
  const checkpoint = signCheckpoint({ origin: signer.name, size: 1, root: tree.root() }, signer);
  writeFileSync(join(dir, 'audit-checkpoints.jsonl'), `${JSON.stringify(checkpoint)}\n`);
  const stages = [decided, ...more];
  const client = {
    find: async () => ({ stages }),
    get: async (path: string) => (path.includes('checkpoint') ? { checkpoint, verifier: verifierOf(signer) } : path.includes('leaves') ? { size: 1, leaves: [{ index: 0, bytes: leaf.toString('base64') }] } : explain()),
  };
  const said = { rows: [] as string[][], lines: [] as string[], errors: [] as string[], json: undefined as any };
  const terminal = { paint: { green: paint, red: paint, yellow: paint }, line: (text = '') => said.lines.push(text), error: (text: string) => said.errors.push(text), table: (_head: string[], rows: string[][]) => { said.rows = rows; }, json: (value: unknown) => { said.json = value; } };
  return { said, prove: (json = false) => proveEvent({ terminal, json, values, target: { dataDir: dir } } as never, client as never, 'evt_1') };
}
const explained = (effect: string) => () => ({ release: 'rel_1', records: [{ outputId: 'out_1', routes: [{ destination: 'crm', operation: 'upsert', effect }] }] });

test('a record that is gone is told as not checked, in words and as JSON, and is neither ok nor a failure', async () => {
  const { said, prove } = world(() => { throw new Refused(404, { error: 'not-found' }); });
  expect(await prove()).toBe(0);
  expect(said.lines.find((l) => l.includes('decisions'))).toMatch(/^-- {2}decisions +not checked: /);
  await prove(true);
  expect(said.json).toMatchObject({ ok: true, keyGiven: false, claims: [{ ok: null, what: 'decisions' }, { ok: true, what: 'release' }, { ok: true, what: 'audit log' }] });
});

test('decisions made once more are told as those of the control service; others are a failure', async () => {
  const same = world(explained('allow'));
  expect(await same.prove()).toBe(0);
  expect(same.said.lines.find((l) => l.includes('decisions'))).toMatch(/^ok {2}decisions +made once more by the control service with rel_1/);
  const other = world(explained('deny'));
  expect(await other.prove()).toBe(1);
  expect(other.said.lines.find((l) => l.includes('decisions'))).toMatch(/^no .*crm\/upsert allow, now deny/);
});

test('of an event with several outputs each decision is compared with its own, shown with its own end, and not checked where its record is gone', async () => {
  const more = [{ ...decided, outputId: 'out_2', effect: 'deny', reason: 'consent-missing' }, { stage: 'outcome', at: decided.at, destination: 'crm', operation: 'upsert', outputId: 'out_2', state: 'denied', reason: 'consent-missing' }, { stage: 'outcome', at: decided.at, destination: 'crm', operation: 'upsert', outputId: 'out_1', state: 'delivered', reason: null }];
  const routes = (effect: string) => [{ destination: 'crm', operation: 'upsert', effect }];
  const own = world(() => ({ release: 'rel_1', records: [{ outputId: 'out_2', routes: routes('deny') }, { outputId: 'out_1', routes: routes('allow') }] }), {}, more);
  expect(await own.prove()).toBe(0);
  expect(own.said.lines.find((l) => l.includes('decisions'))).toMatch(/the same 2$/);
  expect(own.said.rows.map((row) => row[2])).toEqual(['delivered', 'denied']);
  const other = world(() => ({ release: 'rel_1', records: [{ outputId: 'out_1', routes: routes('deny') }, { outputId: 'out_2', routes: routes('allow') }] }), {}, more);
  expect(await other.prove()).toBe(1);
  // The person of the second was erased.
  const part = world(explained('allow'), {}, more);
  expect(await part.prove()).toBe(0);
  expect(part.said.lines.find((l) => l.includes('decisions'))).toMatch(/^ok .*the same 1; 1 not checked/);
  const none = world(() => ({ release: 'rel_1', records: [{ outputId: 'out_3', routes: [] }] }), {}, more);
  expect(await none.prove()).toBe(0);
  expect(none.said.lines.find((l) => l.includes('decisions'))).toMatch(/^-- /);
});

test('without --key it is told that the key is of the instance, and another key than that of the log is a failure', async () => {
  const own = world(explained('allow'));
  await own.prove();
  expect(own.said.errors).toEqual([expect.stringContaining('without --key')]);
  const noted = world(explained('allow'), { key: verifierOf(signer) });
  expect(await noted.prove()).toBe(0);
  expect(noted.said.errors).toEqual([]);
  expect(await world(explained('allow'), { key: verifierOf(signingKey('weir.audit', newSigningKey())) }).prove()).toBe(1);
});
