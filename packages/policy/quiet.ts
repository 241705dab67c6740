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

/** Minutes after midnight in a zone. */
function minutesIn(timezone: string, now: number): number {
  const [hour, minute] = clockOf(timezone)!.format(now).split(':');
  return Number(hour) * 60 + Number(minute);
}

/** End of the quiet hours that `now` lies in, ms since the epoch; undefined outside. Steps by the zone's own clock, so a change to summer time moves it with the wall clock. */
export function quietUntil(quiet: QuietHours, now: number): number | undefined {
  const at = minutesIn(quiet.timezone, now);
  const inside = quiet.from < quiet.to ? at >= quiet.from && at < quiet.to : at >= quiet.from || at < quiet.to;
  if (!inside) return undefined;
  const start = Math.floor(now / 60_000) * 60_000;
  const guess = start + ((quiet.to - at + 1440) % 1440) * 60_000;
  for (const shift of [0, 60, -60, 30, -30]) if (minutesIn(quiet.timezone, guess + shift * 60_000) === quiet.to) return guess + shift * 60_000;
  return guess;
}
