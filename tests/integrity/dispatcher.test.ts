import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), env: { WEIR_CALL_TIMEOUT_MS: '1500', WEIR_IN_LANE_TRIES: '2' } }); });
afterAll(() => weir?.dispose());
afterEach(() => fetch(`${weir.sandbox}/faults`, { method: 'DELETE' }));

const fault = async (order: object): Promise<void> => { expect((await fetch(`${weir.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(order) })).status).toBeLessThan(300); };
const arrivals = async (destination: string): Promise<any[]> => (await (await fetch(`${weir.sandbox}/arrivals?destination=${destination}`)).json()) as any[];
const of = (list: any[], name: string): any[] => list.filter((e) => e.subject === `${name}@larkspur.example`);
let n = 0;
/** One profile of a person; `plan` tells the updates apart. */
const send = async (name: string, plan: string): Promise<string> => {
  const response = await weir.segment('identify', { messageId: `d-${n++}`, userId: name, timestamp: '2026-03-04T05:06:07Z', traits: { email: `${name}@larkspur.example`, plan } });
  expect(response.status).toBe(200);
  return ((await response.json()) as any).eventId;
};
const plans = async (name: string): Promise<string[]> => of(await weir.effects('crm'), name).map((e) => e.body.plan);

test('a 429 with Retry-After holds the destination, loses nothing and keeps the order', async () => {
  await fault({ destination: 'crm', mode: '429', count: 3, retryAfter: 1 });
  for (const plan of ['a', 'b', 'c']) for (const name of ['t1', 't2']) await send(name, plan);
  const status = await weir.settled();
  expect(await plans('t1')).toEqual(['a', 'b', 'c']);
  expect(await plans('t2')).toEqual(['a', 'b', 'c']);
  expect(status.deliveries.deadLettered).toBe(0);
  const refused = (await arrivals('crm')).filter((a) => a.status === 429);
  expect(refused).toHaveLength(3);
  // Two calls were in flight when the first refusal came; after it nothing is called for a second.
  expect(Date.parse(refused[2].at) - Date.parse(refused[0].at)).toBeGreaterThanOrEqual(900);
});

test.each(['tomorrow', '99999999999', '-5', ''])('a Retry-After of %j is survived', async (retryAfter) => {
  await fault({ destination: 'crm', mode: '429', count: 1, retryAfter: retryAfter === '' ? ' ' : retryAfter === '99999999999' ? new Date(Date.now() + 1000).toUTCString() : retryAfter });
  await send(`absurd-${n}`, 'x');
  await weir.settled();
});

test('a destination that is down for a while gets everything afterwards, once, in order; others do not wait for it', async () => {
  await fault({ destination: 'crm', mode: '5xx', forMs: 3_600_000 });
  for (const plan of ['a', 'b', 'c']) for (let i = 0; i < 8; i++) await send(`down${i}`, plan);
  await waitFor('the warehouse has them', async () => (await weir.effects('warehouse')).filter((e) => /^down\d/.test(e.subject)).length === 24);
  for (let i = 0; i < 8; i++) expect(await plans(`down${i}`)).toEqual([]);
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  await weir.settled();
  for (let i = 0; i < 8; i++) expect(await plans(`down${i}`)).toEqual(['a', 'b', 'c']);
});

test('a vendor that takes effect and then does not answer is asked again under the same key, and the effect is one', async () => {
  await fault({ destination: 'crm', mode: 'late-after-commit', count: 2, delayMs: 3000 });
  await fault({ destination: 'crm', mode: 'late-after-commit', count: 2 });
  await send('late', 'a');
  await weir.settled();
  const calls = of(await arrivals('crm'), 'late');
  expect(calls.length).toBeGreaterThan(1);
  expect(new Set(calls.map((c) => c.idempotencyKey)).size).toBe(1);
  expect(await plans('late')).toEqual(['a']);
});

test('a refusal for good goes to the dead letters with its bytes; redriven it takes effect once, under a new key, and a second redrive does nothing', async () => {
  await fault({ destination: 'crm', mode: 'permanent', count: 1, subject: 'dead@larkspur.example' });
  const eventId = await send('dead', 'a');
  await weir.settled();
  const [letter] = ((await (await weir.api('/v1/dlq?code=delivery-rejected')).json()) as any).deadLetters;
  expect(letter).toMatchObject({ eventId, stage: 'dispatcher', destination: 'crm' });
  expect(await plans('dead')).toEqual([]);
  for (let i = 0; i < 2; i++) {
    expect((await weir.cli('dlq', 'redrive', letter.id)).code).toBe(0);
    await weir.settled();
  }
  expect(await plans('dead')).toEqual(['a']);
  expect(new Set(of(await arrivals('crm'), 'dead').map((c) => c.idempotencyKey)).size).toBe(2);
});

test('an upsert that is redriven after a newer one was delivered does not roll the person back', async () => {
  await fault({ destination: 'crm', mode: 'permanent', count: 1, subject: 'old@larkspur.example' });
  const eventId = await send('old', 'old');
  await weir.settled();
  await send('old', 'new');
  await weir.settled();
  const letters = ((await (await weir.api('/v1/dlq?code=delivery-rejected')).json()) as any).deadLetters;
  await weir.cli('dlq', 'redrive', letters.find((l: any) => l.eventId === eventId).id);
  await weir.settled();
  // A profile replaces what an earlier one set, also at a vendor that takes keys (the crm): the old one is superseded.
  expect(await plans('old')).toEqual(['new']);
  const [order] = ((await (await weir.api('/v1/replays')).json()) as any).replays;
  expect(order).toMatchObject({ state: 'finished', counts: { requeued: 0, superseded: 1 } });
});

test('one record that the vendor answers with 403 is parked, and pauses its destination no more once others have passed', async () => {
  const incidents = async (): Promise<any[]> => (await weir.status()).incidents.filter((i: any) => i.destination === 'crm');
  const metrics = async (): Promise<string> => (await fetch(`http://127.0.0.1:${weir.base + 4}/metrics`)).text();
  await fault({ destination: 'crm', mode: 'auth', status: 403, subject: 'waf@larkspur.example' });
  await send('waf', 'a');
  await waitFor('the incident has begun', async () => (await incidents()).length === 1);
  await send('beside', 'a');
  await waitFor('the person is parked', async () => /weir_parked_subjects\{destination="crm"\} 1/.test(await metrics()), 30_000);
  await waitFor('the incident is over', async () => (await incidents()).length === 0);
  const tries = of(await arrivals('crm'), 'waf').length;
  await waitFor('it was tried again', async () => of(await arrivals('crm'), 'waf').length > tries, 60_000);
  // Nothing else was sent in between.
  expect(await incidents()).toEqual([]);
  expect(await metrics()).not.toMatch(/weir_destination_credential_paused\{destination="crm"/);
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  const before = (await weir.status()).deliveries.deadLettered;
  await weir.settled(90_000);
  expect([await plans('waf'), (await weir.status()).deliveries.deadLettered]).toEqual([['a'], before]);
  // Now it is the credential: a few in a row pause the destination, though single refusals were none of it.
  await fault({ destination: 'crm', mode: 'auth' });
  const refused = ['r1', 'r2', 'r3'];
  for (const name of refused) await send(name, 'a');
  await waitFor('an incident has begun', async () => (await incidents()).length === 1, 30_000);
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  await weir.settled(90_000);
  for (const name of refused) expect(await plans(name)).toEqual(['a']);
  expect((await weir.status()).deliveries.deadLettered).toBe(before);
  await waitFor('it is over', async () => (await incidents()).length === 0);
}, 240_000);

test('one bad person is parked while the neighbours go on, keeps the order, and survives a kill', async () => {
  await fault({ destination: 'crm', mode: '5xx', subject: 'bad@larkspur.example' });
  const began = performance.now();
  for (const plan of ['a', 'b', 'c']) for (const name of ['bad', 'good1', 'good2', 'good3']) await send(name, plan);
  await waitFor('the neighbours are through', async () => (await plans('good1')).length === 3 && (await plans('good2')).length === 3 && (await plans('good3')).length === 3, 20_000);
  expect(performance.now() - began).toBeLessThan(20_000);
  expect(await plans('bad')).toEqual([]);
  await waitFor('the person is parked', async () => /weir_parked_subjects\{destination="crm"\} 1/.test(await (await fetch(`http://127.0.0.1:${weir.base + 4}/metrics`)).text()), 30_000);
  await send('bad', 'd');
  await weir.stop('SIGKILL');
  await weir.start();
  await send('bad', 'e');
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  await weir.settled(90_000);
  expect(await plans('bad')).toEqual(['a', 'b', 'c', 'd', 'e']);
}, 150_000);
