import type { LogRecord, OutRecord, RecordBatch } from '@weir/log';
import { compileRelease, controlKeys, type Release } from '@weir/release';
import { afterEach, expect, test, vi } from 'vitest';
import { createReleaseApi } from './releases.ts';

afterEach(() => { vi.useRealTimers(); });
const filesOf = (name: string) => [{ path: 'weir.yaml', content: `name: ${name}\n` }, { path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Letters. }\n' }];
const compile = (name: string): Release => compileRelease(filesOf(name), { adapters: new Map() });

/** A feed that runs `running` and reads nothing of what is appended. */
function world(running: Release) {
  const changed: string[] = [];
  const log: LogRecord[] = [];
  const append = (_topic: string, records: readonly OutRecord[]): Promise<number[]> => Promise.resolve(records.map((record) => log.push({ ...record, offset: log.length, timestamp: 5, headers: record.headers ?? [] }) - 1));
  const serde = { encode: (_name: string, value: object) => Buffer.from(JSON.stringify(value)), prepare: () => Promise.resolve(), decode: (bytes: Buffer) => ({ name: '', value: JSON.parse(bytes.toString()) as unknown }) };
  const admin = { describeTopics: () => Promise.resolve([]), createTopics: () => { changed.push('topics'); return Promise.resolve([]); }, endOffsets: () => Promise.resolve(new Map([[0, log.length]])) };
  const reader = { read: async (_topic: string, _partition: number, from: number, to: number, take: (batch: RecordBatch) => void | Promise<void>) => take({ records: log.slice(from, to) } as never) };
  const context = { releases: { current: () => running, onChange: () => () => undefined }, serde, topics: { prefix: '', control: 'c' }, config: { brokers: ['b'] }, clock: { now: () => 5 } };
  const api = createReleaseApi(context as never, { admin, appender: { append }, reader, adapters: new Map(), audit: () => ({ record: ({ action }: { action: string }) => { changed.push(action); return Promise.resolve(); } }), counts: { keep: () => Promise.resolve() } } as never);
  const named = (): unknown[] => log.filter((r) => r.key!.toString() === controlKeys.current).map((r) => (JSON.parse(r.value!.toString()) as { hash: string }).hash);
  return { apply: (name: string) => api.apply({ files: filesOf(name) }, { actor: 'token:a', leaf: 'leaf_1' }, null), api, changed, named };
}

test('a rollback right after a release that does not run here yet is written: it was answered as running, and then the other one ran everywhere', async () => {
  vi.useFakeTimers();
  const [a, b] = [compile('a'), compile('b')];
  const { apply, named } = world(a);
  const late = expect(apply('b')).rejects.toMatchObject({ code: 'not-ready' });
  await vi.advanceTimersByTimeAsync(11_000);
  await late;
  expect(named()).toEqual([b.hash]);
  expect(await apply('a')).toMatchObject({ hash: a.hash, changed: true });
  expect(named()).toEqual([b.hash, a.hash]);
  expect(await apply('a')).toMatchObject({ changed: false });
  expect(named()).toHaveLength(2);
});

test('a release that does not fit into a record is refused before anything is changed, and when it is proposed', async () => {
  const { api, changed, named } = world(compile('a'));
  const order = { files: [...filesOf('b'), ...Array.from({ length: 8 }, (_, n) => ({ path: `notes-${n}.md`, content: 'x'.repeat(250_000) }))] };
  await expect(api.apply(order, { actor: 'token:a', leaf: 'leaf_1' }, null)).rejects.toThrow(/split the workspace/);
  expect(() => api.check(order)).toThrow(/split the workspace/);
  expect([changed, named()]).toEqual([[], []]);
});
