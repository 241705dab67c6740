import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startInstance, waitFor, type Instance } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

/** On the real broker with every service: newsletter and Klaviyo know people by the address, and are told of a no by user id. */
let weir: Instance;
beforeAll(async () => { weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl') }); });
afterAll(() => weir?.dispose());

let n = 0;
async function identify(userId: string, email: string | undefined): Promise<void> {
  const response = await weir.segment('identify', { messageId: `linked-${n++}`, userId, timestamp: new Date(Date.UTC(2026, 2, 4) + n * 1000).toISOString(), traits: { ...(email === undefined ? {} : { email }), plan: 'gold' } });
  expect(response.status).toBe(200);
  await weir.settled();
}
/** A change by these identifiers alone, answered when it holds; gives its id. */
async function change(identifiers: object, state: string, key = `key-${n++}`): Promise<string> {
  const token = /^admin token: (.+)$/m.exec(weir.output())![1]!;
  const response = await fetch(`${weir.ingest}/v1/consent?wait=applied`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${token}`, 'idempotency-key': key }, body: JSON.stringify({ identifiers, purpose: 'email-marketing', state }) });
  expect(response.status).toBe(200);
  const { id } = (await response.json()) as { id: string };
  await waitFor('it is decided', async () => ((await (await weir.api(`/v1/events/${id}/trace`)).json()) as { stages?: { stage: string }[] }).stages?.some((s) => s.stage === 'decided'));
  await weir.settled();
  return id;
}
interface Receipt { readonly destination: string; readonly operation: string | null; readonly state: string; readonly reason: string | null; readonly status: number | null }
const receipts = async (id: string): Promise<Receipt[] | undefined> => ((await (await weir.api(`/v1/consent/changes/${id}/receipts`)).json()) as { receipts?: Receipt[] }).receipts;
/** How often each of the two was asked to stop writing to the address. */
async function told(email: string): Promise<Record<string, number>> {
  const of = async (destination: string): Promise<number> => ((await (await fetch(`${weir.sandbox}/arrivals?destination=${destination}`)).json()) as { subject: string | null; body: unknown; operation: string }[]).filter((a) => JSON.stringify([a.subject, a.body]).includes(email) && /unsub|bulk-delete/.test(a.operation)).length;
  return { newsletter: await of('newsletter'), klaviyo: await of('klaviyo') };
}
/** That often, and not more often when everything has ended. */
async function toldTimes(email: string, newsletter: number, klaviyo = newsletter): Promise<void> {
  await waitFor(`${email} is told ${newsletter} and ${klaviyo} times`, async () => {
    const now = await told(email);
    return now['newsletter']! >= newsletter && now['klaviyo']! >= klaviyo;
  });
  await weir.settled();
  expect(await told(email)).toEqual({ newsletter, klaviyo });
}

test('a withdrawal by user id alone reaches, once, the vendors that know the person by the linked address, with a receipt of each', async () => {
  const email = 'lin@larkspur.example';
  await identify('u-lin', email);
  const id = await change({ userId: 'u-lin' }, 'withdrawn', 'lin-1');
  await toldTimes(email, 1);
  const found = (await receipts(id))!;
  const onward = found.filter((r) => r.operation?.includes('(by email:') === true);
  expect(onward.map((r) => [r.destination, r.operation!.replace(/:.*/, ''), r.state]).sort()).toEqual([['klaviyo', 'unsubscribe (by email', 'delivered'], ['newsletter', 'unsubscribe (by email', 'delivered']]);
  expect(onward.every((r) => r.status !== null && r.status < 300)).toBe(true);
  expect(found.some((r) => r.reason === 'identifier-unknown')).toBe(false);
  const trace = (await weir.cli('trace', id)).out;
  expect(trace).toMatch(/unsubscribe \(by email:/);
  expect((await weir.cli('policy', 'explain', id)).out).toMatch(/newsletter\/unsubscribe \(by email:/);
  expect((await weir.cli('consent', 'receipts', id)).out).toMatch(/klaviyo +unsubscribe \(by email:\S+ +told/);
  // Nothing of it is for people to read where it is not sealed.
  expect(trace).not.toContain(email);
});

test('the same change again tells nobody again, also after a kill of every service and a replay of the change itself', async () => {
  const email = 'lin@larkspur.example';
  const id = await change({ userId: 'u-lin' }, 'withdrawn', 'lin-1');
  await toldTimes(email, 1);
  await weir.stop('SIGKILL');
  await weir.start();
  await change({ userId: 'u-lin' }, 'withdrawn', 'lin-1');
  await toldTimes(email, 1);
  const file = join(tmpdir(), `weir-linked-${process.pid}`);
  writeFileSync(file, `${id}\n`);
  for (const topic of ['canonical', 'dispatch']) {
    const replay = await weir.cli('replay', topic, '--ids', file, '--yes');
    expect(replay.code, replay.out + replay.err).toBe(0);
  }
  rmSync(file);
  await weir.settled();
  await toldTimes(email, 1);
  // Another no of the person is another change: a restriction is never dropped.
  await change({ userId: 'u-lin' }, 'withdrawn', 'lin-2');
  await toldTimes(email, 2);
});

test('an address that is linked later than the withdrawal is told nothing by itself; what has the change decided again reaches it, once', async () => {
  const email = 'late@larkspur.example';
  await identify('u-late', undefined);
  const id = await change({ userId: 'u-late' }, 'withdrawn', 'late-1');
  await identify('u-late', email);
  await toldTimes(email, 0);
  expect((await receipts(id))!.some((r) => r.operation?.includes('(by') === true)).toBe(false);
  // Nothing is sent to the address for it, either: the no holds for all that is linked.
  expect(JSON.parse((await weir.cli('consent', 'show', email, '--json')).out).purposes.find((p: any) => p.purpose === 'email-marketing')).toMatchObject({ open: false, reason: 'consent-withdrawn' });
  for (let i = 0; i < 2; i++) {
    expect(await change({ userId: 'u-late' }, 'withdrawn', 'late-1')).toBe(id);
    await toldTimes(email, 1);
  }
  await change({ userId: 'u-late' }, 'denied', 'late-2');
  await toldTimes(email, 2);
});

test('a grant by user id goes to no address that it did not name', async () => {
  const email = 'gia@larkspur.example';
  await identify('u-gia', email);
  await change({ userId: 'u-gia' }, 'granted');
  expect((await Promise.all(['newsletter', 'klaviyo'].map((d) => weir.effects(d)))).flat().filter((e) => /subscri/i.test(e.operation) && JSON.stringify([e.subject, e.body]).includes(email))).toEqual([]);
});

test('the export shows what links keep; after the erasure nothing is told under the address, and one who comes back is a new person', async () => {
  const email = 'lin@larkspur.example';
  const exported = (await weir.cli('subject', 'export', 'userId:u-lin', '--linked', 'all')).out.trim().split('\n').map((line) => JSON.parse(line) as { link?: object });
  expect(exported.filter((line) => line.link !== undefined)).toEqual([{ at: expect.any(String), link: { userId: 'u-lin', email, phone: null } }]);
  const erased = await weir.cli('subject', 'erase', 'userId:u-lin', '--linked', 'all', '--yes', '--json');
  expect(erased.code, erased.out + erased.err).toBe(0);
  await weir.settled();
  const before = await told(email);
  const id = await change({ userId: 'u-lin' }, 'withdrawn', 'lin-3');
  await toldTimes(email, before['newsletter']!, before['klaviyo']!);
  expect((await receipts(id))!.filter((r) => r.reason === 'identifier-unknown').map((r) => r.destination).sort()).toEqual(['klaviyo', 'newsletter']);
  expect((await weir.cli('subject', 'export', 'userId:u-lin', '--linked', 'all')).out).not.toContain(email);
  // Her link was known to the normalizer: it is written once more, with what can be read.
  await identify('u-lin', email);
  await change({ userId: 'u-lin' }, 'withdrawn', 'lin-4');
  await toldTimes(email, before['newsletter']! + 1, before['klaviyo']! + 1);
});
