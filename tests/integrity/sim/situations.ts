/** What a run of the consent race came to: in how many ways a withdrawal met the deliveries of its person, for whoever has to show that the race tries them. */
import { deliveryKey, H } from '@weir/pipeline';
import { generations } from './checkers.ts';
import type { History } from './world.ts';

/** Each is one that the race must come to; the number beside it in `situationsOf` is that of the withdrawals, or of what is done to the services. */
export const situations = [
  'before the event', 'behind the event', 'on another partition', 'in flight', 'retrying', 'parked', 'in the DLQ', 'in a replay',
  're-grant', 'back-dated', 'old grant again', 'normalizer killed before its commit', 'dispatcher stopped past its lease',
] as const;
export type Situation = (typeof situations)[number];

interface Passage {
  readonly outputId: string;
  readonly ids: ReadonlySet<string>;
  readonly partition: number;
  readonly at: number;
  readonly redriven: boolean;
  readonly keys: ReadonlySet<string>;
}

/** Virtual ms of a record on the simulated log. */
const appendedAt = (record: { readonly timestamp: number }, epoch: number): number => record.timestamp - epoch;

/**
 * By the topics and the calls, once a run is over; what was done to the services is counted by the race itself (`done`).
 * @param epoch time of the wall clock at virtual 0, ms
 */
export function situationsOf(history: History, done: ReadonlyMap<Situation, number>, epoch: number): ReadonlyMap<Situation, number> {
  const counts = new Map<Situation, number>(situations.map((name) => [name, done.get(name) ?? 0]));
  const count = (name: Situation): void => { counts.set(name, counts.get(name)! + 1); };
  const passages = (history.records.get('sim.dispatch.newsletter') ?? []).flatMap((records, partition) => records.flatMap((record): Passage[] => {
    if (record.value === null) return [];
    const { value } = history.decode(record.value);
    if (value.kind !== 'use') return [];
    const ids = new Set<string>(value.ids);
    return [{ outputId: value.outputId, ids, partition, at: appendedAt(record, epoch), redriven: record.headers.some(([name, bytes]) => name === H.intent && bytes.toString().startsWith('redrive_')), keys: new Set(generations.map((generation) => deliveryKey(value.outputId, 'newsletter', value.operation, value.intent, generation))) }];
  }));
  const parked = (history.records.get('sim.parked.newsletter') ?? []).flat().flatMap((record) => (record.value === null ? [] : [{ at: appendedAt(record, epoch), outputId: history.decode(record.value).value.outputId as string }]));
  const letters = (history.records.get('sim.dlq') ?? []).flat().map((record) => ({ at: appendedAt(record, epoch), letter: history.decode(record.value!).value }))
    .filter(({ letter }) => letter.topic === 'sim.dispatch.newsletter' && letter.value !== null).map(({ at, letter }) => ({ at, ids: history.decode(letter.value).value.ids as readonly string[] }));
  for (const { ids, state, recorded, askedAt, recordedAt, appliedAt } of history.consent!.asks) {
    if (state !== 'withdrawn' || recorded === undefined) continue;
    const mine = passages.filter((p) => ids.some((id) => p.ids.has(id)));
    const started = (p: Passage): boolean => history.calls.some((call) => p.keys.has(call.key) && call.at < askedAt);
    const ended = (p: Passage): number => Math.min(...[...p.keys].map((key) => history.endedAt.get(key) ?? Infinity));
    const open = mine.filter((p) => p.at < askedAt && ended(p) > askedAt);
    if (appliedAt !== undefined && mine.some((p) => p.at > appliedAt)) count('before the event');
    if (mine.some((p) => ended(p) < askedAt)) count('behind the event');
    if (mine.some((p) => recorded.offsets.some(({ partition }) => partition !== p.partition))) count('on another partition');
    if (open.some((p) => history.calls.some((call) => p.keys.has(call.key) && call.at <= recordedAt && call.arrivesAt > askedAt && call.arrivesAt < Infinity))) count('in flight');
    if (open.some(started)) count('retrying');
    if (parked.some(({ at, outputId }) => at < askedAt && open.some((p) => p.outputId === outputId))) count('parked');
    if (letters.some((letter) => letter.at < askedAt && letter.ids.some((id) => ids.includes(id)))) count('in the DLQ');
    if (mine.some((p) => p.redriven && p.at > askedAt)) count('in a replay');
  }
  return counts;
}
