import fc from 'fast-check';
import { expect, test } from 'vitest';
import { createRefusals } from './refusals.ts';
import type { Task } from './types.ts';

const credential = {};
/** A delivery whose last call was begun then, and took 10 ms. */
const task = (key: string, at: number): Task => ({ key, last: { at, durationMs: 10 } }) as unknown as Task;

test('a delivery that is refused while others pass is not taken for the credential again, however little else is sent', () => {
  const it = createRefusals();
  expect(it.refused([task('waf', 100)], credential)).toBe('credential');
  expect(it.refused([task('waf', 200)], credential)).toBe('credential');
  it.passed([task('good', 300)], credential);
  expect(it.refused([task('waf', 400)], credential)).toBe('delivery');
  // Nothing else was sent since.
  expect(it.refused([task('waf', 500)], credential)).toBe('delivery');
  // Another that is refused may be the second of its kind, or the credential.
  expect(it.refused([task('waf-2', 600)], credential)).toBe('doubtful');
  expect(it.refused([task('waf-2', 700)], credential)).toBe('doubtful');
  it.passed([task('good', 800)], credential);
  expect(it.refused([task('waf-2', 900)], credential)).toBe('delivery');
});

test('a call that was begun before the refusal had come says nothing of it', () => {
  const it = createRefusals();
  it.passed([task('good', 50)], credential);
  expect(it.refused([task('waf', 100)], credential)).toBe('credential');
  it.passed([task('good', 105)], credential);
  expect(it.refused([task('waf', 200)], credential)).toBe('credential');
});

test('a credential of another value is not known, and one that was refused passes nothing', () => {
  const it = createRefusals();
  it.refused([task('waf', 100)], credential);
  it.passed([task('good', 300)], credential);
  expect(it.refused([task('waf', 400)], { ...credential })).toBe('credential');
  fc.assert(fc.property(fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.nat(1000))), (calls) => {
    const broken = createRefusals();
    broken.passed([task('a', 1)], credential);
    for (const [key, at] of calls) expect(broken.refused([task(key, at + 1)], credential)).toBe('credential');
  }));
});

test('what passed in the end is forgotten, and of a call that was refused for one of its deliveries the others are not told as the credential', () => {
  const it = createRefusals();
  it.refused([task('waf', 100), task('beside', 100)], credential);
  it.passed([task('beside', 200)], credential);
  expect(it.refused([task('waf', 300), task('other', 300)], credential)).toBe('delivery');
  expect(it.refused([task('beside', 400)], credential)).toBe('doubtful');
});
