import { randomUUID } from 'node:crypto';
import { stands, type ConsentBarrier, type ConsentTables } from '@weir/consent';
import type { Appender, OutRecord, Serde } from '@weir/log';
import { consentApi, H, type TopicNames } from '@weir/pipeline';
import { closes, consentKey, everyPurpose, type ConsentState } from '@weir/policy';
import { consentIds, keyedIdsOf, linksOf, orderHash, type ConsentOrder } from '@weir/release';
import { seal, sealIdentifiers, type KeyRing } from '@weir/seal';

export interface ConsentIntakePorts {
  readonly appender: Appender;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly barrier: Pick<ConsentBarrier, 'applied'>;
  readonly tables: Pick<ConsentTables, 'stored' | 'states'>;
  readonly workspaceKey: Buffer;
  /** Undefined = nothing is sealed. */
  readonly keys?: Pick<KeyRing, 'ensure' | 'current'>;
  /** Hash of the running release. */
  readonly release: () => string;
  /** Whether links keep sealed identifiers, by the running release. */
  readonly keepsLinked: () => boolean;
  readonly clock: { now(): number; monotonic(): number };
}

/** Who asked, and what makes the request the same when it comes again. */
export interface ConsentContext {
  /** Source of the change, as the record names it. */
  readonly source: string;
  readonly actor: string;
  readonly traceparent: string;
  /** Idempotency key of the caller; the same one with the same order is the same change, unless a grant has undone a no in between. */
  readonly key?: string;
}

export type Told = 'applied' | 'pending' | 'superseded' | 'unopened';

/** A change that the log has acknowledged. Offsets are on weir.consent.changes. */
export interface RecordedConsent {
  readonly id: string;
  readonly acceptedAt: number;
  readonly offsets: ReadonlyArray<{ readonly partition: number; readonly offset: number }>;
  readonly ids: readonly string[];
  /**
   * `applied` once every instance that may call has applied it and it is what the states say; `superseded` when a grant
   * that came after it has opened again what it closed; `unopened` when it is a grant that every instance has, and that opened
   * nothing; `pending` when none of it came about in time.
   */
  applied(deadlineMs: number): Promise<Told>;
}

const record = 'weir.canonical.ConsentChange';

/**
 * Changes of consent that come in by themselves: straight onto weir.consent.changes, ahead of everything that waits on
 * the raw topics. The first record stands for the whole change: who folds it writes the rest too where this process dies
 * before it (services/policy/relay.ts), and the canonical record, which carries it to the destinations.
 */
export function createConsentIntake(ports: ConsentIntakePorts) {
  const { appender, serde, topics, tables, workspaceKey, clock } = ports;

  return async function take(order: ConsentOrder, context: ConsentContext): Promise<RecordedConsent> {
    const ids = keyedIdsOf(workspaceKey, order.identifiers);
    await ports.keys?.ensure([ids[0]!]);
    // Behind the keys: what was accepted until a mark of erasure is not sealed under one that stands behind it.
    const acceptedAt = clock.now();
    const { id, output } = identify(context.source, context.key ?? randomUUID(), order, context.key === undefined ? [] : statesOf(tables, ids, order), tables);
    const { identifiers, occurredAt, ...rest } = order;
    const plain = serde.encode(record, { id: output, source: context.source, objectKey: null, occurredAt: occurredAt ?? acceptedAt, anonymousId: null, externalIds: [], ...identifiers, ...rest, extras: null });
    const key = ports.keys?.current(ids[0]!);
    const value = ports.keys === undefined ? plain : seal(key!, plain);
    const sealed = key === undefined || ids.length === 1 || !ports.keepsLinked() ? null : sealIdentifiers(serde, key, identifiers);
    const headers: [string, Buffer][] = [
      [H.event, id], [H.hash, orderHash(workspaceKey, order)], [H.source, context.source], [H.accepted, String(acceptedAt)], [H.traceparent, context.traceparent], [H.release, ports.release()],
      [H.mapping, consentApi], [H.output, output], [H.outputName, 'consent'], [H.ids, ids.join(',')], [H.actor, context.actor],
    ].map(([name, text]) => [name!, Buffer.from(text!)]);
    const changes = ids.map((name): OutRecord => ({ partition: appender.partitionFor(topics.consentChanges, name), key: Buffer.from(name), value, headers }));
    const links = linksOf(ids).map((link): OutRecord => {
      const [a, b] = link.split('~');
      const key = Buffer.from(link);
      return { partition: appender.partitionFor(topics.identity, key), key, value: serde.encode('weir.internal.IdentityLink', { a, b, source: context.source, at: acceptedAt, sealed }) };
    });
    const [first] = await appender.append(topics.consentChanges, changes.slice(0, 1));
    const [more] = changes.length === 1 ? [[]] : await Promise.all([appender.append(topics.consentChanges, changes.slice(1)), appender.append(topics.identity, links)]);
    const changed = [first!, ...more];
    const offsets = changes.map(({ partition }, i) => ({ partition, offset: changed[i]! }));
    const marks = highest(offsets);
    const { purpose, channel, topic, state } = order;
    return { id, acceptedAt, offsets, ids, applied: whenApplied(ports, marks, ids, { purpose, channel, topic, state }) };
  };
}
export type ConsentIntake = ReturnType<typeof createConsentIntake>;

type Tables = ConsentIntakePorts['tables'];
type Asked = Pick<ConsentOrder, 'purpose' | 'channel' | 'topic' | 'state'>;

/** Holds what it needs and nothing else of the order: thousands may wait at one time. */
function whenApplied({ barrier, tables }: Pick<ConsentIntakePorts, 'barrier' | 'tables'>, marks: ReadonlyMap<number, number>, ids: readonly string[], asked: Asked): RecordedConsent['applied'] {
  return async (deadlineMs) => {
    if (!await barrier.applied(marks, ids, deadlineMs)) return 'pending';
    const states = statesOf(tables, ids, asked);
    if (states.some((state) => undoneBy(tables, asked.state, state) !== undefined)) return 'superseded';
    // One that the fold could not read is set aside: then nothing is closed, nor opened, whatever was read past.
    if (asked.state !== 'unknown' && states.length < ids.length) return 'pending';
    return asked.state === 'granted' && !stands(tables, ids, asked) ? 'unopened' : 'applied';
  };
}

/** Id of the change that has opened what an order of this kind was to close; of a no to every purpose that of a grant over it. A grant closes nothing. */
function undoneBy(tables: Tables, asked: string, { id, purpose, state, changeId }: ConsentState): string | undefined {
  if (closes(asked) ? !closes(state) : asked === 'unknown' && state === 'granted') return changeId;
  if (purpose !== everyPurpose || !closes(asked)) return undefined;
  const states = tables.states(id);
  return states === 'too-many' ? undefined : states.find((entry) => entry.state === 'granted' && entry.over === changeId)?.changeId;
}

function statesOf(tables: Tables, ids: readonly string[], { purpose, channel, topic }: Asked): ConsentState[] {
  return ids.flatMap((id) => tables.stored(consentKey(id, purpose, channel ?? '', topic ?? ''))?.state ?? []);
}

/**
 * The event and output id of a change. The fold takes an id once, so a no whose id was folded before a grant would be
 * dropped as seen, and its deliveries be skipped as done: it is then a change of its own, named after the grant that it
 * closes, so that its repetitions are one change again. A grant keeps the id of its key: a repeated one opens nothing.
 */
function identify(source: string, key: string, order: ConsentOrder, states: readonly ConsentState[], tables: Tables): ReturnType<typeof consentIds> {
  const first = consentIds(source, key, order);
  for (const state of states) {
    const opened = state.seen.includes(first.output) ? undoneBy(tables, order.state, state) : undefined;
    if (opened !== undefined) return consentIds(source, key, order, opened);
  }
  return first;
}

function highest(offsets: ReadonlyArray<{ readonly partition: number; readonly offset: number }>): Map<number, number> {
  const last = new Map<number, number>();
  for (const { partition, offset } of offsets) last.set(partition, Math.max(offset, last.get(partition) ?? 0));
  return last;
}
