import type { OutRecord } from '@weir/log';
import { topicNames } from '@weir/pipeline';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { IntentValue } from './ledger-store.ts';
import type { DestinationPorts } from './ports.ts';
import { createTenure } from './tenure.ts';
import type { Task } from './types.ts';

/** A ledger whose log begins with `at` records; `before` is what earlier owners have said of their calls. Values are JSON, as this test has no registry. */
function world({ before = undefined as IntentValue | undefined, at = 40, position = 10 } = {}) {
  const log: { key: string; value: Record<string, unknown> | null }[] = [];
  const state = { at, held: true, closed: false, clock: 1000, owner: undefined as { token: number; owner: string } | undefined, rides: 0 };
  const ports = {
    name: 'crm', instance: 'a', group: 'g', topics: topicNames('t'), clock: { now: () => state.clock, monotonic: () => state.clock, random: () => 0.5, setTimer: (run: () => void) => { setImmediate(run); }, clearTimer: () => undefined }, logger: { error: () => undefined },
    serde: { encode: (name: string, value: object) => Buffer.from(JSON.stringify({ name, ...value })) },
    consumer: () => ({ holds: () => state.held, assignments: () => [] }),
    takeover: { load: async () => undefined }, admin: { beginningOffsets: async () => new Map([[0, 1]]) , committed: async () => new Map() },
    ledger: { owner: () => state.owner, position: () => state.at, intent: () => before },
    appender: { append: async (topic: string, records: readonly OutRecord[]) => records.map((record) => {
      expect(topic).toBe('t.ledger.crm');
      const value = record.value === null ? null : JSON.parse(record.value.toString()) as Record<string, unknown>;
      if (value?.['name'] === 'weir.internal.LedgerOwner') state.owner = value as unknown as { token: number; owner: string };
      log.push({ key: record.key!.toString(), value });
      return state.at++;
    }) },
  } as unknown as DestinationPorts;
  const tenure = createTenure({ ports, assignment: { topic: 't.dispatch.crm', partition: 0, epoch: 2, position }, pace: { ride: () => { state.rides++; } }, closed: () => state.closed, unlessGivenUp: (work) => work, applyOwn: () => undefined });
  /** The intents that stand. */
  const standing = (): unknown[] => [...new Map(log.map((r) => [r.key, r.value])).values()].filter((value) => value?.['name'] === 'weir.internal.LedgerIntent').map((value) => ({ from: value!['fromOffset'], to: value!['toOffset'], at: value!['at'] }));
  return { tenure, log, state, standing };
}

test('what an earlier owner may have called is what its intents cover; what is read first under this assignment behind them nobody has', async () => {
  await fc.assert(fc.asyncProperty(fc.option(fc.record({ fromOffset: fc.constant(0), toOffset: fc.nat(30), at: fc.integer({ min: 1, max: 900 }) })), fc.nat(30), async (said, position) => {
    const { tenure } = world({ before: said ?? undefined, position });
    expect(await tenure.begin()).toBe(true);
    for (let offset = 0; offset < 40; offset++) {
      const covered = said !== null && offset < said.toOffset;
      expect([tenure.coveredBefore(offset), tenure.maybeSince(offset), tenure.neverCalledBefore(offset)]).toEqual([covered, covered ? said.at : 0, offset >= position && !covered]);
    }
  }));
});

test('of the intents the last two stand, and the last covers all that is unfinished, since its first call, with what an earlier owner may have called', async () => {
  const { tenure, standing, state } = world({ before: { fromOffset: 8, toOffset: 14, at: 300 } });
  await tenure.begin();
  await tenure.intend(10, 12);
  expect(standing()).toEqual([{ from: 10, to: 14, at: 300 }]);
  state.clock = 2000;
  await tenure.intend(10, 20);
  state.clock = 3000;
  await tenure.intend(15, 30);
  expect(standing()).toEqual([{ from: 10, to: 20, at: 300 }, { from: 15, to: 30, at: 2000 }]);
  expect(state.rides).toBe(3);
});

test('who leaves ends its intents: what only waited is taken for called by nobody', async () => {
  for (const maybeSince of [0, 1500]) {
    const { tenure, standing } = world();
    await tenure.begin();
    for (const to of [20, 30, 40]) await tenure.intend(10, to);
    await tenure.leave(12, [{ offset: 12, parkedOffset: -1, maybeSince }, { offset: 13, parkedOffset: -1, maybeSince: 0 }] as Task[], (intents) => [intents]);
    expect(standing()).toEqual(maybeSince === 0 ? [] : [{ from: 12, to: 13, at: 1500 }]);
  }
});

test('whose assignment has ended becomes no owner, and a ledger that was made anew under its owner ends the process', async () => {
  const gone = world();
  gone.state.held = false;
  expect(await gone.tenure.begin()).toBe(false);
  expect(gone.log).toEqual([]);
  const anew = world();
  await anew.tenure.begin();
  await anew.tenure.intend(10, 20);
  anew.state.at = 3;
  await expect(anew.tenure.intend(10, 30)).rejects.toThrow('t.ledger.crm/0 took a record at 3, and the one before it stood at 41: the topic was made anew meanwhile');
});
