import { closeSync, createReadStream, fdatasync, fstatSync, ftruncateSync, mkdirSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { openTable, type Put, type Table } from '@weir/state';
import type { Arrival, VendorState } from './vendors/types.ts';

/** One line of the log, as GET /arrivals shows it. */
export interface Entry extends Arrival {
  /** Position in the log, from 1. */
  readonly n: number;
  readonly destination: string;
  /** HTTP status of the answer; 0 = the connection was cut. */
  readonly status: number;
  /** ISO 8601. */
  readonly at: string;
}

/**
 * The sandbox's durable memory: an append-only log of every arrival, one JSON line each, with the changes of the
 * vendor's state in the line. The log is the authority; the state lies in a local table and is rebuilt from the log when
 * it is missing, or is ahead after a power loss. A torn last line is cut off: nobody was answered for it.
 */
export interface Journal {
  readonly state: VendorState;
  count(): number;
  /** Takes effect at once, in the order of calls; resolves when it is on disk. */
  append(destination: string, status: number, arrivals: readonly Arrival[], puts: ReadonlyArray<readonly [string, string]>, now: number): Promise<void>;
  /** Lines after number `since`, oldest first. */
  read(since: number): AsyncIterable<Entry>;
  close(): Promise<void>;
}

type Line = Entry & { readonly puts?: ReadonlyArray<readonly [string, string]> };

const markEvery = 256;
const bytesPosition = 0;
const newline = 0x0a;

/** Offset behind the last newline of the file; what follows it is a torn write. */
function wholeLength(fd: number, size: number): number {
  const chunk = Buffer.alloc(64 * 1024);
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - chunk.length);
    const length = readSync(fd, chunk, 0, end - start, start);
    const at = chunk.lastIndexOf(newline, length - 1);
    if (at >= 0) return start + at + 1;
    end = start;
  }
  return 0;
}

export async function openJournal(options: { dir: string; onDiscard: (reason: string) => void }): Promise<Journal> {
  mkdirSync(options.dir, { recursive: true });
  const file = join(options.dir, 'arrivals.jsonl');
  const fd = openSync(file, 'a+', 0o600);
  const before = fstatSync(fd).size;
  let size = wholeLength(fd, before);
  if (size < before) {
    options.onDiscard(`${before - size} bytes of a torn line were cut off`);
    ftruncateSync(fd, size);
  }
  const table = openTable({ path: join(options.dir, 'state'), onDiscard: options.onDiscard });
  if ((table.position(bytesPosition) ?? 0) > size) {
    options.onDiscard('the state is ahead of the log: rebuilt');
    table.clear();
  }
  /** Offset of line 1 + i * markEvery. */
  const marks: number[] = [];
  let count = 0;
  if (size > 0) await load();

  async function load(): Promise<void> {
    const applied = table.position(bytesPosition) ?? 0;
    let at = 0;
    let puts: Put[] = [];
    for await (const text of lines(file, 0, size)) {
      if (count % markEvery === 0) marks.push(at);
      count++;
      at += Buffer.byteLength(text) + 1;
      if (at <= applied) continue;
      for (const [key, value] of (JSON.parse(text) as Line).puts ?? []) puts.push({ key, value: Buffer.from(value) });
      if (puts.length < 1000) continue;
      table.putBatch(puts, new Map([[bytesPosition, at]]));
      puts = [];
    }
    table.putBatch(puts, new Map([[bytesPosition, at]]));
  }

  let waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  let syncing = false;
  /** One fdatasync for all that were written while the last one ran. */
  function sync(): void {
    if (syncing || waiting.length === 0) return;
    syncing = true;
    const group = waiting;
    waiting = [];
    fdatasync(fd, (error) => {
      syncing = false;
      for (const { resolve, reject } of group) {
        if (error === null) resolve();
        else reject(error);
      }
      sync();
    });
  }
  const synced = (): Promise<void> => new Promise((resolve, reject) => {
    waiting.push({ resolve, reject });
    sync();
  });

  return {
    state: { get: (key) => table.get(key)?.toString() },
    count: () => count,
    append(destination, status, arrivals, puts, now) {
      if (arrivals.length === 0) return Promise.resolve();
      const at = new Date(now).toISOString();
      let text = '';
      let offset = size;
      for (const [i, arrival] of arrivals.entries()) {
        if (count % markEvery === 0) marks.push(offset);
        const line: Line = { n: ++count, destination, status, at, ...arrival, ...(i === 0 && puts.length > 0 ? { puts } : {}) };
        const piece = JSON.stringify(line) + '\n';
        text += piece;
        offset += Buffer.byteLength(piece);
      }
      const bytes = Buffer.from(text);
      for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
      size = offset;
      writeState(table, puts, size);
      return synced();
    },
    async *read(since) {
      const mark = Math.floor(since / markEvery);
      if (mark >= marks.length) return;
      for await (const text of lines(file, marks[mark]!, size)) {
        const { puts: _puts, ...entry } = JSON.parse(text) as Line;
        if (entry.n > since) yield entry;
      }
    },
    async close() {
      await synced();
      await table.close();
      closeSync(fd);
    },
  };
}

function writeState(table: Table, puts: ReadonlyArray<readonly [string, string]>, position: number): void {
  table.putBatch(puts.map(([key, value]) => ({ key, value: Buffer.from(value) })), new Map([[bytesPosition, position]]));
}

function lines(file: string, start: number, end: number): AsyncIterable<string> {
  const input = createReadStream(file, { start, end: end - 1, highWaterMark: 256 * 1024 });
  return createInterface({ input, crlfDelay: Infinity });
}
