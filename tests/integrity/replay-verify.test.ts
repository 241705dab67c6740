import { waitFor } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { makeDeadLetters, startReplayWorld, type ReplayWorld } from './replay-world.ts';

const limit = { count: 120, seconds: 5 };
const letters = 100;
const applied = letters * 0.4;
let world: ReplayWorld;
beforeAll(async () => {
  world = await startReplayWorld({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), limit });
  await makeDeadLetters(world, letters, 80_000);
});
afterAll(() => world?.dispose());

interface Arrival { readonly at: string; readonly operation: string }
const arrivals = async (): Promise<Arrival[]> => (await (await fetch(`${world.fleet.sandbox}/arrivals?destination=till`)).json()) as Arrival[];
const reads = (list: readonly Arrival[]): number => list.filter((a) => a.operation.startsWith('read')).length;
const verify = async (share: number): Promise<any> => {
  const { id } = await world.api('/v1/replays', { from: 'dlq', destination: 'till', verify: true, share });
  const { preview } = await world.order(id, 'the preview is there', (v) => v.state === 'previewed', 60_000);
  await world.api(`/v1/replays/${id}/cancel`, {});
  return preview;
};

test('a vendor whose destination is paused is not asked; what it may have stays unknown, and is asked about once it goes on', async () => {
  await world.api('/v1/destinations/till/pause', { reason: 'under repair' });
  const { verified } = await verify(0.1).finally(() => world.api('/v1/destinations/till/resume', {}));
  expect(verified.unknown).toBeGreaterThanOrEqual(applied);
  expect({ applied: verified.applied, reads: reads(await arrivals()) }).toEqual({ applied: 0, reads: 0 });
  expect((await verify(0.5)).verified.applied).toBe(applied);
}, 120_000);

test('questions beside live traffic that uses up the limit: together they stay under it, and the preview tells what it is', async () => {
  const before = await arrivals();
  const events = 300;
  for (let from = 0; from < events; from += 100) {
    const batch = Array.from({ length: 100 }, (_, k) => ({ type: 'track', messageId: `live-${from + k}`, userId: `live-${from + k}`, timestamp: '2026-03-04T05:06:07Z', event: 'Order Placed', context: { traits: { email: `live${from + k}@larkspur.example` } } }));
    expect((await world.fleet.segment('batch', { batch })).status).toBe(200);
  }
  await waitFor('live traffic is under way', async () => (await arrivals()).length - before.length > 40, 60_000);
  const preview = await verify(0.5);
  expect(preview.verified.applied).toBe(applied);
  expect(preview.limits).toMatchObject([{ account: 'till', bucket: 'put', calls: letters - applied }]);
  const during = (await arrivals()).length - before.length;
  await waitFor('live traffic is through', async () => (await world.fleet.status()).deliveries.pending === 0, 120_000);
  const list = (await arrivals()).slice(before.length);
  expect(list.length).toBe(events + reads(list));
  // It was under way all the time.
  expect(during).toBeLessThan(events);
  const times = list.map((a) => Date.parse(a.at)).sort((a, b) => a - b);
  let most = 0;
  for (let i = 0, j = 0; i < times.length; i++) {
    while (times[i]! - times[j]! >= limit.seconds * 1000) j++;
    most = Math.max(most, i - j + 1);
  }
  console.log(JSON.stringify({ most, limit: limit.count, reads: reads(list) }));
  // Calls that were on their way while others were begun.
  expect(most).toBeLessThanOrEqual(limit.count + 10);
}, 200_000);
