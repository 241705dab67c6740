import { readUpTo, type Appender, type Reader, type Serde } from '@weir/log';
import type { KeyRing } from '@weir/seal';
import type { ConsentTables } from './tables.ts';

/** weir.internal.ConsentReport, decoded. */
export interface ConsentReport {
  readonly instance: string;
  readonly incarnation: string;
  readonly leaseMs: number;
  readonly folded: readonly number[];
  readonly identity: readonly number[];
  readonly at: number;
  /** Next offset of weir.control that is not read; -1 = it is not said. */
  readonly control: number;
  /** Next offsets of weir.keys that are not read; none = it is not said, as by instances of a version before. */
  readonly keys?: readonly number[];
}
export const consentReport = 'weir.internal.ConsentReport';
/** False: a fence of who waits for changes to be applied (barrier.ts). What it says was applied, whoever announces itself behind it must have. */
export const holdsLease = ({ leaseMs }: ConsentReport): boolean => leaseMs > 0;
export const reportKey = (instance: string, incarnation: string): string => `${instance}/${incarnation}`;

export interface ConsentLeasePorts {
  readonly appender: Appender;
  readonly reader: Pick<Reader, 'read'>;
  readonly serde: Serde;
  /** weir.consent.applied. */
  readonly topic: string;
  readonly tables: Pick<ConsentTables, 'folded' | 'consentPositions' | 'identityPositions' | 'hurryLinks' | 'readToEnd' | 'onAdvance'>;
  readonly instance: string;
  /** Next offset of weir.control that is not read: no call starts against a kill switch before it. */
  readonly control?: () => number;
  /** Marks of erasure and keys, which say as consent does what may be sent; undefined = nothing is sealed. */
  readonly keys?: Pick<KeyRing, 'positions' | 'readToEnd' | 'waitFor'> | undefined;
  /** How long a report lets the instance call. Longer than a call may take, or nothing is ever called. */
  readonly leaseMs: number;
  readonly clock: { now(): number; monotonic(): number; random(): number; setTimer(run: () => void, ms: number): unknown; clearTimer(timer: unknown): void };
  readonly fail: (error: unknown) => void;
}

/** The right of one instance to start `use` calls, told to everybody who waits for a withdrawal to be applied. */
export interface ConsentLease {
  /**
   * Announce the instance, then read the tables and marks of erasure to ends taken after the announcement, and as far as anybody said before it that a
   * change was applied: an end may be told, and records shown, by a broker that was cut off. Until then nothing is covered.
   */
  start(): Promise<void>;
  /** A call that is written now and ends within `deadlineMs` ends within the lease. */
  covers(deadlineMs: number): boolean;
  /**
   * A `use` call was written. `refused` says whether consent as it is now known would refuse it: such a call holds back
   * the report of the changes that refuse it, until the function that this gives back was called.
   */
  began(refused: () => boolean): () => void;
  /** A kill switch was read: a report says so at once. */
  switched(): void;
  /**
   * None will start any more. Where none is open, nobody has to wait for this instance; where one is (its partition was lost
   * while it was under way), everybody waits until the lease is over, as for an instance that died.
   */
  close(): Promise<void>;
}

interface Snapshot {
  readonly index: number;
  readonly folded: readonly number[];
  readonly identity: readonly number[];
  readonly keys: readonly number[];
}
interface OpenCall {
  readonly refused: () => boolean;
  /** First snapshot that refuses it. */
  since: number;
}

/** Between two reports, so that a flood of changes is told in few of them. */
const shortestGapMs = 8;
/** After a change of consent, links are reported for this long as they come: of who was linked just before, a waiter needs both. */
const awakeMs = 2000;
/** Between two reports that tell only links, behind the first after a change of consent, which brings those of its person: of others no new ones are waited for. */
const linksGapMs = 250;
const maxSnapshots = 512;

/**
 * The lease and the reports of one instance (docs/decisions/0012-consent-barrier.md). Each acknowledged report extends the
 * lease to its send time + leaseMs, by the stricter of the monotonic clock and the wall clock (a suspended machine stops
 * the first, not the second). The chain must not break: a report that is acknowledged after the lease ended renews
 * nothing; the instance then begins a new incarnation, as if it had just started.
 */
export function createConsentLease(ports: ConsentLeasePorts): ConsentLease {
  const { appender, reader, serde, topic, tables, instance, leaseMs, clock } = ports;
  const renewMs = Math.max(50, Math.min(1000, Math.floor(leaseMs / 8)));
  const open = new Set<OpenCall>();
  const snapshots: Snapshot[] = [];
  let incarnation = '';
  let until = { monotonic: 0, wall: 0 };
  let entering: Promise<void> | undefined;
  let sending: Promise<void> | undefined;
  let timer: unknown;
  let timerAt = Infinity;
  let sentAt = -Infinity;
  let awakeUntil = -Infinity;
  let index = 0;
  /** Next record of the topic that is not read, and what the ones before say that tables have. */
  let read = 0;
  const said = { folded: [] as number[], identity: [] as number[], keys: [] as number[] };
  /** Looks whether the tables have it. */
  let look: (() => void) | undefined;
  let sent: Snapshot | undefined;
  let ended = false;
  /** It is closed: what cannot be read meanwhile is not waited for. */
  const over = Promise.withResolvers<void>();
  /** The tables moved while a report was on its way. */
  let dirty = false;
  /** They moved in this turn: a report follows. */
  let touched = false;
  /** The last report told links and nothing else. */
  let toldLinks = false;
  /** A kill switch was read that no report tells yet. */
  let untold = false;

  const held = (): boolean => clock.monotonic() < until.monotonic && clock.now() < until.wall;
  const vector = (positions: readonly number[]): number[] => positions.map((_, partition) => tables.folded(partition));
  const same = (a: readonly number[], b: readonly number[]): boolean => a.length === b.length && a.every((n, i) => n === b[i]);

  async function append(folded: readonly number[], identity: readonly number[], keys: readonly number[]): Promise<number> {
    const control = ports.control?.() ?? -1;
    const value = serde.encode(consentReport, { instance, incarnation, leaseMs, folded, identity, at: clock.now(), control, keys });
    const [offset] = await appender.append(topic, [{ partition: 0, key: Buffer.from(reportKey(instance, incarnation)), value }]);
    return offset!;
  }

  const raise = (most: number[], by: readonly number[]): void => { for (let p = 0; p < by.length; p++) most[p] = Math.max(most[p] ?? 0, by[p]!); };

  /** What was said up to `end`, where a record that was acknowledged ends. */
  async function listen(end: number): Promise<void> {
    await readUpTo(reader, topic, 0, read, end, async ({ records, nextOffset }) => {
      for (const { value } of records) {
        if (value === null) continue;
        if (!serde.known(value)) await serde.prepare(value);
        const { folded, identity, keys = [] } = serde.decode(value).value as ConsentReport;
        raise(said.folded, folded);
        raise(said.identity, identity);
        raise(said.keys, keys);
      }
      read = nextOffset;
    }, { gone: () => ended });
  }

  /** Resolves when the tables have what was said, or at a time (monotonic ms), or when it is over. */
  function reached(deadline: number): Promise<void> {
    const identity = (): number[] => tables.identityPositions();
    const { keys } = ports;
    const hasKeys = (): boolean => keys === undefined || said.keys.every((n, p) => (keys.positions()[p] ?? 0) >= n);
    const there = (): boolean => ended || (said.folded.every((n, p) => tables.folded(p) >= n) && said.identity.every((n, p) => (identity()[p] ?? 0) >= n) && hasKeys());
    if (there()) return Promise.resolve();
    void keys?.waitFor(said.keys).then(() => look?.());
    return new Promise((resolve) => {
      const done = (): void => {
        look = undefined;
        clock.clearTimer(alarm);
        resolve();
      };
      const alarm = clock.setTimer(done, Math.max(1, deadline - clock.monotonic()));
      look = () => { if (there()) done(); };
    });
  }

  /** A new chain. What was called before has ended with the old lease: no open call holds anything back. */
  async function enter(): Promise<void> {
    until = { monotonic: 0, wall: 0 };
    sent = undefined;
    for (;;) {
      incarnation = Math.floor(clock.random() * 2 ** 48).toString(36);
      const began = { monotonic: clock.monotonic(), wall: clock.now() };
      await listen(await append([], [], []) + 1);
      await Promise.race([Promise.all([tables.readToEnd(), ports.keys?.readToEnd()]), over.promise]);
      await reached(began.monotonic + leaseMs);
      if (ended) return;
      if (clock.monotonic() >= began.monotonic + leaseMs || clock.now() >= began.wall + leaseMs) continue;
      until = { monotonic: began.monotonic + leaseMs, wall: began.wall + leaseMs };
      sentAt = began.monotonic;
      return;
    }
  }

  /** The newest state of the tables that no open call is older than. */
  function applied(): Snapshot {
    const folded = vector(tables.consentPositions());
    const identity = tables.identityPositions();
    const keys = ports.keys?.positions() ?? [];
    const last = snapshots.at(-1);
    if (last === undefined || !same(last.folded, folded) || !same(last.identity, identity) || !same(last.keys, keys)) {
      index++;
      snapshots.push({ index, folded, identity, keys });
      for (const call of open) if (call.since === Infinity && call.refused()) call.since = index;
    }
    let oldest = Infinity;
    for (const call of open) oldest = Math.min(oldest, call.since);
    let at = snapshots.length - 1;
    while (at > 0 && snapshots[at]!.index >= oldest) at--;
    snapshots.splice(0, at);
    if (snapshots.length > maxSnapshots) snapshots.splice(1, snapshots.length >> 1);
    return snapshots[0]!.index >= oldest ? { index: 0, folded: sent?.folded ?? [], identity: sent?.identity ?? [], keys: sent?.keys ?? [] } : snapshots[0]!;
  }

  async function report(): Promise<void> {
    if (!held()) {
      // Reads the tables anew; heads that wait for the lease are tried again by the pump.
      await (entering ??= enter().finally(() => { entering = undefined; }));
      return wake(0);
    }
    const next = applied();
    const monotonic = clock.monotonic();
    const news = sent === undefined || !same(next.folded, sent.folded);
    if (news) {
      awakeUntil = monotonic + awakeMs;
      // Who says no has often just been linked: what was written before his change is there.
      tables.hurryLinks();
    }
    const onlyLinks = !news && !untold && monotonic <= awakeUntil && !same(next.identity, sent!.identity);
    if (!news && !untold) {
      const due = sentAt + (!onlyLinks ? renewMs : toldLinks ? Math.min(linksGapMs, renewMs) : 0);
      if (monotonic < due) return wake(due - monotonic);
    }
    toldLinks = onlyLinks;
    const wall = clock.now();
    sentAt = monotonic;
    untold = false;
    await append(next.folded, next.identity, next.keys);
    sent = next;
    if (held()) until = { monotonic: monotonic + leaseMs, wall: wall + leaseMs };
    wake(renewMs);
  }

  function wake(ms: number): void {
    if (ended) return;
    const at = clock.monotonic() + ms;
    if (timer !== undefined) {
      if (timerAt <= at) return;
      clock.clearTimer(timer);
    }
    timerAt = at;
    timer = clock.setTimer(() => {
      timer = undefined;
      timerAt = Infinity;
      begin();
    }, Math.max(1, ms));
  }

  function begin(): void {
    if (ended) return;
    if (sending !== undefined) {
      dirty = true;
      return;
    }
    sending = report().catch((error: unknown) => { if (!ended) ports.fail(error); }).finally(() => {
      sending = undefined;
      if (dirty) touch();
      dirty = false;
    });
  }

  /** By no timer, where none is needed: it would come behind a turn of bulk work. Behind the partitions that came in the same answer. */
  function touch(): void {
    const ms = sentAt + shortestGapMs - clock.monotonic();
    if (ms > 0) return wake(ms);
    if (touched) return;
    touched = true;
    queueMicrotask(() => {
      touched = false;
      begin();
    });
  }

  return {
    async start() {
      tables.onAdvance(() => look?.());
      await enter();
      tables.onAdvance(touch);
      wake(0);
    },
    covers(deadlineMs) {
      return !ended && clock.monotonic() + deadlineMs < until.monotonic && clock.now() + deadlineMs < until.wall;
    },
    began(refused) {
      const call: OpenCall = { refused, since: Infinity };
      open.add(call);
      return () => {
        open.delete(call);
        if (call.since !== Infinity) touch();
      };
    },
    switched() {
      untold = true;
      touch();
    },
    async close() {
      ended = true;
      over.resolve();
      look?.();
      if (timer !== undefined) clock.clearTimer(timer);
      await sending;
      if (incarnation !== '' && open.size === 0) await appender.append(topic, [{ partition: 0, key: Buffer.from(reportKey(instance, incarnation)), value: null }]);
    },
  };
}
