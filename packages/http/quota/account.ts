import type { RateHeaders } from '@weir/adapter';
import { askedPauseMs, longestAskedMs } from './asked-pause.ts';
import { createBucket, type Bucket } from './bucket.ts';
import { rankOf, yieldEvery, type CallClass } from './classes.ts';
import { planBuckets, type Limit, type Rate } from './limits.ts';
import { readRateHeaders } from './rate-headers.ts';

/** What this instance may use. */
export interface QuotaShare {
  /** In how many parts the limit of an operation is cut (partitions of the account's dispatch topics), and how many this instance surely holds. */
  readonly operation: { readonly slots: number; held(): number };
  /** The same for the account's own limit, of which pollers have their part too. */
  readonly account: { readonly slots: number; held(): number };
}

export interface QuotaOptions {
  readonly share: () => QuotaShare;
  /** Of the account, over all its operations. */
  readonly limit: () => Limit | undefined;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** ms since the epoch, for headers that name a date. */
  readonly now: () => number;
}

/** A call that wants to start. */
export interface Want {
  /** Its operation; operations that the vendor counts together have one name. */
  readonly bucket: string;
  readonly limit: (Limit & { readonly headers?: RateHeaders }) | undefined;
  readonly class: CallClass;
  /** Who asks (destination or poller): one that waits with a higher class goes before the others. */
  readonly who: string;
}

export interface QuotaState {
  readonly bucket: string;
  /** Calls that may start now; Infinity where nothing limits. */
  readonly available: number;
  /** Calls a second in the long run, of this instance's share; Infinity where nothing limits. */
  readonly perSecond: number;
  /** ms for which the vendor asked to be left alone. */
  readonly closedMs: number;
  /** Calls left as the vendor said last, this instance's part; undefined = it did not say. */
  readonly told: number | undefined;
}

/** Quota of one vendor account in this process. Times are monotonic ms. Nothing here waits or calls. */
export interface AccountQuota {
  /** ms until it may start, 0 = now. Takes nothing. */
  wait(want: Want, now: number): number;
  /** As wait; 0 = the call is counted, and `finished` must follow. */
  take(want: Want, now: number): number;
  /** How the call ended. `retryAfterMs`: what the vendor asked for; `headers`: of its answer; `sent` false: it was kept back, and what was counted for it is given back. */
  finished(bucket: string, end: { readonly sent?: boolean; readonly throttled: boolean; readonly answered: boolean; readonly retryAfterMs?: number; readonly headers?: Readonly<Record<string, string | undefined>> }, now: number): void;
  /** Partitions were lost to others while this instance did not look: what came meanwhile is not its own. */
  lost(now: number): void;
  /** The share has changed: what came until now is of the smaller one. */
  shareChanged(now: number): void;
  /** Of one bucket, for a choice among equivalent paths. */
  state(bucket: string, limit: Limit | undefined, now: number): QuotaState;
  /** ms for which the vendor asked to be left alone, or says that nothing is left, by this bucket or over the account; 0 = it did not. */
  closedMs(bucket: string, now: number): number;
  /** Of every bucket that was used. */
  states(now: number): readonly QuotaState[];
}

const noShareMs = 200;
const probeMs = 50;
const firstCloseMs = 500;
const longestCloseMs = 300_000;
const cutTo = 0.7;
const leastFactor = 0.05;
const healMs = 10_000;
const healBy = 1.15;
/** A rate that only refusals taught grows faster, and is forgotten at so many times its beginning. */
const forgetBy = 1.5;
const forgetAt = 10;
/** Below it a refusal teaches no rate: at so few calls a second it was not the rate, and Retry-After says enough. */
const leastLearntPerSecond = 10;
/** A demand that was not renewed for so long is forgotten. */
const demandMs = 250;

const rateKeys = ['burst', 'steady'] as const;
const sameRates = (a: Want['limit'], b: Want['limit']): boolean => rateKeys.every((key) => a?.[key]?.count === b?.[key]?.count && a?.[key]?.perMs === b?.[key]?.perMs);

interface Gate {
  /** Of the stated limit, so many as `stated` says, then of what was learnt. */
  buckets: Bucket[];
  stated: number;
  limit: Limit | undefined;
  headers: RateHeaders | undefined;
  slots: number;
  learnt: Rate[];
  /** Where nobody stated or told a limit: what the first refusal taught, calls a second. */
  firstLearnt: number | undefined;
  closedUntil: number;
  /** Refusals in a row; drives the pause where the vendor names none. */
  rounds: number;
  /** After a refusal one call at a time, until one is let through. */
  probing: boolean;
  inFlight: number;
  /** When the last call began. */
  calledAt: number;
  factor: number;
  factorAt: number;
  /** What the vendor says is left, this instance's part. */
  told: { left: number; until: number } | undefined;
  /** Calls of this second and the one before: the rate that a first refusal is measured by. */
  second: number;
  counts: [number, number];
}

export function createAccountQuota(options: QuotaOptions): AccountQuota {
  const gates = new Map<string, Gate>();
  const account = createGate();
  /** Who waits, for which gate ('' = the account's own). */
  const demands = new Map<string, { rank: number; at: number; gate: string }>();
  let starts = 0;

  function createGate(): Gate {
    return { buckets: [], stated: 0, limit: undefined, headers: undefined, slots: -1, learnt: [], firstLearnt: undefined, closedUntil: 0, rounds: 0, probing: false, inFlight: 0, calledAt: 0, factor: 1, factorAt: 0, told: undefined, second: 0, counts: [0, 0] };
  }

  /** Buckets follow the stated limit, what the vendor told, and the number of parts. What was learnt is of the vendor, whoever states a limit. */
  function fit(gate: Gate, limit: Want['limit'], share: QuotaShare['operation'], now: number): void {
    gate.headers = limit?.headers;
    if (gate.slots === share.slots && (gate.limit === limit || sameRates(gate.limit, limit))) {
      gate.limit = limit;
      return;
    }
    gate.limit = limit;
    gate.slots = share.slots;
    rebuild(gate, part(share), now);
  }

  /** A change brings no token: what is made anew begins with what the buckets before it had, and with one at most. */
  function rebuild(gate: Gate, share: number, now: number): void {
    for (const bucket of gate.buckets) bucket.wait(now, share * gate.factor);
    const first = Math.min(1, ...gate.buckets.map((b) => b.tokens()));
    const stated = planBuckets(gate.limit, gate.slots);
    const plans = [...stated, ...gate.learnt.flatMap((steady) => planBuckets({ steady }, gate.slots))];
    gate.stated = stated.length;
    gate.buckets = plans.map((plan) => gate.buckets.find((b) => b.plan.rate.count === plan.rate.count && b.plan.rate.perMs === plan.rate.perMs && b.plan.capacity === plan.capacity) ?? createBucket(plan, first));
    for (const bucket of gate.buckets) bucket.wait(now, share * gate.factor);
  }

  function gateOf(want: Pick<Want, 'bucket' | 'limit'>, now: number): Gate {
    let gate = gates.get(want.bucket);
    if (gate === undefined) gates.set(want.bucket, gate = createGate());
    fit(gate, want.limit, options.share().operation, now);
    return gate;
  }

  function heal(gate: Gate, share: number, now: number): void {
    while (gate.firstLearnt !== undefined && now - gate.factorAt >= healMs) {
      const count = Math.ceil(gate.learnt[0]!.count * forgetBy);
      gate.factorAt += healMs;
      gate.learnt = count > gate.firstLearnt * forgetAt ? [] : [{ count, perMs: 1000 }];
      if (gate.learnt.length === 0) gate.firstLearnt = undefined;
      rebuild(gate, share, now);
    }
    while (gate.factor < 1 && now - gate.factorAt >= healMs) {
      gate.factor = Math.min(1, gate.factor * healBy);
      gate.factorAt += healMs;
    }
  }

  function waitOf(gate: Gate, share: number, now: number): number {
    heal(gate, share, now);
    let wait = 0;
    for (let i = 0; i < gate.buckets.length; i++) {
      const ms = gate.buckets[i]!.wait(now, share * gate.factor);
      // A stranger's word for it: one call an hour sees whether it still stands.
      wait = Math.max(wait, i < gate.stated || !Number.isFinite(ms) ? ms : Math.min(ms, Math.max(0, gate.calledAt + longestAskedMs - now)));
    }
    if (now < gate.closedUntil) return Math.max(gate.closedUntil - now, Number.isFinite(wait) ? wait : 0);
    if (gate.probing && gate.inFlight > 0) return probeMs;
    if (gate.told !== undefined && now >= gate.told.until) gate.told = undefined;
    if (gate.told !== undefined && gate.told.left < 1) return gate.told.until - now;
    return Number.isFinite(wait) ? wait : noShareMs;
  }

  /** Somebody else of the account waits with a higher class; each tenth call goes to who is below. */
  function overtaken(want: Want, now: number): boolean {
    const rank = rankOf(want.class);
    let best = rank;
    for (const [who, demand] of demands) {
      if (now - demand.at > demandMs) demands.delete(who);
      else if (who !== want.who && (demand.gate === '' || demand.gate === want.bucket)) best = Math.min(best, demand.rank);
    }
    return best < rank && (best === 0 || starts % yieldEvery !== yieldEvery - 1);
  }

  function part(share: { readonly slots: number; held(): number }): number {
    return share.slots > 0 ? Math.min(1, share.held() / share.slots) : 0;
  }

  /** ms until it may start, and the gate that holds it. */
  function look(want: Want, now: number): { readonly ms: number; readonly gate: string } {
    const share = options.share();
    const own = part(share.operation);
    if (own <= 0) return { ms: noShareMs, gate: want.bucket };
    fit(account, options.limit(), share.account, now);
    const byBucket = waitOf(gateOf(want, now), own, now);
    const byAccount = waitOf(account, part(share.account), now);
    if (byBucket > 0 || byAccount > 0) return { ms: Math.ceil(Math.max(byBucket, byAccount)), gate: byBucket > 0 ? want.bucket : '' };
    return { ms: overtaken(want, now) ? 1 : 0, gate: want.bucket };
  }

  function count(gate: Gate, now: number): void {
    const second = Math.floor(now / 1000);
    if (second !== gate.second) {
      gate.counts = [second === gate.second + 1 ? gate.counts[1] : 0, 0];
      gate.second = second;
    }
    gate.counts[1]++;
    gate.inFlight++;
    gate.calledAt = now;
    if (gate.told !== undefined) gate.told.left--;
    for (const bucket of gate.buckets) bucket.take();
  }

  function uncount(gate: Gate): void {
    if (gate.counts[1] > 0) gate.counts[1]--;
    if (gate.told !== undefined) gate.told.left++;
    for (const bucket of gate.buckets) bucket.giveBack();
  }

  /** The vendor refused: nothing starts until it asked to be tried again, and then slower than before. */
  function close(gate: Gate, retryAfterMs: number | undefined, now: number): void {
    const round = now >= gate.closedUntil;
    for (const bucket of gate.buckets) bucket.empty();
    if (round) {
      gate.rounds++;
      // Refused with one call at a time says nothing of our rate.
      if (!gate.probing) slower(gate, now);
    }
    gate.probing = true;
    const asked = askedPauseMs(retryAfterMs);
    const own = Math.min(longestCloseMs, firstCloseMs * 2 ** Math.min(gate.rounds - 1, 12)) * (0.75 + options.random() / 2);
    gate.closedUntil = Math.max(gate.closedUntil, now + (asked ?? (round ? own : 0)));
  }

  function slower(gate: Gate, now: number): void {
    gate.factor = Math.max(leastFactor, gate.factor * cutTo);
    gate.factorAt = now;
    if (gate.buckets.length > 0 && gate.firstLearnt === undefined) return;
    // Nothing is stated: what went before the refusal is the measure. Each instance learns its own part.
    gate.factor = 1;
    const share = part(options.share().operation);
    const perSecond = Math.max(...gate.counts) * cutTo;
    if (perSecond < leastLearntPerSecond || share <= 0) return;
    gate.learnt = [{ count: Math.round(perSecond / share), perMs: 1000 }];
    gate.firstLearnt = gate.learnt[0]!.count;
    rebuild(gate, share, now);
  }

  function hear(gate: Gate, headers: Readonly<Record<string, string | undefined>>, now: number): void {
    const told = readRateHeaders(headers, gate.headers, options.now());
    if (told === undefined) return;
    const share = part(options.share().operation);
    // Stated limits are the most: what a vendor tells can only be less, or say what nobody stated.
    const rates = told.rates.filter((r) => ![gate.limit?.burst, gate.limit?.steady].some((s) => s !== undefined && s.perMs === r.perMs && s.count <= r.count));
    // What a refusal taught stays, until the vendor tells a rate that says more; what it told before it takes back itself.
    const says = told.rates.length > 0 && (rates.length > 0 || gate.firstLearnt === undefined);
    if (rates.length > 0) gate.firstLearnt = undefined;
    if (says && JSON.stringify(rates) !== JSON.stringify(gate.learnt)) {
      gate.learnt = rates;
      rebuild(gate, share, now);
    }
    if (told.remaining === undefined) return;
    const left = told.remaining >= 1 ? Math.max(1, told.remaining * share) - gate.inFlight : 0;
    const until = now + Math.min(told.resetMs ?? 1000, longestAskedMs);
    // Answers overtake each other: within one window the least counts.
    const sameWindow = gate.told !== undefined && Math.abs(gate.told.until - until) < 1500;
    gate.told = { left: sameWindow ? Math.min(gate.told!.left, left) : left, until };
  }

  function stateOf(name: string, gate: Gate, now: number): QuotaState {
    const share = part(options.share().operation);
    const closedMs = Math.max(0, gate.closedUntil - now);
    for (const bucket of gate.buckets) bucket.wait(now, share * gate.factor);
    const told = gate.told !== undefined && now < gate.told.until ? Math.max(0, gate.told.left) : undefined;
    const available = share <= 0 || closedMs > 0 ? 0 : Math.min(told ?? Number.POSITIVE_INFINITY, ...gate.buckets.map((b) => b.tokens()));
    return { bucket: name, available, perSecond: Math.min(Number.POSITIVE_INFINITY, ...gate.buckets.map((b) => b.plan.perMs * 1000 * share * gate.factor)), closedMs, told };
  }

  return {
    wait: (want, now) => look(want, now).ms,
    take(want, now) {
      const { ms, gate } = look(want, now);
      if (ms > 0) {
        demands.set(want.who, { rank: Math.min(rankOf(want.class), freshRank(want.who, gate, now)), at: now, gate });
        return ms;
      }
      demands.delete(want.who);
      starts++;
      count(gateOf(want, now), now);
      count(account, now);
      return 0;
    },
    finished(bucket, end, now) {
      const gate = gates.get(bucket);
      if (gate === undefined) return;
      gate.inFlight = Math.max(0, gate.inFlight - 1);
      account.inFlight = Math.max(0, account.inFlight - 1);
      if (end.sent === false) for (const one of [gate, account]) uncount(one);
      if (end.headers !== undefined) hear(gate, end.headers, now);
      if (end.throttled) {
        close(gate, end.retryAfterMs, now);
        // Where the account has a limit of its own, the refusal may be of that.
        if (account.limit !== undefined) close(account, end.retryAfterMs, now);
      } else if (end.answered) for (const one of [gate, account]) {
        if (now < one.closedUntil) continue;
        one.probing = false;
        one.rounds = 0;
      }
    },
    lost(now) {
      for (const gate of [...gates.values(), account]) for (const bucket of gate.buckets) bucket.wait(now, 0);
    },
    shareChanged(now) {
      const share = options.share();
      for (const gate of gates.values()) for (const bucket of gate.buckets) bucket.wait(now, part(share.operation) * gate.factor);
      for (const bucket of account.buckets) bucket.wait(now, part(share.account) * account.factor);
    },
    closedMs(bucket, now) {
      const gate = gates.get(bucket);
      return Math.max(0, ...[gate, account].flatMap((one) => (one === undefined ? [] : [one.closedUntil - now, one.told !== undefined && one.told.left < 1 ? one.told.until - now : 0])));
    },
    state: (bucket, limit, now) => stateOf(bucket, gateOf({ bucket, limit }, now), now),
    states: (now) => [...gates].map(([name, gate]) => stateOf(name, gate, now)),
  };

  function freshRank(who: string, gate: string, now: number): number {
    const known = demands.get(who);
    return known !== undefined && known.gate === gate && now - known.at <= demandMs ? known.rank : rankOf('poll');
  }
}
