import { createServer, type RequestListener } from 'node:http';
import { createServer as createTcp, type AddressInfo } from 'node:net';
import { afterAll, expect, test } from 'vitest';
import { probeBroker, probeRegistry } from './probe.ts';

const servers: { close(): unknown }[] = [];
afterAll(() => { for (const server of servers) server.close(); });

async function listen(answer: RequestListener): Promise<string> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
const json = (status: number, body: object): RequestListener => (_request, response) => { response.writeHead(status, { 'content-type': 'application/json', 'connection': 'close' }).end(JSON.stringify(body)); };

test.each([
  ['has the schema', json(200, { id: 7 }), true],
  ['does not know it yet', json(404, { error_code: 40401, message: "Subject 'weir.canonical.Profile' not found." }), false],
])('a registry that %s', async (_name, answer, known) => {
  expect(await probeRegistry({ registryUrl: `http://${await listen(answer)}` })).toBe(known);
});

test.each([
  ['refuses the login', json(401, { message: 'who are you' }), 'log-auth-failed'],
  ['forbids', json(403, { message: 'no' }), 'log-auth-failed'],
  ['is another server', ((_request, response) => { response.writeHead(404, { connection: 'close' }).end('<h1>no such page</h1>'); }) as RequestListener, 'log-unavailable'],
  ['is broken', json(500, { message: 'oh' }), 'log-unavailable'],
])('a registry that %s rejects with its code', async (_name, answer, code) => {
  await expect(probeRegistry({ registryUrl: `http://${await listen(answer)}` })).rejects.toMatchObject({ code });
});

test('what is no broker, or not there, is log-unavailable in time; what is no address is config-invalid', async () => {
  const ask = (broker: string): Promise<unknown> => probeBroker(broker, { clientId: 'probe' });
  await expect(ask(await listen(json(200, {})))).rejects.toMatchObject({ code: 'log-unavailable' });
  const silent = createTcp((socket) => { socket.on('error', () => undefined).resume(); });
  servers.push(silent);
  await new Promise<void>((done) => { silent.listen(0, '127.0.0.1', done); });
  const { port } = silent.address() as AddressInfo;
  const began = performance.now();
  await expect(ask(`127.0.0.1:${port}`)).rejects.toMatchObject({ code: 'log-unavailable' });
  expect(performance.now() - began).toBeLessThan(10_000);
  await new Promise<void>((done) => { silent.close(() => done()); });
  await expect(ask(`127.0.0.1:${port}`)).rejects.toMatchObject({ code: 'log-unavailable', message: expect.stringContaining('in plaintext') });
  for (const bad of ['nowhere', ':9092', 'a:b', 'a:70000']) await expect(ask(bad)).rejects.toMatchObject({ code: 'config-invalid' });
});
