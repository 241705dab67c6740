import type { HttpFailure, HttpResponse, PollSource } from '@weir/adapter';
import { findWeirError, WeirError, type ErrorCode } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { HttpClient } from '@weir/http';
import type { Assignment, GroupConsumer, Log, Serde } from '@weir/log';
import type { SourceConfig } from '@weir/release';
import { newTraceparent } from '@weir/telemetry';
import type { Logger } from 'pino';
import { accept, acknowledged, type AcceptPorts } from './accept.ts';
import { bodyLimits } from './body-limits.ts';
import { createCursors, settingsOf, type Position } from './cursors.ts';
import type { IngestMetrics } from './metrics.ts';
import { bySize, setAside } from './oversized.ts';
import { createPollIncident, type PollIncidentPorts } from './poll-incident.ts';
import type { PollQuota } from './quota.ts';

export interface PollerPorts extends AcceptPorts {
  readonly log: Log;
  readonly serde: Serde;
  readonly http: HttpClient;
  readonly logger: Logger;
  readonly metrics: Pick<IngestMetrics, 'items' | 'polls' | 'oversized'>;
  readonly incidents: PollIncidentPorts['incidents'];
  readonly saveIncident: PollIncidentPorts['save'];
  readonly monotonic: () => number;
  readonly groupId: string;
  readonly instance: string;
  readonly sessionMs: number;
  /** Of the source's vendor account; deliveries and replays of the account go first. */
  readonly quota: PollQuota;
  /** The source as the running release has it, with secrets; undefined while it has none. */
  source(): SourceConfig | undefined;
  fail(error: unknown): void;
}

export interface Poller {
  /** True while this process surely is the one that polls. */
  holds(): boolean;
  start(): Promise<void>;
  /** Ends at once: a call under way is left alone, and what it brings is dropped. */
  stop(): Promise<void>;
  /** Stops, and ends the incident of a source that is polled no more. */
  retire(): Promise<void>;
}

type Next =
  | { readonly kind: 'page'; readonly position: Position; readonly more: boolean }
  /** `trouble`: it is the page or what was asked for, not the way to the vendor or the log. */
  | { readonly kind: 'failed'; readonly retryAfterMs: number; readonly trouble?: ErrorCode }
  | { readonly kind: 'quota'; readonly ms: number }
  | { readonly kind: 'lost' };

const callTimeoutMs = 30_000;
const idleMs = 1000;
const firstBackoffMs = 1000;
const longestBackoffMs = 300_000;
/** A sender may ask for a longer pause than this, but a wrong header must not silence a source for days. */
const longestPauseMs = 3_600_000;
/** Of the log, which heals; what else is thrown is about the page. */
const ofTheLog: ReadonlySet<string> = new Set(['log-unavailable', 'log-deadline', 'log-append-failed', 'log-auth-failed', 'log-tls-failed', 'log-assignment-stale', 'overloaded', 'not-ready']);
const lost: Next = { kind: 'lost' };

/**
 * Polls one source from one instance at a time: the lease is the ownership of partition 0 of the source's raw
 * topic in a group of its own. The cursor is saved on weir.control after every item of the page was
 * acknowledged, under the lease; a crash in between repeats the page, whose items have the same ids. A poller
 * that lost its lease starts no call and keeps nothing of a call under way.
 */
export function createPoller(name: string, ports: PollerPorts): Poller {
  const topic = ports.topics.raw(name);
  const cursors = createCursors(name, ports);
  const incident = createPollIncident(name, { incidents: ports.incidents, save: ports.saveIncident, now: ports.now, logger: ports.logger });
  let running: Promise<void> | undefined;
  let held: Assignment | undefined;
  let stopping = new AbortController();

  const consumer: GroupConsumer = ports.log.consumer({
    groupId: ports.groupId, topics: [topic], sessionTimeoutMs: ports.sessionMs, rebalanceTimeoutMs: 2 * callTimeoutMs,
    handlers: {
      async assigned(parts) {
        for (const part of parts) consumer.pause(part.topic, part.partition);
        const lease = parts.find((p) => p.partition === 0);
        if (lease === undefined) return;
        stopping = new AbortController();
        held = lease;
        running = poll(lease, stopping.signal).catch(ports.fail);
      },
      async revoked() {
        stopping.abort();
        await running;
      },
      batch() {
        // Partitions are paused: the group serves as a lease only.
      },
      failed: ports.fail,
    },
  });

  const holds = (lease: Assignment, signal: AbortSignal): boolean => !signal.aborted && consumer.holds(topic, 0, lease.epoch);

  async function poll(lease: Assignment, signal: AbortSignal): Promise<void> {
    let position: Position | undefined;
    let failures = 0;
    while (!signal.aborted) {
      const source = ports.source();
      if (source === undefined) {
        await pause(idleMs, signal);
        continue;
      }
      const began = ports.monotonic();
      let next: Next;
      try {
        position = within(source, position ?? await cursors.read());
        next = await page(source, position, lease, signal);
      } catch (error) {
        next = failed(error);
      }
      if (next.kind === 'lost') {
        // Another may poll now. Should the lease come back (a heartbeat was only late), the cursor is read anew.
        position = undefined;
        incident.lost();
        ports.metrics.polls.inc({ source: name, result: 'lost' });
        await pause(idleMs, signal);
        continue;
      }
      if (next.kind === 'quota') {
        await pause(next.ms, signal);
        continue;
      }
      failures = next.kind === 'failed' ? failures + 1 : 0;
      if (next.kind === 'failed' && next.trouble !== undefined) incident.failed(next.trouble, JSON.stringify(position?.cursor) ?? '');
      if (next.kind === 'page') {
        position = next.position;
        incident.over();
      }
      await pause(began + pauseAfter(next, failures, source) - ports.monotonic(), signal);
    }
  }

  /** The position, or the beginning where it is one in what was asked for under other settings: what is read again has the same ids. */
  function within(source: SourceConfig, position: Position): Position {
    const settings = settingsOf(source);
    // One of a version before is taken for one of these settings.
    if (position.settings === settings || position.settings === undefined) return position;
    if (position.cursor !== null) ports.logger.warn({ source: name }, 'what the source asks for has changed: its cursor is let go, the list is read from the beginning');
    return { cursor: null, settings };
  }

  /** Whatever went wrong, the cursor stays and the page is tried again later: one source must not end the others with it. */
  function failed(error: unknown): Next {
    const code = findWeirError(error)?.code ?? 'invariant-broken';
    ports.metrics.polls.inc({ source: name, result: code });
    ports.logger.error({ source: name, err: error }, 'the page was not taken; the cursor stays');
    return { kind: 'failed', retryAfterMs: 0, ...(ofTheLog.has(code) ? {} : { trouble: code }) };
  }

  /** One call and its page, in order: lease, call, lease, items, acks, lease, cursor. */
  async function page(source: SourceConfig, { cursor, settings: known }: Position, lease: Assignment, signal: AbortSignal): Promise<Next> {
    if (!holds(lease, signal)) return lost;
    const adapter = source.adapter.source as PollSource;
    const quotaMs = ports.quota.take();
    if (quotaMs > 0) return { kind: 'quota', ms: quotaMs };
    const asked = ports.now();
    const request = adapter.request(cursor, source.config, asked);
    const calling = ports.http.call(request, { deadlineMs: callTimeoutMs, onBeforeWrite: () => holds(lease, signal) });
    // A client or an adapter that throws is told where the page is read; to the quota it is a call that ended.
    calling.then((answer) => endOf(adapter, answer)).catch(() => ({ throttled: false, answered: false })).then((end) => ports.quota.finished(end)).catch(ports.fail);
    const response = await unlessAborted(calling, signal);
    if (response === undefined || !holds(lease, signal)) return lost;
    if ('failure' in response || response.status !== 200) return refused(adapter, response);
    const found = adapter.page(response, cursor, source.config, asked, bodyLimits(source));
    if (found.items.length > source.limits.items) throw new WeirError('too-many-items', `a page has more than ${source.limits.items} items`);
    if (found.items.length > 0) failpoint('poller.page-fetched');
    const { fit, oversized } = bySize(found.items);
    const traceparent = newTraceparent();
    if (oversized.length > 0) {
      // By what was set aside the cursor goes on, so it is acknowledged as the items are.
      if (await unlessAborted(acknowledged(setAside(ports, source, oversized, found.items.length, traceparent), ports.ackTimeoutMs).then(() => true), signal) === undefined) return lost;
      ports.metrics.oversized.inc({ source: name }, oversized.length);
      ports.logger.error({ source: name, items: oversized.length }, 'items larger than a record were set aside');
    }
    if (fit.length > 0 && await unlessAborted(accept(ports, { source, items: fit, traceparent, contentType: 'application/json' }), signal) === undefined) return lost;
    const moved = JSON.stringify(found.cursor) !== JSON.stringify(cursor);
    if (!holds(lease, signal)) return lost;
    if (fit.length > 0) failpoint('poller.produced');
    const position = { cursor: found.cursor, settings: settingsOf(source) };
    if (moved || (cursor !== null && known === undefined)) await cursors.save(position, lease.epoch);
    failpoint('poller.cursor-saved');
    ports.metrics.items.inc({ source: name }, fit.length);
    ports.metrics.polls.inc({ source: name, result: 'ok' });
    // A page that says "more" under the cursor it was asked with would be asked for ever.
    return { kind: 'page', position, more: found.more && moved };
  }

  function refused(adapter: PollSource, response: HttpResponse | HttpFailure): Next {
    const verdict = adapter.classify(response);
    ports.metrics.polls.inc({ source: name, result: verdict.kind });
    ports.logger.warn({ source: name, verdict: verdict.kind, detail: verdict.detail }, 'poll failed');
    return { kind: 'failed', retryAfterMs: 'retryAfterMs' in verdict ? (verdict.retryAfterMs ?? 0) : 60_000, ...(verdict.kind === 'permanent' || verdict.kind === 'auth-broken' ? { trouble: verdict.code } : {}) };
  }

  async function stop(): Promise<void> {
    stopping.abort();
    await consumer.close();
    await incident.settled();
  }

  return {
    holds: () => held !== undefined && holds(held, stopping.signal),
    start: () => consumer.start(),
    stop,
    async retire() {
      await stop();
      incident.over();
      await incident.settled();
    },
  };
}

/** What the account learns of an answer. */
function endOf(adapter: PollSource, answer: HttpResponse | HttpFailure): Parameters<PollQuota['finished']>[0] {
  if ('failure' in answer) return { throttled: false, answered: false };
  const verdict = answer.status === 200 ? undefined : adapter.classify(answer);
  const throttled = verdict?.kind === 'throttled';
  return { throttled, answered: true, retryAfterMs: throttled ? verdict.retryAfterMs : undefined, headers: answer.headers };
}

/** From the beginning of one call to that of the next: the quota, the interval when there is nothing more, the back-off after a failure. */
function pauseAfter(next: Exclude<Next, { kind: 'lost' | 'quota' }>, failures: number, source: SourceConfig): number {
  const { everyMs, maxRequestsPerMinute } = (source.adapter.source as PollSource).interval(source.config);
  const quotaMs = Math.ceil(60_000 / maxRequestsPerMinute);
  if (next.kind === 'page') return next.more ? quotaMs : Math.max(quotaMs, everyMs);
  return Math.max(quotaMs, Math.min(next.retryAfterMs, longestPauseMs), Math.min(longestBackoffMs, firstBackoffMs * 2 ** Math.min(failures, 10)));
}

/** The result, or undefined as soon as the signal is given: the work is left alone, its end is not waited for. */
function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const aborted = (): void => resolve(undefined);
    if (signal.aborted) aborted();
    signal.addEventListener('abort', aborted, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', aborted));
  });
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted || ms <= 0) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal.addEventListener('abort', done);
  });
}
