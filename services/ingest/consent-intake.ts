import { randomUUID } from 'node:crypto';
import type { ConsentBarrier } from '@weir/consent';
import type { Appender, OutRecord, Serde } from '@weir/log';
import { eventId, H, itemHash, keyedId, outputId, type TopicNames } from '@weir/pipeline';
import { seal, type KeyRing } from '@weir/seal';
import type { ConsentOrder } from './consent-order.ts';

export interface ConsentIntakePorts {
  readonly appender: Appender;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly barrier: Pick<ConsentBarrier, 'applied'>;
  readonly workspaceKey: Buffer;
  /** Undefined = nothing is sealed. */
  readonly keys?: Pick<KeyRing, 'ensure' | 'current'>;
  /** Hash of the running release. */
  readonly release: () => string;
  readonly clock: { now(): number; monotonic(): number };
}

/** Who asked, and what makes the request the same when it comes again. */
export interface ConsentContext {
  /** Source of the change, as the record names it. */
  readonly source: string;
  readonly actor: string;
  readonly traceparent: string;
  /** Idempotency key of the caller; the same one with the same order is the same change. */
  readonly key?: string;
}

/** A change that the log has acknowledged. Offsets are on weir.consent.changes. */
export interface RecordedConsent {
  readonly id: string;
  readonly acceptedAt: number;
  readonly offsets: ReadonlyArray<{ readonly partition: number; readonly offset: number }>;
  readonly ids: readonly string[];
  /** True once every instance that may call has applied it; false when that did not come about in time. */
  applied(deadlineMs: number): Promise<boolean>;
}

const record = 'weir.canonical.ConsentChange';
const api = 'weir:consent-api';
const types = ['userId', 'email', 'phone'] as const;

/**
 * Changes of consent that come in by themselves: straight onto weir.consent.changes, ahead of everything that waits on
 * the raw topics; then, acknowledged, the canonical record, which carries it to the destinations.
 */
export function createConsentIntake(ports: ConsentIntakePorts) {
  const { appender, serde, topics, workspaceKey, clock } = ports;

  return async function take(order: ConsentOrder, context: ConsentContext): Promise<RecordedConsent> {
    const acceptedAt = clock.now();
    const hash = itemHash(Buffer.from(JSON.stringify(order)));
    // With the order in it: a key that is used again for another change must not swallow it.
    const id = eventId(api, [context.source, context.key ?? randomUUID(), hash]);
    const output = outputId(id, 'consent', '');
    const ids = types.flatMap((type) => (order.identifiers[type] === null ? [] : [`${type}:${keyedId(workspaceKey, type, order.identifiers[type])}`]));
    const { identifiers, occurredAt, ...rest } = order;
    await ports.keys?.ensure([ids[0]!]);
    const plain = serde.encode(record, { id: output, source: context.source, objectKey: null, occurredAt: occurredAt ?? acceptedAt, ...identifiers, anonymousId: null, externalIds: [], ...rest, extras: null });
    const value = ports.keys === undefined ? plain : seal(ports.keys.current(ids[0]!)!, plain);
    const headers: [string, Buffer][] = [
      [H.event, id], [H.hash, hash], [H.source, context.source], [H.accepted, String(acceptedAt)], [H.traceparent, context.traceparent], [H.release, ports.release()],
      [H.mapping, api], [H.output, output], [H.outputName, 'consent'], [H.ids, ids.join(',')], [H.actor, context.actor],
    ].map(([name, text]) => [name!, Buffer.from(text!)]);
    const changes = ids.map((name): OutRecord => ({ partition: appender.partitionFor(topics.consentChanges, name), key: Buffer.from(name), value, headers }));
    const links = ids.slice(1).map((name): OutRecord => {
      const [a, b] = [ids[0]!, name].sort() as [string, string];
      const key = Buffer.from(`${a}~${b}`);
      return { partition: appender.partitionFor(topics.identity, key), key, value: serde.encode('weir.internal.IdentityLink', { a, b, source: context.source, at: acceptedAt }) };
    });
    const [changed, linked] = await Promise.all([appender.append(topics.consentChanges, changes), appender.append(topics.identity, links)]);
    const offsets = changes.map(({ partition }, i) => ({ partition, offset: changed[i]! }));
    const marks = highest(offsets);
    const after = (name: string, positions: ReadonlyMap<number, number>): [string, Buffer][] => (positions.size === 0 ? [] : [[name, Buffer.from([...positions].map(([p, o]) => `${p}:${o}`).join(','))]]);
    const key = Buffer.from(ids[0]!);
    await appender.append(topics.canonical, [{
      partition: appender.partitionFor(topics.canonical, key), key, value,
      headers: [...headers, ...after(H.afterConsent, marks), ...after(H.afterIdentity, highest(links.map(({ partition }, i) => ({ partition, offset: linked[i]! }))))],
    }]);
    return { id, acceptedAt, offsets, ids, applied: (deadlineMs) => ports.barrier.applied(marks, ids, deadlineMs) };
  };
}
export type ConsentIntake = ReturnType<typeof createConsentIntake>;

function highest(offsets: ReadonlyArray<{ readonly partition: number; readonly offset: number }>): Map<number, number> {
  const last = new Map<number, number>();
  for (const { partition, offset } of offsets) last.set(partition, Math.max(offset, last.get(partition) ?? 0));
  return last;
}
