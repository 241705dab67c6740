import { expect, test } from 'vitest';
import { checkTimes, windowOf } from './app.ts';
import { options } from './config.ts';

test('a session that no call fits into is refused at start, not found out by a standstill', () => {
  expect(() => checkTimes({ sessionTimeoutMs: 10_000, callTimeoutMs: 10_000 })).toThrow(/WEIR_DISPATCHER_SESSION_MS/);
  expect(() => checkTimes({ sessionTimeoutMs: options.sessionTimeoutMs.default, callTimeoutMs: options.callTimeoutMs.default })).not.toThrow();
});

test('what a partition reads past one that waits is what docs/decisions/0015 says', () => {
  expect([1, 12, 100].map(windowOf)).toEqual([{ records: 6000, bytes: 16 * 1024 ** 2, heads: 1000 }, { records: 500, bytes: Math.ceil(16 * 1024 ** 2 / 12), heads: 84 }, { records: 500, bytes: 256 * 1024, heads: 50 }]);
});
