import { randomBytes } from 'node:crypto';
import { createServer, request as requestOf, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createLog, createSerde, type Serde } from '@weir/log';
import { isSealed } from '@weir/seal';
import { readKeys, startFleet, waitFor, type Fleet } from '@weir/testing';
import { removeSecret } from '@weir/vault';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
/** Characters that every encoding below changes. */
const planted = 'pl4nted"s3cret/+&=%\\tail-9f8e7d6c5b';
const names = ['CRM_TOKEN', 'WAREHOUSE_TOKEN', 'NEWSLETTER_TOKEN', 'KLAVIYO_API_KEY', 'PARTNER_WEBHOOK_SECRET'] as const;
const vaultToken = 'hvs.planted-token-of-the-vault-1122334455';
const secretId = 'planted-secret-id-of-the-approle-5566778899';
const registryPassword = 'planted/registry+password&of=weir-31415926';
const oauthSecret = 'planted"oauth+client/secret&27182818284';
const firstRefresh = 'planted-first-refresh-16180339887';

/** KV v2, as its API documentation says. */
const kv = { mode: 'ok' as 'ok' | 'down' | 'sealed' | 'slow' | 'denied' | 'line-end', reads: 0, values: {} as Record<string, string>, older: [] as Record<string, string>[] };
/** The crm behind a door that lets some credentials through no more. */
const crm = { refused: new Set<string>(), refusals: 0, lastTaken: '' };
function toCrm(request: IncomingMessage, response: ServerResponse): void {
  const given = request.headers.authorization ?? '';
  if ([...crm.refused].some((value) => given.includes(value))) {
    crm.refusals++;
    request.resume();
    return void response.writeHead(403, { 'content-type': 'application/json' }).end(JSON.stringify({ error: 'forbidden' }));
  }
  crm.lastTaken = given;
  const on = requestOf(`${fleet.sandbox}/d${request.url}`, { method: request.method, headers: request.headers }, (answer) => { answer.pipe(response.writeHead(answer.statusCode!, answer.headers)); });
  on.once('error', () => response.destroy());
  request.pipe(on);
}
/** A token server (RFC 6749) whose tokens live ten seconds, and which gives another refresh token each time. */
const oauth = { given: [] as string[], refused: 0, asked: 0 };
function tokens(json: (status: number, body: unknown) => void): void {
  // The first answer quotes the secret, as a bad server would.
  if (oauth.asked++ === 0) {
    oauth.refused++;
    return json(400, { error: 'invalid_request', error_description: `the client secret is ${oauthSecret}` });
  }
  const [access, refresh] = ['access', 'refresh'].map((kind) => `planted-${kind}-${randomBytes(18).toString('base64url')}`) as [string, string];
  oauth.given.push(access, refresh);
  json(200, { access_token: access, refresh_token: refresh, token_type: 'bearer', expires_in: 10 });
}
let server: Server;
let fleet: Fleet;
let workspace: string;

beforeAll(async () => {
  server = createServer((request, response) => {
    const answer = (status: number, body: unknown): void => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)); };
    if (request.url === '/oauth/token') return tokens(answer);
    if (request.url!.startsWith('/crm')) return toCrm(request, response);
    kv.reads++;
    if (kv.mode === 'down') return request.socket.destroy();
    if (kv.mode === 'slow') return;
    const json = answer;
    if (kv.mode === 'sealed') return json(503, { errors: ['Vault is sealed', planted] });
    if (kv.mode !== 'denied' && request.url === '/v1/auth/approle/login') return json(200, { auth: { client_token: vaultToken, lease_duration: 3600, renewable: true } });
    if (kv.mode === 'denied' || request.headers['x-vault-token'] !== vaultToken) return json(403, { errors: ['permission denied', planted] });
    const versions = [...kv.older, kv.mode === 'line-end' ? { ...kv.values, CRM_TOKEN: `${kv.values['CRM_TOKEN']}\n` } : kv.values];
    const version = Number(new URL(request.url!, 'http://x').searchParams.get('version') ?? versions.length);
    json(200, { data: { data: versions[version - 1], metadata: { version, created_time: new Date().toISOString() } } });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  workspace = mkdtempSync(join(tmpdir(), 'weir-vault-ws-'));
  cpSync(join(root, 'workspace'), workspace, { recursive: true });
  const crmFile = join(workspace, 'destinations/crm.yaml');
  writeFileSync(crmFile, readFileSync(crmFile, 'utf8').replace('baseUrl: sandbox://crm', `baseUrl: http://127.0.0.1:${(server.address() as AddressInfo).port}/crm`));
  kv.values = Object.fromEntries(names.map((name, i) => [name, name === 'PARTNER_WEBHOOK_SECRET' ? `whsec_${Buffer.from(`planted-webhook-${planted}`).toString('base64')}` : `${planted}${i}`]));
  kv.values['WAREHOUSE_TOKEN'] = JSON.stringify({ type: 'oauth2', tokenUrl: `http://127.0.0.1:${(server.address() as AddressInfo).port}/oauth/token`, clientId: 'weir', clientSecret: oauthSecret, refreshToken: firstRefresh });
  fleet = await startFleet({
    brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace,
    // The registry of the tests asks for none, and takes any.
    env: { WEIR_LOG_LEVEL: 'debug', WEIR_VAULT_ADDR: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, WEIR_VAULT_ROLE_ID: 'role', WEIR_VAULT_SECRET_ID: secretId, WEIR_SCHEMA_REGISTRY_USERNAME: 'weir', WEIR_SCHEMA_REGISTRY_PASSWORD: registryPassword, WEIR_VAULT_REFRESH_MS: '300', WEIR_VAULT_TIMEOUT_MS: '300', WEIR_VAULT_MAX_STALE_MS: '1000' },
  });
  for (const name of names) removeSecret({ dataDir: fleet.dataDir, env: {} }, name, 'leaf_of_a_test');
});
afterAll(async () => {
  await fleet?.dispose();
  server?.closeAllConnections();
  server?.close();
  if (workspace !== undefined) rmSync(workspace, { recursive: true, force: true });
});

let n = 0;
const sentEvents: string[] = [];
const send = async (name: string): Promise<void> => {
  const response = await fleet.segment('identify', { messageId: `v-${n++}`, userId: name, timestamp: '2026-03-04T05:06:07Z', traits: { email: `${name}@larkspur.example` } });
  expect(response.status).toBe(200);
  sentEvents.push(((await response.json()) as { eventId: string }).eventId);
};
const effects = async (name: string): Promise<number> => ((await (await fetch(`${fleet.sandbox}/effects?destination=crm`)).json()) as any[]).filter((e) => e.subject === `${name}@larkspur.example`).length;
const metrics = async (): Promise<string> => (await fetch(`http://127.0.0.1:${fleet.base + 4}/metrics`)).text();

test.each(['down', 'sealed', 'slow', 'denied', 'line-end'] as const)('a vault that is %s (line-end: gives the credential with one) pauses the destination, dead-letters nothing, and everything arrives when it is back', async (mode) => {
  kv.mode = mode;
  await waitFor('the destination is paused', async () => (await metrics()).includes(`weir_destination_credential_paused{destination="crm",code="${mode === 'line-end' ? 'config-invalid' : 'secret-unavailable'}"} 1`), 30_000);
  const since = await waitFor('status shows the incident', async () => (await fleet.status()).incidents?.find((i: any) => i.destination === 'crm')?.since, 20_000);
  await send(`person-${mode}`);
  await waitFor('the delivery waits', async () => (await fleet.status()).deliveries.pending > 0, 30_000);
  const reads = kv.reads;
  await waitFor('the vault is asked again', () => kv.reads > reads + 2, 60_000);
  expect(await effects(`person-${mode}`)).toBe(0);
  expect((await fleet.status()).incidents.find((i: any) => i.destination === 'crm').since).toBe(since);
  kv.mode = 'ok';
  const status = await fleet.settled(80_000);
  expect(await effects(`person-${mode}`)).toBe(1);
  expect(status.deliveries.deadLettered).toBe(0);
  await waitFor('the incident is over', async () => (await fleet.status()).incidents.length === 0, 20_000);
}, 200_000);

test('a credential that the vendor refuses keeps the start of its incident over a restart, and ends alone', async () => {
  await fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ destination: 'crm', mode: 'auth' }) });
  await send('refused');
  const incident = (): Promise<any> => waitFor('the incident', async () => (await fleet.status()).incidents.find((i: any) => i.destination === 'crm'), 30_000);
  const first = await incident();
  expect(first.code).toBe('credential-rejected');
  expect(first.replay).toBe(`weir replay dispatch --destination crm --since ${first.since}`);
  expect((await fleet.cli('status')).out).toContain(first.replay);
  await send('meanwhile');
  await fleet.restart('dispatcher');
  expect(await incident()).toEqual(first);
  await fetch(`${fleet.sandbox}/faults`, { method: 'DELETE' });
  const status = await fleet.settled(80_000);
  expect([await effects('refused'), await effects('meanwhile')]).toEqual([1, 1]);
  // The offer, word by word, once the destination goes on: it sees what was sent meanwhile, and sends none of it again.
  const replay = await fleet.cli(...first.replay.split(' ').slice(1));
  expect([replay.code, replay.out + replay.err]).toEqual([0, expect.stringMatching(/confirmed +[1-9][\s\S]*nothing to send/)]);
  expect(status.deliveries.deadLettered).toBe(0);
  await waitFor('the incident is over', async () => (await fleet.status()).incidents.length === 0, 20_000);
}, 180_000);

test('a credential that the vendor takes no more (403): nothing is dead-lettered, the incident keeps its start while the vault is away, and it ends by itself with the new version', async () => {
  const old = kv.values['CRM_TOKEN']!;
  crm.refused.add(old);
  await send('rotated');
  const incident = async (): Promise<any> => (await fleet.status()).incidents.find((i: any) => i.destination === 'crm');
  const first = await waitFor('the incident', incident, 30_000);
  expect([first.code, crm.refusals > 0, await effects('rotated')]).toEqual(['credential-rejected', true, 0]);
  // The vault is away for longer than what was read of it serves, and comes back with the same value.
  kv.mode = 'down';
  await waitFor('the secret cannot be had', () => readFileSync(fleet.logFile('dispatcher'), 'utf8').split('\n').filter((line) => line.includes('no usable secret') && line.includes('"crm"') && Date.parse((JSON.parse(line) as { time: string }).time) > Date.parse(first.since)).length > 0, 30_000);
  expect(await incident()).toEqual(first);
  kv.mode = 'ok';
  const refusals = crm.refusals;
  await waitFor('it is refused again', () => crm.refusals > refusals, 60_000);
  expect(await incident()).toEqual(first);
  kv.older.push({ ...kv.values });
  kv.values['CRM_TOKEN'] = `${planted}-rotated`;
  const status = await fleet.settled(80_000);
  expect([await effects('rotated'), status.deliveries.deadLettered, crm.lastTaken.includes(`${planted}-rotated`)]).toEqual([1, 0, true]);
  await waitFor('the incident is over', async () => (await fleet.status()).incidents.length === 0, 20_000);
}, 240_000);

test('a dispatcher that starts tells of no incident for a token that it has not fetched yet', async () => {
  const told = (): string[] => readFileSync(fleet.logFile('dispatcher'), 'utf8').split('\n').filter((line) => /"(no usable secret|destination paused: credential)"/.test(line));
  const [before, given] = [told().length, oauth.given.length];
  await fleet.restart('dispatcher');
  await send('restarted');
  await fleet.settled(80_000);
  expect([oauth.given.length > given, told().slice(before)]).toEqual([true, []]);
}, 120_000);

/** 30 forms in which a secret leaves by mistake. */
function formsOf(secret: string): Record<string, string> {
  const b = Buffer.from(secret);
  const base64 = b.toString('base64');
  const json = JSON.stringify(secret).slice(1, -1);
  const url = encodeURIComponent(secret);
  const forms: Record<string, string> = {
    plain: secret, reversed: [...secret].reverse().join(''), upper: secret.toUpperCase(), lower: secret.toLowerCase(), head: secret.slice(0, 12), tail: secret.slice(-12), middle: secret.slice(8, 24),
    base64, base64url: b.toString('base64url'), base64unpadded: base64.replace(/=+$/, ''), basicUser: Buffer.from(`${secret}:`).toString('base64').slice(0, 40), basicPassword: Buffer.from(`x:${secret}`).toString('base64').slice(4, 40), base64shift1: Buffer.from(`a${secret}`).toString('base64').slice(4, 40), base64shift2: Buffer.from(`aa${secret}`).toString('base64').slice(4, 40), base64twice: Buffer.from(base64).toString('base64').slice(0, 40),
    hex: b.toString('hex'), hexUpper: b.toString('hex').toUpperCase(), hexSpaced: b.toString('hex').replace(/../g, '$& ').trim(),
    json, jsonTwice: JSON.stringify(json).slice(1, -1), jsonUnicode: [...secret].map((c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`).join(''),
    url, urlTwice: encodeURIComponent(url), urlLower: url.replace(/%[0-9A-F]{2}/g, (m) => m.toLowerCase()), urlForm: new URLSearchParams({ v: secret }).toString().slice(2), urlAll: [...b].map((c) => `%${c.toString(16)}`).join(''),
    html: secret.replaceAll('&', '&amp;').replaceAll('"', '&quot;'), utf16: b.toString('latin1').split('').join('\0'), bytes: [...b].join(','), bearer: `Bearer ${secret.slice(0, 8)}`,
  };
  expect(Object.keys(forms)).toHaveLength(30);
  return forms;
}

/** Every form of every secret that a text holds. */
function found(text: string, secrets: readonly string[]): string[] {
  return secrets.flatMap((secret, i) => Object.entries(formsOf(secret)).filter(([, form]) => text.includes(form)).map(([form]) => `secret ${i} as ${form}`));
}

/** What is sealed of a value: all of it, or parts of the record that it is (the payload of a delivery, the bytes of a dead letter). */
function sealedIn(value: Buffer, serde: Serde): Buffer[] {
  if (isSealed(value)) return [value];
  if (value[0] !== 0 || value.length < 5) return [];
  const found: Buffer[] = [];
  const walk = (part: unknown): void => {
    if (Buffer.isBuffer(part)) { if (isSealed(part)) found.push(part); } else if (part !== null && typeof part === 'object') Object.values(part).forEach(walk);
  };
  walk(serde.decode(value).value);
  return found;
}

test('the scan finds each of the 30 forms', () => {
  for (const [name, form] of Object.entries(formsOf(planted))) expect(found(`before ${form} after`, [planted]).some((f) => f.endsWith(`as ${name}`))).toBe(true);
  expect(found('nothing of it', [planted])).toEqual([]);
});

test('planted secrets are in no topic (opened where it is sealed), log, metric, trace, answer, error or local file but the sealed one, in any of 30 forms', async () => {
  const issued = JSON.parse((await fleet.cli('token', 'issue', 'planted', '--grant', 'viewer', '--json')).out) as { token: string };
  expect((await fetch(`http://127.0.0.1:${fleet.base + 1}/v1/status`, { headers: { authorization: `Bearer ${issued.token}` } })).status).toBe(200);
  // Errors of every kind along the way.
  const order = (fault: object) => fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fault) });
  await order({ destination: 'crm', mode: 'permanent', count: 1 });
  await order({ destination: 'warehouse', mode: 'cut', count: 1 });
  for (let i = 0; i < 4; i++) await send(`scan${i}`);
  const seen: Record<string, string> = {};
  const control = `http://127.0.0.1:${fleet.base + 1}`;
  const basic = `Basic ${Buffer.from(`${planted}:`).toString('base64')}`;
  const wrong: [string, RequestInit][] = [
    [`${fleet.ingest}/v1/identify`, { headers: { authorization: basic, 'content-type': 'application/json' }, body: '{' }],
    [`${fleet.ingest}/webhooks/partner?key=${encodeURIComponent(planted)}`, { headers: { 'x-token': planted.replaceAll('"', '') }, body: '{}' }],
    [`${fleet.ingest}/v1/consent`, { headers: { authorization: `Bearer ${encodeURIComponent(planted)}`, 'content-type': 'application/json' }, body: '{}' }],
    [`${control}/v1/tokens`, { headers: { authorization: `Bearer ${encodeURIComponent(planted)}`, 'content-type': 'application/json' }, body: '{}' }],
  ];
  for (const [url, init] of wrong) {
    const answer = await fetch(url, { method: 'POST', ...init });
    expect([url, answer.status >= 400]).toEqual([url, true]);
    seen[`error of ${new URL(url).pathname}`] = [...answer.headers].join('\n') + await answer.text();
  }
  await fleet.settled(80_000);
  for (const file of readdirSync(fleet.dataDir).filter((f) => f.endsWith('.log'))) seen[file] = readFileSync(join(fleet.dataDir, file), 'utf8');
  for (const file of readdirSync(fleet.dataDir, { recursive: true, withFileTypes: true })) if (file.isFile() && !file.name.endsWith('.log')) seen[`file ${file.parentPath}/${file.name}`] = readFileSync(join(file.parentPath, file.name)).toString('latin1');
  const auth = { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}` };
  // Every route that only reads, from the API's own description; those of one event and one letter come below.
  const { paths } = (await (await fetch(`${control}/v1/openapi.json`, { headers: auth })).json()) as { paths: Record<string, object> };
  const plainPaths = Object.entries(paths).filter(([path, methods]) => 'get' in methods && !path.includes('{')).map(([path]) => path + ({ '/v1/audit/leaves': '?limit=1000', '/v1/audit/consistency': '?from=0' }[path] ?? ''));
  expect(plainPaths.length).toBeGreaterThan(15);
  for (const path of [...plainPaths, '/v1/nothing', '/metrics']) seen[`api ${path}`] = await (await fetch(control + path, { headers: auth })).text();
  for (const letter of JSON.parse(seen['api /v1/dlq']!).deadLetters) seen[`letter ${letter.id}`] = await (await fetch(`http://127.0.0.1:${fleet.base + 1}/v1/dlq/${encodeURIComponent(letter.id)}`, { headers: auth })).text();
  expect(seen['api /v1/audit/leaves?limit=1000']).toContain('"bytes"');
  for (const event of sentEvents) for (const what of ['trace', 'explain']) seen[`${what} ${event}`] = await (await fetch(`http://127.0.0.1:${fleet.base + 1}/v1/events/${event}/${what}`, { headers: auth })).text();
  for (const offset of [0, 1, 2, 3, 4, 10]) seen[`metrics ${offset}`] = await (await fetch(`http://127.0.0.1:${fleet.base + offset}/metrics`)).text();
  const log = createLog({ brokers: inject('brokers'), clientId: 'scan' });
  try {
    const reader = await log.reader();
    const admin = await log.admin();
    const serde = createSerde({ registryUrl: inject('registryUrl') });
    await serde.start();
    const ring = await readKeys({ log, serde, prefix: fleet.prefix, dataDir: fleet.dataDir });
    const topics = (await admin.listTopics()).filter((topic) => topic.startsWith(`${fleet.prefix}.`));
    expect(topics.length).toBeGreaterThan(25);
    let records = 0;
    let opened = 0;
    for (const topic of topics) {
      const parts: string[] = [];
      for (const [partition, end] of await admin.endOffsets(topic)) await reader.read(topic, partition, 0, end, async (batch) => {
        for (const r of batch.records) {
          records++;
          if (r.value?.[0] === 0 && r.value.length >= 5 && !serde.known(r.value)) await serde.prepare(r.value);
          const plain = r.value === null ? [] : sealedIn(r.value, serde).flatMap((sealed) => ring.open(sealed) ?? []);
          opened += plain.length;
          parts.push([r.key, r.value, ...plain, ...r.headers.map(([, value]) => value)].map((x) => x?.toString('latin1') ?? '').join('\n'));
        }
      });
      seen[`topic ${topic}`] = parts.join('\n');
    }
    expect([records > 50, opened > 20]).toEqual([true, true]);
    await ring.stop();
    await reader.close();
    await admin.close();
  } finally {
    await log.close();
  }
  expect(seen[`topic ${fleet.prefix}.audit`]!.length).toBeGreaterThan(50);
  expect(seen['dispatcher-1.log']!.length).toBeGreaterThan(500);
  expect(seen[`topic ${fleet.prefix}.dlq`]!.length).toBeGreaterThan(50);
  // Each kind was in use: what nobody read leaves nowhere.
  expect([oauth.refused, oauth.given.length > 2]).toEqual([1, true]);
  const { WAREHOUSE_TOKEN: _client, ...values } = kv.values;
  const secrets = [planted, vaultToken, secretId, registryPassword, oauthSecret, firstRefresh, ...oauth.given.slice(0, 2), ...oauth.given.slice(-4), issued.token, ...Object.values(values), ...['SEGMENT_WRITE_KEY', 'ADMIN_TOKEN', 'AUDIT_KEY'].map((name) => fleet.secret(name))];
  const leaks = Object.entries(seen).flatMap(([where, text]) => found(text, secrets).map((leak) => `${where}: ${leak}`));
  expect(leaks).toEqual([]);
}, 150_000);
