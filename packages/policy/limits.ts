import type { CompiledRule } from './rules.ts';

/** Counters of limit rules. */
export interface Limits {
  /** Take a slot of the window that is open at `now`; false = it is used up. */
  take(rule: CompiledRule, key: string, now: number): boolean;
  /** Whether `take` would give one. */
  has(rule: CompiledRule, key: string, now: number): boolean;
  /** A slot that was taken at `now` is free again. */
  giveBack(rule: CompiledRule, key: string, now: number): void;
  /** A slot that was taken at `at`, by who counted before; nothing when its window has ended by `now`. */
  restore(rule: CompiledRule, key: string, at: number, now: number): void;
}

/**
 * Fixed windows aligned to the epoch. In memory: who begins to count restores what deliveries say was taken
 * (services/policy/limits.ts). Memory is bounded: past `maxKeys` counters a key without one is refused until windows
 * end, whichever rule they are of, so a limit is never passed for lack of memory. With a `share`, what is counted by
 * destination is this partition's part of the count, and the parts add up to it.
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

  /** For one more key. Windows that have ended make it, also of rules that are seldom asked, or that a release took away. */
  function hasRoom(now: number): boolean {
    if (keys < maxKeys) return true;
    for (const [name, { until, used }] of windows) {
      if (until > now) continue;
      keys -= used.size;
      windows.delete(name);
    }
    return keys < maxKeys;
  }

  function has(rule: CompiledRule, key: string, now: number): boolean {
    const { count, by } = rule.limit!;
    const part = by === 'subject' || share === undefined ? count : Math.floor(count / share.partitions) + (share.partition < count % share.partitions ? 1 : 0);
    const before = usedIn(rule, now).get(key);
    return before === undefined ? part > 0 && hasRoom(now) : before < part;
  }

  function add(used: Map<string, number>, key: string): void {
    const before = used.get(key);
    if (before === undefined) keys++;
    used.set(key, (before ?? 0) + 1);
  }

  return {
    has,
    take(rule, key, now) {
      if (!has(rule, key, now)) return false;
      add(usedIn(rule, now), key);
      return true;
    },
    giveBack(rule, key, now) {
      const used = usedIn(rule, now);
      const before = used.get(key);
      if (before === undefined) return;
      used.set(key, before - 1);
      if (before > 1) return;
      used.delete(key);
      keys--;
    },
    restore(rule, key, at, now) {
      const { perMs } = rule.limit!;
      if (Math.floor(at / perMs) !== Math.floor(now / perMs)) return;
      const used = usedIn(rule, now);
      if (used.has(key) || hasRoom(now)) add(used, key);
    },
  };
}
