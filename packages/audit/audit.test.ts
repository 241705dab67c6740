import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createTree, leafHash, newSigningKey, nodeHash, parseCheckpoint, signCheckpoint, signingKey, verifierOf, verifyCheckpoint, verifyConsistency, verifyInclusion, verifyLog } from './index.ts';

/** RFC 6962, 2.1, word by word. */
function naive(leaves: readonly Uint8Array[]): Buffer {
  if (leaves.length === 0) return createHash('sha256').digest();
  if (leaves.length === 1) return leafHash(leaves[0]!);
  let k = 1;
  while (k * 2 < leaves.length) k *= 2;
  return nodeHash(naive(leaves.slice(0, k)), naive(leaves.slice(k)));
}
const treeOf = (leaves: readonly Uint8Array[]) => {
  const tree = createTree();
  for (const leaf of leaves) tree.append(leaf);
  return tree;
};
const leaves = fc.array(fc.uint8Array({ maxLength: 20 }), { minLength: 1, maxLength: 70 });
const flipped = (bytes: Uint8Array): Buffer => Buffer.from(bytes.map((b, i) => (i === 0 ? b ^ 1 : b)));

test('the known roots of RFC 6962 test vectors hold', () => {
  const inputs = ['', '00', '10', '2021', '3031', '40414243', '5051525354555657', '606162636465666768696a6b6c6d6e6f'].map((hex) => Buffer.from(hex, 'hex'));
  const tree = treeOf(inputs);
  expect(tree.root(0).toString('hex')).toBe('e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855');
  expect(tree.root(1).toString('hex')).toBe('6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d');
  expect(tree.root(8).toString('hex')).toBe('5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328');
});

test('every root is that of the naive tree, at every size', () => {
  fc.assert(fc.property(leaves, (list) => {
    const tree = treeOf(list);
    for (let n = 0; n <= list.length; n++) expect(tree.root(n)).toEqual(naive(list.slice(0, n)));
  }), { numRuns: 40 });
});

test('an inclusion proof holds for its leaf, index, size and root, and for nothing else', () => {
  fc.assert(fc.property(leaves, fc.nat(), fc.nat(), (list, a, b) => {
    const size = 1 + (a % list.length);
    const index = b % size;
    const tree = treeOf(list);
    const proof = { leaf: list[index]!, index, size, path: tree.inclusion(index, size), root: tree.root(size) };
    expect(verifyInclusion(proof)).toBe(true);
    expect(verifyInclusion({ ...proof, leaf: Buffer.concat([proof.leaf, Buffer.of(1)]) })).toBe(false);
    expect(verifyInclusion({ ...proof, root: flipped(proof.root) })).toBe(false);
    expect(verifyInclusion({ ...proof, path: [...proof.path, proof.root] })).toBe(false);
    if (proof.path.length > 0) expect(verifyInclusion({ ...proof, path: proof.path.slice(1) })).toBe(false);
    for (let i = 0; i < proof.path.length; i++) expect(verifyInclusion({ ...proof, path: proof.path.with(i, flipped(proof.path[i]!)) })).toBe(false);
    expect(verifyInclusion({ ...proof, index: size })).toBe(false);
  }), { numRuns: 300 });
});

test('a consistency proof holds for two sizes of one history, and for no other history', () => {
  fc.assert(fc.property(leaves, fc.nat(), fc.nat(), fc.nat(), (list, a, b, c) => {
    const to = 1 + (a % list.length);
    const from = b % (to + 1);
    const tree = treeOf(list);
    const proof = { from, to, path: tree.consistency(from, to), fromRoot: tree.root(from), toRoot: tree.root(to) };
    expect(verifyConsistency(proof)).toBe(true);
    if (from === 0) return;
    const edited = treeOf(list.with(c % from, Buffer.from('another leaf, longer than any')));
    expect(verifyConsistency({ ...proof, path: edited.consistency(from, to), toRoot: edited.root(to) })).toBe(false);
    expect(verifyConsistency({ ...proof, fromRoot: flipped(proof.fromRoot) })).toBe(false);
    for (let i = 0; i < proof.path.length; i++) expect(verifyConsistency({ ...proof, path: proof.path.with(i, flipped(proof.path[i]!)) })).toBe(false);
  }), { numRuns: 300 });
});

const signer = signingKey('weir.example/audit', newSigningKey());
const verifier = verifierOf(signer);
const noteOf = (list: readonly Uint8Array[], by = signer): string => signCheckpoint({ origin: by.name, size: list.length, root: treeOf(list).root() }, by);

test('a checkpoint is read back by its key only, and any changed byte of it is refused', () => {
  const note = noteOf([Buffer.from('a'), Buffer.from('b')]);
  expect(verifyCheckpoint(note, verifier)).toMatchObject({ origin: signer.name, size: 2 });
  expect(parseCheckpoint(note)!.signatures).toHaveLength(1);
  expect(verifyCheckpoint(note, verifierOf(signingKey(signer.name, newSigningKey())))).toBeUndefined();
  expect(verifyCheckpoint(note, verifierOf(signingKey('weir.other/audit', newSigningKey())))).toBeUndefined();
  fc.assert(fc.property(fc.nat(note.length - 1), fc.integer({ min: 32, max: 126 }), (i, code) => {
    const changed = note.slice(0, i) + String.fromCharCode(code) + note.slice(i + 1);
    fc.pre(changed !== note);
    expect(verifyCheckpoint(changed, verifier)).toBeUndefined();
  }), { numRuns: 500 });
});

const history = Array.from({ length: 9 }, (_, i) => Buffer.from(`leaf ${i}`));
const kept = history.map((_, i) => noteOf(history.slice(0, i + 1)));
const kinds = (log: Partial<Parameters<typeof verifyLog>[0]>): string[] => [...new Set(verifyLog({ leaves: history, served: kept.at(-1)!, kept, verifier, ...log }).map((f) => f.kind))];
/** The attacker holds the log but not the kept checkpoints: he signs what he serves (he took the key too). */
const attack = (leaves: readonly Buffer[]): string[] => kinds({ leaves, served: noteOf(leaves) });

test('an untouched log has no finding', () => { expect(kinds({})).toEqual([]); });
test('a log that grew after the last kept checkpoint has no finding', () => { expect(attack([...history, Buffer.from('new')])).toEqual([]); });
test.each([
  ['delete', history.toSpliced(3, 1), 'changed'],
  ['delete and refill', [...history.toSpliced(3, 1), Buffer.from('new')], 'changed'],
  ['reorder', history.with(2, history[5]!).with(5, history[2]!), 'changed'],
  ['edit', history.with(4, Buffer.from('leaf X')), 'changed'],
  ['insert', history.toSpliced(4, 0, Buffer.from('slipped in')), 'changed'],
  ['truncate', history.slice(0, 6), 'truncated'],
  ['empty', [], 'truncated'],
])('%s is found, even when the attacker has the signing key', (_name, leaves, kind) => { expect(attack(leaves)).toContain(kind); });
test('a fork (two roots signed for one size) is found', () => { expect(kinds({ kept: [...kept, noteOf(history.with(8, Buffer.from('other')))] })).toContain('fork'); });
test('an old checkpoint served again is found', () => { expect(kinds({ served: kept[4]! })).toContain('old-checkpoint'); });
test('a checkpoint signed by another key is found', () => { expect(kinds({ served: noteOf(history, signingKey(signer.name, newSigningKey())) })).toContain('signature'); });
