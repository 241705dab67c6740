import { request as httpRequest } from 'node:http';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import { createLog, createSerde, type LogAdmin, type Log } from '@weir/log';
import { readKeys, startInstance, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
let log: Log;
let admin: LogAdmin;
beforeAll(async () => {
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') });
  log = createLog({ brokers: inject('brokers'), clientId: 'test' });
  admin = await log.admin();
});
afterAll(async () => {
  await log?.close();
  await weir?.dispose();
});

const written = async (): Promise<number> => {
  let sum = 0;
  for (const source of ['segment', 'sendgrid']) for (const end of (await admin.endOffsets(`${weir.prefix}.raw.${source}`)).values()) sum += end;
  return sum;
};
const basic = (key = weir.writeKey()) => `Basic ${Buffer.from(`${key}:`).toString('base64')}`;
const track = (n: string) => ({ type: 'track', messageId: n, userId: 'u', event: 'X' });

async function post(path: string, body: string | Buffer, headers: Record<string, string> = {}): Promise<{ status: number; body: any; headers: Headers }> {
  const response = await fetch(weir.ingest + path, { method: 'POST', body: new Uint8Array(Buffer.from(body)), headers: { 'content-type': 'application/json', authorization: basic(), ...headers } });
  return { status: response.status, body: await response.json(), headers: response.headers };
}

test('wrong, missing, short and foreign credentials are 401 and nothing is written', async () => {
  const before = await written();
  const body = JSON.stringify({ batch: [track('s1')] });
  const attempts: Record<string, string>[] = [
    { authorization: '' }, { authorization: basic('wrong') }, { authorization: basic('') }, { authorization: 'Bearer x' }, { authorization: 'Basic !!!' },
    { authorization: '', 'x-signature': createHmac('sha1', '').update(body).digest('hex') }, { authorization: '', 'x-signature': 'abcd' },
  ];
  for (const headers of attempts) for (const path of ['/v1/batch', '/webhooks/segment']) expect((await post(path, body, headers)).status).toBe(401);
  const vector = { email: 'a@b.example', event: 'open', timestamp: 1, sg_event_id: 'x' };
  const signatures: Record<string, string>[] = [{}, { 'x-twilio-email-event-webhook-signature': 'AAAA', 'x-twilio-email-event-webhook-timestamp': '1' }, { 'x-twilio-email-event-webhook-signature': Buffer.alloc(70, 1).toString('base64'), 'x-twilio-email-event-webhook-timestamp': '1' }];
  for (const headers of signatures) expect((await post('/webhooks/sendgrid', JSON.stringify([vector]), headers)).status).toBe(401);
  expect(await written()).toBe(before);
});

test('the answer to a wrong credential does not depend on the body, and echoes nothing of it', async () => {
  const answers = await Promise.all(['{', '{"batch":[]}', '"canary-7f3a"'].map((body) => post('/v1/batch', body, { authorization: basic('wrong') })));
  expect(new Set(answers.map((a) => JSON.stringify([a.status, a.body]))).size).toBe(1);
  expect((await post('/v1/batch', '{"canary-7f3a":')).body).not.toMatchObject({ message: expect.stringContaining('canary') });
});

test.each<[string, string | Buffer, number]>([
  ['broken JSON', '{"batch":[', 400], ['no JSON', 'hello', 400], ['an empty body', '', 400], ['a list', '[]', 400], ['a number', '1', 400], ['trailing bytes', '{"batch":[]} x', 400], ['a BOM', '\ufeff{"batch":[]}', 400],
  ['bytes that are not UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 400],
  ['__proto__', '{"batch":[{"type":"track","userId":"u","event":"x","__proto__":{"polluted":1}}]}', 400],
  ['an escaped __proto__', '{"batch":[{"type":"track","userId":"u","event":"x","\\u005f_proto__":{"polluted":1}}]}', 400],
  ['100,000 brackets', '['.repeat(100_000), 400], ['deep nesting in an item', `{"batch":[{"type":"track","userId":"u","properties":${'{"a":'.repeat(50)}1${'}'.repeat(50)}}]}`, 400],
  ['a call without a type', '{"batch":[{"userId":"u"}]}', 400], ['a wrong type', '{"batch":[{"type":"delete","userId":"u"}]}', 400], ['a batch of numbers', '{"batch":[1,2]}', 400],
])('%s is refused and nothing is written', async (_name, body, status) => {
  const before = await written();
  expect((await post('/v1/batch', body)).status).toBe(status);
  expect(await written()).toBe(before);
  expect(({} as Record<string, unknown>)['polluted']).toBeUndefined();
});

test('an unknown source is 404, whatever its name', async () => {
  for (const name of ['nope', 'segment2', '..%2f..%2fetc%2fpasswd', '__proto__', 'constructor', '%00']) expect((await post(`/webhooks/${name}`, '{}')).status).toBe(404);
});

test('a source is not opened by the credential of another', async () => {
  expect((await post('/webhooks/sendgrid', '[]')).status).toBe(401);
});

test('compressed bodies are read, and bombs are refused with memory flat', async () => {
  const body = Buffer.from(JSON.stringify({ batch: [track('z1')] }));
  for (const [encoding, bytes] of [['gzip', gzipSync(body)], ['deflate', deflateSync(body)], ['br', brotliCompressSync(body)]] as const) expect((await post('/v1/batch', bytes, { 'content-encoding': encoding })).status).toBe(200);
  expect((await post('/v1/batch', body, { 'content-encoding': 'zstd' })).status).toBe(415);
  expect((await post('/v1/batch', body, { 'content-encoding': 'gzip' })).status).toBe(400);
  const bomb = gzipSync(Buffer.alloc(300 * 1024 * 1024, 0x20), { level: 9 });
  const pid = Number(readFileSync(join(weir.dataDir, 'weir.pid'), 'utf8'));
  const anonymous = (): number => Number(/RssAnon:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))![1]) / 1024;
  const before = anonymous();
  for (let i = 0; i < 10; i++) expect((await post('/v1/batch', bomb, { 'content-encoding': 'gzip' })).status).toBe(413);
  expect(anonymous() - before).toBeLessThan(100);
});

test('a body over the limit is 413, also when its length is a lie', async () => {
  expect((await post('/v1/batch', `{"batch":[],"pad":"${'x'.repeat(600 * 1024)}"}`)).status).toBe(413);
  const status = await new Promise<number>((done) => {
    const request = httpRequest(`${weir.ingest}/v1/batch`, { method: 'POST', headers: { authorization: basic(), 'content-type': 'application/json', 'transfer-encoding': 'chunked' } }, (response) => {
      response.resume();
      done(response.statusCode!);
    });
    request.on('error', () => done(0));
    const feed = (): void => { if (!request.destroyed) request.write(Buffer.alloc(64 * 1024, 0x20), () => setImmediate(feed)); };
    feed();
  });
  expect(status).toBe(413);
});

test('a valid trace is continued, a broken one replaced', async () => {
  const traceId = 'a'.repeat(32);
  expect((await post('/v1/batch', JSON.stringify({ batch: [track('t1')] }), { traceparent: `00-${traceId}-${'b'.repeat(16)}-01` })).body.traceId).toBe(traceId);
  expect((await post('/v1/batch', JSON.stringify({ batch: [track('t2')] }), { traceparent: `00-${'0'.repeat(32)}-x-01` })).body.traceId).toMatch(/^[0-9a-f]{32}$/);
});

test('the bytes of an item are kept as they came, with 20-digit ids and odd white space', async () => {
  const item = '{ "type":"track" ,"userId":"u9","messageId":"bytes-1","event":"X","properties":{"id":12345678901234567890,"e":"\\u00e9" } }';
  const { body } = await post('/v1/batch', `{"batch":[ ${item} ]}`);
  const reader = await log.reader();
  const serde = createSerde({ registryUrl: inject('registryUrl') });
  await serde.start();
  const keys = await readKeys({ log, serde, prefix: weir.prefix, dataDir: weir.dataDir });
  let found: string | undefined;
  for (const [partition, end] of await admin.endOffsets(`${weir.prefix}.raw.segment`)) await reader.read(`${weir.prefix}.raw.segment`, partition, 0, end, (batch) => { for (const r of batch.records) if (r.headers.some(([n, v]) => n === 'weir-event' && v.toString() === body.eventId)) found = keys.open(r.value!)!.toString(); });
  await keys.stop();
  expect(found).toBe(item);
});
