import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { startInstance, type Instance } from '@weir/testing';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { readSample, samplesPresent, segmentFiles, segmentSamples, stripeSamples } from '../contract/samples.ts';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

/** Sends a body as the vendor would, signed; the ids of its events. */
async function send(source: string, body: unknown): Promise<string[]> {
  const file = join(weir.dataDir, 'body.json');
  writeFileSync(file, JSON.stringify(body));
  const { code, out, err } = await weir.cli('send', source, '--body', file, '--json');
  expect(code, err + out).toBe(0);
  return JSON.parse(out).events.map((e: any) => e.eventId);
}

const effects = async (): Promise<any[]> => (await Promise.all(['crm', 'warehouse', 'klaviyo', 'newsletter'].map((d) => weir.effects(d)))).flat();

test.each(['segment', 'sendgrid', 'stripe', 'partner'])('a sample of %s has an effect on empty consent data, and none is dead-lettered', async (source) => {
  const before = (await effects()).length;
  const { code, out } = await weir.cli('send', source, '--json');
  expect(code).toBe(0);
  const status = await weir.settled();
  expect((await effects()).length).toBeGreaterThan(before);
  expect(status.deliveries).toMatchObject({ deadLettered: 0, quarantined: 0, pending: 0 });
  const { eventId } = JSON.parse(out).events[0];
  const trace = JSON.parse((await weir.cli('trace', eventId, '--json')).out);
  expect(trace.stages.map((s: any) => s.stage)).toEqual(expect.arrayContaining(['accepted', 'normalized', 'decided', 'attempt', 'outcome']));
});

describe.skipIf(!samplesPresent)('the vendors\' own samples', () => {
  test('every one is accepted and ends delivered or denied', async () => {
    const before = await weir.settled();
    const sent: string[] = [];
    sent.push(...await send('segment', { batch: segmentFiles().flatMap((file) => segmentSamples(file).calls.map(({ call }) => call)) }));
    sent.push(...await send('sendgrid', readSample('sendgrid/event-webhook-batch.json')));
    for (const event of stripeSamples()) sent.push(...await send('stripe', event));
    const after = await weir.settled();
    expect(new Set(sent).size).toBe(sent.length);
    expect(sent.length).toBeGreaterThan(120);
    expect(after.events.accepted - before.events.accepted).toBe(sent.length);
    expect(after.deliveries).toMatchObject({ deadLettered: 0, quarantined: 0, pending: 0 });
    const letters = JSON.parse((await weir.cli('dlq', 'list', '--json')).out);
    expect(letters.deadLetters ?? letters).toEqual([]);
  });
});
