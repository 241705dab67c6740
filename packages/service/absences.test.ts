import { WeirError } from '@weir/errors';
import { createHandClock } from '@weir/testing';
import { Gauge, Registry } from 'prom-client';
import { expect, test } from 'vitest';
import { createAbsences } from './absences.ts';

function world() {
  const there = new Set(['dispatch', 'ledger', 'parked']);
  const clock = createHandClock(0);
  const registry = new Registry();
  const told: unknown[] = [];
  let again = 0;
  let away: WeirError | undefined;
  const absences = createAbsences({
    what: 'destination',
    appender: { partitions: (topic) => (away !== undefined ? Promise.reject(away) : there.has(topic) ? Promise.resolve(3) : Promise.reject(new WeirError('log-fatal'))) },
    admin: { describeTopics: (names) => Promise.resolve(names.map((name) => ({ name, partitions: 0, replicationFactor: 0, config: {}, exists: there.has(name) }))) },
    clock, logger: { error: (line: unknown) => { told.push(line); }, info: () => undefined } as never,
    gauge: new Gauge({ name: 'missing', help: 'x', labelNames: ['destination'], registers: [registry] }), again: () => { again++; },
  });
  return {
    absences, there, told, look: () => absences.allThere('crm', ['dispatch', 'ledger', 'parked']), again: () => again, metric: () => registry.metrics(),
    pass: (ms: number): void => { for (const _ of clock.turn(ms)); }, goAway: (error: WeirError): void => { away = error; },
  };
}

test('a topic that was deleted under a destination holds that up, says which it is and what to do, and is looked for until it is there', async () => {
  const { absences, there, told, look, again, metric, pass } = world();
  there.delete('dispatch');
  expect([await look(), await look(), absences.lacks('crm'), absences.lacks('mail')]).toEqual([false, false, true, false]);
  expect(told).toEqual([{ destination: 'crm', topics: ['dispatch'], code: 'topic-missing' }]);
  expect(absences.reason()).toMatch(/^topic-missing: the destination crm waits for dispatch; create it with: weir topics apply/);
  expect(await metric()).toContain('missing{destination="crm"} 1');
  pass(5000);
  expect(again()).toBe(1);
  there.add('dispatch');
  expect([await look(), absences.reason()]).toEqual([true, undefined]);
  expect(await metric()).not.toContain('crm');
  pass(60_000);
  expect(again()).toBe(1);
});

test('brokers that are away are no missing topic, and a destination that left the release lacks none', async () => {
  const { absences, there, look, goAway } = world();
  there.delete('parked');
  expect(await look()).toBe(false);
  absences.keep(() => false);
  expect(absences.reason()).toBeUndefined();
  there.add('parked');
  goAway(new WeirError('log-unavailable'));
  await expect(look()).rejects.toMatchObject({ code: 'log-unavailable' });
});

test('a topic that was made again with fewer partitions is waited for as one that is missing, with what is to be done', async () => {
  const { absences, told, look, goAway } = world();
  goAway(new WeirError('topic-repartitioned', 'dispatch has 3 partitions, its keys are hashed over 6'));
  expect(await look()).toBe(false);
  expect(told).toEqual([{ destination: 'crm', topics: [], code: 'topic-repartitioned' }]);
  expect(absences.reason()).toBe('topic-repartitioned: the destination crm waits: dispatch has 3 partitions, its keys are hashed over 6');
});
