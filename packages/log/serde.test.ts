import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { arm, disarm } from '@weir/failpoint';
import { loadSchemas } from '@weir/schemas';
import { expect, test } from 'vitest';
import { createSerde } from './serde.ts';

const status = (code: number): Error => Object.assign(new Error(`status ${code}`), { status: code });
const unknownId = Buffer.from([0, 0, 0, 0xff, 0xff, 1]);

async function prepared(lookUp: number, own: number | undefined): Promise<string | undefined> {
  let ids = 0;
  const serde = createSerde({ registryUrl: 'http://registry', registry: {
    register: async () => ({ id: ++ids }), getSchema: () => Promise.reject(status(lookUp)), getLatestSchemaId: () => (own === undefined ? Promise.resolve(1) : Promise.reject(status(own))),
  } });
  await serde.start();
  return serde.prepare(unknownId).then(() => undefined, (error: { code?: string }) => error.code);
}

test('a schema is unknown only where the registry that our schemas are in says so: a refusal, an outage, and a 404 to everything are to be waited for', async () => {
  expect(await prepared(404, undefined)).toBe('schema-unknown');
  // It knows who we are, and lets us read no subject.
  expect(await prepared(404, 403)).toBe('schema-unknown');
  for (const [lookUp, own] of [[404, 404], [404, 502], [401, undefined], [403, undefined], [429, undefined], [500, undefined]] as const) expect(await prepared(lookUp, own)).toBe('log-unavailable');
});

/** A registry that answers the first registration of a schema by `first`, and each later one well. */
function registering(first: () => Promise<{ id: number }>): { start(): Promise<void>; asked(): number } {
  let asked = 0;
  const serde = createSerde({ registryUrl: 'http://registry', deadlineMs: 600, registry: { register: () => (++asked === 1 ? first() : Promise.resolve({ id: asked })), getSchema: () => Promise.reject(status(500)) } });
  return { start: () => serde.start(), asked: () => asked };
}

test('services that start side by side on a new registry do not refuse each other: what 409 says once is asked again, what it says twice is refused', async () => {
  const raced = registering(() => Promise.reject(status(409)));
  await raced.start();
  expect(raced.asked()).toBe(loadSchemas().size + 1);
  const serde = createSerde({ registryUrl: 'http://registry', registry: { register: () => Promise.reject(status(409)), getSchema: () => Promise.reject(status(500)) } });
  await expect(serde.start(), 'an incompatible schema').rejects.toMatchObject({ code: 'schema-unknown' });
});

test('one answer of the registry that is lost does not end a start: it is asked again within the time of the start', async () => {
  const lost = registering(() => new Promise(() => {}));
  await lost.start();
  expect(lost.asked()).toBe(loadSchemas().size + 1);
});

/** A registry over HTTP that has the subjects, and counts what it is asked. */
async function serveRegistry(has: Set<string>): Promise<{ readonly url: string; readonly asked: Map<string, number>; close(): Promise<void> }> {
  const asked = new Map<string, number>();
  const server = createServer((request, response) => {
    const [, kind, subject = '', versions] = request.url!.split('/');
    const what = kind === 'config' ? 'config' : versions === undefined ? 'look-up' : 'register';
    asked.set(what, (asked.get(what) ?? 0) + 1);
    if (what === 'register') has.add(subject);
    request.resume();
    response.statusCode = has.has(subject) ? 200 : 404;
    response.setHeader('content-type', 'application/json');
    response.end(response.statusCode === 404 ? '{"error_code":40401,"message":"not found"}' : what === 'config' ? '{"compatibilityLevel":"FULL_TRANSITIVE"}' : `{"id":${[...has].indexOf(subject) + 1}}`);
  });
  await new Promise<void>((done) => { server.listen(0, '127.0.0.1', done); });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked, close: () => new Promise((done) => { server.close(() => done()); server.closeAllConnections(); }) };
}

test('a start on a registry that has the schemas asks once for each, and one that lacks some gets them registered', async () => {
  const names = [...loadSchemas().keys()];
  for (const [has, registered] of [[[], names.length], [names.slice(2), 2], [names, 0]] as const) {
    const registry = await serveRegistry(new Set(has));
    try {
      const serde = createSerde({ registryUrl: registry.url, deadlineMs: 3000 });
      await serde.start();
      expect([registry.asked.get('register') ?? 0, new Set(names.map((name) => serde.idOf(name))).size]).toEqual([expect.toSatisfy((n: number) => n >= registered && n <= registered + 4), names.length]);
      if (registered === 0) expect(registry.asked).toEqual(new Map([['look-up', names.length]]));
    } finally {
      await registry.close();
    }
  }
});

test.each(['that has the schemas', 'that has none'])('a start on a registry %s passes the failpoint for every schema, and so does the look-up of one of another writer: npm run chaos kills there', async (which) => {
  const names = [...loadSchemas().keys()];
  const registry = await serveRegistry(new Set(which === 'that has none' ? [] : names));
  const passed = async (n: number, act: () => Promise<unknown>): Promise<boolean> => {
    let struck = false;
    arm(`log.schema-fetch:${n}`, () => { struck = true; });
    await act();
    // It is passed when the request is on its way.
    await new Promise(setImmediate);
    return struck;
  };
  try {
    const start = () => createSerde({ registryUrl: registry.url, deadlineMs: 3000 }).start();
    expect(await passed(names.length, start)).toBe(true);
    expect(await passed(names.length + 1, start)).toBe(false);
    const serde = createSerde({ registryUrl: registry.url, deadlineMs: 3000 });
    await serde.start();
    expect(await passed(1, () => serde.prepare(unknownId).catch((error: unknown) => error))).toBe(true);
  } finally {
    disarm();
    await registry.close();
  }
});
