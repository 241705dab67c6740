import { connect, type AddressInfo, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import type { Adapter, WebhookSource } from '@weir/adapter';
import { registry as adapters } from '@weir/adapters';
import { WeirError } from '@weir/errors';
import type { Appender, OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import type { Release, SourceConfig } from '@weir/release';
import { Secret, type Vault } from '@weir/vault';
import type { FastifyInstance } from 'fastify';
import pino from 'pino';
import { Registry } from 'prom-client';
import { afterEach, expect, test, vi } from 'vitest';
import { hold } from '../../tests/setup/answers.ts';
import { createBudget } from './budget.ts';
import { createMetrics } from './metrics.ts';
import { createRefusalLog } from './refusals.ts';
import { registerRoutes, type RoutePorts } from './routes.ts';
import { createServer } from './server.ts';
import { resolveSources, type Sources } from './sources.ts';

/** Conditions are waited for as long as it takes on a loaded machine; the default is one second. */
const patience = { timeout: 20_000 };

const cleanups: (() => Promise<unknown> | void)[] = [];
afterEach(async () => { for (const clean of cleanups.splice(0).reverse()) await clean(); });

/** The log in memory: only what HTTP needs of it. `append` can be replaced. */
function memoryLog() {
  const records: OutRecord[] = [];
  const log = {
    records, pending: 0,
    append: (_topic: string, list: readonly OutRecord[]): Promise<readonly number[]> => {
      records.push(...list);
      return Promise.resolve(list.map((_, i) => i));
    },
  };
  const appender: Appender = { append: (topic, list) => log.append(topic, list), partitionFor: () => 0, partitions: () => Promise.resolve(1), pendingBytes: () => log.pending, close: () => Promise.resolve() };
  return { log, appender };
}

function sourceOf(name: string, adapter: string | Adapter, config: Record<string, unknown>): SourceConfig {
  const found = typeof adapter === 'string' ? adapters.get(adapter)! : adapter;
  return { name, adapter: found, config, mapping: undefined as never, limits: found.manifest.source!.limits, dedupeWindowMs: 0, account: name };
}

const key = (text: string) => `Basic ${Buffer.from(`${text}:`).toString('base64')}`;
const shop = sourceOf('shop', 'segment', { writeKey: 'wk' });
/** An adapter whose code is wrong: it throws what nobody declared, with the body in the message. */
const broken = sourceOf('broken', { ...adapters.get('segment')!, source: { ...(adapters.get('segment')!.source as WebhookSource), split: (request) => { throw new TypeError(`cannot read ${request.body.toString()}`); } } }, { writeKey: 'wk' });

interface World extends ReturnType<typeof memoryLog> {
  readonly app: FastifyInstance;
  readonly budget: ReturnType<typeof createBudget>;
  readonly lines: string[];
  readonly metrics: Registry;
  port(): Promise<number>;
  post(path: string, body: string | Buffer, headers?: Record<string, string>): Promise<{ status: number; body: any; headers: Record<string, unknown> }>;
}

function world(options: Partial<Pick<RoutePorts, 'ackTimeoutMs' | 'maxInflightBytes' | 'missing'>> & { sources?: SourceConfig[]; resolved?: Sources; requestTimeoutMs?: number } = {}): World {
  const { log, appender } = memoryLog();
  const all = new Map((options.sources ?? [shop, broken]).map((s) => [s.name, s]));
  const segments = [...all.values()].filter((s) => s.adapter.manifest.name === 'segment' && s !== broken);
  const sources: Sources = options.resolved ?? { all, complete: true, previous: () => undefined, webhook: (name) => all.get(name), waits: () => false, hasSegment: segments.length > 0, segmentWaits: false, segment: (k) => (segments.length === 1 ? segments[0] : segments.find((s) => s.config['writeKey'] === k)) };
  const budget = createBudget(options.maxInflightBytes ?? 10_000_000);
  const metrics = new Registry();
  const counters = createMetrics(metrics, budget.used);
  const lines: string[] = [];
  const logger = pino({ level: 'info' }, { write: (line: string) => { lines.push(line); } });
  const app = createServer({ requestTimeoutMs: options.requestTimeoutMs ?? 5000, refused: (code) => counters.requests.inc({ source: 'unknown', result: code }) });
  const problems: string[] = [];
  hold(app, (problem) => problems.push(problem));
  cleanups.push(() => expect(problems).toEqual([]));
  registerRoutes(app, { appender, topics: topicNames('t'), now: () => 1_700_000_000_000, ackTimeoutMs: options.ackTimeoutMs ?? 1000, maxInflightBytes: options.maxInflightBytes ?? 10_000_000, budget, metrics: counters, logger, sources: () => sources, missing: options.missing ?? (() => false), refused: createRefusalLog(logger, () => performance.now()) });
  cleanups.push(() => {
    app.server.closeAllConnections();
    return app.close();
  });
  return {
    log, appender, app, budget, lines, metrics,
    async port() {
      if (!app.server.listening) await app.listen({ host: '127.0.0.1', port: 0 });
      return (app.server.address() as AddressInfo).port;
    },
    async post(path, body, headers = {}) {
      const response = await app.inject({ method: 'POST', url: path, payload: body, headers: { 'content-type': 'application/json', authorization: key('wk'), ...headers } });
      return { status: response.statusCode, body: response.json(), headers: response.headers };
    },
  };
}

/** A connection that is spoken to byte by byte; `text` is what came back so far. */
async function dial(w: World): Promise<{ socket: Socket; text: () => string; closed: Promise<void> }> {
  const socket = connect(await w.port(), '127.0.0.1');
  let text = '';
  socket.on('data', (data) => { text += data.toString('latin1'); });
  socket.on('error', () => socket.destroy());
  cleanups.push(() => { socket.destroy(); });
  const closed = new Promise<void>((done) => socket.once('close', () => done()));
  await new Promise((done) => socket.once('connect', done));
  return { socket, text: () => text, closed };
}

const head = (path: string, ...lines: string[]): string => [`POST ${path} HTTP/1.1`, 'host: x', `authorization: ${key('wk')}`, ...lines, '', ''].join('\r\n');
const track = (n: string, more: object = {}) => ({ type: 'track', messageId: n, userId: 'u', event: 'X', ...more });
const header = (record: OutRecord, name: string): string | undefined => record.headers?.find(([n]) => n === name)?.[1].toString();

test.each([[4, 5, 200, undefined], [32, 36, 400, 'body-too-deep'], [40, 36, 200, undefined]])('a limits.depth of the source that is raised holds at the door; under a lowered one (%i) an item that is too deep refuses no others', async (depth, levels, status, code) => {
  const w = world({ sources: [{ ...shop, limits: { ...shop.limits, depth } }] });
  const body = JSON.stringify({ batch: [track('a', { properties: JSON.parse(`${'['.repeat(levels)}${']'.repeat(levels)}`) as object })] });
  const answer = await w.post('/v1/batch', body);
  expect([answer.status, answer.body.error, w.log.records.length]).toEqual([status, code, status === 200 ? 1 : 0]);
});

test('what was accepted is on the log with its bytes before the answer, and the answer names every item', async () => {
  const w = world();
  let acknowledge = (): void => {};
  const append = w.log.append;
  w.log.append = (topic, list) => new Promise((done) => { acknowledge = () => done(append(topic, list)); });
  let answered = false;
  const answer = w.post('/webhooks/shop', `{"batch":[ ${JSON.stringify(track('a'))} , {"type":"track" ,"userId":"u","messageId":"b","n":1.50}]}`).then((a) => { answered = true; return a; });
  await vi.waitFor(() => { acknowledge(); expect(w.log.records).toHaveLength(2); }, patience);
  const { status, body } = await answer;
  expect([answered, status, body.eventId, body.eventIds.length]).toEqual([true, 202, body.eventIds[0], 2]);
  expect(w.log.records.map((r) => r.value!.toString())).toEqual([JSON.stringify(track('a')), '{"type":"track" ,"userId":"u","messageId":"b","n":1.50}']);
  expect(w.log.records.map((r) => [header(r, 'weir-event'), header(r, 'weir-source'), header(r, 'weir-accepted'), r.key!.toString()])).toEqual(body.eventIds.map((id: string) => [id, 'shop', '1700000000000', 'u']));
  expect(w.log.records.every((r) => header(r, 'traceparent')!.includes(body.traceId))).toBe(true);
});

test('a source whose topic is missing is answered so that its sender tries again, and the others are taken', async () => {
  const w = world({ missing: (source) => source === 'shop', sources: [shop, sourceOf('till', 'segment', { writeKey: 'wk2' })] });
  const { status, body, headers } = await w.post('/webhooks/shop', JSON.stringify(track('a')));
  expect([status, body.error, headers['retry-after'], w.log.records.length]).toEqual([503, 'topic-missing', '2', 0]);
  expect((await w.post('/webhooks/till', JSON.stringify(track('a')), { authorization: key('wk2') })).status).toBe(202);
});

test('while the vault is away nobody who sends to a source that needs it is refused for good, and no other source takes what is meant for one that waits', async () => {
  const vault = {
    get(name: string) {
      if (name !== 'OPEN') throw new WeirError('secret-unavailable', 'vault vault.internal:8200: secret/weir sealed (503)');
      return new Secret('wk');
    },
    previous: () => undefined,
  } as unknown as Vault;
  const resolved = (...given: SourceConfig[]): Sources => resolveSources({ sources: new Map(given.map((s) => [s.name, s])) } as unknown as Release, { vault, closed: () => undefined });
  const away = ['segment', 'stripe', 'http-poll'].map((adapter) => sourceOf(`${adapter}-away`, adapter, { writeKey: { secret: 'AWAY' } }));
  const event = JSON.stringify(track('a'));
  const w = world({ resolved: resolved(...away, sourceOf('open', 'segment', { writeKey: { secret: 'OPEN' } })) });
  const [hook, tracked] = [await w.post('/webhooks/stripe-away', event), await w.post('/v1/track', event, { authorization: key('of the one that waits') })];
  for (const { status, body, headers } of [hook, tracked]) expect([status, body.error, body.message.includes('vault.internal'), headers['retry-after']]).toEqual([503, 'secret-unavailable', false, '2']);
  expect(tracked.body.success).toBe(false);
  expect([(await w.post('/v1/track', event)).status, (await w.post('/webhooks/open', event)).status, w.log.records.length]).toEqual([200, 202, 2]);
  // A poller takes no webhooks, whatever its secret is.
  for (const name of ['http-poll-away', 'nope']) expect([name, (await w.post(`/webhooks/${name}`, event)).status]).toEqual([name, 404]);
  expect((await world({ resolved: resolved(...away) }).post('/v1/batch', event)).status).toBe(503);
  expect(await w.metrics.metrics()).toContain('weir_ingest_requests_total{source="stripe-away",result="secret-unavailable"} 1');
});

test('a key from before a rotation that cannot be asked for now is answered so that its sender tries again', async () => {
  const previous = (): never => { throw new WeirError('secret-unavailable', 'vault vault.internal:8200: no answer'); };
  const sources = [shop, sourceOf('till', 'segment', { writeKey: 'wk2' })];
  const resolved = resolveSources({ sources: new Map(sources.map((s) => [s.name, { ...s, config: { writeKey: { secret: s.name } } }])) } as unknown as Release, { vault: { get: (name: string) => new Secret(name), previous } as unknown as Vault, closed: () => undefined });
  const { status, body } = await world({ resolved }).post('/v1/track', JSON.stringify(track('a')), { authorization: key('old') });
  expect([status, body.success, body.error]).toEqual([503, false, 'secret-unavailable']);
});

test('the same event has the same id however often it is sent; another event of the same object has another', async () => {
  const w = world();
  const ids = async (...items: object[]): Promise<string[]> => (await w.post('/v1/batch', JSON.stringify({ batch: items }))).body.eventIds;
  const [first] = await ids(track('a'));
  expect(await ids(track('a'), track('b'))).toEqual([first, expect.not.stringMatching(first!)]);
  // Without an id of the sender the bytes tell two updates of one object apart.
  const update = { type: 'identify', userId: 'u', timestamp: '2026-01-01T00:00:00Z', traits: { plan: 'a' } };
  const [one, two, again] = await ids(update, { ...update, traits: { plan: 'b' } }, update);
  expect([one === two, one === again]).toEqual([false, true]);
});

test('an id that a sender uses again for somebody else is another event; for the same person with another body it stands in the same partition, where that is seen', async () => {
  const w = world();
  const ids = async (...items: object[]): Promise<string[]> => (await w.post('/v1/batch', JSON.stringify({ batch: items }))).body.eventIds;
  const [ann, ben, changed, again] = await ids(track('a'), { ...track('a'), userId: 'ben' }, { ...track('a'), event: 'Other' }, { ...track('a'), userId: 'ben' });
  expect([ann === ben, ann === changed, ben === again]).toEqual([false, true, true]);
  const places = Map.groupBy(w.log.records, (r) => header(r, 'weir-event'));
  expect([...places.values()].map((list) => new Set(list.map((r) => `${r.partition} ${r.key!.toString()}`)).size)).toEqual([1, 1]);
});

test('a body without items is accepted, and nothing is written', async () => {
  const w = world();
  expect(await w.post('/webhooks/shop', '{"batch":[]}')).toMatchObject({ status: 202, body: { eventId: null, eventIds: [] } });
  expect(await w.post('/v1/batch', '{"batch":[]}')).toMatchObject({ status: 200, body: { success: true, eventId: null, eventIds: [] } });
  expect(w.log.records).toEqual([]);
});

test('any content type, or none, is taken; a long one is not carried along whole', async () => {
  const w = world();
  for (const type of ['application/json', 'text/plain', 'garbage', 'application/x-www-form-urlencoded', 'a/b; charset=utf-16', `a/${'b'.repeat(5000)}`]) expect([type.slice(0, 40), (await w.post('/webhooks/shop', JSON.stringify(track('a')), { 'content-type': type })).status]).toEqual([type.slice(0, 40), 202]);
  expect((await w.app.inject({ method: 'POST', url: '/webhooks/shop', headers: { authorization: key('wk') }, payload: Buffer.from(JSON.stringify(track('a'))) })).statusCode).toBe(202);
  expect(Math.max(...w.log.records.map((r) => header(r, 'content-type')!.length))).toBeLessThanOrEqual(200);
});

test('an unknown source is refused before its body is read', async () => {
  const w = world();
  const { socket, text } = await dial(w);
  socket.write(head('/webhooks/nope', 'content-length: 500000'));
  await vi.waitFor(() => expect(text()).toContain('HTTP/1.1 404 '), patience);
  expect(text()).toContain('"error":"source-unknown"');
  expect(w.budget.used()).toBe(0);
});

test('bodies that are being read count against the cap: 429 with Retry-After, and room again when they end, well or badly', async () => {
  const w = world({ maxInflightBytes: 1_000_000 });
  const slow = await Promise.all([1, 2].map(() => dial(w)));
  for (const { socket } of slow) socket.write(head('/webhooks/shop', 'content-length: 450001') + ' '.repeat(450_000));
  await vi.waitFor(() => expect(w.budget.used()).toBeGreaterThan(900_000), patience);
  const refused = await w.post('/webhooks/shop', JSON.stringify(track('a', { pad: 'x'.repeat(200_000) })));
  expect(refused).toMatchObject({ status: 429, body: { error: 'overloaded' }, headers: { 'retry-after': '1' } });
  expect((await w.post('/webhooks/shop', JSON.stringify(track('b')))).status).toBe(202);
  slow[0]!.socket.destroy();
  slow[1]!.socket.write('x');
  await vi.waitFor(() => expect(w.budget.used()).toBe(0), patience);
  await vi.waitFor(() => expect(slow[1]!.text()).toContain('HTTP/1.1 400 '), patience);
  expect((await w.post('/webhooks/shop', JSON.stringify(track('a', { pad: 'x'.repeat(200_000) })))).status).toBe(202);
});

test('a request costs more than its bytes: many small ones are bounded too', async () => {
  const w = world({ maxInflightBytes: 1_000_000 });
  w.log.append = () => new Promise(() => {});
  for (let i = 0; i < 300; i++) void w.post('/webhooks/shop', JSON.stringify(track(`n${i}`)));
  await vi.waitFor(() => expect(w.budget.used()).toBeGreaterThan(950_000), patience);
  expect((await w.post('/webhooks/shop', JSON.stringify(track('last')))).status).toBe(429);
});

test('a log that is behind is 429 before the body is read; one that takes no more is 429; one that does not answer is 503; each with Retry-After', async () => {
  const w = world({ ackTimeoutMs: 50 });
  w.log.pending = 20_000_000;
  expect(await w.post('/v1/track', JSON.stringify(track('a')))).toMatchObject({ status: 429, body: { success: false, error: 'overloaded' }, headers: { 'retry-after': '1' } });
  w.log.pending = 0;
  w.log.append = () => Promise.reject(new WeirError('overloaded'));
  expect((await w.post('/v1/track', JSON.stringify(track('a')))).status).toBe(429);
  w.log.append = () => Promise.reject(new WeirError('log-append-failed'));
  expect(await w.post('/v1/track', JSON.stringify(track('a')))).toMatchObject({ status: 503, body: { success: false, error: 'log-unavailable' }, headers: { 'retry-after': '2' } });
  w.log.append = () => new Promise(() => {});
  expect(await w.post('/webhooks/shop', JSON.stringify(track('a')))).toMatchObject({ status: 503, body: { error: 'log-unavailable' }, headers: { 'retry-after': '2' } });
  expect(w.budget.used()).toBe(0);
});

test('an error that nobody declared is a 500 that says nothing, and the next request is served', async () => {
  const w = world();
  const { status, body } = await w.post('/webhooks/broken', JSON.stringify(track('canary-1')));
  expect([status, body.error, JSON.stringify(body).includes('canary')]).toEqual([500, 'invariant-broken', false]);
  expect((await w.post('/webhooks/shop', JSON.stringify(track('a')))).status).toBe(202);
  expect(w.budget.used()).toBe(0);
});

test('a body that drips, and a head that drips, end in 408', async () => {
  const w = world({ requestTimeoutMs: 300 });
  for (const start of [`${head('/webhooks/shop', 'content-length: 100000')}{`, 'POST /webhooks/shop HTTP/1.1\r\nx-a: ']) {
    const { socket, text, closed } = await dial(w);
    socket.write(start);
    const drip = setInterval(() => socket.write('a'), 50);
    await closed;
    clearInterval(drip);
    expect(text()).toContain('HTTP/1.1 408 ');
    expect(text()).toContain('"error":"request-timeout"');
  }
  await vi.waitFor(() => expect(w.budget.used()).toBe(0), patience);
});

test.each([
  ['10,000 headers', head('/webhooks/shop', ...Array.from({ length: 10_000 }, (_, i) => `x-${i}: 1`)), '431'],
  ['one endless header', head('/webhooks/shop', `x: ${'y'.repeat(100_000)}`), '431'],
  ['two framings', `${head('/webhooks/shop', 'content-length: 4', 'transfer-encoding: chunked')}0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n`, '400'],
  ['two lengths', `${head('/webhooks/shop', 'content-length: 4', 'content-length: 5')}{}  x`, '400'],
  ['a folded header', head('/webhooks/shop', 'x-a: b\r\n c: d', 'content-length: 0').replace('x-a: b', 'x-a: b\u0000'), '400'],
  ['a chunk size that is none', `${head('/webhooks/shop', 'transfer-encoding: chunked')}zz\r\n{}\r\n`, '400'],
  ['no HTTP', '\u0016\u0003\u0001\u0002\u0000\u0001\u0000\u0001canary\r\n\r\n', '400'],
])('%s is refused at the door, the connection ends and nothing of it comes back', async (_name, bytes, status) => {
  const w = world();
  const { socket, text, closed } = await dial(w);
  socket.write(Buffer.from(bytes, 'latin1'));
  await closed;
  expect(text()).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
  expect(text().match(/HTTP\/1\.1/g)).toHaveLength(1);
  expect(text()).not.toMatch(/canary|x-1|yyy/);
  expect(w.log.records).toEqual([]);
});

test('a path that is no route, or no path, is refused without an echo', async () => {
  const w = world();
  for (const [url, status] of [['/nope/canary', 404], ['/webhooks/shop/canary', 404], ['/webhooks/%zzcanary', 400], ['/v1/canary', 404], [`/webhooks/${'c'.repeat(300)}canary`, 404]] as const) {
    const response = await w.app.inject({ method: 'POST', url, payload: '{}' });
    expect([url.slice(0, 40), response.statusCode, response.body.includes('canary')]).toEqual([url.slice(0, 40), status, false]);
    expect(response.json()).toEqual({ error: expect.any(String), message: expect.any(String) });
  }
  expect((await w.app.inject({ method: 'GET', url: '/webhooks/shop' })).statusCode).toBe(404);
});

test('a refused body that goes on is let run out, so that its sender reads the answer; one that does not end is cut', async () => {
  const w = world();
  const large = await dial(w);
  large.socket.write(head('/webhooks/shop', 'transfer-encoding: chunked'));
  for (let i = 0; i < 30; i++) large.socket.write(Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65_536, 0x20), Buffer.from('\r\n')]));
  large.socket.write('0\r\n\r\n');
  await vi.waitFor(() => expect(large.text()).toContain('HTTP/1.1 413 '), patience);
  const next = JSON.stringify(track('a'));
  large.socket.write(head('/webhooks/shop', `content-length: ${next.length}`) + next);
  await vi.waitFor(() => expect(large.text()).toContain('HTTP/1.1 202 '), patience);
  const endless = await dial(w);
  endless.socket.write(head('/webhooks/shop', 'transfer-encoding: chunked'));
  const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65_536, 0x20), Buffer.from('\r\n')]);
  let sent = 0;
  while (!endless.socket.destroyed) {
    if (endless.socket.write(chunk)) sent += chunk.length;
    else await Promise.race([new Promise((done) => endless.socket.once('drain', done)), endless.closed]);
    await turn();
  }
  expect(endless.text()).toContain('HTTP/1.1 413 ');
  expect(sent).toBeLessThan(20_000_000);
  expect(w.budget.used()).toBe(0);
});

test('compressed bodies: whole ones are read, cut ones are malformed, bombs and unknown encodings are refused', async () => {
  const w = world();
  const body = Buffer.from(JSON.stringify({ batch: Array.from({ length: 200 }, (_, i) => track(`z${i}`)) }));
  const gzip = gzipSync(body);
  const half = body.indexOf(',', 5000);
  for (const [encoding, bytes, status] of [
    ['gzip', gzip, 202], ['GZIP', gzip, 202], ['x-gzip', gzip, 202], ['deflate', deflateSync(body), 202], ['br', brotliCompressSync(body), 202], ['identity', body, 202],
    ['gzip', Buffer.concat([gzipSync(body.subarray(0, half)), gzipSync(body.subarray(half))]), 202],
    ['gzip', gzip.subarray(0, -20), 400], ['gzip', body, 400], ['br', gzip, 400], ['deflate', gzip, 400], ['gzip', gzipSync(gzip), 400],
    ['gzip, gzip', gzip, 415], ['zstd', gzip, 415], ['__proto__', gzip, 415], ['constructor', gzip, 415],
    ['gzip', gzipSync(Buffer.alloc(400_000)), 413], ['br', brotliCompressSync(Buffer.alloc(60_000_000)), 413], ['deflate', deflateSync(Buffer.alloc(60_000_000)), 413],
  ] as const) expect([encoding, bytes.length, (await w.post('/webhooks/shop', bytes, { 'content-encoding': encoding })).status]).toEqual([encoding, bytes.length, status]);
  expect(w.log.records).toHaveLength(7 * 200);
  expect(w.budget.used()).toBe(0);
});

test('more items than the source allows are refused whole', async () => {
  const w = world();
  const items = (n: number) => JSON.stringify({ batch: Array.from({ length: n }, (_, i) => ({ type: 'track', messageId: String(i) })) });
  expect(await w.post('/v1/batch', items(2501))).toMatchObject({ status: 413, body: { error: 'too-many-items' } });
  expect(w.log.records).toEqual([]);
  expect((await w.post('/v1/batch', items(2500))).status).toBe(200);
});

test('Segment: an event over 32 KB is refused by the tracking API, as Segment does; a webhook may carry it', async () => {
  const w = world();
  const large = JSON.stringify(track('a', { properties: { pad: 'x'.repeat(33_000) } }));
  expect(await w.post('/v1/track', large)).toMatchObject({ status: 413, body: { success: false, error: 'body-too-large' } });
  expect((await w.post('/webhooks/shop', large)).status).toBe(202);
});

test('Segment: the write key selects among sources; an unknown or missing one is 401 and writes nothing; without a Segment source the API is not there', async () => {
  const w = world({ sources: [shop, sourceOf('app', 'segment', { writeKey: 'wk2' })] });
  for (const [given, source] of [['wk', 'shop'], ['wk2', 'app']] as const) {
    w.log.records.length = 0;
    expect((await w.post('/v1/track', JSON.stringify(track('a')), { authorization: key(given) })).status).toBe(200);
    expect(header(w.log.records[0]!, 'weir-source')).toBe(source);
  }
  w.log.records.length = 0;
  for (const authorization of [key('wk3'), key(''), 'Bearer wk', 'Basic', 'Basic d2s', 'Basic !!']) expect([authorization, (await w.post('/v1/track', JSON.stringify(track('a')), { authorization })).status]).toEqual([authorization, authorization === 'Basic d2s' ? 200 : 401]);
  expect(w.log.records).toHaveLength(1);
  expect((await world({ sources: [] }).post('/v1/track', '{}')).status).toBe(404);
});

test('Segment: a browser may ask first, and reads answers and Retry-After', async () => {
  const w = world();
  const preflight = await w.app.inject({ method: 'OPTIONS', url: '/v1/track', headers: { origin: 'https://shop.example', 'access-control-request-method': 'POST' } });
  expect([preflight.statusCode, preflight.headers['access-control-allow-origin'], preflight.headers['access-control-allow-headers']]).toEqual([204, '*', expect.stringContaining('authorization')]);
  for (const body of [JSON.stringify(track('a')), '{']) expect((await w.post('/v1/track', body)).headers).toMatchObject({ 'access-control-allow-origin': '*', 'access-control-expose-headers': 'retry-after' });
});

test('what was taken is counted by source, once, whenever somebody asks', async () => {
  const w = world({ sources: [shop] });
  const asked = async (): Promise<string[]> => (await w.metrics.metrics()).split('\n').filter((line) => /^weir_ingest_(requests|items)_total\{/.test(line));
  expect(await asked()).toEqual([]);
  for (const n of ['a', 'b']) await w.post('/webhooks/shop', JSON.stringify(track(n)));
  await w.post('/v1/batch', JSON.stringify({ batch: [track('c'), track('d')] }));
  const three = ['weir_ingest_requests_total{source="shop",result="ok"} 3', 'weir_ingest_items_total{source="shop"} 4'];
  expect([await asked(), await asked()]).toEqual([three, three]);
  await w.post('/webhooks/shop', '{');
  await w.post('/webhooks/shop', JSON.stringify(track('e')));
  expect(await asked()).toEqual(['weir_ingest_requests_total{source="shop",result="ok"} 4', 'weir_ingest_requests_total{source="shop",result="body-malformed"} 1', 'weir_ingest_items_total{source="shop"} 5']);
});

test('a flood of refusals is one line with the reason and no part of the request; the counter has them all', async () => {
  const w = world();
  for (let i = 0; i < 50; i++) await w.post('/webhooks/shop', '{"canary":1}', { authorization: key(`canary-${i}`), traceparent: `00-${'a'.repeat(32)}-${'b'.repeat(16)}-01` });
  expect(w.lines).toHaveLength(1);
  expect(JSON.parse(w.lines[0]!)).toMatchObject({ source: 'shop', code: 'signature-invalid', detail: expect.stringContaining('write key'), traceId: 'a'.repeat(32) });
  expect(w.lines[0]).not.toContain('canary');
  expect(await w.metrics.metrics()).toContain('weir_ingest_requests_total{source="shop",result="signature-invalid"} 50');
});
