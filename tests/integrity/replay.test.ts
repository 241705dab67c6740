import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { waitFor } from '@weir/testing';
import { afterAll, afterEach, beforeAll, expect, inject, test } from 'vitest';
import { startDeliveryWorld, type DeliveryWorld } from './delivery-world.ts';

const mapping = (more: string): string => `mapping: mine\noutputs:\n  order:\n    record: Order\n    when: { path: properties.order_id, exists: true }\n    objectKey: properties.order_id\n    fields:\n      userId: userId\n      email: { from: properties.email, pipe: [email] }\n      orderId: properties.order_id\n      status: properties.status\n  profile:\n    record: Profile\n    objectKey: userId\n    fields:\n      userId: userId\n      email: { from: traits.email, pipe: [email] }\n      plan: traits.plan\n${more}`;
const dir = mkdtempSync(join(tmpdir(), 'weir-ids-'));
let weir: DeliveryWorld;
beforeAll(async () => {
  weir = await startDeliveryWorld({
    brokers: inject('brokers'), registryUrl: inject('registryUrl'),
    files: { 'sources/segment.yaml': 'adapter: segment\nmapping: mine.yaml\nconfig: { writeKey: { secret: SEGMENT_WRITE_KEY } }\n', 'mappings/mine.yaml': mapping('') },
    destinations: { crm: 'adapter: http\nconfig:\n  baseUrl: sandbox://crm\n  operations:\n    put:\n      accepts: [Profile]\n      path: /contacts\n      body: { email: "{{record.email}}", plan: "{{record.plan}}", first_name: "{{record.firstName}}" }\n      idempotency: { scheme: header, window: 24h }\nroutes:\n  - { on: Profile, operation: put, purpose: service }\n', till: 'adapter: http\nconfig:\n  baseUrl: sandbox://till\n  operations:\n    upsert:\n      accepts: [Order]\n      method: PUT\n      path: /orders/{{record.orderId}}\n      body: { email: "{{record.email}}", order: "{{record.orderId}}", status: "{{record.status}}" }\n      idempotency: { scheme: natural-upsert, pastWindow: resend }\nroutes:\n  - { on: Order, operation: upsert, purpose: service }\n' },
  });
});
afterAll(async () => {
  await weir?.dispose();
  rmSync(dir, { recursive: true, force: true });
});
afterEach(() => fetch(`${weir.sandbox}/faults`, { method: 'DELETE' }));

const orders = async (): Promise<any[]> => ((await (await weir.api('/v1/replays')).json()) as any).replays;
const bodies = async (name: string): Promise<any[]> => (await weir.effectsOf('crm', name)).map((e) => e.body);
function file(text: string): string {
  const path = join(dir, `${Math.random()}.txt`);
  writeFileSync(path, text);
  return path;
}

test('wrong arguments are named, exit 2, and nothing is started', async () => {
  await weir.send('first');
  await weir.settled();
  const cases: [string[], RegExp][] = [
    [['dlq', '--destination', 'crmm'], /no destination crmm; it has crm/],
    [['raw', '--source', 'nope'], /no source nope/],
    [['raw', '--since', '2026-03-04T11:00:00Z', '--until', '2026-03-04T10:00:00Z'], /ends .* before it begins/],
    [['raw', '--since', 'yesterday'], /no time/],
    [['dlq', '--code', 'oops'], /no error code/],
    [['dlq'], /say which/],
    [['dlq', '--ids', file('evt_1\n')], /line 1/],
    [['dlq', '--ids', file('# none\n')], /list is empty/],
    [['dlq', '--ids', join(dir, 'missing')], /ENOENT/],
    [['dlq', '--all', '--corrected'], /corrected/],
    [['backlog', '--all'], /give dlq/],
    [['dlq', '--all', '--yes'], /nothing to replay/],
    [['raw', '--subject', 'email:nobody@larkspur.example', '--yes'], /nothing matches/],
  ];
  for (const [args, message] of cases) {
    const done = await weir.cli('replay', ...args);
    expect([args.join(' '), done.code, done.out]).toEqual([args.join(' '), 2, '']);
    expect(done.err).toMatch(message);
  }
  expect((await orders()).filter((o) => o.startedAt !== null)).toEqual([]);
});

test('dead letters are previewed, replayed once under a new key, told by the report and the audit log; a second replay has nothing to send', async () => {
  await weir.fault({ destination: 'crm', mode: 'permanent', count: 3 });
  for (const name of ['ada', 'ben', 'cid']) await weir.send(name);
  await weir.settled();
  const looked = await weir.cli('replay', 'dlq', '--destination', 'crm');
  expect(looked.code).toBe(0);
  expect(looked.out).toMatch(/not applied +3 /);
  expect(looked.out).toContain('3 records would be put back: 3 crm/put');
  expect(looked.out).toContain('nothing was started');
  expect(await bodies('ada')).toEqual([]);
  const id = /rpl_[0-9a-f-]{36}/.exec(looked.out)![0];
  const run = await weir.cli('replay', 'start', id);
  expect(run.code).toBe(0);
  expect(run.out).toMatch(/finished: 3 selected, 3 put back/);
  expect(run.out).toContain('ended: 3 delivered');
  for (const name of ['ada', 'ben', 'cid']) expect(await bodies(name)).toHaveLength(1);
  const again = await weir.cli('replay', 'dlq', '--destination', 'crm', '--yes');
  expect(again.out).toMatch(/confirmed +3 /);
  expect(again.out).toContain('nothing to send');
  expect((await weir.cli('dlq', 'list', '--open')).out).toContain('no dead letters');
  expect((await weir.cli('dlq', 'stats')).out).toMatch(/3 +dispatcher +delivery-rejected +crm/);
  const leaves = JSON.parse((await weir.cli('audit', 'list', '--limit', '1000', '--json')).out).leaves as any[];
  for (const action of ['replay.order', 'replay.start', 'replay.finished']) expect(leaves.map((l) => l.action)).toContain(action);
  expect(leaves.find((l) => l.action === 'replay.start')).toMatchObject({ kind: 'intent', target: id });
});

test('a redrive of a selection sends what it selects and no more, and nothing before it was said yes to', async () => {
  await weir.fault({ destination: 'crm', mode: 'permanent', count: 2 });
  await weir.send('gil');
  await weir.settled();
  const between = new Date(Date.now() + 1).toISOString();
  await waitFor('another millisecond', async () => Date.now() > Date.parse(between));
  await weir.send('hal');
  await weir.settled();
  const looked = await weir.cli('dlq', 'redrive', '--destination', 'crm', '--since', between);
  expect([looked.code, looked.out]).toEqual([0, expect.stringMatching(/1 records would be put back: 1 crm\/put[^]*nothing was started/)]);
  expect([await bodies('gil'), await bodies('hal')]).toEqual([[], []]);
  expect(await weir.cli('dlq', 'redrive', '--destination', 'crm', '--since', between, '--yes')).toMatchObject({ code: 0, out: expect.stringContaining('ended: 1 delivered') });
  expect([await bodies('gil'), (await bodies('hal')).length]).toEqual([[], 1]);
  for (const [args, message] of [[['redrive', '--destination', 'crm', '--open'], /redrive takes no --open/], [['stats', '--since', '1h'], /stats takes no --since/], [['redrive', '--destination', 'crmm'], /no destination crmm/], [['list', '--destination', 'crmm'], /no destination of that name; it has crm/]] as const) {
    const done = await weir.cli('dlq', ...args);
    expect([args.join(' '), done.code, done.out]).toEqual([args.join(' '), 2, '']);
    expect(done.err).toMatch(message);
  }
  expect((await weir.cli('dlq', 'redrive', '--all', '--yes')).code).toBe(0);
  expect(await bodies('gil')).toHaveLength(1);
});

test('what was delivered and the mended mapping would deliver otherwise is shown field by field, sent once as a new intent, and is then the same', async () => {
  await weir.send('eve', 'gold');
  await weir.settled();
  const { files } = (await (await weir.api('/v1/releases/current')).json()) as { files: { path: string; content: string }[] };
  const mended = files.map((f) => (f.path === 'mappings/mine.yaml' ? { ...f, content: mapping('      firstName: traits.plan\n') } : f));
  const applied = (await (await weir.api('/v1/releases', { method: 'POST', body: JSON.stringify({ files: mended }) })).json()) as any;
  await waitFor('the mended release runs', async () => (await weir.status()).release === applied.hash);
  const plain = await weir.cli('replay', 'raw', '--subject', 'email:eve@larkspur.example', '--yes');
  expect(plain.out).toMatch(/confirmed +1 /);
  expect(plain.out).toContain('nothing to send');
  const looked = await weir.cli('replay', 'raw', '--subject', 'email:eve@larkspur.example', '--corrected', '--yes');
  expect(looked.out).toMatch(/mapping and policy of rel_[0-9a-f]{16} were run/);
  expect(looked.out).toContain('firstName: null → "gold"');
  expect(looked.out).toMatch(/finished: 1 selected, 1 put back/);
  expect(await bodies('eve')).toEqual([{ email: 'eve@larkspur.example', plan: 'gold' }, { email: 'eve@larkspur.example', plan: 'gold', first_name: 'gold' }]);
  const again = await weir.cli('replay', 'raw', '--subject', 'email:eve@larkspur.example', '--corrected', '--yes');
  expect(again.out).toContain('nothing to send');
  expect(await bodies('eve')).toHaveLength(2);
  expect(JSON.stringify(await orders())).not.toContain('eve@');
});

test('policy of today holds back what was decided before it, from the dead letters and from dispatch; what may go as it stands goes once', async () => {
  await weir.fault({ destination: 'crm', mode: 'permanent', count: 1 });
  await weir.send('ivy', 'gold');
  await weir.settled();
  const [letter] = await weir.deadLetters('open=true');
  const { files, hash } = (await (await weir.api('/v1/releases/current')).json()) as { files: { path: string; content: string }[]; hash: string };
  async function apply(rule: string): Promise<string> {
    const next = files.map((f) => (f.path === 'policies/all.yaml' ? { ...f, content: `${f.content}${rule}` } : f));
    const applied = (await (await weir.api('/v1/releases', { method: 'POST', body: JSON.stringify({ files: next }) })).json()) as any;
    await waitFor('the release runs', async () => (await weir.status()).release === applied.hash);
    return applied.hash;
  }
  const replayed = async (from: string): Promise<string> => (await weir.cli('replay', from, '--subject', 'email:ivy@larkspur.example', '--yes')).out;
  await apply('  - { name: not-now, effect: deny, purpose: service }\n');
  for (const from of ['dlq', 'dispatch']) expect(await replayed(from)).toMatch(/denied today +1 +consent or policy says no now; skipped[^]*nothing to send/);
  expect(await weir.cli('dlq', 'redrive', letter.id)).toMatchObject({ code: 0, out: expect.stringMatching(/^0 redriven, passed over 1 denied/) });
  await apply('  - { name: less, effect: minimise, fields: [plan] }\n');
  expect(await replayed('dlq')).toMatch(/denied today +1 +.*1 would go with less, or other values, than they carry \(weir replay raw decides anew\)/);
  expect(await bodies('ivy')).toEqual([]);
  await apply('  - { name: elsewhere, effect: deny, when: record.country == "FR" }\n');
  expect(await replayed('dlq')).toMatch(/not applied +1 [^]*ended: 1 delivered/);
  expect(await bodies('ivy')).toHaveLength(1);
  expect(await apply('')).toBe(hash);
});

test('two orders over one range at once, both of which put everything back, take effect once each', async () => {
  const names = Array.from({ length: 20 }, (_, i) => `twin${i}`);
  const before = new Set((await weir.deadLetters('limit=1000')).map((l) => l.id));
  await weir.fault({ destination: 'crm', mode: 'permanent', count: names.length });
  await Promise.all(names.map((name) => weir.send(name)));
  await weir.settled();
  const ids = (await weir.deadLetters('limit=1000')).map((l) => l.id).filter((id) => !before.has(id));
  expect(ids).toHaveLength(names.length);
  const call = async (path: string, body?: unknown): Promise<any> => (await weir.api(path, body === undefined ? undefined : { method: 'POST', body: JSON.stringify(body) })).json();
  // Neither sees what the other one delivers: all that both put back stands on the topic.
  await call('/v1/destinations/crm/pause', { reason: 'two orders' });
  const both = await Promise.all([1, 2].map(() => call('/v1/replays', { from: 'dlq', ids, start: true })));
  const state = async (wanted: string): Promise<any[]> => {
    await waitFor(`both are ${wanted}`, async () => (await Promise.all(both.map(({ id }) => call(`/v1/replays/${id}`)))).every((o) => o.state === wanted));
    return Promise.all(both.map(({ id }) => call(`/v1/replays/${id}`)));
  };
  expect((await state('delivering')).map((o) => o.counts.requeued)).toEqual([names.length, names.length]);
  await call('/v1/destinations/crm/resume', {});
  await state('finished');
  expect((await Promise.all(names.map(bodies))).map((list) => list.length)).toEqual(names.map(() => 1));
});

test('an older update that died is superseded by the newer one that was delivered: the replay does not roll the person back', async () => {
  await weir.fault({ destination: 'crm', mode: 'permanent', count: 1, subject: 'fay@larkspur.example' });
  await weir.send('fay', 'old');
  await weir.settled();
  await weir.send('fay', 'new');
  await weir.settled();
  const looked = await weir.cli('replay', 'dlq', '--subject', 'email:fay@larkspur.example', '--yes');
  expect(looked.out).toMatch(/superseded +1 /);
  expect((await bodies('fay')).map((b) => b.plan)).toEqual(['new']);
});

test('of two updates that came in one request, the first one that died is superseded by the second', async () => {
  await weir.fault({ destination: 'crm', mode: 'permanent', count: 1, subject: 'flo@larkspur.example' });
  const call = (plan: string): object => ({ type: 'identify', messageId: `flo-${plan}`, userId: 'flo', timestamp: '2026-03-04T05:06:07Z', traits: { email: 'flo@larkspur.example', plan } });
  expect((await weir.segment('batch', { batch: [call('old'), call('new')] })).ok).toBe(true);
  await weir.settled();
  expect((await bodies('flo')).map((b) => b.plan)).toEqual(['new']);
  const [letter] = (await weir.deadLetters('destination=crm&code=delivery-rejected&open=true')).filter((l) => l.now === 'open');
  expect((await weir.cli('replay', 'dlq', '--subject', 'email:flo@larkspur.example', '--yes')).out).toMatch(/superseded +1 /);
  expect((await weir.cli('dlq', 'redrive', letter.id)).code).toBe(0);
  await weir.settled();
  expect((await bodies('flo')).map((b) => b.plan)).toEqual(['new']);
});

test('what a vendor has is not sent again when the record goes back for a new destination, though the release that brings it knows the person by another identifier', async () => {
  const destination = (name: string): { path: string; content: string } => ({ path: `destinations/${name}.yaml`, content: `adapter: http\nconfig:\n  baseUrl: sandbox://${name}\n  operations:\n    put:\n      accepts: [Order]\n      path: /orders\n      body: { email: "{{record.email}}", order: "{{record.orderId}}" }\n      idempotency: { scheme: none, pastWindow: hold }\nroutes:\n  - { on: Order, operation: put, purpose: service }\n` });
  const { files } = (await (await weir.api('/v1/releases/current')).json()) as { files: { path: string; content: string }[] };
  async function apply(next: readonly { path: string; content: string }[]): Promise<void> {
    const applied = (await (await weir.api('/v1/releases', { method: 'POST', body: JSON.stringify({ files: next }) })).json()) as any;
    await waitFor('the release runs', async () => (await weir.status()).release === applied.hash);
  }
  await apply([...files.map((f) => (f.path === 'mappings/mine.yaml' ? { ...f, content: f.content.replace('      userId: userId\n', '') } : f)), destination('stock')]);
  // Keyed identifiers differ by the run: of several people some have their two subjects on two partitions.
  const names = ['jan', 'jim', 'joy', 'jot'];
  for (const name of names) expect((await weir.segment('track', { event: 'Order Updated', messageId: `moved-${name}`, userId: name, timestamp: '2026-03-04T05:06:07Z', properties: { order_id: name, status: 'placed', email: `${name}@larkspur.example` } })).ok).toBe(true);
  await weir.settled();
  const taken = async (of: string): Promise<string[]> => (await Promise.all(names.map(async (name) => (await weir.effectsOf(of, name)).map(({ body }) => body.order as string)))).flat();
  expect(await taken('stock')).toEqual(names);
  await apply([...files, destination('stock'), destination('books')]);
  for (const name of names) expect((await weir.cli('replay', 'raw', '--subject', `email:${name}@larkspur.example`, '--yes')).out).toMatch(/confirmed +3 [^]*ended: 1 delivered/);
  await weir.settled();
  expect([await taken('books'), await taken('stock')]).toEqual([names, names]);
  await apply(files);
});

test('an order that died is put back though a later order of the person was delivered; not when that was the same order', async () => {
  const track = async (order_id: string, status: string): Promise<void> => {
    expect((await weir.segment('track', { event: 'Order Updated', messageId: `${order_id}-${status}`, userId: 'gil', timestamp: '2026-03-04T05:06:07Z', properties: { order_id, status, email: 'gil@larkspur.example' } })).ok).toBe(true);
    await weir.settled();
  };
  await weir.fault({ destination: 'till', mode: 'permanent', count: 2, subject: 'gil@larkspur.example' });
  await track('one', 'placed');
  await track('two', 'placed');
  await track('two', 'paid');
  const told = async (): Promise<string[]> => (await weir.effectsOf('till', 'gil')).map(({ body }) => `${body.order} ${body.status}`).sort();
  expect(await told()).toEqual(['two paid']);
  const looked = await weir.cli('replay', 'dlq', '--destination', 'till', '--yes');
  expect(looked.out).toMatch(/superseded +1 /);
  expect(looked.out).toMatch(/not applied +1 /);
  await weir.settled();
  expect(await told()).toEqual(['one placed', 'two paid']);
  for (const letter of await weir.deadLetters('destination=till&code=delivery-rejected')) expect((await weir.cli('dlq', 'redrive', letter.id)).code).toBe(0);
  await weir.settled();
  expect(await told()).toEqual(['one placed', 'two paid']);
});
