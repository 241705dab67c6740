import type { HttpFailure, HttpResponse, Json, PollSource } from '@weir/adapter';
import type { HttpClient } from '@weir/http';
import type { Assignment, GroupConsumer, Log, Reader, Serde } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';
import type { SourceConfig } from '@weir/release';
import { newTraceparent } from '@weir/telemetry';
import type { Logger } from 'pino';
import { accept, type AcceptPorts } from './accept.ts';
import type { IngestMetrics } from './metrics.ts';

export interface PollerPorts extends AcceptPorts {
  readonly log: Log;
  readonly reader: Reader;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly http: HttpClient;
  readonly logger: Logger;
  readonly metrics: IngestMetrics;
  readonly groupId: string;
  readonly instance: string;
  /** The source as the running release has it, with secrets. */
  source(): SourceConfig | undefined;
  endOf(topic: string): Promise<number>;
  fail(error: unknown): void;
}

const callTimeoutMs = 30_000;
const sessionMs = 15_000;

/**
 * Polls one source from one instance at a time: the lease is the ownership of partition 0 of the source's raw
 * topic in a group of its own. The cursor is saved on weir.control after every item of the page was
 * acknowledged, under the lease; a crash in between repeats the page, whose items have the same ids.
 */
export function createPoller(name: string, ports: PollerPorts): { start(): Promise<void>; stop(): Promise<void> } {
  const topic = ports.topics.raw(name);
  const key = `cursor/${name}`;
  let running: Promise<void> | undefined;
  let stop = new AbortController();

  const consumer: GroupConsumer = ports.log.consumer({
    groupId: ports.groupId, topics: [topic], sessionTimeoutMs: sessionMs, rebalanceTimeoutMs: 2 * callTimeoutMs,
    handlers: {
      async assigned(parts) {
        for (const part of parts) consumer.pause(part.topic, part.partition);
        const lease = parts.find((p) => p.partition === 0);
        if (lease === undefined) return;
        stop = new AbortController();
        running = poll(lease, stop.signal).catch(ports.fail);
      },
      async revoked() {
        stop.abort();
        await running;
      },
      batch() {
        // Partitions are paused: the group serves as a lease only.
      },
      failed: ports.fail,
    },
  });

  const holds = (lease: Assignment): boolean => consumer.holds(topic, 0, lease.epoch);

  async function readCursor(): Promise<Json> {
    const end = await ports.endOf(ports.topics.control);
    let cursor: Json = null;
    await ports.reader.read(ports.topics.control, 0, 0, end, async (batch) => {
      for (const record of batch.records) {
        if (record.key?.toString('utf8') !== key || record.value === null) continue;
        await ports.serde.prepare(record.value);
        cursor = JSON.parse((ports.serde.decode(record.value).value as { cursor: string }).cursor) as Json;
      }
    });
    return cursor;
  }

  async function saveCursor(cursor: Json, lease: Assignment): Promise<boolean> {
    if (!holds(lease)) return false;
    const value = ports.serde.encode('weir.internal.PollCursor', { source: name, cursor: JSON.stringify(cursor), at: ports.now(), instance: ports.instance, epoch: lease.epoch });
    await ports.appender.append(ports.topics.control, [{ partition: 0, key: Buffer.from(key), value }]);
    return true;
  }

  function wait(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      if (signal.aborted) done();
      else signal.addEventListener('abort', done);
    });
  }

  async function poll(lease: Assignment, signal: AbortSignal): Promise<void> {
    let cursor = await readCursor();
    let failures = 0;
    while (!signal.aborted) {
      const source = ports.source();
      if (source === undefined) {
        await wait(1000, signal);
        continue;
      }
      const adapter = source.adapter.source as PollSource;
      const { everyMs, maxRequestsPerMinute } = adapter.interval(source.config);
      const began = ports.now();
      const next = await page(source, adapter, cursor, lease);
      if (next.kind === 'lost') return;
      failures = next.kind === 'failed' ? failures + 1 : 0;
      if (next.kind === 'page') cursor = next.cursor;
      const gap = Math.ceil(60_000 / maxRequestsPerMinute);
      const pause = next.kind === 'failed' ? Math.max(next.retryAfterMs, Math.min(300_000, 1000 * 2 ** Math.min(failures, 8))) : next.more ? gap : Math.max(gap, everyMs);
      await wait(Math.max(0, began + pause - ports.now()), signal);
    }
  }

  type Next = { kind: 'page'; cursor: Json; more: boolean } | { kind: 'failed'; retryAfterMs: number } | { kind: 'lost' };

  /** One call and its page, in order: lease, call, items, acks, cursor. */
  async function page(source: SourceConfig, adapter: PollSource, cursor: Json, lease: Assignment): Promise<Next> {
    if (!holds(lease)) return { kind: 'lost' };
    const response: HttpResponse | HttpFailure = await ports.http.call(adapter.request(cursor, source.config, ports.now()), { deadlineMs: callTimeoutMs });
    if ('failure' in response || response.status !== 200) {
      const verdict = adapter.classify(response);
      ports.metrics.polls.inc({ source: name, result: verdict.kind });
      ports.logger.warn({ source: name, verdict: verdict.kind, detail: verdict.detail }, 'poll failed');
      return { kind: 'failed', retryAfterMs: 'retryAfterMs' in verdict ? (verdict.retryAfterMs ?? 0) : 60_000 };
    }
    let found;
    try {
      found = adapter.page(response, cursor, source.config);
    } catch (error) {
      ports.metrics.polls.inc({ source: name, result: 'malformed' });
      ports.logger.error({ source: name, err: error }, 'the page is not what the source is configured for; the cursor stays');
      return { kind: 'failed', retryAfterMs: 60_000 };
    }
    if (!holds(lease)) return { kind: 'lost' };
    if (found.items.length > 0) await accept(ports, source, found.items, undefined, newTraceparent(), 'application/json');
    ports.metrics.items.inc({ source: name }, found.items.length);
    ports.metrics.polls.inc({ source: name, result: 'ok' });
    const moved = JSON.stringify(found.cursor) !== JSON.stringify(cursor);
    if (moved && !(await saveCursor(found.cursor, lease))) return { kind: 'lost' };
    // A page that says "more" under the cursor it was asked with would be asked for ever.
    return { kind: 'page', cursor: found.cursor, more: found.more && moved };
  }

  return {
    start: () => consumer.start(),
    async stop() {
      stop.abort();
      await consumer.close();
    },
  };
}
