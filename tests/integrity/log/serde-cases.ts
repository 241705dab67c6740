import { createSerde } from '@weir/log';
import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import { expect, test } from 'vitest';
import { until, type World } from './world.ts';

const name = 'weir.internal.Delivery';

/** Registers a schema as an older or other writer would, past our code. Its id. */
async function registerBeside(registryUrl: string, subject: string, schema: unknown): Promise<number> {
  const response = await fetch(`${registryUrl}/subjects/${subject}/versions`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ schema: JSON.stringify(schema), schemaType: 'AVRO' }) });
  const body = await response.json() as { id?: number };
  if (body.id === undefined) throw new Error(`the registry said ${response.status} ${JSON.stringify(body)}`);
  return body.id;
}

function framed(id: number, datum: Buffer): Buffer {
  const head = Buffer.alloc(5);
  head.writeInt32BE(id, 1);
  return Buffer.concat([head, datum]);
}

export function serdeCases(world: () => World): void {
  const url = (): string => world().platform.registryUrl;

  test('every schema makes the round trip', async () => {
    const serde = createSerde({ registryUrl: url() });
    await serde.start();
    for (const [recordName, schema] of loadSchemas()) {
      const type = avsc.Type.forSchema(schema as avsc.Schema);
      for (let i = 0; i < 50; i++) {
        const value = type.random();
        const bytes = serde.encode(recordName, value);
        expect([bytes[0], bytes.readInt32BE(1)]).toEqual([0, serde.idOf(recordName)]);
        const decoded = serde.decode(bytes);
        expect(decoded.name).toBe(recordName);
        expect(type.toBuffer(decoded.value)).toEqual(bytes.subarray(5));
      }
    }
  });

  test('what an older writer wrote is read with the defaults of today', async () => {
    const schema = loadSchemas().get('weir.canonical.Profile')!;
    const optional = schema.fields.filter((f) => 'default' in f).at(-1)!;
    const older = { ...schema, fields: schema.fields.filter((f) => f !== optional) };
    const id = await registerBeside(url(), world().name('older'), older);
    const serde = createSerde({ registryUrl: url() });
    await serde.start();
    const writer = avsc.Type.forSchema(older as avsc.Schema);
    const bytes = framed(id, writer.toBuffer(writer.random()));
    expect(serde.known(bytes)).toBe(false);
    expect(() => serde.decode(bytes)).toThrow(expect.objectContaining({ code: 'schema-unknown' }));
    await Promise.all([serde.prepare(bytes), serde.prepare(bytes)]);
    const { name: recordName, value } = serde.decode(bytes);
    expect(recordName).toBe('weir.canonical.Profile');
    expect(value[optional.name]).toEqual(optional.default);
  });

  test('an id that the registry does not have, or of a record that is not ours, is refused', async () => {
    const serde = createSerde({ registryUrl: url() });
    await serde.start();
    await expect(serde.prepare(framed(999_999, Buffer.alloc(1)))).rejects.toMatchObject({ code: 'schema-unknown' });
    const id = await registerBeside(url(), world().name('foreign'), { type: 'record', name: 'Bomb', fields: [{ name: 'list', type: { type: 'array', items: 'null' } }] });
    await expect(serde.prepare(framed(id, Buffer.alloc(1)))).rejects.toMatchObject({ code: 'schema-unknown' });
  });

  test('a bomb is refused before anything is made of it', async () => {
    const serde = createSerde({ registryUrl: url() });
    await serde.start();
    const schema = loadSchemas().get(name)!;
    const bombed = { ...schema, fields: [...schema.fields, { name: 'bomb', type: { type: 'array', items: 'null' }, default: [] }] };
    const id = await registerBeside(url(), world().name('bomb'), bombed);
    const type = avsc.Type.forSchema(schema as avsc.Schema);
    const twentyMillion = avsc.Type.forSchema('long').toBuffer(20_000_000);
    const bytes = framed(id, Buffer.concat([type.toBuffer(type.random()), twentyMillion, Buffer.from([0])]));
    await serde.prepare(bytes);
    const before = process.memoryUsage().heapUsed;
    expect(() => serde.decode(bytes)).toThrow(expect.objectContaining({ code: 'avro-undecodable' }));
    // Twenty million entries would take 220 MB.
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(50_000_000);
  });

  test('a registry that is away: start waits for it, or says so at its deadline; ids survive its restart', async () => {
    const before = createSerde({ registryUrl: url() });
    await before.start();
    await world().platform.registry().stop();
    const impatient = createSerde({ registryUrl: url(), deadlineMs: 700 });
    await expect(impatient.start()).rejects.toMatchObject({ code: 'log-unavailable' });
    // What is known goes on without it.
    const value = avsc.Type.forSchema(loadSchemas().get(name) as avsc.Schema).random();
    expect(before.decode(before.encode(name, value)).name).toBe(name);
    const patient = createSerde({ registryUrl: url(), deadlineMs: 90_000 });
    const started = patient.start();
    await Promise.all([world().platform.restartRegistry(), started]);
    for (const recordName of loadSchemas().keys()) expect(patient.idOf(recordName)).toBe(before.idOf(recordName));
    await until('start on the one that was impatient', () => impatient.start().then(() => true, () => false), Boolean);
  });
}
