import { topicNames } from '@weir/pipeline';
import { createLocalSerde } from '@weir/testing';
import { expect, test } from 'vitest';
import type { ReplayOrder } from './order.ts';
import { createSelector, type SelectPorts } from './select.ts';

const topics = topicNames('t');
const serde = await createLocalSerde();
const everything = { id: 'rpl_a', from: 'dlq', since: null, until: null, source: null, destination: null, code: null, stage: null, release: null, subject: [], events: Buffer.alloc(0), letters: false, corrected: false, verify: false, unknown: 'hold', rate: 0, ahead: 0 } as unknown as ReplayOrder;
const ports = {
  serde, topics, release: () => ({ hash: 'rel_now', destinations: new Map(), sources: new Map(), policy: { rules: [] } }), workspaceKey: Buffer.alloc(32), keys: undefined, tables: { linked: (ids: readonly string[]) => ids }, open: (b: Buffer) => b, hasKey: () => true, keysToEnd: async () => undefined, canonicalOf: async () => [], decidedLater: () => false, endedAs: () => undefined, now: () => 3000,
  standing: { end: () => undefined, newest: () => undefined, objectOf: () => '', deliveryState: () => 'dead-lettered', allows: () => true, destination: () => undefined, oldestSent: () => 1e12, mayRead: () => true },
} as unknown as SelectPorts;

interface Said { readonly stage?: string; readonly release?: string | null; readonly codes?: readonly string[]; readonly source?: string; readonly destination?: string | null; readonly at?: number }
const hexOf = (n: number): string => String(n).repeat(32);
const letterId = (n: number): string => `dlq_${hexOf(n)}`;

/** A letter on the topic, about a delivery of its own. */
function record(n: number, { stage = 'dispatcher', release = 'rel_1', codes = ['vendor-refused'], source = 'shop', destination = 'crm', at = 1000 }: Said) {
  const eventId = `evt_${hexOf(n)}`;
  const delivery = { outputId: `out_${hexOf(n)}`, eventId, destination: destination ?? 'mail', operation: 'put', kind: 'restrict', recordType: 'weir.canonical.Profile', payload: Buffer.from('p'), itemHash: 'h', source, acceptedAt: 1, decidedAt: 1, release: 'rel_1', rule: 'r', purpose: null, channel: null, topic: null, legalBasis: null, consent: [], consentOffsets: [], identityOffsets: [], ids: ['email:x'], notBefore: null, intent: '0', standby: null, failedOver: null };
  const letter = { id: letterId(n), eventId, stage, reasons: codes.map((code) => ({ code, path: null, message: code })), source, destination, operation: 'put', attempts: 1, release, topic: topics.dispatch(destination ?? 'mail'), partition: 0, offset: n, key: Buffer.from('email:x'), value: serde.encode('weir.internal.Delivery', delivery), headers: [], effect: 'none', acceptedAt: 1, at };
  return { topic: topics.dlq, partition: 0, record: { offset: n, timestamp: at, key: null, value: serde.encode('weir.internal.DeadLetter', letter), headers: [] } };
}

const letters: readonly Said[] = [
  { at: 1000 },
  { stage: 'policy', at: 1999 },
  { stage: 'normalizer', release: 'rel_2', codes: ['mapping-failed'], at: 2000 },
  { release: 'rel_2', source: 'till', at: 2001 },
  { release: null, destination: 'mail', codes: ['timeout', 'vendor-refused'], at: 3000 },
  { stage: 'policy', release: 'rel_2', destination: null, at: 3000 },
];

test.each<[what: string, order: Partial<ReplayOrder>, selected: readonly number[]]>([
  ['nothing is named', {}, [0, 1, 2, 3, 4, 5]],
  ['a stage', { stage: 'policy' }, [1, 5]],
  ['another stage', { stage: 'dispatcher' }, [0, 3, 4]],
  ['a stage without a letter', { stage: 'ingest' }, []],
  ['a release', { release: 'rel_2' }, [2, 3, 5]],
  ['a release, and letters that name none', { release: 'rel_1' }, [0, 1]],
  ['until: the letter of that moment is not before it', { until: 2000 }, [0, 1]],
  ['since: the letter of that moment is', { since: 2000 }, [2, 3, 4, 5]],
  ['since and until', { since: 1999, until: 2001 }, [1, 2]],
  ['a stage and a release', { stage: 'policy', release: 'rel_2' }, [5]],
  ['a stage and until', { stage: 'dispatcher', until: 3000 }, [0, 3]],
  ['a code, the second of a letter too', { code: 'vendor-refused' }, [0, 1, 3, 4, 5]],
  ['a source', { source: 'till' }, [3]],
  ['a destination, and by a letter that names none', { destination: 'mail' }, [4, 5]],
  ['letters by their ids', { letters: true, events: Buffer.from(hexOf(2) + hexOf(4), 'hex') }, [2, 4]],
  ['events by their ids, of a stage', { events: Buffer.from(hexOf(1) + hexOf(2), 'hex'), stage: 'normalizer' }, [2]],
])('dead letters are selected by %s', async (_what, named, selected) => {
  const items = await createSelector(ports, { ...everything, ...named }).take(letters.map((said, n) => record(n, said)) as never);
  expect(items.map(({ from }) => Number(from.split('/').at(-1))).sort()).toEqual(selected);
});
