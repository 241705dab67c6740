import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'weir-workspace-'));
const workspace = join(dir, 'workspace');
let weir: Instance;
let members: Server;
const pages: { id: string; email: string; updated_at: string }[][] = [];
let calls: string[] = [];
/** Answers to give instead of a page, first in first out. */
const answers: number[] = [];

beforeAll(async () => {
  cpSync(resolve(import.meta.dirname, '../../workspace'), workspace, { recursive: true });
  mkdirSync(join(workspace, 'mappings'), { recursive: true });
  members = createServer((request, response) => {
    calls.push(request.url!);
    const status = answers.shift();
    if (status !== undefined) return response.writeHead(status, { 'retry-after': '1' }).end();
    const at = Number(new URL(request.url!, 'http://x').searchParams.get('cursor') ?? 0);
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ data: pages[at] ?? [], ...(pages[at] === undefined ? {} : { next_cursor: String(at + 1) }) }));
    return undefined;
  });
  await new Promise<void>((done) => { members.listen(0, '127.0.0.1', done); });
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace });
});
afterAll(async () => {
  await weir?.dispose();
  members?.closeAllConnections();
  members?.close();
  rmSync(dir, { recursive: true, force: true });
});

const put = (path: string, text: string): void => writeFileSync(join(workspace, path), text);
const edit = (path: string, from: string, to: string): void => put(path, readFileSync(join(workspace, path), 'utf8').replace(from, () => to));
const send = (n: string, traits: object) => weir.segment('identify', { messageId: n, userId: n, timestamp: '2026-02-03T04:05:06Z', traits }).then(async (r) => (await r.json()) as any);
const subjects = async (destination: string): Promise<string[]> => (await weir.effects(destination)).map((e) => e.subject);

test('a record that breaks the contract is kept with its bytes and every reason, and goes on after the contract was mended and redriven', async () => {
  edit('contracts/customers.odcs.yaml', 'logicalTypeOptions: { format: email, maxLength: 254 }', 'logicalTypeOptions: { format: email, maxLength: 12 }');
  edit('contracts/customers.odcs.yaml', "logicalTypeOptions: { pattern: '^[A-Z]{2}$' }", "logicalTypeOptions: { pattern: '^DE$' }");
  const applied = await weir.cli('apply', workspace, '--json');
  expect(applied.code).toBe(0);
  await waitFor('the new release runs', async () => ((await weir.status()) as any).release === JSON.parse(applied.out).hash);
  const { eventId } = await send('contract', { email: 'somebody@larkspur.example', address: { country: 'FR' } });
  await weir.settled();
  const [letter] = ((await (await weir.api('/v1/dlq?code=contract-breached')).json()) as any).deadLetters;
  expect(letter).toMatchObject({ eventId, stage: 'normalizer' });
  const whole = (await (await weir.api(`/v1/dlq/${letter.id}`)).json()) as any;
  expect(whole.reasons.map((r: any) => r.field)).toEqual(['email', 'country']);
  expect(JSON.parse(Buffer.from(whole.value, 'base64').toString())).toMatchObject({ messageId: 'contract' });
  edit('contracts/customers.odcs.yaml', 'maxLength: 12', 'maxLength: 254');
  edit('contracts/customers.odcs.yaml', "'^DE$'", "'^[A-Z]{2}$'");
  const again = await weir.cli('apply', workspace, '--json');
  await waitFor('the mended release runs', async () => ((await weir.status()) as any).release === JSON.parse(again.out).hash);
  for (let i = 0; i < 2; i++) expect((await weir.cli('dlq', 'redrive', letter.id, '--json')).code).toBe(0);
  await weir.settled();
  expect((await subjects('crm')).filter((s) => s === 'somebody@larkspur.example')).toHaveLength(1);
});

test('a bad workspace is refused with file, line and remedy, and the running release goes on', async () => {
  const before = ((await weir.status()) as any).release;
  put('destinations/broken.yaml', 'adapter: http\nconfig:\n  baseUrl: ftp://x\n  operations: {}\nroutes:\n  - { on: Profile, operation: nope }\n');
  for (const command of ['validate', 'apply']) {
    const { code, err, out } = await weir.cli(command, workspace);
    expect(code).toBe(2);
    expect(err + out).toMatch(/destinations\/broken\.yaml:3/);
  }
  rmSync(join(workspace, 'destinations/broken.yaml'));
  expect(((await weir.status()) as any).release).toBe(before);
});

test('a new destination and a polled source start with the release that names them', async () => {
  pages.push([{ id: '1', email: 'p1@larkspur.example', updated_at: 'a' }, { id: '2', email: 'p2@larkspur.example', updated_at: 'a' }], [{ id: '3', email: 'p3@larkspur.example', updated_at: 'a' }]);
  const { port } = members.address() as { port: number };
  put('mappings/members.yaml', 'mapping: members\noutputs:\n  profile:\n    record: Profile\n    objectKey: id\n    fields:\n      userId: id\n      email: { from: email, pipe: [email] }\n      plan: { from: id, pipe: [hash] }\n');
  put('sources/members.yaml', `adapter: http-poll\nmapping: members.yaml\nconfig:\n  url: http://127.0.0.1:${port}/members\n  items: data\n  cursor: token\n  id: id\n  version: updated_at\n  every: 1\n  requestsPerMinute: 6000\n`);
  put('destinations/archive.yaml', 'adapter: http\nregion: DE\nconfig:\n  baseUrl: sandbox://archive\n  operations:\n    keep: { kind: use, accepts: [Profile], path: /keep, idempotency: { scheme: header } }\nroutes:\n  - { on: Profile, operation: keep, purpose: service, when: source == "members" }\n');
  expect((await weir.cli('apply', workspace)).code).toBe(0);
  await waitFor('both pages have arrived', async () => new Set(await subjects('archive')).size === 3);
  await weir.settled();
  expect((await subjects('archive')).sort()).toEqual(['p1@larkspur.example', 'p2@larkspur.example', 'p3@larkspur.example']);
});

test('a poller that was killed goes on from its cursor, waits when it is throttled, and repeats nothing', async () => {
  await weir.stop('SIGKILL');
  calls = [];
  answers.push(429, 500);
  pages.push([{ id: '4', email: 'p4@larkspur.example', updated_at: 'a' }, { id: '1', email: 'p1@larkspur.example', updated_at: 'b' }]);
  await weir.start();
  await waitFor('the new page has arrived', async () => (await subjects('archive')).length === 5, 60_000);
  await weir.settled();
  expect((await subjects('archive')).sort()).toEqual(['p1@larkspur.example', 'p1@larkspur.example', 'p2@larkspur.example', 'p3@larkspur.example', 'p4@larkspur.example']);
  expect(calls.every((url) => url.includes('cursor='))).toBe(true);
});
