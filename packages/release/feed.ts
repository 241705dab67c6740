import type { Adapter } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import type { QuotaReserve } from '@weir/http';
import { moment, type Appender, type Follower, type Headers, type Log, type PartitionCounts, type RecordBatch, type Serde } from '@weir/log';
import type { Logger } from 'pino';
import { compileRelease } from './compile.ts';
import { secretNames } from './config.ts';
import { readControl } from './control-topic.ts';
import { escalationSecrets } from './escalation.ts';
import { formerSources } from './former.ts';
import type { DestinationSwitch, Escalation, Incident, Release, ReleaseFeed, ReleaseFile } from './types.ts';
import { releaseHash } from './workspace.ts';

export const controlKeys = { release: (hash: string) => `release/${hash}`, current: 'release/current', incident: (destination: string) => `incident/${destination}`, switch: (destination: string) => `switch/${destination}`, escalation: (destination: string, kind: string) => `escalation/${destination}/${kind}`, partitions: (topic: string) => `partitions/${topic}`, reserve: (account: string) => `reserve/${account}` } as const;
/** Incidents that are no destination's stand beside theirs under a name with a slash, which no destination has: of a rule that escalates, of a source whose changes of consent bind nobody, and of a polled source that stands still. */
export const incidentName = { rule: (rule: string) => `policy/${rule}`, consent: (source: string) => `consent/${source}`, source: (source: string) => `source/${source}` } as const;
/** What an incident is about, by its name. */
export function incidentAbout(name: string): { readonly kind: 'destination' | 'policy' | 'consent' | 'source'; readonly name: string } {
  const at = name.indexOf('/');
  return at < 0 ? { kind: 'destination', name } : { kind: name.slice(0, at) as 'policy' | 'consent' | 'source', name: name.slice(at + 1) };
}
/**
 * The command that sends again what was given up; null = it is of no destination. While it lasts: what came since it began. Of one that is
 * over: the dead letters of that time, for what was given up then may have come long before.
 */
export function replayOf({ destination, since, until }: Pick<Incident, 'destination' | 'since' | 'until'>): string | null {
  if (incidentAbout(destination).kind !== 'destination') return null;
  const from = `--destination ${destination} --since ${new Date(since).toISOString()}`;
  return until === null ? `weir replay dispatch ${from}` : `weir replay dlq ${from} --until ${new Date(Math.max(until, since + 1)).toISOString()} --stage dispatcher`;
}
const maxReleaseBytes = 1_500_000;
const retryMs = 500;
/** Of one lost answer: half a lease of a dispatcher (docs/decisions/0031) must be left for the next. */
const graceMs = 4000;
/** A leader that was cut off is fenced within 9 s (broker.session.timeout.ms): for longer only a log that is shorter than it was says that the next offset is not on it. */
const shorterMs = 10_000;
/** Failures further apart than this are not one. */
const apartMs = 5000;
/** Records whose schema cannot be had, for which nobody behind them waits. */
const maxWaiting = 100;
const maxWaitingBytes = 8 * 1024 * 1024;

/** Keys that a feed reads. */
const kinds = ['release/', 'incident/', 'switch/', 'escalation/', 'partitions/', 'reserve/'] as const;

/** Header of a record on weir.control: the audit leaf of the change it is. */
export const leafHeader = 'weir-audit';

/** The release as it stands on weir.control. Throws workspace-invalid where it does not fit into a record. */
export function encodeRelease(options: { readonly serde: Pick<Serde, 'encode'>; readonly release: Pick<Release, 'hash' | 'files'>; readonly by: string; readonly message: string | null; readonly now: number }): Buffer {
  const { serde, release, by, message, now } = options;
  const value = serde.encode('weir.internal.Release', { hash: release.hash, files: release.files, appliedAt: now, appliedBy: by, message });
  if (value.length > maxReleaseBytes) throw new WeirError('workspace-invalid', `the release has ${value.length} bytes, at most ${maxReleaseBytes} fit into a record: split the workspace`);
  return value;
}

/** Put a release on weir.control and make it the current one; both records name the audit leaf, which must be acknowledged already. Resolves after both are acknowledged. */
export async function applyRelease(options: { appender: Appender; serde: Serde; topic: string; release: Release; by: string; message: string | null; now: number; leaf: string }): Promise<void> {
  const { appender, serde, topic, release, by, now } = options;
  const headers: Headers = [[leafHeader, Buffer.from(options.leaf)]];
  const value = encodeRelease(options);
  await appender.append(topic, [{ partition: 0, key: Buffer.from(controlKeys.release(release.hash)), value, headers }]);
  await appender.append(topic, [{ partition: 0, key: Buffer.from(controlKeys.current), value: serde.encode('weir.internal.CurrentRelease', { hash: release.hash, at: now, by }), headers }]);
}

/** Names of every secret that the release uses. */
export function secretsOf(release: Release): string[] {
  return [...new Set([...[...release.sources.values(), ...release.destinations.values()].flatMap((part) => secretNames(part.config).map((s) => s.name)), ...escalationSecrets(release.escalation)])].sort();
}

/** Put an incident on weir.control, over the one before of its destination; resolves when it is acknowledged. */
export async function saveIncident(options: { appender: Appender; serde: Serde; topic: string; incident: Incident }): Promise<void> {
  const { appender, serde, topic, incident } = options;
  await appender.append(topic, [{ partition: 0, key: Buffer.from(controlKeys.incident(incident.destination)), value: serde.encode('weir.internal.Incident', { ...incident }) }]);
}

/** Put what people were told on weir.control; resolves when it is acknowledged. */
export async function saveEscalation(options: { appender: Appender; serde: Serde; topic: string; escalation: Escalation }): Promise<void> {
  const { appender, serde, topic, escalation } = options;
  await appender.append(topic, [{ partition: 0, key: Buffer.from(controlKeys.escalation(escalation.destination, escalation.kind)), value: serde.encode('weir.internal.Escalation', { ...escalation }) }]);
}

/** Put on weir.control how many partitions topics were made with; resolves when it is acknowledged. */
export async function savePartitions(options: { appender: Appender; serde: Serde; topic: string; counts: ReadonlyArray<{ readonly topic: string; readonly partitions: number; readonly at: number }> }): Promise<void> {
  const { appender, serde, topic, counts } = options;
  await appender.append(topic, counts.map((count) => ({ partition: 0, key: Buffer.from(controlKeys.partitions(count.topic)), value: serde.encode('weir.internal.TopicPartitions', count) })));
}

/** Announce on weir.control what of an account's quota is to be left to the caller; resolves when it is acknowledged, which its readers may learn later. */
export async function saveReserve(options: { appender: Appender; serde: Serde; topic: string; reserve: QuotaReserve }): Promise<void> {
  const { appender, serde, topic, reserve } = options;
  await appender.append(topic, [{ partition: 0, key: Buffer.from(controlKeys.reserve(reserve.account)), value: serde.encode('weir.internal.QuotaReserve', { ...reserve }) }]);
}

/** Put a kill switch on weir.control, naming the audit leaf of the change; resolves with its offset when it is acknowledged. */
export async function saveSwitch(options: { appender: Appender; serde: Serde; topic: string; change: DestinationSwitch; leaf: string }): Promise<number> {
  const { appender, serde, topic, change, leaf } = options;
  const [offset] = await appender.append(topic, [{ partition: 0, key: Buffer.from(controlKeys.switch(change.destination)), value: serde.encode('weir.internal.DestinationSwitch', { ...change }), headers: [[leafHeader, Buffer.from(leaf)]] }]);
  return offset!;
}

/**
 * Follows weir.control. A release whose content does not give its hash, or that does not compile with this
 * version's adapters, is refused with an error line and the one before goes on. Resolves when the topic was
 * read to its end; `current()` throws release-missing while there is none. Without the workspace key every item of a
 * mapping that hashes would fail. `counts` is told how many partitions each topic was made with.
 */
export async function createReleaseFeed(options: { log: Log; serde: Serde; topic: string; adapters: ReadonlyMap<string, Adapter>; logger: Logger; workspaceKey: Buffer; counts?: PartitionCounts }): Promise<ReleaseFeed> {
  const { log, serde, topic, logger } = options;
  const stored = new Map<string, readonly ReleaseFile[]>();
  const listeners = new Set<(release: Release) => void>();
  const incidents = new Map<string, Incident>();
  const escalations = new Map<string, Escalation>();
  const switches = new Map<string, DestinationSwitch>();
  const reserves = new Map<string, QuotaReserve>();
  const switchListeners = new Set<(change: DestinationSwitch) => void>();
  /** The newest of each key whose schema could not be had. */
  const waiting = new Map<string, { readonly bytes: Buffer; readonly offset: number }>();
  let current: Release | undefined;
  let wanted: string | undefined;

  const compile = (files: readonly ReleaseFile[]): Release => compileRelease(files, { adapters: options.adapters, workspaceKey: options.workspaceKey });
  const former = formerSources(stored, compile);

  function activate(): void {
    const files = wanted === undefined ? undefined : stored.get(wanted);
    if (files === undefined || current?.hash === wanted) return;
    try {
      if (releaseHash(files) !== wanted) throw new WeirError('workspace-invalid', `release ${wanted} does not have that content`);
      current = { ...compile(files), former: former.of };
    } catch (error) {
      logger.error({ err: error, release: wanted, running: current?.hash }, 'release refused');
      return;
    }
    logger.info({ release: current.hash }, 'release');
    for (const listener of listeners) listener(current);
  }

  /** Bytes that are no release are left out with an error line: they must not keep the releases behind them from running. */
  async function decode(bytes: Buffer, offset: number): Promise<unknown> {
    try {
      await serde.prepare(bytes);
      return serde.decode(bytes).value;
    } catch (error) {
      if (!(error instanceof WeirError) || (error.code !== 'avro-undecodable' && error.code !== 'schema-unknown')) throw error;
      logger.error({ err: error, topic, offset }, 'not a release');
      return undefined;
    }
  }

  function switched(change: DestinationSwitch): DestinationSwitch {
    switches.set(change.destination, change);
    logger.info({ destination: change.destination, paused: change.paused, by: change.by, reason: change.reason }, 'kill switch');
    return change;
  }

  /** The last word counts at once. Returns what was switched. */
  function keep(key: string, value: unknown): DestinationSwitch | undefined {
    if (key.startsWith('partitions/')) options.counts?.keep((value as { topic: string }).topic, (value as { partitions: number }).partitions);
    else if (key.startsWith('reserve/')) reserves.set((value as QuotaReserve).account, value as QuotaReserve);
    else if (key.startsWith('switch/')) return switched(value as DestinationSwitch);
    else if (key.startsWith('escalation/')) escalations.set(key.slice('escalation/'.length), value as Escalation);
    else if (key.startsWith('incident/')) incidents.set((value as Incident).destination, value as Incident);
    else if (key === controlKeys.current) wanted = (value as { hash: string }).hash;
    else {
      // One that is applied again is the newest.
      const { hash, files } = value as { hash: string; files: ReleaseFile[] };
      stored.delete(hash);
      stored.set(hash, files);
      former.renew(files);
    }
    return undefined;
  }

  /** What this feed reads, in the order of the log. Rejects when the schema of one cannot be had; with `mayWait` only for one that those behind it must wait for. */
  async function decodeAll(batch: Pick<RecordBatch, 'records'>, say: (key: string, value: unknown) => void, mayWait: boolean): Promise<void> {
    for (const record of batch.records) {
      const key = record.key?.toString('utf8') ?? '';
      if (!kinds.some((kind) => key.startsWith(kind)) || record.value === null) continue;
      let value: unknown;
      try {
        value = await decode(record.value, record.offset);
      } catch (error) {
        if (!mayWait || !waits(key, record.value)) throw error;
        logger.error({ err: error, topic, key, offset: record.offset }, 'its schema cannot be had: this record waits, those behind it do not');
        waiting.set(key, { bytes: Buffer.from(record.value), offset: record.offset });
        retryWaiting();
        continue;
      }
      waiting.delete(key);
      if (value !== undefined) say(key, value);
    }
  }

  /** Whoever calls destinations waits for switches, and a count of partitions says where keys go. */
  function waits(key: string, bytes: Buffer): boolean {
    if (key.startsWith('switch/') || key.startsWith('partitions/')) return false;
    let held = bytes.length;
    for (const [other, at] of waiting) if (other !== key) held += at.bytes.length;
    return (waiting.has(key) || waiting.size < maxWaiting) && held <= maxWaitingBytes;
  }

  function retryWaiting(): void {
    if (!closed) retrying ??= setTimeout(() => { void decodeWaiting(); }, retryMs);
  }

  async function decodeWaiting(): Promise<void> {
    for (const [key, held] of [...waiting]) {
      let value: unknown;
      try {
        value = await decode(held.bytes, held.offset);
      } catch (error) {
        logger.debug({ err: error, topic, key, offset: held.offset }, 'its schema cannot be had yet');
        continue;
      }
      // A later one of the key may have come.
      if (waiting.get(key) !== held) continue;
      waiting.delete(key);
      if (value !== undefined) keep(key, value);
    }
    retrying = undefined;
    if (waiting.size > 0) retryWaiting();
    if (!closed) activate();
  }

  const reader = await log.reader({ graceMs });
  const admin = await log.admin();
  let known = moment();
  const end = await readControl({ reader, admin, topic }, (batch) => decodeAll(batch, keep, false));
  activate();
  let position = end;
  let closed = false;
  let timer: NodeJS.Timeout | undefined;
  let beginning = false;
  let retrying: NodeJS.Timeout | undefined;
  /** What following ended with last, and when. */
  let failed: { readonly code: string; readonly at: number } | undefined;
  /** The next offset is not on the log: since when (for ever, where it was told that the topic was made anew), and when it was told last. */
  let shorter: { readonly since: number; readonly at: number } | undefined;
  let follower = await follow();

  function follow(): Promise<Follower> {
    return reader.follow(topic, new Map([[0, position]]), async (batch) => {
      const changes: DestinationSwitch[] = [];
      await decodeAll(batch, (key, value) => {
        const change = keep(key, value);
        if (change !== undefined) changes.push(change);
      }, true);
      position = batch.nextOffset;
      shorter = undefined;
      tell(changes);
    }, again);
  }

  function tell(changes: readonly DestinationSwitch[]): void {
    for (const change of changes) for (const listener of switchListeners) listener(change);
    activate();
  }

  /** A feed that ended would keep the old release running for ever without a sign: it is begun anew until it follows. */
  function again(error: unknown): void {
    if (closed) return;
    const at = performance.now();
    failed = { code: (error as { code?: string }).code ?? (error as Error).name, at };
    if ((error as WeirError).details?.['madeAnew'] === true) shorter = { since: -Infinity, at };
    else if (failed.code === 'log-out-of-range') shorter = { since: shorter !== undefined && at - shorter.at < apartMs ? shorter.since : at, at };
    logger.error({ err: error, position }, 'following releases failed; the running one goes on, the next try is in 0.5 s');
    retry();
  }

  /** One try at a time: two that ended well would be two followers of one handler, and the one that lags would put an older word over a newer. */
  function retry(): void {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (beginning) retry();
      else void anew();
    }, retryMs);
  }

  async function anew(): Promise<void> {
    beginning = true;
    try {
      await follower.close();
      if (shorter !== undefined && shorter.at - shorter.since >= shorterMs) await readWhole();
      follower = await follow();
      if (closed) await follower.close();
    } catch (error) {
      again(error);
    } finally {
      beginning = false;
    }
  }

  /**
   * The log is shorter than what was read of it: the brokers lost its end, or it was made anew. It is read to its end before any of it
   * counts: a word that is not the last one would resume a destination, or run a release, for a moment. A pause stays that is newer
   * than the last word, or has none: it was acknowledged.
   */
  async function readWhole(): Promise<void> {
    const asked = moment();
    const last = new Map<string, unknown>();
    const whole = (await admin.endOffsets(topic)).get(0) ?? 0;
    await reader.read(topic, 0, 0, whole, (batch) => decodeAll(batch, (key, value) => {
      // In the order of the last words.
      last.delete(key);
      last.set(key, value);
    }, true));
    logger.warn({ topic, position, end: whole }, 'the topic is shorter than what was read of it: it was read again');
    const changes: DestinationSwitch[] = [];
    for (const [key, value] of last) {
      const before = key.startsWith('switch/') ? switches.get(key.slice('switch/'.length)) : undefined;
      if (before?.paused === true && before.at > (value as DestinationSwitch).at) continue;
      const change = keep(key, value);
      if (change !== undefined) changes.push(change);
    }
    position = whole;
    shorter = undefined;
    known = asked;
    tell(changes);
  }

  /** Whether the follower has answered since. */
  const since = (at: number): boolean => follower.asOf().monotonic > at;

  return {
    current() {
      if (current === undefined) throw new WeirError('release-missing');
      return current;
    },
    incidents: () => incidents,
    escalations: () => escalations,
    switches: () => switches,
    reserves: () => reserves,
    position: () => (shorter === undefined || since(shorter.at) ? position : 0),
    trouble: () => (failed === undefined || since(failed.at) ? undefined : failed.code),
    ageMs() {
      const asOf = follower.asOf();
      // A follower that was begun anew knows less at first.
      if (asOf.monotonic > known.monotonic) known = asOf;
      return Math.max(performance.now() - known.monotonic, Date.now() - known.wall);
    },
    onSwitch(listener) {
      switchListeners.add(listener);
      return () => switchListeners.delete(listener);
    },
    onChange(listener, since) {
      listeners.add(listener);
      if (since !== undefined && current !== undefined && current !== since) listener(current);
      return () => listeners.delete(listener);
    },
    async close() {
      closed = true;
      clearTimeout(timer);
      clearTimeout(retrying);
      await reader.close();
    },
  };
}
