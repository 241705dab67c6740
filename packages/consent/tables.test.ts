import { WeirError } from '@weir/errors';
import type { Log, LogRecord, RecordBatch, Serde } from '@weir/log';
import { consentKey } from '@weir/policy';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createConsentTables, type ConsentPorts } from './tables.ts';

const serde = {
  known: () => true, idOf: () => -1, check: () => 'weir.internal.ConsentState',
  decode: (bytes: Buffer) => ({ name: 'weir.internal.ConsentState', value: JSON.parse(bytes.toString('utf8', 5)) as unknown }),
} as unknown as Serde;
const state = (id: string, said: string, expiresAt: number | null = null): readonly [string, Buffer] => [consentKey(id, 'news', 'email', ''), Buffer.concat([Buffer.alloc(5), Buffer.from(JSON.stringify({ id, purpose: 'news', channel: 'email', topic: '', state: said, version: 1, changedAt: 1, expiresAt }))])];

test('a registry that is away is waited for before a state is read, also when the tables are told to stop meanwhile', async () => {
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-tables-'));
  let apply: ((batch: RecordBatch) => unknown) | undefined;
  const reader = { read: async () => {}, readOne: async () => undefined, close: async () => {}, follow: async (topic: string, _from: unknown, take: (batch: RecordBatch) => unknown) => { if (topic === 'c') apply = take; return { close: async () => {} }; } };
  const ends = async (): Promise<Map<number, number>> => new Map([[0, 0]]);
  const log = { reader: async () => reader, admin: async () => ({ endOffsets: ends, beginningOffsets: ends, close: async () => {} }) } as unknown as Log;
  let asked = 0;
  let answersAt = 3;
  let here = false;
  const away: Serde = { ...serde, known: () => here, prepare: async () => {
    if (++asked < answersAt) throw new WeirError('log-unavailable');
    here = true;
  } };
  const timers: (() => void)[] = [];
  const broken: Error[] = [];
  const tables = await createConsentTables({ log, serde: away, topics: { consent: 'c', identity: 'i' }, stateDir, clock: { monotonic: () => 0, setTimer: (callback) => timers.push(callback), clearTimer: () => undefined }, logger: { warn() {} } as unknown as ConsentPorts['logger'] }, (error) => broken.push(error));
  await tables.start();
  const [key, value] = state('a', 'granted');
  const batch = (offset: number): RecordBatch => ({ topic: 'c', partition: 0, epoch: 0, records: [{ offset, timestamp: 1, key: Buffer.from(key), value, headers: [] }], nextOffset: offset + 1, highWatermark: offset + 1 });
  const later = async (): Promise<void> => { for (let i = 0; i < 20; i++) await Promise.resolve(); timers.splice(0).forEach((timer) => timer()); };
  const reading = apply!(batch(0)) as Promise<void>;
  await later();
  expect(tables.consentPositions()).toEqual([0]);
  await later();
  await reading;
  expect([asked, tables.consentPositions(), tables.allows(['a'], 'news', 'email', null, 'consent', 5).ok, broken]).toEqual([3, [1], true, []]);
  here = false;
  answersAt = Infinity;
  const never = apply!(batch(1)) as Promise<void>;
  const ended = expect(never).rejects.toMatchObject({ code: 'log-unavailable' });
  await tables.stop();
  await later();
  await ended;
  rmSync(stateDir, { recursive: true, force: true });
});

test('where a person is said to be waits for the registry, is not known where nobody can read it, and is for who asked for it', async () => {
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-tables-'));
  let apply: ((batch: RecordBatch) => unknown) | undefined;
  const reader = { read: async () => {}, readOne: async () => undefined, close: async () => {}, follow: async (topic: string, _from: unknown, take: (batch: RecordBatch) => unknown) => { if (topic === 'i') apply = take; return { close: async () => {} }; } };
  const ends = async (): Promise<Map<number, number>> => new Map([[0, 0]]);
  const log = { reader: async () => reader, admin: async () => ({ endOffsets: ends, beginningOffsets: ends, close: async () => {} }) } as unknown as Log;
  let here = false;
  const prepared: string[] = [];
  const reads: Serde = { ...serde, known: () => here, prepare: async (value: Buffer) => {
    prepared.push(value.toString('latin1', 5));
    here = true;
  }, decode: (bytes: Buffer) => {
    if (bytes.toString('latin1', 5) === 'broken') throw new WeirError('avro-undecodable');
    return { name: 'weir.internal.PersonRegion', value: JSON.parse(bytes.toString('utf8', 5)) };
  } } as unknown as Serde;
  const clock = { monotonic: () => 0, setTimer: (callback: () => void) => setTimeout(callback, 1), clearTimer: () => undefined };
  const open = (regions: boolean) => createConsentTables({ log, serde: reads, topics: { consent: 'c', identity: 'i' }, stateDir, clock, logger: { warn() {} } as unknown as ConsentPorts['logger'] }, (error) => { throw error; }, { regions });
  const value = (text: string): Buffer => Buffer.concat([Buffer.alloc(5), Buffer.from(text)]);
  const record = (offset: number, key: string, of: Buffer | null): LogRecord => ({ offset, timestamp: 1, key: Buffer.from(key), value: of, headers: [] });
  const batch: RecordBatch = { topic: 'i', partition: 0, epoch: 0, nextOffset: 5, highWatermark: 5, records: [
    record(0, 'email:a~userId:a', value('a link')), record(1, '@userId:a', value('{"region":"DE","at":7}')), record(2, '@userId:b', value('broken')), record(3, '@userId:c', value('{"region":"DE","at":7}')), record(4, '@userId:c', null),
  ] };
  for (const regions of [false, true]) {
    const tables = await open(regions);
    await tables.start();
    here = false;
    prepared.length = 0;
    await apply!(batch);
    const found: unknown[] = [];
    for (const id of ['email:a', 'userId:b', 'userId:c']) tables.regions(tables.linked([id])!, (of, region) => found.push(of, region));
    expect(found).toEqual(regions ? ['userId:a', { code: 'DE', at: 7 }, 'userId:b', { code: '', at: 0 }] : []);
    // A link needs no schema.
    expect(prepared).toEqual(regions ? ['{"region":"DE","at":7}'] : []);
    await tables.stop();
  }
  rmSync(stateDir, { recursive: true, force: true });
});

test('the version of the tables is another one as soon as an answer may be, and none while everything is closed', async () => {
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-tables-'));
  const followers = new Map<string, { readonly apply: (batch: RecordBatch) => unknown; readonly fail: (error: Error) => void }>();
  const reader = {
    read: async () => {}, readOne: async () => undefined, close: async () => {},
    follow: async (topic: string, _from: unknown, apply: (batch: RecordBatch) => unknown, fail: (error: Error) => void) => {
      followers.set(topic, { apply, fail });
      return { close: async () => {} };
    },
  };
  const ends = async (): Promise<Map<number, number>> => new Map([[0, 0]]);
  const log = { reader: async () => reader, admin: async () => ({ endOffsets: ends, beginningOffsets: ends, close: async () => {} }) } as unknown as Log;
  const broken: Error[] = [];
  const tables = await createConsentTables({ log, serde, topics: { consent: 'c', identity: 'i' }, stateDir, clock: { monotonic: () => 0, setTimer: (callback, ms) => setTimeout(callback, ms), clearTimer: (timer) => { clearTimeout(timer as NodeJS.Timeout); } }, logger: { warn() {} } as unknown as ConsentPorts['logger'] }, (error) => broken.push(error));
  let offset = 0;
  const apply = (topic: string, key: string, value: Buffer | null): void => {
    const record: LogRecord = { offset: offset++, timestamp: 1, key: Buffer.from(key), value, headers: [] };
    followers.get(topic)!.apply({ topic, partition: 0, epoch: 0, records: [record], nextOffset: offset, highWatermark: offset });
  };
  const allowed = (): boolean => tables.allows(['a'], 'news', 'email', null, 'consent', 5).ok;
  /** What is told to others in the tick of a change must not be decided by what was before. */
  const told: [boolean, number][] = [];
  tables.onAdvance(() => told.push([allowed(), tables.version()]));

  expect([allowed(), tables.version()]).toEqual([false, -1]);
  await tables.start();
  const seen = new Set<number>([-1]);
  const changes = [['c', ...state('a', 'granted'), true], ['i', 'a~b', Buffer.alloc(1), true], ['c', ...state('b', 'withdrawn'), false], ['i', 'a~b', null, true], ['c', ...state('a', 'withdrawn'), false], ['c', ...state('a', 'granted', 9), true]] as const;
  for (const [topic, key, value, then] of changes) {
    apply(topic, key, value);
    expect(seen).not.toContain(tables.version());
    expect(told.at(-1)).toEqual([then, tables.version()]);
    seen.add(tables.version());
  }
  const answer = tables.allows(['a'], 'news', 'email', null, 'consent', 5);
  expect(answer).toMatchObject({ ok: true, until: 9 });
  followers.get('i')!.fail(new Error('gone'));
  expect([allowed(), tables.version(), broken.length]).toEqual([false, -1, 1]);
  await tables.stop();
  expect(tables.version()).toBe(-1);
  rmSync(stateDir, { recursive: true, force: true });
});

test('until where the links of somebody stand is known when the tables have them, with the option only', async () => {
  for (const linkAges of [true, false]) {
    const stateDir = mkdtempSync(join(tmpdir(), 'weir-tables-'));
    let apply: ((batch: RecordBatch) => unknown) | undefined;
    const reader = { read: async () => {}, readOne: async () => undefined, close: async () => {}, follow: async (topic: string, _from: unknown, take: typeof apply) => {
      if (topic === 'i') apply = take;
      return { close: async () => {} };
    } };
    const ends = async (): Promise<Map<number, number>> => new Map([[0, 0], [1, 0]]);
    const log = { reader: async () => reader, admin: async () => ({ endOffsets: ends, beginningOffsets: ends, close: async () => {} }) } as unknown as Log;
    const tables = await createConsentTables({ log, serde, topics: { consent: 'c', identity: 'i' }, stateDir, clock: { monotonic: () => 0, setTimer: (callback, ms) => setTimeout(callback, ms), clearTimer: (timer) => { clearTimeout(timer as NodeJS.Timeout); } }, logger: { warn() {} } as unknown as ConsentPorts['logger'] }, (error) => { throw error; }, { linkAges });
    expect(tables.linksEnd(['a'])).toBeUndefined();
    await tables.start();
    const told: unknown[] = [];
    tables.onAdvance(() => told.push([tables.identityPosition(1), tables.linksEnd(['b'])]));
    const record = (offset: number, key: string): LogRecord => ({ offset, timestamp: 1, key: Buffer.from(key), value: Buffer.alloc(1), headers: [] });
    await apply!({ topic: 'i', partition: 1, epoch: 0, records: [record(6, 'a~b')], nextOffset: 7, highWatermark: 7 });
    expect(told).toEqual([[7, linkAges ? [0, 7] : undefined]]);
    expect(tables.linksEnd(['stranger'])).toEqual(linkAges ? [0, 0] : undefined);
    // Said again, from either side, it is nothing to wait for.
    for (const [i, key] of ['a~b', 'b~a'].entries()) await apply!({ topic: 'i', partition: 0, epoch: 0, records: [record(i, key)], nextOffset: i + 1, highWatermark: i + 1 });
    expect([tables.identityPosition(0), tables.linksEnd(['b'])]).toEqual([2, linkAges ? [0, 7] : undefined]);
    await tables.stop();
    rmSync(stateDir, { recursive: true, force: true });
  }
});
