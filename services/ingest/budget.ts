/** Bytes that requests hold at the moment, under one cap for all of them: what is over it is refused before it is read. */
export interface Budget {
  /** False = that would be over the cap; nothing is taken then. */
  take(bytes: number): boolean;
  give(bytes: number): void;
  used(): number;
}

export function createBudget(maxBytes: number): Budget {
  let used = 0;
  return {
    take(bytes) {
      if (used + bytes > maxBytes) return false;
      used += bytes;
      return true;
    },
    give(bytes) {
      used -= bytes;
    },
    used: () => used,
  };
}
