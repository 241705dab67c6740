import { standings, type ReadBackAnswer, type ReplayPreview, type Standing } from '@weir/pipeline';
import type { Release } from '@weir/release';
import { goesBack, type Item, type Passed } from './select.ts';
import { sends } from './standing.ts';
import { statedPerSecond } from './verify.ts';

const maxFields = 200;

export function createSurvey() {
  const deliveries = Object.fromEntries(standings.map((s) => [s, 0])) as Record<Standing, number>;
  const verified: Record<ReadBackAnswer, number> = { applied: 0, 'not-applied': 0, unknown: 0, unreadable: 0 };
  const calls = new Map<string, number>();
  const fields: Record<string, number> = Object.create(null) as Record<string, number>;
  const counts = { records: 0, fails: 0, dropped: 0, keyDestroyed: 0, goesOn: 0, back: 0, differs: 0, otherwise: 0, undecided: 0 };

  return {
    /** After it was verified: `deliveries` has what is unknown still. */
    add(item: Item, corrected: boolean, unknown: 'hold' | 'resend'): void {
      counts.records++;
      if (item.note === 'fails') counts.fails++;
      else if (item.note === 'dropped') counts.dropped++;
      else if (item.note === 'erased') deliveries.erased++;
      else if (item.note === 'key-destroyed') counts.keyDestroyed++;
      for (const { facts, found, today } of item.deliveries) {
        deliveries[found.standing]++;
        if (today === 'otherwise' || today === 'undecided') counts[today]++;
        if (found.standing !== 'applied' && sends(found.standing, unknown)) called(facts.destination, facts.operation);
      }
      if (!corrected && !goesBack(item, unknown)) return;
      counts.back++;
      if (item.note === 'goes-on') counts.goesOn++;
    },
    /** What the vendor said of a delivery of unknown effect. */
    answered(answer: ReadBackAnswer): void { verified[answer]++; },
    /** A delivered one that the running release would deliver otherwise. */
    differs(destination: string, operation: string, changed: readonly string[]): void {
      counts.differs++;
      called(destination, operation);
      for (const field of changed) if (field in fields || Object.keys(fields).length < maxFields) fields[field] = (fields[field] ?? 0) + 1;
    },
    result(release: Release, passed: Passed, options: { readonly derived: boolean; readonly rate: number; readonly goneBefore: number | null }): ReplayPreview {
      const list = [...calls].map(([name, n]) => {
        const [destination, operation] = name.split('/') as [string, string];
        const perSecond = statedPerSecond(release.destinations.get(destination)?.operations[operation]?.limit);
        const stated = Number.isFinite(perSecond);
        return { destination, operation, calls: n, perSecond: stated ? perSecond : null, seconds: stated ? Math.ceil(n / perSecond) : null };
      }).sort((a, b) => b.calls - a.calls);
      const known = [...list.map((c) => c.seconds), options.rate > 0 ? Math.ceil(counts.back / options.rate) : null].filter((s) => s !== null);
      return { derived: options.derived, release: release.hash, goneBefore: options.goneBefore, ...counts, ...passed, keyDestroyed: counts.keyDestroyed + passed.keyDestroyed, deliveries, verified, calls: list, seconds: known.length === 0 ? null : Math.max(...known), fields };
    },
  };

  function called(destination: string, operation: string): void {
    const name = `${destination}/${operation}`;
    calls.set(name, (calls.get(name) ?? 0) + 1);
  }
}
export type Survey = ReturnType<typeof createSurvey>;
