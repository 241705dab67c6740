import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Secret, type KafkaSecurity } from '@weir/config';
import { createLog, type Log, type LogOptions } from '@weir/log';
import { createAuthority, testPrefix, waitFor, type Issued } from '@weir/testing';
import { afterAll, afterEach, beforeAll, describe, expect, inject, test } from 'vitest';
import { freePorts, startPlatform, type Platform } from '../../infra/local/platform.ts';

const root = resolve(import.meta.dirname, '../..');
const password = 'p4ss-of-the-broker-1';
const plainPassword = 'p4ss-in-plain-9';
const wrongPassword = 'never-the-p4ssword';
const jaas = 'org.apache.kafka.common.security';
const logs: Log[] = [];
let dir: string;
let platform: Platform;
/** Addresses of the listeners: SASL_SSL, SSL that asks for a client certificate, and one whose certificate has another name. */
let sasl: string;
let mutual: string;
let misnamed: string;

/** A token server: `/good` and `/expired` tokens, and one that knows no client. */
const tokenRequests: { authorization: string | undefined; body: string }[] = [];
const tokenServer = createServer((request, response) => {
  let body = '';
  request.on('data', (d: Buffer) => { body += d.toString(); });
  request.on('end', () => {
    tokenRequests.push({ authorization: request.headers.authorization, body });
    const seconds = Math.floor(Date.now() / 1000) + (request.url === '/expired' ? -7200 : 0);
    const token = ['{"alg":"none"}', JSON.stringify({ sub: 'weir', iat: seconds, exp: seconds + 3600 })].map((part) => Buffer.from(part).toString('base64url')).join('.');
    if (request.url === '/none') response.writeHead(401, { 'content-type': 'application/json' }).end('{"error":"invalid_client"}');
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ access_token: `${token}.`, token_type: 'bearer', expires_in: 3600 }));
  });
});
let tokenUrl: string;

function file(name: string, text: string): string {
  const path = join(dir, name);
  writeFileSync(path, text, { mode: 0o600 });
  return path;
}

const pem = ({ cert, key }: Issued): string => key + cert;
const tls = { get caFile() { return join(dir, 'ca.pem'); } };
const login = (over: Partial<NonNullable<KafkaSecurity['sasl']>> = {}): KafkaSecurity => ({ tls, sasl: { mechanism: 'SCRAM-SHA-512', username: 'weir', password: new Secret(password), ...over } });

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'weir-tls-'));
  await new Promise<void>((done) => { tokenServer.listen(0, '127.0.0.1', done); });
  tokenUrl = `http://127.0.0.1:${(tokenServer.address() as AddressInfo).port}`;
  const authority = createAuthority('weir test authority');
  const people = createAuthority('weir test clients');
  file('ca.pem', authority.cert);
  file('other-ca.pem', createAuthority('somebody else').cert);
  const client = people.issue('weir-client');
  file('client.pem', client.cert);
  file('client.key', client.key);
  const keystore = file('server.pem', pem(authority.issue('broker', ['127.0.0.1', 'localhost'])));
  const other = file('misnamed.pem', pem(authority.issue('broker', ['elsewhere.example'])));
  const ports = await freePorts(3);
  [sasl, mutual, misnamed] = ports.map((port) => `127.0.0.1:${port}`) as [string, string, string];
  const stored = (listener: number, location: string) => ({ [`listener.name.more${listener}.ssl.keystore.type`]: 'PEM', [`listener.name.more${listener}.ssl.keystore.location`]: location });
  platform = await startPlatform({
    dataDir: join(dir, 'platform'), registry: false, listeners: ports.map((port) => ({ listen: [port], advertised: [port] })), scram: [{ name: 'weir', password }],
    properties: {
      'listener.security.protocol.map': 'PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,MORE0:SASL_SSL,MORE1:SSL,MORE2:SSL',
      ...stored(0, keystore), ...stored(1, keystore), ...stored(2, other),
      'listener.name.more1.ssl.client.auth': 'required', 'listener.name.more1.ssl.truststore.type': 'PEM', 'listener.name.more1.ssl.truststore.location': file('clients-ca.pem', people.cert),
      'listener.name.more0.sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER',
      // Kafka's validator for development: it takes tokens that nobody signed.
      'listener.name.more0.oauthbearer.sasl.jaas.config': `${jaas}.oauthbearer.OAuthBearerLoginModule required;`,
      'listener.name.more0.oauthbearer.sasl.server.callback.handler.class': `${jaas}.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler`,
      'listener.name.more0.scram-sha-256.sasl.jaas.config': `${jaas}.scram.ScramLoginModule required;`,
      'listener.name.more0.scram-sha-512.sasl.jaas.config': `${jaas}.scram.ScramLoginModule required;`,
      'listener.name.more0.plain.sasl.jaas.config': `${jaas}.plain.PlainLoginModule required user_weir="${plainPassword}";`,
      // One mechanism asks for the login again and again.
      'listener.name.more0.scram-sha-256.connections.max.reauth.ms': '1500',
    },
  });
});

afterAll(async () => {
  tokenServer.closeAllConnections();
  tokenServer.close();
  await platform?.stop();
  if (dir !== undefined) rmSync(dir, { recursive: true, force: true });
});
afterEach(async () => { await Promise.all(logs.splice(0).map((log) => log.close())); });

function open(driver: LogOptions['driver'], address: string, security?: KafkaSecurity): Log {
  const log = createLog({ brokers: [address], clientId: 'tls', driver, security });
  logs.push(log);
  return log;
}

async function topicOf(log: Log): Promise<string> {
  const name = testPrefix('tls');
  await (await log.admin()).createTopics([{ name, partitions: 1, replicationFactor: 1, config: {} }]);
  return name;
}

/** Produces ten records and reads them by a group. */
async function roundTrip(log: Log): Promise<string[]> {
  const topic = await topicOf(log);
  const appender = await log.appender();
  await appender.append(topic, Array.from({ length: 10 }, (_, i) => ({ partition: 0, key: null, value: Buffer.from(String(i)) })));
  const read: string[] = [];
  const consumer = log.consumer({ groupId: topic, topics: [topic], handlers: { assigned: async () => {}, revoked: async () => {}, failed: (error) => { throw error; }, batch: ({ records }) => { for (const r of records) read.push(String(r.value)); } } });
  await consumer.start();
  await waitFor('ten records', () => read.length >= 10, 10_000);
  return read;
}

interface Ended { readonly code: number; readonly text: string }
const ten = Array.from({ length: 10 }, (_, i) => String(i));

/** What the first use of the log is refused with; in a moment, not after its deadline of 30 s. */
async function refusal(log: Log): Promise<{ code: string; message: string }> {
  const began = performance.now();
  const error = await (await log.admin()).listTopics().then(() => undefined, (e: unknown) => e as { code: string; message: string });
  expect(performance.now() - began).toBeLessThan(20_000);
  expect(error).toBeDefined();
  return { code: error!.code, message: error!.message };
}

describe.each(['platformatic', 'kafkajs'] as const)('%s', (driver) => {
  test.each(['SCRAM-SHA-512', 'PLAIN'] as const)('records go and come over SASL_SSL with %s', async (mechanism) => {
    expect(await roundTrip(open(driver, sasl, login({ mechanism, password: new Secret(mechanism === 'PLAIN' ? plainPassword : password) })))).toEqual(ten);
  });

  test('records go and come with tokens of a token server; one that the broker refuses, and a token server that refuses, are told', async () => {
    const oauth = (path: string) => login({ mechanism: 'OAUTHBEARER', username: 'weir', password: new Secret('cl1ent-secret'), tokens: { url: `${tokenUrl}${path}` } });
    expect(await roundTrip(open(driver, sasl, oauth('/good')))).toEqual(ten);
    expect(tokenRequests.at(-1)).toEqual({ authorization: `Basic ${Buffer.from('weir:cl1ent-secret').toString('base64')}`, body: 'grant_type=client_credentials' });
    expect(await refusal(open(driver, sasl, oauth('/expired')))).toEqual({ code: 'log-auth-failed', message: expect.stringContaining(`broker ${sasl} refuses SASL OAUTHBEARER of "weir"`) });
    const log = createLog({ brokers: [sasl], clientId: 'tls', driver, security: oauth('/none'), deadlineMs: 1000 });
    logs.push(log);
    await expect((await log.admin()).listTopics()).rejects.toMatchObject({ code: 'log-deadline', message: expect.stringContaining('answered 401 (invalid_client)') });
  });

  test('records go and come with a client certificate; without one the broker\'s refusal is told, though it comes after the handshake', async () => {
    expect(await roundTrip(open(driver, mutual, { tls: { caFile: tls.caFile, certFile: join(dir, 'client.pem'), keyFile: join(dir, 'client.key') } }))).toEqual(ten);
    expect(await refusal(open(driver, mutual, { tls }))).toEqual({ code: 'log-auth-failed', message: expect.stringContaining(`broker ${mutual} refuses the client certificate`) });
  });

  test.each(['SCRAM-SHA-512', 'PLAIN'] as const)('a wrong password for %s is one error that names broker, mechanism and user, and not the password', async (mechanism) => {
    const error = await refusal(open(driver, sasl, login({ mechanism, password: new Secret(wrongPassword) })));
    expect(error).toEqual({ code: 'log-auth-failed', message: expect.stringContaining(`broker ${sasl} refuses SASL ${mechanism} of "weir"`) });
    expect(error.message).not.toContain(wrongPassword);
  });

  test('an authority that is not trusted, and a certificate for another name, are refused', async () => {
    expect(await refusal(open(driver, sasl, { ...login(), tls: { caFile: join(dir, 'other-ca.pem') } }))).toEqual({ code: 'log-tls-failed', message: expect.stringContaining(`broker ${sasl} is not trusted`) });
    expect(await refusal(open(driver, misnamed, { tls }))).toEqual({ code: 'log-tls-failed', message: expect.stringContaining('ERR_TLS_CERT_ALTNAME_INVALID') });
  });

  test('a password that was changed in its file is used by the next connection of the same log', async () => {
    const path = file('password', `${wrongPassword}\n`);
    const log = open(driver, sasl, login({ password: { file: path } }));
    expect((await refusal(log)).code).toBe('log-auth-failed');
    file('password', `${password}\n`);
    expect(await (await log.admin()).listTopics()).toEqual(expect.any(Array));
  });

  test('nothing is lost, repeated or failed while the broker asks for the login again and again', async () => {
    const log = open(driver, sasl, login({ mechanism: 'SCRAM-SHA-256' }));
    const topic = await topicOf(log);
    const appender = await log.appender();
    const read: string[] = [];
    const errors: Error[] = [];
    await (await log.reader()).follow(topic, new Map(), ({ records }) => { for (const r of records) read.push(String(r.value)); }, (error) => errors.push(error));
    const end = performance.now() + 2000;
    let sent = 0;
    while (performance.now() < end) await Promise.all(Array.from({ length: 20 }, async () => appender.append(topic, [{ partition: 0, key: null, value: Buffer.from(String(sent++)) }])));
    await waitFor('all of them', () => read.length >= sent || errors.length > 0, 10_000);
    expect(errors).toEqual([]);
    expect(read).toEqual(Array.from({ length: sent }, (_, i) => String(i)));
  });
});

test('a process with the wrong password ends with the reason, and at debug the password is nowhere', async () => {
  const run = (given: string, ...args: string[]) => new Promise<Ended>((done) => {
    const env = {
      ...process.env, NODE_COMPILE_CACHE: join(root, '.cache/compiled'), WEIR_LOG_LEVEL: 'debug', KAFKA_BROKERS: sasl, SCHEMA_REGISTRY_URL: inject('registryUrl'), WEIR_DATA: join(dir, 'data'), WEIR_TOPIC_PREFIX: 'tls', WEIR_KAFKA_SECURITY_PROTOCOL: 'SASL_SSL',
      WEIR_KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512', WEIR_KAFKA_SASL_USERNAME: 'weir', WEIR_KAFKA_SASL_PASSWORD: given, WEIR_KAFKA_SSL_CA_FILE: tls.caFile,
    };
    execFile(process.execPath, args, { env, cwd: root }, (error, out, err) => done({ code: error === null ? 0 : Number(error.code), text: out + err }));
  });
  const check = ['cli/main.ts', 'topics', 'check', 'workspace'];
  const [admitted, cli, service, doctor] = await Promise.all([run(password, ...check), run(wrongPassword, ...check), run(wrongPassword, 'services/policy/main.ts'), run(wrongPassword, 'cli/main.ts', 'doctor', 'workspace')]);
  expect(admitted.text).toMatch(/tls\.control.*(missing|does not exist)/);
  for (const refused of [cli, service]) {
    expect(refused.code).not.toBe(0);
    expect(refused.text).toContain(`broker ${sasl} refuses SASL SCRAM-SHA-512 of "weir"`);
  }
  // The way to the broker and its certificate are right, the login is not.
  expect(doctor).toMatchObject({ code: 1, text: expect.stringMatching(new RegExp(`^ok +brokers +${sasl} answers: Kafka [\\s\\S]*^fail +topics +broker ${sasl} refuses SASL`, 'm')) });
  expect(admitted.text + cli.text + service.text + doctor.text).not.toMatch(/p4ss/);
});
