import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { createRecent } from './recent.ts';

test('the last used are kept, what was deleted or replaced never comes back, and twice the size is the most', () => {
  const key = fc.integer({ min: 0, max: 12 }).map(String);
  fc.assert(fc.property(fc.array(fc.oneof(fc.record({ op: fc.constant('get'), key }), fc.record({ op: fc.constant('set'), key }), fc.record({ op: fc.constant('delete'), key })), { maxLength: 200 }), (steps) => {
    const size = 4;
    const recent = createRecent<number>(size);
    const model = new Map<string, number>();
    let used: string[] = [];
    for (const [i, step] of steps.entries()) {
      if (step.op === 'set') {
        recent.set(step.key, i);
        model.set(step.key, i);
      } else if (step.op === 'delete') {
        recent.delete(step.key);
        model.delete(step.key);
      } else {
        const found = recent.get(step.key);
        if (found !== undefined) expect(found).toBe(model.get(step.key));
        if (found === undefined) used = used.filter((k) => k !== step.key);
      }
      used = used.filter((k) => k !== step.key);
      if (step.op !== 'delete' && recent.get(step.key) !== undefined) used.unshift(step.key);
      // The `size` used last are all there.
      for (const k of used.slice(0, size - 1)) if (model.has(k)) expect(recent.get(k)).toBe(model.get(k));
    }
  }));
});
