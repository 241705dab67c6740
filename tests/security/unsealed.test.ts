import { resolve } from 'node:path';
import { fleetServices, startFleet, waitFor, type Fleet } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let sealing = 'false';
let fleet: Fleet;
const email = 'ada.plain@larkspur.example';
beforeAll(async () => { fleet = await startFleet({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: resolve(import.meta.dirname, '../../workspace'), envOf: () => ({ WEIR_SEALING: sealing }) }); });
afterAll(() => fleet?.dispose());

const send = async (n: number): Promise<void> => { expect((await fleet.segment('identify', { messageId: `u-${n}`, userId: 'plain-ada', timestamp: new Date(Date.UTC(2026, 2, 4) + n * 1000).toISOString(), traits: { email, plan: `plan-${n}` } })).status).toBe(200); };

test('a person with records of before the sealing is stopped and told, and not acknowledged as erased while they can be read', async () => {
  await send(1);
  await fleet.settled();
  sealing = 'true';
  for (const service of fleetServices.filter((s) => s !== 'sandbox')) await fleet.restart(service);
  await send(2);
  await fleet.settled();
  const erased = await fleet.cli('subject', 'erase', email, '--linked', 'all', '--yes');
  expect([erased.code, erased.err]).toEqual([1, expect.stringMatching(/it is not acknowledged: \d+ records can still be read, until retention takes them, at the latest 20/)]);
  expect(erased.out).toMatch(/^state +readable$/m);
  expect(erased.out).toMatch(/^erased +not yet$/m);
  const id = /^erasure +(leaf_\S+)$/m.exec(erased.out)![1]!;
  const shown = async (): Promise<any> => JSON.parse((await fleet.cli('subject', 'receipt', id, '--json')).out);
  const receipt = await waitFor('every destination has erased', async () => {
    const found = await shown();
    return found.destinations.every((d: any) => d.state === 'delivered') ? found : undefined;
  }, 60_000);
  expect(receipt).toMatchObject({ state: 'readable', erasedAt: null });
  // The record itself, and each delivery of it; the one that is sealed does not count.
  const exported = (await fleet.cli('subject', 'export', email, '--linked', 'all')).out.trim().split('\n').map((line) => JSON.parse(line));
  const readable = exported.filter((l) => l.record?.email === email && l.type !== 'weir.canonical.Erasure');
  expect(readable.map((l) => l.record.plan)).toEqual(['plan-1']);
  expect(receipt.recordsReadable).toBeGreaterThanOrEqual(1 + 3);
  expect(Date.parse(receipt.readableUntil)).toBeGreaterThan(Date.now() + 29 * 86_400_000);
  const { leaves } = JSON.parse((await fleet.cli('audit', 'list', '--json')).out);
  expect(leaves.filter((l: any) => l.of === id && l.kind === 'fact')).toMatchObject([{ action: 'subject.readable', details: { recordsReadable: receipt.recordsReadable, readableUntil: receipt.readableUntil } }]);
  const effects = (await Promise.all(['crm', 'warehouse'].map(async (d) => (await (await fetch(`${fleet.sandbox}/arrivals?destination=${d}`)).json()) as any[]))).flat().length;
  await send(3);
  await fleet.settled();
  expect((await Promise.all(['crm', 'warehouse'].map(async (d) => (await (await fetch(`${fleet.sandbox}/arrivals?destination=${d}`)).json()) as any[]))).flat()).toHaveLength(effects);
}, 240_000);
