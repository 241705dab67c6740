import { WeirError } from '@weir/errors';
import { explain, type Explanation } from '@weir/policy';
import { changeDecisions, shownOnward, type Release } from '@weir/release';
import { recordedConsent, type History, type Recorded } from './history.ts';

export interface ExplainedRecord {
  /** Canonical record name without namespace. */
  readonly record: string;
  readonly outputId: string;
  readonly source: string;
  /** ISO 3166 code of where the person is; '' = not known. */
  readonly region: string;
  /** As they were recorded. */
  readonly recorded: readonly Recorded[];
  readonly routes: readonly Explanation[];
}

export interface ExplainedEvent {
  readonly eventId: string;
  readonly release: string;
  /** ISO 8601: the moment that the rules are asked for. */
  readonly at: string;
  readonly records: readonly ExplainedRecord[];
}

/**
 * Why an event went where it went: its canonical records decided once more, by the release and with the consent that
 * were recorded, at the recorded moment; or by the running release, now. Counters of limits are taken as not used up.
 * Rejects with not-found.
 */
export async function explainEvent(history: History, eventId: string, against: 'recorded' | 'current', current: Release, now: number): Promise<ExplainedEvent> {
  const recorded = history.recordedOf(eventId);
  const records = await history.recordsOf(eventId);
  if (records.length === 0) throw new WeirError('not-found', `no canonical record of ${eventId}: it was not accepted, ended before, has left the topic, or the person was erased`);
  const last = recorded.at(-1);
  const release = against === 'current' || last === undefined || last.release === current.hash ? current : await history.release(last.release);
  const at = against === 'current' || last === undefined ? now : last.at;
  const { tables } = history;
  return {
    eventId, release: release.hash, at: new Date(at).toISOString(),
    records: records.map(({ outputId, subject }) => {
      const own = recorded.filter((r) => r.outputId === null || r.outputId === outputId);
      const whole = history.whole(subject);
      const { region, routes } = explain(release.policy, whole, {
        now: at, take: () => true,
        consent: (ids, route) => (against === 'recorded' ? recordedConsent(own, route) : undefined) ?? tables.check(ids, route.purpose!, route.channel ?? null, route.topic ?? null, release.policy.purposes.get(route.purpose!)?.legalBasis ?? null, at),
      }, (decisions) => {
        const change = changeDecisions(decisions, { outputId, subject: whole, ids: subject.ids ?? [], now: at }, release, tables, history.clearLinks(whole.ids));
        return [...change.decisions, ...shownOnward(change.onward)];
      });
      return { record: subject.recordName, outputId, source: subject.source, region, recorded: own, routes };
    }),
  };
}
