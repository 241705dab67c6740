import { verifyCheckpoint, type Checkpoint } from './checkpoint.ts';
import { createTree, type Tree } from './tree.ts';

export interface LogFinding {
  readonly kind: 'signature' | 'truncated' | 'changed' | 'old-checkpoint' | 'fork' | 'not-compared';
  readonly message: string;
}

/**
 * Leaves as they are served, against the checkpoint served with them and every checkpoint kept elsewhere. No
 * finding means: each kept checkpoint is a beginning of these leaves, so nothing under the newest of them was
 * deleted, reordered, edited or cut off, and two histories were never signed.
 */
export function verifyLog(log: { readonly leaves: readonly Uint8Array[]; readonly served: string; readonly kept: readonly string[]; readonly verifier: string }): LogFinding[] {
  const tree = createTree();
  for (const leaf of log.leaves) tree.append(leaf);
  return verifyTree({ ...log, tree });
}

/** The same for the tree over the leaves. */
export function verifyTree(log: { readonly tree: Pick<Tree, 'size' | 'root'>; readonly served: string; readonly kept: readonly string[]; readonly verifier: string }): LogFinding[] {
  const { tree } = log;
  const findings: LogFinding[] = [];
  const served = verifyCheckpoint(log.served, log.verifier);
  if (served === undefined) findings.push({ kind: 'signature', message: 'the served checkpoint is not signed by the key' });
  else compare(served, 'the served checkpoint');
  const bySize = new Map<number, Checkpoint>();
  let newest = 0;
  log.kept.forEach((note, i) => {
    const checkpoint = verifyCheckpoint(note, log.verifier);
    if (checkpoint === undefined) {
      findings.push({ kind: 'signature', message: `kept checkpoint ${i + 1} is not signed by the key` });
      return;
    }
    const other = bySize.get(checkpoint.size);
    if (other !== undefined && !other.root.equals(checkpoint.root)) findings.push({ kind: 'fork', message: `two roots were signed for ${checkpoint.size} leaves` });
    else if (other === undefined) compare(checkpoint, `kept checkpoint ${i + 1}`);
    bySize.set(checkpoint.size, checkpoint);
    newest = Math.max(newest, checkpoint.size);
  });
  if (served !== undefined && served.size < newest) findings.push({ kind: 'old-checkpoint', message: `the served checkpoint has ${served.size} leaves, ${newest} were signed before` });
  return findings;

  function compare(checkpoint: Checkpoint, what: string): void {
    if (checkpoint.size > tree.size) findings.push({ kind: 'truncated', message: `${what} has ${checkpoint.size} leaves, the log has ${tree.size}` });
    else if (!tree.root(checkpoint.size).equals(checkpoint.root)) findings.push({ kind: 'changed', message: `the first ${checkpoint.size} leaves are not those of ${what}` });
  }
}
