import { costOf, drawOf, readBackDraw, steadyPerSecond, type Draw, type Limit } from '@weir/http';
import { standings, type ReadBackAnswer, type ReplayPreview, type Standing } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { goesBack, unknownRule, type Item, type Passed, type UnknownRule } from './select.ts';
import { sends } from './standing.ts';

const maxFields = 200;

/** Of one operation. */
interface Called {
  readonly destination: string;
  readonly operation: string;
  deliveries: number;
  readBacks: number;
}

/** What counts together: a bucket of an account, or the whole of it. */
interface Counted {
  readonly account: string;
  readonly bucket: string | null;
  readonly limits: Set<Limit>;
  calls: number;
}

export function createSurvey() {
  const deliveries = Object.fromEntries(standings.map((s) => [s, 0])) as Record<Standing, number>;
  const verified: Record<ReadBackAnswer, number> = { applied: 0, 'not-applied': 0, unknown: 0, unreadable: 0 };
  const calls = new Map<string, Called>();
  const fields: Record<string, number> = Object.create(null) as Record<string, number>;
  const counts = { records: 0, fails: 0, dropped: 0, keyDestroyed: 0, goesOn: 0, back: 0, differs: 0, approved: 0, otherwise: 0, undecided: 0 };

  return {
    /** After it was verified: `deliveries` has what is unknown still. `approved`: of its deliveries those that differ and are not corrected. */
    add(item: Item, corrected: boolean, order: UnknownRule, approved = 0): void {
      counts.records++;
      counts.approved += approved;
      if (item.note === 'fails') counts.fails++;
      else if (item.note === 'dropped') counts.dropped++;
      else if (item.note === 'erased') deliveries.erased++;
      else if (item.note === 'key-destroyed') counts.keyDestroyed++;
      const unknown = unknownRule(order, item.kind);
      for (const { facts, found, today } of item.deliveries) {
        deliveries[found.standing]++;
        if (today === 'otherwise' || today === 'undecided') counts[today]++;
        if (found.standing !== 'applied' && sends(found.standing, unknown)) called(facts.destination, facts.operation, found.standing === 'unknownReadable');
      }
      if (!corrected && !goesBack(item, order)) return;
      counts.back++;
      if (item.note === 'goes-on') counts.goesOn++;
    },
    /** What the vendor said of a delivery of unknown effect. */
    answered(answer: ReadBackAnswer): void { verified[answer]++; },
    /** A delivered one that the running release would deliver otherwise. */
    differs(destination: string, operation: string, changed: readonly string[]): void {
      counts.differs++;
      called(destination, operation, false);
      for (const field of changed) if (field in fields || Object.keys(fields).length < maxFields) fields[field] = (fields[field] ?? 0) + 1;
    },
    result(release: Release, passed: Passed, options: { readonly derived: boolean; readonly rate: number; readonly goneBefore: number | null }): ReplayPreview {
      const cost = costs(release, calls.values());
      const known = [...cost.limits.map((l) => l.seconds), ...(options.rate > 0 ? [Math.ceil(counts.back / options.rate)] : [])];
      return { derived: options.derived, release: release.hash, goneBefore: options.goneBefore, ...counts, ...passed, keyDestroyed: counts.keyDestroyed + passed.keyDestroyed, deliveries, verified, ...cost, seconds: known.length === 0 ? null : Math.max(...known), fields };
    },
  };

  function called(destination: string, operation: string, asksFirst: boolean): void {
    const name = `${destination}/${operation}`;
    let found = calls.get(name);
    if (found === undefined) calls.set(name, found = { destination, operation, deliveries: 0, readBacks: 0 });
    found.deliveries++;
    if (asksFirst) found.readBacks++;
  }
}
export type Survey = ReturnType<typeof createSurvey>;

/**
 * What the calls use up of each limit that is stated: of an operation or of those that the vendor counts with it, and of
 * the account. Batches as full as they may be, each call once, everything else of the account silent: a bound from below.
 */
function costs(release: Release, all: Iterable<Called>): Required<Pick<ReplayPreview, 'calls' | 'limits'>> {
  const counted = new Map<string, Counted>();
  function count(account: string, bucket: string | null, limit: Limit | undefined, calls: number): Counted {
    const name = `${account}\n${bucket ?? ''}`;
    let found = counted.get(name);
    if (found === undefined) counted.set(name, found = { account, bucket, limits: new Set(), calls: 0 });
    found.calls += calls;
    if (limit !== undefined) found.limits.add(limit);
    return found;
  }
  const rows = [...all].map(({ destination, operation, deliveries, readBacks }) => {
    const config = release.destinations.get(destination);
    const manifest = config?.operations[operation];
    const calls = Math.ceil(deliveries / (manifest?.batch?.maxItems ?? 1));
    const under: Counted[] = [];
    if (config !== undefined && manifest !== undefined) {
      const draw = ({ bucket, limit }: Draw, n: number): void => { under.push(count(config.account, bucket, limit, n), count(config.account, null, config.accountLimit, n)); };
      draw(drawOf(operation, manifest), calls);
      if (readBacks > 0) draw(readBackDraw(operation, manifest), readBacks);
    }
    return { row: { destination, operation, calls, deliveries, readBacks }, under };
  });
  const costed = new Map([...counted.values()].filter(({ limits }) => limits.size > 0).map((one) => {
    const { durationMs, windows } = costOf(one.calls, [...one.limits]);
    return [one, { account: one.account, bucket: one.bucket, calls: one.calls, perSecond: rounded(Math.min(...[...one.limits].map((l) => steadyPerSecond(l)))), seconds: Math.ceil(durationMs / 1000), windows: rounded(windows) }] as const;
  }));
  const calls = rows.map(({ row, under }) => {
    const binding = under.map((one) => costed.get(one)).filter((cost) => cost !== undefined);
    return { ...row, perSecond: binding.length === 0 ? null : Math.min(...binding.map((c) => c.perSecond)), seconds: binding.length === 0 ? null : Math.max(...binding.map((c) => c.seconds)) };
  }).sort((a, b) => b.calls - a.calls);
  return { calls, limits: [...costed.values()].sort((a, b) => b.seconds - a.seconds) };
}

const rounded = (n: number): number => Math.round(n * 100) / 100;
