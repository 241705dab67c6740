import { appendFileSync, copyFileSync, cpSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createLog } from '@weir/log';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { sealedLeaf, setSecret } from '@weir/vault';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'weir-audit-'));
const workspace = join(dir, 'workspace');
let weir: Instance;
beforeAll(async () => {
  cpSync(resolve(import.meta.dirname, '../../workspace'), workspace, { recursive: true });
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace, env: { WEIR_APPROVAL: 'true' } });
});
afterAll(async () => {
  await weir?.dispose();
  rmSync(dir, { recursive: true, force: true });
});

const json = async (...args: string[]): Promise<any> => {
  const done = await weir.cli(...args, '--json');
  return { code: done.code, err: done.err, ...(done.out === '' ? {} : JSON.parse(done.out)) };
};
const as = (token: string, path: string, method = 'GET', body?: object) => fetch(`${weir.control}${path}`, { method, headers: { authorization: `Bearer ${token}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) }, body: body === undefined ? undefined : JSON.stringify(body) });
const leaves = async (): Promise<any[]> => (await json('audit', 'list', '--limit', '1000')).leaves;

test('the first release has its leaf, with the secrets it uses by name, and the log verifies with no step before', async () => {
  const list = await leaves();
  const release = list.find((l) => l.action === 'release.apply');
  expect(release).toMatchObject({ kind: 'intent', actor: 'npm start', target: expect.stringMatching(/^rel_/) });
  expect(list[0]).toMatchObject({ kind: 'intent', action: 'topics.apply', actor: 'npm start' });
  expect(list.filter((l) => l.action === 'secret.use').length).toBeGreaterThan(0);
  expect(list).toContainEqual(expect.objectContaining({ kind: 'end', of: release.id, details: { result: 'completed' } }));
  // The secrets of a first start are made before there is a log: their leaf waited in the data folder.
  const made = list.find((l) => l.action === 'vault.make');
  expect(made).toMatchObject({ kind: 'fact', actor: 'local:npm start', target: expect.stringContaining('ADMIN_TOKEN') });
  expect([made.id, readdirSync(join(weir.dataDir, 'audit-pending'))]).toEqual([sealedLeaf(weir.dataDir), []]);
  expect(await json('audit', 'verify')).toMatchObject({ code: 0, ok: true });
  expect(await json('audit', 'prove', list[0].id)).toMatchObject({ code: 0, ok: true, index: 0 });
});

test('a proposer can not approve; another person can; the release names its leaf; a revoked token ends at once', async () => {
  const issue = async (grant: string): Promise<{ id: string; token: string }> => json('token', 'issue', grant, '--grant', grant);
  const [operator, approver] = [await issue('operator'), await issue('approver')];
  const { files } = (await (await weir.api('/v1/releases/current')).json()) as { files: { path: string; content: string }[] };
  const changed = files.map((f) => (f.path === 'contracts/customers.odcs.yaml' ? { ...f, content: `${f.content}\n# changed\n` } : f));
  const proposed = await as(operator.token, '/v1/releases', 'POST', { files: changed });
  const applied = (await proposed.json()) as any;
  expect(applied).toMatchObject({ changed: false, proposal: expect.stringMatching(/^prop_/) });
  // The admin token issued the one that proposed.
  const own = await json('approve', applied.proposal);
  expect(own.code).toBe(1);
  expect(own.err).toContain('self-approval');
  expect((await as(operator.token, `/v1/proposals/${applied.proposal}/approve`, 'POST', {})).status).toBe(403);
  expect((await weir.status()).release).not.toBe(applied.hash);
  expect((await as(approver.token, `/v1/proposals/${applied.proposal}/approve`, 'POST', {})).status).toBe(200);
  expect((await weir.status()).release).toBe(applied.hash);
  expect((await as(approver.token, '/v1/status')).status).toBe(200);
  expect((await json('token', 'revoke', approver.id)).code).toBe(0);
  expect((await as(approver.token, '/v1/status')).status).toBe(401);
  const list = await leaves();
  expect(list).toContainEqual(expect.objectContaining({ kind: 'fact', action: 'release.hash', details: { approval: 'given', proposedBy: `token:${operator.id}` } }));
  expect(list).toContainEqual(expect.objectContaining({ kind: 'intent', action: 'release.approve', actor: `token:${approver.id}`, target: applied.proposal }));
  for (const intent of list.filter((l) => l.kind === 'intent')) expect(list.filter((l) => l.kind === 'end' && l.of === intent.id)).toHaveLength(1);
  expect(JSON.stringify(list)).not.toContain(operator.token);
  expect(await json('audit', 'verify')).toMatchObject({ code: 0, ok: true });
});

test('tokens and the log outlive a kill; an intent that the crash left open is closed and told', async () => {
  const { token } = await json('token', 'issue', 'v', '--grant', 'viewer');
  // The leaf of a change of secrets: on the log before it while control runs, waiting beside them while it does not.
  expect((await json('vault', 'rotate-key')).code).toBe(0);
  expect((await leaves()).find((l) => l.id === sealedLeaf(weir.dataDir))).toMatchObject({ kind: 'intent', action: 'vault.rotate-key', actor: 'admin' });
  const { release } = await weir.status();
  await weir.stop('SIGKILL');
  expect((await json('vault', 'rotate-key')).code).toBe(0);
  const waited = sealedLeaf(weir.dataDir);
  // Past the commands, as somebody with a text editor and the key could.
  setSecret({ dataDir: weir.dataDir, env: {} }, 'PAST_THE_LOG', 'v', 0, Date.now(), 'leaf_00000000-0000-4000-8000-00000000dead');
  const log = createLog({ brokers: inject('brokers'), clientId: 'test' });
  const appender = await log.appender();
  const intent = { id: 'leaf_00000000-0000-4000-8000-000000000000', kind: 'intent', at: 1, actor: 'admin', action: 'token.issue', target: null, of: null, details: {} };
  await appender.append(`${weir.prefix}.audit`, [{ partition: 0, key: null, value: Buffer.from(JSON.stringify(intent)) }]);
  await weir.start();
  // What was approved goes on: the folder has another release, and a start is no way past the second person.
  expect((await weir.status()).release).toBe(release);
  expect(weir.output()).toContain(`release ${release} goes on: WEIR_APPROVAL`);
  expect((await as(token, '/v1/status')).status).toBe(200);
  await waitFor('the intent is closed', async () => (await leaves()).some((l) => l.of === intent.id && l.details.result === 'not-made'));
  const list = await leaves();
  expect(list.filter((l) => l.id === waited || l.of === waited)).toMatchObject([{ kind: 'intent', action: 'vault.rotate-key', actor: expect.stringMatching(/^local:/) }, { kind: 'end' }]);
  expect(list.filter((l) => l.action === 'vault.unexplained')).toMatchObject([{ actor: 'control', target: 'leaf_00000000-0000-4000-8000-00000000dead' }]);
  expect(await json('audit', 'verify')).toMatchObject({ code: 0, ok: true });
  await log.close();
});

test('a log that is not what was signed is told by verify and at the next start, and then nothing may be changed', async () => {
  const file = join(weir.dataDir, 'audit-checkpoints.jsonl');
  const kept = join(dir, 'kept.jsonl');
  copyFileSync(file, kept);
  const last = JSON.parse(readFileSync(file, 'utf8').trimEnd().split('\n').at(-1)!) as string;
  appendFileSync(kept, `${JSON.stringify(last.replace(/\n(\d+)\n/, (_, n: string) => `\n${Number(n) + 1}\n`))}\n`);
  expect(await json('audit', 'verify', '--checkpoints', kept)).toMatchObject({ code: 1, findings: [{ kind: 'signature' }] });
  // The topic is emptied and begins anew, as somebody with rights on the broker could do.
  await weir.stop('SIGINT');
  const log = createLog({ brokers: inject('brokers'), clientId: 'test' });
  const admin = await log.admin();
  const [spec] = await admin.describeTopics([`${weir.prefix}.audit`]);
  await admin.deleteTopics([`${weir.prefix}.audit`]);
  await waitFor('the topic is gone', async () => !(await admin.listTopics()).includes(`${weir.prefix}.audit`));
  await admin.createTopics([spec!]);
  await log.close();
  await weir.start();
  expect(await json('audit', 'verify')).toMatchObject({ code: 1, findings: expect.arrayContaining([expect.objectContaining({ kind: 'truncated' })]) });
  const refused = await json('token', 'issue', 'v', '--grant', 'viewer');
  expect(refused.code).toBe(1);
  expect(refused.err).toContain('audit-broken');
});
