import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createLog, type LogAdmin } from '@weir/log';
import { groupNames, topicNames } from '@weir/pipeline';
import { fleetServices, freeze, startFleet, waitFor, type Fleet } from '@weir/testing';
import { hopsOf, readTrail, type Asked, type Hops } from './hops.ts';
import { watchProcesses, yieldTo, type Share } from './processes.ts';
import { startPlatform } from '../../infra/local/platform.ts';

export interface RaceOptions {
  readonly eventsPerSecond: number;
  readonly seconds: number;
  /** Events on the raw topic that nobody has read when the withdrawals begin. */
  readonly backlog: number;
  /** Nice value of the bulk stages; 0 = as the others. */
  readonly bulkNice: number;
  /** How long what the race left may take to end, s: then what has arrived until now is looked at. */
  readonly drainSeconds: number;
}

/** Records that the stages on the way to the newsletter have not committed. */
export interface Backlog {
  readonly normalizer: number;
  readonly policy: number;
  readonly newsletter: number;
}

export interface RealRace {
  readonly sent: number;
  readonly rate: number;
  readonly backlogAtStart: Backlog;
  readonly backlogAtEnd: Backlog;
  /** Withdrawals answered as applied, ms, ascending. */
  readonly waits: readonly number[];
  /** Where their time went, by what the topics say. */
  readonly hops: readonly Hops[];
  /** How long dispatchers waited for the vendors' answers to calls that began while changes were asked for, ms, ascending: what is open when a withdrawal comes is waited for. */
  readonly answers: readonly number[];
  readonly pending: number;
  readonly late: readonly string[];
  /** Everything for the newsletter had ended when the arrivals were looked at. */
  readonly ended: boolean;
  /** What each process had of the processor during the race. */
  readonly shares: readonly Share[];
}

const root = resolve(import.meta.dirname, '../..');
const people = 400;
const batchSize = 100;
const withdrawalsPerSecond = 10;
/** What works off a backlog, and what only looks on: nobody who waits for a withdrawal waits for them. */
const bulk = ['normalizer', 'control'] as const;

/**
 * Real processes, two dispatchers, on a broker of its own. A backlog on the raw topic first (the normalizer is stopped),
 * then traffic at the rate asked for while people grant and withdraw by the consent API.
 */
export async function raceOnBroker(options: RaceOptions): Promise<RealRace> {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-consent-race-'));
  const platform = await startPlatform({ dataDir });
  const log = createLog({ brokers: platform.bootstrap, clientId: 'consent-race' });
  let fleet: Fleet | undefined;
  try {
    fleet = await startFleet({ brokers: platform.bootstrap, registryUrl: platform.registryUrl, workspace: join(root, 'workspace'), apart: true });
    await fleet.start('dispatcher', 2);
    const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
    const { asked, ...race } = await run(fleet, options, platform.brokers[0]!.process().pid, admin);
    const trail = await readTrail(topicNames(fleet.prefix), { reader, admin, registryUrl: platform.registryUrl });
    const [first, last] = [Math.min(...asked.map((a) => a.askedAt)), Math.max(...asked.map((a) => a.answeredAt))];
    return { ...race, hops: hopsOf(asked, trail), answers: trail.calls.flatMap(({ at, ms }) => (at >= first && at <= last ? [ms] : [])).toSorted((a, b) => a - b) };
  } finally {
    await fleet?.dispose();
    await log.close();
    await platform.stop();
    rmSync(dataDir, { recursive: true, force: true });
  }
}

/** As an SDK does: a connection that was closed under a request is tried again; an ingest that is gone is an error. */
async function insist(fleet: Fleet, url: string, init: RequestInit): Promise<Response> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await fetch(url, init);
    } catch (error) {
      const { exitCode, signalCode } = fleet.process('ingest');
      if (exitCode !== null || signalCode !== null || attempt >= 5) throw new Error(`ingest does not answer (exit ${exitCode ?? signalCode ?? 'none'})`, { cause: error });
    }
  }
}

/** Until nothing is left that could reach the newsletter; the limits that other vendors state would make hours of the rest. */
function drained(fleet: Fleet, deadlineMs: number): Promise<boolean> {
  return waitFor('everything for the newsletter has ended', async () => {
    const { lag } = (await fleet.status()) as { lag: Record<string, number> };
    const left = ['normalizer', 'policy', 'consent', 'dispatcher.newsletter'].map((name) => lag[name] ?? 0);
    if (left.some((n) => n > 0)) throw new Error(`normalizer, policy, consent, newsletter: ${left.join(', ')} records left`);
    return true;
  }, deadlineMs);
}

/** False: what waits is more than the time allowed. A process that has ended is an error. */
function stillAtWork(fleet: Fleet, error: unknown): false {
  const gone = fleetServices.filter((name) => fleet.process(name).exitCode !== null || fleet.process(name).signalCode !== null);
  if (gone.length > 0) throw new Error(`${gone.join(', ')} ended: ${gone.map((name) => readFileSync(fleet.logFile(name), 'utf8').slice(-1000)).join('\n')}`, { cause: error });
  return false;
}

async function run(fleet: Fleet, options: RaceOptions, broker: number, admin: LogAdmin): Promise<Omit<RealRace, 'hops' | 'answers'> & { readonly asked: readonly Asked[] }> {
  const key = Buffer.from(`${fleet.secret('SEGMENT_WRITE_KEY')}:`).toString('base64');
  const token = fleet.secret('ADMIN_TOKEN');
  let sent = 0;
  const post = async (): Promise<void> => {
    const batch = Array.from({ length: batchSize }, () => {
      const n = sent++;
      return { type: 'identify', messageId: `race-${n}`, userId: `u${n % people}`, timestamp: '2026-03-04T05:06:07Z', traits: { email: `p${n % people}@larkspur.example`, plan: `p${n}` } };
    });
    const response = await insist(fleet, `${fleet.ingest}/v1/batch`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Basic ${key}` }, body: JSON.stringify({ batch }) });
    if (!response.ok) throw new Error(`ingest answered ${response.status}`);
    await response.arrayBuffer();
  };
  const consent = async (person: number, state: string, wait: boolean): Promise<Asked & { status: number; waitedMs: number }> => {
    const askedAt = Date.now();
    const response = await insist(fleet, `${fleet.ingest}/v1/consent${wait ? '?wait=applied' : ''}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` }, body: JSON.stringify({ identifiers: { email: `p${person}@larkspur.example` }, purpose: 'email-marketing', channel: 'email', state }) });
    const { waitedMs, offsets } = (await response.json()) as { waitedMs: number; offsets: Asked['offsets'] };
    return { status: response.status, waitedMs, offsets, askedAt, answeredAt: Date.now() };
  };
  // From the broker: on a machine that is full, control answers after the race.
  const [topics, groups] = [topicNames(fleet.prefix), groupNames(fleet.prefix)];
  const lag = async (group: string, topic: string): Promise<number> => {
    const [ends, committed] = await Promise.all([admin.endOffsets(topic), admin.committed(group, topic)]);
    return [...ends].reduce((sum, [partition, end]) => sum + end - (committed.get(partition) ?? 0), 0);
  };
  const backlog = async (): Promise<Backlog> => ({ normalizer: await lag(groups.normalizer, topics.raw('segment')), policy: await lag(groups.policy, topics.canonical), newsletter: await lag(groups.dispatcher('newsletter'), topics.dispatch('newsletter')) });

  for (let person = 0; person < people; person += 50) await Promise.all(Array.from({ length: 50 }, (_, i) => consent(person + i, 'granted', false)));
  await post();
  await drained(fleet, 120_000);
  for (const name of bulk) yieldTo(fleet.process(name).pid!, options.bulkNice);
  const thaw = await freeze(fleet.process('normalizer').pid!);
  while (sent < options.backlog) await Promise.all(Array.from({ length: 8 }, post));
  const backlogAtStart = await backlog();
  thaw();
  const before = sent;
  const shares = watchProcesses({ broker, ...Object.fromEntries(fleetServices.map((name) => [name, fleet.process(name).pid!])), 'dispatcher 2': fleet.process('dispatcher', 2).pid!, 'this command': process.pid });
  const began = performance.now();

  const waits: number[] = [];
  const asked: Asked[] = [];
  const withdrawn = new Map<number, number>();
  /** Withdrawn and not granted again, with the time of the answer; a person takes part once. */
  let pending = 0;
  const asking: Promise<void>[] = [];
  for (let tick = 0; tick < options.seconds * 10; tick++) {
    const due = began + tick * 100;
    if (due > performance.now()) await new Promise((done) => setTimeout(done, due - performance.now()));
    const wanted = Math.ceil((((tick + 1) * options.eventsPerSecond) / 10 - (sent - before)) / batchSize);
    for (let i = 0; i < wanted; i++) asking.push(post());
    if (tick % Math.round(10 / withdrawalsPerSecond) === 0) {
      const person = asking.length === 0 ? 0 : tick % people;
      asking.push(consent(person, 'withdrawn', true).then(({ status, waitedMs, ...times }) => {
        if (status === 200) {
          waits.push(waitedMs);
          asked.push(times);
          if (!withdrawn.has(person)) withdrawn.set(person, times.answeredAt);
        } else pending++;
      }));
    }
  }
  const rate = (sent - before) / ((performance.now() - began) / 1000);
  const had = shares();
  const backlogAtEnd = await backlog();
  await Promise.all(asking);
  const ended = await drained(fleet, options.drainSeconds * 1000).catch((error: unknown) => stillAtWork(fleet, error));
  const arrivals = (await (await fetch(`${fleet.sandbox}/arrivals?destination=newsletter`)).json()) as { operation: string; subject: string; at: string }[];
  const late = arrivals.flatMap((arrival) => {
    if (arrival.operation.includes('unsub')) return [];
    const at = withdrawn.get(Number(/^p(\d+)@/.exec(arrival.subject)?.[1] ?? -1));
    return at !== undefined && Date.parse(arrival.at) > at ? [`use of ${arrival.subject} reached the newsletter at ${arrival.at}, applied was answered at ${new Date(at).toISOString()}`] : [];
  });
  return { sent, rate, backlogAtStart, backlogAtEnd, waits: waits.toSorted((a, b) => a - b), asked, pending, late, ended, shares: had };
}
