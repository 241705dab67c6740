/** mulberry32: a seed gives one sequence; `of` makes an independent generator by name, so that concurrent users do not disturb each other's. */
export interface Random {
  next(): number;
  /** Whole number in [0, n). */
  below(n: number): number;
  pick<T>(list: readonly T[]): T;
}

export function createRandom(seed: number, name = ''): Random {
  let a = seed >>> 0;
  for (const c of name) a = Math.imul(a ^ c.codePointAt(0)!, 0x01000193) >>> 0;
  const next = (): number => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (n: number): number => Math.floor(next() * n);
  return { next, below, pick: (list) => list[below(list.length)]! };
}
