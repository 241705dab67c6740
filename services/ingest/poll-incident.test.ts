import type { Incident } from '@weir/release';
import pino from 'pino';
import { expect, test } from 'vitest';
import { createPollIncident } from './poll-incident.ts';

/** weir.control in memory; `read` = it is read back. */
function control() {
  const log: Incident[] = [];
  const seen = new Map<string, Incident>();
  const state = { now: 1000, away: false };
  const open = () => createPollIncident('members', {
    incidents: () => seen, now: () => state.now++, logger: pino({ level: 'silent' }),
    save: (incident) => {
      if (state.away) return Promise.reject(new Error('away'));
      log.push(incident);
      return Promise.resolve();
    },
  });
  return { log, state, open, read: () => { for (const incident of log) seen.set(incident.destination, incident); } };
}
const times = (n: number, what: () => void): void => { for (let i = 0; i < n; i++) what(); };

test('the same page that fails in the same way five times is one incident, told once, and over with the first page taken', async () => {
  const { log, open } = control();
  const incident = open();
  times(4, () => incident.failed('body-malformed', '"one"'));
  expect(log).toEqual([]);
  times(5, () => incident.failed('body-malformed', '"one"'));
  await incident.settled();
  expect(log).toEqual([{ destination: 'source/members', code: 'body-malformed', since: 1000, until: null }]);
  incident.over();
  incident.over();
  await incident.settled();
  expect(log.slice(1)).toEqual([{ destination: 'source/members', code: 'body-malformed', since: 1000, until: expect.any(Number) }]);
});

test('other failures, other pages and a page between them are no standstill', async () => {
  const { log, open } = control();
  const incident = open();
  times(4, () => incident.failed('body-malformed', '"one"'));
  times(4, () => incident.failed('too-many-items', '"one"'));
  times(4, () => incident.failed('too-many-items', '"two"'));
  incident.over();
  times(4, () => incident.failed('too-many-items', '"two"'));
  await incident.settled();
  expect(log).toEqual([]);
});

test('an incident outlives the process: the next one tells it not again, and ends it; one that could not be saved is told later', async () => {
  const { log, open, read, state } = control();
  state.away = true;
  const first = open();
  times(5, () => first.failed('body-malformed', '"one"'));
  await first.settled();
  state.away = false;
  first.failed('body-malformed', '"one"');
  await first.settled();
  expect(log).toHaveLength(1);
  read();
  const second = open();
  times(9, () => second.failed('body-malformed', '"one"'));
  await second.settled();
  expect(log).toHaveLength(1);
  second.lost();
  second.over();
  await second.settled();
  expect(log[1]).toMatchObject({ since: log[0]!.since, until: expect.any(Number) });
});
