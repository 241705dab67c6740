import { join } from 'node:path';
import type { Adapter } from '@weir/adapter';
import { dropPending, pendingLeaves, signingKey } from '@weir/audit';
import type { ConfigOf } from '@weir/config';
import { WeirError } from '@weir/errors';
import type { Appender, Follower, LogAdmin, Reader } from '@weir/log';
import type { Service, ServiceContext } from '@weir/service';
import { openTable } from '@weir/state';
import { sealedLeaf } from '@weir/vault';
import type { FastifyInstance } from 'fastify';
import { Counter, Gauge } from 'prom-client';
import { createApi } from './api.ts';
import { openAuditLog, type AuditLog } from './audit.ts';
import { openWitnesses } from './audit-witness.ts';
import { createConsentLookup } from './consent.ts';
import { createConsentPreview } from './consent-preview.ts';
import { createConsentReceipts } from './consent-receipts.ts';
import { createConsentBarrier, createConsentTables, type ConsentBarrier, type ConsentTables } from '@weir/consent';
import { createAuthenticate, oidcOptions } from '@weir/service/authenticate';
import type { controlOptions } from './config.ts';
import { createHeldDeliveries } from './deliveries.ts';
import { createIndexer, indexFrom } from './indexer.ts';
import { createIndexSweep } from './index-sweep.ts';
import { createLetterGuard } from './letter-privacy.ts';
import { createLetters, readDeadLetter } from './letters.ts';
import { createPrivacy, type Privacy } from './privacy.ts';
import { explainEvent } from './policy/explain.ts';
import { openHeld, type HeldApi } from './policy/held.ts';
import { createHistory, type History } from './policy/history.ts';
import { createRehearsals, type RehearsalApi } from './policy/rehearsal.ts';
import { createReleaseApi } from './releases.ts';
import { nothing, saveIncident, type Scope } from '@weir/release';
import { openReplays, type Replays } from './replay/index.ts';
import { status } from './status.ts';
import { createStore, type Store } from './store.ts';
import { createTail } from './tail.ts';
import type { Trace } from './trace.ts';
import { createTopicCounts, type TopicCounts } from './topic-counts.ts';
import { createUnresolved, type UnresolvedConsent } from './unresolved.ts';
import { createSwitchApi, viewOf } from './switches.ts';
import { openAccess, type Access } from './tokens.ts';

const adminToken = 'ADMIN_TOKEN';
const auditKey = 'AUDIT_KEY';
/** So much of the index a killed process has to read again. */
const flushMs = 200;

/** The control API over an index of every topic. It reads; what it writes are releases, orders, and records that replays put back, and it creates topics. */
export function createControl(context: ServiceContext, options: ConfigOf<typeof controlOptions> & { port: number; adapters: ReadonlyMap<string, Adapter> }): Service {
  const { log, serde, topics, groups, releases, logger, vault } = context;
  const failure = Promise.withResolvers<Error>();
  const followers = new Map<string, Follower>();
  new Gauge({ name: 'weir_deliveries_held', help: 'Deliveries of unknown effect that wait for a person: weir deliveries held.', registers: [context.registry], collect(): void { this.set(store?.counter('deliveries.held') ?? 0); } });
  const undecodable = new Counter({ name: 'weir_control_undecodable_total', help: 'Records that the index could not decode.', labelNames: ['topic'], registers: [context.registry] });
  const tail = createTail();
  let store: Store;
  let reader: Reader;
  let admin: LogAdmin;
  let appender: Appender;
  let access: Access;
  let consent: ConsentTables;
  let audit: AuditLog;
  let replays: Replays | undefined;
  let privacy: Privacy;
  let barrier: ConsentBarrier | undefined;
  let fences: Appender | undefined;
  let api: FastifyInstance;
  let held: HeldApi;
  let unresolved: UnresolvedConsent | undefined;
  let history: History;
  let rehearsals: RehearsalApi;
  let started = false;
  let changing: Promise<void> = Promise.resolve();
  let flushing: unknown;
  let sweep: ReturnType<typeof createIndexSweep> | undefined;
  let off: (() => void) | undefined;
  let counts: TopicCounts;
  const fail = (error: unknown): void => failure.resolve(error as Error);

  function wanted(): string[] {
    const release = releases.current();
    const perDestination = [...release.destinations.keys()].flatMap((name) => [topics.dispatch(name), topics.ledger(name)]);
    return [...[...release.sources.keys()].map(topics.raw), topics.canonical, ...perDestination, topics.outcome, topics.dlq];
  }

  async function follow(): Promise<void> {
    const index = createIndexer(store, serde, topics, (topic) => undecodable.inc({ topic }));
    for (const topic of wanted()) {
      if (followers.has(topic)) continue;
      const [count, begins] = await Promise.all([appender.partitions(topic), admin.beginningOffsets(topic)]);
      const positions = indexFrom(store, topic, count, begins, (gap) => logger.warn(gap, 'retention deleted records that are not in the index: it goes on without them'));
      followers.set(topic, await reader.follow(topic, positions, async (batch) => {
        await index(batch);
        tail.took(batch, topics);
      }, fail));
    }
  }

  /** Batches that came since are written together. */
  function flushLater(): void {
    flushing = context.clock.setTimer(() => {
      try {
        store.flush();
        flushLater();
      } catch (error) {
        fail(error);
      }
    }, flushMs);
  }

  /** Names are known from the running release; what is not known counts as everything. */
  function scopeOf(kind: 'event' | 'letter', id: string): Scope {
    const letter = kind === 'letter' ? store.deadLetter(id) : undefined;
    if (kind === 'letter') return letter === undefined ? nothing : { sources: letter['source'] === null ? '*' : [String(letter['source'])], destinations: letter['destination'] === null ? [] : [String(letter['destination'])] };
    const stages = store.stages(id);
    const named = (field: string): string[] => [...new Set(stages.map((s) => s[field]).filter((n) => typeof n === 'string'))];
    const sources = named('source');
    return stages.length === 0 ? nothing : { sources: sources.length === 0 ? '*' : sources, destinations: named('destination') };
  }

  async function openAudit(): Promise<AuditLog> {
    const { dataDir } = context.config;
    const witness = openWitnesses(dataDir, options.witness ?? [], logger);
    const signer = signingKey(topics.audit, vault.get(auditKey).reveal());
    const written = new Set(['release.apply', 'release.approve', 'token.issue', 'token.revoke', 'destination.pause', 'destination.resume', 'held.approve', 'held.refuse', 'replay.order', 'replay.start', 'replay.pause', 'replay.cancel', 'subject.erase']);
    return openAuditLog({ appender, reader, admin, topic: topics.audit, signer, witness, logger, now: () => context.clock.now(), local: { pending: () => pendingLeaves(dataDir), drop: (id) => dropPending(dataDir, id), sealed: () => sealedLeaf(dataDir) }, wasMade: (intent) => (written.has(intent.action) ? access.leaves.has(intent.id) : undefined) });
  }

  return {
    name: 'control',
    failed: failure.promise,
    async start() {
      [reader, admin, appender] = await Promise.all([log.reader(), log.admin(), log.appender()]);
      store = createStore(openTable({ path: join(context.stateDir, 'index'), onDiscard: (reason) => logger.warn({ reason }, 'index discarded, it is built again') }));
      access = await openAccess({ reader, appender, admin, serde, topic: topics.control, now: () => context.clock.now(), failed: fail });
      held = await openHeld(context, { store, reader, admin, appender, audit: () => audit, sameHand: access.sameHand, failed: fail });
      // One for all of control: two tables over one cache would write each other's positions.
      consent = await createConsentTables(context, fail, { linkValues: true, linkSources: true, regions: true, linkAges: true });
      await consent.start();
      history = createHistory(context, { store, reader, admin, tables: consent, adapters: options.adapters });
      rehearsals = createRehearsals({ history, reader, admin, serde, topic: topics.canonical, current: () => releases.current(), now: () => context.clock.now() });
      audit = await openAudit();
      const begun = releases.current();
      counts = createTopicCounts(context, { admin, appender, serde });
      await counts.keep([]);
      flushLater();
      await follow();
      sweep = createIndexSweep({ store, admin, dlq: topics.dlq, topics: () => [...followers.keys()], clock: context.clock, logger, fail });
      unresolved = createUnresolved({ store, incidents: () => releases.incidents(), save: (incident) => saveIncident({ appender, serde, topic: topics.control, incident }), registry: context.registry, clock: context.clock, failed: fail });
      const guard = createLetterGuard({ release: () => releases.current(), workspaceKey: context.workspaceKey, erasedUntil: (ids) => context.keys?.erasedUntil(ids) ?? 0, newestMark: () => privacy.newestMark() });
      const letters = createLetters({ store, reader, serde, topics, open: (bytes) => (context.keys === undefined ? bytes : context.keys.open(bytes)), guard });
      replays = await openReplays({ context, reader, admin, appender, store, tables: consent, audit: (leaf) => audit.record(leaf), sandboxUrl: options.sandboxUrl, allowPrivate: options.allowPrivate, letterScope: (id) => scopeOf('letter', id), fail });
      // On its own connection: who pulls a kill switch must not wait behind what a replay puts back.
      const own = await log.appender({ urgent: true });
      fences = own;
      await Promise.all([topics.consentApplied, topics.control].map((topic) => own.partitions(topic)));
      barrier = createConsentBarrier({ reader, admin, appender: own, serde, topics, tables: consent, keys: context.keys, clock: context.clock, fail });
      const reading = barrier.start();
      reading.catch(fail);
      privacy = await createPrivacy(context, store, consent, barrier, reading, (leaf) => audit.record(leaf), fail);
      // The topics of a release that came meanwhile would be in no index until the next one.
      off = releases.onChange(() => { changing = changing.then(follow).then(() => counts.keep([])).catch(fail); }, begun);
      api = createApi({
        authenticate: createAuthenticate({ adminToken: () => vault.get(adminToken).reveal(), principalOf: access.principalOf, oidc: oidcOptions(options), now: () => context.clock.now() }),
        audit: () => audit,
        access,
        consent: createConsentLookup(context, consent),
        consentPreview: createConsentPreview(context, consent),
        consentReceipts: createConsentReceipts({ store, subjects: () => privacy.subjects(), release: () => releases.current(), letter: (id) => readDeadLetter(store, reader, serde, topics, id), appender, serde, topics, now: () => context.clock.now() }),
        endFailed: (error, leaf) => logger.error({ err: error, leaf }, 'the end of a change is not in the audit log yet; the next start writes it'),
        unexpected: (error, id) => logger.error({ err: error, id }, 'a request failed by an error that was not expected'),
        approval: options.approval,
        oidcIssuer: options.oidcIssuer,
        scopeOf,
        status: () => status(admin, store, releases.current(), topics, groups, [...followers.keys()], releases.incidents(), [...releases.switches().values()].map(viewOf), unresolved!.view(), privacy.callers(), context.clock.now()),
        trace(eventId) {
          const stages = store.stages(eventId);
          if (stages.length === 0) throw new WeirError('not-found', `no event ${eventId}`);
          return { eventId, traceId: (stages[0]!['traceId'] as string | undefined) ?? null, stages: stages.map((s) => ({ ...s, at: new Date(s.at).toISOString() })) as unknown as Trace['stages'] };
        },
        letters,
        replays: replays.api,
        release: () => ({ hash: releases.current().hash, name: releases.current().name, sources: [...releases.current().sources.keys()], destinations: [...releases.current().destinations.keys()] }),
        policy: { held, rehearsals, explain: (id, against) => explainEvent(history, id, against, releases.current(), context.clock.now()) },
        releases: createReleaseApi(context, { admin, appender, reader, adapters: options.adapters, audit: () => audit, counts }),
        deliveries: createHeldDeliveries({ store, reader, appender, serde, topics, today: replays.today }),
        switches: createSwitchApi(context, own, barrier),
        subjects: () => privacy.subjects(),
        exports: () => privacy.exports(),
        clock: context.clock,
        erasures: () => privacy.erasures(),
        wordsKept: () => privacy.wordsKept(),
        tail: (after, waitMs) => tail.next(after, waitMs),
        metrics: () => context.registry.metrics(),
        readiness: () => (started ? { ready: true } : { ready: false, reason: 'starting' }),
      });
      await api.listen({ host: context.config.host, port: options.port });
      replays.resume();
      started = true;
    },
    readiness: () => (started ? { ready: true } : { ready: false, reason: 'starting' }),
    async stop() {
      off?.();
      await changing;
      tail.close();
      unresolved?.close();
      await api?.close();
      await replays?.close();
      await audit?.close();
      await access?.close();
      barrier?.giveUp();
      await privacy?.stop();
      await barrier?.stop();
      await fences?.close();
      await held?.close();
      await rehearsals?.close();
      await Promise.all([...followers.values()].map((f) => f.close()));
      await consent?.stop();
      sweep?.close();
      context.clock.clearTimer(flushing);
      await store?.close();
    },
  };
}
