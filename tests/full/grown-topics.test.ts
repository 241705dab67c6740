import { createLog } from '@weir/log';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { createOperator } from '../../packages/log/operator.ts';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), env: { WEIR_CALL_TIMEOUT_MS: '1500', WEIR_IN_LANE_TRIES: '2' } }); });
afterAll(() => weir?.dispose());

const people = Array.from({ length: 12 }, (_, i) => `grown${i}`);
let n = 0;
async function sendAll(plan: string): Promise<void> {
  for (const name of people) {
    const response = await fetch(`${weir.ingest}/v1/identify`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Basic ${Buffer.from(`${weir.writeKey()}:`).toString('base64')}` }, body: JSON.stringify({ messageId: `g-${n++}`, userId: name, timestamp: '2026-03-04T05:06:07Z', traits: { email: `${name}@larkspur.example`, plan } }) });
    expect(response.status).toBe(200);
  }
}

// docs/decisions/0020: keys are hashed over the count that a topic was made with, and the new partitions are read all the same.
test('topics that grow under running services, alone or with their partners, move no person: each gets everything once and in order, with a parked subject over it all, and the new partitions are taken and stay empty', async () => {
  const operator = createOperator(inject('brokers'));
  const log = createLog({ brokers: inject('brokers'), clientId: 'test' });
  const admin = await log.admin();
  const topic = (name: string): string => `${weir.prefix}.${name}`;
  const ends = async (name: string): Promise<number[]> => [...await admin.endOffsets(topic(name))].sort(([a], [b]) => a - b).map(([, end]) => end);
  await sendAll('a');
  await weir.settled();
  // One person's deliveries wait on the parked topic while it grows.
  await fetch(`${weir.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ destination: 'crm', mode: '5xx', subject: `${people[0]}@larkspur.example` }) });
  await sendAll('b');
  await waitFor('one is parked', async () => /weir_parked_subjects\{destination="crm"\} 1/.test(await (await fetch(`http://127.0.0.1:${weir.base + 4}/metrics`)).text()), 30_000);
  // The chain of crm grows whole; of warehouse only what is read, and not its ledger.
  const grown = ['raw.segment', 'canonical', 'dispatch.crm', 'ledger.crm', 'parked.crm', 'dispatch.warehouse'];
  const before = new Map(await Promise.all(grown.map(async (name) => [name, (await ends(name)).length] as const)));
  for (const [name, count] of before) await operator.addPartitions(topic(name), count + 2);
  // The groups have them, and the one without a ledger is left out.
  await waitFor('the new partitions are given out', async () => weir.output().includes('not to the one that goes with it'), 60_000);
  await sendAll('c');
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  await weir.settled(90_000);
  await weir.stop('SIGKILL');
  await weir.start();
  await sendAll('d');
  await weir.settled(90_000);
  for (const destination of ['crm', 'warehouse']) {
    const effects = await weir.effects(destination);
    for (const name of people) expect([destination, name, effects.filter((e) => e.subject === `${name}@larkspur.example`).map((e) => e.body.plan)]).toEqual([destination, name, ['a', 'b', 'c', 'd']]);
  }
  // On the ledger the new ones have the marks of their owners, before the kill and after it: they are taken.
  for (const [name, count] of before) expect([name, (await ends(name)).slice(count)]).toEqual([name, name === 'ledger.crm' ? [2, 2] : [0, 0]]);
  expect((await weir.status()).deliveries.deadLettered).toBe(0);
  await log.close();
}, 300_000);
