/**
 * Virtual time of one simulated run: one queue of events, one thread, nothing real. What the code under test reads of
 * time and chance (timers, Date.now, performance.now, Math.random) is replaced process-wide while a run lasts.
 */
import { AsyncLocalStorage } from 'node:async_hooks';

const real = { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate, dateNow: Date.now, performanceNow: performance.now, random: Math.random };
const owners = new AsyncLocalStorage<Actor>();
/** What the simulated clock shows at its beginning, ms. */
export const epoch = Date.UTC(2026, 0, 15, 12);

/** Uniform numbers of one seed (mulberry32): [0, 1). */
export type Random = () => number;
export function createRandom(seed: number): Random {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Who an event belongs to: a process that can be killed (its events never happen) or stopped (they happen, late, when it goes on). */
export interface Actor {
  readonly name: string;
  alive: boolean;
  stopped: boolean;
  readonly held: Event[];
}
export const createActor = (name: string): Actor => ({ name, alive: true, stopped: false, held: [] });

interface Event {
  at: number;
  order: number;
  readonly actor: Actor;
  readonly run: () => void;
  cancelled: boolean;
}

export class Scheduler {
  readonly world: Actor = createActor('world');
  readonly #heap: Event[] = [];
  #order = 0;
  now = 0;
  steps = 0;

  /** Run it in the context of the actor after `ms`, unless the actor is dead by then. Returns how to cancel it. */
  after(ms: number, actor: Actor, run: () => void): () => void {
    const event: Event = { at: this.now + Math.max(0, ms), order: this.#order++, actor, run, cancelled: false };
    this.#push(event);
    return () => { event.cancelled = true; };
  }

  /** Run now, as a part of the actor. */
  as<T>(actor: Actor, run: () => T): T {
    return owners.run(actor, run);
  }

  resume(actor: Actor): void {
    actor.stopped = false;
    for (const event of actor.held.splice(0)) {
      event.at = this.now;
      event.order = this.#order++;
      this.#push(event);
    }
  }

  /** Take events in order of their time until `done` or the time is over; true = done. Microtasks end before the next event. */
  async run(done: () => boolean, until: number): Promise<boolean> {
    await settled();
    for (;;) {
      if (done()) return true;
      const event = this.#pop();
      if (event === undefined) return false;
      if (event.at > until) {
        this.#push(event);
        this.now = until;
        return false;
      }
      this.now = Math.max(this.now, event.at);
      if (event.cancelled || !event.actor.alive) continue;
      if (event.actor.stopped) {
        event.actor.held.push(event);
        continue;
      }
      this.steps++;
      owners.run(event.actor, event.run);
      await settled();
    }
  }

  /** Replaces time and chance of the process; returns how to put them back. */
  install(random: Random): () => void {
    const owner = (): Actor => owners.getStore() ?? this.world;
    const handle = (cancel: () => void) => ({ cancel, ref() { return this; }, unref() { return this; }, hasRef: () => false });
    const clear = (timer: unknown): void => { (timer as { cancel?: () => void } | undefined)?.cancel?.(); };
    const put = (values: Record<string, unknown>): void => { Object.assign(globalThis, values); };
    put({
      setTimeout: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => handle(this.after(Math.max(1, ms), owner(), () => run(...args))),
      setImmediate: (run: (...args: unknown[]) => void, ...args: unknown[]) => handle(this.after(0, owner(), () => run(...args))),
      setInterval: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => {
        const actor = owner();
        let cancel = (): void => {};
        const again = (): void => {
          cancel = this.after(Math.max(1, ms), actor, () => {
            again();
            run(...args);
          });
        };
        again();
        return handle(() => cancel());
      },
      clearTimeout: clear, clearInterval: clear, clearImmediate: clear,
    });
    Date.now = () => epoch + Math.floor(this.now);
    performance.now = () => this.now;
    Math.random = random;
    return () => {
      const { dateNow, performanceNow, random: realRandom, ...timers } = real;
      put(timers);
      Date.now = dateNow;
      performance.now = performanceNow;
      Math.random = realRandom;
    };
  }

  #before(a: Event, b: Event): boolean {
    return a.at < b.at || (a.at === b.at && a.order < b.order);
  }

  #push(event: Event): void {
    const heap = this.#heap;
    let i = heap.length;
    heap.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!this.#before(event, heap[parent]!)) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = event;
  }

  #pop(): Event | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (first === undefined || last === undefined || heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#before(heap[child + 1]!, heap[child]!)) child++;
      if (!this.#before(heap[child]!, last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

/** Promise reactions and ticks run before an immediate of the real event loop. */
const settled = (): Promise<void> => new Promise((resolve) => { real.setImmediate(resolve); });
