import type { Adapter } from '@weir/adapter';
import { WeirError } from '@weir/errors';
import type { LogAdmin, LogRecord, Reader } from '@weir/log';
import { H } from '@weir/pipeline';
import type { CompiledRoute, ConsentAnswer, ConsentSeen, Subject } from '@weir/policy';
import { compileRelease, controlKeys, readControl, valuesUnder, type Release, type ReleaseFile } from '@weir/release';
import type { ServiceContext } from '@weir/service';
import { createClearLinks, createKnownRegions, type ConsentTables, type KnownRegions } from '@weir/consent';
import type { Stage, Store } from '../store.ts';
import { header } from '../indexer.ts';

/** A decision as it was recorded. */
export interface Recorded {
  readonly destination: string | null;
  readonly operation: string | null;
  readonly effect: string;
  readonly rule: string | null;
  readonly reason: string | null;
  readonly release: string;
  /** ms since the epoch. */
  readonly at: number;
  readonly consent: readonly ConsentSeen[];
  readonly outputId: string | null;
}

export interface PastRecord {
  readonly eventId: string;
  readonly outputId: string;
  readonly acceptedAt: number;
  readonly subject: Subject;
}

/** Canonical records and decisions of the past, and releases by hash. */
export interface History {
  /** Canonical records of an event that are still on the topic. */
  recordsOf(eventId: string): Promise<readonly PastRecord[]>;
  /** Undefined: no canonical record. Schemas must be prepared. */
  subjectOf(record: LogRecord): PastRecord | undefined;
  recordedOf(eventId: string): readonly Recorded[];
  /** Rejects with not-found. */
  release(hash: string): Promise<Release>;
  compile(files: readonly ReleaseFile[]): Release;
  /** Consent and links as they are now. */
  readonly tables: ConsentTables;
  /** What linked identifiers are in the clear, as links keep it: of a person, by keyed identifier. */
  readonly clearLinks: ReturnType<typeof createClearLinks>;
  /** The person of a past record as it is known now: all linked identifiers, and where its records said that it is. */
  whole(subject: Subject): Subject;
}

interface Ports {
  readonly store: Store;
  readonly reader: Reader;
  readonly admin: LogAdmin;
  readonly tables: ConsentTables;
  readonly adapters: ReadonlyMap<string, Adapter>;
}

const canonicalPrefix = 'weir.canonical.';
const maxReleases = 8;

export function createHistory(context: ServiceContext, { store, reader, admin, tables, adapters }: Ports): History {
  const { serde, topics } = context;
  const releases = new Map<string, Release>();
  const regions: KnownRegions = createKnownRegions({ tables, keys: context.keys });
  const compile = (files: readonly ReleaseFile[]): Release => compileRelease(files, { adapters, workspaceKey: context.workspaceKey });

  async function filesOf(hash: string): Promise<readonly ReleaseFile[]> {
    let files: readonly ReleaseFile[] | undefined;
    await readControl({ reader, admin, topic: topics.control }, valuesUnder<{ readonly hash: string; readonly files: readonly ReleaseFile[] }>(serde, controlKeys.release(hash), (release) => {
      if (release.hash === hash) ({ files } = release);
    }));
    if (files === undefined) throw new WeirError('not-found', `release ${hash} is not on ${topics.control}`);
    return files;
  }

  function subjectOf(record: LogRecord): PastRecord | undefined {
    if (record.value === null || record.key === null) return undefined;
    const { name, value } = serde.decode(record.value);
    if (!name.startsWith(canonicalPrefix)) return undefined;
    const ids = header(record, H.ids);
    const acceptedAt = Number(header(record, H.accepted));
    const eventId = header(record, H.event);
    return {
      eventId, outputId: header(record, H.output), acceptedAt,
      subject: { recordName: name.slice(canonicalPrefix.length), record: value, source: header(record, H.source), key: record.key.toString(), ids: ids === '' ? [] : ids.split(','), eventId, acceptedAt },
    };
  }

  return {
    compile, subjectOf, tables,
    whole(subject) {
      const ids = subject.ids ?? [];
      const linked = tables.linked(ids);
      return { ...subject, ids: linked, regions: (own) => regions.of(linked, ids, own) };
    },
    clearLinks: createClearLinks({ tables, serde, keys: context.keys, workspaceKey: context.workspaceKey }),
    async recordsOf(eventId) {
      const found = new Map<string, PastRecord>();
      for (const { topic, partition, offset } of store.places(eventId)) {
        if (topic !== topics.canonical) continue;
        const record = await reader.readOne(topic, partition, offset);
        if (record?.value === undefined || record.value === null) continue;
        try {
          await serde.prepare(record.value);
          const past = subjectOf(record);
          if (past !== undefined) found.set(past.outputId, past);
        } catch (error) {
          if (!isUnreadable(error)) throw error;
        }
      }
      return [...found.values()];
    },
    recordedOf: (eventId) => store.stages(eventId).filter((s) => s.stage === 'decided').map(recorded),
    async release(hash) {
      let release = releases.get(hash);
      if (release !== undefined) return release;
      release = compile(await filesOf(hash));
      if (releases.size >= maxReleases) releases.delete(releases.keys().next().value!);
      releases.set(hash, release);
      return release;
    },
  };
}

function recorded(stage: Stage): Recorded {
  const text = (name: string): string | null => (typeof stage[name] === 'string' ? stage[name] : null);
  return { destination: text('destination'), operation: text('operation'), effect: String(stage['effect']), rule: text('rule'), reason: text('reason'), release: text('release') ?? '', at: stage.at, consent: (stage['consent'] ?? []) as readonly ConsentSeen[], outputId: text('outputId') };
}

/** A record that nobody can read: no Avro, no schema, changed, or its key was destroyed with the erasure of the person. */
export function isUnreadable(error: unknown): boolean {
  return ['avro-undecodable', 'schema-unknown', 'subject-erased'].includes((error as { code?: string }).code ?? '');
}

/** Reasons that consent itself gave; any other decision was made before it was asked. */
const closedBy = new Set(['consent-missing', 'consent-expired', 'consent-withdrawn', 'consent-denied', 'table-not-ready']);

/** What consent answered when the decision was made; undefined where it was not asked. */
export function recordedConsent(list: readonly Recorded[], route: Pick<CompiledRoute, 'destination' | 'operation'>): ConsentAnswer | undefined {
  const found = list.find((r) => r.destination === route.destination && r.operation === route.operation);
  if (found === undefined) return undefined;
  if (found.effect === 'allow' || found.effect === 'hold' || found.reason?.startsWith('limit:') === true) return { ok: true, seen: found.consent };
  return found.reason !== null && closedBy.has(found.reason) ? { ok: false, reason: found.reason, seen: found.consent } : undefined;
}
