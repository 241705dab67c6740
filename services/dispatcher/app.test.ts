import { expect, test } from 'vitest';
import { checkTimes } from './app.ts';
import { options } from './config.ts';

test('a session that no call fits into is refused at start, not found out by a standstill', () => {
  expect(() => checkTimes({ sessionTimeoutMs: 10_000, callTimeoutMs: 10_000 })).toThrow(/WEIR_DISPATCHER_SESSION_MS/);
  expect(() => checkTimes({ sessionTimeoutMs: options.sessionTimeoutMs.default, callTimeoutMs: options.callTimeoutMs.default })).not.toThrow();
});
