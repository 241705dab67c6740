/** What an operator is shown of a take-over that takes long: by the dispatcher itself, on the simulated brokers. */
import { createLog, createSerde, type Log } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { systemClock, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { Registry } from 'prom-client';
import { expect, test, vi } from 'vitest';
import { createDispatcher, windowOf } from '../../../services/dispatcher/app.ts';
import { SimBroker } from './broker.ts';
import { createDisk } from './table.ts';
import { createActor, createRandom, Scheduler } from './time.ts';
import { simRelease } from './workspace.ts';

const topics = topicNames('sim');
const release = simRelease();
const destinations = [...release.destinations.keys()];
const taken = topics.ledger('warehouse');
const records = 40;
const atOnce = 10;
const everyMs = 3000;

/** Its reads of that ledger bring ten records each, three seconds after they are asked for; `look` runs before each. */
function slow(log: Log, look: () => Promise<void>): Log {
  return {
    ...log,
    async reader() {
      const reader = await log.reader();
      return {
        ...reader,
        async read(topic, partition, from, to, take, bytes) {
          for (let at = from; at < to; at += atOnce) {
            if (topic === taken) {
              await new Promise((done) => { setTimeout(done, everyMs); });
              await look();
            }
            await reader.read(topic, partition, at, topic === taken ? Math.min(to, at + atOnce) : to, take, bytes);
            if (topic !== taken) return;
          }
        },
      };
    },
  };
}

test('a take-over that takes long is in what /readyz answers, in the metric and every five seconds in the log, until the ledger is read', async () => {
  const scheduler = new Scheduler();
  const broker = new SimBroker({ scheduler, random: createRandom(1), nodes: 3, faults: { on: false, counts: new Map(), count: () => undefined, hit: () => false, hitBy: () => false } });
  for (const name of [topics.outcome, topics.dlq, topics.control, topics.consent, topics.identity, topics.consentApplied, ...destinations.flatMap((d) => [topics.dispatch(d), topics.parked(d), topics.ledger(d)])]) broker.create(name, 1, false);
  const restore = scheduler.install(createRandom(2));
  const actor = createActor('dispatcher');
  const registry = new Registry();
  const logger = createLogger({ service: 'sim', level: 'silent' });
  const info = vi.spyOn(logger, 'info');
  const remaining = async (): Promise<readonly number[]> => (await registry.getSingleMetric('weir_ledger_takeover_remaining')!.get()).values.filter(({ labels }) => labels['destination'] === 'warehouse').map(({ value }) => value);
  const shown: unknown[] = [];
  let ended: { readonly error: unknown } | undefined;

  async function work(): Promise<void> {
    const known: { schema: string }[] = [];
    const serde = createSerde({ registryUrl: '', registry: { register: (schema: unknown) => Promise.resolve({ id: known.push(schema as { schema: string }) }), getSchema: (id: number) => Promise.resolve(JSON.parse(known[id - 1]!.schema) as unknown) } as never });
    await serde.start();
    const log = createLog({ brokers: broker.brokers, clientId: 'dispatcher' }, broker.driver(actor));
    // Of ends that were forgotten: what they say is not asked for here.
    await (await log.appender()).append(taken, Array.from({ length: records }, (_, n) => ({ partition: 0, key: Buffer.from(`k${n}#end`), value: null })));
    const context = {
      name: 'dispatcher', config: { instance: 'dispatcher', host: '127.0.0.1' }, log: slow(log, async () => { shown.push([service.readiness().reason, ...await remaining()]); }), serde, topics, groups: groupNames('sim'),
      releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), reserves: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => 0, close: () => Promise.resolve() },
      vault: { get: () => undefined, has: () => true, revision: () => 0, onChange: () => () => {}, refresh: () => Promise.resolve(), status: () => ({ available: true }) },
      workspaceKey: Buffer.alloc(32), logger, registry, clock: systemClock, stateDir: '/state',
    } as unknown as ServiceContext;
    const service = createDispatcher(context, { sessionTimeoutMs: 6000, callTimeoutMs: 2000, inLaneTries: 3, allowPrivate: true, sandboxUrl: 'http://sandbox' }, { openTable: createDisk().open, createHttpClient: () => ({ close: () => Promise.resolve() }) as never, windowOf });
    await service.start();
    // The group assigns the partition after the start.
    const until = performance.now() + 60_000;
    while ((shown.length === 0 || !service.readiness().ready) && performance.now() < until) await new Promise((done) => { setTimeout(done, 10); });
    shown.push([service.readiness().reason, ...await remaining()]);
    await service.stop();
    await log.close();
  }

  try {
    scheduler.as(actor, () => { work().then(() => { ended = { error: undefined }; }, (error: unknown) => { ended = { error }; }); });
    await scheduler.run(() => ended !== undefined, 600_000);
  } finally {
    restore();
  }
  expect(ended).toEqual({ error: undefined });
  expect(shown).toEqual([...[0, 10, 20, 30].map((read) => [`taking over warehouse/0: ${read} of 40 records of its ledger are read`, 40 - read]), [undefined, 0]]);
  const told = info.mock.calls.filter(([fields]) => (fields as { destination?: string; records?: number; read?: number }).destination === 'warehouse' && 'partition' in (fields as object));
  expect(told).toEqual([[{ destination: 'warehouse', partition: 0, read: 20, total: 40 }, 'reading the ledger'], [{ destination: 'warehouse', partition: 0, records: 40 }, 'ledger read']]);
});
