import { appendFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { encodeLeaf, leafId, newSigningKey, parseCheckpoint, signingKey } from '@weir/audit';
import type { OutRecord } from '@weir/log';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { fileWitness, localCheckpoints, openWitnesses, type Witness } from './audit-witness.ts';
import { openAuditLog, type AuditLog } from './audit.ts';

const signer = signingKey('weir.audit', newSigningKey());
let dir: string;
let log: Buffer[];
let reads: [from: number, to: number][];
let opened: AuditLog[];
let warned: string[];
const logger = { warn: (_fields: unknown, text?: string) => { warned.push(text ?? ''); }, error() {} };

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'weir-audit-'));
  [log, reads, opened, warned] = [[], [], [], []];
});
afterEach(async () => {
  for (const audit of opened) await audit.close();
  rmSync(dir, { recursive: true, force: true });
});

async function open(witness: Witness, signOnly = false): Promise<AuditLog> {
  const reader = { read: async (_t: string, _p: number, from: number, to: number, take: (batch: object) => void) => { reads.push([from, to]); take({ records: log.slice(from, to).map((value, i) => ({ offset: from + i, value })) }); } };
  const appender = { append: async (_t: string, records: OutRecord[]) => records.map((r) => log.push(r.value!) - 1) };
  const audit = await openAuditLog({ appender, reader, admin: { endOffsets: async () => new Map([[0, log.length]]) }, topic: 'weir.audit', signer, witness, now: () => 1, logger, wasMade: () => undefined, local: { pending: () => [], drop() {}, sealed: () => undefined }, signOnly } as never);
  opened.push(audit);
  return audit;
}
const local = (): string => localCheckpoints(dir);
const sizes = (path = local()): (number | undefined)[] => readFileSync(path, 'utf8').trimEnd().split('\n').map((line) => parseCheckpoint(JSON.parse(line) as string)?.size);
const fact = (audit: AuditLog, action = 'x'): Promise<string> => audit.record({ kind: 'fact', actor: 'a', action });

test('a checkpoint is kept without reading those before it: the file may be larger than what fits into memory', async () => {
  const path = join(dir, 'kept.jsonl');
  writeFileSync(path, '"a"\n');
  truncateSync(path, 3 * 2 ** 30);
  await fileWitness(path, logger).publish('b');
  truncateSync(path, 4);
  expect(readFileSync(path, 'utf8')).toBe('"a"\n');
});

test('a checkpoint that a crash cut off is no checkpoint and no finding, and the next one begins a line', async () => {
  const witness = fileWitness(local(), logger);
  await witness.publish('a');
  appendFileSync(local(), '"tor');
  expect(witness.kept()).toEqual(['a']);
  await witness.publish('b');
  expect(witness.kept()).toEqual(['a', 'b']);
});

test('a checkpoint that a full disk cut off does not break the log at the next start; one that was forged or changed does', async () => {
  const audit = await open(openWitnesses(dir, [], logger));
  await fact(audit);
  appendFileSync(local(), '"weir.aud');
  await fact(audit);
  expect((await open(openWitnesses(dir, [], logger))).broken).toBeUndefined();
  const whole = readFileSync(local(), 'utf8').split('\n')[0]!;
  const changed = JSON.stringify((JSON.parse(whole) as string).replace('\n2\n', '\n1\n'));
  for (const lines of [['x', whole], ['{}', whole], ['"weir.audit\\n9\\n"', whole], [changed, whole], ['"torn', 'x', whole], [whole, '"torn']]) {
    writeFileSync(local(), `${lines.join('\n')}\n`);
    expect([lines, (await open(openWitnesses(dir, [], logger))).broken]).toEqual([lines, expect.stringContaining('not what was signed')]);
  }
});

test('the file of checkpoints does not grow with the log: the newest is left, and it tells of a log that was cut', async () => {
  const audit = await open(openWitnesses(dir, [], logger));
  for (let i = 0; i < 5; i++) await fact(audit);
  expect(sizes()).toEqual([0, 1, 2, 3, 4, 5]);
  expect((await open(openWitnesses(dir, [], logger))).broken).toBeUndefined();
  expect(sizes()[0]).toBe(5);
  log.length = 3;
  const cut = await open(openWitnesses(dir, [], logger));
  expect(cut.broken).toContain('has 5 leaves, the log has 3');
  await expect(fact(cut)).rejects.toMatchObject({ code: 'audit-broken' });
  expect(sizes()[0]).toBe(5);
});

test('a running service drops the older ones, too', async () => {
  const audit = await open(fileWitness(local(), logger, 10));
  for (let i = 0; i < 30; i++) await fact(audit);
  expect(sizes().length).toBeLessThan(11);
  expect(sizes().at(-1)).toBe(30);
});

test('a file that can not be replaced is appended to, and that is told once', async () => {
  const witness = fileWitness(local(), logger);
  for (const size of [1, 2]) await witness.publish(`weir.audit\n${size}\n`);
  mkdirSync(`${local()}.${process.pid}.part`);
  witness.compact();
  witness.compact();
  await witness.publish('c');
  expect(witness.kept()).toHaveLength(3);
  expect(warned).toHaveLength(1);
});

test('with a witness behind a URL alone, a log that is cut while nobody looks is told at the next start', async () => {
  const targets = ['http://127.0.0.1:9/witness'];
  const first = await open(openWitnesses(dir, targets, logger));
  for (let i = 0; i < 3; i++) await fact(first);
  await first.close();
  expect(existsSync(local())).toBe(true);
  log.length = 1;
  expect((await open(openWitnesses(dir, targets, logger))).broken).toContain('the log has 1');
});

test('the log is read once at the start, an edit before that is told, and of a leaf that came again only the first counts', async () => {
  const audit = await open(openWitnesses(dir, [], logger));
  for (let i = 0; i < 3; i++) await fact(audit, `x${i}`);
  log.push(log[1]!);
  reads.length = 0;
  const again = await open(openWitnesses(dir, [], logger));
  expect(reads).toEqual([[0, 4]]);
  expect((await again.leaves(0, 10)).size).toBe(3);
  log[1] = encodeLeaf({ ...(JSON.parse(log[1]!.toString()) as Parameters<typeof encodeLeaf>[0]), actor: 'somebody else' });
  expect((await open(openWitnesses(dir, [], logger))).broken).toContain('not what was signed');
});

test('a witness that is no URL, or has a password in it, is refused at the start, and the message does not quote it', () => {
  for (const url of ['https://', 'http:', 'https://user:hunter2@witness.example/']) expect(() => openWitnesses(dir, [url], logger), url).toThrow(expect.objectContaining({ code: 'config-invalid', message: expect.not.stringContaining('hunter2') }));
});

test('who made the log signs it, so that the first start says nothing; with its checkpoint lost the next start warns', async () => {
  log.push(encodeLeaf({ id: leafId(), kind: 'intent', at: 1, actor: 'npm start', action: 'topics.apply', target: null, of: null, details: {} }));
  await open(fileWitness(local(), logger), true);
  // Nothing is written by it: the intent may be somebody's who is about to end it.
  expect([log.length, sizes()]).toEqual([1, [1]]);
  warned = [];
  await open(openWitnesses(dir, [], logger));
  expect([log.length, warned]).toEqual([2, []]);
  rmSync(local());
  await open(openWitnesses(dir, [], logger));
  expect(warned).toEqual(['no checkpoint was kept: the audit log is taken as it is']);
});
