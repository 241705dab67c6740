import type { Put, Seen, Table } from './table.ts';

/** What waits is written when it waits for so long, with the next put; a transaction costs as much as tens of rows. */
const lateMs = 200;
/** Nothing waits for longer than this, ms: a process that is killed after a day without a put would find its place old, and read all again. */
const latestMs = 1000;
/** A view on more than this is copied: what waits would keep the whole answer of a broker. */
const largeBytes = 65_536;
/** So many rows, or bytes of them, are written at once: some ms, in which nothing else of the process goes on. */
const maxRows = 500;
const maxBytes = 512 * 1024;

export interface LateClock {
  /** ms; never goes back. */
  monotonic(): number;
  setTimer(callback: () => void, ms: number): unknown;
  clearTimer(handle: unknown): void;
}

export interface LateOptions {
  readonly clock: LateClock;
  /** Rows that wait at most; a test has it smaller. */
  readonly rows?: number;
  /** What is removed is removed on the disk, too, when the put is over (and what `putBatch` is told is to be): it may be secret, or somebody's. */
  readonly removesAtOnce?: boolean;
}

/**
 * A table that is written late: what is put is seen at once and waits in memory, to be written with the positions that belong
 * to it in one transaction, in the order of the keys. So after a killed process the table is at an earlier position, with all
 * that was put up to there and nothing behind it; what was lost is read again from its topic. It is no place for what no topic has.
 * The caller leaves the values as they are. A write that fails throws from the put, the range or the close that began it, and
 * all of it waits on.
 */
export function createLateTable(table: Table, { clock, rows = maxRows, removesAtOnce = false }: LateOptions): Table {
  let puts = new Map<string, Buffer | null>();
  let positions = new Map<number, number>();
  let seen = new Map<number, Seen>();
  let bytes = 0;
  /** Since when something waits. */
  let since = Number.POSITIVE_INFINITY;
  /** The table gathers by itself, as long as it is loaded. */
  let loading = false;
  /** Positions that were asked for or put: asked for with each batch. */
  const known = new Map<number, number | undefined>();

  function forget(): void {
    puts = new Map();
    positions = new Map();
    seen = new Map();
    bytes = 0;
    since = Number.POSITIVE_INFINITY;
  }

  function flush(): void {
    if (puts.size === 0 && positions.size === 0 && seen.size === 0) return;
    table.putBatch([...puts.keys()].sort().map((key): Put => ({ key, value: puts.get(key)! })), positions, seen);
    forget();
  }

  let timer: unknown;
  /** Until nothing waits. A write that fails here is tried again, by the next put, range or close as well, which throw. */
  function writeInTime(): void {
    timer ??= clock.setTimer(() => {
      timer = undefined;
      try {
        flush();
      } catch {
        writeInTime();
      }
    }, latestMs);
  }
  function forgetTimer(): void {
    if (timer !== undefined) clock.clearTimer(timer);
    timer = undefined;
  }

  function waits(prefix: string): boolean {
    for (const key of puts.keys()) if (key.startsWith(prefix)) return true;
    return false;
  }

  return {
    get(key) {
      const put = puts.get(key);
      return put === undefined ? table.get(key) : put ?? undefined;
    },
    text(key) {
      const put = puts.get(key);
      return put === undefined ? table.text(key) : put?.toString('utf8');
    },
    has(key) {
      const put = puts.get(key);
      return put === undefined ? table.has(key) : put !== null;
    },
    range(prefix, after) {
      if (waits(prefix)) flush();
      return table.range(prefix, after);
    },
    putBatch(more, nextPositions, nextSeen, atOnce = false) {
      for (const [partition, next] of nextPositions ?? []) known.set(partition, next);
      if (loading) return table.putBatch(more, nextPositions, nextSeen);
      let removes = atOnce;
      for (const { key, value } of more) {
        puts.set(key, value !== null && value.buffer.byteLength > largeBytes ? Buffer.from(value) : value);
        bytes += key.length + (value?.length ?? 0);
        if (value === null) removes = true;
      }
      for (const [partition, next] of nextPositions ?? []) positions.set(partition, next);
      for (const [partition, one] of nextSeen ?? []) seen.set(partition, one);
      const now = clock.monotonic();
      since = Math.min(since, now);
      if (puts.size >= rows || bytes >= maxBytes || now - since >= lateMs || (removes && removesAtOnce)) flush();
      else writeInTime();
    },
    loading() {
      flush();
      loading = true;
      table.loading();
    },
    loaded() {
      loading = false;
      table.loaded();
    },
    position(partition) {
      if (!known.has(partition)) known.set(partition, table.position(partition));
      return known.get(partition);
    },
    positions() {
      flush();
      return table.positions();
    },
    seen: (partition) => seen.get(partition) ?? table.seen(partition),
    bytes: () => table.bytes(),
    clear() {
      forget();
      known.clear();
      table.clear();
    },
    async close() {
      forgetTimer();
      try {
        flush();
      } finally {
        await table.close();
      }
    },
    drop() {
      forgetTimer();
      forget();
      return table.drop();
    },
  };
}
