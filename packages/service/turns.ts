/** Turns of the event loop, shared by all partitions of this process: work that is read in bulk is done a slice at a time. */
export interface Turns {
  /** Resolves at the begin of a turn that is the caller's alone, in the order of the calls. */
  next(): Promise<void>;
  /** The turn has lasted long enough: the caller asks for another one. */
  over(): boolean;
}

/** Reports of consent, heartbeats and answers of vendors come in between two turns (docs/architecture.md 3.7). */
const turnMs = 8;

export function createTurns(monotonic: () => number): Turns {
  const waiting: (() => void)[] = [];
  let until = 0;

  function give(): void {
    const go = waiting.shift()!;
    if (waiting.length > 0) setImmediate(give);
    until = monotonic() + turnMs;
    go();
  }

  return {
    next: () => new Promise((resolve) => {
      if (waiting.push(resolve) === 1) setImmediate(give);
    }),
    over: () => monotonic() >= until,
  };
}
