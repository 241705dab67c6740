import { WeirError } from '@weir/errors';
import { readUpTo, type LogAdmin, type LogRecord, type Reader } from '@weir/log';
import { isPassing, patiently } from '@weir/pipeline';
import type { Clock } from '@weir/service';
import type { LedgerEntry, LedgerStore, OwnerSeen } from './ledger-store.ts';
import { ownerPrefix, unknownBefore } from './owners.ts';

/** Where a partition's ledger stands while it is taken over. */
export interface TakeoverProgress {
  readonly partition: number;
  /** Records of the ledger topic to read, and read so far (offsets: compaction leaves fewer). */
  readonly total: number;
  readonly read: number;
}

export interface TakeoverPorts {
  readonly admin: Pick<LogAdmin, 'endOffsets' | 'beginningOffsets' | 'offsetsAt'>;
  readonly reader: Pick<Reader, 'read' | 'readOne'>;
  readonly ledger: LedgerStore;
  readonly clock: Pick<Clock, 'monotonic' | 'setTimer'>;
  readonly ledgerTopic: string;
  readonly dispatchTopic: string;
  /** Longest dedupe window of the sources, ms. */
  windowMs(): number;
  /** Told on every batch; the last has read = total. */
  progress(progress: TakeoverProgress): void;
  /** A ledger with no more records than that is read whole. */
  readonly smallRecords?: number;
}

/**
 * The ledger of one partition, as far as it is needed: to the end offset taken after the assignment, from where the
 * cache stands; without a cache, or with one that is far behind, from one dedupe window before the oldest record
 * that is not committed (and before the last sign of life, for parked subjects, whose markers are renewed twice in a
 * window). What is older is read when a record asks for it: see `reach`.
 */
export interface Takeover {
  /** Must be called after the assignment. `atLeast`: behind a record that was acknowledged, up to which it is read whatever end is told. Rejects with log-assignment-stale as soon as `gone` says that it has ended. */
  load(partition: number, position: number, gone?: () => boolean, atLeast?: number): Promise<void>;
  /** What lies between the checkpoint and the end, of an owner that has taken over. Waits for brokers that are away; resolves, too, when the assignment has ended. */
  catchUp(partition: number, gone: () => boolean): Promise<void>;
  /** The ends of everything that was accepted since `time` (ms) are in the cache when it resolves. Undefined: they are already. Rejects with log-assignment-stale as soon as `gone` says that the assignment has ended. */
  reach(partition: number, time: number, gone?: () => boolean): Promise<void> | undefined;
  /** Older ends are being read now: nothing may be forgotten meanwhile. */
  reaching(): boolean;
  /** What was asked for within the last hour or two, ms since the epoch, Infinity = nothing: a replay goes on asking, and each read of a range holds up its partition. */
  kept(): number;
}

const defaultSmall = 10_000;
const keepMs = 3_600_000;
/** An end is on the topic so long after the time that it states, at most: its dead letter and it are appended for up to ten minutes. */
const writtenLateMs = 1_200_000;

export function createTakeover(ports: TakeoverPorts): Takeover {
  const { admin, reader, ledger, ledgerTopic, dispatchTopic } = ports;
  const small = ports.smallRecords ?? defaultSmall;

  const toEntry = (r: LogRecord): LedgerEntry => ({ key: r.key?.toString('utf8') ?? '', value: r.value, offset: r.offset, timestamp: r.timestamp });

  /** The oldest time that matters; 0 = everything. */
  async function since(partition: number, position: number, end: number): Promise<number> {
    const [waiting, last] = await Promise.all([reader.readOne(dispatchTopic, partition, position), reader.readOne(ledgerTopic, partition, end - 1)]);
    // Without the newest record it is not known when the last owner was alive.
    if (last === undefined) return 0;
    return Math.max(0, Math.min(last.timestamp, waiting?.timestamp ?? last.timestamp) - ports.windowMs());
  }

  async function readRange(partition: number, from: number, to: number, gone: () => boolean, apply: (entries: readonly LedgerEntry[], next: number) => void): Promise<void> {
    ports.progress({ partition, total: to - from, read: 0 });
    try {
      await readUpTo(reader, ledgerTopic, partition, from, to, (batch) => {
        stopIf(gone, partition);
        apply(batch.records.map(toEntry), batch.nextOffset);
        ports.progress({ partition, total: to - from, read: batch.nextOffset - from });
      }, { gone });
      stopIf(gone, partition);
    } finally {
      ports.progress({ partition, total: to - from, read: to - from });
    }
  }

  /** Of one partition, one after another: an assignment that was lost may still be reading when the next one begins. */
  const reading = new Map<number, Promise<void>>();
  function inTurn(partition: number, work: () => Promise<void>): Promise<void> {
    const mine = (reading.get(partition) ?? Promise.resolve()).then(work);
    reading.set(partition, mine.catch(() => undefined));
    return mine;
  }

  function stopIf(gone: () => boolean, partition: number): void {
    if (gone()) throw new WeirError('log-assignment-stale', `${ledgerTopic}/${partition} is another one's`);
  }

  async function catchUp(partition: number, gone: () => boolean): Promise<void> {
    const end = (await admin.endOffsets(ledgerTopic)).get(partition) ?? 0;
    if (gone()) return;
    const from = ledger.position(partition);
    if (from < end) await reader.read(ledgerTopic, partition, from, end, (batch) => {
      // What this owner applies meanwhile may be further on already.
      if (!gone()) ledger.apply(partition, batch.records.map(toEntry), Math.max(batch.nextOffset, ledger.position(partition)));
    });
  }

  /** Whether the checkpoint is of another topic of the same name: it lies beyond the end, or another record stands where the last one was read. */
  async function isOther(partition: number, end: number): Promise<boolean> {
    if (ledger.position(partition) > end) return true;
    const last = ledger.lastRead(partition);
    if (last === undefined) return false;
    const there = await reader.readOne(ledgerTopic, partition, last.offset);
    if (there !== undefined) return there.timestamp !== last.timestamp;
    // It was compacted away, fell out of the topic by its age, or there is another hole there. A mark is never compacted away.
    const { offset = -1, timestamp } = ledger.owner(partition) ?? {};
    if (offset < 0) return false;
    const mark = await reader.readOne(ledgerTopic, partition, offset);
    if (mark !== undefined) return mark.timestamp !== timestamp;
    return ((await admin.beginningOffsets(ledgerTopic)).get(partition) ?? 0) <= offset;
  }

  /**
   * Who owned the partition at `start`, where it is read without what lies before: by the marks of the part before it, as long as an end
   * may be written late. An end that an owner writes when it has lost the partition stands behind the mark of the next one by no
   * more than that, and must not count, though this mark lies before the ends that are asked for.
   */
  async function ownerBefore(partition: number, time: number, start: number, gone: () => boolean, passOver: (offset: number) => void, see: (marks: readonly LedgerEntry[]) => void): Promise<void> {
    const from = Math.min(start, (await admin.offsetsAt(ledgerTopic, time - writtenLateMs)).get(partition) ?? start);
    stopIf(gone, partition);
    passOver(from);
    if (from < start) await readRange(partition, from, start, gone, (entries) => see(entries.filter(({ key }) => key.startsWith(ownerPrefix))));
  }

  async function load(partition: number, position: number, gone: () => boolean, atLeast: number): Promise<void> {
    stopIf(gone, partition);
    const end = Math.max(atLeast, (await admin.endOffsets(ledgerTopic)).get(partition) ?? 0);
    stopIf(gone, partition);
    const cached = ledger.position(partition);
    const other = await isOther(partition, end);
    const known = other ? 0 : cached;
    if (other) {
      ledger.passOver(partition, 0);
      ledger.apply(partition, [], 0);
    }
    if (known >= end) return;
    let from = known;
    if (end - known > small) {
      const begin = (await admin.beginningOffsets(ledgerTopic)).get(partition) ?? 0;
      const time = end - begin <= small ? 0 : await since(partition, position, end);
      const start = time === 0 ? begin : Math.max(begin, (await admin.offsetsAt(ledgerTopic, time)).get(partition) ?? end);
      stopIf(gone, partition);
      if (start > known) {
        from = start;
        ledger.setFloor(partition, start > begin ? time : 0);
        await ownerBefore(partition, time, start, gone, (offset) => ledger.passOver(partition, offset), (marks) => ledger.apply(partition, marks, known));
      }
    } else if (known === 0) ledger.setFloor(partition, 0);
    await readRange(partition, from, end, gone, (entries, next) => ledger.apply(partition, entries, next));
  }

  const reaching = new Map<number, Promise<void>>();
  /** Least time asked for since `begun`, and in the hour before. */
  let least = Number.POSITIVE_INFINITY;
  let leastBefore = Number.POSITIVE_INFINITY;
  let begun = ports.clock.monotonic();

  function turnHour(): void {
    const now = ports.clock.monotonic();
    if (now - begun < keepMs) return;
    leastBefore = now - begun < 2 * keepMs ? least : Number.POSITIVE_INFINITY;
    least = Number.POSITIVE_INFINITY;
    begun = now;
  }

  async function extend(partition: number, time: number, gone: () => boolean): Promise<void> {
    // What became of it is told to who asked for it.
    await reaching.get(partition)?.catch(() => undefined);
    stopIf(gone, partition);
    const floor = ledger.floor(partition);
    if (time >= floor) return;
    // What was forgotten up to the floor by the times that ends state may stand a little behind it on the topic.
    const [from, to] = await Promise.all([admin.offsetsAt(ledgerTopic, time), admin.offsetsAt(ledgerTopic, floor + writtenLateMs)]);
    // Where nothing so young is told, what the cache was read to is: a leader that was cut off may not show it yet.
    const end = (await admin.endOffsets(ledgerTopic)).get(partition) ?? 0;
    const seen: OwnerSeen = {};
    const start = from.get(partition) ?? end;
    await ownerBefore(partition, time, start, gone, (offset) => { seen.owner = unknownBefore(offset); }, (marks) => ledger.applyOlder(marks, seen));
    await readRange(partition, start, to.get(partition) ?? Math.max(end, ledger.position(partition)), gone, (entries) => ledger.applyOlder(entries, seen));
    ledger.setFloor(partition, time);
  }

  return {
    load: (partition, position, gone = () => false, atLeast = 0) => inTurn(partition, () => load(partition, position, gone, atLeast)),
    catchUp: (partition, gone) => patiently(ports.clock, gone, () => inTurn(partition, () => catchUp(partition, gone))).catch((error: unknown) => {
      if (!gone() || !isPassing(error)) throw error;
    }),
    reaching: () => reaching.size > 0,
    kept() {
      turnHour();
      return Math.min(least, leastBefore);
    },
    reach(partition, time, gone = () => false) {
      const from = Math.max(0, time);
      turnHour();
      least = Math.min(least, from);
      if (from >= ledger.floor(partition)) return undefined;
      const running = extend(partition, from, gone).finally(() => {
        if (reaching.get(partition) === running) reaching.delete(partition);
      });
      reaching.set(partition, running);
      return running;
    },
  };
}
