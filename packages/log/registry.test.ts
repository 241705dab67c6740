import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TLSSocket } from 'node:tls';
import { Secret } from '@weir/config';
import { createAuthority } from '@weir/testing';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createSerde } from './serde.ts';

const dir = mkdtempSync(join(tmpdir(), 'weir-registry-'));
const authority = createAuthority('registry authority');
const people = createAuthority('clients');
const servers: Server[] = [];
let accepted = 'Basic d2VpcjpzM2NyZXQ=';
const seen: { authorization: string | undefined; client: string | undefined }[] = [];

function file(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text);
  return path;
}

/** A registry that asks for a login, over TLS. */
async function startRegistry(names: readonly string[], mutual: boolean): Promise<string> {
  const issued = authority.issue('registry', names);
  const server = createServer({ ...issued, ...(mutual ? { requestCert: true, rejectUnauthorized: true, ca: people.cert } : {}) }, (request, response) => {
    const { authorization } = request.headers;
    seen.push({ authorization, client: (request.socket as TLSSocket).getPeerCertificate?.()?.subject?.CN as string | undefined });
    request.resume();
    response.setHeader('content-type', 'application/json');
    if (authorization !== accepted) {
      response.statusCode = 401;
      return response.end('{"error_code":401,"message":"who are you"}');
    }
    return response.end(request.url!.startsWith('/config/') ? '{"compatibilityLevel":"FULL_TRANSITIVE"}' : '{"id":1}');
  });
  servers.push(server);
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  return `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

let registryUrl: string;
beforeAll(async () => {
  file('ca.pem', authority.cert);
  file('other.pem', createAuthority('somebody else').cert);
  const client = people.issue('weir-client');
  file('client.pem', client.cert);
  file('client.key', client.key);
  registryUrl = await startRegistry(['127.0.0.1'], false);
});
afterAll(async () => {
  await Promise.all(servers.map((server) => new Promise((done) => { server.close(done); server.closeAllConnections(); })));
  rmSync(dir, { recursive: true });
});

const caFile = join(dir, 'ca.pem');
const start = (url: string, security: Parameters<typeof createSerde>[0]['security']) => createSerde({ registryUrl: url, security, deadlineMs: 5000 }).start().then(() => 'started' as const, (error: Error) => error);

test('a login by user and password, or by token, goes with every request; a changed file with the next one', async () => {
  expect(await start(registryUrl, { tls: { caFile }, login: { kind: 'basic', username: 'weir', password: new Secret('s3cret') } })).toBe('started');
  accepted = 'Bearer t0ken-2';
  const token = file('token', 't0ken-1\n');
  const login = { kind: 'bearer', token: { file: token } } as const;
  const serde = createSerde({ registryUrl, security: { tls: { caFile }, login }, deadlineMs: 5000 });
  await expect(serde.start()).rejects.toMatchObject({ code: 'log-auth-failed' });
  file('token', 't0ken-2\n');
  await serde.start();
  expect(seen.every((request) => request.authorization !== undefined)).toBe(true);
});

test('a login that is refused is told at once, without the password, and not asked for until the deadline', async () => {
  const before = seen.length;
  const error = await start(registryUrl, { tls: { caFile }, login: { kind: 'basic', username: 'weir', password: new Secret('wr0ng') } });
  expect(error).toMatchObject({ code: 'log-auth-failed', message: expect.stringContaining(`the schema registry ${registryUrl} refuses the login (401)`) });
  expect(JSON.stringify(error) + (error as Error).message + (error as Error).stack).not.toContain('wr0ng');
  expect(seen.length - before).toBeLessThanOrEqual(4);
});

test('an authority that is not trusted, no authority at all, and a certificate for another name are refused', async () => {
  const elsewhere = await startRegistry(['elsewhere.example'], false);
  expect(await start(registryUrl, { tls: { caFile: join(dir, 'other.pem') } })).toMatchObject({ code: 'log-tls-failed', message: expect.stringContaining(`${registryUrl} is not trusted`) });
  expect(await start(registryUrl, undefined)).toMatchObject({ code: 'log-tls-failed' });
  expect(await start(elsewhere, { tls: { caFile } })).toMatchObject({ code: 'log-tls-failed', message: expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID') });
});

test('a registry that asks for a client certificate gets it, and tells when there is none', async () => {
  const url = await startRegistry(['127.0.0.1'], true);
  accepted = 'Bearer t';
  const login = { kind: 'bearer', token: new Secret('t') } as const;
  expect(await start(url, { tls: { caFile, certFile: join(dir, 'client.pem'), keyFile: join(dir, 'client.key') }, login })).toBe('started');
  expect(seen.at(-1)?.client).toBe('weir-client');
  expect(await start(url, { tls: { caFile }, login })).toMatchObject({ code: 'log-auth-failed', message: expect.stringContaining('client certificate') });
});
