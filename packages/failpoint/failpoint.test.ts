import { afterEach, expect, test } from 'vitest';
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

test('nothing is armed by default', () => {
  expect(isArmed('ingest.acked')).toBe(false);
  failpoint('ingest.acked');
});

test.each(['', 'nowhere:1', 'ingest.acked', 'ingest.acked:x', 'constructor:1'])('%j is refused: a test that arms nothing would pass', (spec) => {
  expect(() => arm(spec, () => undefined)).toThrow(/WEIR_FAILPOINTS/);
});
