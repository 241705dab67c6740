import { deliveryKey, isOtherBody } from '@weir/pipeline';
import type { DeliveryValue, EndState, EndValue, ParkValue } from './types.ts';

/**
 * The ledger of one partition of one destination, as pure rules over a key-value view of
 * weir.ledger.<destination>. Keys on the topic:
 *   <delivery key>#end          LedgerEnd, absorbing
 *   <delivery key>#attempt/<n>  Attempt that failed, for traces; not read here
 *   #intent/<partition>/<owner>/<n>
 *                               LedgerIntent, the largest counts; ended by a tombstone when a later one of its owner is
 *                               acknowledged. The owner is of this assignment alone (a process counts its epochs
 *                               from its start), so a key is used once: an owner that lost the partition and does not know it
 *                               yet must not write over its successor's, and a request that was given up, sent again and
 *                               written late must not be what compaction keeps of a key
 *   #owner/<partition>/<token>/<owner>
 *                               LedgerOwner, see owners.ts
 *   #park/<owner>/<n>/<subject> LedgerPark, ended by a tombstone of the same key. A key is used for one stay of a
 *                               subject under one owner: a tombstone that is written late, or by an owner that lost
 *                               the partition, hides no marker but its own
 */
export const ledgerKeys = {
  end: (key: string) => `${key}#end`,
  attempt: (key: string, n: number) => `${key}#attempt/${n}`,
  intent: (partition: number, owner: string, n: number) => `#intent/${partition}/${owner}/${n}`,
  intentPrefix: '#intent/',
  park: (owner: string, n: number, subject: string) => `#park/${owner}/${n}/${subject}`,
  parkPrefix: '#park/',
  parkOwner: (owner: string) => `#park/${owner}/`,
} as const;

/** What is written, in one append, with the intent `n` of an owner; every earlier one is acknowledged. The one before it stays, for the case that only this one is lost. */
export function intentPuts(partition: number, owner: string, n: number, value: Buffer): { readonly key: string; readonly value: Buffer | null }[] {
  const puts: { key: string; value: Buffer | null }[] = [{ key: ledgerKeys.intent(partition, owner, n), value }];
  if (n > 1) puts.push({ key: ledgerKeys.intent(partition, owner, n - 2), value: null });
  return puts;
}

interface Covered {
  readonly fromOffset: number;
  readonly toOffset: number;
  readonly at: number;
}

/**
 * What an owner that leaves with no call open says for its intents, which covered all that it had read: up to where something
 * may have taken effect, by its own calls or under those of earlier owners (`before`), and since when. Undefined = nothing
 * may: the next owner takes nothing for called. `tasks` are all that it has in hand.
 */
export function coveredOnLeaving(from: number, before: Covered | undefined, tasks: Iterable<{ readonly offset: number; readonly parkedOffset: number; readonly maybeSince: number }>): Covered | undefined {
  let [toOffset, at] = before !== undefined && before.toOffset > from ? [before.toOffset, before.at] : [from, Number.POSITIVE_INFINITY];
  for (const task of tasks) {
    if (task.parkedOffset >= 0 || task.maybeSince === 0) continue;
    toOffset = Math.max(toOffset, task.offset + 1);
    at = Math.min(at, task.maybeSince);
  }
  return toOffset > from ? { fromOffset: from, toOffset, at } : undefined;
}

/** What is written, in one append, by an owner that leaves and has written `written` intents: the last two are ended, by what may have taken effect in their place. */
export function leavingPuts(partition: number, owner: string, written: number, value: Buffer | undefined): { readonly key: string; readonly value: Buffer | null }[] {
  const puts: { key: string; value: Buffer | null }[] = value === undefined ? [] : [{ key: ledgerKeys.intent(partition, owner, written), value }];
  for (let n = written - 1; n >= Math.max(0, written - 2); n--) puts.push({ key: ledgerKeys.intent(partition, owner, n), value: null });
  return puts;
}

/**
 * Since when an owner may have called something that is not finished: the time of its first intent that covers it. Each
 * intent says so of all that it covers, for those before it are ended. The key windows of vendors count from there.
 */
export function createCalledSince() {
  const written: { readonly to: number; readonly at: number }[] = [];
  return {
    /** For an intent that is written now (ms), with `from` as the first unfinished offset and `to` behind the last that was read. */
    next(from: number, to: number, now: number): number {
      while (written.length > 0 && written[0]!.to <= from) written.shift();
      written.push({ to, at: now });
      return written.reduce((least, { at }) => Math.min(least, at), now);
    },
  };
}

const rank: Record<EndState, number> = { denied: 1, expired: 1, superseded: 1, quarantined: 2, 'dead-lettered': 2, 'failed-over': 3, delivered: 4 };
const givenUp = 2;

type Ranked = Pick<EndValue, 'state' | 'effect' | 'maybeSince' | 'offset' | 'subject'>;
const doubtOf = ({ effect, maybeSince }: Ranked): number => (effect === 'maybe' ? maybeSince : 0);

/**
 * Whether an end is kept in the place of another one under the same key. One that was learnt to be applied outranks all others, and
 * one that went to a second vendor what was given up. Of two that were given up it is the one of the record that stands later: a
 * redrive, which had taken up an end of unknown effect, and says what is known since. Of one record (an owner that lost the
 * partition wrote late), and where a release gave the output another subject, whose offsets are of another partition, it is the one that
 * tells of the later call of unknown effect, for who asks the vendor next must give that call the time to show, and of equals
 * the higher state. Readers of a partition in any order agree, and an owner writes the ends of a key in this order.
 */
export function keepsInstead(earlier: Ranked, later: Ranked): boolean {
  const [had, has] = [rank[earlier.state], rank[later.state]];
  if (had > givenUp || has > givenUp) return has > had;
  if (earlier.offset !== later.offset && earlier.subject === later.subject) return later.offset > earlier.offset;
  const more = doubtOf(later) - doubtOf(earlier);
  return more > 0 || (more === 0 && has > had);
}

export type Lookup =
  /** `reopened`: the end of unknown effect that a redrive takes up again, under the same key. */
  | { readonly kind: 'open'; readonly key: string; readonly generation: number; readonly reopened?: EndValue }
  | { readonly kind: 'ended'; readonly key: string; readonly end: EndValue }
  | { readonly kind: 'conflict'; readonly key: string; readonly end: EndValue };

const maxGenerations = 1000;

/**
 * Where a delivery stands. Live traffic looks at generation 0 only. A redrive (order id not empty) steps over
 * ends that are known as not applied, to the next generation with a new key; an end whose effect is unknown
 * is reopened under the same key, so that the vendor can recognise it. An end that this very record wrote
 * (same offset) is its own: a crash before the commit must not send it again.
 */
export function lookUp(delivery: DeliveryValue, redrive: string, offset: number, endOf: (key: string) => EndValue | undefined): Lookup {
  for (let generation = 0; generation < maxGenerations; generation++) {
    const key = deliveryKey(delivery.outputId, delivery.destination, delivery.operation, delivery.intent, generation);
    const end = endOf(key);
    if (end === undefined) return { kind: 'open', key, generation };
    if (isOtherBody(end, delivery)) return { kind: 'conflict', key, end };
    // What went to a second vendor is taken up there and nowhere else.
    if (redrive === '' || end.state === 'delivered' || end.state === 'failed-over' || (offset >= 0 && end.offset === offset)) return { kind: 'ended', key, end };
    if (end.effect !== 'none') return { kind: 'open', key, generation, reopened: end };
  }
  return { kind: 'open', key: deliveryKey(delivery.outputId, delivery.destination, delivery.operation, delivery.intent, maxGenerations), generation: maxGenerations };
}

/** What to do with a delivery whose effect at the vendor may have happened since `maybeSince` (ms; 0 = surely not): within the key window, or where the manifest says resend, it is sent under the same key. A vendor without keys has no window, wherever a clock that was set back has come to. */
export function pastWindow(maybeSince: number, now: number, idempotency: { scheme: string; windowMs?: number; pastWindow: 'verify' | 'hold' | 'resend' }): 'send' | 'hold' | 'verify' {
  if (maybeSince === 0) return 'send';
  const window = idempotency.scheme === 'none' ? Number.NEGATIVE_INFINITY : idempotency.windowMs ?? Number.POSITIVE_INFINITY;
  if (now - maybeSince <= window) return 'send';
  return idempotency.pastWindow === 'resend' ? 'send' : idempotency.pastWindow;
}

export type { ParkValue };
