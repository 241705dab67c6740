import fc from 'fast-check';
import { expect, test } from 'vitest';
import { quietUntil } from './quiet.ts';

const minute = 60_000;
const clocks = new Map<string, Intl.DateTimeFormat>();
function localMinutes(timezone: string, at: number): number {
  const clock = clocks.get(timezone) ?? new Intl.DateTimeFormat('en-GB', { timeZone: timezone, timeStyle: 'short' });
  clocks.set(timezone, clock);
  const [hour, minutes] = clock.format(at).split(':').map(Number);
  return hour! * 60 + minutes!;
}
const within = (from: number, to: number, at: number): boolean => (from < to ? at >= from && at < to : at >= from || at < to);

/** Days on which clocks change, and ordinary ones; half-hour shifts (Lord Howe), quarter-hour zones (Kathmandu, Chatham), midnight changes (Havana, Santiago). */
const zones = ['UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Asia/Kathmandu', 'Pacific/Chatham', 'America/Havana', 'America/Santiago', 'Africa/Casablanca'];
const days = ['2026-03-07', '2026-03-08', '2026-03-28', '2026-03-29', '2026-04-04', '2026-04-05', '2026-09-05', '2026-09-06', '2026-10-03', '2026-10-04', '2026-10-24', '2026-10-25', '2026-11-01', '2026-06-15', '2026-02-15', '2026-03-22'];

test('quiet hours end at the first minute that is outside of them by the clock of the zone, whatever its changes', () => {
  fc.assert(fc.property(fc.constantFrom(...zones), fc.constantFrom(...days), fc.integer({ min: 0, max: 1439 }), fc.integer({ min: 0, max: 47 }), fc.integer({ min: 0, max: 47 }), (timezone, day, offset, fromHalf, toHalf) => {
    fc.pre(fromHalf !== toHalf);
    const quiet = { from: fromHalf * 30, to: toHalf * 30, timezone };
    const now = Date.parse(`${day}T00:00:00Z`) + offset * minute;
    const end = quietUntil(quiet, now);
    if (!within(quiet.from, quiet.to, localMinutes(timezone, now))) {
      expect(end).toBeUndefined();
      return;
    }
    let first = now;
    while (within(quiet.from, quiet.to, localMinutes(timezone, first))) first += minute;
    expect(new Date(end!).toISOString()).toBe(new Date(first).toISOString());
  }), { numRuns: 600, examples: [['America/Santiago', '2026-09-05', 1200, 1, 0], ['Europe/Berlin', '2026-03-28', 1300, 44, 5], ['Europe/Berlin', '2026-10-24', 1300, 44, 5], ['Australia/Lord_Howe', '2026-10-03', 900, 44, 5]] });
}, 60_000);
