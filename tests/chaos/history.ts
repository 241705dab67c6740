/** The recorded history of a run: what the topics and the vendor's own log hold when all is quiet. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createLog, createSerde, type RecordBatch } from '@weir/log';
import { H, itemHash } from '@weir/pipeline';
import { leafHeader } from '@weir/release';
import { createKeyRing, sealedSerde, type KeyRing } from '@weir/seal';
import { createLogger } from '@weir/telemetry';
import { nextOwner, type OwnerMark } from '../../services/dispatcher/owners.ts';
import { createRoutes, type Routes, type Wanted } from './routes.ts';

export interface RawRecord { readonly event: string; readonly hash: string; readonly objectKey: string; readonly source: string; readonly partition: number; readonly offset: number }
export interface CanonicalRecord { readonly event: string; readonly output: string; readonly source: string; readonly subject: string; readonly partition: number; readonly offset: number; readonly type: string; readonly release: string; readonly value: Buffer; /** By the routes of the workspace. */ readonly wanted: Wanted; readonly userId: string | null }
export interface DispatchRecord { readonly event: string; readonly output: string; readonly destination: string; readonly operation: string; readonly kind: string; readonly subject: string; readonly release: string; readonly partition: number; readonly offset: number; /** By which replay order; '' = none. */ readonly order: string; /** By the brokers. */ readonly at: number; /** Which limit rules counted it, and when by the clock of who decided. */ readonly decided: { readonly at: number; readonly limits: readonly string[] } | undefined }
export interface EndRecord { readonly key: string; readonly event: string; readonly output: string; readonly destination: string; readonly operation: string; readonly state: string; readonly effect: string; readonly at: number; readonly reason: string | null; /** By whom, and whether that was the owner by the order of its ledger when it came there. */ readonly owner: string; readonly owned: boolean; /** Of the record that it ends, on its dispatch topic. */ readonly offset: number; readonly maybeSince: number; readonly subject: string }
export interface OutcomeRecord { readonly event: string; readonly output: string | null; readonly destination: string | null; readonly operation: string | null; readonly state: string; readonly reason: string | null; /** Who told it. */ readonly stage: string }
export interface ConsentRecord { readonly id: string; readonly purpose: string; readonly state: string; readonly version: number; readonly at: number }
export interface Arrival { readonly destination: string; readonly operation: string; readonly idempotencyKey: string | null; readonly subject: string | null; readonly body: Record<string, unknown>; readonly at: number; readonly applied: boolean; readonly n: number }

export interface History {
  readonly raw: RawRecord[];
  readonly canonical: CanonicalRecord[];
  readonly dispatch: DispatchRecord[];
  readonly ends: EndRecord[];
  /** Deliveries that waited, by their place on the parked topic. */
  readonly parked: Array<{ readonly output: string; readonly destination: string; readonly operation: string; readonly offset: number }>;
  readonly outcomes: OutcomeRecord[];
  readonly letters: Array<{ readonly event: string; readonly stage: string; readonly code: string; readonly value: Buffer | null; /** Of the record's bytes, opened. */ readonly hash: string; readonly topic: string; readonly partition: number; readonly offset: number }>;
  readonly consent: ConsentRecord[];
  readonly releases: Set<string>;
  /** Changes on weir.control that somebody ordered, with the audit leaf that each names. */
  readonly changes: Array<{ readonly what: string; readonly leaf: string; readonly at: number }>;
  /** Kill switches, by destination. */
  readonly switches: Map<string, boolean>;
  /** API tokens, by id: whether it is revoked. */
  readonly tokens: Map<string, boolean>;
  /** Replay orders. */
  readonly orders: Set<string>;
  readonly erasures: Map<string, { readonly state: string; readonly erasedAt: number | null }>;
  /** weir.audit as it stands. */
  readonly leaves: Array<{ readonly bytes: Buffer; readonly at: number }>;
  /** Records whose key is destroyed. */
  unreadable: number;
  readonly effects: Arrival[];
  readonly arrivals: Arrival[];
}

const header = (record: RecordBatch['records'][number], name: string): string => record.headers.find(([n]) => n === name)?.[1].toString() ?? '';

/** ISO text or ms. */
const timeOf = (at: unknown): number => (typeof at === 'number' ? at : Date.parse(String(at)));

/** `<when>;<operation>;<rules>` of a delivery that limit rules counted. */
export function decidedOf(text: string): DispatchRecord['decided'] {
  const [at, , rules] = text.split(';');
  return rules === undefined ? undefined : { at: Number(at), limits: rules.split(',') };
}

/** A question whether something took effect. */
export const isReadBack = ({ operation }: Pick<Arrival, 'operation'>): boolean => operation.startsWith('read ');

/** A vendor that has no key of a call (or refused it) still shows the one that our body carries. */
export function keyOf({ idempotencyKey, body }: Pick<Arrival, 'idempotencyKey'> & { readonly body: unknown }): string | null {
  const own = (body as { readonly key?: unknown } | null)?.key;
  return idempotencyKey ?? (typeof own === 'string' ? own : null);
}

async function vendorLog(sandbox: string, kind: 'effects' | 'arrivals'): Promise<Arrival[]> {
  const text = await (await fetch(`${sandbox}/${kind}`, { headers: { accept: 'application/x-ndjson' } })).text();
  return text.split('\n').filter((line) => line !== '').map((line) => {
    const entry = JSON.parse(line) as Arrival & { at: unknown };
    return { ...entry, idempotencyKey: keyOf(entry), body: entry.body ?? {}, at: timeOf(entry.at) };
  });
}

export async function readHistory(options: { brokers: readonly string[]; registryUrl: string; prefix: string; sandbox: string; workspaceKey: Buffer }): Promise<History> {
  const log = createLog({ brokers: options.brokers, clientId: 'chaos-history' });
  const stateDir = mkdtempSync(join(tmpdir(), 'weir-history-'));
  let ring: KeyRing | undefined;
  try {
    const plain = createSerde({ registryUrl: options.registryUrl });
    await plain.start();
    const keys = ring = await createKeyRing({ log, serde: plain, topic: `${options.prefix}.keys`, workspaceKey: options.workspaceKey, stateDir, logger: createLogger({ service: 'history', level: 'warn' }), now: Date.now }, (error) => { throw error; });
    await keys.start();
    const serde = sealedSerde(plain, keys);
    const [admin, reader] = await Promise.all([log.admin(), log.reader()]);
    /** `<topic>/<partition>` → the owner at what is read now. */
    const owners = new Map<string, OwnerMark>();
    const history: History = { raw: [], canonical: [], dispatch: [], ends: [], parked: [], outcomes: [], letters: [], consent: [], releases: new Set(), changes: [], switches: new Map(), tokens: new Map(), orders: new Set(), erasures: new Map(), leaves: [], unreadable: 0, effects: await vendorLog(options.sandbox, 'effects'), arrivals: await vendorLog(options.sandbox, 'arrivals') };
    const routes = createRoutes();
    // The releases first: what a record is wanted for is by their routes.
    for (const topic of (await admin.listTopics()).filter((t) => t.startsWith(`${options.prefix}.`)).sort((a, b) => Number(b.endsWith('.control')) - Number(a.endsWith('.control')))) {
      const name = topic.slice(options.prefix.length + 1);
      if (name === 'keys') continue;
      for (const [partition, end] of await admin.endOffsets(topic)) {
        await reader.read(topic, partition, 0, end, async (batch) => {
          for (const record of batch.records) {
            if (name.startsWith('raw.')) history.raw.push({ event: header(record, 'weir-event'), hash: header(record, 'weir-hash'), objectKey: record.key?.toString() ?? '', source: name.slice(4), partition, offset: record.offset });
            // Not Avro.
            else if (name === 'audit') history.leaves.push({ bytes: record.value ?? Buffer.alloc(0), at: record.timestamp });
            else if (record.value !== null) {
              await serde.prepare(record.value);
              // Sealed bytes differ with their key, which two instances may both have made: what is compared is what they open to.
              const value = keys.open(record.value);
              if (value === undefined) history.unreadable++;
              else add(history, name, partition, { offset: record.offset, timestamp: record.timestamp, key: record.key, value, headers: record.headers }, serde.decode(record.value), { keys, owners, routes });
            }
          }
        });
      }
    }
    return history;
  } finally {
    await ring?.stop();
    await log.close();
    rmSync(stateDir, { recursive: true, force: true });
  }
}

function add(history: History, topic: string, partition: number, record: RecordBatch['records'][number], decoded: { readonly name: string; readonly value: any }, { keys, owners, routes }: { readonly keys: KeyRing; readonly owners: Map<string, OwnerMark>; readonly routes: Routes }): void {
  const { name, value } = decoded;
  if (topic === 'canonical') {
    history.canonical.push({ event: header(record, 'weir-event'), output: header(record, 'weir-output'), source: header(record, 'weir-source'), subject: record.key!.toString(), partition, offset: record.offset, type: name, release: header(record, 'weir-release'), value: record.value!, wanted: routes.wanted(name.replace('weir.canonical.', ''), { ...value }, header(record, 'weir-source')), userId: value.userId ?? null });
    return;
  }
  if (topic === 'control' && record.headers.some(([n]) => n === leafHeader)) history.changes.push({ what: record.key!.toString(), leaf: header(record, leafHeader), at: record.timestamp });
  switch (name) {
    case 'weir.internal.Delivery':
      if (topic.startsWith('parked.')) history.parked.push({ output: value.outputId, destination: value.destination, operation: value.operation, offset: record.offset });
      if (topic.startsWith('dispatch.')) history.dispatch.push({ event: value.eventId, output: value.outputId, destination: value.destination, operation: value.operation, kind: value.kind, subject: record.key!.toString(), release: value.release, partition, offset: record.offset, order: header(record, H.intent), at: record.timestamp, decided: decidedOf(header(record, H.limits)) });
      return;
    case 'weir.internal.LedgerEnd':
      history.ends.push({ key: value.key, event: value.eventId, output: value.outputId, destination: topic.slice('ledger.'.length), operation: value.operation, state: value.state, effect: value.effect, at: record.timestamp, reason: value.reason, owner: value.owner, offset: value.offset, maybeSince: value.maybeSince, subject: value.subject, owned: owners.get(`${topic}/${partition}`)?.owner === value.owner });
      return;
    case 'weir.internal.LedgerOwner':
      owners.set(`${topic}/${partition}`, nextOwner(owners.get(`${topic}/${partition}`), value));
      return;
    case 'weir.internal.Outcome':
      history.outcomes.push({ event: value.eventId, output: value.outputId, destination: value.destination, operation: value.operation, state: value.state, reason: value.reason, stage: value.stage });
      return;
    case 'weir.internal.DeadLetter':
      history.letters.push({ event: value.eventId, stage: value.stage, code: value.reasons[0]?.code ?? '', value: value.value, hash: value.value === null ? '' : itemHash(keys.open(value.value) ?? Buffer.alloc(0)), topic: value.topic, partition: value.partition, offset: value.offset });
      return;
    case 'weir.internal.ConsentState':
      history.consent.push({ id: value.id, purpose: value.purpose, state: value.state, version: value.version, at: record.timestamp });
      return;
    case 'weir.internal.Release':
      history.releases.add(value.hash);
      if (header(record, leafHeader) === '') history.changes.push({ what: `release ${value.hash}`, leaf: '', at: record.timestamp });
      routes.add(value.files);
      return;
    case 'weir.internal.CurrentRelease':
      if (header(record, leafHeader) === '') history.changes.push({ what: `release ${value.hash} made current`, leaf: '', at: record.timestamp });
      return;
    case 'weir.internal.DestinationSwitch':
      history.switches.set(value.destination, value.paused);
      return;
    case 'weir.internal.ApiToken':
      history.tokens.set(value.id, value.revokedAt !== null);
      return;
    case 'weir.internal.ReplayOrder':
      history.orders.add(value.id);
      return;
    case 'weir.internal.ErasureReceipt':
      history.erasures.set(value.id, { state: value.state, erasedAt: value.erasedAt });
      return;
    default:
  }
}
