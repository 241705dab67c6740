import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { freeze, startFleet, waitFor, type Fleet } from '@weir/testing';
import { startPlatform } from '../../infra/local/platform.ts';

export interface RealRace {
  readonly sent: number;
  readonly rate: number;
  readonly backlogAtStart: number;
  readonly backlogAtEnd: number;
  /** Withdrawals answered as applied, ms, ascending. */
  readonly waits: readonly number[];
  readonly pending: number;
  readonly late: readonly string[];
}

const root = resolve(import.meta.dirname, '../..');
const people = 400;
const batchSize = 100;
const withdrawalsPerSecond = 10;

/**
 * Real processes, two dispatchers, on a broker of its own. A backlog on the raw topic first (the normalizer is stopped),
 * then traffic at the rate asked for while people grant and withdraw by the consent API.
 */
export async function raceOnBroker(options: { readonly eventsPerSecond: number; readonly seconds: number; readonly backlog: number }): Promise<RealRace> {
  const dataDir = mkdtempSync(join(tmpdir(), 'weir-consent-race-'));
  const platform = await startPlatform({ dataDir });
  let fleet: Fleet | undefined;
  try {
    fleet = await startFleet({ brokers: platform.bootstrap, registryUrl: platform.registryUrl, workspace: join(root, 'workspace') });
    await fleet.start('dispatcher', 2);
    return await run(fleet, options);
  } finally {
    await fleet?.dispose();
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

async function run(fleet: Fleet, options: { readonly eventsPerSecond: number; readonly seconds: number; readonly backlog: number }): Promise<RealRace> {
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
  const consent = async (person: number, state: string, wait: boolean): Promise<{ status: number; waitedMs: number; at: number }> => {
    const response = await insist(fleet, `${fleet.ingest}/v1/consent${wait ? '?wait=applied' : ''}`, { method: 'POST', headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` }, body: JSON.stringify({ identifiers: { email: `p${person}@larkspur.example` }, purpose: 'email-marketing', channel: 'email', state }) });
    const body = (await response.json()) as { waitedMs: number };
    return { status: response.status, waitedMs: body.waitedMs, at: Date.now() };
  };
  const backlog = async (): Promise<number> => {
    const status = (await fleet.status()) as { events: { pending: number } };
    return status.events.pending;
  };

  for (let person = 0; person < people; person += 50) await Promise.all(Array.from({ length: 50 }, (_, i) => consent(person + i, 'granted', false)));
  await post();
  await drained(fleet, 120_000);
  const thaw = await freeze(fleet.process('normalizer').pid!);
  while (sent < options.backlog) await Promise.all([post(), post(), post(), post()]);
  thaw();
  await waitFor('the control service has seen the backlog', async () => (await backlog()) > 0);
  const backlogAtStart = await backlog();
  const before = sent;
  const began = performance.now();

  const waits: number[] = [];
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
      asking.push(consent(person, 'withdrawn', true).then(({ status, waitedMs, at }) => {
        if (status === 200) {
          waits.push(waitedMs);
          if (!withdrawn.has(person)) withdrawn.set(person, at);
        } else pending++;
      }));
    }
  }
  const rate = (sent - before) / ((performance.now() - began) / 1000);
  const backlogAtEnd = await backlog();
  await Promise.all(asking);
  await drained(fleet, 600_000);
  const arrivals = (await (await fetch(`${fleet.sandbox}/arrivals?destination=newsletter`)).json()) as { operation: string; subject: string; at: string }[];
  const late = arrivals.flatMap((arrival) => {
    if (arrival.operation.includes('unsub')) return [];
    const at = withdrawn.get(Number(/^p(\d+)@/.exec(arrival.subject)?.[1] ?? -1));
    return at !== undefined && Date.parse(arrival.at) > at ? [`use of ${arrival.subject} reached the newsletter at ${arrival.at}, applied was answered at ${new Date(at).toISOString()}`] : [];
  });
  return { sent, rate, backlogAtStart, backlogAtEnd, waits: waits.toSorted((a, b) => a - b), pending, late };
}
