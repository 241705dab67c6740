/**
 * The consent API in a simulated run: withdrawals and grants at chosen moments, what was answered and when, and what is
 * done to the services around them: stops, kills, a vendor that refuses one person, replays and redrives of old records.
 */
import { createConsentBarrier, createConsentTables } from '@weir/consent';
import type { Appender, LogRecord } from '@weir/log';
import { deliveryKey, H, keyedId, type TopicNames } from '@weir/pipeline';
import type { ConsentOrder } from '@weir/release';
import type { ServiceContext } from '@weir/service';
import { createConsentIntake, type RecordedConsent } from '../../../services/ingest/consent-intake.ts';
import type { SimBroker } from './broker.ts';
import { generations } from './checkers.ts';
import type { Situation } from './situations.ts';
import type { Random, Scheduler } from './time.ts';
import type { Vendors } from './vendor.ts';
import type { History, Instance } from './world.ts';

/** One change that was asked of the API. Virtual ms. */
export interface ConsentAsk {
  readonly user: string;
  readonly state: 'granted' | 'withdrawn';
  readonly ids: readonly string[];
  readonly askedAt: number;
  /** Undefined while it is not acknowledged by the log. */
  recorded: Pick<RecordedConsent, 'offsets' | 'acceptedAt'> | undefined;
  recordedAt: number;
  /** When it was answered as applied; undefined = it never was. */
  appliedAt: number | undefined;
  /** Answered as pending when the time of the caller was over; neither = the API died before it answered. */
  pending: boolean;
}
/** A change on weir.consent.changes, as it was appended. */
export interface ChangeSeen { readonly key: string; readonly partition: number; readonly offset: number; readonly at: number; readonly state: string; readonly acceptedAt: number; readonly id: string }
export interface ConsentHistory {
  readonly asks: readonly ConsentAsk[];
  readonly changes: readonly ChangeSeen[];
  /** `a~b`, and when it was appended first. */
  readonly links: ReadonlyMap<string, number>;
  /** What was asked for and done to the services, how often (`situations.ts`); the others are told by topics and calls. */
  readonly done: ReadonlyMap<Situation, number>;
}

interface RacePorts {
  readonly scheduler: Scheduler;
  readonly broker: SimBroker;
  readonly vendors: Vendors;
  readonly random: Random;
  /** Whether the normalizers are killed when one of them has written a change of consent. */
  readonly strikes: Random;
  /** How long a dispatcher may call on what it knows, virtual ms. */
  readonly leaseMs: number;
  readonly topics: TopicNames;
  readonly workspaceKey: Buffer;
  readonly instances: readonly Instance[];
  readonly note: (line: string) => void;
  readonly decode: (bytes: Buffer) => { name: string; value: any };
  readonly stop: (instance: Instance, ms: number) => void;
  readonly kill: (instance: Instance) => void;
}

const people = 8;
/** Of the appends of changes that came from a source. */
const strikeShare = 0.04;
const waitMs = 30_000;
/** People whose consent nothing but the race changes: granted and withdrawn in turn, each by the identifiers that he is known by here. */
export const racers = ['r0', 'r1', 'r2'] as const;
const knownBy: Readonly<Record<(typeof racers)[number], ReadonlyArray<'userId' | 'email'>>> = { r0: ['userId', 'email'], r1: ['email'], r2: ['userId'] };

export function createConsentRace(ports: RacePorts) {
  const { scheduler, broker, vendors, random, strikes, leaseMs, topics, workspaceKey, instances } = ports;
  const asks: ConsentAsk[] = [];
  const orders: { order: ConsentOrder; key: string; user: string; ids: readonly string[] }[] = [];
  const changes: ChangeSeen[] = [];
  const links = new Map<string, number>();
  const done = new Map<Situation, number>();
  const did = (situation: Situation): void => { done.set(situation, (done.get(situation) ?? 0) + 1); };
  let open = 0;
  let replays = 0;
  let turns = 0;
  const one = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  const ofKind = (kind: Instance['kind']): Instance[] => instances.filter((i) => i.kind === kind);

  /** The API as services/ingest composes it, on the simulated log and disk. */
  async function openApi(instance: Instance, context: ServiceContext, appender: Appender): Promise<void> {
    const { log, serde, clock } = context;
    const broken = (error: unknown): void => ports.note(`api of ${instance.actor.name}: ${(error as Error).message}`);
    const [reader, admin, tables] = await Promise.all([log.reader(), log.admin(), createConsentTables(context, broken, { open: instance.disk.open, linkAges: true })]);
    for (const topic of [topics.consentChanges, topics.identity, topics.canonical, topics.consentApplied]) await appender.partitions(topic);
    const barrier = createConsentBarrier({ reader, admin, appender, serde, topics, tables, clock, fail: broken });
    await Promise.all([tables.start(), barrier.start()]);
    instance.intake = createConsentIntake({ appender, serde, topics, barrier, tables, workspaceKey, keys: context.keys, release: () => context.releases.current().hash, keepsLinked: () => context.releases.current().linkedIdentifiers === true, clock });
  }

  const idsOf = (identifiers: ConsentOrder['identifiers']): string[] => (['userId', 'email'] as const).flatMap((type) => (identifiers[type] === null ? [] : [`${type}:${keyedId(workspaceKey, type, identifiers[type])}`]));

  function ask(state: 'granted' | 'withdrawn', user: string): void {
    const instance = one(ofKind('ingest'));
    const { intake, actor } = instance;
    if (intake === undefined || !actor.alive || actor.stopped) return;
    const roll = random();
    const email = roll < 0.6 ? `${user}@larkspur.example` : null;
    const userId = roll > 0.4 ? user : null;
    const identifiers = { userId, email, phone: null };
    const ids = idsOf(identifiers);
    // Some say that it happened long ago: only the order of acceptance counts.
    const order: ConsentOrder = { identifiers, purpose: 'email-marketing', channel: random() < 0.5 ? null : 'email', topic: null, state, legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, reason: null, expiresAt: null, occurredAt: random() < 0.3 ? Date.UTC(2020, 0, 1) : null };
    const key = `ask-${asks.length}`;
    // An old one comes once more, word for word: it must do nothing.
    const before = random() < 0.12 ? orders[Math.floor(random() * orders.length)] : undefined;
    if (before?.order.state === 'granted') did('old grant again');
    if (before !== undefined) return submit(instance, before.order, before.key, before.user, before.ids);
    if (state === 'withdrawn' && order.occurredAt !== null) did('back-dated');
    orders.push({ order, key, user, ids });
    submit(instance, order, key, user, ids);
  }

  function submit(instance: Instance, order: ConsentOrder, key: string, user: string, ids: readonly string[]): void {
    send(instance, order, key, user, ids);
    trouble();
  }

  function send({ intake, actor }: Instance, order: ConsentOrder, key: string, user: string, ids: readonly string[], then: () => void = () => undefined): void {
    const state = order.state as ConsentAsk['state'];
    if (state === 'granted' && asks.some((a) => a.user === user && a.state === 'withdrawn')) did('re-grant');
    const made: ConsentAsk = { user, state, ids, askedAt: scheduler.now, recorded: undefined, recordedAt: 0, appliedAt: undefined, pending: false };
    asks.push(made);
    open++;
    let ended = false;
    const end = (): void => {
      if (!ended) open--;
      ended = true;
    };
    // The API may die with it.
    scheduler.after(waitMs + 15_000, scheduler.world, end);
    scheduler.as(actor, () => {
      intake!(order, { source: 'consent-api', actor: 'sim', traceparent: '', key }).then(async (recorded) => {
        made.recorded = recorded;
        made.recordedAt = scheduler.now;
        ports.note(`consent ${state} ${user} ${recorded.offsets.map((o) => `${o.partition}:${o.offset}`).join(',')}`);
        const answer = await recorded.applied(waitMs);
        if (answer === 'superseded') ports.note(`superseded ${state} ${user}`);
        else if (answer === 'applied') {
          made.appliedAt = scheduler.now;
          ports.note(`applied ${state} ${user}`);
          scheduler.after(0, scheduler.world, then);
        } else made.pending = true;
        end();
      }).catch((error: unknown) => {
        ports.note(`consent refused ${(error as Error).message}`);
        end();
      });
    });
  }

  /** What is done to the services just then. */
  function trouble(): void {
    const roll = random();
    const soon = random() * 60;
    if (roll < 0.04) scheduler.after(soon, scheduler.world, () => stopDispatcher(3000 + random() * 12_000));
    else if (roll < 0.06) scheduler.after(soon, scheduler.world, () => ports.kill(one(ofKind('normalizer'))));
    else if (roll < 0.08) scheduler.after(soon, scheduler.world, () => ports.kill(one(ofKind('policy'))));
    else if (roll < 0.1) scheduler.after(soon, scheduler.world, () => ports.kill(one(ofKind('dispatcher'))));
    else if (roll < 0.3) late(one(ofKind('dispatcher')), random() < 0.8 ? 100 + random() * 3000 : 6000 + random() * 6000);
    else if (roll < 0.32) scheduler.after(soon, scheduler.world, () => ports.stop(one(ofKind('ingest')), 1000 + random() * 9000));
  }

  function stopDispatcher(ms: number): void {
    if (ms > leaseMs) did('dispatcher stopped past its lease');
    ports.stop(one(ofKind('dispatcher')), ms);
  }

  /** One of the normalizers has written changes of consent, and neither its record nor they are committed: both die now and then, before the log acknowledges them or just behind it. */
  function strikeNormalizers(): void {
    if (strikes() >= strikeShare) return;
    scheduler.after(strikes() < 0.5 ? 0 : strikes() * 20, scheduler.world, () => {
      did('normalizer killed before its commit');
      for (const instance of ofKind('normalizer')) ports.kill(instance);
    });
  }

  /** Its tables and reports fall behind, while its heartbeats and calls go on. */
  function late({ actor }: Instance, ms: number): void {
    broker.consentLate.set(actor.name, scheduler.now + ms);
    ports.note(`late ${actor.name} ${ms.toFixed(0)}`);
  }

  /**
   * One turn of a person whose consent is known: a grant, deliveries that the vendor refuses so that they are retried and
   * parked, a withdrawal; when it is answered as applied, the old grant once more, word for word, and a replay of what
   * was sent to him. Whatever then goes to the vendor is a violation, up to his next grant.
   */
  function turn(user: (typeof racers)[number]): void {
    const types = knownBy[user];
    const identifiers = { userId: types.includes('userId') ? user : null, email: types.includes('email') ? `${user}@larkspur.example` : null, phone: null };
    const order = (state: 'granted' | 'withdrawn'): ConsentOrder => ({ identifiers, purpose: 'email-marketing', channel: 'email', topic: null, state, legalBasis: null, jurisdiction: null, noticeVersion: null, proof: null, reason: null, expiresAt: null, occurredAt: null });
    const ids = idsOf(identifiers);
    const n = turns++;
    const by = (given: ConsentOrder, key: string, then?: () => void): void => {
      const ready = ofKind('ingest').filter((i) => i.intake !== undefined && i.actor.alive && !i.actor.stopped);
      if (ready.length > 0) send(one(ready), given, key, user, ids, then);
    };
    by(order('granted'), `turn-${n}-yes`);
    const refusedAt = 300 + random() * 400;
    if (random() < 0.6) scheduler.after(refusedAt, scheduler.world, () => vendors.refuse(user, 800 + random() * 4000));
    scheduler.after(refusedAt + 100 + random() * 500, scheduler.world, () => by(order('withdrawn'), `turn-${n}-no`, () => {
      if (random() < 0.7) scheduler.after(random() * 200, scheduler.world, () => by(order('granted'), `turn-${n}-yes`));
      if (random() < 0.5) scheduler.after(random() * 400, scheduler.world, () => again(ids));
    }));
  }

  /** Puts a record that was there before once more: a canonical one (a replay) or a delivery (a redrive of a dead letter); of anybody, or the last one of a person. */
  function again(person?: readonly string[]): void {
    const from = random() < 0.4 ? topics.canonical : topics.dispatch('newsletter');
    const all = broker.topics.get(from)!.partitions;
    const partition = Math.floor(random() * all.length);
    const of = person === undefined ? undefined : all.flatMap(({ records }, p) => records.flatMap((r) => (r.key !== null && person.includes(r.key.toString()) ? [[p, r] as const] : []))).at(-1);
    const record = of?.[1] ?? all[partition]!.records.at(-1 - Math.floor(random() * 40));
    const instance = one(ofKind('ingest'));
    if (record === undefined || instance.appender === undefined || !instance.actor.alive || instance.actor.stopped) return;
    const kept = record.headers.filter(([name]) => name !== H.intent);
    const headers: (readonly [string, Buffer])[] = from === topics.canonical ? kept : [...kept, [H.intent, Buffer.from(`redrive_${replays++}`)]];
    scheduler.as(instance.actor, () => {
      instance.appender!.partitions(from).then(() => instance.appender!.append(from, [{ partition: of?.[0] ?? partition, key: record.key, value: record.value, headers }])).catch((error: unknown) => ports.note(`replay refused ${(error as Error).message}`));
    });
  }

  return {
    open: openApi,
    schedule(count: number, fromMs: number, toMs: number): void {
      for (let i = 0; i < count; i++) {
        const at = fromMs + random() * (toMs - fromMs);
        const user = `u${Math.floor(random() * people)}`;
        const state = random() < 0.55 ? 'withdrawn' : 'granted';
        scheduler.after(at, scheduler.world, () => ask(state, user));
        // A vendor that refuses this person: his deliveries are retried, then parked, while the change comes.
        if (random() < 0.35) scheduler.after(Math.max(0, at - 300 - random() * 1500), scheduler.world, () => vendors.refuse(user, 1000 + random() * 9000));
        if (random() < 0.5) scheduler.after(at + random() * 4000, scheduler.world, () => again());
      }
      racers.forEach((user, i) => {
        for (let at = fromMs + i * 200; at < toMs; at += 1800 + random() * 1200) scheduler.after(at, scheduler.world, () => turn(user));
      });
    },
    appended(topic: string, partition: number, records: readonly LogRecord[]): void {
      if (topic === topics.identity) for (const { key } of records) if (!links.has(key!.toString())) links.set(key!.toString(), scheduler.now);
      if (topic !== topics.consentChanges) return;
      const text = (record: LogRecord, name: string): string => record.headers.find(([n]) => n === name)?.[1].toString() ?? '';
      if (records.some((record) => text(record, H.logged) !== '')) strikeNormalizers();
      for (const record of records) changes.push({ key: record.key!.toString(), partition, offset: record.offset, at: scheduler.now, state: ports.decode(record.value!).value.state, acceptedAt: Number(text(record, H.accepted)), id: text(record, H.output) });
    },
    pending: (): string | undefined => (open > 0 ? `${open} changes of consent are not answered` : undefined),
    history: (): ConsentHistory => ({ asks, changes, links, done }),
  };
}

/** Identifiers that are linked with these, by the links that were there at the time. */
function linkedAt(ids: readonly string[], links: ReadonlyMap<string, number>, at: number): Set<string> {
  const found = new Set(ids);
  for (const id of found) for (const [pair, since] of links) if (since <= at && pair.split('~').includes(id)) for (const other of pair.split('~')) found.add(other);
  return found;
}

/**
 * I3 as a sender sees it: after a withdrawal was answered as applied, no `use` call reaches the vendor for anybody who was
 * linked with its identifiers by then, until each of these has a grant that was accepted, for the first time, after it.
 */
export function afterApplied(history: History): string[] {
  const { consent } = history;
  if (consent === undefined) return [];
  const problems: string[] = [];
  const idsOf = new Map<string, readonly string[]>();
  for (const record of (history.records.get('sim.dispatch.newsletter') ?? []).flat()) {
    // An empty one is of an owner that found no mark on its ledger.
    if (record.value === null) continue;
    const { value } = history.decode(record.value);
    for (const generation of generations) for (const intent of new Set(['0', value.intent])) idsOf.set(deliveryKey(value.outputId, 'newsletter', value.operation, intent, generation), value.ids);
  }
  const firstOf = new Map<string, ChangeSeen>();
  for (const change of consent.changes) if (!firstOf.has(`${change.key} ${change.id}`)) firstOf.set(`${change.key} ${change.id}`, change);
  const grants = Map.groupBy([...firstOf.values()].filter((c) => c.state === 'granted'), (c) => c.key);
  for (const ask of consent.asks) {
    if (ask.state !== 'withdrawn' || ask.appliedAt === undefined) continue;
    const reach = linkedAt(ask.ids, consent.links, ask.appliedAt);
    // One that came a second time is the change that it was: what was granted in between stands.
    const place = (id: string, i: number): { offset: number; acceptedAt: number } => {
      const mine = ask.recorded!.offsets[i]!;
      const seen = consent.changes.find((c) => c.key === id && c.partition === mine.partition && c.offset === mine.offset)!;
      return firstOf.get(`${id} ${seen.id}`)!;
    };
    const places = ask.ids.map(place);
    const openAt = (at: number): boolean => ask.ids.every((id, i) => (grants.get(id) ?? []).some((g) => g.offset > places[i]!.offset && g.acceptedAt >= places[i]!.acceptedAt && g.at < at));
    for (const call of history.calls) {
      if (call.operation !== 'subscribe' || call.arrivesAt <= ask.appliedAt || call.arrivesAt === Infinity) continue;
      const ids = idsOf.get(call.key);
      if (ids === undefined) problems.push(`I3: nobody decided ${call.key}`);
      else if (ids.some((id) => reach.has(id)) && !openAt(call.arrivesAt)) problems.push(`I3: ${call.actor} reached the vendor with ${call.key} of ${ask.user} at ${call.arrivesAt.toFixed(1)}, after the withdrawal was applied at ${ask.appliedAt.toFixed(1)} (asked at ${ask.askedAt.toFixed(1)})`);
    }
  }
  return problems;
}
