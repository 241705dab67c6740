/** What a scan looks for: a tree of keys with the slots of values, and the order in which the keys were last met. */
import type { Path } from '../path.ts';

/** What becomes of a value that no slot takes. `part`: of an object that some path goes into, the rest; a value of another kind whole. */
export type Keep = 'none' | 'part' | 'all';

/** One key of an object. */
export interface Entry {
  readonly name: string;
  readonly bytes: Uint8Array;
  /** `"name":` as it goes into the leftovers. */
  readonly quoted: Buffer;
  /** -1 = the value is not kept. */
  readonly slot: number;
  readonly keep: Keep;
  /** Of the object that is its value; made when one is met. */
  node: Node | undefined;
  /** Where it stands in the shape. */
  place: number;
}

/** One object of the source. The shape is a supersequence of the key orders met so far: it makes the look-up of a key a comparison, and changes no result. */
export interface Node {
  /** `part`: what no path names is left over; `none`: nothing of it is, or it is left over whole. */
  readonly keep: Exclude<Keep, 'all'>;
  readonly entries: Map<string, Entry>;
  readonly shape: Entry[];
}

interface Tree { slot: number; consumed: boolean; readonly children: Map<string, Tree> }

const newTree = (): Tree => ({ slot: -1, consumed: false, children: new Map() });

/** Keys of one object that are remembered; and nodes made for objects that no path names, of one shape tree. */
export const maxLearned = 128;
const maxNodes = 512;

export class Shape {
  readonly root: Node;
  readonly paths = new Map<string, number>();
  #nodes = 0;

  /** Slots for `slots`; what lies under `consumed` is not left over. Undefined slots: see `slotOf`. */
  constructor(slots: readonly Path[], consumed: readonly Path[]) {
    const tree = newTree();
    const at = (path: Path): Tree => {
      let node = tree;
      for (const key of path.keys) {
        let child = node.children.get(key);
        if (child === undefined) node.children.set(key, child = newTree());
        node = child;
      }
      return node;
    };
    for (const path of slots) {
      const node = at(path);
      if (node.slot < 0) node.slot = this.paths.size;
      this.paths.set(keyOf(path), node.slot);
    }
    for (const path of consumed) at(path).consumed = true;
    this.root = this.#node(tree, 'part');
  }
  slotOf(path: Path): number {
    return this.paths.get(keyOf(path))!;
  }
  #node(tree: Tree, keep: Keep): Node {
    const node: Node = { keep: keep === 'part' ? 'part' : 'none', entries: new Map(), shape: [] };
    for (const [name, child] of tree.children) {
      // As `leftover` has it: what is consumed is gone with all below; below a path that goes on, the rest stays.
      const kept: Keep = keep === 'none' || child.consumed ? 'none' : hasConsumed(child) ? 'part' : 'all';
      this.#enter(node, name, child.slot, kept, child.children.size > 0 ? this.#node(child, kept) : undefined);
    }
    return node;
  }
  #enter(node: Node, name: string, slot: number, keep: Keep, below: Node | undefined): Entry {
    const entry: Entry = { name, bytes: Buffer.from(name, 'latin1'), quoted: Buffer.from(`"${name}":`, 'latin1'), slot, keep, node: below, place: -1 };
    node.entries.set(name, entry);
    return entry;
  }
  /** Remember a key that was met, after `place` keys of the shape; undefined when there are too many. */
  learn(node: Node, name: string, place: number): Entry | undefined {
    let entry = node.entries.get(name);
    if (entry === undefined) {
      if (node.entries.size >= maxLearned) return undefined;
      entry = this.#enter(node, name, -1, node.keep === 'none' ? 'none' : 'all', undefined);
    }
    if (entry.place < 0) {
      node.shape.splice(place, 0, entry);
      for (let i = place; i < node.shape.length; i++) node.shape[i]!.place = i;
    }
    return entry;
  }
  /** The entry of the elements of an array; '' is no key that can be looked up. */
  element(node: Node): Entry {
    return this.#enter(node, '', -1, 'all', undefined);
  }
  /** The node of an object that no path goes into; undefined when there are too many. */
  below(entry: Entry): Node | undefined {
    if (entry.node === undefined && this.#nodes < maxNodes) {
      this.#nodes++;
      entry.node = { keep: 'none', entries: new Map(), shape: [] };
    }
    return entry.node;
  }
}

const keyOf = (path: Path): string => path.keys.join('\u0000');
const hasConsumed = (tree: Tree): boolean => [...tree.children.values()].some((child) => child.consumed || hasConsumed(child));
