import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { replaceFile } from '@weir/durable';
import { decodeLeaf, encodeLeaf, leafId, maxLeafBytes, type AuditLeaf } from './leaf.ts';

const folder = 'audit-pending';
const suffix = '.json';
const maxTurn = 1000;
/** What may be told this way: changes of the local secrets, by who is on this machine. Nobody can slip in an approval. */
const actions = /^vault\.[a-z-]{1,30}$/;
const actors = /^local:/;

/** A leaf that waits in the data folder; `leaf` is undefined when the bytes are none that may wait here. */
export interface PendingLeaf {
  readonly id: string;
  readonly bytes: Buffer;
  readonly leaf: AuditLeaf | undefined;
}

/** A leaf of a change of local secrets, of whoever is at this machine (`local:<user>`). */
export function localLeaf(kind: 'intent' | 'end', user: string, action: string, target: string | null, of: string | null, at: number): AuditLeaf {
  return { id: leafId(), kind, at, actor: `local:${user}`, action, target, of, details: kind === 'end' ? { result: 'completed' } : {} };
}

/**
 * For a change that no control API can be asked about: the leaf, on disk before this returns, in a file of its own
 * (nobody who appends or takes can lose another's). The control API of this data folder puts it on weir.audit as it stands.
 */
export function keepPending(dataDir: string, leaf: AuditLeaf): void {
  const dir = join(dataDir, folder);
  mkdirSync(dir, { recursive: true });
  replaceFile(join(dir, leaf.id + suffix), encodeLeaf(leaf), 0o600);
}

/** Leaves that wait, at most 1000, in the order of their times; an intent before its end. */
export function pendingLeaves(dataDir: string): PendingLeaf[] {
  const dir = join(dataDir, folder);
  if (!existsSync(dir)) return [];
  const found = readdirSync(dir).filter((name) => name.endsWith(suffix)).slice(0, maxTurn).map((name): PendingLeaf => {
    const id = name.slice(0, -suffix.length);
    const path = join(dir, name);
    const bytes = statSync(path).size > maxLeafBytes ? Buffer.alloc(0) : readFileSync(path);
    const leaf = decodeLeaf(bytes);
    return { id, bytes, leaf: leaf?.id === id && typeof leaf.at === 'number' && actions.test(leaf.action) && actors.test(String(leaf.actor)) ? leaf : undefined };
  });
  const rank = (p: PendingLeaf): number => (p.leaf?.kind === 'end' ? 1 : 0);
  return found.sort((a, b) => (a.leaf?.at ?? 0) - (b.leaf?.at ?? 0) || rank(a) - rank(b));
}

/** The leaf is on weir.audit. */
export function dropPending(dataDir: string, id: string): void {
  rmSync(join(dataDir, folder, id + suffix), { force: true });
}
