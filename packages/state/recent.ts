/**
 * The entries used last, in two generations: when the newer is full the older is dropped whole, so that at least `size` of
 * the last used are kept and none costs a search for the oldest.
 */
export interface Recent<T> {
  get(key: string): T | undefined;
  set(key: string, value: T): void;
  delete(key: string): void;
}

/** @param size entries of one generation; twice as many are held at most */
export function createRecent<T>(size: number): Recent<T> {
  let newer = new Map<string, T>();
  let older = new Map<string, T>();
  function set(key: string, value: T): void {
    if (newer.size >= size && !newer.has(key)) [newer, older] = [new Map(), newer];
    newer.set(key, value);
  }
  return {
    get(key) {
      const known = newer.get(key);
      if (known !== undefined) return known;
      const before = older.get(key);
      if (before !== undefined) set(key, before);
      return before;
    },
    set,
    delete(key) {
      newer.delete(key);
      older.delete(key);
    },
  };
}
