import type { CompiledRule } from './rules.ts';

/**
 * Counters of limit rules: fixed windows aligned to the epoch, in this process only: after a crash a window may let
 * through one more bucket. Memory is bounded: past `maxKeys` counters a key without one is refused until windows end,
 * so a limit is never passed for lack of memory. With a `share`, what is counted by destination is this partition's
 * part of the count, and the parts add up to it.
 */
export function createLimits(maxKeys = 500_000, share?: { readonly partition: number; readonly partitions: number }): (rule: CompiledRule, key: string, now: number) => boolean {
  const windows = new Map<string, { until: number; readonly used: Map<string, number> }>();
  let keys = 0;
  return (rule, key, now) => {
    const { count, perMs, by } = rule.limit!;
    let window = windows.get(rule.name);
    if (window === undefined || window.until <= now) {
      keys -= window?.used.size ?? 0;
      window = { until: (Math.floor(now / perMs) + 1) * perMs, used: new Map() };
      windows.set(rule.name, window);
    }
    const part = by === 'subject' || share === undefined ? count : Math.floor(count / share.partitions) + (share.partition < count % share.partitions ? 1 : 0);
    const used = window.used.get(key);
    if (used === undefined ? part === 0 || keys >= maxKeys : used >= part) return false;
    if (used === undefined) keys++;
    window.used.set(key, (used ?? 0) + 1);
    return true;
  };
}
