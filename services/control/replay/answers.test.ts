import { expect, test } from 'vitest';
import { recentAnswers } from './answers.ts';

test('the same question about the same person is asked once for half a minute; another use, another person and a later time are asked anew', () => {
  let asked = 0;
  let answer = true;
  const allows = recentAnswers(() => { asked++; return answer; });
  expect([allows(['a', 'b'], 'p', null, null, null, 0), allows(['a', 'b'], 'p', null, null, null, 29_999)]).toEqual([true, true]);
  expect(asked).toBe(1);
  answer = false;
  expect([allows(['a'], 'p', null, null, null, 1), allows(['a', 'b'], 'q', null, null, null, 1), allows(['a', 'b'], 'p', 'email', null, null, 1), allows(['a', 'b'], 'p', null, 'email', null, 1), allows(['a', 'b'], 'p', null, null, 'consent', 1)]).toEqual([false, false, false, false, false]);
  expect(allows(['a', 'b'], 'p', null, null, null, 30_000)).toBe(false);
  // A clock that goes back.
  answer = true;
  expect(allows(['a', 'b'], 'p', null, null, null, 10)).toBe(true);
});
