import { WeirError, type ErrorCode } from '@weir/errors';
import type { Incident } from '@weir/release';
import { expect, test } from 'vitest';
import { createEscalating } from './escalating.ts';

/** Its looks are made by hand; what it saves is on weir.control at once. */
function world() {
  const incidents = new Map<string, Incident>();
  const saves: Incident[] = [];
  const errors: unknown[] = [];
  const timers: (() => void)[] = [];
  const state = { waits: [] as string[], rules: ['big'] as string[], indexed: true, failing: undefined as ErrorCode | undefined };
  const asked: string[][] = [];
  const escalating = createEscalating({
    waiting: async (rules) => {
      asked.push([...rules]);
      return state.indexed ? new Set(state.waits.filter((rule) => rules.has(rule))) : undefined;
    },
    rules: () => state.rules, incidents: () => incidents, failed: (error) => errors.push(error),
    save: async (incident) => {
      if (state.failing !== undefined) throw new WeirError(state.failing, 'away');
      saves.push(incident);
      incidents.set(incident.destination, incident);
    },
    clock: { now: () => 5000, setTimer: (run) => timers.push(run), clearTimer: () => undefined },
  });
  const raise = (rule: string): void => void incidents.set(`policy/${rule}`, { destination: `policy/${rule}`, code: 'approval-required', since: 1, until: null });
  return { state, incidents, saves, errors, asked, escalating, timers, raise, async look() {
    timers.shift()!();
    while (timers.length === 0) await new Promise((done) => setImmediate(done));
  } };
}

test('the incident of a rule ends when what it holds has expired, so that the next one is told of; others stay as they are', async () => {
  const { state, saves, raise, look, incidents } = world();
  raise('big');
  incidents.set('crm', { destination: 'crm', code: 'unauthorized', since: 1, until: null });
  state.waits = ['big'];
  for (let n = 0; n < 3; n++) await look();
  expect(saves).toEqual([]);
  state.waits = [];
  for (let n = 0; n < 3; n++) await look();
  expect(saves).toEqual([{ destination: 'policy/big', code: 'approval-required', since: 1, until: 5000 }]);
});

test('that of a rule which has left the release ends, too', async () => {
  const { state, saves, raise, look } = world();
  raise('big');
  state.rules = [];
  for (let n = 0; n < 2; n++) await look();
  expect(saves).toMatchObject([{ destination: 'policy/big', until: 5000 }]);
});

test('one that was held while the incident of those before it ended is an incident of its own, once', async () => {
  const { state, saves, raise, look, escalating } = world();
  raise('big');
  await escalating.decided('big');
  expect(saves).toMatchObject([{ until: 5000 }]);
  state.waits = ['big', 'small'];
  for (let n = 0; n < 4; n++) await look();
  expect(saves.slice(1)).toEqual([{ destination: 'policy/big', code: 'approval-required', since: 5000, until: null }]);
});

test('an incident that is raised a moment before its letter is in the index is not ended, nor is one of which nothing can be said', async () => {
  const { state, saves, raise, look, escalating } = world();
  raise('big');
  await look();
  state.waits = ['big'];
  await look();
  Object.assign(state, { waits: [], indexed: false });
  for (let n = 0; n < 3; n++) await look();
  await escalating.decided('big');
  expect(saves).toEqual([]);
});

test('with no rule that escalates and no open incident nothing is looked at; brokers that are away end no process, and the next look writes it', async () => {
  const { state, saves, errors, asked, raise, look, escalating } = world();
  state.rules = [];
  await look();
  expect(asked).toEqual([]);
  raise('big');
  state.failing = 'log-append-failed';
  for (let n = 0; n < 3; n++) await look();
  await escalating.decided('big');
  state.failing = undefined;
  await look();
  expect([saves.length, errors]).toEqual([1, []]);
});
