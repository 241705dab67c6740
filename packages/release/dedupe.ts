import type { Release } from './types.ts';

/** Of events whose source is not in the running release any more. */
const defaultWindowMs = 7 * 86_400_000;

/** The longest dedupe window that an event may have, ms. */
export function longestDedupeWindow({ sources }: Pick<Release, 'sources'>): number {
  return Math.max(defaultWindowMs, ...[...sources.values()].map((source) => source.dedupeWindowMs));
}

/** For how long an event of this source may come again, ms; '' = of no source that is known. */
export function dedupeWindow(release: Pick<Release, 'sources'>, source: string): number {
  return source === '' ? longestDedupeWindow(release) : release.sources.get(source)?.dedupeWindowMs ?? defaultWindowMs;
}
