import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTree, newSigningKey, signCheckpoint, signingKey, verifierOf } from '@weir/audit';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { checkedLog } from './audit-log.ts';

const signer = signingKey('weir.audit', newSigningKey());
let dir: string;
beforeEach(() => { dir = mkdtempSync(join(tmpdir(), 'weir-audit-')); });
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** An instance with one leaf, and the checkpoint over it. */
function instance() {
  const leaf = Buffer.from('{}');
  const tree = createTree();
  tree.append(leaf);
  const checkpoint = signCheckpoint({ origin: signer.name, size: 1, root: tree.root() }, signer);
  const client = { get: async (path: string) => (path.includes('checkpoint') ? { checkpoint, verifier: verifierOf(signer) } : { size: 1, leaves: [{ index: 0, bytes: leaf.toString('base64') }] }) };
  return { checkpoint, check: () => checkedLog({ values: {}, target: { dataDir: dir } } as never, client as never) };
}

test('where no checkpoint was kept nothing is compared, and that is a finding, not ok', async () => {
  const { check } = instance();
  expect((await check()).findings).toEqual([{ kind: 'not-compared', message: expect.stringContaining('nothing was compared') }]);
  writeFileSync(join(dir, 'audit-checkpoints.jsonl'), '');
  expect((await check()).findings).toHaveLength(1);
});

test('one kept checkpoint is something to compare with', async () => {
  const { checkpoint, check } = instance();
  writeFileSync(join(dir, 'audit-checkpoints.jsonl'), `${JSON.stringify(checkpoint)}\n`);
  expect(await check()).toMatchObject({ kept: 1, findings: [] });
});

test('a checkpoint that was cut off while it was written is no finding; one that nobody signed is', async () => {
  const { checkpoint, check } = instance();
  const whole = JSON.stringify(checkpoint);
  const file = join(dir, 'audit-checkpoints.jsonl');
  for (const text of [`"weir.aud\n${whole}\n`, `${whole}\n"weir.aud`, `\n${whole}`]) {
    writeFileSync(file, text);
    expect([text, await check()]).toEqual([text, expect.objectContaining({ kept: 1, findings: [] })]);
  }
  for (const line of ['"weir.audit\\n1\\n"', 'x']) {
    writeFileSync(file, `${line}\n${whole}\n`);
    expect([line, await check()]).toEqual([line, expect.objectContaining({ kept: 2, findings: [expect.objectContaining({ kind: 'signature' })] })]);
  }
});
