import { createHash } from 'node:crypto';

/** A Merkle tree as RFC 6962, section 2.1 (SHA-256), append only, in memory: 64 bytes a leaf. */
export interface Tree {
  readonly size: number;
  /** Takes the bytes of a leaf; answers its index. */
  append(leaf: Uint8Array): number;
  /** Hash of a leaf of the tree. */
  leaf(index: number): Buffer;
  /** Hash of the first `size` leaves (default all). Throws RangeError beyond the tree. */
  root(size?: number): Buffer;
  /** Audit path of leaf `index` in the tree of the first `size` leaves (RFC 6962, 2.1.1). */
  inclusion(index: number, size?: number): Buffer[];
  /** Proof that the first `from` leaves are the beginning of the first `to` (RFC 6962, 2.1.2). */
  consistency(from: number, to?: number): Buffer[];
}

const sha256 = (...parts: Uint8Array[]): Buffer => {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
};
const leafPrefix = Buffer.of(0);
const nodePrefix = Buffer.of(1);

export const leafHash = (leaf: Uint8Array): Buffer => sha256(leafPrefix, leaf);
export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer => sha256(nodePrefix, left, right);
export const emptyRoot = (): Buffer => sha256();

/** Largest power of two below n (n > 1). */
const split = (n: number): number => 2 ** (31 - Math.clz32(n - 1));

export function createTree(): Tree {
  /** levels[k][i] = hash of the leaves [i·2^k, (i+1)·2^k). */
  const levels: Buffer[][] = [[]];
  const leaves = levels[0]!;

  function range(start: number, end: number): Buffer {
    const n = end - start;
    if (n === 0) return emptyRoot();
    const k = 31 - Math.clz32(n);
    if (n === 2 ** k && start % n === 0) return levels[k]![start / n]!;
    const middle = start + split(n);
    return nodeHash(range(start, middle), range(middle, end));
  }

  function path(index: number, start: number, end: number): Buffer[] {
    if (end - start === 1) return [];
    const middle = start + split(end - start);
    return index < middle ? [...path(index, start, middle), range(middle, end)] : [...path(index, middle, end), range(start, middle)];
  }

  function subproof(m: number, start: number, end: number, whole: boolean): Buffer[] {
    const n = end - start;
    if (m === n) return whole ? [] : [range(start, end)];
    const k = split(n);
    return m <= k ? [...subproof(m, start, start + k, whole), range(start + k, end)] : [...subproof(m - k, start + k, end, false), range(start, start + k)];
  }

  function within(n: number, most: number): number {
    if (!Number.isInteger(n) || n < 0 || n > most) throw new RangeError(`${n} is not within the tree of ${most}`);
    return n;
  }

  return {
    get size() { return leaves.length; },
    append(leaf) {
      const index = leaves.push(leafHash(leaf)) - 1;
      for (let k = 0, i = index; i % 2 === 1; k++, i = (i - 1) / 2) (levels[k + 1] ??= []).push(nodeHash(levels[k]![i - 1]!, levels[k]![i]!));
      return index;
    },
    leaf: (index) => leaves[within(index, leaves.length - 1)]!,
    root: (size = leaves.length) => range(0, within(size, leaves.length)),
    inclusion: (index, size = leaves.length) => path(within(index, within(size, leaves.length) - 1), 0, size),
    consistency: (from, to = leaves.length) => (within(from, within(to, leaves.length)) === 0 ? [] : subproof(from, 0, to, true)),
  };
}

/** RFC 9162, 2.1.3.2. */
export function verifyInclusion(proof: { readonly leaf: Uint8Array; readonly index: number; readonly size: number; readonly path: readonly Uint8Array[]; readonly root: Uint8Array }): boolean {
  const { index, size, path, root } = proof;
  if (!Number.isInteger(index) || index < 0 || index >= size) return false;
  let fn = index;
  let sn = size - 1;
  let hash = leafHash(proof.leaf);
  for (const p of path) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      hash = nodeHash(p, hash);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [half(fn), half(sn)];
    } else hash = nodeHash(hash, p);
    [fn, sn] = [half(fn), half(sn)];
  }
  return sn === 0 && hash.equals(root);
}

/** RFC 9162, 2.1.4.2; the empty tree is the beginning of every tree. */
export function verifyConsistency(proof: { readonly from: number; readonly to: number; readonly path: readonly Uint8Array[]; readonly fromRoot: Uint8Array; readonly toRoot: Uint8Array }): boolean {
  const { from, to, fromRoot, toRoot } = proof;
  if (!Number.isInteger(from) || !Number.isInteger(to) || from < 0 || from > to) return false;
  if (from === to) return proof.path.length === 0 && Buffer.from(fromRoot).equals(toRoot);
  if (from === 0) return proof.path.length === 0 && emptyRoot().equals(fromRoot);
  const path = (from & (from - 1)) === 0 ? [fromRoot, ...proof.path] : proof.path;
  if (path.length === 0) return false;
  let fn = from - 1;
  let sn = to - 1;
  while (fn % 2 === 1) [fn, sn] = [half(fn), half(sn)];
  let fr: Buffer = Buffer.from(path[0]!);
  let sr: Buffer = fr;
  for (const c of path.slice(1)) {
    if (sn === 0) return false;
    if (fn % 2 === 1 || fn === sn) {
      fr = nodeHash(c, fr);
      sr = nodeHash(c, sr);
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [half(fn), half(sn)];
    } else sr = nodeHash(sr, c);
    [fn, sn] = [half(fn), half(sn)];
  }
  return sn === 0 && fr.equals(fromRoot) && sr.equals(toRoot);
}

const half = (n: number): number => Math.floor(n / 2);
