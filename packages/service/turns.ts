/** Turns of the event loop, shared by all partitions of this process: work that is read in bulk is done a slice at a time. */
export interface Turns {
  /** Resolves at the begin of a turn that is the caller's alone, in the order of the calls. */
  next(): Promise<void>;
  /** The turn has lasted long enough: the caller asks for another one. */
  over(): boolean;
  /**
   * For work that begins as other work ends, such as calls. The function that it gives is asked before each piece: true = there
   * is time for it in this turn of the event loop; false = `again` is called in the next. A few pieces always have time.
   */
  share(again: () => void): () => boolean;
}

/** Reports of consent, heartbeats and answers of vendors come in between two turns (docs/architecture.md 3.7). */
const turnMs = 4;
/** Of all shares together: answers that came in one turn would else begin as many calls in the next, for ever together. */
const shareMs = 2;
const leastPieces = 4;

export function createTurns(monotonic: () => number): Turns {
  const waiting: (() => void)[] = [];
  let until = 0;
  /** Turns of the event loop in which shares were asked for, and when the last of them began. */
  let turn = 0;
  let began: number | undefined;

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
    share(again) {
      let mine = 0;
      let pieces = 0;
      let later = false;
      return () => {
        if (began === undefined) {
          turn++;
          began = monotonic();
          setImmediate(() => { began = undefined; });
        }
        if (mine !== turn) [mine, pieces] = [turn, 0];
        if (pieces++ < leastPieces || monotonic() - began < shareMs) return true;
        if (!later) setImmediate(() => {
          later = false;
          again();
        });
        later = true;
        return false;
      };
    },
  };
}
