import type { Cap } from '@weir/release';
import type { DeliveryValue, EndValue } from './types.ts';

/** A delivery that counts against caps: it took effect, or may have, here or at the second vendor that it went to. */
export interface Counted {
  /** Of the delivery. */
  readonly key: string;
  readonly at: number;
  readonly purpose: string;
  readonly channel: string | null;
  readonly operation: string;
}

/** What an end counts as; undefined = nothing. `restrict` has no purpose and never counts. */
export function countedOf(end: EndValue): Counted | undefined {
  if (end.purpose === null || (end.state !== 'delivered' && end.state !== 'failed-over' && end.effect === 'none')) return undefined;
  return { key: end.key, at: end.at, purpose: end.purpose, channel: end.channel, operation: end.operation };
}

export interface Capped {
  readonly cap: Cap;
  /** When the next day begins, ms since the epoch. */
  readonly until: number;
}

const matches = (cap: Cap, of: { readonly purpose: string | null; readonly channel: string | null; readonly operation: string }): boolean =>
  (cap.purpose === undefined || cap.purpose === of.purpose) && (cap.channel === undefined || cap.channel === of.channel) && (cap.operation === undefined || cap.operation === of.operation);

/**
 * The first cap that the delivery is over; undefined when it may go. Counts are exact without a counter: the subject's
 * deliveries go one at a time through the one owner of its partition, which has read its ledger to the end (3.7).
 * @param counted the subject's deliveries since a time, of which a few older ones may be among
 */
export function cappedBy(caps: readonly Cap[], delivery: Pick<DeliveryValue, 'purpose' | 'channel' | 'operation'>, counted: (since: number) => readonly Counted[], now: number): Capped | undefined {
  if (delivery.purpose === null) return undefined;
  for (const cap of caps) {
    if (!matches(cap, delivery)) continue;
    const { start, end } = dayOf(now, cap.timezone);
    let used = 0;
    for (const one of counted(start)) if (one.at >= start && matches(cap, one)) used++;
    if (used >= cap.max) return { cap, until: end };
  }
  return undefined;
}

const hourMs = 3_600_000;
const formats = new Map<string, Intl.DateTimeFormat>();
const days = new Map<string, { start: number; end: number }>();

/** Hour, minute, second and date of a time in a zone. */
function local(at: number, zone: string): { readonly date: string; readonly secondOfDay: number } {
  let format = formats.get(zone);
  if (format === undefined) formats.set(zone, format = new Intl.DateTimeFormat('en-CA', { timeZone: zone, hourCycle: 'h23', year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit' }));
  const part: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const { type, value } of format.formatToParts(at)) part[type] = value;
  return { date: `${part['year']}-${part['month']}-${part['day']}`, secondOfDay: Number(part['hour']) * 3600 + Number(part['minute']) * 60 + Number(part['second']) };
}

/** First ms of the local day that `at` is in. Where a clock change skips midnight, the first ms that has the date. */
function startOf(at: number, zone: string): number {
  const { date, secondOfDay } = local(at, zone);
  const guess = Math.floor(at / 1000) * 1000 - secondOfDay * 1000;
  // A change of the clock since midnight moves the guess by up to two hours; zones differ by quarters of an hour.
  let best = at;
  for (let shift = -2 * hourMs; shift <= 2 * hourMs; shift += hourMs / 4) if (guess + shift <= at && guess + shift < best && local(guess + shift, zone).date === date) best = guess + shift;
  return best;
}

/** The local day of a time: from its first ms to the first of the next day. */
export function dayOf(now: number, zone: string): { readonly start: number; readonly end: number } {
  const known = days.get(zone);
  if (known !== undefined && now >= known.start && now < known.end) return known;
  const start = startOf(now, zone);
  // A day has 22 to 26 hours: 30 hours after its first ms is in the next one.
  const day = { start, end: startOf(start + 30 * hourMs, zone) };
  days.set(zone, day);
  return day;
}
