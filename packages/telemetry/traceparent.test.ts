import { expect, test } from 'vitest';
import { childTraceparent, newTraceparent, parseTraceparent, traceIdOf } from './traceparent.ts';

test.each(['', 'x', `00-${'0'.repeat(32)}-${'1'.repeat(16)}-01`, `00-${'1'.repeat(32)}-${'0'.repeat(16)}-01`, `ff-${'1'.repeat(32)}-${'1'.repeat(16)}-01`, `00-${'G'.repeat(32)}-${'1'.repeat(16)}-01`, `00-${'1'.repeat(32)}-${'1'.repeat(16)}-01-extra`])('a broken traceparent is not taken: %s', (text) => {
  expect(parseTraceparent(text)).toBeUndefined();
  expect(parseTraceparent(childTraceparent(text))).toBeDefined();
});

test('a child keeps the trace and changes the parent', () => {
  const root = newTraceparent();
  const child = childTraceparent(root);
  expect(traceIdOf(child)).toBe(traceIdOf(root));
  expect(child).not.toBe(root);
});
