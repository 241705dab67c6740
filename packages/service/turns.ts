/** Turns of the event loop, shared by all partitions of this process: work that is read in bulk is done a slice at a time. */
export interface Turns {
  /** Resolves in a turn that has time left, in the order of the calls: little work of several callers is done in one, so that what they write goes in one request. */
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
  let giving = false;
  let until = 0;
  /** Turns of the event loop in which shares were asked for, and when the last of them began. */
  let turn = 0;
  let began: number | undefined;

  function give(): void {
    until = monotonic() + turnMs;
    giveNext();
  }

  function giveNext(): void {
    waiting.shift()!();
    // The caller goes on in a microtask that comes before this one.
    queueMicrotask(() => {
      if (waiting.length === 0) giving = false;
      else if (monotonic() < until) giveNext();
      else setImmediate(give);
    });
  }

  return {
    next: () => new Promise((resolve) => {
      waiting.push(resolve);
      if (!giving) setImmediate(give);
      giving = true;
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
