import { COMPATIBILITY, SchemaRegistry, SchemaType } from '@kafkajs/confluent-schema-registry';
import { WeirError } from '@weir/errors';
import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import { compileBounds } from './bounds.ts';
import { delay, withDeadline } from './deadline.ts';
import type { DecodeLimits, Serde } from './types.ts';

interface Codec {
  readonly name: string;
  readonly check: (datum: Buffer) => void;
  readonly read: (datum: Buffer) => unknown;
}

export const defaultLimits: DecodeLimits = { maxBytes: 4 * 1024 * 1024, maxItems: 100_000, maxDepth: 64 };

/**
 * Avro in the Confluent wire format (magic 0, schema id, datum), subjects by record name, FULL_TRANSITIVE.
 * The registry is asked at start and for an unknown id only; `encode` and `decode` are synchronous.
 */
export function createSerde(options: { registryUrl: string; limits?: DecodeLimits; deadlineMs?: number }): Serde {
  const limits = options.limits ?? defaultLimits;
  const deadlineMs = options.deadlineMs ?? 30_000;
  const schemas = loadSchemas();
  const types = new Map([...schemas].map(([name, schema]) => [name, avsc.Type.forSchema(schema as avsc.Schema)]));
  const ids = new Map<string, number>();
  const codecs = new Map<number, Codec>();
  const pending = new Map<number, Promise<void>>();
  let scratch = Buffer.allocUnsafe(64 * 1024);
  const registry = new SchemaRegistry({ host: options.registryUrl, clientId: 'weir', retry: { retries: 0 } });

  async function register(name: string): Promise<void> {
    const { id } = await registry.register({ type: SchemaType.AVRO, schema: JSON.stringify(schemas.get(name)) }, { subject: name, compatibility: COMPATIBILITY.FULL_TRANSITIVE, updateConfig: true });
    const type = types.get(name)!;
    ids.set(name, id);
    codecs.set(id, { name, check: compileBounds(schemas.get(name), limits), read: (datum) => type.fromBuffer(datum) });
  }

  function idIn(bytes: Buffer): number {
    if (bytes.length < 5 || bytes[0] !== 0) throw new WeirError('avro-undecodable', 'not in the Confluent wire format');
    return bytes.readInt32BE(1);
  }

  async function lookUp(id: number): Promise<void> {
    const schema = await withDeadline(registry.getSchema(id), deadlineMs, `schema ${id}`, 'log-unavailable').catch((error: unknown) => {
      const status = (error as { status?: number }).status;
      throw new WeirError(status === 404 ? 'schema-unknown' : 'log-unavailable', `schema ${id}: ${(error as Error).message}`, { cause: error });
    });
    const json = JSON.parse(JSON.stringify(schema)) as { name?: string; namespace?: string };
    const writer = avsc.Type.forSchema(json as avsc.Schema);
    const name = writer.name ?? '';
    const reader = types.get(name);
    if (reader === undefined) throw new WeirError('schema-unknown', `schema ${id} is ${JSON.stringify(name)}, which Weir does not have`);
    const resolver = reader.createResolver(writer);
    codecs.set(id, { name, check: compileBounds(json, limits), read: (datum) => reader.fromBuffer(datum, resolver) });
  }

  return {
    async start() {
      const end = performance.now() + deadlineMs;
      for (let attempt = 0; ; attempt++) {
        try {
          for (const name of schemas.keys()) if (!ids.has(name)) await register(name);
          return;
        } catch (error) {
          const status = (error as { status?: number }).status;
          if (status === 409 || status === 422) throw new WeirError('schema-unknown', `the registry refuses a schema: ${(error as Error).message}`, { cause: error });
          if (performance.now() > end) throw new WeirError('log-unavailable', `the schema registry does not answer: ${(error as Error).message}`, { cause: error });
          await delay(Math.min(1000, 50 * 2 ** attempt));
        }
      }
    },
    idOf(name) {
      const id = ids.get(name);
      if (id === undefined) throw new WeirError('invariant-broken', `schema ${name} is not registered`);
      return id;
    },
    encode(name, value) {
      const type = types.get(name);
      const id = ids.get(name);
      if (type === undefined || id === undefined) throw new WeirError('invariant-broken', `schema ${name} is not registered`);
      let end = type.encode(value, scratch, 5);
      if (end < 0) {
        scratch = Buffer.allocUnsafe(scratch.length * 2 - end);
        end = type.encode(value, scratch, 5);
      }
      scratch[0] = 0;
      scratch.writeInt32BE(id, 1);
      return Buffer.from(scratch.subarray(0, end));
    },
    decode(bytes) {
      const codec = codecs.get(idIn(bytes));
      if (codec === undefined) throw new WeirError('schema-unknown', `schema ${bytes.readInt32BE(1)} was not looked up`);
      const datum = bytes.subarray(5);
      codec.check(datum);
      return { name: codec.name, value: codec.read(datum) };
    },
    known: (bytes) => codecs.has(idIn(bytes)),
    prepare(bytes) {
      const id = idIn(bytes);
      if (codecs.has(id)) return Promise.resolve();
      let running = pending.get(id);
      if (running === undefined) {
        running = lookUp(id).finally(() => pending.delete(id));
        pending.set(id, running);
      }
      return running;
    },
  };
}
