import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { ConsentOrder } from './consent-api.ts';
import { sendInOrder } from './consent-order.ts';

type Row = { readonly line: number; readonly order: ConsentOrder };
const row = (line: number, identifiers: ConsentOrder['identifiers'], state: string): Row => ({ line, order: { identifiers, purpose: 'news', state } });
const never = new AbortController().signal;

/** Lines in the order in which they were accepted; each takes as many turns of the event loop as `turns` says. */
async function accepted(rows: readonly Row[], turns: (line: number) => number, atOnce = 16): Promise<number[]> {
  const order: number[] = [];
  let running = 0;
  await sendInOrder(rows, async ({ line }) => {
    expect(++running).toBeLessThanOrEqual(atOnce);
    for (let i = turns(line); i > 0; i--) await new Promise((done) => setImmediate(done));
    order.push(line);
    running--;
  }, atOnce, never);
  return order;
}

test('a slow grant of an address does not open again what a later row closed under a user id of the same person', async () => {
  expect(await accepted([row(1, { email: 'ada@x.example' }, 'granted'), row(2, { userId: 'u', email: 'Ada@x.example ' }, 'withdrawn')], (line) => 9 - line)).toEqual([1, 2]);
  // Linked at Weir only: the file does not show it.
  expect(await accepted([row(1, { email: 'ada@x.example' }, 'granted'), row(2, { userId: 'u' }, 'withdrawn')], (line) => 9 - line)).toEqual([1, 2]);
});

const identifiers = fc.record({ email: fc.constantFrom('a@x.example', 'A@x.example', 'b@x.example'), userId: fc.constantFrom('u', 'v'), phone: fc.constantFrom('+49 30 901820', '+4930901820') }, { requiredKeys: [] }).filter((ids) => Object.keys(ids).length > 0);

test('whatever takes how long: no row overtakes one of the same identifier, and none that closes overtakes a grant', async () => {
  await fc.assert(fc.asyncProperty(fc.array(fc.record({ identifiers, state: fc.constantFrom('granted', 'withdrawn', 'denied'), turns: fc.nat(5) }), { maxLength: 12 }), fc.integer({ min: 1, max: 4 }), async (list, atOnce) => {
    const order = await accepted(list.map((r, line) => row(line, r.identifiers, r.state)), (line) => list[line]!.turns, atOnce);
    expect(order.toSorted((a, b) => a - b)).toEqual(list.map((_r, line) => line));
    const place = new Map(order.map((line, i) => [line, i]));
    const names = (r: typeof list[number]): string[] => [r.identifiers.email?.toLowerCase(), r.identifiers.userId, r.identifiers.phone?.replaceAll(' ', '')].filter((name) => name !== undefined);
    for (const [a, first] of list.entries()) {
      for (const [b, later] of list.entries()) {
        if (b <= a) continue;
        if (names(first).some((name) => names(later).includes(name)) || (first.state === 'granted' && later.state !== 'granted')) expect(place.get(a)!).toBeLessThan(place.get(b)!);
      }
    }
  }), { numRuns: 100 });
});

test('after an error no other row is begun, and it is what the import ends with', async () => {
  const begun: number[] = [];
  const rows = Array.from({ length: 20 }, (_, line) => row(line, { userId: `u${line}` }, 'granted'));
  await expect(sendInOrder(rows, async ({ line }) => { begun.push(line); if (line === 1) throw new Error('no instance answers'); await new Promise((done) => setImmediate(done)); }, 2, never)).rejects.toThrow(/no instance answers/);
  expect(begun.length).toBeLessThan(4);
});
