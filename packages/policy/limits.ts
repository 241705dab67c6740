import type { CompiledRule } from './rules.ts';

/** Counters of limit rules. */
export interface Limits {
  /** Take a slot of the window that is open at `now`; false = it is used up. */
  take(rule: CompiledRule, key: string, now: number): boolean;
  /** A slot that was taken at `at`, by who counted before; nothing when its window has ended by `now`. */
  restore(rule: CompiledRule, key: string, at: number, now: number): void;
}

/**
 * Fixed windows aligned to the epoch. In memory: who begins to count restores what deliveries say was taken
 * (services/policy/limits.ts). Memory is bounded: past `maxKeys` counters a key without one is refused until windows
 * end, so a limit is never passed for lack of memory. With a `share`, what is counted by destination is this
 * partition's part of the count, and the parts add up to it.
 */
export function createLimits(maxKeys = 500_000, share?: { readonly partition: number; readonly partitions: number }): Limits {
  const windows = new Map<string, { until: number; readonly used: Map<string, number> }>();
  let keys = 0;

  function usedIn({ name, limit }: CompiledRule, now: number): Map<string, number> {
    const { perMs } = limit!;
    let window = windows.get(name);
    if (window === undefined || window.until <= now) {
      keys -= window?.used.size ?? 0;
      window = { until: (Math.floor(now / perMs) + 1) * perMs, used: new Map() };
      windows.set(name, window);
    }
    return window.used;
  }

  return {
    take(rule, key, now) {
      const { count, by } = rule.limit!;
      const used = usedIn(rule, now);
      const part = by === 'subject' || share === undefined ? count : Math.floor(count / share.partitions) + (share.partition < count % share.partitions ? 1 : 0);
      const before = used.get(key);
      if (before === undefined ? part === 0 || keys >= maxKeys : before >= part) return false;
      if (before === undefined) keys++;
      used.set(key, (before ?? 0) + 1);
      return true;
    },
    restore(rule, key, at, now) {
      const { perMs } = rule.limit!;
      if (Math.floor(at / perMs) !== Math.floor(now / perMs)) return;
      const used = usedIn(rule, now);
      const before = used.get(key);
      if (before === undefined && keys >= maxKeys) return;
      if (before === undefined) keys++;
      used.set(key, (before ?? 0) + 1);
    },
  };
}
