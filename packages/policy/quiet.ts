import type { QuietHours } from './rules.ts';

const clocks = new Map<string, Intl.DateTimeFormat | undefined>();
const maxClocks = 1000;

/** Zones may come from a record, so what is kept of them is bounded; undefined = there is no such zone. */
function clockOf(timezone: string): Intl.DateTimeFormat | undefined {
  if (clocks.has(timezone)) return clocks.get(timezone);
  let clock: Intl.DateTimeFormat | undefined;
  try {
    if (timezone.length <= 64) clock = new Intl.DateTimeFormat('en-GB', { timeZone: timezone, hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  if (clocks.size >= maxClocks) clocks.clear();
  clocks.set(timezone, clock);
  return clock;
}
export const isZone = (timezone: string): boolean => clockOf(timezone) !== undefined;

/** The last minute that was asked for in each zone, and what it is there: many records are decided in one minute. */
const asked = new Map<string, { readonly minute: number; readonly local: number }>();

/** Minutes after midnight in a zone. */
function minutesIn(timezone: string, at: number): number {
  const minute = Math.floor(at / minuteMs);
  const known = asked.get(timezone);
  if (known?.minute === minute) return known.local;
  const [hour, rest] = clockOf(timezone)!.format(at).split(':');
  const local = Number(hour) * 60 + Number(rest);
  if (asked.size >= maxClocks) asked.clear();
  asked.set(timezone, { minute, local });
  return local;
}

const minuteMs = 60_000;
const dayMinutes = 1440;
/** Quiet times that were worked out: from a minute in them to their end. */
const ends = new Map<string, { readonly from: number; readonly end: number }>();

const isQuiet = ({ from, to }: QuietHours, local: number): boolean => (from < to ? local >= from && local < to : local >= from || local < to);

/**
 * End of the quiet hours that `now` lies in, ms since the epoch: the first minute that is outside of them by the clock
 * of the zone, also when that clock is changed meanwhile. Undefined outside.
 */
export function quietUntil(quiet: QuietHours, now: number): number | undefined {
  const key = `${quiet.timezone} ${quiet.from} ${quiet.to}`;
  const known = ends.get(key);
  if (known !== undefined && now >= known.from && now < known.end) return known.end;
  const local = minutesIn(quiet.timezone, now);
  if (!isQuiet(quiet, local)) return undefined;
  const from = Math.floor(now / minuteMs) * minuteMs;
  let end = from + ((quiet.to - local + dayMinutes) % dayMinutes) * minuteMs;
  // Where the zone is as far from UTC then as now, its clock was not changed between (changes are weeks apart).
  if (offsetOf(quiet.timezone, end) !== offsetOf(quiet.timezone, from)) for (end = from; isQuiet(quiet, minutesIn(quiet.timezone, end));) end += minuteMs;
  if (ends.size >= maxClocks) ends.clear();
  ends.set(key, { from, end });
  return end;
}

/** Minutes that the zone is ahead of UTC, modulo a day. */
function offsetOf(timezone: string, at: number): number {
  return (minutesIn(timezone, at) - Math.floor(at / minuteMs) % dayMinutes + dayMinutes) % dayMinutes;
}
