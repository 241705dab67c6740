import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createConsentReceipts } from './consent-receipts.ts';

/** A letter of an event that stands so. */
function world(stage: string, end: string | undefined) {
  const appended: OutRecord[] = [];
  const letter = { id: 'dlq_a', eventId: 'evt_a', stage, codes: ['mapping-failed', 'consent-unresolved'], release: 'rel_a', acceptedAt: 5, headers: [] };
  const receipts = createConsentReceipts({
    store: { deadLetter: () => letter, endedAs: () => end }, letter: async () => letter, topics: topicNames('t'), now: () => 9,
    serde: { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)) }, appender: { partitionFor: () => 0, append: async (_topic: string, records: readonly OutRecord[]) => void appended.push(...records) },
  } as unknown as Parameters<typeof createConsentReceipts>[0]);
  return { appended, settle: () => receipts.settle('dlq_a', 'a mistake', { actor: 'admin', leaf: 'leaf_a' }) };
}

test.each([['normalizer', undefined, /put back since/], ['normalizer', 'dropped', /closed already/], ['ingest', 'dropped', /closed already/]])('a change of consent of %s whose event stands as %s is not closed: nothing is written', async (stage, end, message) => {
  const { appended, settle } = world(stage, end);
  await expect(settle()).rejects.toThrow(message);
  await expect(settle()).rejects.toMatchObject({ code: 'bad-request' });
  expect(appended).toEqual([]);
});

test.each([['normalizer', 'dead-lettered'], ['ingest', undefined]])('one of %s that stands as %s is closed', async (stage, end) => {
  const { appended, settle } = world(stage, end);
  expect(await settle()).toEqual({ id: 'dlq_a', eventId: 'evt_a' });
  expect(JSON.parse(appended[0]!.value!.toString())).toMatchObject({ eventId: 'evt_a', state: 'dropped', detail: 'by admin: a mistake' });
});
