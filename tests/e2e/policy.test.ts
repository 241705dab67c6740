import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'weir-policies-'));
const workspace = join(dir, 'workspace');
let weir: Instance;
const put = (path: string, text: string): void => writeFileSync(join(workspace, path), text);

beforeAll(async () => {
  cpSync(resolve(import.meta.dirname, '../../workspace'), workspace, { recursive: true });
  put('policies/extra.yaml', `rules:
  - { name: big-plans, effect: require-approval, when: 'destination == "crm" && record.plan == "enterprise"', expires: 48h }
  - { name: odd-plans, effect: escalate, when: 'destination == "crm" && record.plan == "odd"' }
  - { name: count-by-hash, effect: hash, when: destination == "warehouse", hash: { as: google, fields: [email] } }
  - { name: no-titles, effect: minimise, fields: [title] }
`);
  put('contracts/crm.odcs.yaml', `apiVersion: v3.1.0
kind: DataContract
id: crm
version: 1.0.0
status: active
schema:
  - name: Profile
    properties:
      - { name: email, required: true }
`);
  put('destinations/crm.yaml', `${readFileSync(join(workspace, 'destinations/crm.yaml'), 'utf8')}contract: crm.odcs.yaml\n`);
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace });
});
afterAll(async () => {
  await weir?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

async function send(id: string, traits: object): Promise<string> {
  const response = await weir.segment('identify', { messageId: id, userId: id, timestamp: '2026-02-03T04:05:06Z', traits });
  return ((await response.json()) as { eventId: string }).eventId;
}
const json = async (...args: string[]): Promise<any> => JSON.parse((await weir.cli(...args, '--json')).out);
const sent = async (destination: string, id: string): Promise<any[]> => (await weir.effects(destination)).filter((e) => JSON.stringify(e).includes(id));
const ended = async (eventId: string, destination: string): Promise<any> => waitFor(`an end of ${eventId} at ${destination}`, async () => ((await json('trace', eventId, '--wait', '0')).stages as any[]).findLast((s) => s.stage === 'outcome' && s.destination === destination));

test('a destination gets the fields of its purpose, hashed where a rule says so, and nothing else; the topic has no more', async () => {
  const event = await send('ada', { email: 'Ada.L@GMail.com', firstName: 'Ada-the-first', title: 'Countess', birthday: '1815-12-10', plan: 'free', address: { city: 'London-town', country: 'GB' } });
  await ended(event, 'warehouse');
  await ended(event, 'crm');
  const [warehouse] = await sent('warehouse', 'ada');
  expect(JSON.stringify(warehouse)).toContain(await digest('adal@gmail.com'));
  for (const value of ['Ada-the-first', 'Countess', '1815-12-10', 'London-town', 'gmail.com']) expect(JSON.stringify(warehouse)).not.toContain(value);
  const [crm] = await sent('crm', 'ada');
  expect(JSON.stringify(crm)).toContain('Ada-the-first');
  expect(JSON.stringify(crm)).not.toContain('1815-12-10');
});
const digest = async (text: string): Promise<string> => Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(text))).toString('hex');

test('a delivery that lacks what its destination needs is set aside with the reason, and nothing of it is sent', async () => {
  const event = await send('nomail', { firstName: 'Grace', plan: 'free' });
  expect(await ended(event, 'crm')).toMatchObject({ state: 'dead-lettered', reason: 'contract-breached', detail: 'email is required' });
  expect(await ended(event, 'warehouse')).toMatchObject({ state: 'delivered' });
  expect(await sent('crm', 'nomail')).toEqual([]);
  const { deadLetters } = await json('dlq', 'list', '--code', 'contract-breached');
  expect(deadLetters).toContainEqual(expect.objectContaining({ eventId: event, stage: 'policy', destination: 'crm', message: 'email is required' }));
});

test('a held delivery waits, is let through once, and nothing else of the event is sent again', async () => {
  const event = await send('vera', { email: 'vera@larkspur.example', plan: 'enterprise' });
  expect(await ended(event, 'crm')).toMatchObject({ state: 'quarantined', reason: 'approval:big-plans' });
  expect(await ended(event, 'warehouse')).toMatchObject({ state: 'delivered' });
  const [held] = ((await json('policy', 'held')).held as any[]).filter((h) => h.eventId === event);
  expect(held).toMatchObject({ rule: 'big-plans', destination: 'crm', state: 'waiting', by: null });
  expect(Date.parse(held.until) - Date.parse(held.at)).toBe(48 * 3_600_000);
  expect(await sent('crm', 'vera')).toEqual([]);
  expect(await json('policy', 'approve', held.id)).toMatchObject({ state: 'approved', by: 'admin' });
  await waitFor('the delivery', async () => ((await ended(event, 'crm')).state === 'delivered' ? true : undefined));
  await weir.settled();
  expect([(await sent('crm', 'vera')).length, (await sent('warehouse', 'vera')).length]).toEqual([1, 1]);
  expect((await weir.cli('policy', 'approve', held.id)).err).toContain('approved by admin already');
  const listed = async (...more: string[]) => ((await json('policy', 'held', ...more)).held as any[]).filter((h) => h.eventId === event).map((h) => h.state);
  expect([await listed(), await listed('--all')]).toEqual([[], ['approved']]);
  const { leaves } = await json('audit', 'list', '--limit', '1000');
  expect(leaves).toContainEqual(expect.objectContaining({ kind: 'intent', action: 'held.approve', actor: 'admin', target: held.id }));
});

test('escalation raises an incident that ends when the delivery is refused; what is refused is not sent', async () => {
  const event = await send('odette', { email: 'odette@larkspur.example', plan: 'odd' });
  expect(await ended(event, 'crm')).toMatchObject({ state: 'quarantined', reason: 'escalate:odd-plans' });
  await waitFor('the incident', async () => ((await weir.status()).incidents as any[]).find((i) => i.destination === 'policy/odd-plans'));
  const [held] = ((await json('policy', 'held')).held as any[]).filter((h) => h.eventId === event);
  expect(await json('policy', 'refuse', held.id)).toMatchObject({ state: 'refused' });
  expect(await waitFor('the refusal', async () => { const end = await ended(event, 'crm'); return end.state === 'denied' ? end : undefined; })).toMatchObject({ reason: 'approval-refused' });
  await waitFor('the end of the incident', async () => (((await weir.status()).incidents as any[]).length === 0 ? true : undefined));
  await weir.settled();
  expect(await sent('crm', 'odette')).toEqual([]);
});

test('explain names the rules that were looked at, which decided, and the values that they read', async () => {
  const event = await send('nina', { email: 'nina@test.invalid', plan: 'enterprise' });
  await ended(event, 'crm');
  const found = await json('policy', 'explain', event);
  const crm = found.records[0].routes.find((r: any) => r.destination === 'crm');
  expect(crm).toMatchObject({ effect: 'deny', reason: 'rule:no-test-people', rule: 'no-test-people' });
  expect(crm.looked.find((l: any) => l.rule === 'no-test-people')).toMatchObject({ result: 'applies', file: 'policies/default.yaml', values: { 'record.email': 'nina@test.invalid' } });
  expect(crm.looked.find((l: any) => l.rule === 'quiet-nights')).toMatchObject({ result: 'elsewhere' });
  const text = (await weir.cli('policy', 'explain', event)).out;
  expect(text).toMatch(/deny {2}crm\/upsert-contact: rule:no-test-people/);
  expect(text).toContain('record.email=nina@test.invalid');
  expect((await weir.cli('policy', 'explain', `evt_${'0'.repeat(32)}`)).code).toBe(1);
});

test('a rehearsal tells what a changed folder would decide otherwise, and changes nothing', async () => {
  const before = (await weir.status()).release;
  const changed = join(dir, 'changed');
  cpSync(workspace, changed, { recursive: true });
  writeFileSync(join(changed, 'policies/new.yaml'), 'rules:\n  - { name: no-free-plans, effect: deny, when: \'destination == "warehouse" && record.plan == "free"\' }\n  - { name: no-phones, effect: minimise, fields: [plan], when: destination == "crm" }\n');
  rmSync(join(changed, 'policies/default.test.yaml'));
  const run = await json('policy', 'rehearse', changed, '--since', '1h');
  expect(run).toMatchObject({ state: 'done', unrecorded: 0 });
  expect(run.read).toBe(run.total);
  expect(run.flips).toEqual([expect.objectContaining({ destination: 'warehouse', operation: 'insert', from: 'allow', to: 'deny rule:no-free-plans', rule: 'no-free-plans', count: 2 })]);
  expect(run.fields).toContainEqual(expect.objectContaining({ destination: 'crm', removed: ['plan'], added: [] }));
  expect((await weir.status()).release).toBe(before);
  const same = await json('policy', 'rehearse', workspace, '--since', '1h');
  expect([same.flips, same.fields]).toEqual([[], []]);
});

test('a policy test that fails keeps a release from being applied', async () => {
  const changed = join(dir, 'failing');
  cpSync(workspace, changed, { recursive: true });
  writeFileSync(join(changed, 'policies/extra.test.yaml'), 'tests:\n  - name: nobody gets anything\n    record: { type: Profile, email: a@b.example }\n    expect:\n      - { destination: crm, effect: deny }\n');
  for (const command of [['validate', changed], ['apply', changed]]) {
    const done = await weir.cli(...command);
    expect([done.code, done.err]).toEqual([2, expect.stringMatching(/^policies\/extra\.test\.yaml:5: test "nobody gets anything": crm: expected deny, got allow/)]);
  }
  expect((await weir.cli('policy', 'test', changed)).code).toBe(1);
});
