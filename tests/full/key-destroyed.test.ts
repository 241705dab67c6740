import { writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { createLog, createSerde, type Log, type Serde } from '@weir/log';
import { readKeys, startFleet, waitFor, type Fleet } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const person = { userId: 'late-lin', email: 'lin.late@larkspur.example' };
let fleet: Fleet;
let log: Log;
let serde: Serde;

beforeAll(async () => {
  fleet = await startFleet({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: join(root, 'workspace') });
  log = createLog({ brokers: inject('brokers'), clientId: 'key-destroyed-test' });
  serde = createSerde({ registryUrl: inject('registryUrl') });
  await serde.start();
});
afterAll(async () => {
  await fleet?.dispose();
  await log?.close();
});

const api = async (path: string): Promise<any> => (await fetch(`http://127.0.0.1:${fleet.base + 1}${path}`, { headers: { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}` } })).json();
const applied = async (): Promise<any[]> => ((await (await fetch(`${fleet.sandbox}/arrivals?destination=crm`)).json()) as any[]).filter((a) => a.applied && JSON.stringify(a.body).includes(person.email));

/** As one that lags leaves it behind: sealed under a key that is destroyed before policy looks, and no mark covers it. */
async function sealedTooLate(): Promise<string> {
  const policy = fleet.process('policy');
  const ended = new Promise((done) => policy.once('exit', done));
  policy.kill('SIGTERM');
  await ended;
  const response = await fleet.segment('identify', { messageId: 'late-1', userId: person.userId, timestamp: new Date().toISOString(), traits: { email: person.email, plan: 'gold', marketingConsent: true } });
  expect(response.status).toBe(200);
  const event = await waitFor('it is normalised', async () => {
    const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
    let found: { event: string; subject: string } | undefined;
    for (const [partition, end] of await admin.endOffsets(`${fleet.prefix}.canonical`)) await reader.read(`${fleet.prefix}.canonical`, partition, 0, end, (batch) => { for (const record of batch.records) found = { event: record.headers.find(([name]) => name === 'weir-event')![1].toString(), subject: record.key!.toString() }; });
    await reader.close();
    return found;
  });
  const ring = await readKeys({ log, serde, prefix: fleet.prefix, dataDir: fleet.dataDir });
  expect(await ring.destroy([event.subject])).toBeGreaterThan(0);
  await ring.stop();
  await fleet.start('policy');
  return event.event;
}

test('what was sealed under a key that is gone is a dead letter, the change of consent in it too; it says so, and a replay of the raw item delivers it once', async () => {
  const event = await sealedTooLate();
  const letters = await waitFor('its letters', async () => {
    const { deadLetters } = await api('/v1/dlq?code=key-destroyed');
    return deadLetters.some((l: any) => l.stage === 'policy') && deadLetters.length >= 3 ? deadLetters : undefined;
  });
  expect((await fleet.cli('dlq', 'show', letters[0].id)).out).toContain('weir replay raw of its event');
  const ofLetters = await fleet.cli('replay', 'dlq', '--code', 'key-destroyed');
  expect(ofLetters.out + ofLetters.err).toContain('key destroyed');
  const ids = join(fleet.dataDir, 'ids.txt');
  writeFileSync(ids, `${event}\n`);
  for (const before of [0, 1]) {
    expect(await applied()).toHaveLength(before);
    expect((await fleet.cli('replay', 'raw', '--ids', ids, '--yes')).out).toMatch(before === 0 ? /finished: 1 selected/ : /nothing to send/);
    await fleet.settled();
  }
  expect(await applied()).toHaveLength(1);
});
