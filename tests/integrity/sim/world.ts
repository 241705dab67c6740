/** One seed: the services on a simulated broker, vendor, disk and clock, a sender, and the plan of what goes wrong. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { createLog, createSerde, type Appender, type Log, type LogRecord, type Serde } from '@weir/log';
import { deliveryKey, eventId, groupNames, H, itemHash, topicNames } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { systemClock, type Service, type ServiceContext } from '@weir/service';
import { createLogger } from '@weir/telemetry';
import { Registry } from 'prom-client';
import { createDispatcher } from '../../../services/dispatcher/app.ts';
import { accept } from '../../../services/ingest/accept.ts';
import type { ConsentIntake } from '../../../services/ingest/consent-intake.ts';
import { createNormalizer } from '../../../services/normalizer/app.ts';
import { createPolicy } from '../../../services/policy/app.ts';
import { SimBroker } from './broker.ts';
import { createFaults, planned, type Point } from './faults.ts';
import { createDisk, type Disk } from './table.ts';
import { createActor, createRandom, Scheduler, type Actor, type Random } from './time.ts';
import { createConsentRace, type ConsentHistory } from './consent.ts';
import { createVendors, type Call, type Effect } from './vendor.ts';
import { simRelease } from './workspace.ts';

const topics = topicNames('sim');
const groups = groupNames('sim');
const partitions = 2;
const sessionTimeoutMs = 6000;
const callTimeoutMs = 2000;
const ackTimeoutMs = 3000;
const settleMs = 600_000;
const workspaceKey = Buffer.alloc(32, 7);
const users = 8;
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
  appender: Appender | undefined;
  intake: ConsentIntake | undefined;
}

/** One item that the sender sent. */
export interface Sent {
  readonly n: number;
  readonly source: string;
  readonly user: string;
  readonly kind: 'profile' | 'event' | 'poison' | 'repeat' | 'conflict';
  readonly consent: 'granted' | 'withdrawn' | undefined;
  readonly eventId: string;
  readonly hash: string;
  readonly body: Buffer;
  /** Instance and time of the first try; acknowledged on it or later. */
  firstBy: string;
  firstAt: number;
  ackedBy: string | undefined;
  tries: number;
}

/** What happened in a run, for the checkers: nothing of it comes from the services' own counters. */
export interface History {
  readonly seed: number;
  readonly sent: readonly Sent[];
  readonly records: ReadonlyMap<string, ReadonlyArray<readonly LogRecord[]>>;
  readonly calls: readonly Call[];
  readonly effects: readonly Effect[];
  readonly decode: (bytes: Buffer) => { name: string; value: any };
  /** Offsets that were committed before what they stand for was on the topics. */
  readonly early: readonly string[];
  /** Calls that no intent on the ledger covered when they were written. */
  readonly uncovered: readonly string[];
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

/** Every group with each topic that it reads to the end. */
function readers(release: Release): [group: string, topic: string][] {
  return [
    ...[...release.sources.keys()].map((s): [string, string] => [groups.normalizer, topics.raw(s)]), [groups.policy, topics.canonical], [groups.consentFold, topics.consentChanges],
    ...[...release.destinations.keys()].map((d): [string, string] => [groups.dispatcher(d), topics.dispatch(d)]),
  ];
}

export async function simulate(seed: number, options: { events?: number; faults?: boolean; consent?: number; trace?: (line: string) => void } = {}): Promise<Run> {
  const { serde, release } = await prepare();
  const stream = (n: number): Random => createRandom(Math.imul(seed, 0x9e3779b1) + n);
  const scheduler = new Scheduler();
  const faults = createFaults(stream(1));
  const broker = new SimBroker({ scheduler, random: stream(2), faults, nodes: 3 });
  const vendors = createVendors({ scheduler, random: stream(3), faults });
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
  const watch = createWatch(broker);
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
  const instances = kinds.flatMap((kind) => [0, 1].map((index): Instance => ({ kind, index, disk: createDisk(), actor: createActor(''), starts: 0, service: undefined, appender: undefined, intake: undefined })));

  const vault: ServiceContext['vault'] = {
    get: () => { throw new Error('no secret is asked for'); }, has: () => false, signing: () => undefined, previous: () => undefined,
    revision: () => 0, onChange: () => () => {}, refresh: () => Promise.resolve(), status: () => ({ available: true }), close: () => {},
  };

  function contextOf(instance: Instance, log: Log): ServiceContext {
    return { name: instance.kind, config: { instance: instance.actor.name } as never, log, serde, topics, groups, releases: { current: () => release, onChange: () => () => {}, incidents: () => new Map(), switches: () => new Map(), onSwitch: () => () => {}, close: () => Promise.resolve() }, vault, workspaceKey, logger, registry: new Registry(), clock: systemClock, stateDir: '/state' };
  }

  async function compose(instance: Instance): Promise<Service | undefined> {
    const { kind, disk, actor } = instance;
    const log = createLog({ brokers: broker.brokers, clientId: actor.name }, broker.driver(actor));
    if (kind === 'ingest') {
      const appender = await log.appender({ deadlineMs: 5000 });
      for (const topic of raws) await appender.partitions(topic);
      instance.appender = appender;
      await race?.open(instance, contextOf(instance, log), appender);
      return undefined;
    }
    const context = contextOf(instance, log);
    if (kind === 'normalizer') return createNormalizer(context, { sessionTimeoutMs }, disk.open);
    if (kind === 'policy') return createPolicy(context, { sessionTimeoutMs, windowRecords: 10_000, windowBytes: 16_777_216 }, disk.open);
    const look = (destination: string): Pick<Call, 'consent' | 'holders'> => ({
      consent: disk.open({ path: join(context.stateDir, 'consent') }).positions(),
      holders: new Map(Array.from({ length: partitions }, (_, p) => [p, broker.holder(groups.dispatcher(destination), topics.dispatch(destination), p)])),
    });
    return createDispatcher(context, { sessionTimeoutMs, callTimeoutMs, inLaneTries: 3, allowPrivate: true, sandboxUrl: 'http://sandbox' }, { openTable: disk.open, createHttpClient: () => vendors.client(actor, look) });
  }

  function start(instance: Instance): void {
    const actor = createActor(`${instance.kind}-${instance.index}.${++instance.starts}`);
    instance.actor = actor;
    instance.appender = undefined;
    instance.intake = undefined;
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
        if (service === undefined) return;
        void service.failed.then(broken);
        await service.start();
      }).catch(broken);
    });
  }

  function crash(instance: Instance): void {
    instance.actor.alive = false;
    instance.actor.held.length = 0;
    instance.appender = undefined;
    instance.intake = undefined;
    note(`crash ${instance.actor.name}`);
  }

  const ingests = instances.filter((i) => i.kind === 'ingest');
  const race = options.consent === undefined ? undefined : createConsentRace({
    scheduler, broker, vendors, random: stream(7), topics, workspaceKey, instances, note, decode: (bytes) => serde.decode(bytes),
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
  let acknowledged = 0;

  /** Sends it until it is acknowledged, as an SDK does. */
  function send(item: Sent): void {
    const instance = ingests[(Number(item.user.slice(1)) + Math.floor(item.tries / 2)) % ingests.length]!;
    const { appender, actor } = instance;
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
    if (appender === undefined || !actor.alive || actor.stopped) return again();
    const source = release.sources.get(item.source)!;
    scheduler.as(actor, () => {
      accept({ appender, topics, now: Date.now, ackTimeoutMs }, { source, items: [{ bytes: item.body, value: JSON.parse(item.body.toString()) as never }], traceparent: '', contentType: 'application/json' }).then(() => {
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
    else if (point === 'vendor.subject-down') for (let i = 0; i < 3; i++) vendors.refuse(`u${Math.floor(plan() * users)}`, 1000 + plan() * 6000);
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
    const firstMs = 1500;
    sent.forEach((item, i) => scheduler.after(firstMs + i * everyMs + plan() * 20, scheduler.world, () => send(item)));
    const endMs = firstMs + sent.length * everyMs + 4000;
    race?.schedule(options.consent!, firstMs, endMs - 3000);
    if (options.faults !== false) {
      scheduler.after(firstMs, scheduler.world, () => { faults.on = true; });
      for (let i = 0; i < 7; i++) scheduler.after(firstMs + plan() * (endMs - firstMs), scheduler.world, disturb);
      scheduler.after(endMs, scheduler.world, () => { faults.on = false; });
    }
    let nextLook = 0;
    let stuck: string | undefined = 'nothing was looked at';
    await scheduler.run(() => {
      if (scheduler.now < nextLook) return false;
      nextLook = scheduler.now + 500;
      if (scheduler.now <= endMs + 500) return false;
      stuck = race?.pending() ?? (acknowledged < sent.length ? `${sent.length - acknowledged} items are not acknowledged` : watch.pending(release));
      return stuck === undefined;
    }, endMs + settleMs);
    const records = new Map([...broker.topics].map(([name, topic]) => [name, topic.partitions.map((p) => p.records)]));
    for (const call of vendors.calls) hash.update(`${call.at} ${call.actor} ${call.key}`);
    return { history: { seed, sent, records, calls: vendors.calls, effects: vendors.effects, decode: (bytes) => serde.decode(bytes), early: watch.early, uncovered: watch.uncovered(vendors.calls), stuck, consent: race?.history() }, hash: hash.digest('hex').slice(0, 16), faults: faults.counts, steps: scheduler.steps, virtualMs: scheduler.now };
  } finally {
    for (const { actor } of instances) actor.alive = false;
    restore();
  }

  /** Follows the topics as they grow: ends of deliveries, and commits that come before what they stand for. */
  function createWatch(of: SimBroker) {
    /** topic family → event ids that it has. */
    const seen = new Set<string>();
    const ends = new Set<string>();
    const parked = new Set<string>();
    const early: string[] = [];
    /** Intents as they were appended: destination, partition, offsets covered, when. */
    const intents: { destination: string; partition: number; from: number; to: number; at: number }[] = [];
    const header = (record: LogRecord, name: string): string => record.headers.find(([n]) => n === name)?.[1].toString() ?? '';

    function through(group: string, record: LogRecord): boolean {
      const event = header(record, H.event);
      if (group === groups.normalizer) return seen.has(`normalized ${event}`);
      if (group === groups.policy) return seen.has(`decided ${header(record, H.output)}`) || seen.has(`decided ${event}`);
      if (!group.startsWith(groups.dispatcher(''))) return true;
      const { value } = serde.decode(record.value!);
      return ends.has(deliveryKey(value.outputId, value.destination, value.operation, value.intent, 0)) || parked.has(`${value.destination} ${record.offset} ${record.key!.toString()}`) || seen.has(`conflict ${value.destination} ${value.eventId}`);
    }

    return {
      early,
      appended(topic: string, records: readonly LogRecord[]): void {
        for (const record of records) {
          if (topic === topics.canonical || topic === topics.dlq || topic === topics.outcome) seen.add(`normalized ${header(record, H.event) || record.key!.toString()}`);
          if (topic.startsWith(topics.dispatch('')) || topic === topics.outcome || topic === topics.dlq) seen.add(`decided ${header(record, H.output) || (topic === topics.outcome ? serde.decode(record.value!).value.outputId : '') || record.key!.toString()}`);
          const key = record.key?.toString() ?? '';
          if (topic.startsWith(topics.ledger('')) && key.startsWith('#intent/') && record.value !== null) {
            const { value } = serde.decode(record.value);
            intents.push({ destination: value.destination, partition: value.partition, from: value.fromOffset, to: value.toOffset, at: scheduler.now });
          }
          if (topic.startsWith(topics.ledger('')) && key.endsWith('#end')) {
            ends.add(key.slice(0, -4));
            if (record.value !== null) {
              const { value } = serde.decode(record.value);
              if (value.code === 'event-conflict') seen.add(`conflict ${topic.slice(topics.ledger('').length)} ${value.eventId}`);
            }
          }
          if (topic.startsWith(topics.parked('')) && record.value !== null) parked.add(`${topic.slice(topics.parked('').length)} ${header(record, H.dispatched).split(':')[0]} ${key}`);
        }
      },
      committed(group: string, topic: string, partition: number, offset: number): void {
        const list = of.topics.get(topic)!.partitions[partition]!.records;
        for (let i = offset - 1; i >= Math.max(0, offset - 60); i--) if (!through(group, list[i]!)) early.push(`${group} committed ${topic}/${partition} ${offset}, but ${i} (${header(list[i]!, H.event)}) has left nothing`);
      },
      uncovered(calls: readonly Call[]): string[] {
        const at = new Map<string, { partition: number; offsets: number[] }>();
        for (const destination of destinations) {
          of.topics.get(topics.dispatch(destination))!.partitions.forEach((p, partition) => {
            for (const record of p.records) {
              const { value } = serde.decode(record.value!);
              const name = `${destination} ${deliveryKey(value.outputId, destination, value.operation, value.intent, 0)}`;
              const known = at.get(name);
              if (known === undefined) at.set(name, { partition, offsets: [record.offset] });
              else known.offsets.push(record.offset);
            }
          });
        }
        return calls.flatMap((call) => {
          const place = at.get(`${call.destination} ${call.key}`);
          const covered = place === undefined || intents.some((i) => i.destination === call.destination && i.partition === place.partition && i.at < call.at && place.offsets.some((o) => o < i.to));
          return covered ? [] : [`${call.actor} called ${call.destination} at ${call.at.toFixed(1)} for ${call.key} before any intent covered it`];
        });
      },
      /** What is still to be done; undefined = nothing. */
      pending(running: Release): string | undefined {
        for (const [group, topic] of readers(running)) {
          for (const [p, { end }] of of.topics.get(topic)!.partitions.entries()) {
            const at = of.groups.get(group)?.offsets.get(`${topic}/${p}`) ?? 0;
            if (at < end) return `${group} stands at ${at} of ${end} of ${topic}/${p}`;
          }
        }
        for (const destination of running.destinations.keys()) {
          for (const p of of.topics.get(topics.dispatch(destination))!.partitions) {
            for (const record of p.records) {
              const { value } = serde.decode(record.value!);
              if (!ends.has(deliveryKey(value.outputId, destination, value.operation, value.intent, 0))) return `a delivery to ${destination} has no end: ${value.outputId}`;
            }
          }
        }
        return undefined;
      },
    };
  }
}

/** What the sender has to send: profiles with and without consent, events, poison, repetitions, and the same event with another body. */
function createWorkload(random: Random, count: number): Sent[] {
  const list: Sent[] = [];
  const at = new Date(Date.UTC(2026, 0, 15)).toISOString();
  for (let n = 0; n < count; n++) {
    const roll = random();
    const before = list[Math.floor(random() * list.length)];
    const user = `u${Math.floor(random() * users)}`;
    const source = random() < 0.7 ? 'shop' : 'app';
    if (before !== undefined && roll < 0.06) {
      list.push({ ...before, n, kind: 'repeat' });
      continue;
    }
    const conflict = before !== undefined && before.kind === 'event' && roll < 0.1;
    const kind: Sent['kind'] = conflict ? 'conflict' : roll < 0.13 ? 'poison' : roll < 0.65 ? 'profile' : 'event';
    const consent = kind === 'profile' && random() < 0.6 ? (random() < 0.65 ? 'granted' : 'withdrawn') : undefined;
    const from = conflict ? before : { user, source };
    const id = conflict ? (JSON.parse(before.body.toString()) as { messageId: string }).messageId : `m-${n}`;
    const type = kind === 'profile' ? 'identify' : 'track';
    const body = Buffer.from(JSON.stringify({ type, messageId: id, userId: from.user, ...(n % 3 === 0 ? {} : { timestamp: at }), ...(kind === 'profile' ? { traits: { email: `${from.user}@larkspur.example`, plan: `p${n}`, ...(consent === undefined ? {} : { marketingConsent: consent === 'granted' }) } } : kind === 'poison' ? {} : { event: 'Viewed', properties: { n } }) }));
    list.push({ n, source: from.source, user: from.user, kind, consent, eventId: eventId(from.source, [id, type]), hash: itemHash(body), body, firstBy: '', firstAt: 0, ackedBy: undefined, tries: 0 });
  }
  return list;
}
