import type { LogRecord, Sink } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { expect, test } from 'vitest';
import { createClosing, type ClosingPart, type ClosingPorts } from './closing.ts';
import type { Work } from './writer.ts';

interface Said { readonly who: string; readonly state: string; readonly event?: string; readonly hash?: string }

/** Each record says one thing of news; `during` runs while the records of a slice are sealed. */
function world(over: { sliceBytes?: number; during?: (part: ClosingPart & { over: boolean }) => void } = {}) {
  const written: string[][] = [];
  const part = { topic: 'web', partition: 0, over: false, gone: () => part.over, lookedAt: new Map(), begun: 0 };
  const close = createClosing({
    serde: { decode: (bytes: Buffer) => ({ name: consentRecord, value: JSON.parse(bytes.toString()) as Record<string, unknown> }) }, sealing: { prepare: () => undefined, open: (record: LogRecord) => record, seal: async () => { over.during?.(part); } },
    turns: { next: () => Promise.resolve(), over: () => false }, metrics: { lookedAhead: { inc: () => undefined }, closedAhead: { inc: () => undefined } }, sliceBytes: over.sliceBytes ?? 1e6, sourceOf: () => 'web',
    releases: { current: () => ({ hash: 'r', sources: new Map([['web', { limits: { depth: 8 }, mapping: { records: new Set([consentRecord]), mayGive: () => undefined } }]]) }) }, expiringBefore: () => 0,
    classify(_source: string, _part: unknown, record: LogRecord, known: Map<string, { hash: string; offset: number; acceptedAt: number }>, _expiring: number, _release: unknown, sink: Sink): Work {
      const { who, state, event = `e${record.offset}`, hash = 'h' } = JSON.parse(record.value!.toString()) as Said;
      const first = known.get(event);
      if (first === undefined) known.set(event, { hash, offset: record.offset, acceptedAt: 0 });
      const from = sink.at;
      sink.at += sink.bytes.write(JSON.stringify({ purpose: 'news', channel: null, topic: null, standing: false, state }), from);
      const output = { recordType: consentRecord, person: { text: who, ids: [who] }, from, to: sink.at };
      const result = first !== undefined && first.hash !== hash ? { kind: 'dead', reasons: [{ code: 'event-conflict' }], closing: [output] } : { kind: 'ok', mapping: 'm', outputs: [output] };
      return { record, headers: { eventId: event }, result } as unknown as Work;
    },
    write: async (works: readonly Work[], sink: Sink) => { written.push(works.map(({ record, result }) => `${record.offset} ${result.kind === 'ok' ? JSON.parse(sink.bytes.subarray(result.outputs[0]!.from, result.outputs[0]!.to).toString()).state as string : result.kind}`)); },
  } as unknown as ClosingPorts<typeof part>);
  return { part, written, look: (...said: Said[]) => close(part, said.map((one, i) => ({ offset: 10 + i, timestamp: 0, key: null, value: Buffer.from(JSON.stringify(one)), headers: [] })), 10) };
}

test('of a backlog the last no of each is written: no yes, no repetition, and no other body of a known event', async () => {
  const w = world();
  await w.look({ who: 'ann', state: 'denied' }, { who: 'bo', state: 'granted' }, { who: 'ann', state: 'granted' }, { who: 'ann', state: 'withdrawn', event: 'e' }, { who: 'cy', state: 'withdrawn' }, { who: 'ann', state: 'withdrawn', event: 'e' }, { who: 'ann', state: 'denied', event: 'e', hash: 'other' });
  expect(w.written).toEqual([['13 withdrawn', '14 withdrawn']]);
});

test('what the stage has come to meanwhile is its own, and nothing is written for a partition that went to another owner', async () => {
  const late = world({ during: (part) => { part.begun = 12; } });
  await late.look({ who: 'ann', state: 'denied' }, { who: 'bo', state: 'denied' }, { who: 'cy', state: 'denied' });
  expect(late.written).toEqual([['12 denied']]);
  const gone = world({ during: (part) => { part.over = true; } });
  await gone.look({ who: 'ann', state: 'denied' });
  expect(gone.written).toEqual([]);
});

test('few bytes in can be many bytes out: they are written a slice at a time', async () => {
  const w = world({ sliceBytes: 150 });
  await w.look(...Array.from({ length: 5 }, (_, i) => ({ who: `p${i}`, state: 'denied' })));
  expect(w.written).toEqual([['10 denied', '11 denied'], ['12 denied', '13 denied'], ['14 denied']]);
});
