import { isObject, own } from './vendors/values.ts';

export const faultModes = ['429', '5xx', 'slow', 'cut', 'late-after-commit', 'truncated', 'drip', 'huge', 'permanent', 'auth'] as const;
export type FaultMode = (typeof faultModes)[number];

export interface Fault {
  readonly id: number;
  readonly mode: FaultMode;
  readonly destination?: string;
  readonly operation?: string;
  /** Only requests about this identifier. */
  readonly subject?: string;
  /** How often it may still fire. */
  left: number;
  /** Share of the matching requests it hits, 0 to 1, drawn from a seeded generator. */
  readonly rate: number;
  /** Monotonic ms. */
  readonly until: number;
  readonly status: number;
  /** Value of Retry-After, sent as it is; `date+<ms>` is the date so long from the answer. */
  readonly retryAfter?: string;
  readonly delayMs: number;
  /** It fires where so many requests were let through in the last `perMs`: a vendor's rate limit, by a sliding window. */
  readonly limit: number;
  readonly perMs: number;
  /** With `once`: keys of the requests that it has hit; none of them is hit again. */
  readonly hit: Set<string> | undefined;
  fired: number;
}

export interface Faults {
  /** Text = what is wrong with the order. */
  add(order: unknown): Fault | string;
  /** The first fault that hits this request; `key` tells repetitions of a request. */
  hit(destination: string, operation: string, subject: string | null, key: string): Fault | undefined;
  list(): readonly Fault[];
  clear(): void;
}

const maxFaults = 100;
/** Keys that a fault remembers. */
const maxHit = 1_000_000;
const keys = new Set(['destination', 'operation', 'subject', 'mode', 'count', 'rate', 'seed', 'forMs', 'status', 'retryAfter', 'delayMs', 'limit', 'perMs', 'once']);
const statusOf: Record<FaultMode, readonly [standard: number, from: number, to: number]> = {
  429: [429, 429, 429], '5xx': [503, 500, 599], slow: [0, 0, 0], cut: [0, 0, 0], 'late-after-commit': [0, 0, 0], truncated: [0, 0, 0], drip: [0, 0, 0], huge: [0, 0, 0], permanent: [400, 400, 499], auth: [401, 401, 403],
};

/** mulberry32: the same seed gives the same faults. */
function generator(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = a;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Numbers of which every run of n has the share `rate` below `rate`, give or take one: two of five, not five in a row. */
function evenly(rate: number): () => number {
  let sum = 0;
  return () => {
    sum += rate;
    if (sum < 1 - 1e-9) return 1;
    sum -= 1;
    return 0;
  };
}

export function createFaults(monotonic: () => number): Faults {
  let faults: (Fault & { readonly draw: () => number })[] = [];
  let ids = 0;

  function number(order: unknown, name: string, from: number, to: number, standard: number): number {
    const value = own(order, name) ?? standard;
    if (typeof value !== 'number' || !(value >= from && value <= to) && value !== standard) throw new RangeError(`${name}: expected a number from ${from} to ${to}`);
    return value;
  }
  function name(order: unknown, key: string): string | undefined {
    const value = own(order, key) ?? undefined;
    if (value !== undefined && (typeof value !== 'string' || value === '' || value.length > 200)) throw new RangeError(`${key}: expected text`);
    return value as string | undefined;
  }
  function build(order: unknown): Fault & { readonly draw: () => number } {
    if (!isObject(order)) throw new RangeError('expected an object');
    const unknown = Object.keys(order).find((key) => !keys.has(key));
    if (unknown !== undefined) throw new RangeError(`${unknown.slice(0, 40)}: unknown; known are ${[...keys].join(', ')}`);
    const mode = faultModes.find((m) => m === own(order, 'mode'));
    if (mode === undefined) throw new RangeError(`mode: expected one of ${faultModes.join(', ')}`);
    const once = own(order, 'once') ?? false;
    if (typeof once !== 'boolean') throw new RangeError('once: expected true or false');
    const [standard, from, to] = statusOf[mode];
    const retryAfter = own(order, 'retryAfter') ?? (mode === '429' ? 1 : undefined);
    if (retryAfter !== undefined && !/^[\x20-\x7e]{1,100}$/.test(String(retryAfter))) throw new RangeError('retryAfter: expected seconds or a date');
    return {
      id: ++ids, mode, destination: name(order, 'destination'), operation: name(order, 'operation'), subject: name(order, 'subject'),
      left: number(order, 'count', 1, 1e9, Number.POSITIVE_INFINITY), rate: number(order, 'rate', 0, 1, 1),
      until: monotonic() + number(order, 'forMs', 1, 864e5, Number.POSITIVE_INFINITY), status: number(order, 'status', from, to, standard),
      retryAfter: retryAfter === undefined ? undefined : String(retryAfter), delayMs: number(order, 'delayMs', 0, 600_000, mode === 'slow' ? 1000 : mode === 'drip' ? 10_000 : 0), limit: number(order, 'limit', 0, 10_000, 0), perMs: number(order, 'perMs', 1, 864e5, 1000), hit: once ? new Set() : undefined, fired: 0,
      draw: once ? evenly(number(order, 'rate', 0, 1, 1)) : generator(number(order, 'seed', 0, 2 ** 32 - 1, 1)),
    };
  }
  const letThrough = new WeakMap<Fault, number[]>();
  function within(fault: Fault): boolean {
    const now = monotonic();
    const times = (letThrough.get(fault) ?? []).filter((at) => at > now - fault.perMs);
    letThrough.set(fault, times);
    if (times.length >= fault.limit) return false;
    times.push(now);
    return true;
  }
  const live = (fault: Fault): boolean => fault.left > 0 && monotonic() < fault.until;

  return {
    add(order) {
      faults = faults.filter(live);
      if (faults.length >= maxFaults) return `at most ${maxFaults} faults at a time`;
      try {
        const fault = build(order);
        faults.push(fault);
        return fault;
      } catch (error) {
        if (error instanceof RangeError) return error.message;
        throw error;
      }
    },
    hit(destination, operation, subject, key) {
      for (const fault of faults) {
        if (!live(fault) || (fault.destination ?? destination) !== destination || (fault.operation ?? operation) !== operation || (fault.subject ?? subject) !== subject) continue;
        if (fault.hit?.has(key) === true) continue;
        if (fault.rate < 1 && fault.draw() >= fault.rate) continue;
        if (fault.limit > 0 && within(fault)) continue;
        if (fault.hit !== undefined && fault.hit.size < maxHit) fault.hit.add(key);
        fault.left--;
        fault.fired++;
        return fault;
      }
      return undefined;
    },
    list: () => faults.filter(live),
    clear: () => { faults = []; },
  };
}
