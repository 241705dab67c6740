import { WeirError } from '@weir/errors';
import { H, topicNames } from '@weir/pipeline';
import { expect, test } from 'vitest';
import { createDependencies } from './dependencies.ts';
import { Heads } from './heads.ts';

const topics = topicNames('t');
const after = (name: string, text: string): Heads => new Heads({ offset: 0, timestamp: 0, key: null, value: null, headers: [[name, Buffer.from(text)]] });

/** Brokers with `counts` partitions, and tables that have read `identity` and folded `folded`. */
function world() {
  let now = 0;
  let due: (() => void) | undefined;
  let woken = 0;
  const state = { counts: [6, 6] as [number, number], identity: [5, 0, 0, 0, 0, 0], folded: new Map<number, number>(), away: false, failed: undefined as unknown };
  const dependencies = createDependencies({
    admin: { partitions: (topic: string) => (state.away ? Promise.reject(new WeirError('log-unavailable')) : Promise.resolve(state.counts[topic === topics.identity ? 1 : 0])) } as never,
    tables: { identityPosition: (partition: number) => state.identity[partition] ?? 0, folded: (partition: number) => state.folded.get(partition) ?? 0 } as never,
    context: { topics, clock: { now: () => now, monotonic: () => now, random: () => 0, setTimer: (run: () => void) => { due = run; return 1; }, clearTimer: () => { due = undefined; } } as never },
    fail: (error) => { state.failed = error; },
  }, () => { woken++; });
  return {
    state, dependencies, woken: () => woken, due: () => due !== undefined,
    /** The next question to the brokers, and its answer. */
    async ask(ms: number) {
      now += ms;
      const run = due;
      due = undefined;
      run?.();
      const before = woken;
      for (let i = 0; i < 20 && woken === before; i++) await Promise.resolve();
    },
  };
}

test.each([[H.afterIdentity, 'identity'], [H.afterConsent, 'consent']] as const)('a position on a partition of %s that was added since is waited for, and met when the tables have it', async (name, kind) => {
  const w = world();
  await w.dependencies.load();
  w.state.counts = [12, 12];
  const record = after(name, '8:0');
  expect(w.dependencies.met(record, 0)).toBe(false);
  await w.ask(250);
  expect(w.woken()).toBe(1);
  expect(w.dependencies.met(record, 0)).toBe(false);
  if (kind === 'identity') w.state.identity[8] = 1;
  else w.state.folded.set(8, 1);
  expect(w.dependencies.met(record, 0)).toBe(true);
  expect([w.due(), w.state.failed]).toEqual([false, undefined]);
});

test('a partition that a fresh answer still does not have is a broken header, not before and not while the brokers are away', async () => {
  const w = world();
  await w.dependencies.load();
  const record = after(H.afterIdentity, '0:1,99:0');
  expect(w.dependencies.met(record, 1000)).toBe(false);
  await w.ask(250);
  expect(w.dependencies.met(record, 1000)).toBe(false);
  w.state.away = true;
  await w.ask(10_000);
  expect(w.dependencies.met(record, 1000)).toBe(false);
  w.state.away = false;
  await w.ask(250);
  expect(w.dependencies.met(record, 1000)).toBeUndefined();
  // Those that came with it need no further question.
  expect([w.dependencies.met(after(H.afterConsent, '12:0'), 1000), w.due()]).toEqual([undefined, false]);
  expect(w.dependencies.met(after(H.afterConsent, 'x'), 99_999)).toBeUndefined();
  expect(w.dependencies.met(after(H.afterIdentity, '0:4'), 0)).toBe(true);
  expect(w.dependencies.met(after(H.afterIdentity, '0:5'), 0)).toBe(false);
});
