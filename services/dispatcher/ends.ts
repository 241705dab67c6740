import { failpoint } from '@weir/failpoint';
import { Packer, RecordBody, type OutRecord } from '@weir/log';
import { createHash } from 'node:crypto';
import type { Reason } from '@weir/pipeline';
import { catalogue, type ErrorCode } from '@weir/errors';
import type { EndPace } from './end-pace.ts';
import { secondBody, secondRecord, withoutTopic, type HandOver } from './fail-over.ts';
import { ledgerKeys } from './ledger.ts';
import type { LedgerEntry } from './ledger-store.ts';
import type { DestinationPorts } from './ports.ts';
import { unsureSince } from './task.ts';
import type { DeliveryValue, EndState, EndValue, Task } from './types.ts';
import type { LogRecord } from '@weir/log';

/** How one delivery ended; `silent` = it had ended before, only its offset is to be finished. */
export interface Ending {
  readonly task: Task;
  readonly state: EndState;
  readonly effect: 'none' | 'maybe' | 'done';
  /** Error code or reason; null when delivered. */
  readonly code: string | null;
  readonly detail: string | null;
  readonly deadLetter: boolean;
  /** Of failed-over: where it goes. */
  readonly handOver?: HandOver;
  /** Set when the ledger has the end already but its outcome may be missing (a crash between the two). */
  readonly repeated?: EndValue;
  /** Key of the end when it is not the task's own (a conflict must not take the key of the first body). */
  readonly key?: string;
}

/** Its end is in the ledger; the outcome is written again. */
export function repeat(task: Task, end: EndValue, handOver?: HandOver): Ending {
  return { task, state: end.state, effect: end.effect, code: end.code, detail: end.reason, deadLetter: false, repeated: end, ...(handOver === undefined ? {} : { handOver }) };
}

function reasonOf({ detail, task: { ahead } }: Ending): string | null {
  if (detail === null || detail === '') return ahead || null;
  return ahead ? `${detail}; ${ahead}` : detail;
}

/** Only a profile sets all that an earlier one set: of other records several of one request stand side by side. */
function firstOffsetOf({ delivery, redrive, offset, firstOffset }: Task): number {
  if (delivery.recordType !== 'weir.canonical.Profile') return -1;
  return redrive === '' ? offset : firstOffset;
}

/** @param owner who writes it, by the order of the ledger (owners.ts) */
export function endValue(ending: Ending, at: number, owner: string): EndValue {
  const { task, handOver } = ending;
  return {
    key: ending.key ?? task.key, outputId: task.delivery.outputId, eventId: task.delivery.eventId, operation: task.delivery.operation,
    state: ending.state, effect: ending.effect, code: ending.code, reason: reasonOf(ending), status: task.last?.status ?? null,
    attempts: task.attempts, generation: task.generation, itemHash: task.delivery.itemHash, subject: task.subject,
    offset: task.offset, at, acceptedAt: task.delivery.acceptedAt, maybeSince: ending.effect === 'maybe' ? unsureSince(task) : 0,
    purpose: task.delivery.purpose, channel: task.delivery.channel,
    owner, toDestination: handOver?.destination ?? null, toOperation: handOver?.operation ?? null, toKey: handOver?.key ?? null, firstOffset: firstOffsetOf(task),
    object: ending.state === 'delivered' ? task.object : '',
  };
}

/** Offsets that are remembered behind a record that is not known. */
const maxAhead = 2000;

/** So many ends are worth an append of their own. */
const fullEnds = 500;

const outcomeState: Record<EndState, string> = { delivered: 'delivered', denied: 'denied', 'dead-lettered': 'dead-lettered', quarantined: 'quarantined', expired: 'quarantined', superseded: 'superseded', 'failed-over': 'failed-over' };

export function outcomeValue(delivery: DeliveryValue, end: EndValue, attempt: Task['last'] | undefined): Record<string, unknown> {
  return {
    eventId: delivery.eventId, outputId: delivery.outputId, destination: delivery.destination, operation: delivery.operation, key: end.key,
    state: outcomeState[end.state], reason: end.code, detail: end.reason, stage: 'dispatcher', release: delivery.release, rule: delivery.rule,
    purpose: delivery.purpose, consent: delivery.consent, attempts: end.attempts, status: end.status, attempt: attempt ?? null, acceptedAt: delivery.acceptedAt, at: end.at, to: end.toDestination,
  };
}

/** DeadLetter of a record of the dispatch topic, with its bytes; the same record and stage give the same id. */
export function deadLetterValue(ports: DestinationPorts, partition: number, offset: number, record: LogRecord, reasons: readonly Reason[], about: { eventId: string; source: string | null; operation: string | null; attempts: number; release: string | null; effect: string; acceptedAt: number }): Record<string, unknown> {
  const topic = ports.topics.dispatch(ports.name);
  return {
    id: 'dlq_' + createHash('sha256').update(`dispatcher\0${topic}\0${partition}\0${offset}`).digest('hex').slice(0, 32),
    eventId: about.eventId, stage: 'dispatcher', reasons: reasons.map((r) => ({ code: r.code, message: r.message, file: r.file ?? null, line: r.line ?? null, field: r.field ?? null, path: r.path ?? null })),
    source: about.source, destination: ports.name, operation: about.operation, attempts: about.attempts, release: about.release,
    topic, partition, offset, key: record.key, value: record.value, headers: record.headers.map(([name, value]) => ({ name, value })),
    effect: about.effect, acceptedAt: about.acceptedAt, at: ports.clock.now(),
  };
}

/** Why it is a dead letter; at a second vendor also why the first did not take it. */
function reasonsOf(ending: Ending): Reason[] {
  const reasons = [{ code: ending.code ?? 'invariant-broken', message: ending.detail ?? '' } as Reason];
  const before = ending.task.delivery.failedOver;
  if (before !== undefined && before !== null) {
    const code = Object.hasOwn(catalogue, before.reason) ? before.reason as ErrorCode : reasons[0]!.code;
    reasons.push({ code, message: `before, at ${before.destination} (${before.key}, ${before.attempts} calls${before.status === null ? '' : `, HTTP ${before.status}`}): ${before.detail ?? before.reason}` });
  }
  return reasons;
}

/** The dead letter and the outcome of a delivery that went to a second vendor whose topic is gone, as the second would have had it. */
function retiredLetter(ports: DestinationPorts, partition: number, { task, handOver }: Ending, first: EndValue): { readonly letter: OutRecord; readonly outcome: OutRecord } {
  const { delivery, record } = task;
  const { destination, operation, key: deliveryKey } = handOver!;
  const message = `${destination} has no topic any more; before, ${ports.name} gave it over (${first.key}): ${first.reason ?? first.code ?? ''}`;
  const { value, headers } = secondBody(ports, record, delivery, first, handOver!);
  const letter = {
    ...deadLetterValue(ports, partition, task.offset, record, [{ code: 'destination-retired', message }], { eventId: delivery.eventId, source: delivery.source, operation, attempts: 0, release: delivery.release, effect: 'none', acceptedAt: delivery.acceptedAt }),
    destination, topic: ports.topics.dispatch(destination), value, headers: headers.map(([name, bytes]) => ({ name, value: bytes })),
  };
  const outcome = { ...outcomeValue(delivery, { ...first, key: deliveryKey, state: 'dead-lettered', code: 'destination-retired', reason: message, attempts: 0, status: null, at: ports.clock.now(), toDestination: null }, undefined), destination, operation };
  const key = Buffer.from(delivery.eventId);
  const to = (topic: string, name: string, body: object): OutRecord => ({ partition: ports.appender.partitionFor(topic, key), key, value: ports.serde.encode(name, body), headers: record.headers });
  return { letter: to(ports.topics.dlq, 'weir.internal.DeadLetter', letter), outcome: to(ports.topics.outcome, 'weir.internal.Outcome', outcome) };
}

/** How a delivery ended, as the ledger has it. */
interface Ended {
  readonly ending: Ending;
  readonly end: EndValue;
}

/** What the ends of a partition need of its owner. */
export interface Owner {
  /** By the order of the ledger. */
  readonly name: string;
  /** False: the assignment has ended. Waits while that is not known. */
  owned(): Promise<boolean>;
  /** The assignment has ended, or is about to. */
  gone(): boolean;
}

/**
 * Writes the ends of one partition in batches: dead letters first, then the ledger and the outcomes; only when
 * all are acknowledged is an offset finished. Order of ends is the order of calls to `push`. What goes to a second
 * vendor is appended there when its end is acknowledged and this is surely the owner still. Partitions of one destination have one `pace`.
 */
export function createEndWriter(ports: DestinationPorts, partition: number, owner: Owner, pace: EndPace, finished: (tasks: readonly Task[]) => void) {
  const ledgerTopic = ports.topics.ledger(ports.name);
  let queue: Ended[] = [];
  let silent: Task[] = [];
  let waiting: ((mine: boolean) => void)[] = [];
  /** Some ends may not count: another owner has the partition. */
  let lost = false;
  let running: Promise<void> | undefined;
  /** Ends pushed and ends acknowledged, and the place of the last one that a successor, not knowing it, would not repeat without effect. */
  let pushed = 0;
  let acknowledged = 0;
  let fence = 0;
  /** Ends not yet in the ledger cache, by key. */
  const recent = new Map<string, EndValue>();
  /** Outcomes of one batch: the next one is put together when this one is acknowledged. */
  const packer = new Packer();

  /** With the headers of the delivery as they stand. */
  function outcomeRecord({ delivery, record, last }: Task, end: EndValue, key: Buffer): OutRecord {
    const to = ports.appender.partitionFor(ports.topics.outcome, key);
    const value = ports.serde.encode('weir.internal.Outcome', outcomeValue(delivery, end, last));
    // Of a delivery nearly always: their number is one byte.
    const count = record instanceof RecordBody ? record.bytes[record.headersFrom]! : 255;
    if (!(record instanceof RecordBody) || count >= 127 || count % 2 === 1) return { partition: to, key, value, headers: record.headers };
    packer.begin();
    packer.key(key, 0, key.length);
    packer.value(value, 0, value.length);
    packer.headers(record.bytes, record.headersFrom + 1, record.to, count >> 1);
    return packer.end(to);
  }

  /** False: the owner is another one by now, who knows what of it counts. */
  async function write(batch: readonly Ended[]): Promise<boolean> {
    packer.reset();
    const ledger: OutRecord[] = [];
    const keys: string[] = [];
    const ends: EndValue[] = [];
    const outcomes: OutRecord[] = [];
    const letters: OutRecord[] = [];
    const leaving: { readonly ending: Ending; readonly end: EndValue; readonly outcome: OutRecord }[] = [];
    for (const { ending, end } of batch) {
      const { task } = ending;
      if (ending.repeated === undefined) {
        keys.push(ledgerKeys.end(end.key));
        ends.push(end);
        ledger.push({ partition, key: Buffer.from(keys[keys.length - 1]!), value: ports.serde.encode('weir.internal.LedgerEnd', end) });
      }
      const eventKey = Buffer.from(task.delivery.eventId);
      const outcome = outcomeRecord(task, end, eventKey);
      if (ending.handOver === undefined) outcomes.push(outcome);
      else leaving.push({ ending, end, outcome });
      if (!ending.deadLetter) continue;
      const letter = deadLetterValue(ports, partition, task.offset, task.record, reasonsOf(ending), { eventId: task.delivery.eventId, source: task.delivery.source, operation: task.delivery.operation, attempts: task.attempts, release: task.delivery.release, effect: ending.effect, acceptedAt: task.delivery.acceptedAt });
      letters.push({ partition: ports.appender.partitionFor(ports.topics.dlq, eventKey), key: eventKey, value: ports.serde.encode('weir.internal.DeadLetter', letter), headers: task.record.headers });
    }
    if (letters.length > 0) {
      await ports.appender.append(ports.topics.dlq, letters);
      failpoint('dispatcher.dlq-written');
    }
    const [offsets] = await Promise.all([ports.appender.append(ledgerTopic, ledger), ports.appender.append(ports.topics.outcome, outcomes)]);
    failpoint('dispatcher.ledger-written');
    // One without effect (counts in owners.ts) that was acknowledged after the assignment had ended may stand behind a later owner's mark: it is read again in order.
    if (batch.some(({ ending }) => ending.effect === 'none') && !await owner.owned()) return false;
    applyOwn(ledger, keys, offsets, ends);
    for (const { ending } of batch) recent.delete(ending.key ?? ending.task.key);
    return leaving.length === 0 || giveOver(leaving);
  }

  /** To the topics of the second vendors, then the outcomes. One whose topic is gone is a dead letter of the second: it can be put back when that is there again. False: the owner is another one by now, and does it. */
  async function giveOver(leaving: readonly { readonly ending: Ending; readonly end: EndValue; readonly outcome: OutRecord }[]): Promise<boolean> {
    const missing = await withoutTopic(ports, leaving.map(({ ending }) => ending.handOver!.destination), owner.gone);
    if (missing === undefined) return false;
    const [lost, there] = [true, false].map((gone) => leaving.filter(({ ending }) => missing.has(ending.handOver!.destination) === gone));
    const records = await Promise.all(there!.map(({ ending, end }) => secondRecord(ports, ending.task.record, ending.task.delivery, end, ending.handOver!)));
    await Promise.all([...Map.groupBy(records, ([topic]) => topic)].map(([topic, list]) => ports.appender.append(topic, list.map(([, record]) => record))));
    const retired = lost!.map(({ ending, end }) => retiredLetter(ports, partition, ending, end));
    if (retired.length > 0) await ports.appender.append(ports.topics.dlq, retired.map(({ letter }) => letter));
    await ports.appender.append(ports.topics.outcome, [...leaving.map(({ outcome }) => outcome), ...retired.map(({ outcome }) => outcome)]);
    return true;
  }

  /** Own records acknowledged behind the checkpoint, which moves over them when what lies between is known, too. */
  const ahead = new Set<number>();
  let catchingUp: Promise<void> | undefined;

  /** Put own, acknowledged records into the cache. The checkpoint moves up to the first record that is not known; one that stays (of an earlier owner, written late) is read. */
  function applyOwn(records: readonly OutRecord[], keys: readonly string[], offsets: readonly number[], ends: readonly EndValue[] = []): void {
    const entries: LedgerEntry[] = records.map((r, i) => ({ key: keys[i]!, value: r.value, offset: offsets[i]!, end: ends[i] }));
    let next = ports.ledger.position(partition);
    for (const offset of offsets) if (offset >= next) ahead.add(offset);
    while (ahead.delete(next)) next++;
    ports.ledger.apply(partition, entries, next);
    if (ahead.size <= maxAhead || catchingUp !== undefined || owner.gone()) return;
    catchingUp = ports.takeover.catchUp(partition, owner.gone).then(() => {
      if (owner.gone()) return;
      const known = ports.ledger.position(partition);
      for (const offset of ahead) if (offset < known) ahead.delete(offset);
      return writeAgain();
    }).catch(ports.fail).finally(() => { catchingUp = undefined; });
  }

  /**
   * Ends that a former owner, or a request that was given up, wrote late stand on the topic behind the one that is kept, and
   * compaction would leave them alone: the kept ones are written once more, by this owner.
   */
  async function writeAgain(): Promise<void> {
    const ends = ports.ledger.overwritten(partition).map((end) => ({ ...end, owner: owner.name }));
    if (ends.length === 0) return;
    ports.logger.warn({ topic: ledgerTopic, partition, ends: ends.length }, 'ends that a late writer overwrote are written again');
    const keys = ends.map(({ key }) => ledgerKeys.end(key));
    const records = ends.map((end, i): OutRecord => ({ partition, key: Buffer.from(keys[i]!), value: ports.serde.encode('weir.internal.LedgerEnd', end) }));
    applyOwn(records, keys, await ports.appender.append(ledgerTopic, records), ends);
  }

  let draining = false;

  /** Undefined: what is queued is written now, for nothing was a moment ago, it is much, or somebody waits for it. */
  function moreComes(): Promise<void> | undefined {
    if (queue.length === 0) return undefined;
    if (!draining && waiting.length === 0 && queue.length < fullEnds) return pace.turn();
    pace.go();
    return undefined;
  }

  async function run(): Promise<void> {
    while (queue.length > 0 || silent.length > 0 || waiting.length > 0) {
      await moreComes();
      const batch = queue;
      const told = waiting;
      const done = silent;
      queue = [];
      silent = [];
      waiting = [];
      const mine = batch.length === 0 || await write(batch);
      if (mine) acknowledged += batch.length;
      if (mine) finished([...batch.map(({ ending }) => ending.task), ...done]);
      else lost = true;
      for (const tell of told) tell(!lost);
    }
  }

  function kick(): void {
    if (waiting.length > 0 || queue.length >= fullEnds) pace.go();
    // What ends in this turn of the event loop is one batch.
    running ??= new Promise((turn) => { setImmediate(turn); }).then(run).catch(ports.fail).finally(() => {
      running = undefined;
      if (queue.length > 0 || silent.length > 0 || waiting.length > 0) kick();
    });
  }

  return {
    push(ending: Ending): void {
      const key = ending.key ?? ending.task.key;
      const end = ending.repeated ?? endValue(ending, ports.clock.now(), owner.name);
      if (ending.repeated === undefined && !recent.has(key)) recent.set(key, end);
      queue.push({ ending, end });
      pushed++;
      if (ending.repeated === undefined && ending.effect !== 'done') fence = pushed;
      kick();
    },
    /**
     * Of what was pushed until now, the place of the last end without effect. Until it is acknowledged nothing behind it in
     * its lane may be called: a successor that does not know the end decides and calls again, and then it may be applied,
     * after what was behind it. A delivery that took effect is repeated under its key, and takes none.
     */
    fence: (): number => fence,
    acknowledged: (place: number): boolean => acknowledged >= place,
    /** The place of the last end that was pushed. */
    place: (): number => pushed,
    writeAgain,
    /** The delivery ended before; finish its offset behind the ends already queued. */
    pushSilent(task: Task): void {
      silent.push(task);
      kick();
    },
    /** Resolves when what was pushed before is acknowledged; false: the partition has another owner by now, for whom some of it may not count. */
    written(): Promise<boolean> {
      return new Promise((resolve) => {
        waiting.push(resolve);
        kick();
      });
    },
    /** Ends of the subject that the ledger cache does not have yet. */
    recentOf: (subject: string): EndValue[] => [...recent.values()].filter((end) => end.subject === subject),
    endOf: (key: string): EndValue | undefined => recent.get(key) ?? ports.ledger.end(key),
    applyOwn,
    /** Resolves when nothing is queued or being written. */
    async drained(): Promise<void> {
      draining = true;
      pace.go();
      while (running !== undefined) await running;
      await catchingUp;
    },
  };
}
export type EndWriter = ReturnType<typeof createEndWriter>;
