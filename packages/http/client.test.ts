import { createServer, type Server } from 'node:http';
import { createServer as createTcp, type Server as TcpServer } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { createHttpClient, type HttpClient, type HttpClientOptions } from './client.ts';

const cleanups: (() => Promise<unknown> | void)[] = [];
afterEach(async () => { for (const clean of cleanups.splice(0).reverse()) await clean(); });

function client(options: HttpClientOptions = { allowPrivate: true }): HttpClient {
  const made = createHttpClient(options);
  cleanups.push(() => made.close());
  return made;
}

async function listen(server: Server | TcpServer): Promise<number> {
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  cleanups.push(() => new Promise<void>((done) => {
    server.close(() => done());
    if ('closeAllConnections' in server) server.closeAllConnections();
  }));
  return (server.address() as { port: number }).port;
}

const get = (url: string) => ({ method: 'GET' as const, url, headers: {} });

test('a response is a value; a redirect is a failure and is not followed', async () => {
  let hits = 0;
  const port = await listen(createServer((request, response) => {
    hits++;
    if (request.url === '/go') response.writeHead(302, { location: '/there' }).end();
    else response.writeHead(418, { 'x-a': 'b' }).end('tea');
  }));
  expect(await client().call(get(`http://127.0.0.1:${port}/`), { deadlineMs: 2000 })).toMatchObject({ status: 418, headers: { 'x-a': 'b' }, body: Buffer.from('tea') });
  expect(await client().call(get(`http://127.0.0.1:${port}/go`), { deadlineMs: 2000 })).toMatchObject({ failure: 'redirect', sent: true });
  expect(hits).toBe(2);
});

test.each(['http://127.0.0.1/', 'http://0x7f.1/', 'http://2130706433/', 'http://[::1]/', 'http://[::ffff:7f00:1]/', 'http://169.254.169.254/latest', 'http://user:pw@8.8.8.8/', 'ftp://8.8.8.8/', 'file:///etc/passwd', 'http://①②⑦.0.0.1/', 'nonsense'])('%s is never called', async (url) => {
  expect(await client({}).call(get(url), { deadlineMs: 1000 })).toMatchObject({ failure: 'forbidden-address', sent: false });
});

test('a name with one inner address among its addresses is refused, and the checked address is the one that is called', async () => {
  const mixed = client({ resolve: (_h, _o, done) => done(null, [{ address: '8.8.8.8', family: 4 }, { address: '10.0.0.1', family: 4 }]) });
  expect(await mixed.call(get('http://rebind.example/'), { deadlineMs: 1000 })).toMatchObject({ failure: 'forbidden-address', sent: false });
  let looked = 0;
  const port = await listen(createServer((_q, r) => r.end('ok')));
  const once = client({ allowPrivate: true, resolve: (_h, _o, done) => { looked++; done(null, [{ address: '127.0.0.1', family: 4 }]); } });
  expect(await once.call(get(`http://name.example:${port}/`), { deadlineMs: 2000 })).toMatchObject({ status: 200 });
  expect(looked).toBe(1);
});

test('a veto in the tick of the write leaves the server without a byte', async () => {
  let bytes = 0;
  const port = await listen(createTcp((socket) => { socket.on('data', (d) => { bytes += d.length; }); }));
  expect(await client().call({ method: 'POST', url: `http://127.0.0.1:${port}/`, headers: {}, body: 'x' }, { deadlineMs: 1000, onBeforeWrite: () => false })).toMatchObject({ sent: false });
  expect(bytes).toBe(0);
});

test('nobody listens: not sent; cut after the request: maybe sent; no answer: timeout', async () => {
  const gone = await listen(createTcp());
  await cleanups.pop()!();
  expect(await client().call(get(`http://127.0.0.1:${gone}/`), { deadlineMs: 2000 })).toMatchObject({ failure: 'connect', sent: false });
  const cut = await listen(createTcp((socket) => { socket.on('data', () => socket.destroy()); socket.on('error', () => socket.destroy()); }));
  expect(await client().call(get(`http://127.0.0.1:${cut}/`), { deadlineMs: 2000 })).toMatchObject({ failure: 'reset', sent: true });
  const mute = await listen(createTcp((socket) => { socket.on('error', () => socket.destroy()); cleanups.push(() => { socket.destroy(); }); }));
  expect(await client().call(get(`http://127.0.0.1:${mute}/`), { deadlineMs: 100 })).toMatchObject({ failure: 'timeout', sent: true });
});

test('an endless or slow body ends within its bounds', async () => {
  const big = await listen(createServer((_q, r) => { r.write(Buffer.alloc(3_000_000)); }));
  expect(await client().call(get(`http://127.0.0.1:${big}/`), { deadlineMs: 5000 })).toMatchObject({ failure: 'too-large', sent: true });
  const slow = await listen(createServer((_q, r) => {
    const timer = setInterval(() => r.write('x'), 20);
    r.on('close', () => clearInterval(timer));
  }));
  expect(await client().call(get(`http://127.0.0.1:${slow}/`), { deadlineMs: 200 })).toMatchObject({ failure: 'timeout', sent: true });
});

test('a header with a line break is refused before anything is sent', async () => {
  expect(await client().call({ method: 'GET', url: 'http://127.0.0.1:9/', headers: { 'x-id': 'a\r\nx-evil: 1' } }, { deadlineMs: 500 })).toMatchObject({ sent: false, detail: expect.stringContaining('header') });
});
