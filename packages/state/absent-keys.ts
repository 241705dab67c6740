import { createGrowingFilter, type GrowingFilter } from './growing-filter.ts';

/** Tells of most keys that are not stored that they are not, without a read (docs/decisions/0024). Keys are as they are stored. */
export interface AbsentKeys {
  /** True: surely not stored. False says nothing. */
  has(key: string): boolean;
  /** To be called before the key is written. */
  add(key: string): void;
  /** Forgets all, and goes over what is stored now. */
  restart(): void;
  /** Takes no memory any more, and tells of no key. */
  drop(): void;
  dropped(): boolean;
}

/** Names that are taken in between two turns of others. */
const namesATurn = 500;

/** @param namesBehind stored keys behind this one, in order, as many as there are up to the limit; one that throws ends the telling, not the process: whoever reads a row is told */
export function createAbsentKeys(namesBehind: (key: string, limit: number) => readonly string[]): AbsentKeys {
  let stored: GrowingFilter = createGrowingFilter();
  /** Every stored key is in it. */
  let whole = false;
  let takingIn: NodeJS.Immediate | undefined;

  function takeIn(after: string): void {
    let names: readonly string[];
    try {
      names = namesBehind(after, namesATurn);
    } catch {
      return stored.drop();
    }
    for (const name of names) stored.add(name);
    if (stored.dropped()) return;
    whole = names.length < namesATurn;
    if (!whole) takingIn = setImmediate(takeIn, names[names.length - 1]!).unref();
  }

  function drop(): void {
    clearImmediate(takingIn);
    stored.drop();
  }

  function restart(): void {
    drop();
    stored = createGrowingFilter();
    whole = namesBehind('', 1).length === 0;
    if (!whole) takingIn = setImmediate(takeIn, '').unref();
  }

  restart();
  return {
    has: (key) => whole && !stored.may(key),
    add: (key) => { stored.add(key); },
    restart,
    drop,
    dropped: () => stored.dropped(),
  };
}
