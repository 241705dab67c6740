import { yieldEvery, type CallClass } from '@weir/http';

export interface Ordered<T> {
  readonly class: CallClass;
  /** Bucket of the quota that its call takes from. */
  readonly bucket: string;
  readonly item: T;
}

/** First in, first out, with a way back to the front; amortised O(1). */
function createFifo<T>() {
  let items: (T | undefined)[] = [];
  let head = 0;
  return {
    push(item: T): void {
      items.push(item);
    },
    unshift(item: T): void {
      if (head > 0) items[--head] = item;
      else items.unshift(item);
    },
    shift(): T | undefined {
      if (head === items.length) return undefined;
      const item = items[head];
      items[head++] = undefined;
      if (head > 1024 && head * 2 > items.length) {
        items = items.slice(head);
        head = 0;
      }
      return item;
    },
    drop(gone: (item: T) => boolean): void {
      items = items.slice(head).filter((item) => !gone(item as T));
      head = 0;
    },
    size: () => items.length - head,
  };
}

const strict: readonly CallClass[] = ['restrict', 'live', 'retry', 'replay'];
/** Turns of the classes below: `restrict` still goes first, live last. */
const yielding: readonly (readonly CallClass[])[] = [['restrict', 'retry', 'replay', 'live'], ['restrict', 'replay', 'retry', 'live']];

/**
 * Lanes whose head waits for a call, in the order restrict, live, retry, replay; each tenth goes to a class below
 * live, so that none stands still. Within a class the buckets of the quota take turns, and a bucket without a token
 * costs no look at its lanes.
 */
export function createReady<T>() {
  /** Of each class its buckets in the order of the round: few, and mostly one. */
  const queues = new Map<CallClass, { readonly bucket: string; readonly fifo: ReturnType<typeof createFifo<T>> }[]>(strict.map((name) => [name, []]));
  let size = 0;
  let served = 0;

  function fifo(name: CallClass, bucket: string): ReturnType<typeof createFifo<T>> {
    const round = queues.get(name)!;
    for (let i = 0; i < round.length; i++) if (round[i]!.bucket === bucket) return round[i]!.fifo;
    const made = createFifo<T>();
    round.push({ bucket, fifo: made });
    return made;
  }

  function first(name: CallClass, open: (bucket: string) => boolean): Ordered<T> | undefined {
    const round = queues.get(name)!;
    for (let i = 0; i < round.length; i++) {
      const { bucket, fifo } = round[i]!;
      if (fifo.size() === 0 || !open(bucket)) continue;
      const item = fifo.shift()!;
      // To the end of the round.
      if (i < round.length - 1) round.push(round.splice(i, 1)[0]!);
      return { class: name, bucket, item };
    }
    return undefined;
  }

  return {
    push({ class: name, bucket, item }: Ordered<T>): void {
      size++;
      fifo(name, bucket).push(item);
    },
    /** Back to where it was: it could not start. */
    putBack({ class: name, bucket, item }: Ordered<T>): void {
      size++;
      fifo(name, bucket).unshift(item);
    },
    /** The next of an open bucket; undefined when there is none. */
    next(open: (bucket: string) => boolean): Ordered<T> | undefined {
      const turn = ++served % yieldEvery === 0 ? yielding[(served / yieldEvery) % yielding.length]! : strict;
      for (const name of turn) {
        const found = first(name, open);
        if (found === undefined) continue;
        size--;
        return found;
      }
      return undefined;
    },
    /** Lets go of those that nobody will start. */
    drop(gone: (item: T) => boolean): void {
      size = 0;
      for (const round of queues.values()) for (const { fifo } of round) {
        fifo.drop(gone);
        size += fifo.size();
      }
    },
    size: () => size,
  };
}
