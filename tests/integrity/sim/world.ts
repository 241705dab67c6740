/** One seed: the services on a simulated broker, vendor, disk and clock, a sender, and the plan of what goes wrong. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { createLog, createSerde, type Appender, type Log, type LogRecord, type Serde } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { systemClock, type Service, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { Secret } from '@weir/vault';
import type { FastifyInstance } from 'fastify';
import { Registry } from 'prom-client';
import type { DeadLetterRecord } from '../../../services/control/letters.ts';
import { recordOf } from '../../../services/control/replay/put-back.ts';
import { createDispatcher, windowOf } from '../../../services/dispatcher/app.ts';
import { createIngest } from '../../../services/ingest/app.ts';
import type { ConsentIntake } from '../../../services/ingest/consent-intake.ts';
import { createNormalizer } from '../../../services/normalizer/app.ts';
import { createPolicy } from '../../../services/policy/app.ts';
import { SimBroker } from './broker.ts';
import { createFaults, planned, type Point } from './faults.ts';
import { createDisk, type Disk } from './table.ts';
import { createActor, createRandom, Scheduler, type Actor, type Random } from './time.ts';
import { createConsentRace, racers, type ConsentHistory } from './consent.ts';
import { createVendors, type Call, type Effect } from './vendor.ts';
import { createWatch, readers } from './watch.ts';
import { createPolledList, createProfiles, createWorkload, users, type Sent } from './workload.ts';
import { simRelease } from './workspace.ts';

const topics = topicNames('sim');
const groups = groupNames('sim');
const partitions = 2;
const sessionTimeoutMs = 6000;
const callTimeoutMs = 2000;
const ackTimeoutMs = 3000;
const settleMs = 600_000;
/** When senders begin. */
const firstMs = 1500;
const polled = 25;
/** Of the runs, those in which dispatchers cannot read weir.control for a while. */
const controlShare = 0.3;
const workspaceKey = Buffer.alloc(32, 7);
const destinations = ['warehouse', 'blind', 'newsletter'] as const;
const logger = createLogger({ service: 'sim', level: 'silent' });

type Kind = 'ingest' | 'normalizer' | 'policy' | 'dispatcher';
const kinds: readonly Kind[] = ['ingest', 'normalizer', 'policy', 'dispatcher'];

export interface Instance {
  readonly kind: Kind;
  readonly index: number;
  readonly disk: Disk;
  actor: Actor;
  starts: number;
  service: Service | undefined;
  /** Where the sender's requests go: set while it takes them. */
  app: FastifyInstance | undefined;
  /** For changes of consent and replays: of the same process. */
  appender: Appender | undefined;
  intake: ConsentIntake | undefined;
}

export interface Answer { readonly at: number; readonly by: string; readonly status: number; readonly retryAfter: boolean }

/** What happened in a run, for the checkers: nothing of it comes from the services' own counters. */
export interface History {
  readonly seed: number;
  readonly sent: readonly Sent[];
  readonly records: ReadonlyMap<string, ReadonlyArray<readonly LogRecord[]>>;
  readonly calls: readonly Call[];
  /** For how long a dispatcher may call on what it read of weir.control. */
  readonly leaseMs: number;
  readonly effects: readonly Effect[];
  readonly decode: (bytes: Buffer) => { name: string; value: any };
  /** Offsets that were committed before what they stand for was on the topics. */
  readonly early: readonly string[];
  /** When the first end of each delivery key was on its ledger, virtual ms. */
  readonly endedAt: ReadonlyMap<string, number>;
  /** Calls that no intent on the ledger covered when they were written. */
  readonly uncovered: readonly string[];
  /** What ingest answered, to every request that it did answer. */
  readonly answers: readonly Answer[];
  /** Lag that stayed; undefined = all groups reached their ends. */
  readonly stuck: string | undefined;
  /** Of a run with the consent API. */
  readonly consent: ConsentHistory | undefined;
}
export interface Run { readonly history: History; readonly hash: string; readonly faults: ReadonlyMap<Point, number>; readonly steps: number; readonly virtualMs: number }

let shared: Promise<{ serde: Serde; release: Release }> | undefined;
/** Schemas and release are the same for all seeds. */
function prepare(): Promise<{ serde: Serde; release: Release }> {
  return shared ??= (async () => {
    const known: { schema: string }[] = [];
    const registry = { register: (schema: unknown) => Promise.resolve({ id: known.push(schema as { schema: string }) }), getSchema: (id: number) => Promise.resolve(JSON.parse(known[id - 1]!.schema) as unknown) };
    const serde = createSerde({ registryUrl: '', registry: registry as never });
    await serde.start();
    return { serde, release: simRelease() };
  })();
}

export const defaultEvents = 200;

export async function simulate(seed: number, options: { events?: number; faults?: boolean; oldEnds?: boolean; controlAway?: boolean; consent?: number; trace?: (line: string) => void } = {}): Promise<Run> {
  const { serde, release } = await prepare();
  const stream = (n: number): Random => createRandom(Math.imul(seed, 0x9e3779b1) + n);
  const scheduler = new Scheduler();
  const faults = createFaults(stream(1));
  /** Vendors that close their quota for long, and windows that are soon full behind it. */
  const tight = seed % 3 === 0;
  const broker = new SimBroker({ scheduler, random: stream(2), faults, nodes: 3, old: options.oldEnds === false ? undefined : stream(9) });
  const vendors = createVendors({ scheduler, random: stream(3), faults, tight });
  const plan = stream(4);
  const hash = createHash('sha256');
  const note = (line: string): void => {
    const text = `${scheduler.now.toFixed(3)} ${line}`;
    hash.update(text);
    options.trace?.(text);
  };
  const raws = [...release.sources.keys()].map(topics.raw);
  for (const name of [...raws, topics.canonical, topics.consentChanges, topics.outcome, topics.dlq, ...destinations.map(topics.dispatch), ...destinations.map(topics.parked)]) broker.create(name, partitions, false);
  broker.create(topics.control, partitions, true);
  broker.create(topics.consentApplied, 1, true);
  for (const name of [topics.consent, topics.identity, ...destinations.map(topics.ledger)]) broker.create(name, partitions, true);
  const watch = createWatch(broker, scheduler, serde, destinations);
  broker.witness = {
    appended(topic, partition, records) {
      note(`+ ${topic}/${partition}@${records[0]!.offset} ${records.map((r) => r.key?.toString('latin1').slice(0, 40)).join(',')}`);
      watch.appended(topic, records);
      race?.appended(topic, partition, records);
    },
    committed(group, topic, partition, offset) {
      note(`c ${group} ${topic}/${partition} ${offset}`);
      watch.committed(group, topic, partition, offset);
    },
  };
  const restore = scheduler.install(stream(5));
  const instances = kinds.flatMap((kind) => [0, 1].map((index): Instance => ({ kind, index, disk: createDisk(), actor: createActor(''), starts: 0, service: undefined, app: undefined, appender: undefined, intake: undefined })));

  const vault: ServiceContext['vault'] = {
    get: (name) => new Secret(`secret-of-${name}`), has: () => true, scopes: () => undefined, signing: () => undefined, previous: () => undefined,
    revision: () => 0, onChange: () => () => {}, refresh: () => Promise.resolve(), status: () => ({ available: true }), close: () => {},
  };

  /** When instances cannot read weir.control, virtual ms. */
  const unread = new Map<Instance, { readonly from: number; readonly to: number; counted: boolean }>();
  function controlAgeMs(instance: Instance): number {
    const away = unread.get(instance);
    if (away === undefined || scheduler.now < away.from || scheduler.now >= away.to) return 0;
    const age = scheduler.now - away.from;
    if (age >= sessionTimeoutMs && !away.counted) {
      away.counted = true;
      faults.count('control.away');
    }
    return age;
  }

  /** Some runs: from some moment on a dispatcher, or both, cannot read it for 3 to 25 s, which is less and more than a lease. */
  function loseControl(fromMs: number, toMs: number): void {
    const random = stream(10);
    if (random() >= controlShare) return;
    const both = random() < 0.5;
    const first = Math.floor(random() * 2);
    for (const instance of instances.filter(({ kind, index }) => kind === 'dispatcher' && (both || index === first))) {
      const from = fromMs + random() * (toMs - fromMs);
      const to = from + 3000 + random() * 22_000;
      unread.set(instance, { from, to, counted: false });
      scheduler.after(from, scheduler.world, () => note(`control away dispatcher-${instance.index} until ${to.toFixed(0)}`));
    }
  }

  function contextOf(instance: Instance, log: Log): ServiceContext {
    // A process that is started again has the name that it had.
    return { name: instance.kind, config: { instance: `${instance.kind}-${instance.index}`, host: '127.0.0.1' } as never, log, serde, topics, groups, releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), reserves: () => new Map(), escalations: () => new Map(), onSwitch: () => () => {}, position: () => 0, trouble: () => undefined, ageMs: () => controlAgeMs(instance), close: () => Promise.resolve() }, vault, workspaceKey, logger, registry: new Registry(), clock: systemClock, stateDir: '/state' };
  }

  async function compose(instance: Instance): Promise<Service> {
    const { kind, disk, actor } = instance;
    const log = createLog({ brokers: broker.brokers, clientId: actor.name }, broker.driver(actor));
    const context = contextOf(instance, log);
    if (kind === 'ingest') {
      if (race !== undefined) {
        const appender = await log.appender({ deadlineMs: 5000 });
        instance.appender = appender;
        await race.open(instance, context, appender);
      }
      return createIngest(context, { port: 0, ackTimeoutMs, requestTimeoutMs: 10_000, maxInflightBytes: 60_000, pollerSessionMs: sessionTimeoutMs, allowPrivate: true, sandboxUrl: 'http://sandbox', consentWaitMs: 2000, consentPerSecond: 100 }, {
        openTable: disk.open,
        createHttpClient: () => vendors.pages(actor, list),
        listen: async (app) => {
          await app.ready();
          instance.app = app;
        },
        processMetrics: () => undefined,
      });
    }
    if (kind === 'normalizer') return createNormalizer(context, { sessionTimeoutMs, ...(race === undefined ? {} : { aheadFrom: 2 }) }, disk.open);
    if (kind === 'policy') return createPolicy(context, { sessionTimeoutMs, windowRecords: 10_000, windowBytes: 16_777_216 }, disk.open);
    const look = (destination: string): Pick<Call, 'consent' | 'controlAgeMs' | 'holders'> => ({
      controlAgeMs: controlAgeMs(instance),
      consent: disk.open({ path: join(context.stateDir, 'consent') }).positions(),
      holders: new Map(Array.from({ length: partitions }, (_, p) => [p, broker.holder(groups.dispatcher(destination), topics.dispatch(destination), p)])),
    });
    return createDispatcher(context, { sessionTimeoutMs, callTimeoutMs, inLaneTries: 3, allowPrivate: true, sandboxUrl: 'http://sandbox' }, { openTable: disk.open, createHttpClient: () => vendors.client(actor, look), windowOf: tight ? () => ({ records: 12, bytes: 262_144, heads: 2 }) : windowOf });
  }

  function unset(instance: Instance): void {
    instance.app = undefined;
    instance.appender = undefined;
    instance.intake = undefined;
  }

  function start(instance: Instance): void {
    const actor = createActor(`${instance.kind}-${instance.index}.${++instance.starts}`);
    instance.actor = actor;
    unset(instance);
    note(`start ${actor.name}`);
    const broken = (error: unknown): void => {
      if (!actor.alive) return;
      note(`exit ${actor.name} ${(error as { code?: string }).code ?? ''} ${(error as Error).message}`);
      crash(instance);
      scheduler.after(300, scheduler.world, () => start(instance));
    };
    scheduler.as(actor, () => {
      compose(instance).then(async (service) => {
        instance.service = service;
        void service.failed.then(broken);
        await service.start();
      }).catch(broken);
    });
  }

  function crash(instance: Instance): void {
    instance.actor.alive = false;
    instance.actor.held.length = 0;
    unset(instance);
    note(`crash ${instance.actor.name}`);
  }

  const ingests = instances.filter((i) => i.kind === 'ingest');
  const race = options.consent === undefined ? undefined : createConsentRace({
    scheduler, broker, vendors, random: stream(7), strikes: stream(11), leaseMs: sessionTimeoutMs, topics, workspaceKey, instances, note, decode: (bytes) => serde.decode(bytes),
    stop: (instance, ms) => {
      const { actor } = instance;
      if (!actor.alive || actor.stopped) return;
      actor.stopped = true;
      note(`stop ${actor.name}`);
      scheduler.after(ms, scheduler.world, () => scheduler.resume(actor));
    },
    kill: (instance) => {
      if (!instance.actor.alive || instance.actor.stopped) return;
      crash(instance);
      scheduler.after(50 + plan() * 1000, scheduler.world, () => start(instance));
    },
  });
  const sent = createWorkload(stream(6), options.events ?? defaultEvents);
  const profiles = race === undefined ? [] : createProfiles(stream(8), racers, Math.ceil(sent.length / 3));
  const list = createPolledList(polled, firstMs, 120);
  const answers: Answer[] = [];
  let acknowledged = 0;
  let orders = 0;

  /** Sends it until it is acknowledged, as an SDK does. */
  function send(item: Sent): void {
    const instance = ingests[(Number(item.user.slice(1)) + Math.floor(item.tries / 2)) % ingests.length]!;
    const { app, actor } = instance;
    item.tries++;
    if (item.tries === 1) {
      item.firstBy = actor.name;
      item.firstAt = scheduler.now;
    }
    let open = true;
    const again = (): void => {
      if (!open) return;
      open = false;
      scheduler.after(200, scheduler.world, () => send(item));
    };
    scheduler.after(ackTimeoutMs + 1000, scheduler.world, again);
    if (app === undefined || !actor.alive || actor.stopped) return again();
    scheduler.as(actor, () => {
      const headers = { 'content-type': 'application/json', 'authorization': `Basic ${Buffer.from(`secret-of-${item.source.toUpperCase()}_KEY:`).toString('base64')}` };
      app.inject({ method: 'POST', url: item.url, headers, payload: item.body }).then((response) => {
        const { statusCode } = response;
        answers.push({ at: scheduler.now, by: actor.name, status: statusCode, retryAfter: response.headers['retry-after'] !== undefined });
        if (statusCode !== 200) return void scheduler.after(1, scheduler.world, again);
        scheduler.after(1, actor, () => {
          if (!open) return;
          open = false;
          item.ackedBy = item.tries === 1 ? actor.name : 'later';
          acknowledged++;
        });
      }, () => scheduler.after(1, scheduler.world, again));
    });
  }

  function moveSomeLeader(names: readonly string[]): void {
    const name = names[Math.floor(plan() * names.length)]!;
    broker.moveLeader(name, Math.floor(plan() * partitions) % broker.topics.get(name)!.partitions.length);
  }

  /**
   * Some dead letters are put back, as an operator orders it, those among them that a vendor without keys may have applied: the
   * order does not say to send these again, so they are held once more.
   */
  function redriveSome(): void {
    const letters = broker.topics.get(topics.dlq)!.partitions.flatMap((p) => p.records.map((r) => serde.decode(r.value!).value as DeadLetterRecord));
    const chosen = letters.filter(() => plan() < 0.5).slice(0, 20);
    const actor = createActor(`control.${orders++}`);
    const log = createLog({ brokers: broker.brokers, clientId: actor.name }, broker.driver(actor));
    scheduler.as(actor, () => {
      (async () => {
        const appender = await log.appender({ deadlineMs: 5000 });
        for (const topic of new Set(chosen.map((l) => l.topic))) await appender.partitions(topic);
        // As a replay order does it: services/control/replay.
        const order = { id: `rpl_${orders}`, from: 'dlq', destination: null, unknown: 'hold' } as const;
        for (const [topic, list] of Map.groupBy(chosen, (l) => l.topic)) await appender.append(topic, list.map((l) => recordOf(order, { origin: { ...l, offset: 0, headers: l.headers.map((h) => [h.name, h.value] as const) }, from: l.id, kind: 'derived', deliveries: [], ...(topic === topics.canonical && typeof l.destination === 'string' ? { only: l.destination } : {}) })));
        note(`redriven ${chosen.length}`);
      })().catch((error: unknown) => note(`redrive refused ${(error as Error).message}`));
    });
  }

  /** What goes wrong at a chosen time. */
  function disturb(): void {
    const point = planned[Math.floor(plan() * planned.length)]!;
    const names = [...broker.topics.keys()];
    const instance = instances[Math.floor(plan() * instances.length)]!;
    faults.count(point);
    note(`fault ${point} ${instance.actor.name}`);
    if (point === 'leader.move') for (let i = 0; i < 8; i++) moveSomeLeader(names);
    else if (point === 'coordinator.move') for (const id of broker.groups.keys()) broker.moveCoordinator(id);
    else if (point === 'compact') broker.compact();
    else if (point === 'retention') for (const [group, topic] of readers(release).filter(([group]) => group !== groups.normalizer)) broker.trim(group, topic);
    else if (point === 'redrive') redriveSome();
    else if (point === 'vendor.subject-down') for (let i = 0; i < 3; i++) vendors.refuse(`u${Math.floor(plan() * users)}`, 1000 + plan() * 6000);
    else if (point === 'vendor.down') vendors.down('warehouse', 1500 + plan() * 6000);
    else if (point === 'broker.down') {
      const node = Math.floor(plan() * 3);
      broker.down(node);
      scheduler.after(500 + plan() * 4000, scheduler.world, () => broker.up(node));
    } else if (!instance.actor.alive || instance.actor.stopped) return;
    else if (point === 'instance.stop') {
      instance.actor.stopped = true;
      const { actor } = instance;
      scheduler.after(500 + plan() * 12_000, scheduler.world, () => scheduler.resume(actor));
    } else if (point === 'instance.restart' && instance.service !== undefined) {
      const { actor } = instance;
      void scheduler.as(actor, () => instance.service!.stop()).catch(() => undefined).then(() => {
        if (!actor.alive) return;
        crash(instance);
        scheduler.after(50, scheduler.world, () => start(instance));
      });
    } else {
      crash(instance);
      if (point === 'instance.crash-disk-lost') instance.disk.lose();
      scheduler.after(50 + plan() * 3000, scheduler.world, () => start(instance));
    }
  }

  try {
    for (const instance of instances) start(instance);
    const everyMs = 10 + plan() * 40;
    sent.forEach((item, i) => scheduler.after(firstMs + i * everyMs + plan() * 20, scheduler.world, () => send(item)));
    const endMs = firstMs + sent.length * everyMs + 4000;
    const profileMs = (sent.length * everyMs + 3000) / Math.max(1, profiles.length);
    profiles.forEach((item, i) => scheduler.after(firstMs + (i + plan()) * profileMs, scheduler.world, () => send(item)));
    race?.schedule(options.consent!, firstMs, endMs - 3000);
    if (options.faults !== false) {
      scheduler.after(firstMs, scheduler.world, () => { faults.on = true; });
      if (race === undefined && options.controlAway !== false) loseControl(firstMs, endMs);
      for (let i = 0; i < 7; i++) scheduler.after(firstMs + plan() * (endMs - firstMs), scheduler.world, disturb);
      scheduler.after(endMs, scheduler.world, () => { faults.on = false; });
    }
    let nextLook = 0;
    let stuck: string | undefined = 'nothing was looked at';
    let quiet = 0;
    await scheduler.run(() => {
      if (scheduler.now < nextLook) return false;
      nextLook = scheduler.now + 500;
      if (scheduler.now <= endMs + 500) return false;
      stuck = race?.pending() ?? (acknowledged < sent.length + profiles.length ? `${sent.length + profiles.length - acknowledged} items are not acknowledged` : watch.pending(release, polled));
      // What has its end may have its outcome still on the way: a second look, half a second later, decides.
      quiet = stuck === undefined ? quiet + 1 : 0;
      return quiet > 1;
    }, endMs + settleMs);
    const records = new Map([...broker.topics].map(([name, topic]) => [name, topic.partitions.map((p) => p.records)]));
    for (const call of vendors.calls) hash.update(`${call.at} ${call.actor} ${call.key}`);
    return { history: { seed, sent: [...sent, ...profiles, ...list.items], answers, records, calls: vendors.calls, leaseMs: sessionTimeoutMs, effects: vendors.effects, decode: (bytes) => serde.decode(bytes), early: watch.early, endedAt: watch.endedAt, uncovered: watch.uncovered(vendors.calls), stuck, consent: race?.history() }, hash: hash.digest('hex').slice(0, 16), faults: faults.counts, steps: scheduler.steps, virtualMs: scheduler.now };
  } finally {
    for (const { actor } of instances) actor.alive = false;
    restore();
  }
}
