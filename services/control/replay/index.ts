import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import type { ConsentTables } from '@weir/consent';
import { findWeirError } from '@weir/errors';
import { createHttpClient, type HttpClient } from '@weir/http';
import type { Appender, LogAdmin, Reader } from '@weir/log';
import { oldestSent } from '@weir/pipeline';
import { dedupeWindow, followControl, nothing, resolveConfig, saveReserve, type DestinationConfig, type Scope } from '@weir/release';
import { sealedBy } from '@weir/seal';
import { createRetentionWatch, type ServiceContext } from '@weir/service';
import { openTable } from '@weir/state';
import type { NewLeaf } from '../audit.ts';
import type { Store } from '../store.ts';
import { createAskQuota } from './ask-quota.ts';
import { createCorrector } from './correct.ts';
import { createKept } from './kept.ts';
import { createReplayMetrics } from './metrics.ts';
import { parseRequest, scopeOfOrder, type ReplayOrder } from './order.ts';
import { createOrders, type Entry } from './orders.ts';
import type { ReplayApi } from './routes.ts';
import type { ReplayView } from './view.ts';
import { createRowSweep } from './rows.ts';
import { createRunner, type Runner } from './runner.ts';
import { createAsksToday, type SelectPorts } from './select.ts';
import { objectReader, type StandingPorts } from './standing.ts';
import { createVerifier, pageOfAnswers } from './verify.ts';

export interface ReplayPorts {
  readonly context: ServiceContext;
  readonly reader: Reader;
  readonly admin: LogAdmin;
  readonly appender: Appender;
  readonly store: Store;
  /** Read to the end, and followed. */
  readonly tables: ConsentTables;
  readonly audit: (leaf: NewLeaf) => Promise<string>;
  readonly sandboxUrl: string;
  readonly allowPrivate: boolean;
  /** Sources and destinations of a dead letter. */
  readonly letterScope: (id: string) => Scope;
  readonly fail: (error: unknown) => void;
}

export interface Replays {
  readonly api: ReplayApi;
  /** What policy says today of a delivery that was decided earlier. */
  readonly today: ReturnType<typeof createAsksToday>;
  /** After the audit log is open. */
  resume(): void;
  close(): Promise<void>;
}

/** What is known of weir.control counts so long, as at a dispatcher: past that a kill switch may be on it, and no vendor is asked. */
const knownMs = 10_000;
const totals = (list: Iterable<number>): number => [...list].reduce((a, b) => a + b, 0);

/** Replay orders of this workspace: kept on weir.control, worked on here. */
export async function openReplays(ports: ReplayPorts): Promise<Replays> {
  const { context, reader, admin, appender, store } = ports;
  const { serde, topics, clock, logger, keys, releases } = context;
  const { tables } = ports;
  // Caches of an earlier version, with what was known of everybody; nothing opens them any more.
  for (const name of ['consent', 'identity']) rmSync(join(context.stateDir, 'replay', name), { recursive: true, force: true });
  const table = openTable({ path: join(context.stateDir, 'replay', 'work'), onDiscard: (reason) => logger.warn({ cache: 'replay', reason }, 'local cache discarded') });
  const http: HttpClient = createHttpClient({ allowPrivate: ports.allowPrivate });
  const metrics = createReplayMetrics(context.registry);
  const runnerName = randomUUID();
  const retention = createRetentionWatch({ admin, clock, logger, registry: context.registry });
  const watchLedgers = (): Promise<void> => retention.watch([...releases.current().destinations.keys()].map(topics.ledger));
  await watchLedgers();
  const off = releases.onChange(() => { watchLedgers().catch((error: unknown) => logger.warn({ err: error }, 'retention of the ledgers not read, it is asked for again')); });

  const standing: StandingPorts = {
    end: store.end, newest: store.newest, objectOf: objectReader(serde, context.workspaceKey), deliveryState: store.deliveryState,
    destination: (name) => releases.current().destinations.get(name),
    oldestSent: (destination, source) => oldestSent(retention.of(topics.ledger(destination)), dedupeWindow(releases.current(), source)),
    allows: (ids, purpose, channel, topic, legalBasis, now) => tables.allows(ids, purpose, channel, topic, legalBasis, now, releases.current().policy).ok,
    mayRead: (ids, acceptedAt) => keys === undefined || keys.erasedUntil(ids) < acceptedAt,
  };
  const quota = createAskQuota({
    release: () => releases.current(), clock,
    partitions: async (names) => totals((await admin.describeTopics(names.map(topics.dispatch))).filter((t) => t.exists).map((t) => t.partitions)),
    save: (reserve) => saveReserve({ appender, serde, topic: topics.control, reserve }),
  });
  const verifier = createVerifier({
    serde, http, table, clock, quota,
    destination: (name) => releases.current().destinations.get(name),
    withSecrets: (destination) => withSecrets(context, ports.sandboxUrl, destination),
    unreadMs: () => Math.max(0, releases.ageMs() - knownMs),
    mayCall: (name) => releases.ageMs() < knownMs && releases.current().destinations.get(name)?.enabled === true && releases.switches().get(name)?.paused !== true && releases.incidents().get(name)?.until !== null,
    asked: (destination, answer) => metrics.asked.inc({ destination, answer }),
  });
  const corrector = createCorrector({ reader, admin, serde, topics, standing, table, release: () => releases.current() });
  const orders = createOrders({
    appender, serde, topic: topics.control, runner: runnerName,
    forgetting(id) {
      verifier.forget(id);
      corrector.forget(id);
    },
  });
  const follower = await followControl({ reader, admin, topic: topics.control }, (batch) => orders.take(batch), ports.fail);
  await appender.partitions(topics.control);

  const select: SelectPorts = {
    serde, topics, tables, keys, standing, release: () => releases.current(), workspaceKey: context.workspaceKey, endedAs: store.endedAs, ...createKept({ store, reader, topic: topics.canonical }), now: () => clock.now(),
    open: (bytes) => (keys === undefined ? bytes : keys.open(bytes)), hasKey: (sealed) => keys?.has(sealedBy(sealed)) ?? true, keysToEnd: () => keys?.readToEnd() ?? Promise.resolve(),
  };
  const runner: Runner = createRunner({
    putBack: { appender, reader, admin, topics, groups: context.groups, clock }, select, admin, orders, verifier, corrector, runner: runnerName, logger, metrics, audit: ports.audit, fail: ports.fail,
    settle: { admin, reader, store, topics, groups: context.groups, release: () => releases.current(), clock },
  });

  const rows = createRowSweep({ store, orders, clock });
  const api: ReplayApi = {
    async add(request, by, touches) {
      const selection = parseRequest(request, releases.current(), context.workspaceKey, clock.now(), (id) => store.deadLetter(id) !== undefined, touches);
      const { entry, overlaps } = await runner.add(selection, by);
      return { ...view(entry, store, runner), overlaps: overlaps.map(({ order, progress }) => ({ id: order.id, by: order.by, state: progress.state })) };
    },
    list: () => orders.list().map((entry) => view(entry, store, runner)),
    view: (id) => view(orders.get(id), store, runner),
    change: async (id, action, by) => view(await runner[action](id, by), store, runner),
    answers: (id, answer, limit, after) => pageOfAnswers(verifier.answers(orders.get(id).order.id, after), answer, limit),
    differences: (id) => [...corrector.samples(orders.get(id).order.id)],
    letterScope: ports.letterScope,
    scope(id) {
      try {
        return scopeOfOrder(orders.get(id).order);
      } catch (error) {
        if (findWeirError(error)?.code === 'not-found') return nothing;
        throw error;
      }
    },
  };
  return {
    api,
    today: createAsksToday(select),
    resume: () => runner.resume(),
    async close() {
      off();
      retention.close();
      rows.close();
      await runner.close();
      await follower.close();
      await http.close();
      await table.close();
    },
  };
}

/** The destination with its secrets; undefined when one of them cannot be had now. */
function withSecrets(context: ServiceContext, sandboxUrl: string, destination: DestinationConfig): DestinationConfig | undefined {
  try {
    return { ...destination, config: resolveConfig(destination.config, { vault: context.vault, sandboxUrl }) };
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return undefined;
  }
}

/** An order as the API tells it. */
function view({ order, progress }: Entry, store: Store, runner: Runner): ReplayView {
  const { range, events, subject, leaf, at, since, until, touches: _touches, ...rest } = order as ReplayOrder & { readonly stage: ReplayView['stage'] };
  const total = totals(range.map((r) => r.end - r.start));
  const left = progress.positions.length === 0 ? total : totals(progress.positions.map((p) => Math.max(0, (range.find((r) => r.topic === p.topic && r.partition === p.partition)?.end ?? p.offset) - p.offset)));
  const iso = (ms: number | null): string | null => (ms === null ? null : new Date(ms).toISOString());
  return {
    ...rest, at: iso(at), since: iso(since), until: iso(until), leaf, ids: events.length / 16, subjects: subject.length,
    state: progress.state, changedBy: progress.by, changedAt: iso(progress.at), startedAt: iso(progress.startedAt), finishedAt: iso(progress.finishedAt), reason: progress.reason,
    read: total - left, total, counts: progress.counts, waitingFor: runner.waitingFor(order.id) ?? null,
    ended: store.counters(`o/${order.id}/`),
    preview: progress.preview === '' ? null : JSON.parse(progress.preview), report: progress.report === '' ? null : JSON.parse(progress.report),
  };
}
