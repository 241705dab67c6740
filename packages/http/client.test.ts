import type { LookupAddress } from 'node:dns';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { createSecureServer } from 'node:http2';
import { createServer as createTls } from 'node:https';
import { generateKeyPairSync, sign } from 'node:crypto';
import { connect, createServer as createTcp, type Server as TcpServer, type Socket } from 'node:net';
import { gzipSync } from 'node:zlib';
import { afterEach, expect, test, vi } from 'vitest';
import { createHttpClient, type HttpClient, type HttpClientOptions } from './client.ts';

/** Conditions are waited for as long as it takes on a loaded machine; the default is one second. */
const patience = { timeout: 20_000 };

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

const http = (listener: RequestListener): Promise<number> => listen(createServer(listener));

/** A server that speaks to the socket itself. */
function raw(onData: (socket: Socket, data: Buffer) => void): Promise<number> {
  return listen(createTcp((socket) => {
    socket.on('error', () => socket.destroy());
    socket.on('data', (data) => onData(socket, data));
    cleanups.push(() => { socket.destroy(); });
  }));
}

const get = (url: string) => ({ method: 'GET' as const, url, headers: {} });
const at = (port: number, path = '/'): string => `http://127.0.0.1:${port}${path}`;
const resolving = (...addresses: string[]): HttpClientOptions['resolve'] => (_host, _options, done) => done(null, addresses.map((address): LookupAddress => ({ address, family: address.includes(':') ? 6 : 4 })));

test('a response is a value; a redirect is a failure and is not followed, whatever it leads to', async () => {
  let hits = 0;
  const port = await http((request, response) => {
    hits++;
    if (request.url === '/go') response.writeHead(302, { location: '/there' }).end();
    else if (request.url === '/scheme') response.writeHead(301, { location: 'file:///etc/passwd' }).end();
    else response.writeHead(418, { 'x-a': 'b' }).end('tea');
  });
  expect(await client().call(get(at(port)), { deadlineMs: 20_000 })).toMatchObject({ status: 418, headers: { 'x-a': 'b' }, body: Buffer.from('tea') });
  expect(await client().call(get(at(port, '/go')), { deadlineMs: 20_000 })).toMatchObject({ failure: 'redirect', sent: true });
  expect(await client().call(get(at(port, '/scheme')), { deadlineMs: 20_000 })).toMatchObject({ failure: 'redirect', sent: true });
  expect(hits).toBe(3);
});

test.each(['http://127.0.0.1/', 'http://0x7f.1/', 'http://0177.0.0.1/', 'http://127.1/', 'http://2130706433/', 'http://[::1]/', 'http://[::]/', 'http://[::ffff:7f00:1]/', 'http://[64:ff9b::7f00:1]/', 'http://[2002:7f00:1::]/', 'http://169.254.169.254/latest', 'http://[fd00:ec2::254]/', 'http://user:pw@8.8.8.8/', 'http://8.8.8.8@127.0.0.1/', 'ftp://8.8.8.8/', 'file:///etc/passwd', 'http://①②⑦.0.0.1/', 'http://127。0。0。1/', 'http://[fe80::1%25eth0]/', 'nonsense', ''])('%s is never called', async (url) => {
  expect(await client({}).call(get(url), { deadlineMs: 20_000 })).toMatchObject({ failure: 'forbidden-address', sent: false });
});

test('a URL that was called before, or refused, is looked at as the first time; each call has its own path and query', async () => {
  const seen: string[] = [];
  const port = await http((request, response) => {
    seen.push(request.url!);
    response.end();
  });
  const one = client({ allowPrivate: ['127.0.0.1/32'] });
  for (const path of ['/a?x=1', '/b', '/a?x=1']) expect(await one.call(get(at(port, path)), { deadlineMs: 20_000 })).toMatchObject({ status: 200 });
  expect(seen).toEqual(['/a?x=1', '/b', '/a?x=1']);
  for (let i = 0; i < 2; i++) expect(await one.call(get('http://10.0.0.1/'), { deadlineMs: 20_000 })).toMatchObject({ failure: 'forbidden-address', sent: false });
  expect(await one.call({ ...get(at(port, '/b')), headers: { 'x-a': 'a\nb' } }, { deadlineMs: 20_000 })).toMatchObject({ failure: 'unsendable', sent: false });
  expect(seen).toHaveLength(3);
});

test.each([['metadata.example', ['169.254.169.254']], ['localhost', ['127.0.0.1']], ['localhost.', ['::1']], ['mixed.example', ['8.8.8.8', '10.0.0.1']], ['aaaa.example', ['8.8.8.8', '::ffff:127.0.0.1']], ['nat.example', ['64:ff9b::a00:1']], ['empty.example', []]])('the name %s with an inner address among its addresses is refused', async (host, addresses) => {
  expect(await client({ resolve: resolving(...addresses) }).call(get(`http://${host}/`), { deadlineMs: 20_000 })).toMatchObject({ failure: 'forbidden-address', sent: false });
});

test('the system\'s own localhost is refused too, and no proxy of the environment is asked', async () => {
  let hits = 0;
  const port = await http((_q, r) => { hits++; r.end(); });
  for (const name of ['HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'NODE_USE_ENV_PROXY']) vi.stubEnv(name, name.startsWith('NODE') ? '1' : at(port));
  cleanups.push(() => { vi.unstubAllEnvs(); });
  expect(await client({}).call(get(`http://localhost:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ failure: 'forbidden-address', sent: false });
  expect(await client({ resolve: resolving('192.0.2.1') }).call(get('http://proxied.example/'), { deadlineMs: 20_000 })).toMatchObject({ failure: 'forbidden-address' });
  expect(hits).toBe(0);
});

test('a name is resolved once, and the checked address is the one that is called', async () => {
  let looked = 0;
  const port = await http((_q, r) => r.end('ok'));
  const once = client({ allowPrivate: ['127.0.0.0/8'], resolve: (_h, _o, done) => done(null, [{ address: looked++ === 0 ? '127.0.0.1' : '10.0.0.1', family: 4 }]) });
  expect(await once.call(get(`http://name.example:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ status: 200 });
  expect(looked).toBe(1);
});

test('a veto in the tick of the write leaves the server without a byte', async () => {
  let bytes = 0;
  const port = await raw((_socket, data) => { bytes += data.length; });
  expect(await client().call({ method: 'POST', url: at(port), headers: {}, body: 'x' }, { deadlineMs: 20_000, onBeforeWrite: () => false })).toMatchObject({ sent: false });
  expect(bytes).toBe(0);
});

test('the check comes after look-up and connection: what changed meanwhile is seen', async () => {
  let bytes = 0;
  const port = await raw((_socket, data) => { bytes += data.length; });
  let allowed = true;
  const slow = client({ allowPrivate: true, resolve: (_h, _o, done) => setImmediate(() => { allowed = false; done(null, [{ address: '127.0.0.1', family: 4 }]); }) });
  expect(await slow.call(get(`http://slow.example:${port}/`), { deadlineMs: 20_000, onBeforeWrite: () => allowed })).toMatchObject({ sent: false });
  expect(bytes).toBe(0);
});

test('a call that waited behind another on the only connection is checked when its turn comes', async () => {
  const served: string[] = [];
  let release = (): void => {};
  const port = await http((request, response) => {
    served.push(request.url!);
    if (request.url === '/first') release = () => response.end('1');
    else response.end('2');
  });
  const single = client({ allowPrivate: true, connections: 1 });
  let allowed = true;
  const first = single.call(get(at(port, '/first')), { deadlineMs: 20_000 });
  const checked: string[] = [];
  const second = single.call(get(at(port, '/second')), { deadlineMs: 20_000, onBeforeWrite: () => { checked.push('second'); return allowed; } });
  await vi.waitFor(() => expect(served).toEqual(['/first']), patience);
  expect(checked).toEqual([]);
  allowed = false;
  release();
  expect(await first).toMatchObject({ status: 200 });
  expect(await second).toMatchObject({ sent: false });
  expect(checked).toEqual(['second']);
  expect(await single.call(get(at(port, '/third')), { deadlineMs: 20_000 })).toMatchObject({ status: 200 });
  expect(served).toEqual(['/first', '/third']);
});

test('what the check throws comes to the caller, with nothing sent: an error that nobody declared is not a failed connection', async () => {
  let bytes = 0;
  const port = await raw((_socket, data) => { bytes += data.length; });
  await expect(client().call(get(at(port)), { deadlineMs: 20_000, onBeforeWrite: () => { throw new TypeError('bug'); } })).rejects.toThrow('bug');
  expect(bytes).toBe(0);
});

test('a deadline that ends while the call waits for its connection sends nothing, then or later', async () => {
  const served: string[] = [];
  let release = (): void => {};
  const port = await http((request, response) => {
    served.push(request.url!);
    if (request.url === '/first') release = () => response.end();
    else response.end();
  });
  const single = client({ allowPrivate: true, connections: 1 });
  const first = single.call(get(at(port, '/first')), { deadlineMs: 20_000 });
  await vi.waitFor(() => expect(served).toEqual(['/first']), patience);
  expect(await single.call(get(at(port, '/late')), { deadlineMs: 50 })).toMatchObject({ failure: 'timeout', sent: false });
  release();
  await first;
  expect(await single.call(get(at(port, '/next')), { deadlineMs: 20_000 })).toMatchObject({ status: 200 });
  expect(served).toEqual(['/first', '/next']);
});

/** A call whose deadline is long enough for the request to leave, and no longer: on a loaded machine that takes another try. */
async function sentAndLate(port: number): ReturnType<HttpClient['call']> {
  for (let deadlineMs = 200; ; deadlineMs *= 2) {
    const result = await client().call(get(at(port)), { deadlineMs });
    if (('sent' in result && result.sent) || deadlineMs > 10_000) return result;
  }
}

test('nobody listens: not sent; cut after the request: maybe sent; no answer: timeout', async () => {
  const gone = await listen(createTcp());
  await cleanups.pop()!();
  expect(await client().call(get(at(gone)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'connect', sent: false });
  const cut = await raw((socket) => socket.destroy());
  expect(await client().call(get(at(cut)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'reset', sent: true });
  const reset = await raw((socket) => socket.resetAndDestroy());
  expect(await client().call(get(at(reset)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'reset', sent: true });
  const mute = await raw(() => {});
  expect(await sentAndLate(mute)).toMatchObject({ failure: 'timeout', sent: true });
});

test('a name that does not resolve, and a resolver that does not answer, send nothing', async () => {
  const unknown = client({ resolve: (_h, _o, done) => done(Object.assign(new Error('no'), { code: 'ENOTFOUND' }), []) });
  expect(await unknown.call(get('http://nobody.example/'), { deadlineMs: 20_000 })).toMatchObject({ failure: 'connect', sent: false });
  expect(await client({ resolve: () => {} }).call(get('http://slow.example/'), { deadlineMs: 100 })).toMatchObject({ failure: 'timeout', sent: false });
});

test('a request is sent once, also when an idle connection turns out to be closed', async () => {
  let requests = 0;
  const port = await raw((socket, data) => {
    requests += data.toString('latin1').split('POST /').length - 1;
    if (requests === 1) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n');
    else socket.destroy();
  });
  const single = client({ allowPrivate: true, connections: 1 });
  const post = { method: 'POST' as const, url: at(port), headers: {}, body: 'x' };
  expect(await single.call(post, { deadlineMs: 20_000 })).toMatchObject({ status: 200 });
  expect(await single.call(post, { deadlineMs: 20_000 })).toMatchObject({ failure: 'reset', sent: true });
  expect(requests).toBe(2);
});

test.each([
  ['a body shorter than its length', 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"half":'],
  ['chunks without an end', 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n'],
  ['half a head', 'HTTP/1.1 200 OK\r\ncontent-le'],
  ['no HTTP', 'SSH-2.0-OpenSSH_9.9\r\n'],
])('%s is a failure that may have had an effect, never a response', async (_name, text) => {
  const port = await raw((socket) => socket.end(text));
  expect(await client().call(get(at(port)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'reset', sent: true });
});

test('an endless, announced or slow body, and endless headers, end within their bounds', async () => {
  let written = 0;
  const big = await http((_q, r) => {
    const feed = (): void => { if (!r.destroyed) r.write(Buffer.alloc(65_536), () => { written += 65_536; setImmediate(feed); }); };
    feed();
  });
  expect(await client().call(get(at(big)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'too-large', sent: true });
  expect(written).toBeLessThan(20_000_000);
  const announced = await http((_q, r) => { r.writeHead(200, { 'content-length': String(100 * 1024 * 1024) }).flushHeaders(); });
  expect(await client().call(get(at(announced)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'too-large', sent: true });
  const slow = await http((_q, r) => {
    const timer = setInterval(() => r.write('x'), 20);
    r.on('close', () => clearInterval(timer));
  });
  expect(await sentAndLate(slow)).toMatchObject({ failure: 'timeout', sent: true });
  const slowHead = await raw((socket) => {
    const timer = setInterval(() => socket.write('H'), 20);
    socket.on('close', () => clearInterval(timer));
  });
  expect(await sentAndLate(slowHead)).toMatchObject({ sent: true });
  const heads = await raw((socket) => socket.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(200_000)}\r\n`));
  expect(await client().call(get(at(heads)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'too-large', sent: true });
});

test('a compressed answer is not unpacked: a bomb stays as small as it came', async () => {
  const bomb = gzipSync(Buffer.alloc(50_000_000));
  const port = await http((request, r) => { r.writeHead(200, { 'content-encoding': 'gzip', 'x-asked': request.headers['accept-encoding'] ?? 'nothing' }).end(bomb); });
  expect(await client().call(get(at(port)), { deadlineMs: 20_000 })).toMatchObject({ status: 200, headers: { 'x-asked': 'nothing' }, body: bomb });
});

test.each([['a line break', { 'x-id': 'a\r\nx-evil: 1' }], ['a bare CR', { 'x-id': 'a\rb' }], ['NUL', { 'x-id': 'a\u0000b' }], ['a code point over 255', { 'x-id': 'a\u010ab' }], ['a name with a colon', { 'x:id': 'a' }], ['an empty name', { '': 'a' }], ['a body of its own framing', { 'transfer-encoding': 'chunked' }]])('a header with %s is refused for good before anything is sent', async (_name, headers) => {
  let bytes = 0;
  const port = await raw((_socket, data) => { bytes += data.length; });
  expect(await client().call({ method: 'POST', url: at(port), headers: headers as Record<string, string>, body: 'x' }, { deadlineMs: 20_000 })).toMatchObject({ failure: 'unsendable', sent: false });
  expect(bytes).toBe(0);
});

test('a path with a line break leaves as one line', async () => {
  let request: IncomingMessage | undefined;
  const port = await http((q, r) => { request = q; r.end(); });
  await client().call(get(at(port, '/a\r\nx-evil: 1')), { deadlineMs: 20_000 });
  expect(request!.headers['x-evil']).toBeUndefined();
});

/** A self-signed certificate for localhost (X.509 v1, ECDSA P-256), so that the tests hold no key. */
function selfSigned(): { key: string; cert: string } {
  const der = (tag: number, ...parts: Buffer[]): Buffer => {
    const body = Buffer.concat(parts);
    const length = body.length < 128 ? [body.length] : body.length < 256 ? [0x81, body.length] : [0x82, body.length >> 8, body.length & 255];
    return Buffer.concat([Buffer.from([tag, ...length]), body]);
  };
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  const algorithm = der(0x30, Buffer.from('06082a8648ce3d040302', 'hex'));
  const name = der(0x30, der(0x31, der(0x30, Buffer.from('0603550403', 'hex'), der(0x0c, Buffer.from('localhost')))));
  const validity = der(0x30, ...[-1, 1].map((years) => der(0x17, Buffer.from(`${new Date(Date.now() + years * 31_536_000_000).toISOString().slice(2, 19).replaceAll(/[-:T]/g, '')}Z`))));
  const body = der(0x30, der(0x02, Buffer.from([1])), algorithm, name, validity, name, publicKey.export({ format: 'der', type: 'spki' }));
  const signed = der(0x30, body, algorithm, der(0x03, Buffer.from([0]), sign('sha256', body, privateKey)));
  return { key: privateKey.export({ format: 'pem', type: 'pkcs8' }) as string, cert: `-----BEGIN CERTIFICATE-----\n${signed.toString('base64').replaceAll(/.{64}/g, '$&\n')}\n-----END CERTIFICATE-----\n` };
}

test('TLS: a trusted server is called; an untrusted one, another name and plain HTTP are TLS failures with nothing sent', async () => {
  const { key, cert } = selfSigned();
  let hits = 0;
  const port = await listen(createTls({ key, cert }, (_q, r) => { hits++; r.end('ok'); }));
  const plain = await http((_q, r) => r.end());
  const trusting = client({ allowPrivate: true, ca: [cert], resolve: resolving('127.0.0.1') });
  expect(await trusting.call(get(`https://localhost:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ status: 200 });
  expect(await client().call(get(`https://localhost:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ failure: 'tls', sent: false });
  expect(await trusting.call(get(`https://other.example:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ failure: 'tls', sent: false });
  expect(await client().call(get(`https://127.0.0.1:${plain}/`), { deadlineMs: 20_000 })).toMatchObject({ failure: 'tls', sent: false });
  expect(hits).toBe(1);
});

test('a server that offers HTTP/2 is spoken to in HTTP/1.1: only there is the check in the tick of the write', async () => {
  const { key, cert } = selfSigned();
  const server = createSecureServer({ key, cert, allowHTTP1: true }, (request, response) => { response.end(request.httpVersion); });
  const port = await listen(server as unknown as Server);
  expect(await client({ allowPrivate: true, ca: [cert] }).call(get(`https://localhost:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ status: 200, body: Buffer.from('1.1') });
});

test('TLS that breaks after the request was read is a failure that may have had an effect', async () => {
  const { key, cert } = selfSigned();
  let applied = 0;
  let spoil = (): void => {};
  const server = await listen(createTls({ key, cert }, () => {
    applied++;
    spoil();
  }));
  const port = await listen(createTcp((socket) => {
    const upstream = connect(server, '127.0.0.1');
    for (const end of [socket, upstream]) end.on('error', () => end.destroy());
    cleanups.push(() => { socket.destroy(); upstream.destroy(); });
    socket.pipe(upstream).pipe(socket);
    // A record whose MAC cannot hold.
    spoil = () => socket.write(Buffer.concat([Buffer.from([0x17, 3, 3, 0, 64]), Buffer.alloc(64, 7)]));
  }));
  const trusting = client({ allowPrivate: true, ca: [cert] });
  expect(await trusting.call(get(`https://localhost:${port}/`), { deadlineMs: 20_000 })).toMatchObject({ failure: expect.stringMatching(/^(tls|reset)$/), sent: true });
  expect(applied).toBe(1);
});

test('a closed client ends the calls under way and refuses new ones, with the truth about what was sent', async () => {
  const port = await raw(() => {});
  const closing = createHttpClient({ allowPrivate: true });
  let written = false;
  const under = closing.call(get(at(port)), { deadlineMs: 20_000, onBeforeWrite: () => { written = true; return true; } });
  await vi.waitFor(() => expect(written).toBe(true), patience);
  await closing.close();
  expect(await under).toMatchObject({ failure: 'reset', sent: true });
  expect(await closing.call(get(at(port)), { deadlineMs: 20_000 })).toMatchObject({ failure: 'connect', sent: false });
});
