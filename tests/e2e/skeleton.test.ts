import { readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createLog } from '@weir/log';
import { startInstance, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { createOperator } from '../../packages/log/operator.ts';

let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

const batch = (calls: unknown[]) => weir.segment('batch', { batch: calls });
const identify = (n: string, over: object = {}) => ({ type: 'identify', messageId: `m-${n}`, userId: `u-${n}`, timestamp: '2026-01-02T03:04:05Z', traits: { email: `${n}@larkspur.example`, firstName: 'Ann', ...over } });
const subjects = async (destination: string) => (await weir.effects(destination)).map((e) => e.subject);

test('one call goes the whole way, and the trace tells every step and the denial', async () => {
  const response = await batch([identify('one')]);
  expect(response.status).toBe(200);
  const { eventId, eventIds, traceId, success } = (await response.json()) as any;
  expect({ success, eventIds }).toEqual({ success: true, eventIds: [eventId] });
  await weir.settled();
  expect(await subjects('crm')).toContain('one@larkspur.example');
  const { code, out } = await weir.cli('trace', eventId, '--json');
  expect(code).toBe(0);
  const trace = JSON.parse(out);
  expect(trace).toMatchObject({ eventId, traceId });
  expect([...new Set(trace.stages.map((s: any) => s.stage))]).toEqual(['accepted', 'normalized', 'decided', 'attempt', 'outcome']);
  expect(trace.stages.find((s: any) => s.stage === 'normalized')).toMatchObject({ mapping: 'segment', release: expect.stringMatching(/^rel_/) });
  expect(trace.stages.find((s: any) => s.destination === 'newsletter' && s.stage === 'decided')).toMatchObject({ effect: 'deny', reason: 'consent-missing' });
  expect(trace.stages.find((s: any) => s.destination === 'crm' && s.stage === 'outcome')).toMatchObject({ state: 'delivered' });
});

test('the same call sent again takes no second effect; an update of the same person does', async () => {
  await batch([identify('two')]);
  await batch([identify('two')]);
  await batch([{ ...identify('two', { firstName: 'Anna' }), messageId: 'm-two-b' }]);
  await weir.settled();
  const effects = (await weir.effects('crm')).filter((e) => e.subject === 'two@larkspur.example');
  expect(effects.map((e) => e.body.first_name)).toEqual(['Ann', 'Anna']);
  expect(new Set(effects.map((e) => e.idempotencyKey)).size).toBe(2);
});

test('the same id with another body is set aside with its bytes, not skipped', async () => {
  await batch([identify('three')]);
  await weir.settled();
  await batch([identify('three', { firstName: 'Mallory' })]);
  const status = await weir.settled();
  expect(status.events.quarantined).toBe(1);
  const letters = ((await (await weir.api('/v1/dlq?code=event-conflict')).json()) as any).deadLetters;
  expect(letters).toHaveLength(1);
});

test('consent given in the same call opens, a withdrawal closes, a linked identifier too', async () => {
  await batch([identify('four', { marketingConsent: true })]);
  await weir.settled();
  expect(await subjects('newsletter')).toContain('four@larkspur.example');
  await batch([{ type: 'track', messageId: 'm-four-u', anonymousId: 'a-4', event: 'Unsubscribed', properties: { email: 'four@larkspur.example' } }]);
  await weir.settled();
  const before = (await subjects('newsletter')).length;
  await batch([{ ...identify('four', { firstName: 'Again' }), messageId: 'm-four-b' }]);
  const { eventId } = (await (await batch([{ ...identify('four', { firstName: 'Again2' }), messageId: 'm-four-c' }])).json()) as any;
  await weir.settled();
  expect((await subjects('newsletter')).length).toBe(before);
  const trace = JSON.parse((await weir.cli('trace', eventId, '--json')).out);
  expect(trace.stages.find((s: any) => s.destination === 'newsletter' && s.stage === 'decided')).toMatchObject({ effect: 'deny', reason: 'consent-withdrawn' });
});

test('a clean restart and a kill lose nothing and repeat nothing', async () => {
  const people = Array.from({ length: 60 }, (_, i) => identify(`r${i}`));
  for (const [i, signal] of (['SIGINT', 'SIGKILL', 'SIGKILL'] as const).entries()) {
    const part = people.slice(i * 20, i * 20 + 20);
    const answers = await Promise.all(part.map((p) => batch([p]).then((r) => r.status)));
    expect(answers.every((s) => s === 200)).toBe(true);
    const code = await weir.stop(signal);
    // A stop that does not end is cut after its deadline, with another code.
    if (signal === 'SIGINT') expect(code).toBe(0);
    await weir.start();
  }
  await weir.settled();
  const effects = (await weir.effects('crm')).filter((e) => /^r\d/.test(e.subject));
  expect(new Set(effects.map((e) => e.subject)).size).toBe(60);
  expect(effects.length).toBe(60);
  const status = await weir.status();
  const { delivered, denied, deadLettered, quarantined } = status.deliveries;
  // Each profile: crm and warehouse delivered, newsletter denied; the rest of this file adds its own.
  expect(delivered + denied + deadLettered + quarantined).toBeGreaterThanOrEqual(180);
});

test('control that has lost its index after retention deleted the first records starts again, knows what is left, and keeps nobody waiting for the rest', async () => {
  const { eventId } = (await (await batch([identify('kept')])).json()) as any;
  await weir.settled();
  await weir.stop('SIGINT');
  const log = createLog({ brokers: inject('brokers'), clientId: 'test' });
  const operator = createOperator(inject('brokers'));
  const admin = await log.admin();
  for (const topic of [`${weir.prefix}.raw.segment`, `${weir.prefix}.canonical`]) for (const [partition, end] of await admin.endOffsets(topic)) if (end > 0) await operator.deleteRecords(topic, partition, end);
  await log.close();
  const state = join(weir.dataDir, 'state', 'control');
  for (const instance of readdirSync(state)) rmSync(join(state, instance, 'index'), { recursive: true });
  await weir.start();
  expect((await weir.settled()).lag.index).toBe(0);
  const old = JSON.parse((await weir.cli('trace', eventId, '--json')).out);
  expect([...new Set(old.stages.map((s: any) => s.stage))]).toEqual(['decided', 'attempt', 'outcome']);
  expect((await batch([identify('after')])).status).toBe(200);
  await weir.settled();
  expect((await subjects('crm')).filter((s) => s === 'after@larkspur.example' || s === 'kept@larkspur.example')).toEqual(['kept@larkspur.example', 'after@larkspur.example']);
  const replay = await weir.cli('replay', 'dispatch', '--destination', 'crm', '--since', '1h');
  expect([replay.code, replay.out]).toEqual([0, expect.stringMatching(/nothing to send/)]);
});
