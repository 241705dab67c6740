/**
 * The accounts of a run, read from the topics and from the vendor's own log, never from a service's counters:
 * which events were accepted, how each delivery ended, what took effect and in which order.
 */
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createLog, createSerde, type RecordBatch } from '@weir/log';
import { startFleet, type Fleet, type FleetService } from '@weir/testing';

export interface Accounts {
  readonly accepted: Set<string>;
  /** event|output|destination|operation → states that its ends and outcomes name. */
  readonly deliveries: Map<string, Set<string>>;
  /** Events that ended before they were routed. */
  readonly ended: Map<string, Set<string>>;
  /** Per destination and subject, output ids in the order of weir.dispatch. */
  readonly dispatched: Map<string, string[]>;
}

const text = (record: RecordBatch['records'][number], name: string): string => record.headers.find(([n]) => n === name)?.[1].toString() ?? '';

export async function readAccounts(options: { brokers: readonly string[]; registryUrl: string; prefix: string }): Promise<Accounts> {
  const log = createLog({ brokers: options.brokers, clientId: 'accounts' });
  const serde = createSerde({ registryUrl: options.registryUrl });
  await serde.start();
  const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
  const accounts: Accounts = { accepted: new Set(), deliveries: new Map(), ended: new Map(), dispatched: new Map() };
  const add = (map: Map<string, Set<string>>, key: string, state: string): void => {
    const set = map.get(key) ?? new Set();
    set.add(state);
    map.set(key, set);
  };
  const topics = (await admin.listTopics()).filter((t) => t.startsWith(`${options.prefix}.`));
  for (const topic of topics) {
    const name = topic.slice(options.prefix.length + 1);
    for (const [partition, end] of await admin.endOffsets(topic)) {
      await reader.read(topic, partition, 0, end, async (batch) => {
        for (const record of batch.records) {
          if (name.startsWith('raw.')) accounts.accepted.add(text(record, 'weir-event'));
          if (record.value === null || !(name === 'outcome' || name.startsWith('ledger.') || name.startsWith('dispatch.'))) continue;
          await serde.prepare(record.value);
          const { name: type, value } = serde.decode(record.value);
          if (type === 'weir.internal.Outcome' && value.outputId === null) add(accounts.ended, value.eventId, value.state);
          else if (type === 'weir.internal.Outcome') add(accounts.deliveries, `${value.eventId}|${value.outputId}|${value.destination}|${value.operation}`, value.state);
          else if (type === 'weir.internal.LedgerEnd') add(accounts.deliveries, `${value.eventId}|${value.outputId}|${name.slice(7)}|${value.operation}`, value.state);
          else if (type === 'weir.internal.Delivery') {
            const key = `${value.destination}|${record.key!.toString()}`;
            const list = accounts.dispatched.get(key) ?? [];
            if (!list.includes(value.outputId)) list.push(value.outputId);
            accounts.dispatched.set(key, list);
            if (!accounts.deliveries.has(`${value.eventId}|${value.outputId}|${value.destination}|${value.operation}`)) accounts.deliveries.set(`${value.eventId}|${value.outputId}|${value.destination}|${value.operation}`, new Set());
          }
        }
      });
    }
  }
  await log.close();
  return accounts;
}

export interface RunOptions {
  readonly brokers: readonly string[];
  readonly registryUrl: string;
  readonly events: number;
  readonly people: number;
  readonly settleMs: number;
  /** The vendor answers half of the calls this late: stages have work in hand when they are killed, and what is not kept in order shows. */
  readonly slowMs?: number;
}

export interface RunResult {
  readonly fleet: Fleet;
  /** Message ids that were answered 200, in the order of each person. */
  readonly answered: number;
  readonly sendMs: number;
  readonly totalMs: number;
}

const restarted: readonly FleetService[] = ['normalizer', 'policy', 'dispatcher', 'ingest', 'control'];

/** Sends events in batches of 100 as an SDK would (again until answered 200) and kills and restarts each service half-way. The klaviyo destination is left out: its own limit of 750 profiles a minute would be the measure. */
export async function runWithRestarts(options: RunOptions): Promise<RunResult> {
  const dir = mkdtempSync(join(tmpdir(), 'weir-run-'));
  const workspace = join(dir, 'workspace');
  cpSync(resolve(import.meta.dirname, '../../workspace'), workspace, { recursive: true });
  rmSync(join(workspace, 'destinations/klaviyo.yaml'));
  const fleet = await startFleet({ brokers: options.brokers, registryUrl: options.registryUrl, workspace });
  rmSync(dir, { recursive: true, force: true });
  const authorization = `Basic ${Buffer.from(`${fleet.secret('SEGMENT_WRITE_KEY')}:`).toString('base64')}`;
  if (options.slowMs !== undefined) await fetch(`${fleet.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ mode: 'slow', delayMs: options.slowMs, rate: 0.5, seed: 7 }) });
  const began = performance.now();
  let answered = 0;
  let next = 0;
  const half = options.events / 2;
  let restarting: Promise<void> | undefined;
  const call = (i: number): object => {
    const person = i % options.people;
    const at = new Date(Date.UTC(2026, 0, 1) + i * 1000).toISOString();
    return i % 2 === 0 ? { type: 'identify', messageId: `m-${i}`, userId: `u-${person}`, timestamp: at, traits: { email: `p${person}@larkspur.example`, plan: `plan-${i}` } } : { type: 'track', messageId: `m-${i}`, userId: `u-${person}`, timestamp: at, event: 'Product Viewed', properties: { n: i } };
  };
  async function worker(): Promise<void> {
    while (next < options.events) {
      const from = next;
      next += 100;
      if (from >= half) restarting ??= (async () => { for (const service of restarted) await fleet.restart(service); })();
      const body = JSON.stringify({ batch: Array.from({ length: Math.min(100, options.events - from) }, (_, k) => call(from + k)) });
      for (;;) {
        const status = await fetch(`${fleet.ingest}/v1/batch`, { method: 'POST', body, headers: { authorization, 'content-type': 'application/json' } }).then((r) => r.status, () => 0);
        if (status === 200) break;
        await new Promise((done) => setTimeout(done, 50));
      }
      answered += Math.min(100, options.events - from);
    }
  }
  try {
    // One worker: a person's events are sent in their order, so that order can be checked at the far end.
    await worker();
    const sendMs = performance.now() - began;
    await restarting;
    await fleet.settled(options.settleMs);
    return { fleet, answered, sendMs, totalMs: performance.now() - began };
  } catch (error) {
    await fleet.dispose();
    throw error;
  }
}

/** Everything that does not add up; empty when all does. */
export async function discrepancies(options: RunOptions, run: RunResult): Promise<{ problems: string[]; figures: Record<string, number> }> {
  const problems: string[] = [];
  const accounts = await readAccounts({ ...options, prefix: run.fleet.prefix });
  if (accounts.accepted.size !== options.events) problems.push(`accepted ${accounts.accepted.size} of ${options.events}`);
  const perState: Record<string, number> = {};
  const eventsSeen = new Set<string>();
  for (const [key, states] of accounts.deliveries) {
    eventsSeen.add(key.split('|')[0]!);
    // A record decided again after a crash may have been denied once and delivered once: delivered is what happened.
    const final = states.has('delivered') ? 'delivered' : [...states][0];
    if (final === undefined) problems.push(`no end: ${key}`);
    else perState[final] = (perState[final] ?? 0) + 1;
  }
  for (const event of accounts.accepted) if (!eventsSeen.has(event) && !accounts.ended.has(event)) problems.push(`unaccounted: ${event}`);
  let effects = 0;
  const keys = new Set<string>();
  for (const destination of ['warehouse', 'crm', 'newsletter']) {
    const list = (await (await fetch(`${run.fleet.sandbox}/effects?destination=${destination}`)).json()) as { idempotencyKey: string; subject: string; body: { id?: string; occurredAt?: number } }[];
    effects += list.length;
    for (const effect of list) keys.add(`${destination}|${effect.idempotencyKey}`);
    if (destination === 'warehouse') problems.push(...orderProblems(list, accounts));
  }
  if (effects !== keys.size) problems.push(`${effects} effects, ${keys.size} keys`);
  if (effects !== (perState['delivered'] ?? 0)) problems.push(`${effects} effects, ${perState['delivered'] ?? 0} delivered`);
  return { problems: problems.slice(0, 20), figures: { accepted: accounts.accepted.size, deliveries: accounts.deliveries.size, ...perState, effects, keys: keys.size } };
}

/** First successes per subject must follow the order on weir.dispatch.warehouse. */
function orderProblems(effects: readonly { body: { id?: string } }[], accounts: Accounts): string[] {
  const position = new Map<string, [subject: string, at: number]>();
  for (const [key, list] of accounts.dispatched) if (key.startsWith('warehouse|')) list.forEach((id, i) => position.set(id, [key, i]));
  const last = new Map<string, number>();
  const problems: string[] = [];
  for (const effect of effects) {
    const found = position.get(effect.body.id ?? '');
    if (found === undefined) continue;
    if ((last.get(found[0]) ?? -1) > found[1]) problems.push(`out of order: ${effect.body.id} of ${found[0]}`);
    last.set(found[0], found[1]);
  }
  return problems;
}
