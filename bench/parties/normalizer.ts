/**
 * `normalizer.ts <kind> <prefix> <run>`: one party of the benchmark `normalizer`, until it is ended.
 * service: the service as it runs, sealed. like-for-like: parse, map, check, encode and append as it does, without identity,
 * memory of event ids and metrics. pass-through: packages/log alone.
 */
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { parseJson } from '@weir/adapter';
import { createLog, createSerde, handOn, headerBytes, Packer, type Appender, type LogRecord, type OutRecord, type RecordBatch, type RecordBody, type Sink } from '@weir/log';
import { compileContract, compileMapping } from '@weir/mapping';
import { groupNames, H, topicNames } from '@weir/pipeline';
import { compileRelease, type ReleaseFeed } from '@weir/release';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { openVault } from '@weir/vault';
import { registry } from '@weir/adapters';
import { Registry } from 'prom-client';
import { createNormalizer } from '../../services/normalizer/app.ts';
import { rawHeaders } from '@weir/release';
import { sealedSerde } from '@weir/seal';
import { benchKeys, benchWorkspaceKey, contract, mapping } from '../contacts.ts';

const [kind, prefix, run] = process.argv.slice(2) as [string, string, string];
const log = createLog({ brokers: process.env['KAFKA_BROKERS']!.split(','), clientId: `bench-${kind}` });
const names = topicNames(prefix);
const out = `${prefix}.out.${run}`;
const group = `${prefix}.${run}`;
const source = 'contacts';
const fail = (error: unknown): never => {
  console.error(error);
  process.exit(1);
};

/** The service as it is; unsealed: on a workspace that seals nothing. */
async function service(seals: boolean): Promise<void> {
  const plain = createSerde({ registryUrl: process.env['SCHEMA_REGISTRY_URL']! });
  await plain.start();
  const release = compileRelease([
    { path: 'weir.yaml', content: 'name: bench\n' }, { path: 'purposes.yaml', content: 'purposes:\n  news: { legalBasis: consent, doc: Letters. }\n' },
    { path: 'mappings/contacts.yaml', content: mapping }, { path: 'contracts/contacts.odcs.yaml', content: contract },
    { path: 'sources/contacts.yaml', content: 'adapter: standard-webhooks\nconfig: { secret: { secret: SECRET } }\nmapping: contacts.yaml\n' },
  ], { adapters: registry });
  const releases: ReleaseFeed = { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), reserves: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, close: async () => {} };
  const dir = process.env['WEIR_DATA']!;
  const stateDir = mkdtempSync(join(dir, 'state-'));
  const keys = seals ? await benchKeys(log, plain, names.keys, stateDir) : undefined;
  const context: ServiceContext = {
    name: 'normalizer', config: {} as never, log, serde: keys === undefined ? plain : sealedSerde(plain, keys), keys, releases, topics: { ...names, canonical: out }, groups: { ...groupNames(prefix), normalizer: group as `${string}.normalizer` }, vault: openVault({ dataDir: dir, env: {} }), workspaceKey: benchWorkspaceKey,
    logger: createLogger({ service: 'normalizer', level: 'warn' }), registry: new Registry(), clock: systemClock, stateDir,
  };
  const normalizer = createNormalizer(context, { sessionTimeoutMs: 30_000 });
  void normalizer.failed.then(fail);
  await normalizer.start();
}

/** A loop that makes one record of each, appends, and commits what is acknowledged: partitions side by side, batches of one in turn. */
async function loop(make: (records: readonly LogRecord[], appender: Appender) => { readonly records: readonly OutRecord[]; readonly written?: () => void }): Promise<void> {
  const appender = await log.appender({ deadlineMs: 600_000 });
  await appender.partitions(out);
  const queues = new Map<number, Promise<void>>();
  const take = async (batch: RecordBatch): Promise<void> => {
    const { records, written } = make(batch.records, appender);
    await appender.append(out, records);
    written?.();
    // Its turn may be a tenth of a second away: nothing waits for it.
    consumer.commit([{ topic: batch.topic, partition: batch.partition, epoch: batch.epoch, offset: batch.nextOffset }]).catch(fail);
  };
  const consumer = log.consumer({
    groupId: group, topics: [names.raw(source)], sessionTimeoutMs: 30_000,
    handlers: {
      async assigned() {},
      async revoked() {},
      batch(batch) {
        // At most one batch waits behind the one at work.
        consumer.pause(batch.topic, batch.partition);
        queues.set(batch.partition, (queues.get(batch.partition) ?? Promise.resolve()).then(async () => {
          await take(batch);
          consumer.resume(batch.topic, batch.partition);
        }).catch(fail));
      },
      failed: fail,
    },
  });
  await consumer.start();
}

/** Every header of the raw record goes on; behind them release, mapping, output and its name. */
async function likeForLike(): Promise<void> {
  const serde = createSerde({ registryUrl: process.env['SCHEMA_REGISTRY_URL']! });
  await serde.start();
  const compiled = compileMapping({ path: 'mappings/contacts.yaml', content: mapping });
  const checks = compileContract({ path: 'contracts/contacts.odcs.yaml', content: contract });
  const direct = compiled.direct({ rules: (type) => checks.fieldRules(type), idOf: (name) => serde.idOf(name) })!;
  const constants = Buffer.concat([headerBytes(H.release, 'rel_0123456789abcdef'), headerBytes(H.mapping, 'contacts')]);
  const outputName = headerBytes(H.outputName, 'profile');
  const output = headerBytes(H.output, '').subarray(0, -1);
  const sink: Sink = { bytes: Buffer.allocUnsafe(64 * 1024), at: 0 };
  const spare: Packer[] = [];
  await loop((records, appender) => {
    const packer = spare.pop() ?? new Packer();
    const made = records.map((record) => {
      const r = record as LogRecord & RecordBody;
      const { eventId, acceptedAt, common } = rawHeaders(record);
      const meta = { eventId, source, acceptedAt };
      sink.at = 0;
      let outputId: string;
      if (direct.run(r.bytes, r.valueFrom, r.valueFrom + r.valueLength, 32, meta, sink) === 1) ({ outputId } = direct.output(0));
      else {
        const result = compiled.apply(parseJson(record.value!, 32), undefined, meta);
        if (result.kind !== 'mapped') throw new Error(JSON.stringify(result));
        const [only] = result.outputs;
        const breaches = checks.check(only!.recordType, only!.record);
        if (breaches.length > 0) throw new Error(JSON.stringify(breaches));
        serde.encodeTo(only!.recordType, only!.record, sink);
        ({ outputId } = only!);
      }
      packer.begin();
      packer.key(r.bytes, r.keyFrom, r.keyFrom + r.keyLength);
      packer.value(sink.bytes, 0, sink.at);
      packer.headers(r.bytes, common!.from, common!.to, 5);
      packer.headers(constants, 0, constants.length, 2);
      packer.header(output, outputId);
      packer.headers(outputName, 0, outputName.length, 1);
      return packer.end(appender.partitionFor(out, record.key!));
    });
    return { records: made, written: () => { packer.reset(); spare.push(packer); } };
  });
}

if (kind === 'service' || kind === 'unsealed') await service(kind === 'service');
else if (kind === 'like-for-like') await likeForLike();
else if (kind === 'pass-through') await loop((records, appender) => ({ records: records.map((record) => handOn(record, appender.partitionFor(out, record.key!))) }));
else fail(new Error(`no party ${kind}`));
