import { findWeirError, type WeirError } from '@weir/errors';
import { isAway, soon, type Timers } from '@weir/pipeline';
import type { Logger } from 'pino';
import { endedStates, workingStates, type Entry, type Orders, type State } from './orders.ts';
import type { PutBack } from './put-back.ts';

/** Work on an order, as it stands when its turn comes. */
export type Work = (entry: Entry) => Promise<void>;

export type Line = 'preview' | 'run';

export interface LinesPorts {
  readonly clock: Timers & { readonly monotonic: () => number };
  readonly orders: Pick<Orders, 'get'>;
  readonly logger: Pick<Logger, 'warn'>;
  /** What failed in a declared way: the order ends with it. */
  readonly ends: (entry: Entry, error: WeirError) => Promise<void>;
  /** Something nobody declared: the process stops. */
  readonly fail: (error: unknown) => void;
}

/**
 * Who works and who waits: the first order of each line is worked on, those behind it wait, and what waits long for somebody else does so
 * beside the lines. What fails in a declared way ends the order, not the process; brokers or a registry that are away end neither: the work
 * is taken up where a crash would have left it.
 */
export interface Lines {
  /** Work of one line, one after the other. */
  enqueue(line: Line, id: string, work: Work): void;
  /** Each by itself: one whose destination is paused holds up no other. */
  beside(id: string, work: Work): void;
  /** Leaves the line to those behind it until the stages have taken enough of what it put back: a destination that is paused holds up its own orders only. Then its turn comes again. */
  stepAside(id: string, putBack: PutBack, work: Work): void;
  /** Until `putBackEnds` this is what the order waits for. The answer is asked before each write: true once it has had no room for so long that it leaves the line to those behind it. */
  putsBack(id: string, putBack: PutBack): () => boolean;
  putBackEnds(id: string): void;
  /** Something came of the work: what did not answer before does. */
  answered(id: string): void;
  /** Waits for something that has a name. */
  named<T>(id: string, what: string, wait: () => Promise<T>): Promise<T>;
  goesOn(entry: Entry, state: State): boolean;
  /** What an order waits for; undefined = nothing. */
  waitingFor(id: string): string | undefined;
  closed(): boolean;
  /** Nothing goes on from now on; resolves when nothing does. */
  close(): Promise<void>;
}

/** A run whose stages have no room for so long lets those behind it go first. */
const asideMs = 3000;
const asideLookMs = 1000;
/** What was read of a range before brokers or registry went away is read again after each wait. */
const maxAwayMs = 30_000;

export function createLines({ clock, orders, logger, ends, fail }: LinesPorts): Lines {
  const lines = { preview: Promise.resolve(), run: Promise.resolve() };
  /** Orders of each line; the first one is worked on. */
  const queued: Readonly<Record<Line, string[]>> = { preview: [], run: [] };
  /** What is waited for outside of the lines. */
  const outside = new Set<Promise<void>>();
  const running = new Map<string, PutBack>();
  /** What an order waits for that is not at its put-back. */
  const waiting = new Map<string, string>();
  /** What did not answer an order, and how often in a row. */
  const away = new Map<string, { readonly tries: number; readonly what: string }>();
  let closed = false;

  const goesOn = (entry: Entry, state: State): boolean => !closed && entry.progress.state === state;

  async function attempt(id: string, work: Work): Promise<void> {
    try {
      for (let again = true; again && !closed;) {
        const entry = orders.get(id);
        again = await work(entry).then(() => false, (error: unknown) => failed(entry, error)).catch(async (error: unknown) => {
          // Of what `ends` writes: the work fails once more, and ends then.
          if (closed || !isAway(error)) throw error;
          await outlast(entry, error as WeirError);
          return true;
        });
      }
      away.delete(id);
    } catch (error) {
      if (!closed) fail(error);
    }
  }

  /** True: it is to be tried again, now. */
  async function failed(entry: Entry, error: unknown): Promise<boolean> {
    if (closed) return false;
    const known = findWeirError(error);
    if (known?.code === 'log-assignment-stale') {
      logger.warn({ order: entry.order.id }, known.message);
      return false;
    }
    if (known === undefined || (known.entry.retry === 'stop' && !isAway(known))) throw error;
    if (endedStates.has(entry.progress.state)) {
      logger.warn({ order: entry.order.id, err: error }, 'the work on a replay order that was cancelled failed');
      return false;
    }
    if (isAway(known)) {
      await outlast(entry, known);
      return true;
    }
    await ends(entry, known);
    return false;
  }

  /** Longer each time that nothing could be done between; no longer than the order stays as it is. */
  async function outlast({ order: { id }, progress: { state } }: Entry, error: WeirError): Promise<void> {
    const tries = (away.get(id)?.tries ?? 0) + 1;
    if (tries === 1) logger.warn({ order: id, err: error }, 'a replay waits until brokers and registry answer');
    away.set(id, { tries, what: `${error.code}: ${error.message}` });
    const until = clock.monotonic() + Math.min(maxAwayMs, 250 * 2 ** tries);
    while (!closed && clock.monotonic() < until && orders.get(id).progress.state === state) await soon(clock);
  }

  function enqueue(line: Line, id: string, work: Work): void {
    queued[line].push(id);
    lines[line] = lines[line].then(() => attempt(id, work)).finally(() => queued[line].shift());
  }

  function beside(id: string, work: Work, then: () => void = () => undefined): void {
    const waits: Promise<void> = attempt(id, work).then(then).finally(() => outside.delete(waits));
    outside.add(waits);
  }

  return {
    enqueue,
    beside: (id, work) => beside(id, work),
    stepAside(id, putBack, work) {
      running.set(id, putBack);
      const mine = (): boolean => running.get(id) === putBack;
      beside(id, (entry) => putBack.room(() => mine() && goesOn(entry, 'running'), asideLookMs), () => {
        // Paused and started meanwhile: it has another turn already.
        if (!mine()) return;
        running.delete(id);
        enqueue('run', id, work);
      });
    },
    putsBack(id, putBack) {
      running.set(id, putBack);
      let noRoomSince: number | undefined;
      return () => {
        noRoomSince = putBack.waitingFor() === undefined ? undefined : noRoomSince ?? clock.monotonic();
        return noRoomSince !== undefined && queued.run.length > 1 && clock.monotonic() - noRoomSince > asideMs;
      };
    },
    putBackEnds: (id) => { running.delete(id); },
    answered: (id) => { away.delete(id); },
    async named(id, what, wait) {
      waiting.set(id, what);
      try {
        return await wait();
      } finally {
        waiting.delete(id);
      }
    },
    goesOn,
    waitingFor(id) {
      if (!workingStates.has(orders.get(id).progress.state)) return undefined;
      const line = Object.values(queued).find((ids) => ids.indexOf(id) > 0);
      return away.get(id)?.what ?? waiting.get(id) ?? running.get(id)?.waitingFor() ?? (line === undefined ? undefined : `order ${line[0]}`);
    },
    closed: () => closed,
    async close() {
      closed = true;
      await Promise.all([...Object.values(lines), ...outside]);
    },
  };
}
