import { appendFileSync, closeSync, existsSync, fstatSync, fsyncSync, mkdirSync, openSync, readFileSync, readSync, renameSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseCheckpoint } from '@weir/audit';
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

/**
 * A file with checkpoints, one a line (JSON strings), synced before `publish` resolves. It belongs on another disk or
 * machine. A newer checkpoint of a log that was checked says all that the older ones say, so the file is made anew with the
 * newest now and then; where that is not allowed (append-only) it grows.
 * @param maxKept checkpoints that are published before the older ones are dropped
 */
export function fileWitness(path: string, logger: Pick<Logger, 'warn'>, maxKept = 1000): Witness {
  mkdirSync(dirname(path), { recursive: true });
  let published = 0;
  let compacts = true;

  function compact(): void {
    published = 0;
    if (!compacts || !existsSync(path)) return;
    const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
    if (lines.length < 2) return;
    const newest = lines.map((line) => ({ line, size: parseCheckpoint(parseLine(path, line))?.size ?? -1 })).reduce((a, b) => (b.size >= a.size ? b : a));
    try {
      replaceFile(path, `${newest.line}\n`);
    } catch (error) {
      compacts = false;
      logger.warn({ path, reason: (error as Error).message }, 'the file of checkpoints can not be replaced by a shorter one: it grows');
    }
  }

  return {
    compact,
    // A torn last line is a checkpoint that was never acknowledged.
    kept: () => (existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1).map((line) => parseLine(path, line)) : []),
    async publish(note) {
      const file = openSync(path, 'a+', 0o644);
      try {
        const { size } = fstatSync(file);
        const last = Buffer.alloc(1);
        if (size > 0) readSync(file, last, 0, 1, size - 1);
        appendFileSync(file, `${size > 0 && last[0] !== newline ? '\n' : ''}${JSON.stringify(note)}\n`);
        fsyncSync(file);
      } finally {
        closeSync(file);
      }
      if (++published >= maxKept) compact();
    },
    close() {},
  };
}

/** Whole or not at all, also through a crash. */
function replaceFile(path: string, text: string): void {
  const next = `${path}.next`;
  const file = openSync(next, 'w', 0o644);
  try {
    appendFileSync(file, text);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(next, path);
  const folder = openSync(dirname(path), 'r');
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

/** A line that is no JSON string counts as a checkpoint nobody signed: it is a finding, not a gap. */
function parseLine(path: string, line: string): string {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === 'string' ? value : '';
  } catch (error) {
    if (error instanceof SyntaxError) return '';
    throw new WeirError('config-invalid', `${path} can not be read`, { cause: error });
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
