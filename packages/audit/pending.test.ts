import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { dropPending, keepPending, localLeaf, pendingLeaves, type AuditLeaf } from './index.ts';

let dataDir: string;
beforeEach(() => { dataDir = mkdtempSync(join(tmpdir(), 'weir-pending-')); });
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));
const folder = (): string => join(dataDir, 'audit-pending');

test('leaves that wait come back byte by byte, an intent before its end, until they are dropped; none is written over', () => {
  expect(pendingLeaves(dataDir)).toEqual([]);
  const intent = localLeaf('intent', 'ann', 'vault.set', 'CRM_TOKEN', null, 7);
  const end = localLeaf('end', 'ann', 'vault.set', 'CRM_TOKEN', intent.id, 7);
  keepPending(dataDir, end);
  keepPending(dataDir, intent);
  keepPending(dataDir, localLeaf('intent', 'ann', 'vault.rotate-key', null, null, 3));
  expect(pendingLeaves(dataDir).map((p) => [p.leaf?.action, p.leaf?.kind])).toEqual([['vault.rotate-key', 'intent'], ['vault.set', 'intent'], ['vault.set', 'end']]);
  expect(pendingLeaves(dataDir)[1]).toEqual({ id: intent.id, bytes: Buffer.from(JSON.stringify(intent)), leaf: intent });
  expect(intent).toMatchObject({ actor: 'local:ann', target: 'CRM_TOKEN' });
  dropPending(dataDir, intent.id);
  dropPending(dataDir, intent.id);
  expect(pendingLeaves(dataDir)).toHaveLength(2);
});

test('what waits in the folder can tell of local secrets only: no approval, no other actor, no other id, no half-written file', () => {
  const leaf = localLeaf('intent', 'eve', 'vault.set', 'A', null, 1);
  const put = (name: string, value: unknown): void => writeFileSync(join(folder(), name), typeof value === 'string' ? value : JSON.stringify(value));
  keepPending(dataDir, leaf);
  const forged: AuditLeaf[] = [{ ...leaf, action: 'release.approve' }, { ...leaf, actor: 'admin' }, { ...leaf, at: 'x' as unknown as number }, { ...leaf, action: 'vault.set.more' }];
  forged.forEach((f, i) => {
    const id = `leaf_00000000-0000-4000-8000-00000000000${i}`;
    put(`${id}.json`, { ...f, id });
  });
  put('leaf_00000000-0000-4000-8000-000000000009.json', leaf);
  put('leaf_00000000-0000-4000-8000-000000000008.json', '{"id":');
  put('leaf_00000000-0000-4000-8000-000000000007.json', ' '.repeat(70_000));
  put('leaf_00000000-0000-4000-8000-000000000006.part', leaf);
  expect(readdirSync(folder())).toHaveLength(9);
  const found = pendingLeaves(dataDir);
  expect(found).toHaveLength(8);
  expect(found.filter((p) => p.leaf !== undefined).map((p) => p.id)).toEqual([leaf.id]);
});
