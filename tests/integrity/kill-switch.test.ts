import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

const arrivals = async (): Promise<{ at: string; destination: string }[]> => (await (await fetch(`${weir.sandbox}/arrivals`)).json()) as { at: string; destination: string }[];
const after = (list: { at: string; destination: string }[], destination: string, ms: number): number => list.filter((a) => a.destination === destination && Date.parse(a.at) > ms).length;
const people = 60;
const perPerson = 30;

/** One batch of each round; answered 200. */
async function send(round: number): Promise<void> {
  const batch = Array.from({ length: people }, (_, i) => ({ type: 'identify', messageId: `k-${round}-${i}`, userId: `k${i}`, timestamp: '2026-03-04T05:06:07Z', traits: { email: `k${i}@larkspur.example`, plan: `p${String(round).padStart(3, '0')}` } }));
  const response = await weir.segment('batch', { batch });
  expect(response.status).toBe(200);
}

test('the kill switch stops the calls to its destination within a second under load, keeps its events over a restart, leaves others alone, and has its audit leaf', async () => {
  // 16 calls at once of 100 ms each: the 1800 deliveries to crm are more than ten seconds of work.
  await fetch(`${weir.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ destination: 'crm', mode: 'slow', delayMs: 100 }) });
  for (let round = 0; round < perPerson; round++) await send(round);
  await waitFor('crm is called', async () => after(await arrivals(), 'crm', 0) > 50);
  const paused = await weir.cli('destination', 'pause', 'crm', '--reason', 'wrong segment');
  const acknowledged = Date.now();
  expect(paused).toMatchObject({ code: 0, out: expect.stringContaining('crm is paused') });
  const status = await weir.status();
  expect(status.paused).toMatchObject([{ destination: 'crm', paused: true, reason: 'wrong segment' }]);
  expect((await weir.cli('status')).out).toContain('crm is paused by the kill switch');
  await waitFor('the warehouse has everything', async () => after(await arrivals(), 'warehouse', 0) >= people * perPerson);
  await waitFor('three seconds have passed', () => Date.now() > acknowledged + 3000);
  const held = await arrivals();
  expect(after(held, 'crm', acknowledged + 1000)).toBe(0);
  expect(after(held, 'crm', 0)).toBeLessThan(people * perPerson);
  await weir.stop('SIGKILL');
  await weir.start();
  const restarted = Date.now();
  await waitFor('two seconds have passed', () => Date.now() > restarted + 2000);
  expect(after(await arrivals(), 'crm', restarted)).toBe(0);
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  expect((await weir.cli('destination', 'resume', 'crm')).code).toBe(0);
  // Of crm alone: klaviyo has as many profiles to take, and at the 750 a minute of its own limit they are minutes of work.
  await waitFor('crm has ended all it holds', async () => {
    const { events, lag } = await weir.status();
    return events.pending === 0 && lag['dispatcher.crm'] === 0;
  }, 90_000);
  const effects = await weir.effects('crm');
  for (let i = 0; i < people; i++) expect(effects.filter((e) => e.subject === `k${i}@larkspur.example`).map((e) => e.body.plan)).toEqual(Array.from({ length: perPerson }, (_, r) => `p${String(r).padStart(3, '0')}`));
  const leaves = (await (await weir.api('/v1/audit/leaves?limit=1000')).json()) as { leaves: { bytes: string }[] };
  expect(leaves.leaves.map((l) => JSON.parse(Buffer.from(l.bytes, 'base64').toString()) as { kind: string; action: string; target: string }).filter((l) => l.kind === 'intent' && l.action.startsWith('destination.')).map((l) => `${l.action} ${l.target}`)).toEqual(['destination.pause crm', 'destination.resume crm']);
}, 180_000);

test('what is no destination is told: exit 2 for a name that is none, exit 1 for one that is not there, and nothing is switched', async () => {
  expect(await weir.cli('destination', 'pause', '../crm')).toMatchObject({ code: 2 });
  expect(await weir.cli('destination', 'stop', 'crm')).toMatchObject({ code: 2 });
  expect(await weir.cli('destination', 'pause', 'nope')).toMatchObject({ code: 1, err: expect.stringContaining('no destination nope') });
  expect((await weir.status()).paused).toEqual([]);
});
