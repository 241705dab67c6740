/** Of an item in quarantine, and of one that expires, what says no holds: through crashes and repetitions, and when it is put back. */
import type { Adapter } from '@weir/adapter';
import type { ConsumerHandlers, GroupConsumerOptions, Headers, Log, LogRecord, OutRecord, RecordBatch, Serde } from '@weir/log';
import { groupNames, H, itemHash, ofDeadLetter, ofQuarantine, outputId, secondBodyChange, topicNames } from '@weir/pipeline';
import { compileRelease } from '@weir/release';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { createLocalSerde, waitFor } from '@weir/testing';
import fc from 'fast-check';
import { Registry } from 'prom-client';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { createNormalizer } from './app.ts';

const topics = topicNames('t');
const source = 'web';
const day = 86_400_000;
const window = 7 * day;
const release = compileRelease([
  { path: 'weir.yaml', content: 'name: acme\n' }, { path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Letters. }\n' }, { path: `sources/${source}.yaml`, content: 'adapter: shop\nmapping: shop.yaml\n' },
  { path: 'mappings/shop.yaml', content: 'mapping: shop\noutputs:\n  profile:\n    record: Profile\n    fields: { userId: id, city: city, birthday: { from: birthday, pipe: [date] } }\n  consent:\n    record: ConsentChange\n    when: { path: news, exists: true }\n    fields: { userId: id, purpose: { const: news }, state: { from: news, map: { no: withdrawn, never: denied, yes: granted } } }\n' },
], { adapters: new Map([['shop', { manifest: { name: 'shop', title: 'Shop', docs: '', apiVersion: '1', source: { config: {}, limits: { bodyBytes: 2_000_000, items: 10, depth: 16 }, retryHorizonMs: 1 } }, source: { kind: 'webhook' } } as unknown as Adapter]]) });

let serde: Serde;
beforeAll(async () => { serde = await createLocalSerde(); });
const running: { stop(): Promise<void> }[] = [];
afterEach(async () => { for (const one of running.splice(0)) await one.stop(); });

interface Written { readonly topic: string; readonly headers: Readonly<Record<string, string>>; readonly value: any }
type Letter = { readonly headers: Headers; readonly value: Buffer; readonly reasons: readonly { readonly code: string }[] };

/** A raw partition, and the service over it, one process after another; each begins with nothing in memory. */
function world(retentionMs = -1) {
  const log: LogRecord[] = [];
  const written: Written[] = [];
  let committed = 0;
  const begin = async () => {
    let handlers: ConsumerHandlers | undefined;
    const registry = new Registry();
    const service = createNormalizer({
      log: {
        appender: () => Promise.resolve({ partitions: () => Promise.resolve(1), partitionFor: () => 0, append: (topic: string, records: readonly OutRecord[]) => {
          // Packed: read before its buffer is used again.
          for (const { headers, value } of records) written.push({ topic, headers: Object.fromEntries((headers ?? []).map(([name, text]) => [name, text.toString()])), value: serde.decode(Buffer.from(value!)).value });
          return Promise.resolve(records.map((_, i) => i));
        } }),
        admin: () => Promise.resolve({ listTopics: () => Promise.resolve([]), offsetsAt: (_topic: string, time: number) => Promise.resolve(new Map(log.filter(({ timestamp }) => timestamp >= time).slice(0, 1).map(({ offset }) => [0, offset]))), describeTopics: (names: readonly string[]) => Promise.resolve(names.map((name) => ({ name, exists: true, config: { 'retention.ms': String(retentionMs) } }))) }),
        reader: () => Promise.resolve({ read: (topic: string, partition: number, from: number, to: number, take: (batch: RecordBatch) => void) => Promise.resolve(take({ topic, partition, epoch: 0, records: log.slice(from, to), nextOffset: to, highWatermark: to })), readOne: (_topic: string, _partition: number, offset: number) => Promise.resolve(log[offset]) }),
        consumer: (options: GroupConsumerOptions) => {
          handlers = options.handlers;
          return { start: () => Promise.resolve(), close: () => Promise.resolve(), commit: ([{ offset }]: any) => Promise.resolve(void (committed = offset)) };
        },
      } as unknown as Log,
      topics, serde, groups: groupNames('t'), releases: { current: () => release, onChange: () => () => undefined }, workspaceKey: Buffer.alloc(32, 1), logger: createLogger({ service: 'normalizer', level: 'silent' }), registry, clock: systemClock, stateDir: '/nowhere',
    } as unknown as ServiceContext, { sessionTimeoutMs: 1000 }, () => ({ get: () => undefined, range: () => [], putBatch: () => undefined, clear: () => undefined, close: () => Promise.resolve() }) as never);
    running.push(service);
    await service.start();
    const part = { topic: topics.raw(source), partition: 0, epoch: 1, position: committed };
    await handlers!.assigned([part]);
    /** Reads what is there, in batches of `size`. */
    return async (size = 1000): Promise<void> => {
      for (let at = committed; at < log.length; at += size) {
        const nextOffset = Math.min(log.length, at + size);
        handlers!.batch({ ...part, records: log.slice(at, nextOffset), nextOffset, highWatermark: log.length });
        await waitFor('the commit', () => committed === nextOffset);
      }
    };
  };
  const append = (headers: Headers, value: Buffer, timestamp: number): void => { log.push({ offset: log.length, timestamp, key: Buffer.from('k'), value, headers }); };
  return {
    begin, written, log,
    /** The commit before this offset was the last one that a killed process made. */
    rewind: (to: number) => { committed = Math.max(0, Math.min(committed, to)); },
    committed: () => committed,
    send(event: string, item: object, timestamp = Date.now()): void {
      const value = Buffer.from(JSON.stringify(item));
      append([[H.event, event], [H.hash, itemHash(value)], [H.source, source], [H.accepted, String(timestamp)], [H.traceparent, 't']].map(([name, text]) => [name!, Buffer.from(text!)] as const), value, timestamp);
    },
    /** As a replay of dead letters puts it back. */
    putBack({ headers, value }: Letter, timestamp = Date.now()): void { append([...headers.filter(([name]) => name !== H.intent), [H.intent, Buffer.from('rep_1')]], value, timestamp); },
    letters: (): Letter[] => written.filter(({ topic }) => topic === topics.dlq).map(({ value }) => ({ ...value, headers: value.headers.map((h: { name: string; value: Buffer }) => [h.name, h.value] as const) })),
    /** Changes of consent that were written, as [id, by, state], in order. */
    changes: () => written.filter(({ topic }) => topic === topics.consentChanges).map(({ headers, value }) => [headers[H.output], headers[H.mapping], value.state]),
    ends: () => written.filter(({ topic }) => topic === topics.outcome).map(({ value }) => [value.state, value.reason]),
  };
}
const firstOf = (event: string): string => outputId(event, 'consent', '');
const secondOf = (event: string, item: object): string => secondBodyChange(firstOf(event), itemHash(Buffer.from(JSON.stringify(item))));

test('a no under an event id that came before with another body holds at once, before its letter, and put back it is the same change, also when nobody remembers the first body', async () => {
  const w = world();
  const no = { id: 'u', news: 'no' };
  w.send('e', { id: 'u', news: 'yes' });
  w.send('e', no);
  await (await w.begin())();
  expect(w.changes()).toEqual([[firstOf('e'), 'shop', 'granted'], [secondOf('e', no), ofQuarantine, 'withdrawn']]);
  expect(w.written.map(({ topic }) => topic.slice(2)).filter((topic) => topic !== 'canonical')).toEqual(['consent.changes', 'consent.changes', 'dlq', 'outcome']);
  expect(w.written.filter(({ topic }) => topic === topics.canonical).map(({ headers }) => headers[H.output])).toEqual([outputId('e', 'profile', ''), firstOf('e')]);
  const [letter] = w.letters();
  expect([w.ends(), letter!.reasons.map((r) => r.code)]).toEqual([[['quarantined', 'event-conflict']], ['event-conflict', 'consent-unresolved']]);
  for (const later of [0, 3 * window]) {
    w.written.length = 0;
    w.putBack(letter!, Date.now() + later);
    await (await w.begin())();
    expect(w.changes()).toEqual([[secondOf('e', no), ofQuarantine, 'withdrawn']]);
    expect(w.written.filter(({ topic }) => topic === topics.canonical).map(({ headers }) => headers[H.output])).toEqual([outputId('e', 'profile', ''), firstOf('e')]);
  }
});

test('of an item in quarantine that fails as well, what can be read of its no holds; a yes, and an item without consent, bring nothing and are no incident', async () => {
  const w = world();
  const broken = { id: 'u', news: 'never', birthday: 'soon' };
  for (const item of [{ id: 'u', city: 'Lund' }, broken, { id: 'u', news: 'yes' }, { id: 'u', city: 'Ystad' }]) w.send('e', item);
  await (await w.begin())();
  expect(w.changes()).toEqual([[secondOf('e', broken), ofQuarantine, 'denied']]);
  expect(w.letters().map(({ reasons }) => reasons.map((r) => r.code))).toEqual([['event-conflict', 'consent-unresolved'], ['event-conflict'], ['event-conflict']]);
});

test('a no that expires holds before its letter under the id that it has when it is put back; one whose id came before with another body is in quarantine', async () => {
  const w = world(10 * day);
  const old = Date.now() - 9.5 * day;
  const other = { id: 'u', news: 'never' };
  w.send('e', { id: 'u', news: 'no' }, old);
  w.send('e', other, old);
  w.send('e', { id: 'u', news: 'no' }, old);
  w.send('f', { id: 'u' }, old);
  await (await w.begin())();
  const noes = [[firstOf('e'), ofDeadLetter, 'withdrawn'], [secondOf('e', other), ofQuarantine, 'denied'], [firstOf('e'), ofDeadLetter, 'withdrawn']];
  expect([w.changes(), w.ends()]).toEqual([noes, [['dead-lettered', 'expiring'], ['quarantined', 'event-conflict'], ['dead-lettered', 'expiring'], ['dead-lettered', 'expiring']]]);
  expect(w.written.some(({ topic }) => topic === topics.canonical)).toBe(false);
  expect(w.letters().map(({ reasons }) => reasons.map((r) => r.code))).toEqual([['expiring', 'consent-unresolved'], ['event-conflict', 'consent-unresolved'], ['expiring', 'consent-unresolved'], ['expiring']]);
  w.written.length = 0;
  w.putBack(w.log[0] as unknown as Letter);
  await (await w.begin())();
  expect(w.changes()).toEqual([[firstOf('e'), 'shop', 'withdrawn']]);
});

const bodies = [{ id: 'u', news: 'no' }, { id: 'u', news: 'never' }, { id: 'u', news: 'yes' }, { id: 'u', city: 'Lund' }, { id: 'u', news: 'no', birthday: 'soon' }];
const step = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('send' as const), event: fc.constantFrom('a', 'b'), body: fc.nat(bodies.length - 1) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('back' as const), letter: fc.nat(20) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('crash' as const), lost: fc.nat(4), size: fc.integer({ min: 1, max: 4 }) }) },
);

test('whatever comes again, is put back, and whenever the process is killed: each no of each body is one change, under one id, and a yes only where its body is the first or was put back', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 20 }), async (steps) => {
    const w = world();
    const first = new Map<string, number>();
    /** Id of a change → what it says. */
    const expected = new Map<string, Set<string>>();
    const says = (id: string, word: string): void => { expected.set(id, (expected.get(id) ?? new Set()).add(word)); };
    const words: Readonly<Record<number, string>> = { 0: 'withdrawn', 1: 'denied', 2: 'granted', 4: 'withdrawn' };
    const sent: [event: string, body: number][] = [];
    let read = await w.begin();
    for (const one of steps) {
      if (one.kind === 'send') {
        const { event, body } = one;
        if (!first.has(event)) first.set(event, body);
        sent.push([event, body]);
        w.send(event, bodies[body]!);
        const word = words[body];
        if (first.get(event) === body && word !== undefined) says(firstOf(event), word);
        else if (word !== undefined && word !== 'granted') says(secondOf(event, bodies[body]!), word);
      } else if (one.kind === 'back') {
        await read();
        const letters = w.letters();
        const letter = letters[one.letter % Math.max(1, letters.length)];
        if (letter === undefined) continue;
        w.putBack(letter);
        const event = letter.headers.find(([name]) => name === H.event)![1].toString();
        if (letter.value.toString() === JSON.stringify(bodies[2])) says(firstOf(event), 'granted');
      } else {
        await read(one.size);
        w.rewind(w.committed() - one.lost);
        read = await w.begin();
      }
    }
    await read();
    const found = new Map<string, Set<string>>();
    for (const [id, by, word] of w.changes()) {
      found.set(id, (found.get(id) ?? new Set()).add(word));
      const second = ![firstOf('a'), firstOf('b')].includes(id);
      expect(by === ofQuarantine).toBe(second);
    }
    expect(found).toEqual(expected);
    expect(w.ends().filter(([, reason]) => reason === 'event-conflict').length).toBeGreaterThanOrEqual(sent.filter(([event, body]) => first.get(event) !== body).length);
  }), { numRuns: 60 });
});
