import { appendFileSync, closeSync, existsSync, fstatSync, fsyncSync, ftruncateSync, mkdirSync, openSync, readFileSync, readSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { keptCheckpoints, parseCheckpoint } from '@weir/audit';
import { replaceFile } from '@weir/durable';
import { WeirError } from '@weir/errors';
import type { Logger } from 'pino';

/** Where signed checkpoints are kept, out of reach of who can write to the log. */
export interface Witness {
  /** Every checkpoint it kept; [] when it can not tell. */
  kept(): readonly string[];
  /** Drop what a newer checkpoint says, too; call it when every kept one was found to hold. */
  compact(): void;
  /** Resolves when it is kept, or is on its way where the witness is remote. */
  publish(note: string): Promise<void>;
  close(): void;
}

const newline = 0x0a;
/** Longer than any checkpoint. */
const longestTail = 64 * 1024;
/** Of a file that only grows, is not there yet, or may not be written: what is torn in it is passed over when it is read. */
const notCut: ReadonlySet<string | undefined> = new Set(['ENOENT', 'EPERM', 'EACCES', 'EROFS']);

/**
 * A file with checkpoints, one a line (JSON strings), synced before `publish` resolves. It belongs on another disk or
 * machine. A newer checkpoint of a log that was checked says all that the older ones say, so the file is made anew with the
 * newest now and then; where that is not allowed (append-only) it grows. A checkpoint that could not be written whole is cut off
 * again, by `publish` or, after a crash, here.
 * @param maxKept checkpoints that are published before the older ones are dropped
 */
export function fileWitness(path: string, logger: Pick<Logger, 'warn'>, maxKept = 1000): Witness {
  mkdirSync(dirname(path), { recursive: true });
  cutTail(path);
  let published = 0;
  let compacts = true;

  function compact(): void {
    published = 0;
    if (!compacts || !existsSync(path)) return;
    const notes = keptCheckpoints(readFileSync(path, 'utf8'));
    if (notes.length < 2) return;
    const newest = notes.map((note) => ({ note, size: parseCheckpoint(note)?.size ?? -1 })).reduce((a, b) => (b.size >= a.size ? b : a));
    try {
      replaceFile(path, `${JSON.stringify(newest.note)}\n`, 0o644);
    } catch (error) {
      compacts = false;
      logger.warn({ path, reason: (error as Error).message }, 'the file of checkpoints can not be replaced by a shorter one: it grows');
    }
  }

  return {
    compact,
    kept: () => (existsSync(path) ? keptCheckpoints(readFileSync(path, 'utf8')) : []),
    async publish(note) {
      const file = openSync(path, 'a+', 0o644);
      try {
        const { size } = fstatSync(file);
        const last = Buffer.alloc(1);
        if (size > 0) readSync(file, last, 0, 1, size - 1);
        try {
          appendFileSync(file, `${size > 0 && last[0] !== newline ? '\n' : ''}${JSON.stringify(note)}\n`);
          fsyncSync(file);
        } catch (error) {
          takeBack(file, size);
          throw error;
        }
      } finally {
        closeSync(file);
      }
      if (++published >= maxKept) compact();
    },
    close() {},
  };
}

function takeBack(file: number, size: number): void {
  try {
    ftruncateSync(file, size);
  } catch {
    // What the disk said first is told. The next checkpoint begins a line, and what is torn before it is passed over.
  }
}

/** Cuts what stands behind the last line end; a whole checkpoint there lacks only that, and stays. */
function cutTail(path: string): void {
  try {
    const file = openSync(path, 'r+');
    try {
      const { size } = fstatSync(file);
      const end = Buffer.alloc(Math.min(size, longestTail));
      if (size > 0) readSync(file, end, 0, end.length, size - end.length);
      const from = end.lastIndexOf(newline) + 1;
      const tail = end.subarray(from).toString('utf8');
      if (tail === '' || (from === 0 && size > end.length) || keptCheckpoints(tail).length > 0) return;
      ftruncateSync(file, size - end.length + from);
      fsyncSync(file);
    } finally {
      closeSync(file);
    }
  } catch (error) {
    if (!notCut.has((error as NodeJS.ErrnoException).code)) throw error;
  }
}

const witnessTimeoutMs = 10_000;
const witnessRetryMs = 5000;

/** POSTs the newest checkpoint to a URL until it answers 2xx; a checkpoint is not held up by it. Throws config-invalid. */
export function httpWitness(url: string, logger: Pick<Logger, 'warn'>): Witness {
  const { host, username, password } = URL.canParse(url) ? new URL(url) : { host: '', username: '', password: '' };
  // A request to one with a password fails, and its message would quote it.
  if (host === '' || username !== '' || password !== '') throw new WeirError('config-invalid', 'WEIR_AUDIT_WITNESS: a URL is http(s)://<host>/<path>, without a user and a password');
  let wanted: string | undefined;
  let running = false;
  let timer: NodeJS.Timeout | undefined;
  const stop = new AbortController();
  async function run(): Promise<void> {
    if (running) return;
    running = true;
    while (wanted !== undefined && !stop.signal.aborted) {
      const note = wanted;
      try {
        const response = await fetch(url, { method: 'POST', body: note, headers: { 'content-type': 'text/plain; charset=utf-8' }, redirect: 'error', signal: AbortSignal.any([stop.signal, AbortSignal.timeout(witnessTimeoutMs)]) });
        await response.body?.cancel();
        if (!response.ok) throw new Error(`answered ${response.status}`);
        if (wanted === note) wanted = undefined;
      } catch (error) {
        if (stop.signal.aborted) break;
        logger.warn({ witness: host, reason: (error as Error).message }, 'the witness did not take the checkpoint; the next try is in 5 s');
        await new Promise<void>((resolve) => {
          timer = setTimeout(resolve, witnessRetryMs);
          stop.signal.addEventListener('abort', () => resolve(), { once: true });
        });
      }
    }
    running = false;
  }
  return {
    kept: () => [],
    compact() {},
    async publish(note) {
      wanted = note;
      void run();
    },
    close() {
      stop.abort();
      clearTimeout(timer);
    },
  };
}

/** Publishes to all; what any of them kept counts. */
export function allWitnesses(witnesses: readonly Witness[]): Witness {
  return {
    kept: () => witnesses.flatMap((w) => w.kept()),
    compact: () => { for (const w of witnesses) w.compact(); },
    publish: async (note) => { await Promise.all(witnesses.map((w) => w.publish(note))); },
    close: () => { for (const w of witnesses) w.close(); },
  };
}

/** Checkpoints of the data folder: always kept, since a URL gives none back to compare with. */
export const localCheckpoints = (dataDir: string): string => join(dataDir, 'audit-checkpoints.jsonl');

/** Witnesses at file paths and http(s) URLs, and the file of the data folder. */
export function openWitnesses(dataDir: string, targets: readonly string[], logger: Pick<Logger, 'warn'>): Witness {
  return allWitnesses([...new Set([localCheckpoints(dataDir), ...targets])].map((target) => (/^https?:/.test(target) ? httpWitness(target, logger) : fileWitness(target, logger))));
}
