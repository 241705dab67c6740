import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Release } from '@weir/release';
import { freePort, runCli } from '@weir/testing';
import { ensureSecrets } from '@weir/vault';
import { afterEach, expect, test } from 'vitest';
import { checkCluster } from './doctor-cluster.ts';
import { checkServices } from './doctor-services.ts';
import { checkApproval, checkCache, checkFolder, checkKey, checkNode, checkSecrets, checkWitness, checkWorkspace } from './doctor.ts';

const example = join(import.meta.dirname, '../workspace');
const dirs: string[] = [];
const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
  for (const dir of dirs.splice(0)) rmSync(dir, { recursive: true, force: true });
});
function folder(): string {
  const dir = mkdtempSync(join(tmpdir(), 'weir-doctor-test-'));
  dirs.push(dir);
  return dir;
}
const key = Buffer.alloc(32, 5).toString('base64url');

test.each([['24.6.0', 'ok'], ['24.21.0', 'ok'], ['26.0.1', 'ok'], ['24.5.9', 'fail'], ['20.20.0', 'fail']])('Node %s is %s', (version, state) => {
  expect(checkNode(version).state).toBe(state);
});

test('a folder is tried by making something in it, or in the nearest one above, and nothing stays behind', () => {
  const dir = folder();
  expect(checkFolder('data folder', dir)).toMatchObject({ state: 'ok', message: expect.stringMatching(/ GB free$/) });
  expect(checkFolder('data folder', join(dir, 'a/b'))).toMatchObject({ state: 'ok', message: expect.stringContaining('a/b is made by the first start') });
  writeFileSync(join(dir, 'file'), '');
  expect(checkFolder('data folder', join(dir, 'file'))).toMatchObject({ state: 'fail', message: expect.stringMatching(/cannot be written \(E\w+\)/), remedy: expect.any(String) });
  expect(checkCache(join(dir, 'file')).state).toBe('warn');
  expect(readdirSync(dir)).toEqual(['file']);
});

test('the workspace is what weir validate says of it', () => {
  expect(checkWorkspace(example)).toMatchObject({ release: { name: 'larkspur-outfitters' }, found: { state: 'ok', message: expect.stringMatching(/6 sources, 4 destinations; release rel_/) } });
  const dir = folder();
  writeFileSync(join(dir, 'weir.yaml'), 'name: x\nnope: 1\n');
  const { found, release } = checkWorkspace(dir);
  expect([found, release]).toEqual([{ check: 'workspace', state: 'fail', message: expect.stringMatching(/^[a-z.]+:\d+: .+\(and \d+ more\)$/), remedy: `weir validate ${dir}` }, undefined]);
});

test('a key is looked at and never made: none yet, one that others read, one that is none, one that is lost', async () => {
  const dir = folder();
  expect((await checkKey(dir, {})).found).toMatchObject({ state: 'warn', message: expect.stringContaining('none yet') });
  expect((await checkKey(dir, { WEIR_KEY: key })).found).toEqual({ check: 'key', state: 'ok', message: 'WEIR_KEY' });
  writeFileSync(join(dir, 'vault.key'), `${key}\n`);
  expect((await checkKey(dir, { WEIR_KEY: key })).found).toMatchObject({ state: 'warn', message: expect.stringContaining('without WEIR_KEY'), remedy: expect.stringContaining('weir vault rotate-key') });
  rmSync(join(dir, 'vault.key'));
  const bad = (await checkKey(dir, { WEIR_KEY: 'short-and-secret' })).found;
  expect([bad.state, JSON.stringify(bad).includes('short-and-secret')]).toEqual(['fail', false]);
  expect((await checkKey(dir, { WEIR_KEY: 'vault:v1:abc' })).found).toMatchObject({ state: 'fail', message: expect.stringContaining('WEIR_VAULT_ADDR') });
  expect(readdirSync(dir)).toEqual([]);
  const file = join(dir, 'workspace.key');
  writeFileSync(file, key, { mode: 0o600 });
  expect((await checkKey(dir, {})).found).toEqual({ check: 'key', state: 'ok', message: file });
  chmodSync(file, 0o644);
  expect((await checkKey(dir, {})).found).toMatchObject({ state: 'warn', remedy: `chmod 600 ${file}` });
  rmSync(file);
  writeFileSync(join(dir, 'secrets.sealed.json'), '{}');
  expect((await checkKey(dir, {})).found).toMatchObject({ state: 'fail', remedy: expect.stringContaining('backup') });
  expect(existsSync(file)).toBe(false);
});

test('that a release needs no second person is told', () => {
  expect(checkApproval({ WEIR_APPROVAL: 'true' }).state).toBe('ok');
  for (const env of [{}, { WEIR_APPROVAL: 'false' }, { WEIR_APPROVAL: '' }]) expect(checkApproval(env)).toMatchObject({ state: 'warn', message: expect.stringContaining('alone') });
});

test('that checkpoints of the audit log are kept nowhere but beside the service is told, also where the variable names its own folder', async () => {
  const dir = folder();
  const of = (witness: string | undefined) => checkWitness(dir, { WEIR_AUDIT_WITNESS: witness });
  for (const none of [undefined, '', ' , ', join(dir, 'kept.jsonl'), `${dir}/a/../kept.jsonl, ${dir}`]) expect(of(none), String(none)).toMatchObject({ state: 'warn', message: expect.stringContaining('data folder alone'), remedy: expect.stringContaining('WEIR_AUDIT_WITNESS') });
  expect(of(`${dir}-elsewhere/kept.jsonl`)).toMatchObject({ state: 'ok', message: expect.stringContaining('-elsewhere') });
  const remote = of(`${dir}/kept.jsonl,https://witness.example/known-to-few`);
  expect([remote.state, remote.message.includes('witness.example'), remote.message.includes('known-to-few')]).toEqual(['ok', true, false]);
});

test('secrets are counted by name, and no value is told', async () => {
  const dir = folder();
  const env = { WEIR_KEY: key };
  const { release } = checkWorkspace(example);
  expect(await checkSecrets(dir, env, release)).toMatchObject([{ check: 'secrets', state: 'warn' }]);
  ensureSecrets({ dataDir: dir, env }, [{ name: 'ADMIN_TOKEN', value: 'a-secret-value' }, { name: 'AUDIT_KEY', value: 'a-secret-value' }], () => 'leaf');
  const [some] = await checkSecrets(dir, env, release);
  expect(some).toMatchObject({ state: 'fail', message: expect.stringMatching(/^not set: (?=.*SEGMENT_WRITE_KEY)(?!.*ADMIN_TOKEN)/), remedy: expect.stringMatching(/^weir vault set [A-Z]/) });
  expect(await checkSecrets(dir, env, undefined)).toEqual([{ check: 'secrets', state: 'ok', message: '2 of 2 are set' }]);
  const other = await checkSecrets(dir, { WEIR_KEY: Buffer.alloc(32, 6).toString('base64url') }, undefined);
  expect(other).toMatchObject([{ state: 'fail', message: expect.stringContaining('sealed with a key that is neither') }]);
  expect(JSON.stringify([some, other])).not.toContain('a-secret-value');
});

test('scopes that a client does not ask for are told, and no token is fetched to see', async () => {
  const dir = folder();
  const port = await freePort();
  let asked = 0;
  await listen(port, (_request, response) => { asked++; response.end(JSON.stringify({ access_token: 'a-secret-value', scope: 'lists' })); });
  const client = { type: 'oauth2', tokenUrl: `http://127.0.0.1:${port}/token`, clientId: 'c', clientSecret: 'a-secret-value', scope: 'contacts lists' };
  const schema = checkWorkspace(example).release!.destinations.get('crm')!.adapter.manifest.destination!.config;
  const scoped = (name: string, secret: string, scopes?: readonly string[]) => ({ name, adapter: { manifest: { destination: { config: schema } } }, config: { auth: { secret }, ...(scopes === undefined ? {} : { scopes }) } });
  const release = { sources: new Map(), destinations: new Map([['crm', scoped('crm', 'CRM', ['contacts', 'lists'])], ['ads', scoped('ads', 'ADS', ['audiences'])], ['mail', scoped('mail', 'MAIL')], ['plain', scoped('plain', 'PLAIN', ['x'])]]) } as unknown as Release;
  const env = { WEIR_KEY: key, WEIR_SECRET_CRM: JSON.stringify(client), WEIR_SECRET_ADS: JSON.stringify({ ...client, refreshToken: 'r' }), WEIR_SECRET_MAIL: JSON.stringify(client), WEIR_SECRET_PLAIN: 'p' };
  const checks = (await checkSecrets(dir, env, release)).filter(({ check }) => check === 'scopes');
  expect(checks).toMatchObject([{ state: 'warn', message: 'ads: ADS does not ask for audiences' }]);
  expect([asked, JSON.stringify(checks).includes('a-secret-value')]).toEqual([0, false]);
});

test('a vault that does not answer is told, without its token', async () => {
  const [vault, secrets] = await checkSecrets(folder(), { WEIR_KEY: key, WEIR_VAULT_ADDR: `http://127.0.0.1:${await freePort()}`, WEIR_VAULT_TOKEN: 'hvs.secret', WEIR_VAULT_TIMEOUT_MS: '1000' }, undefined);
  expect([vault, secrets]).toMatchObject([{ check: 'vault', state: 'fail' }, { check: 'secrets', state: 'warn' }]);
  expect(JSON.stringify([vault, secrets])).not.toContain('hvs.secret');
});

/** Something on one of the ports of an instance. */
async function listen(port: number, answer: RequestListener): Promise<void> {
  const server = createServer(answer);
  servers.push(server);
  await new Promise<void>((done) => { server.listen(port, '127.0.0.1', done); });
}
const ready = (body: object, status = 200): RequestListener => (_request, response) => { response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body)); };

test('services: none is one line; else a line each, with the reason of one that is not ready and what else is on its port', async () => {
  const port = await freePort(5);
  const target = { host: '127.0.0.1', port };
  expect(await checkServices(target)).toMatchObject({ control: false, checks: [{ check: 'services', state: 'warn' }] });
  await listen(port, ready({ ready: false, reason: 'lag without a commit for 61 s' }, 503));
  await listen(port + 1, ready({ ready: true }));
  await listen(port + 2, (_request, response) => { response.end('<html>'); });
  await listen(port + 3, (request) => { request.socket.destroy(); });
  const { checks, control } = await checkServices(target);
  expect(control).toBe(true);
  expect(checks.map(({ check, state }) => [check, state])).toEqual([['ingest', 'fail'], ['control', 'ok'], ['normalizer', 'fail'], ['policy', 'fail'], ['dispatcher', 'warn'], ['clock', 'ok']]);
  expect(checks[0]!.message).toBe('not ready: lag without a commit for 61 s');
  expect(checks[2]!.message).toContain('taken by something else');
  for (const { state, remedy } of checks) expect(remedy === undefined).toBe(state === 'ok');
});

test.each([['fast', 60_000, /60 s ahead of/], ['slow', -60_000, /60 s behind/]])('a service whose clock is %s is told', async (_name, by, message) => {
  const port = await freePort(5);
  await listen(port, (_request, response) => { response.writeHead(200, { date: new Date(Date.now() + by).toUTCString() }).end('{"ready":true}'); });
  const { checks } = await checkServices({ host: '127.0.0.1', port });
  const clock = checks.find(({ check }) => check === 'clock')!;
  expect([clock.state, clock.message.replace(/(59|61) s/, '60 s')]).toEqual(['fail', expect.stringMatching(message)]);
});

test('before a first start weir doctor exits 0 and leaves the data folder unmade; what stands in the way is exit 1', async () => {
  const data = join(folder(), 'data');
  const env = { WEIR_DATA: data, WEIR_PORT: String(await freePort(5)), WEIR_KEY: '', WEIR_WORKSPACE: '', KAFKA_BROKERS: '', SCHEMA_REGISTRY_URL: '' };
  const fresh = await runCli(['doctor', example, '--json'], env);
  expect([fresh.code, fresh.err]).toEqual([0, '']);
  const { ok, checks } = JSON.parse(fresh.out) as { ok: boolean; checks: { check: string; state: string }[] };
  expect([ok, checks.map(({ check, state }) => `${check} ${state}`)]).toEqual([true, ['node ok', 'data folder ok', 'cache ok', 'workspace ok', 'key warn', 'secrets warn', 'approval warn', 'witness warn', 'brokers warn', 'services warn']]);
  const broken = await runCli(['doctor', folder()], { ...env, KAFKA_BROKERS: `127.0.0.1:${await freePort()},nowhere`, SCHEMA_REGISTRY_URL: `http://127.0.0.1:${await freePort()}`, WEIR_KEY: 'not-a-key-but-secret' });
  expect(broken.code).toBe(1);
  for (const line of [/^fail +workspace/m, /^fail +key/m, /^fail +brokers +no answer of broker 127\.0\.0\.1:\d+ in plaintext/m, /^fail +brokers +KAFKA_BROKERS: expected host:port/m, /^warn +topics +not looked at: no broker answers/m, /^fail +registry +no answer of a schema registry/m, /^5 to mend$/m]) expect(broken.out).toMatch(line);
  expect(broken.out + broken.err).not.toContain('not-a-key-but-secret');
  expect(existsSync(data)).toBe(false);
  expect((await runCli(['doctor', 'a', 'b'], env)).code).toBe(2);
});

test('a data folder that the first start made is 0600 where it must be', async () => {
  const dir = folder();
  ensureSecrets({ dataDir: dir, env: {} }, [{ name: 'ADMIN_TOKEN' }, { name: 'AUDIT_KEY' }], () => 'leaf');
  expect(statSync(join(dir, 'workspace.key')).mode & 0o077).toBe(0);
  expect([(await checkKey(dir, {})).found.state, await checkSecrets(dir, {}, undefined)]).toMatchObject(['ok', [{ state: 'ok' }]]);
});

test.each([
  [{ KAFKA_BROKERS: '127.0.0.1:1', WEIR_KAFKA_SASL_MECHANISM: 'SCRAM-SHA-512', WEIR_KAFKA_SASL_USERNAME: 'u' }, 'WEIR_KAFKA'],
  [{ SCHEMA_REGISTRY_URL: 'https://127.0.0.1:1', WEIR_SCHEMA_REGISTRY_USERNAME: 'u' }, 'WEIR_SCHEMA_REGISTRY'],
  [{ SCHEMA_REGISTRY_URL: 'http://me:hunter2@127.0.0.1:1/x' }, 'SCHEMA_REGISTRY_URL'],
])('settings of a connection that cannot be are a line of their own, and no secret of them is told', async (env, names) => {
  const checks = await checkCluster({ host: '127.0.0.1', port: 1, env, dataDir: folder() }, undefined, false);
  expect(checks).toEqual([expect.objectContaining({ state: 'fail', remedy: 'correct the variable', message: expect.stringContaining(names) })]);
  expect(JSON.stringify(checks)).not.toContain('hunter2');
});
