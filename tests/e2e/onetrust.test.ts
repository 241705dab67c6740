import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

let weir: Instance;
const workspace = mkdtempSync(join(tmpdir(), 'weir-topics-'));
beforeAll(async () => {
  cpSync(resolve(import.meta.dirname, '../../workspace'), workspace, { recursive: true });
  // The newsletter's mails are about fishing: its route names the topic.
  const newsletter = join(workspace, 'destinations/newsletter.yaml');
  writeFileSync(newsletter, readFileSync(newsletter, 'utf8').replace('    channel: email\n', '    channel: email\n    topic: fishing\n'));
  weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace });
});
afterAll(async () => {
  await weir?.dispose();
  rmSync(workspace, { recursive: true, force: true });
});

let n = 0;
async function oneTrust(email: string, status: string, topics: Record<string, boolean>): Promise<string> {
  const body = {
    eventId: `topics-${++n}`, eventTime: new Date().toISOString(), eventType: '3010',
    payload: { dataSubjectGuid: `guid-${email}`, dataSubjectEmail: email, profiles: [{ purposeId: 'email-marketing', topics: Object.entries(topics).map(([name, value]) => ({ topicGuid: `guid-${name}`, integrationKey: name, value })), profileFields: { TransactionStatus: status } }] },
  };
  const file = join(weir.dataDir, 'event.json');
  writeFileSync(file, JSON.stringify(body));
  const sent = await weir.cli('send', 'onetrust', '--body', file, '--json');
  expect(sent.code, sent.err + sent.out).toBe(0);
  await weir.settled();
  return JSON.parse(sent.out).events[0].eventId;
}
const states = async (who: string): Promise<string[]> => (JSON.parse((await weir.cli('consent', 'show', who, '--json')).out).states as any[]).filter((s) => s.of === 'email').map((s) => `${s.topic ?? ''}:${s.state}`).sort();
const subscribe = async (email: string): Promise<boolean> => {
  const before = await subscribed(email);
  await weir.segment('identify', { type: 'identify', messageId: `topics-${++n}`, userId: `u-${email}`, traits: { email, plan: `p${n}` } });
  await weir.settled();
  return (await subscribed(email)) > before;
};
const subscribed = async (email: string): Promise<number> => (await weir.effects('newsletter')).filter((e) => e.operation === 'subscribers' && e.subject === email).length;

test('topics of OneTrust, to consent show and to the vendor: each opens and closes itself, and never the others', async () => {
  const ann = 'ann@larkspur.example';
  await oneTrust(ann, 'ACTIVE', { fishing: false, hiking: true });
  await waitFor('control has both topics', async () => (await states(ann)).join() === ':unknown,fishing:withdrawn,hiking:granted');
  expect(await subscribe(ann)).toBe(false);
  await oneTrust(ann, 'ACTIVE', { fishing: true, hiking: true });
  await waitFor('fishing is granted', async () => (await states(ann)).join() === ':unknown,fishing:granted,hiking:granted');
  expect(await subscribe(ann)).toBe(true);
  await oneTrust(ann, 'WITHDRAWN', { fishing: true, hiking: true });
  await waitFor('the whole is withdrawn', async () => (await states(ann)).includes(':withdrawn'));
  expect(await subscribe(ann)).toBe(false);
  await oneTrust(ann, 'ACTIVE', { fishing: true, hiking: false });
  await waitFor('the topics are back', async () => (await states(ann)).join() === ':unknown,fishing:granted,hiking:withdrawn');
  expect(await subscribe(ann)).toBe(true);
});

test('each change of one event has its own receipt, and an operator sees which went nowhere', async () => {
  const event = await oneTrust('bea@larkspur.example', 'WITHDRAWN', { fishing: false });
  const receipts = await waitFor('both changes are decided and told', async () => {
    const found = (JSON.parse((await weir.cli('consent', 'receipts', event, '--json')).out).changes[0].receipts as any[]).filter((r) => r.destination === 'newsletter');
    return found.some((r) => r.state === 'delivered') && found.length === 2 ? found : undefined;
  });
  expect(receipts.map((r) => r.state).sort()).toEqual(['delivered', 'no-route']);
  expect(new Set(receipts.map((r) => r.outputId)).size).toBe(2);
  const trace = (await (await weir.api(`/v1/events/${event}/trace`)).json()) as any;
  expect(trace.stages.find((s: any) => s.stage === 'outcome' && s.destination === 'newsletter')).toMatchObject({ outputId: receipts.find((r) => r.state === 'delivered').outputId });
});
