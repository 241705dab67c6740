import { afterEach, expect, test, vi } from 'vitest';
import { arm, disarm, failpoint, isArmed } from './failpoint.ts';

afterEach(disarm);

test('a point acts at its n-th passing, once, and no other point does', () => {
  const died: string[] = [];
  arm('ingest.acked:2,log.produce-sent@.dlq:1', (name) => died.push(name));
  failpoint('ingest.acked');
  failpoint('ingest.verified');
  failpoint('log.produce-sent', 'weir.outcome');
  expect(died).toEqual([]);
  failpoint('ingest.acked');
  failpoint('ingest.acked');
  failpoint('log.produce-sent', 'weir.dlq');
  expect(died).toEqual(['ingest.acked', 'log.produce-sent']);
});

test('a point that is armed for later, or to stand still, says so', async () => {
  const struck: [string, number][] = [];
  arm('ingest.acked:1+30,ingest.verified:1~500', (name, stallMs) => struck.push([name, stallMs]));
  failpoint('ingest.acked');
  failpoint('ingest.verified');
  expect(struck).toEqual([['ingest.verified', 500]]);
  await vi.waitFor(() => {
    failpoint('ingest.acked');
    expect(struck).toContainEqual(['ingest.acked', 0]);
  });
});

test('nothing is armed by default', () => {
  expect(isArmed('ingest.acked')).toBe(false);
  failpoint('ingest.acked');
});

test.each(['', 'nowhere:1', 'ingest.acked', 'ingest.acked:x', 'ingest.acked:1~', 'constructor:1'])('%j is refused: a test that arms nothing would pass', (spec) => {
  expect(() => arm(spec, () => undefined)).toThrow(/WEIR_FAILPOINTS/);
});
