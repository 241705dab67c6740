import { connect } from 'node:net';
import { freeze, waitFor } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { startIngestWorld, startVendor, type IngestWorld, type Vendor } from './ingest-world.ts';

let vendor: Vendor;
let world: IngestWorld;
beforeAll(async () => {
  vendor = await startVendor();
  world = await startIngestWorld({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }, vendor.url);
});
afterAll(async () => {
  await world?.dispose();
  vendor?.close();
});

const member = (id: string) => ({ id, updated_at: 'a' });

test('a poller that was paused past its lease writes nothing of the page it held, and another has gone on from its cursor', async () => {
  vendor.answer = (cursor) => (cursor === '' ? { body: { data: [member('first')], next_cursor: 'one' } } : {});
  const paused = await world.start(1);
  await waitFor('the first page is done', async () => JSON.stringify((await world.cursor())?.cursor) === '{"token":"one"}');
  vendor.hold = true;
  await waitFor('its next call is held', () => vendor.held.length === 1);
  const thaw = await freeze(paused.child.pid!);
  vendor.hold = false;
  vendor.calls.length = 0;
  vendor.answer = (cursor) => (cursor === 'one' ? { body: { data: [member('second')], next_cursor: 'two' } } : {});
  await world.start(2);
  await waitFor('the other has taken over', async () => (await world.cursor())?.instance === '2');
  expect(vendor.calls[0]).toBe('one');
  vendor.held[0]!.end(JSON.stringify({ data: [member('zombie')], next_cursor: 'zombie' }));
  thaw();
  await waitFor('the paused one knows that it lost', async () => (await paused.text('/metrics')).includes('weir_ingest_polls_total{source="members",result="lost"} 1'));
  vendor.calls.length = 0;
  await waitFor('polling goes on', () => vendor.calls.length >= 3);
  expect(new Set(vendor.calls)).toEqual(new Set(['two']));
  expect((await world.records(`${world.prefix}.raw.members`)).map((r) => (JSON.parse(r.value) as { id: string }).id).sort()).toEqual(['first', 'second']);
  expect((await world.cursor())!.cursor).toEqual({ token: 'two' });
  paused.child.kill('SIGKILL');
}, 60_000);

test('webhooks are taken while a poller waits for another that does not give its source back, and a stop in that time is clean', async () => {
  const joining = Promise.withResolvers<void>();
  const holder = world.log.consumer({
    groupId: `${world.prefix}.poller.members`, topics: [`${world.prefix}.raw.members`], sessionTimeoutMs: 30_000, rebalanceTimeoutMs: 60_000,
    handlers: { assigned: () => Promise.resolve(), revoked: () => joining.promise, batch: () => undefined, failed: (error) => { throw error; } },
  });
  await holder.start();
  try {
    const ingest = await world.start(4);
    const answer = await fetch(`${ingest.url}/v1/track`, { method: 'POST', headers: { authorization: world.authorization }, body: JSON.stringify({ type: 'track', messageId: 'meanwhile', userId: 'u', event: 'X' }) });
    expect(answer.status).toBe(200);
    ingest.child.kill('SIGTERM');
    expect(await ingest.ended).toBe(0);
  } finally {
    joining.resolve();
    await holder.close();
  }
}, 60_000);

test('a stop finishes what is in flight, takes nothing new, cuts what does not end, and exits clean', async () => {
  const ingest = await world.start(3);
  const body = JSON.stringify({ batch: [{ type: 'track', messageId: 'in-flight', userId: 'u', event: 'X' }] });
  const open = async (length: number): Promise<{ text: () => string; write(more: string): void; closed: Promise<void> }> => {
    const socket = connect(Number(new URL(ingest.url).port), '127.0.0.1');
    let text = '';
    socket.on('data', (d) => { text += d.toString(); });
    socket.on('error', () => socket.destroy());
    const closed = new Promise<void>((done) => socket.once('close', () => done()));
    socket.write(`POST /v1/batch HTTP/1.1\r\nhost: x\r\nauthorization: ${world.authorization}\r\ncontent-length: ${length}\r\n\r\n${body.slice(0, 10)}`);
    return { text: () => text, write: (more) => socket.write(more), closed };
  };
  const finishing = await open(body.length);
  const endless = await open(body.length);
  await waitFor('both are in flight', async () => Number(/^weir_ingest_inflight_bytes (\d+)/m.exec(await ingest.text('/metrics'))![1]) > 8192);
  ingest.child.kill('SIGTERM');
  await waitFor('nothing new is taken', () => fetch(`${ingest.url}/healthz`).then(() => false, () => true));
  finishing.write(body.slice(10));
  await waitFor('it is answered', () => finishing.text().includes('HTTP/1.1 200 '));
  await endless.closed;
  expect(endless.text()).not.toContain('200 OK');
  expect(await ingest.ended).toBe(0);
  const records = await world.records(`${world.prefix}.raw.segment`);
  expect(records.map((r) => (JSON.parse(r.value) as { messageId: string }).messageId).sort()).toEqual(['in-flight', 'meanwhile']);
}, 60_000);

test('the process is killed while requests wait for their acks: what was answered is on the log, and sent again it has the same id', async () => {
  const send = async (url: string, n: number): Promise<{ id: string; value: string } | undefined> => {
    const value = JSON.stringify({ type: 'track', messageId: `kill-${n}`, userId: `u${n}`, event: 'X' });
    const response = await fetch(`${url}/v1/track`, { method: 'POST', headers: { authorization: world.authorization }, body: value }).catch(() => undefined);
    return response?.status === 200 ? { id: ((await response.json()) as { eventId: string }).eventId, value } : undefined;
  };
  const first = await world.start(4);
  const sends = Array.from({ length: 400 }, (_, n) => send(first.url, n));
  await Promise.race(sends);
  first.child.kill('SIGKILL');
  const answered = (await Promise.all(sends)).filter((s) => s !== undefined);
  expect(answered.length).toBeGreaterThan(0);
  const second = await world.start(5);
  const again = await Promise.all(Array.from({ length: 400 }, (_, n) => send(second.url, n)));
  const written = (await world.records(`${world.prefix}.raw.segment`)).filter((r) => r.value.includes('kill-'));
  const ids = new Map(written.map((r) => [r.value, r.headers['weir-event']!]));
  for (const { id, value } of answered) expect(ids.get(value)).toBe(id);
  expect(new Set(written.map((r) => `${r.value} ${r.headers['weir-event']}`)).size).toBe(400);
  expect(new Set(again.map((s) => s!.id)).size).toBe(400);
}, 60_000);
