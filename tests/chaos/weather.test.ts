import { expect, test } from 'vitest';
import { createRandom } from './random.ts';
import { brokerStopMs, clockStepMs } from './weather.ts';

test('a broker stands still for 3 to 15 s, and one time in twenty for 45', () => {
  const random = createRandom(7, 'stops');
  const stops = Array.from({ length: 2000 }, () => brokerStopMs(random));
  const long = stops.filter((ms) => ms === 45_000);
  expect(long.length / stops.length).toBeGreaterThan(0.03);
  expect(long.length / stops.length).toBeLessThan(0.07);
  const others = stops.filter((ms) => ms !== 45_000);
  expect([Math.min(...others) >= 3000, Math.max(...others) < 15_000]).toEqual([true, true]);
});

test('the clock of the control service only goes ahead, others step either way, a dispatcher by 30 s', () => {
  const random = createRandom(7, 'clocks');
  const range = (victim: Parameters<typeof clockStepMs>[1]): boolean[] => {
    const steps = Array.from({ length: 500 }, () => clockStepMs(random, victim));
    return [steps.some((ms) => ms < 0), steps.every((ms) => Math.abs(ms) <= 30_000)];
  };
  expect([range('control'), range('dispatcher'), range('policy')]).toEqual([[false, true], [true, true], [true, false]]);
});
