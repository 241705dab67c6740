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
