import type { KeyRing } from './key-ring.ts';

const day = 86_400_000;

/** The date of the day that was asked for last: of requests, nearly always the next one's. */
let dated = { day: Number.NaN, date: '' };

/** Owner of the key for what a source gave on one day (UTC): destroyed when the last of it has left the raw topic. */
export function rawOwner(source: string, acceptedAt: number): string {
  const of = Math.floor(acceptedAt / day);
  if (of !== dated.day) dated = { day: of, date: new Date(acceptedAt).toISOString().slice(0, 10) };
  return `raw/${source}/${dated.date}`;
}

/** Owners of raw keys, each with its source and the first moment of its day (UTC). */
export function* rawOwners(ring: Pick<KeyRing, 'owners'>): Generator<{ readonly owner: string; readonly source: string; readonly from: number }> {
  for (const owner of ring.owners('raw/')) {
    const [, source, date] = owner.split('/') as [string, string, string];
    yield { owner, source, from: Date.parse(date) };
  }
}

/** From when nothing needs the raw key of the day that begins at `from`: every record of it is past the retention of its topic. `slackMs` covers segments that are deleted late. */
export const rawKeyEnd = (from: number, retentionMs: number, slackMs = day): number => from + day + retentionMs + slackMs;

/** Raw keys that nothing needs any more. `retentionOf` gives ms. */
export function expiredRawOwners(ring: Pick<KeyRing, 'owners'>, retentionOf: (source: string) => number, now: number): string[] {
  return [...rawOwners(ring)].filter(({ source, from }) => rawKeyEnd(from, retentionOf(source)) <= now).map(({ owner }) => owner);
}
