import { randomBytes } from 'node:crypto';
import { isSealed, sealKey, unseal, type KeyRing, type SealKey } from '@weir/seal';
import { expect, test } from 'vitest';
import { createSealing } from './sealing.ts';

/** A ring that reads what `reads` does while it waits for the acknowledgement of a key that it makes. */
function ring(reads: (ring: { keys: Map<string, SealKey>; marks: Map<string, number> }) => void) {
  const state = { keys: new Map<string, SealKey>(), marks: new Map<string, number>() };
  const made: string[] = [];
  const keys = {
    current: (owner: string) => state.keys.get(owner),
    ensure: async (owners: Iterable<string>) => {
      for (const owner of owners) {
        made.push(owner);
        state.keys.set(owner, sealKey(randomBytes(16), randomBytes(32)));
      }
      if (made.length === 1) reads(state);
    },
    erasedUntil: (ids: readonly string[]) => Math.max(0, ...ids.map((id) => state.marks.get(id) ?? 0)),
  } as unknown as KeyRing;
  state.keys.set('ann', sealKey(randomBytes(16), randomBytes(32)));
  return { keys, made, state };
}
const plain = Buffer.from('hello');
const work = (subject: string, acceptedAt: number) => ({ headers: { acceptedAt }, result: { kind: 'ok', outputs: [{ from: 0, to: plain.length, person: { subject, ids: [subject] } }] } as any });
const sinkOf = () => ({ bytes: Buffer.concat([plain, Buffer.alloc(1000)]), at: plain.length });
const erase = (at: number) => ({ keys, marks }: { keys: Map<string, SealKey>; marks: Map<string, number> }): void => {
  marks.set('ann', at);
  keys.delete('ann');
};

test('who is erased while keys are made for others is left out: a new key would make the record readable again', async () => {
  const { keys } = ring(erase(1000));
  const works = [work('ann', 900), work('bob', 900)];
  await createSealing(keys).seal(works, sinkOf());
  expect(works.map((w) => w.result.kind)).toEqual(['dropped', 'ok']);
});

test('what came after the erasure whose tombstone is read meanwhile is sealed under a new key, and the process goes on', async () => {
  const { keys, made, state } = ring(erase(1000));
  const works = [work('ann', 2000), work('bob', 900)];
  const sink = sinkOf();
  await createSealing(keys).seal(works, sink);
  expect(made).toEqual(['bob', 'ann']);
  const [{ from, to }] = works[0]!.result.outputs;
  const bytes = sink.bytes.subarray(from, to);
  expect([isSealed(bytes), unseal(state.keys.get('ann')!, bytes).toString()]).toEqual([true, 'hello']);
});

test('what closes of a dead letter is sealed, too; of who was erased nothing of it goes on, and the letter stays', async () => {
  const { keys, state } = ring(() => undefined);
  const dead = (subject: string, acceptedAt: number) => ({ headers: { acceptedAt }, result: { kind: 'dead', reasons: [], closing: [{ from: 0, to: plain.length, changeId: 'own', person: { subject, ids: [subject] } }] } as any });
  state.marks.set('ann', 1000);
  const sealing = createSealing(keys);
  expect(sealing.withoutErased(dead('ann', 900).result, 900)).toEqual({ kind: 'dead', reasons: [], closing: [] });
  const works = [dead('ann', 900), dead('bob', 900), { headers: { acceptedAt: 900 }, result: { kind: 'dead', reasons: [] } as any }];
  const sink = sinkOf();
  await sealing.seal(works, sink);
  expect(works.map((w) => [w.result.kind, w.result.closing?.length])).toEqual([['dead', 0], ['dead', 1], ['dead', undefined]]);
  const [{ from, to, changeId }] = works[1]!.result.closing;
  expect(unseal(state.keys.get('bob')!, sink.bytes.subarray(from, to)).toString()).toBe('hello');
  expect(changeId).toBe('own');
});
