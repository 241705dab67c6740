import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
let dir: string;
/** A zone in which today is not about to end. */
const timezone = new Date().getUTCHours() >= 22 ? 'Asia/Tokyo' : 'UTC';
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weir-caps-'));
  cpSync(resolve(import.meta.dirname, '../../workspace'), dir, { recursive: true });
  appendFileSync(join(dir, 'destinations/crm.yaml'), `\ncaps:\n  - { name: three-a-day, max: 3, purpose: service, timezone: ${timezone}, over: deny }\n`);
  appendFileSync(join(dir, 'destinations/warehouse.yaml'), `\ncaps:\n  - { name: two-a-day, max: 2, timezone: ${timezone}, over: delay }\n`);
  appendFileSync(join(dir, 'destinations/newsletter.yaml'), `\ncaps:\n  - { name: one-a-day, max: 1, timezone: ${timezone}, over: delay }\n`);
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: dir });
});
afterAll(async () => {
  await weir?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

let n = 0;
async function send(name: string, plan: string, traits: object = {}): Promise<string> {
  const response = await weir.segment('identify', { messageId: `c-${n++}`, userId: name, timestamp: '2026-03-04T05:06:07Z', traits: { email: `${name}@larkspur.example`, plan, ...traits } });
  expect(response.status).toBe(200);
  return ((await response.json()) as { eventId: string }).eventId;
}
const outcomes = async (eventId: string, destination: string): Promise<{ state: string; reason: string | null }[]> => (((await (await weir.api(`/v1/events/${eventId}/trace`)).json()) as any).stages as any[]).filter((s) => s.stage === 'outcome' && s.destination === destination);
const effects = async (destination: string, name: string): Promise<number> => (await weir.effects(destination)).filter((e) => JSON.stringify(e).includes(`${name}@larkspur.example`)).length;

test('a person gets no more a day than the cap, also over a crash, a lost cache and a restart; more is denied with the cap as the reason, or waits for the next day', async () => {
  for (const plan of ['a', 'b']) await send('ada', plan);
  await waitFor('two are delivered', async () => (await effects('crm', 'ada')) === 2 && (await effects('warehouse', 'ada')) === 2);
  await weir.stop('SIGKILL');
  // The caches are gone, too: what counts is on the ledger topics.
  for (const folder of readdirSync(join(weir.dataDir, 'state'))) if (folder.startsWith('dispatcher')) rmSync(join(weir.dataDir, 'state', folder), { recursive: true });
  await weir.start();
  const later: string[] = [];
  for (const plan of ['c', 'd', 'e']) later.push(await send('ada', plan));
  await send('ben', 'a');
  await waitFor('the last has its end at the crm', async () => (await outcomes(later[2]!, 'crm')).length > 0);
  expect(await effects('crm', 'ada')).toBe(3);
  expect((await outcomes(later[0]!, 'crm'))[0]).toMatchObject({ state: 'delivered' });
  for (const id of later.slice(1)) expect((await outcomes(id, 'crm'))[0]).toMatchObject({ state: 'denied', reason: 'cap:three-a-day' });
  await waitFor('ben is not counted with ada', async () => (await effects('crm', 'ben')) === 1 && (await effects('warehouse', 'ben')) === 1);
  await waitFor('ada waits at the warehouse', async () => /weir_parked_subjects\{destination="warehouse"\} 1/.test(await (await fetch(`http://127.0.0.1:${weir.base + 4}/metrics`)).text()));
  expect(await effects('warehouse', 'ada')).toBe(2);
  expect(await outcomes(later[0]!, 'warehouse')).toEqual([]);
}, 150_000);

test('an unsubscribe does not wait behind a mail that waits for the next day, and the mail ends denied', async () => {
  const told = async (): Promise<string[]> => (await weir.effects('newsletter')).filter((e) => e.subject === 'zoe@larkspur.example').map((e) => e.operation);
  expect((await weir.cli('consent', 'set', 'zoe@larkspur.example', '--purpose', 'email-marketing', '--state', 'granted')).code).toBe(0);
  await send('zoe', 'a');
  await waitFor('the first is delivered', async () => (await told()).length === 1);
  const second = await send('zoe', 'b');
  await waitFor('the second waits', async () => /weir_parked_subjects\{destination="newsletter"\} 1/.test(await (await fetch(`http://127.0.0.1:${weir.base + 4}/metrics`)).text()));
  // Of the same subject as what waits: by the user id.
  await send('zoe', 'b', { marketingConsent: false });
  await waitFor('the newsletter is told', async () => (await told()).length === 2);
  expect(await told()).toEqual(['subscribers', 'unsubscribes']);
  await waitFor('the second has its end', async () => (await outcomes(second, 'newsletter')).length > 0);
  expect((await outcomes(second, 'newsletter'))[0]).toMatchObject({ state: 'denied', reason: 'consent-withdrawn' });
}, 60_000);
