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

/**
 * Raw keys that nothing needs any more: every record of the day is past the retention of its topic. `retentionOf` gives ms,
 * `slackMs` covers segments that are deleted late.
 */
export function expiredRawOwners(ring: Pick<KeyRing, 'owners'>, retentionOf: (source: string) => number, now: number, slackMs = day): string[] {
  const found: string[] = [];
  for (const owner of ring.owners('raw/')) {
    const [, source, date] = owner.split('/');
    if (Date.parse(date!) + day + retentionOf(source!) + slackMs <= now) found.push(owner);
  }
  return found;
}
