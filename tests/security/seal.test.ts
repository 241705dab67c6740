import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createLog, createSerde, type Log, type LogAdmin } from '@weir/log';
import { createKeyRing, expiredRawOwners, seal, sealedBy, sealedSerde, type KeyRing } from '@weir/seal';
import { startInstance, testPrefix, type Instance } from '@weir/testing';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';

const dir = mkdtempSync(join(tmpdir(), 'weir-seal-'));
const topic = `${testPrefix('seal')}.keys`;
const workspaceKey = randomBytes(32);
const logger = pino({ level: 'silent' });
const rings: KeyRing[] = [];
const serde = createSerde({ registryUrl: inject('registryUrl') });
let log: Log;
let admin: LogAdmin;

async function ring(name: string, options: { key?: Buffer } = {}): Promise<KeyRing> {
  const made = await createKeyRing({ log, serde, topic, workspaceKey: options.key ?? workspaceKey, stateDir: join(dir, name), logger, now: Date.now }, (error) => { throw error; });
  rings.push(made);
  await made.start();
  return made;
}
const record = (email: string): Buffer => serde.encode('weir.canonical.Profile', { id: 'o', source: 's', occurredAt: 1, email });

beforeAll(async () => {
  await serde.start();
  log = createLog({ brokers: inject('brokers'), clientId: 'seal-test' });
  admin = await log.admin();
  await admin.createTopics([{ name: topic, partitions: 3, replicationFactor: 1, config: { 'cleanup.policy': 'compact' } }]);
});
afterAll(async () => {
  await Promise.all(rings.map((r) => r.stop()));
  await log?.close();
  rmSync(dir, { recursive: true, force: true });
});

test('what one instance seals another opens, also when it has not read the key yet; every instance comes to seal with the same key', async () => {
  const [a, b] = await Promise.all([ring('a'), ring('b')]);
  const owners = Array.from({ length: 50 }, (_, i) => `email:owner-${i}`);
  // Both make keys for the same owners at once.
  await Promise.all([a.ensure(owners), b.ensure(owners), a.ensure(owners)]);
  for (const owner of owners) {
    const sealed = seal(a.current(owner)!, record(`${owner}@larkspur.example`));
    const reading = sealedSerde(serde, b);
    if (!reading.known(sealed)) await reading.prepare(sealed);
    expect(reading.decode(sealed).value.email).toBe(`${owner}@larkspur.example`);
  }
  await Promise.all([a.readToEnd(), b.readToEnd()]);
  for (const owner of owners) expect(a.current(owner)!.id).toEqual(b.current(owner)!.id);
});

test('a destroyed key opens nothing any more, in the process that made it, in others, and after a restart from an empty folder', async () => {
  const [a, b] = [await ring('c'), await ring('d')];
  await a.ensure(['email:gone', 'email:stays']);
  await b.readToEnd();
  const sealed = seal(a.current('email:gone')!, record('gone@larkspur.example'));
  const kept = seal(a.current('email:stays')!, record('stays@larkspur.example'));
  expect(b.open(sealed)).toBeDefined();
  expect(await b.destroy(['email:gone', 'email:never'])).toBe(1);
  await a.readToEnd();
  const fresh = await ring('e');
  for (const r of [a, b, fresh]) {
    expect(r.open(sealed)).toBeUndefined();
    expect(r.byId(sealedBy(sealed))).toBeUndefined();
    expect(r.current('email:gone')).toBeUndefined();
    expect(r.open(kept)).toBeDefined();
    await sealedSerde(serde, r).prepare(sealed);
    expect(() => sealedSerde(serde, r).decode(sealed)).toThrow(expect.objectContaining({ code: 'subject-erased' }));
  }
});

test('bytes that somebody changed are refused when they are decoded; who only asks whether they can be read is told yes', async () => {
  const a = await ring('k');
  await a.ensure(['email:k']);
  const sealed = Buffer.from(seal(a.current('email:k')!, record('k@larkspur.example')));
  sealed[40]! ^= 1;
  const reading = sealedSerde(serde, a);
  expect(reading.known(sealed)).toBe(true);
  await reading.prepare(sealed);
  expect(() => reading.decode(sealed)).toThrow(expect.objectContaining({ code: 'avro-undecodable' }));
});

test('a mark of erasure is seen by every instance, holds for each identifier, and says until when', async () => {
  const [a, b] = [await ring('f'), await ring('g')];
  await a.markErased(['email:m1', 'userId:m1'], 5000, 'leaf_1');
  // Who wrote it has it, whatever a broker tells as the end.
  expect(a.erasedUntil(['email:m1'])).toBe(5000);
  await b.waitFor(a.positions());
  expect(b.erasedUntil(['phone:x', 'userId:m1'])).toBe(5000);
  expect(b.erasedUntil(['phone:x'])).toBe(0);
});

test('what comes after a mark of erasure is sealed under a key that the erasure leaves, also when it comes before the old one is destroyed', async () => {
  const [a, b] = [await ring('l'), await ring('m')];
  await a.ensure(['email:n', 'email:o']);
  await b.readToEnd();
  const before = seal(b.current('email:n')!, record('n@larkspur.example'));
  await a.markErased(['email:n', 'email:never'], 5000, 'leaf_2');
  await b.readToEnd();
  expect([b.current('email:n'), b.open(before) !== undefined, b.current('email:o') !== undefined]).toEqual([undefined, true, true]);
  await b.ensure(['email:n', 'email:never']);
  const after = seal(b.current('email:n')!, record('n@larkspur.example'));
  const told: unknown[] = [];
  // Before it goes, so that a step that is repeated behind a crash can count it.
  expect(await a.destroy(['email:n', 'email:o', 'email:never'], 'marked', async (count) => { told.push(count, a.open(before) !== undefined); })).toBe(1);
  expect(told).toEqual([1, true]);
  const fresh = await ring('n');
  await b.readToEnd();
  for (const r of [a, b, fresh]) {
    expect([r.open(before), r.open(after) !== undefined, r.current('email:n')?.id.equals(b.current('email:n')!.id)]).toEqual([undefined, true, true]);
    expect(r.erasedUntil(['email:n'])).toBe(5000);
  }
});

test('a key under another workspace key is refused with its name', async () => {
  const all = await ring('h');
  await all.ensure(['raw/shop/2026-01-01', 'raw/shop/2026-03-01', 'email:h']);
  const some = await ring('i');
  expect([...some.owners('raw/')]).toEqual(['raw/shop/2026-01-01', 'raw/shop/2026-03-01']);
  const day = 86_400_000;
  expect(expiredRawOwners(some, () => 7 * day, Date.parse('2026-01-10T00:00:00Z') - 1)).toEqual([]);
  expect(expiredRawOwners(some, () => 7 * day, Date.parse('2026-01-10T00:00:00Z'))).toEqual(['raw/shop/2026-01-01']);
  const wrong = await ring('j', { key: randomBytes(32) });
  expect(() => wrong.current('email:h')).toThrow(/email:h cannot be opened: WEIR_KEY/);
});

test('no e-mail address, phone number or user id of a sent event is on any topic of Weir', async () => {
  let weir: Instance | undefined;
  try {
    weir = await startInstance({ brokers: inject('brokers'), registryUrl: inject('registryUrl'), workspace: resolve(import.meta.dirname, '../../workspace') });
    const planted = { email: 'Planted.Person@larkspur.example', userId: 'planted-user-7781', phone: '+4930990017' };
    const bodies = [
      { type: 'identify', messageId: 's-1', userId: planted.userId, timestamp: '2026-03-04T05:06:07Z', traits: { email: planted.email, phone: planted.phone, marketingConsent: true } },
      { type: 'track', messageId: 's-2', userId: planted.email, event: 'Product Viewed', timestamp: '2026-03-04T05:06:08Z', properties: { note: planted.phone } },
      // The mapping cannot take it: its bytes go to the dead letters.
      { type: 'identify', messageId: 's-3', userId: planted.userId, timestamp: '2026-03-04T05:06:09Z', traits: { email: 'not an address', plan: { nested: [planted.email] } } },
    ];
    const response = await weir.segment('batch', { batch: bodies, context: { traits: { email: planted.email } } });
    expect(response.status).toBe(200);
    await weir.settled();
    expect((await weir.effects('crm')).length).toBeGreaterThan(0);
    const needles = Object.values(planted).flatMap((text) => [text, text.toLowerCase()]);
    const reader = await log.reader();
    let looked = 0;
    for (const name of (await admin.listTopics()).filter((t) => t.startsWith(`${weir!.prefix}.`))) {
      for (const [partition, end] of await admin.endOffsets(name)) {
        await reader.read(name, partition, 0, end, (batch) => {
          for (const r of batch.records) {
            looked++;
            for (const bytes of [r.key, r.value, ...r.headers.map(([, value]) => value)]) for (const needle of needles) if (bytes?.includes(needle)) throw new Error(`${needle} stands on ${name}/${partition}@${r.offset}`);
          }
        });
      }
    }
    expect(looked).toBeGreaterThan(20);
  } finally {
    await weir?.dispose();
  }
});
