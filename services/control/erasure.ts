import { createHash } from 'node:crypto';
import type { ConsentBarrier } from '@weir/consent';
import { WeirError } from '@weir/errors';
import type { Appender, LogAdmin, OutRecord, Reader, Serde } from '@weir/log';
import { eventId, H, outputId, type TopicNames } from '@weir/pipeline';
import { leafHeader, type Release } from '@weir/release';
import { seal, type KeyRing } from '@weir/seal';
import { newTraceparent } from '@weir/telemetry';
import type { Logger } from 'pino';
import type { NewLeaf } from './audit.ts';
import type { Store } from './store.ts';
import { keyedIdsOf, type Identifiers, type Subjects } from './subjects.ts';

/** weir.internal.ErasureReceipt, decoded. Times are ms since the epoch. */
export interface Erasure {
  readonly id: string;
  readonly ids: readonly string[];
  readonly by: string;
  readonly sealed: Buffer | null;
  readonly orderedAt: number;
  readonly state: 'ordered' | 'marked' | 'stopped' | 'told' | 'erased' | 'done';
  readonly stoppedAt: number | null;
  readonly erasedAt: number | null;
  readonly keysDestroyed: number;
  readonly recordsUnreadable: number;
  readonly rawUntil: number | null;
  readonly deadline: number | null;
  readonly eventId: string | null;
  readonly destinations: ReadonlyArray<{ readonly destination: string; readonly operation: string | null; readonly state: string; readonly at: number | null }>;
}

export interface ErasurePorts {
  readonly appender: Appender;
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets' | 'describeTopics'>;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly keys: KeyRing;
  readonly barrier: Pick<ConsentBarrier, 'applied'>;
  readonly subjects: Subjects;
  readonly store: Pick<Store, 'stages'>;
  readonly workspaceKey: Buffer;
  readonly release: () => Release;
  /** Resolves when the leaf is acknowledged. */
  readonly audit: (leaf: NewLeaf) => Promise<string>;
  readonly logger: Pick<Logger, 'info' | 'warn' | 'error'>;
  readonly now: () => number;
  readonly setTimer: (run: () => void, ms: number) => unknown;
  readonly clearTimer: (timer: unknown) => void;
}

export interface Erasures {
  /** Read what was ordered before and go on with it. */
  start(): Promise<void>;
  /** Begin an erasure under its audit leaf; resolves when it is written. It goes on by itself, also after a crash. */
  order(identifiers: Identifiers, by: string, leaf: string, deadlineMs: number): Promise<Erasure>;
  list(): readonly Erasure[];
  get(id: string): Erasure;
  stop(): Promise<void>;
}

const receiptName = 'weir.internal.ErasureReceipt';
const receiptKey = (id: string): string => `erasure/${id}`;
const canonicalName = 'weir.canonical.Erasure';
const changeName = 'weir.canonical.ConsentChange';
const source = 'weir-erasure';
const retryMs = 1000;
const watchMs = 2000;
const barrierMs = 60_000;
const day = 86_400_000;

/**
 * Erasures, each a machine whose state is a record on weir.control: every step may be repeated.
 *
 *   ordered    the order, with the identifiers sealed
 *   marked     on weir.keys: nothing accepted until then is normalised, decided or sent any more
 *   stopped    no `use` call is open and none can start (every purpose is withdrawn, and the barrier holds)
 *   told       the Erasure record for the destinations is on weir.canonical: no `use` can follow and make the person again
 *   erased     the keys are destroyed, and a reader from the beginning found nothing that opens: the acknowledgement
 *   done       every destination has ended; the sealed identifiers are destroyed, too
 */
export function createErasures(ports: ErasurePorts): Erasures {
  const { appender, reader, admin, serde, topics, keys, logger, now } = ports;
  const all = new Map<string, Erasure>();
  const timers = new Set<unknown>();
  const running = new Set<Promise<void>>();
  let stopped = false;

  async function save(erasure: Erasure): Promise<Erasure> {
    await appender.append(topics.control, [{ partition: 0, key: Buffer.from(receiptKey(erasure.id)), value: serde.encode(receiptName, erasure), headers: [[leafHeader, Buffer.from(erasure.id)]] }]);
    all.set(erasure.id, erasure);
    return erasure;
  }

  function later(id: string, ms: number): void {
    if (stopped) return;
    const timer = ports.setTimer(() => {
      timers.delete(timer);
      go(id);
    }, ms);
    timers.add(timer);
  }

  /** One step after another until it must wait; a step that fails is tried again. */
  function go(id: string): void {
    const work = (async () => {
      for (;;) {
        const before = all.get(id)!;
        if (stopped || before.state === 'done') return;
        const after = await step(before);
        if (after === before) return later(id, watchMs);
      }
    })().catch((error: unknown) => {
      logger.error({ err: error, erasure: id, state: all.get(id)!.state }, 'a step of an erasure failed; it is tried again');
      later(id, retryMs);
    }).finally(() => running.delete(work));
    running.add(work);
  }

  function step(erasure: Erasure): Promise<Erasure> {
    switch (erasure.state) {
      case 'ordered': return mark(erasure);
      case 'marked': return stopUses(erasure);
      case 'stopped': return tell(erasure);
      case 'told': return destroy(erasure);
      default: return follow(erasure);
    }
  }

  async function mark(erasure: Erasure): Promise<Erasure> {
    await keys.markErased(erasure.ids, erasure.orderedAt, erasure.id);
    return save({ ...erasure, state: 'marked', rawUntil: await rawUntil(erasure.orderedAt) });
  }

  /** When the last raw key of that day is destroyed: the longest retention of a raw topic or of the dead letters, and a day of each end; null = never, one of them is kept for ever. */
  async function rawUntil(at: number): Promise<number | null> {
    const names = [...[...ports.release().sources.keys()].map(topics.raw), topics.dlq];
    const found = await admin.describeTopics(names);
    const kept = found.map((topic) => Number(topic.config['retention.ms'] ?? 7 * day));
    return kept.some((ms) => ms < 0) ? null : Math.floor(at / day) * day + 2 * day + Math.max(...kept);
  }

  /** Under its own key, which outlives those of the person: destinations need to know whom they erase. */
  async function tell(erasure: Erasure): Promise<Erasure> {
    const identifiers = JSON.parse(keys.open(erasure.sealed!)!.toString()) as Identifiers;
    const event = eventId(source, [erasure.id]);
    const output = outputId(event, 'erasure', '');
    const at = erasure.orderedAt + 1;
    const value = seal(keys.current(receiptKey(erasure.id))!, serde.encode(canonicalName, {
      id: output, source, objectKey: null, occurredAt: at, userId: identifiers.userId ?? null, anonymousId: identifiers.anonymousId ?? null, email: identifiers.email ?? null, phone: identifiers.phone ?? null,
      externalIds: identifiers.externalIds, erasure: erasure.id, deadline: erasure.deadline!, extras: null,
    }));
    const key = Buffer.from(erasure.ids[0]!);
    await appender.append(topics.canonical, [{ partition: appender.partitionFor(topics.canonical, key), key, value, headers: headersOf(erasure, event, output, at) }]);
    const routes = ports.release().policy.routes.get('Erasure') ?? [];
    const destinations = [...ports.release().destinations.keys()].flatMap((destination): Erasure['destinations'][number][] => {
      const operations = routes.filter((route) => route.destination === destination);
      return operations.length === 0 ? [{ destination, operation: null, state: 'by-hand', at: null }] : operations.map(({ operation }) => ({ destination, operation, state: 'pending', at: null }));
    });
    return save({ ...erasure, state: 'told', eventId: event, destinations });
  }

  function headersOf(erasure: Erasure, event: string, output: string, at: number): [string, Buffer][] {
    const hash = createHash('sha256').update(erasure.id).digest('hex').slice(0, 32);
    return ([[H.event, event], [H.hash, hash], [H.source, source], [H.accepted, String(at)], [H.traceparent, newTraceparent()], [H.release, ports.release().hash], [H.mapping, source], [H.output, output], [H.outputName, 'erasure'], [H.ids, erasure.ids.join(',')]] as const).map(([name, text]) => [name, Buffer.from(text)]);
  }

  /** Every purpose is withdrawn for every identifier, as if the person had said so: that survives a replay of everything. */
  async function stopUses(erasure: Erasure): Promise<Erasure> {
    const marks = new Map<number, number>();
    const records: OutRecord[] = [];
    for (const purpose of ports.release().policy.purposes.keys()) {
      const change = eventId(source, [erasure.id, purpose]);
      const output = outputId(change, 'consent', '');
      const value = serde.encode(changeName, { id: output, source, objectKey: null, occurredAt: erasure.orderedAt, purpose, state: 'withdrawn', reason: 'erasure' });
      const headers = headersOf(erasure, change, output, erasure.orderedAt);
      for (const id of erasure.ids) records.push({ partition: appender.partitionFor(topics.consentChanges, id), key: Buffer.from(id), value, headers });
    }
    const offsets = await appender.append(topics.consentChanges, records);
    records.forEach(({ partition }, i) => marks.set(partition, Math.max(marks.get(partition) ?? 0, offsets[i]!)));
    if (!await ports.barrier.applied(marks, erasure.ids, barrierMs)) throw new WeirError('not-ready', 'not every dispatcher has applied the withdrawal yet');
    return save({ ...erasure, state: 'stopped', stoppedAt: now() });
  }

  async function destroy(erasure: Erasure): Promise<Erasure> {
    const keysDestroyed = erasure.keysDestroyed + await keys.destroy(erasure.ids);
    const left = await keysLeft(erasure.ids);
    if (left > 0) throw new WeirError('not-ready', `${left} keys are there after they were destroyed: an instance made one meanwhile`);
    let unreadable = 0;
    let readable = 0;
    await ports.subjects.scan(erasure.ids, ({ value, type }) => {
      if (value === undefined) unreadable++;
      else if (type !== canonicalName) readable++;
    });
    if (readable > 0) logger.warn({ erasure: erasure.id, readable }, 'records of the person are not sealed: they leave with the retention of weir.canonical');
    await ports.audit({ kind: 'fact', actor: 'control', action: 'subject.erased', target: erasure.id, of: erasure.id, details: { keysDestroyed, recordsUnreadable: unreadable } });
    return save({ ...erasure, state: 'erased', erasedAt: now(), keysDestroyed, recordsUnreadable: unreadable });
  }

  /** By a reader from the beginning, not by the ring that destroyed them. */
  async function keysLeft(ids: readonly string[]): Promise<number> {
    const owners = new Set(ids);
    const alive = new Set<string>();
    const ends = await admin.endOffsets(topics.keys);
    for (const partition of new Set(ids.map((id) => appender.partitionFor(topics.keys, id)))) {
      await reader.read(topics.keys, partition, 0, ends.get(partition) ?? 0, (batch) => {
        for (const { key, value } of batch.records) {
          const name = key?.toString() ?? '';
          if (!owners.has(name.slice(0, name.lastIndexOf('#'))) || name.endsWith('#erased')) continue;
          if (value === null) alive.delete(name);
          else alive.add(name);
        }
      });
    }
    return alive.size;
  }

  /** How far the destinations are, by the outcomes of the event; the same object when nothing changed. */
  function watch(erasure: Erasure): Erasure {
    const outcomes = ports.store.stages(erasure.eventId!).filter((s) => s.stage === 'outcome');
    let changed = false;
    const destinations = erasure.destinations.map((part) => {
      const outcome = outcomes.filter((s) => s['destination'] === part.destination && s['operation'] === part.operation).at(-1);
      const state = part.operation === null ? part.state : outcome !== undefined ? String(outcome['state']) : now() > erasure.deadline! ? 'late' : 'pending';
      if (state === part.state) return part;
      changed = true;
      if (state === 'late') logger.error({ erasure: erasure.id, destination: part.destination }, 'a destination has not erased within the deadline');
      return { ...part, state, at: outcome?.at ?? null };
    });
    const open = destinations.some(({ state }) => state === 'pending' || state === 'late');
    return changed || !open ? { ...erasure, destinations, state: open ? 'erased' : 'done' } : erasure;
  }

  /** The same object while nothing changes: then there is something to wait for. */
  async function follow(before: Erasure): Promise<Erasure> {
    const erasure = watch(before);
    if (erasure === before) return before;
    if (erasure.state !== 'done') return save(erasure);
    await keys.destroy([receiptKey(erasure.id)]);
    const done = await save({ ...erasure, sealed: null });
    logger.info({ erasure: erasure.id, keys: done.keysDestroyed }, 'erasure done');
    return done;
  }

  return {
    async start() {
      await Promise.all([topics.control, topics.canonical, topics.consentChanges, topics.keys].map((topic) => appender.partitions(topic)));
      const end = (await admin.endOffsets(topics.control)).get(0) ?? 0;
      await reader.read(topics.control, 0, 0, end, async (batch) => {
        for (const { key, value } of batch.records) {
          if (value === null || key?.toString('latin1').startsWith('erasure/') !== true) continue;
          await serde.prepare(value);
          const erasure = serde.decode(value).value as Erasure;
          all.set(erasure.id, erasure);
        }
      });
      for (const { id, state } of all.values()) if (state !== 'done') go(id);
    },
    async order(identifiers, by, leaf, deadlineMs) {
      const at = now();
      const ids = await ports.subjects.resolve(identifiers);
      const found = await collect(ids, identifiers);
      const owner = receiptKey(leaf);
      await keys.ensure([owner]);
      const sealed = seal(keys.current(owner)!, Buffer.from(JSON.stringify(found)));
      const erasure = await save({ id: leaf, ids: [...new Set([...ids, ...keyedIdsOf(ports.workspaceKey, found)])], by, sealed, orderedAt: at, state: 'ordered', stoppedAt: null, erasedAt: null, keysDestroyed: 0, recordsUnreadable: 0, rawUntil: null, deadline: at + deadlineMs, eventId: null, destinations: [] });
      go(leaf);
      return erasure;
    },
    list: () => [...all.values()].sort((a, b) => b.orderedAt - a.orderedAt),
    get(id) {
      const found = all.get(id);
      if (found === undefined) throw new WeirError('not-found', `no erasure ${id}`);
      return found;
    },
    async stop() {
      stopped = true;
      for (const timer of timers) ports.clearTimer(timer);
      await Promise.all(running);
    },
  };

  /** The identifiers in the clear, the newest of each kind, as the records of the person have them: destinations know the person by these. */
  async function collect(ids: readonly string[], given: Identifiers): Promise<Identifiers> {
    const found: Identifiers = { externalIds: [] };
    const external = new Map<string, { type: string; value: string }>();
    const add = (list: unknown): void => { for (const e of (list ?? []) as { type: string; value: string }[]) if (external.size < 64) external.set(`${e.type}:${e.value}`, e); };
    await ports.subjects.scan(ids, ({ value }) => {
      for (const name of ['userId', 'email', 'phone', 'anonymousId'] as const) if (typeof value?.[name] === 'string') found[name] = value[name];
      add(value?.['externalIds']);
    });
    add(given.externalIds);
    return { ...found, ...Object.fromEntries(Object.entries(given).filter(([name]) => name !== 'externalIds')), externalIds: [...external.values()] };
  }
}
