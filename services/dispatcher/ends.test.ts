import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { expect, test, vi } from 'vitest';
import { createEndWriter } from './ends.ts';
import type { DestinationPorts } from './ports.ts';

const record: OutRecord = { partition: 0, key: Buffer.from('k'), value: Buffer.from('v') };

/** A writer over a ledger of which only the checkpoint is looked at. */
function writer(position: number) {
  const at = { position, read: 0 };
  const ports = {
    name: 'one', topics: topicNames('t'), fail: (error: unknown) => { throw error; },
    ledger: { position: () => at.position, apply: (_partition: number, _entries: unknown, next: number) => { at.position = next; } },
    takeover: { async catchUp() {
      at.read++;
      at.position = 10_000;
    } },
  } as unknown as DestinationPorts;
  const it = createEndWriter(ports, 0, { name: 'me', owned: async () => true, gone: () => false }, () => undefined);
  return { at, own: (...offsets: number[]): void => it.applyOwn(offsets.map(() => record), offsets.map(() => 'k'), offsets), passed: (...offsets: number[]): void => it.applyOwn([], [], offsets) };
}

test('acknowledgements that come in another order leave no hole before which the next owner would read everything again', () => {
  const { at, own, passed } = writer(10);
  own(13, 14);
  expect(at.position).toBe(10);
  own(10, 11);
  expect(at.position).toBe(12);
  // The record of a failed call, of which the cache keeps nothing.
  passed(12);
  expect(at.position).toBe(15);
});

test('a record that nobody here wrote holds the checkpoint until what lies between is read', async () => {
  const { at, own } = writer(0);
  for (let offset = 1; offset <= 2000; offset++) own(offset);
  expect([at.position, at.read]).toEqual([0, 0]);
  own(2001);
  await vi.waitFor(() => { expect([at.position, at.read]).toEqual([10_000, 1]); });
  own(10_000);
  expect([at.position, at.read]).toEqual([10_001, 1]);
});
