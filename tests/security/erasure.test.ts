import { join, resolve } from 'node:path';
import { createLog, createSerde, type Log, type LogRecord, type OutRecord, type Serde } from '@weir/log';
import { isSealed, linkValue, openIdentifiers, sealedSerde } from '@weir/seal';
import { readKeys, startFleet, waitFor, type Fleet } from '@weir/testing';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
let fleet: Fleet;
let log: Log;
let serde: Serde;
let receipt: any;
let n = 0;
const ada = { userId: 'erase-ada', email: 'ada.erase@larkspur.example' };
const bob = { userId: 'keep-bob', email: 'bob.keep@larkspur.example' };

beforeAll(async () => {
  fleet = await startFleet({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: join(root, 'workspace') });
  log = createLog({ brokers: inject('brokers'), clientId: 'erasure-test' });
  serde = createSerde({ registryUrl: inject('registryUrl') });
  await serde.start();
});
afterAll(async () => {
  await fleet?.dispose();
  await log?.close();
});

async function send(person: typeof ada, plan: string): Promise<void> {
  const response = await fleet.segment('identify', { messageId: `e-${n++}`, userId: person.userId, timestamp: new Date(Date.UTC(2026, 2, 4) + n * 1000).toISOString(), traits: { email: person.email, plan, marketingConsent: true } });
  expect(response.status).toBe(200);
}
const arrivals = async (): Promise<any[]> => (await Promise.all(['crm', 'klaviyo', 'warehouse', 'newsletter'].map(async (d) => (await (await fetch(`${fleet.sandbox}/arrivals?destination=${d}`)).json()) as any[]))).flat();
const of = (list: any[], person: typeof ada): any[] => list.filter((a) => JSON.stringify([a.subject, a.body, a.operation]).includes(person.email) || JSON.stringify([a.subject, a.body]).includes(person.userId));
const erasing = (a: any): boolean => ['data-privacy-deletion-jobs', 'erasures'].includes(a.operation) || String(a.operation).includes('@');
const api = (path: string, body?: object): Promise<Response> => fetch(`http://127.0.0.1:${fleet.base + 1}${path}`, { method: body === undefined ? 'GET' : 'POST', headers: { authorization: `Bearer ${fleet.secret('ADMIN_TOKEN')}`, 'content-type': 'application/json' }, body: body === undefined ? undefined : JSON.stringify(body) });
async function records(topic: string): Promise<{ partition: number; record: LogRecord }[]> {
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  const found: { partition: number; record: LogRecord }[] = [];
  for (const [partition, end] of await admin.endOffsets(topic)) await reader.read(topic, partition, 0, end, (batch) => { for (const record of batch.records) found.push({ partition, record }); });
  await reader.close();
  return found;
}
test('what is known of a person is shown and exported, under each of their identifiers', async () => {
  for (const plan of ['free', 'gold']) for (const person of [ada, bob]) await send(person, plan);
  // Refused for good once: a replay would send them again, under a new key.
  for (const person of [ada, bob]) {
    await fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ destination: 'crm', mode: 'permanent', count: 1, subject: person.email }) });
    await send(person, 'silver');
    await fleet.settled();
  }
  for (const identifier of [ada.email, `userId:${ada.userId}`]) {
    const shown = (await (await api('/v1/subjects/show', { identifier, linked: 'all' })).json()) as any;
    expect(shown).toMatchObject({ erasedUntil: null, leftOut: [], records: { readable: expect.any(Number) } });
    expect(shown.ids).toHaveLength(2);
    expect(shown.records.readable).toBeGreaterThanOrEqual(2);
    expect(shown.destinations.map((d: any) => d.destination)).toEqual(['crm', 'klaviyo', 'newsletter', 'warehouse']);
    expect(shown.purposes).toContainEqual({ purpose: 'email-marketing', channel: 'email', allowed: true, reason: null });
  }
  const exported = await fleet.cli('subject', 'export', ada.email, '--linked', 'all');
  expect(exported.code).toBe(0);
  const lines = exported.out.trim().split('\n').map((line) => JSON.parse(line));
  expect(lines.filter((l) => l.type === 'weir.canonical.Profile').map((l) => l.record.plan)).toEqual(['free', 'gold', 'silver']);
  expect(exported.out).not.toContain(bob.email);
  expect(lines.filter((l) => l.link !== undefined).map((l) => l.link)).toEqual([{ userId: ada.userId, email: ada.email, phone: null }]);
  expect(lines.filter((l) => l.delivery !== undefined).map((l) => l.delivery.destination)).toEqual(['crm', 'klaviyo', 'newsletter', 'warehouse']);
  expect(lines.filter((l) => l.change?.purpose === 'email-marketing').map((l) => [l.change.state, l.change.email])).toContainEqual(['granted', ada.email]);
  expect(lines.filter((l) => l.state?.purpose === 'email-marketing').map((l) => [l.state.state, l.state.source])).toContainEqual(['granted', 'segment']);
});

test('a proof stands with the state of a channel while the person is there', async () => {
  for (const person of [ada, bob]) {
    const given = await fleet.cli('consent', 'set', person.email, '--purpose', 'email-marketing', '--channel', 'email', '--topic', 'weekly', '--state', 'granted', '--proof', `form signed by ${person.userId}, 203.0.113.7`);
    expect(given).toMatchObject({ code: 0 });
  }
  await fleet.settled();
  for (const person of [ada, bob]) expect((await fleet.cli('consent', 'show', person.email, '--json')).out).toContain(`form signed by ${person.userId}`);
});

test('a bad identifier is refused, and nobody without the role may look or erase', async () => {
  for (const identifier of ['ada', 'mail:ada@larkspur.example', 'external:x', 'userId:   ', 'phone:030 90018']) expect((await api('/v1/subjects/erase', { identifier })).status, identifier).toBe(400);
  const { token } = (await (await api('/v1/tokens', { name: 'viewer', grants: ['viewer'], days: 1 })).json()) as { token: string };
  const asViewer = await fetch(`http://127.0.0.1:${fleet.base + 1}/v1/subjects/show`, { method: 'POST', headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' }, body: JSON.stringify({ identifier: ada.email }) });
  expect(asViewer.status).toBe(403);
  expect(await fleet.cli('subject', 'erase', ada.email)).toMatchObject({ code: 2, err: expect.stringContaining('--yes') });
});

test('one whom nobody knows is not acknowledged as erased, and no destination is told', async () => {
  expect(await fleet.cli('subject', 'erase', 'phone:+49 30 90018 20', '--yes', '--json')).toMatchObject({ code: 1, err: expect.stringContaining('nobody is known'), out: expect.stringContaining('"state":"unknown"') });
  expect((await arrivals()).filter(erasing)).toEqual([]);
});

test('an erasure is acknowledged with a receipt, also when the control service is killed on the way', async () => {
  const ordered = (await (await api('/v1/subjects/erase', { identifier: ada.email, linked: 'all' })).json()) as any;
  await fleet.restart('control');
  receipt = await waitFor('every destination has erased', async () => {
    const found = (await (await api(`/v1/erasures/${ordered.id}`)).json()) as any;
    return found.state === 'done' ? found : undefined;
  }, 80_000);
  expect(receipt.erasedAt).not.toBeNull();
  expect(receipt.keysDestroyed).toBeGreaterThan(0);
  expect(receipt.recordsUnreadable).toBeGreaterThanOrEqual(2);
  expect(Date.parse(receipt.rawUntil)).toBeGreaterThan(Date.now() + 29 * 86_400_000);
  expect(receipt.destinations.map((d: any) => [d.destination, d.operation, d.state]).sort()).toEqual([['crm', 'erase-contact', 'delivered'], ['klaviyo', 'delete-profile', 'delivered'], ['newsletter', 'erase-subscriber', 'delivered'], ['warehouse', 'erase', 'delivered']]);
  expect(of(await arrivals(), ada).filter(erasing)).toHaveLength(4);
  // The order before anything, the acknowledgement once the keys are gone.
  const { leaves } = (await (await api('/v1/audit/leaves?limit=1000')).json()) as { leaves: { bytes: string }[] };
  const told = leaves.map((l) => JSON.parse(Buffer.from(l.bytes, 'base64').toString()));
  expect(told.filter((l) => l.id === ordered.id)).toMatchObject([{ kind: 'intent', action: 'subject.erase' }]);
  expect(told.filter((l) => l.of === ordered.id && l.action === 'subject.erased')).toContainEqual(expect.objectContaining({ kind: 'fact', actor: 'control', details: { keysDestroyed: receipt.keysDestroyed, recordsUnreadable: receipt.recordsUnreadable, recordsReadable: 0 } }));
  expect(JSON.stringify(told)).not.toContain(ada.email);
});

test('nothing of the person opens any more, by a reader that begins anew; the other one is whole', async () => {
  const ring = await readKeys({ log, serde, prefix: fleet.prefix, dataDir: fleet.dataDir });
  try {
    let opened = 0;
    for (const { record } of await records(`${fleet.prefix}.canonical`)) {
      const plain = isSealed(record.value!) ? ring.open(record.value!) : record.value!;
      if (plain === undefined) continue;
      opened++;
      expect(plain.includes(ada.email)).toBe(false);
      expect(plain.includes(ada.userId)).toBe(false);
    }
    expect(opened).toBeGreaterThanOrEqual(2);
    // Nor what links keep of her: theirs are there, and sealed under keys that are gone.
    const kept = (await records(`${fleet.prefix}.identity`)).flatMap(({ record }) => linkValue(serde, record.value)?.sealed ?? []);
    const clear = kept.map((sealed) => openIdentifiers(sealedSerde(serde, ring), sealed));
    expect(clear.filter((of) => of === undefined).length).toBeGreaterThan(0);
    expect(clear.filter((of) => of !== undefined).map((of) => [of!.userId, of!.email])).toContainEqual([bob.userId, bob.email]);
    expect(JSON.stringify(clear)).not.toContain(ada.email);
    expect(JSON.stringify(clear)).not.toContain(ada.userId);
  } finally {
    await ring.stop();
  }
  const exported = await fleet.cli('subject', 'export', ada.email, '--linked', 'all');
  expect(exported.out.includes('"record":{')).toBe(false);
  expect(exported.out.includes('"link":{')).toBe(false);
  expect((await fleet.cli('subject', 'export', bob.email, '--linked', 'all')).out).toContain('gold');
  expect((await (await api('/v1/subjects/show', { identifier: ada.email, linked: 'all' })).json()) as any).toMatchObject({ records: { readable: 0 }, erasedUntil: receipt.markedAt });
});

test('no state of consent has the proof of the erased person, on the topic or in the answer; that of the other one stays', async () => {
  const newest = new Map<string, string>();
  for (const { record } of await records(`${fleet.prefix}.consent`)) newest.set(record.key!.toString(), record.value?.toString('latin1') ?? '');
  expect([...newest.values()].filter((value) => value.includes('signed by')).map((value) => [value.includes(ada.userId), value.includes(bob.userId)])).toEqual([[false, true]]);
  expect((await fleet.cli('consent', 'show', ada.email, '--json')).out).not.toContain('signed by');
  expect((await fleet.cli('consent', 'show', bob.email, '--json')).out).toContain(`form signed by ${bob.userId}`);
});

test('a replay of the whole history sends nothing of the person', async () => {
  const before = of(await arrivals(), ada).length;
  const appender = await log.appender();
  for (const topic of ['raw.segment', 'canonical', ...['crm', 'klaviyo', 'warehouse', 'newsletter'].map((d) => `dispatch.${d}`)].map((name) => `${fleet.prefix}.${name}`)) {
    await appender.partitions(topic);
    const again = (await records(topic)).map(({ partition, record }): OutRecord => ({ partition, key: record.key, value: record.value, headers: [...record.headers.filter(([name]) => name !== 'weir-intent'), ['weir-intent', Buffer.from('replay_test')]] }));
    await appender.append(topic, again);
  }
  await send(bob, 'platinum');
  await fleet.settled();
  await waitFor('what came behind it is through', async () => of(await arrivals(), bob).some((a) => JSON.stringify(a.body).includes('platinum')));
  const added = of(await arrivals(), ada).slice(before).filter((a) => !erasing(a));
  expect(added).toEqual([]);
  // The replay itself works: what was refused of the other one is sent now.
  expect(of((await arrivals()).filter((a) => a.applied && a.destination === 'crm'), bob).map((a) => a.body.plan)).toContain('silver');
});

test('one who comes back is a new person to Weir: the record opens, and nothing is used before a new consent', async () => {
  const before = of(await arrivals(), ada).filter((a) => !erasing(a)).length;
  const response = await fleet.segment('identify', { messageId: 'back-1', userId: ada.userId, timestamp: new Date().toISOString(), traits: { email: ada.email, plan: 'back' } });
  expect(response.status).toBe(200);
  await fleet.settled();
  const shown = (await (await api('/v1/subjects/show', { identifier: ada.email, linked: 'all' })).json()) as any;
  expect(shown.records.readable).toBe(1);
  expect(shown.purposes.every((p: any) => !p.allowed)).toBe(true);
  expect(of(await arrivals(), ada).filter((a) => !erasing(a))).toHaveLength(before);
});

test('a record for the destinations that the mark of a later erasure overtakes is decided for each of them all the same', async () => {
  const event = `evt_${'5'.repeat(32)}`;
  const accepted = Date.parse(receipt.markedAt) - 1;
  const value = serde.encode('weir.canonical.Erasure', { id: 'out_overtaken', source: 'weir-erasure', objectKey: null, occurredAt: accepted, userId: ada.userId, anonymousId: null, email: ada.email, phone: null, externalIds: [], erasure: 'leaf_0', deadline: accepted, extras: null });
  const headers = Object.entries({ event, hash: '5'.repeat(32), source: 'weir-erasure', accepted: String(accepted), release: 'rel', mapping: 'weir-erasure', output: 'out_overtaken', 'output-name': 'erasure', ids: receipt.ids.join(',') }).map(([name, text]) => [`weir-${name}`, Buffer.from(text)] as const);
  const appender = await log.appender();
  await appender.partitions(`${fleet.prefix}.canonical`);
  const key = Buffer.from(receipt.ids[0]);
  await appender.append(`${fleet.prefix}.canonical`, [{ partition: appender.partitionFor(`${fleet.prefix}.canonical`, key), key, value, headers }]);
  const decided = await waitFor('it is decided', async () => {
    const trace = (await (await api(`/v1/events/${event}/trace`)).json()) as any;
    return trace.stages?.filter((s: any) => s.stage === 'decided').length > 0 ? trace.stages.filter((s: any) => s.stage === 'decided') : undefined;
  });
  expect(decided.map((s: any) => s.destination)).not.toContain(null);
  await fleet.settled();
});

test('what was accepted after the erasure and sealed under the key of before it is a dead letter, and not taken for erased', async () => {
  const topic = `${fleet.prefix}.canonical`;
  const ring = await readKeys({ log, serde, prefix: fleet.prefix, dataDir: fleet.dataDir });
  const { partition, record } = (await records(topic)).find(({ record: r }) => isSealed(r.value!) && ring.open(r.value!) === undefined && r.headers.some(([name, value]) => name === 'weir-source' && value.toString() === 'segment'))!;
  await ring.stop();
  const [late, covered] = [1, 0].map((ms) => ({ event: `evt_${String(6 + ms).repeat(32)}`, accepted: String(Date.parse(receipt.markedAt) + ms) }));
  const own = ({ event, accepted }: { event: string; accepted: string }): OutRecord => ({ partition, key: record.key, value: record.value, headers: [...record.headers.filter(([name]) => name !== 'weir-event' && name !== 'weir-accepted'), ['weir-event', Buffer.from(event)], ['weir-accepted', Buffer.from(accepted)]] });
  const appender = await log.appender();
  await appender.partitions(topic);
  await appender.append(topic, [own(late!), own(covered!)]);
  const endOf = (event: string) => waitFor('its end', async () => ((await (await api(`/v1/events/${event}/trace`)).json()) as any).stages?.find((s: any) => s.stage === 'outcome'));
  expect(await endOf(late!.event)).toMatchObject({ state: 'dead-lettered', reason: 'key-destroyed' });
  expect(await endOf(covered!.event)).toMatchObject({ state: 'denied', reason: 'subject-erased' });
  await fleet.settled();
});

test('whoever sends the address of somebody with the public key is not told of her, and is erased without her', async () => {
  const mia = { userId: 'keep-mia', email: 'mia.keep@larkspur.example' };
  await send(mia, 'gold');
  expect((await fleet.segment('identify', { messageId: `e-${n++}`, userId: 'erase-eve', timestamp: new Date(Date.UTC(2026, 2, 4) + n * 1000).toISOString(), traits: { email: mia.email } })).status).toBe(200);
  await fleet.settled();
  const [theirs, hers] = await Promise.all(['userId:erase-eve', `userId:${mia.userId}`].map(async (identifier) => (await (await api('/v1/subjects/show', { identifier })).json()) as any));
  expect([theirs.ids.length, theirs.leftOut.length, hers.ids.includes(theirs.ids[0])]).toEqual([1, 1, false]);
  const exported = await fleet.cli('subject', 'export', 'userId:erase-eve');
  expect([exported.code, exported.err]).toEqual([0, expect.stringContaining('--linked all')]);
  expect(JSON.parse(exported.out.split('\n')[0]!)).toEqual({ leftOut: theirs.leftOut });
  expect(exported.out).not.toContain(mia.userId);
  // By every link she is his, which is why nobody follows them unasked.
  expect((await fleet.cli('subject', 'export', 'userId:erase-eve', '--linked', 'all')).out).toContain(mia.userId);
  const erased = await fleet.cli('subject', 'erase', 'userId:erase-eve', '--yes', '--json');
  expect([erased.code, JSON.parse(erased.out)]).toMatchObject([0, { ids: theirs.ids, leftOut: theirs.leftOut, everyLink: false }]);
  await fleet.settled();
  expect(of(await arrivals(), mia).filter(erasing)).toEqual([]);
  const after = (await (await api('/v1/subjects/show', { identifier: mia.email, linked: 'all' })).json()) as any;
  expect(after.records.readable).toBeGreaterThanOrEqual(2);
  expect((await fleet.cli('subject', 'export', `userId:${mia.userId}`)).out).toContain('gold');
});

test('of two addresses of a person destinations are told by both, once each, and the erasure ends when each has ended', async () => {
  const cleo = { userId: 'erase-cleo', email: 'cleo.new@larkspur.example' };
  const old = 'cleo.old@larkspur.example';
  await send({ ...cleo, email: old }, 'free');
  await send(cleo, 'gold');
  await fleet.settled();
  const ordered = (await (await api('/v1/subjects/erase', { identifier: `userId:${cleo.userId}`, linked: 'all' })).json()) as any;
  const done = await waitFor('every destination has erased', async () => {
    const found = (await (await api(`/v1/erasures/${ordered.id}`)).json()) as any;
    return found.state === 'done' ? found : undefined;
  }, 80_000);
  const by = `(by ${done.ids.find((id: string) => id.startsWith('email:') && done.destinations.some((d: any) => d.operation.endsWith(`(by ${id.slice(0, 12)})`))).slice(0, 12)})`;
  const operations = [['crm', 'erase-contact'], ['klaviyo', 'delete-profile'], ['newsletter', 'erase-subscriber'], ['warehouse', 'erase']];
  expect(done.destinations.map((d: any) => [d.destination, d.operation, d.state])).toEqual(expect.arrayContaining(operations.flatMap(([destination, operation]) => [[destination, operation, 'delivered'], [destination, `${operation} ${by}`, 'delivered']])));
  expect([done.unnamed, done.destinations.length]).toEqual([[], 8]);
  const calls = (await arrivals()).filter(erasing);
  const told = (email: string): number => calls.filter((a) => JSON.stringify([a.subject, a.body, a.operation]).includes(email)).length;
  expect([told(old), told(cleo.email)]).toEqual([4, 4]);
  // As the topic is declared: two days after the acknowledgement.
  expect(done.wordsUntil).toBe(new Date(Date.parse(done.erasedAt) + 2 * 86_400_000).toISOString());
});

test('what an ingest whose clock is ahead had accepted before an erasure goes with it, though it is normalised after it', async () => {
  const carol = { userId: 'erase-carol', email: 'carol.erase@larkspur.example' };
  const topic = `${fleet.prefix}.raw.segment`;
  await send(carol, 'free');
  await fleet.settled();
  const { partition, record } = (await records(topic)).reduce((a, b) => (b.record.timestamp > a.record.timestamp ? b : a));
  const normalizer = fleet.process('normalizer');
  const ended = new Promise((done) => normalizer.once('exit', done));
  normalizer.kill('SIGKILL');
  await ended;
  const event = `evt_${'8'.repeat(32)}`;
  const stands: Record<string, string> = { 'weir-event': event, 'weir-accepted': String(Date.now() + 600_000) };
  const appender = await log.appender();
  await appender.partitions(topic);
  await appender.append(topic, [{ partition, key: record.key, value: record.value, headers: record.headers.map(([name, value]) => [name, stands[name] === undefined ? value : Buffer.from(stands[name])] as const) }]);
  const ordered = (await (await api('/v1/subjects/erase', { identifier: carol.email, linked: 'all' })).json()) as any;
  await waitFor('the erasure is acknowledged', async () => {
    const { state } = (await (await api(`/v1/erasures/${ordered.id}`)).json()) as any;
    if (!['erased', 'done'].includes(state)) throw new Error(state);
    return true;
  }, 60_000);
  await fleet.start('normalizer');
  const decided = await waitFor('it is decided', async () => ((await (await api(`/v1/events/${event}/trace`)).json()) as any).stages?.find((s: any) => s.stage === 'outcome'));
  expect(decided).toMatchObject({ reason: 'subject-erased' });
  expect((await records(`${fleet.prefix}.canonical`)).filter(({ record: r }) => r.headers.some(([name, value]) => name === 'weir-event' && value.toString() === event))).toEqual([]);
  await fleet.settled();
});
