import { createHash } from 'node:crypto';
import type { OutRecord } from '@weir/log';
import { erasureSource as source, eventId, H, linkedOutput, outputId } from '@weir/pipeline';
import type { Identifiers } from '@weir/release';
import { seal, type KeyRing } from '@weir/seal';
import { newTraceparent } from '@weir/telemetry';
import type { FurtherTold } from './erasure-identifiers.ts';
import type { Erasure } from './erasure-receipt.ts';
import type { ErasurePorts } from './erasure.ts';

/** A withdrawal for one identifier; '' = every channel, every topic. What has the same `parts` is the same change. */
export interface Withdrawal {
  readonly id: string;
  readonly purpose: string;
  readonly channel: string;
  readonly topic: string;
  readonly parts: readonly string[];
}

/** Output of the Erasure under the first value of each type. */
export const firstOutput = (event: string): string => outputId(event, 'erasure', '');

/** What an erasure writes onto the topics: the same again whenever it is asked, but for the trace. `at`: when it counts as accepted, ms since the epoch. */
export interface ErasureRecords {
  /**
   * The Erasure for the destinations, for weir.canonical, and once more under each further value of a type, an output of its own of
   * the same event (`linkedOutput`), so that the same value has the same delivery key whatever else is found. Under the key of its
   * order, which outlives those of the person: destinations need to know whom they erase.
   */
  toTell(erasure: Erasure, at: number, identifiers: Identifiers, further: readonly FurtherTold[], key: NonNullable<ReturnType<KeyRing['current']>>): { readonly event: string; readonly records: readonly OutRecord[] };
  /** Without any words of the person, for weir.consent.changes. */
  withdrawal(erasure: Erasure, at: number, of: Withdrawal): OutRecord;
}

export function createErasureRecords({ serde, appender, topics, release }: Pick<ErasurePorts, 'serde' | 'appender' | 'topics' | 'release'>): ErasureRecords {
  function headersOf(erasure: Erasure, event: string, output: string, at: number): [string, Buffer][] {
    const hash = createHash('sha256').update(erasure.id).digest('hex').slice(0, 32);
    return ([[H.event, event], [H.hash, hash], [H.source, source], [H.accepted, String(at)], [H.traceparent, newTraceparent()], [H.release, release().hash], [H.mapping, source], [H.output, output], [H.outputName, 'erasure'], [H.ids, erasure.ids.join(',')]] as const).map(([name, text]) => [name, Buffer.from(text)]);
  }

  return {
    toTell(erasure, at, held, further, sealKey) {
      const event = eventId(source, [erasure.id]);
      const first = firstOutput(event);
      const key = Buffer.from(erasure.ids[0]!);
      const partition = appender.partitionFor(topics.canonical, key);
      const record = (output: string, identifiers: Identifiers, leftOut: readonly string[]): OutRecord => {
        const value = seal(sealKey, serde.encode('weir.canonical.Erasure', {
          id: output, source, objectKey: null, occurredAt: at, userId: identifiers.userId ?? null, anonymousId: identifiers.anonymousId ?? null, email: identifiers.email ?? null, phone: identifiers.phone ?? null,
          externalIds: identifiers.externalIds, erasure: erasure.id, deadline: erasure.deadline!, extras: null,
        }));
        const headers = headersOf(erasure, event, output, at);
        // As of an operation that has ended: nothing of this output goes there.
        if (leftOut.length > 0) headers.push([H.settled, Buffer.from(leftOut.map((name) => `${output}/${name}`).join(','))]);
        return { partition, key, value, headers };
      };
      return { event, records: [record(first, held, []), ...further.map(({ id, identifiers, leftOut }) => record(linkedOutput(first, id), identifiers, leftOut))] };
    },
    withdrawal(erasure, at, { id, purpose, channel, topic, parts }) {
      const change = eventId(source, [erasure.id, ...parts]);
      const output = outputId(change, 'consent', '');
      const value = serde.encode('weir.canonical.ConsentChange', { id: output, source, objectKey: null, occurredAt: at, purpose, channel: channel || null, topic: topic || null, state: 'withdrawn', reason: 'erasure' });
      return { partition: appender.partitionFor(topics.consentChanges, id), key: Buffer.from(id), value, headers: headersOf(erasure, change, output, at) };
    },
  };
}
