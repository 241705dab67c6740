import { readUpTo, type Appender, type Follower, type LogAdmin, type Reader, type RecordBatch, type Serde } from '@weir/log';
import { isAway } from '@weir/pipeline';
import type { KeyRing } from '@weir/seal';
import { consentReport, holdsLease, type ConsentReport } from './lease.ts';
import type { ConsentTables } from './tables.ts';

export interface ConsentBarrierPorts {
  readonly reader: Reader;
  readonly admin: Pick<LogAdmin, 'endOffsets'>;
  readonly appender: Appender;
  readonly serde: Serde;
  /** weir.consent.applied and weir.identity. */
  readonly topics: { readonly consentApplied: string; readonly identity: string };
  readonly tables: Pick<ConsentTables, 'folded' | 'linked' | 'linksEnd' | 'hurryLinks' | 'onAdvance' | 'caughtUp' | 'consentPositions' | 'identityPositions' | 'identityPosition'>;
  /** What a fence says of marks of erasure; undefined = nothing, and nobody may ask for them. */
  readonly keys?: Pick<KeyRing, 'positions'> | undefined;
  readonly clock: { now(): number; monotonic(): number; random(): number; setTimer(run: () => void, ms: number): unknown; clearTimer(timer: unknown): void };
  readonly fail: (error: unknown) => void;
}

/** Changes to be applied: partition of weir.consent.changes → offset of the last one on it. */
export type Marks = ReadonlyMap<number, number>;

/** Knows when every instance that may call destinations has applied a change (docs/decisions/0012-consent-barrier.md). */
export interface ConsentBarrier {
  start(): Promise<void>;
  /**
   * True once it holds: no `use` call that these changes forbid is open, and none will start, for the identifiers of
   * `ids` and all that are linked with them; without any, for whomever the changes are about, which takes longer. `keys`: next
   * offsets of weir.keys, which each of them must have read, too, and who announces itself from now on has. False when it did not come to hold within `deadlineMs`, or the barrier stopped.
   */
  applied(marks: Marks, ids: readonly string[], deadlineMs: number, keys?: readonly number[]): Promise<boolean>;
  /**
   * Who may still start calls that a kill switch forbids, by the names of the instances; none = nobody, from now on. It stands
   * at this offset of weir.control, and was acknowledged before this is asked. Resolves as soon as nobody is left: each has
   * said that it has read it, or has said nothing and is past the time for which it calls without having read weir.control,
   * which is its lease; at the deadline with those who are. Undefined: it cannot be known by then, for the brokers are away.
   */
  switchedOff(offset: number, deadlineMs: number): Promise<readonly string[] | undefined>;
  /** Instances that may hold a lease, for status and metrics. */
  instances(): number;
  /** Those of them that have read the tables of consent and said so: the others start no `use` call. */
  applying(): number;
  /** Everybody who waits is told that it did not come to hold. */
  giveUp(): void;
  stop(): Promise<void>;
}

interface Instance {
  readonly report: ConsentReport;
  /** When this process read it, by its own monotonic clock: not before it was sent. */
  readonly seenAt: number;
}

/** Clocks of two machines count at rates that differ by far less than this. */
const clockDrift = 0.01;
const clockMarginMs = 20;
const sweepMs = 100;
const maxRounds = 20;
const fenceAgainMs = 100;

const sameSet = (a: readonly string[] | undefined, b: readonly string[] | undefined): boolean => a?.length === b?.length && (a === undefined || a.every((id) => b!.includes(id)));

/**
 * Follows the reports. Who may hold a lease is known from the log alone: every instance announces itself there before
 * its first call, and reads the tables to ends taken after that. So one that is not there when the change is in the
 * tables needs no waiting for, and one that is there counts until it reports the change, withdraws its announcement, or
 * has said nothing for longer than its lease: counted from when this process read its last report, and only after the
 * topic was then read to its end. The end is a record of its own that it appends there: what a broker tells as the end may be old
 * (docs/decisions/0030), and the record says to whoever announces itself behind it what its tables must have.
 */
export function createConsentBarrier(ports: ConsentBarrierPorts): ConsentBarrier {
  const { reader, admin, appender, serde, topics, tables, clock } = ports;
  const instances = new Map<string, Instance>();
  const waiting = new Set<() => void>();
  let follower: Follower | undefined;
  const fenceKey = Buffer.from(`fence/${Math.floor(clock.random() * 2 ** 48).toString(36)}`);
  let read = 0;
  let fencing: { promise: Promise<readonly number[]>; next: Promise<readonly number[]> | undefined } | undefined;
  let sweeping = false;
  let timer: unknown;
  let stopped = false;

  const wake = (): void => { for (const check of waiting) check(); };

  async function take(batch: RecordBatch): Promise<void> {
    for (const { key, value } of batch.records) {
      const name = key?.toString('latin1') ?? '';
      if (value === null) instances.delete(name);
      else {
        if (!serde.known(value)) await serde.prepare(value);
        const report = serde.decode(value).value as ConsentReport;
        if (holdsLease(report)) instances.set(name, { report, seenAt: clock.monotonic() });
      }
    }
    read = Math.max(read, batch.nextOffset);
    wake();
  }

  /** A condition, looked at whenever a table or a report comes in; false at the deadline. */
  function until(holds: () => boolean, deadline: number): Promise<boolean> {
    if (holds()) return Promise.resolve(true);
    // Nobody wakes who begins to wait behind `giveUp`.
    if (stopped) return Promise.resolve(false);
    return new Promise((resolve) => {
      const end = (value: boolean): void => {
        waiting.delete(check);
        clock.clearTimer(alarm);
        resolve(value);
      };
      const check = (): void => { if (stopped || holds()) end(!stopped); };
      const alarm = clock.setTimer(() => end(false), Math.max(1, deadline - clock.monotonic()));
      waiting.add(check);
    });
  }

  async function ask(): Promise<readonly number[]> {
    const folded = tables.consentPositions().map((_, partition) => tables.folded(partition));
    const identity = tables.identityPositions();
    for (const [partition, end] of await admin.endOffsets(topics.identity)) identity[partition] = Math.max(end, identity[partition] ?? 0);
    const value = serde.encode(consentReport, { instance: '', incarnation: '', leaseMs: 0, folded, identity, at: clock.now(), control: -1, keys: ports.keys?.positions() ?? [] });
    const [offset] = await appender.append(topics.consentApplied, [{ partition: 0, key: fenceKey, value }]);
    return [offset! + 1, ...identity];
  }

  /** Ends of the reports and of the links as they are after this call, of which the tables have as much as they had at it: all who wait share one request, or the one after it. */
  function fence(): Promise<readonly number[]> {
    if (fencing !== undefined) {
      const { promise } = fencing;
      return fencing.next ??= promise.catch(() => undefined).then(() => { fencing = undefined; return fence(); });
    }
    const promise = ask().finally(() => { if (fencing?.next === undefined) fencing = undefined; });
    fencing = { promise, next: undefined };
    return promise;
  }

  /** What a fence says, or undefined when it does not come by the deadline. Brokers that are away are asked again. */
  async function fenceBy(deadline: number): Promise<readonly number[] | undefined> {
    let ends: readonly number[] | undefined;
    let failed = false;
    fence().then((found) => { ends = found; }, (error: unknown) => {
      failed = true;
      if (!stopped && !isAway(error)) ports.fail(error);
    }).finally(wake);
    await until(() => ends !== undefined || failed, deadline);
    if (!failed || stopped || clock.monotonic() >= deadline) return ends;
    await until(() => false, Math.min(deadline, clock.monotonic() + fenceAgainMs));
    return stopped ? undefined : fenceBy(deadline);
  }

  const foldedAll = (marks: Marks, folded: (partition: number) => number): boolean => {
    for (const [partition, offset] of marks) if (folded(partition) <= offset) return false;
    return true;
  };

  function reportedByAll(marks: Marks, links: readonly number[], keys: readonly number[]): boolean {
    for (const { report } of instances.values()) {
      if (!foldedAll(marks, (p) => report.folded[p] ?? 0)) return false;
      for (let p = 0; p < links.length; p++) if ((links[p] ?? 0) > (report.identity[p] ?? 0)) return false;
      for (let p = 0; p < keys.length; p++) if ((keys[p] ?? 0) > (report.keys?.[p] ?? 0)) return false;
    }
    return true;
  }

  const readLinks = (ends: readonly number[]): boolean => ends.every((end, p) => tables.identityPosition(p) >= end);

  /** The links up to these ends; asked for at once, also when an answer has brought only some of them. */
  function untilLinks(ends: readonly number[], reports: number, deadline: number): Promise<boolean> {
    return until(() => {
      const there = readLinks(ends);
      if (!there) tables.hurryLinks();
      return there && read >= reports;
    }, deadline);
  }

  /**
   * As far as others must have read the links: behind every one that this process knows of who is asked about. Most were linked
   * long ago, and nobody has to be waited for. Where it is not known, all that this process has.
   */
  function neededLinks(ends: readonly number[], linked: readonly string[] | undefined): readonly number[] {
    const needed = linked === undefined ? undefined : tables.linksEnd(linked);
    if (needed !== undefined) return needed;
    const own = tables.identityPositions();
    return ends.map((end, p) => Math.max(end, own[p] ?? 0));
  }

  const past = ({ report, seenAt }: Instance): boolean => clock.monotonic() > seenAt + report.leaseMs * (1 + clockDrift) + clockMarginMs;

  /** Those that are past their lease are forgotten, once the topic was read to an end taken after it: had one reported in time, it would be there. */
  async function sweep(): Promise<void> {
    const silent = [...instances].filter(([, instance]) => past(instance));
    if (silent.length === 0) return;
    const [end] = (await fenceBy(clock.monotonic() + 10_000)) ?? [];
    if (end === undefined || !await until(() => read >= end, clock.monotonic() + 10_000)) return;
    const gone = silent.filter(([name, instance]) => instances.get(name) === instance).map(([name]) => name);
    for (const name of gone) instances.delete(name);
    if (gone.length === 0) return;
    wake();
    // Only tidiness: a late report of one that is gone makes others wait for one lease more.
    await appender.append(topics.consentApplied, gone.map((name) => ({ partition: 0, key: Buffer.from(name, 'latin1'), value: null })));
  }

  function tick(): void {
    timer = clock.setTimer(() => {
      if (!sweeping) {
        sweeping = true;
        sweep().catch((error: unknown) => {
          // Brokers that are away are asked again at the next round, and who starts next tidies up what was not written here.
          if (!stopped && !isAway(error)) ports.fail(error);
        }).finally(() => { sweeping = false; });
      }
      if (!stopped) tick();
    }, sweepMs);
  }

  return {
    async start() {
      const end = (await admin.endOffsets(topics.consentApplied)).get(0) ?? 0;
      await readUpTo(reader, topics.consentApplied, 0, 0, end, take);
      follower = await reader.follow(topics.consentApplied, new Map([[0, end]]), take, ports.fail);
      tables.onAdvance(wake);
      tick();
    },
    async applied(marks, ids, deadlineMs, keys = []) {
      const deadline = clock.monotonic() + deadlineMs;
      // The states are on weir.consent: who announces itself from now on reads them.
      if (!await until(() => tables.caughtUp() && foldedAll(marks, tables.folded), deadline)) return false;
      for (let round = 0; round < maxRounds && !stopped; round++) {
        const ends = await fenceBy(deadline);
        if (ends === undefined) return false;
        const [reports, ...links] = ends;
        // Of nobody in particular: everybody's links, and nobody is in a hurry.
        if (ids.length === 0) return until(() => read >= reports! && reportedByAll(marks, links, keys), deadline);
        if (!await untilLinks(links, reports!, deadline)) return false;
        const linked = tables.linked(ids);
        const needed = neededLinks(links, linked);
        if (!await until(() => reportedByAll(marks, needed, keys), deadline)) return false;
        // A link that came in between may reach an identifier that nobody was asked about.
        if (sameSet(tables.linked(ids), linked)) return true;
      }
      return false;
    },
    async switchedOff(offset, deadlineMs) {
      const from = clock.monotonic();
      const deadline = from + deadlineMs;
      const [end] = (await fenceBy(deadline)) ?? [];
      if (end === undefined || !await until(() => read >= end, deadline)) return undefined;
      /** Also who is gone since: it may have been forgotten for its silence, and have read weir.control a moment before the switch. */
      const asked = new Map<string, ConsentReport>();
      const lapsesAt = ({ leaseMs }: ConsentReport): number => from + leaseMs * (1 + clockDrift) + clockMarginMs;
      const left = (): ConsentReport[] => {
        for (const [name, { report }] of instances) asked.set(name, report);
        return [...asked].filter(([name, report]) => report.control <= offset && (instances.has(name) || clock.monotonic() < lapsesAt(report))).map(([, report]) => report);
      };
      for (;;) {
        const who = left();
        const now = clock.monotonic();
        if (who.length === 0 || now >= deadline || stopped) return [...new Set(who.map(({ instance }) => instance))];
        await until(() => left().length === 0, Math.min(deadline, ...who.map(lapsesAt).filter((at) => at > now)));
      }
    },
    instances: () => instances.size,
    applying: () => [...instances.values()].filter(({ report }) => report.folded.length > 0).length,
    giveUp() {
      stopped = true;
      wake();
    },
    async stop() {
      stopped = true;
      wake();
      if (timer !== undefined) clock.clearTimer(timer);
      await follower?.close();
    },
  };
}
