import { WeirError } from '@weir/errors';
import { failpoint } from '@weir/failpoint';
import type { Assignment, OutRecord } from '@weir/log';
import { writeDeparture, type KeyedPut } from './departure.ts';
import type { EndPace } from './end-pace.ts';
import { coveredOnLeaving, createCalledSince, intentPuts, leavingPuts } from './ledger.ts';
import { sinceEver, type IntentValue } from './ledger-store.ts';
import { becomeOwner, isNone, nameOwner, ownerKey } from './owners.ts';
import type { DestinationPorts } from './ports.ts';
import type { Task } from './types.ts';

/**
 * One owner's time with a partition, as the ledger tells it to those that come after: the mark by which it becomes the owner, an
 * intent before the calls of each batch, and, when it leaves, what may have taken effect in place of its intents.
 */
export interface Tenure {
  /** Its name on the ledger; no other has it. */
  readonly owner: string;
  /** Whether the assignment holds. A lease that ran out is renewed or lost within the next heartbeat, which is waited for. */
  owned(): Promise<boolean>;
  /** Reads the ledger and becomes the owner. False: the assignment ended first, nothing may be called. Rejects with what is in the way; may be begun again. */
  begin(): Promise<boolean>;
  /** True when this offset may have been called by an earlier owner and its outcome may be missing. */
  coveredBefore(offset: number): boolean;
  /** Since when that may be, ms since the epoch; 0 = it is not. */
  maybeSince(offset: number): number;
  /** No earlier owner can have called for this offset: read first under this assignment, and not under an earlier one's intent. */
  neverCalledBefore(offset: number): boolean;
  /**
   * Acknowledged before any call of the batch. It covers everything unfinished, also what an earlier owner may have
   * called behind the first batch of this one: the last intent is enough.
   * @param from the first unfinished offset; @param to behind the last that was read
   */
  intend(from: number, to: number): Promise<void>;
  /**
   * For the next owner, when nothing is open any more: an intent covers all that was read, and would have it take for called
   * what only waited. It is of this owner's calls alone and true whenever it is written: not waited for long, it spares less when it is late.
   * @param tasks all that is in hand; @param parts what else is left, with what is said of the intents in the first
   */
  leave(from: number, tasks: Iterable<Task>, parts: (intents: readonly KeyedPut[]) => Iterable<readonly KeyedPut[]>): Promise<void>;
}

interface Context {
  readonly ports: DestinationPorts;
  readonly assignment: Assignment;
  readonly pace: Pick<EndPace, 'ride'>;
  closed(): boolean;
  /** Undefined: the partition was given up meanwhile. */
  unlessGivenUp<T>(work: Promise<T>): Promise<T | undefined>;
  /** They are acknowledged: what is known of the ledger has them. */
  applyOwn(records: readonly OutRecord[], keys: readonly string[], offsets: readonly number[]): void;
}

const lookAgainMs = 20;

export function createTenure({ ports, assignment, pace, closed, unlessGivenUp, applyOwn }: Context): Tenure {
  const { topic, partition, epoch } = assignment;
  const ledgerTopic = ports.topics.ledger(ports.name);
  const owner = nameOwner(ports, epoch);
  /** What earlier owners may have called. */
  let before: IntentValue | undefined;
  /** Offset of its mark on the ledger, then of its last intent: the next is acknowledged behind it. */
  let writtenAt = -1;
  /** Intents written by this owner, and since when it may have called what it has in hand. */
  let intents = 0;
  const calledSince = createCalledSince();

  async function owned(): Promise<boolean> {
    for (;;) {
      if (ports.consumer().holds(topic, partition, epoch)) return true;
      if (!ports.consumer().assignments().some((a) => a.topic === topic && a.partition === partition && a.epoch === epoch)) return false;
      await new Promise<void>((resolve) => { ports.clock.setTimer(resolve, lookAgainMs); });
    }
  }

  /**
   * Behind what earlier owners may have called, where a ledger that begins at 0 shows none of them though deliveries are committed:
   * it was deleted and made anew. 0 = it was not. It goes with the mark, so that it is on the ledger as soon as an owner is, and counts
   * where that mark is the first: a leader that was cut off may show less than there is. It is the offset of an empty record, for the end
   * that is told may be an old one. Undefined: the assignment has ended.
   */
  async function calledBeforeLoss(): Promise<number | undefined> {
    if (!isNone(ports.ledger.owner(partition))) return 0;
    const [begin, commits] = await Promise.all([ports.admin.beginningOffsets(ledgerTopic), ports.admin.committed(ports.group, topic)]);
    // A commit of 0 is that of the first assignment.
    if ((begin.get(partition) ?? 0) > 0 || (commits.get(partition) ?? 0) === 0) return 0;
    return (await unlessGivenUp(ports.appender.append(topic, [{ partition, key: null, value: null }])))?.[0];
  }

  const encodeIntent = (covered: IntentValue): Buffer => ports.serde.encode('weir.internal.LedgerIntent', { destination: ports.name, partition, epoch, instance: ports.instance, ...covered });

  async function write(puts: readonly KeyedPut[], patience?: Promise<undefined>): Promise<void> {
    const records = puts.map((put): OutRecord => ({ partition, key: Buffer.from(put.key), value: put.value }));
    const appended = ports.appender.append(ledgerTopic, records);
    const offsets = await (patience === undefined ? appended : Promise.race([appended, patience]));
    if (offsets === undefined || offsets.length === 0) return;
    if (offsets[0]! <= writtenAt) throw new WeirError('log-fatal', `${ledgerTopic}/${partition} took a record at ${offsets[0]}, and the one before it stood at ${writtenAt}: the topic was made anew meanwhile`);
    writtenAt = offsets.at(-1)!;
    applyOwn(records, puts.map(({ key }) => key), offsets);
  }

  return {
    owner,
    owned,
    async begin() {
      const mine = await becomeOwner(owner, {
        load: (atLeast) => unlessGivenUp(ports.takeover.load(partition, assignment.position, closed, atLeast)),
        current: () => ports.ledger.owner(partition),
        read: () => ports.ledger.position(partition),
        owned: async () => !closed() && await owned(),
        async append(mark) {
          const calledTo = await calledBeforeLoss();
          if (calledTo === undefined) return undefined;
          const value = ports.serde.encode('weir.internal.LedgerOwner', { partition, ...mark, at: ports.clock.now(), calledTo });
          const offsets = await unlessGivenUp(ports.appender.append(ledgerTopic, [{ partition, key: Buffer.from(ownerKey(partition, mark)), value }]));
          writtenAt = offsets?.[0] ?? -1;
          return offsets?.[0];
        },
      });
      if (!mine || closed()) return false;
      before = ports.ledger.intent(partition, assignment.position);
      if (before?.at === sinceEver) ports.logger.error({ topic: ledgerTopic, partition, committed: assignment.position, toOffset: before.toOffset }, 'the ledger had no owner, though deliveries were committed: it was deleted and made anew; what waits up to toOffset is taken for perhaps called, and a repetition of what was called before is not recognised');
      return true;
    },
    coveredBefore: (offset) => before !== undefined && offset < before.toOffset,
    maybeSince: (offset) => (before !== undefined && offset < before.toOffset ? before.at : 0),
    neverCalledBefore: (offset) => offset >= Math.max(assignment.position, before?.toOffset ?? 0),
    async intend(from, to) {
      const since = calledSince.next(from, to, ports.clock.now());
      const at = before !== undefined && before.toOffset > from ? Math.min(before.at, since) : since;
      const written = write(intentPuts(partition, owner, intents++, encodeIntent({ fromOffset: from, toOffset: Math.max(to, before?.toOffset ?? 0), at })));
      pace.ride();
      await written;
      failpoint('dispatcher.intent-written');
    },
    async leave(from, tasks, parts) {
      const covered = coveredOnLeaving(from, before, tasks);
      await writeDeparture(ports.clock, parts(leavingPuts(partition, owner, intents, intents === 0 || covered === undefined ? undefined : encodeIntent(covered))), write);
    },
  };
}
