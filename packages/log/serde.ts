import { COMPATIBILITY, SchemaType, type SchemaRegistry } from '@kafkajs/confluent-schema-registry';
import { WeirError } from '@weir/errors';
import { failpointSoon } from '@weir/failpoint';
import { loadSchemas } from '@weir/schemas';
import avsc from 'avsc';
import type { RegistrySecurity } from '@weir/config';
import { compileBounds } from './bounds.ts';
import { delay, withDeadline } from './deadline.ts';
import { compileEncoder, room, type Sink } from './encoder.ts';
import { isRefusal } from './refusal.ts';
import { createRegistry } from './registry.ts';
import type { DecodeLimits, Serde } from './types.ts';

interface Codec {
  readonly name: string;
  readonly check: (datum: Buffer) => void;
  readonly read: (datum: Buffer) => unknown;
}

export const defaultLimits: DecodeLimits = { maxBytes: 4 * 1024 * 1024, maxItems: 100_000, maxDepth: 64 };

const registerAtOnce = 4;
const firstScratch = 64 * 1024;
const largestScratch = 1024 * 1024;

function statusOf(error: unknown): number | undefined {
  return (error as { status?: number }).status;
}

/** The registry refuses us, or we it: asking again does not change it. */
function refusalOf(error: unknown, registryUrl: string): WeirError | undefined {
  if (isRefusal(error)) return error;
  const status = statusOf(error);
  return status === 401 || status === 403 ? new WeirError('log-auth-failed', `the schema registry ${registryUrl} refuses the login (${status})`, { cause: error }) : undefined;
}

/** What avsc throws has no code: it is about the value, and so is the answer. */
function undecodable(name: string, error: unknown): WeirError {
  return error instanceof WeirError ? error : new WeirError('avro-undecodable', `${name}: ${(error as Error).message}`, { cause: error });
}

/**
 * Avro in the Confluent wire format (magic 0, schema id, datum), subjects by record name, FULL_TRANSITIVE.
 * The registry is asked at start and for an unknown id only; `encode` and `decode` are synchronous.
 * `start` waits for the registry until `deadlineMs` (default 30 s), then rejects with log-unavailable; a schema
 * that the registry refuses rejects at once with schema-unknown, and a login that it refuses with log-auth-failed.
 */
export function createSerde(options: { registryUrl: string; security?: RegistrySecurity; limits?: DecodeLimits; deadlineMs?: number; registry?: Pick<SchemaRegistry, 'register' | 'getSchema'> & Partial<Pick<SchemaRegistry, 'getLatestSchemaId' | 'getRegistryIdBySchema'>> }): Serde {
  const limits = options.limits ?? defaultLimits;
  const deadlineMs = options.deadlineMs ?? 30_000;
  // An answer that never comes must leave time to ask again: the client has no time limit of its own.
  const requestMs = deadlineMs / 3;
  const schemas = loadSchemas();
  const types = new Map([...schemas].map(([name, schema]) => [name, avsc.Type.forSchema(schema as avsc.Schema)]));
  const ids = new Map<string, number>();
  const codecs = new Map<number, Codec>();
  const pending = new Map<number, Promise<void>>();
  const encoders = new Map([...schemas].map(([name, schema]) => {
    const write = compileEncoder(schema);
    if (write === undefined) throw new WeirError('invariant-broken', `schema ${name} has a type that the encoder does not know`);
    return [name, write];
  }));
  const scratch: Sink = { bytes: Buffer.allocUnsafe(firstScratch), at: 0 };
  const registry: NonNullable<typeof options.registry> = options.registry ?? createRegistry(options.registryUrl, options.security);

  const written = (name: string) => ({ type: SchemaType.AVRO as const, schema: JSON.stringify(schemas.get(name)) });

  function ask(name: string): Promise<{ id: number }> {
    return withDeadline(registry.register(written(name), { subject: name, compatibility: COMPATIBILITY.FULL_TRANSITIVE, updateConfig: true }), requestMs, `registration of ${name}`, 'log-unavailable');
  }

  /** The id of a schema that is registered already: one request, where a registration is two, or three of a new subject. Undefined when it is not there. */
  async function known(name: string): Promise<number | undefined> {
    if (registry.getRegistryIdBySchema === undefined) return undefined;
    return withDeadline(registry.getRegistryIdBySchema(name, written(name)), requestMs, `look-up of ${name}`, 'log-unavailable').catch((error: unknown) => {
      // The library makes an error without a status of a 404, and of nothing else here.
      if (statusOf(error) === 404 || (error as Error).name === 'ConfluentSchemaRegistryError') return undefined;
      throw error;
    });
  }

  async function register(name: string): Promise<void> {
    // 409 is said of an incompatible schema, and by Apicurio to all but one of those who register a new subject at the same time: asked again, only the first stays one.
    const { id } = await ask(name).catch((error: unknown) => {
      if (statusOf(error) !== 409) throw error;
      return ask(name);
    });
    adopt(name, id);
  }

  function adopt(name: string, id: number): void {
    const type = types.get(name)!;
    ids.set(name, id);
    codecs.set(id, { name, check: compileBounds(schemas.get(name), limits), read: (datum) => type.fromBuffer(datum) });
  }

  async function registerAll(): Promise<void> {
    const missing = [...schemas.keys()].filter((name) => !ids.has(name));
    // A new registry has none of them: the first that is not there ends the asking.
    let there = true;
    await Promise.all(Array.from({ length: registerAtOnce }, async () => {
      for (let name = missing.pop(); name !== undefined; name = missing.pop()) {
        failpointSoon('log.schema-fetch');
        const id = there ? await known(name) : undefined;
        if (id !== undefined) adopt(name, id);
        else {
          there = false;
          await register(name);
        }
      }
    }));
  }

  function idIn(bytes: Buffer): number {
    if (bytes.length < 5 || bytes[0] !== 0) throw new WeirError('avro-undecodable', 'not in the Confluent wire format');
    return bytes.readInt32BE(1);
  }

  function codecOf(bytes: Buffer): Codec {
    const codec = codecs.get(idIn(bytes));
    if (codec === undefined) throw new WeirError('schema-unknown', `schema ${bytes.readInt32BE(1)} was not looked up`);
    return codec;
  }

  /** Of something that is not there: whether it is the registry that says so. The page of a proxy, or a registry that has lost what it had, answers 404 to all, also to what we registered. */
  async function hasOurs(): Promise<boolean> {
    const [own] = ids.keys();
    if (own === undefined || registry.getLatestSchemaId === undefined) return true;
    // One that lets us not list a subject is a registry all the same.
    return withDeadline(registry.getLatestSchemaId(own), deadlineMs, own, 'log-unavailable').then(() => true, (error: unknown) => statusOf(error) === 403);
  }

  async function lookUp(id: number): Promise<void> {
    failpointSoon('log.schema-fetch');
    const found = await withDeadline(registry.getSchema(id), deadlineMs, `schema ${id}`, 'log-unavailable').catch(async (error: unknown) => {
      const absent = statusOf(error) === 404;
      const { message } = refusalOf(error, options.registryUrl) ?? (error as Error);
      if (absent && !await hasOurs()) throw new WeirError('log-unavailable', `schema ${id}: ${message}, and neither does ${options.registryUrl} have the schemas that were registered there`, { cause: error });
      // Who runs already waits for a login to be put right: nothing is set aside because of it.
      throw new WeirError(absent ? 'schema-unknown' : 'log-unavailable', `schema ${id}: ${message}`, { cause: error });
    });
    const json = JSON.parse(JSON.stringify(found)) as { name?: string; namespace?: string };
    const name = json.namespace === undefined || json.name?.includes('.') ? json.name ?? '' : `${json.namespace}.${json.name}`;
    const reader = types.get(name);
    if (reader === undefined) throw new WeirError('schema-unknown', `schema ${id} is ${JSON.stringify(name)}, which Weir does not have`);
    try {
      // The walker refuses evil names before avsc makes code of them.
      const check = compileBounds(json, limits);
      const resolver = reader.createResolver(avsc.Type.forSchema(json as avsc.Schema));
      codecs.set(id, { name, check, read: (datum) => reader.fromBuffer(datum, resolver) });
    } catch (error) {
      throw new WeirError('schema-unknown', `schema ${id} of ${name} cannot be read as ours: ${(error as Error).message}`, { cause: error });
    }
  }

  function encodeTo(name: string, value: unknown, sink: Sink): void {
    const write = encoders.get(name);
    const id = ids.get(name);
    if (write === undefined || id === undefined) throw new WeirError('invariant-broken', `schema ${name} is not registered`);
    const { at } = sink;
    room(sink, 5);
    sink.bytes[at] = 0;
    sink.bytes.writeInt32BE(id, at + 1);
    sink.at = at + 5;
    try {
      write(sink, value);
    } catch (error) {
      sink.at = at;
      throw error;
    }
  }

  return {
    async start() {
      const end = performance.now() + deadlineMs;
      for (let attempt = 0; ; attempt++) {
        try {
          return await withDeadline(registerAll(), Math.max(1, end - performance.now()), 'registration of the schemas', 'log-unavailable');
        } catch (error) {
          const refusal = refusalOf(error, options.registryUrl);
          if (refusal !== undefined) throw refusal;
          const status = statusOf(error);
          if (status === 409 || status === 422) throw new WeirError('schema-unknown', `the registry refuses a schema: ${(error as Error).message}`, { cause: error });
          if (performance.now() >= end) throw new WeirError('log-unavailable', `the schema registry does not answer: ${(error as Error).message}`, { cause: error });
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
      scratch.at = 0;
      try {
        encodeTo(name, value, scratch);
        return Buffer.from(scratch.bytes.subarray(0, scratch.at));
      } finally {
        // One huge record must not keep its size for ever.
        if (scratch.bytes.length > largestScratch) scratch.bytes = Buffer.allocUnsafe(firstScratch);
      }
    },
    encodeTo,
    check(bytes) {
      const codec = codecOf(bytes);
      codec.check(bytes.subarray(5));
      return codec.name;
    },
    decode(bytes) {
      const codec = codecOf(bytes);
      const datum = bytes.subarray(5);
      codec.check(datum);
      try {
        return { name: codec.name, value: codec.read(datum) };
      } catch (error) {
        throw undecodable(codec.name, error);
      }
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
