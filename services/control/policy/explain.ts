import { WeirError } from '@weir/errors';
import { explain, type Explanation, type LookedAt } from '@weir/policy';
import { changeDecisions, shownOnward, type Release } from '@weir/release';
import { anything, epochMs, instant, integer, list, map, named, nullable, object, oneOf, text, type Schema, type TypeOf } from '@weir/service';
import { consentSeen } from '../trace.ts';
import { recordedConsent, type History, type Recorded } from './history.ts';

const values = map(anything('A value.'), 'What its condition read, as it was.');
const lookedAt: Schema<LookedAt> = named('LookedAt', object('A rule that was looked at.', {
  rule: text('Rule.'), effect: text('What it does when it applies.'), file: text('File of the policy.'), line: integer('Line in it.'),
  result: oneOf(['applies', 'does not apply', 'failed', 'elsewhere', 'passed over'], '`elsewhere`: it does not speak of this route. `passed over`: the decision was made without it.'), values,
}));
const fields = (description: string): Schema<readonly string[]> => list(text('Field.'), description);
const explanation: Schema<Explanation> = named('Explanation', object('How one route was decided.', {
  destination: text('Destination.'), operation: text('Operation there.'), standsInFor: nullable(text('The destination whose second vendor it is; null = a route by itself.')), purpose: nullable(text('Purpose.')), file: nullable(text('File of the route.')), line: nullable(integer('Line in it.')),
  effect: oneOf(['allow', 'hold', 'deny', 'no match'], 'What was decided.'), reason: nullable(text('Why not.')), rule: nullable(text('The rule that decided.')), detail: nullable(text('In words.')), notBefore: nullable(instant('Until when it is delayed.')), consent: list(consentSeen, 'Consent that was looked at.'),
  values, looked: list(lookedAt, 'Every rule.'), sends: fields('Fields that go; empty unless it is allowed.'), withheld: fields('Fields that stay.'), changed: fields('Fields that go hashed or masked.'),
}));
const recorded: Schema<Recorded> = named('RecordedDecision', object('A decision as it was recorded.', {
  destination: nullable(text('Destination; null = of all.')), operation: nullable(text('Operation there.')), effect: text('allow, deny, hold or dead-letter.'), rule: nullable(text('Rule that decided.')), reason: nullable(text('Why not.')), release: text('Hash of the release.'), at: epochMs('When.'), consent: list(consentSeen, 'Consent that was looked at.'), outputId: nullable(text('Id of the output.')),
}));
export const explainReply = named('ExplainedEvent', object('Why an event went where it went.', {
  eventId: text('Event.'), release: text('Hash of the release by which it is decided here.'), at: instant('The moment that the rules are asked for.'),
  records: list(object('A canonical record of it.', {
    record: text('Canonical record name without namespace.'), outputId: text('Id of the output.'), source: text('Source.'), region: text('ISO 3166 code of where the person is; empty = not known.'), recorded: list(recorded, 'As they were recorded.'), routes: list(explanation, 'Every route that could take it, to destinations that the grant covers.'),
  }), 'Its canonical records.'),
}));
export type ExplainedEvent = TypeOf<typeof explainReply>;

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
        consent: (ids, route) => (against === 'recorded' ? recordedConsent(own, route) : undefined) ?? tables.check(ids, route.purpose!, route.channel ?? null, route.topic ?? null, release.policy.purposes.get(route.purpose!)?.legalBasis ?? null, at, release.policy),
      }, (decisions) => {
        const change = changeDecisions(decisions, { outputId, subject: whole, ids: subject.ids ?? [], now: at }, release, tables, history.clearLinks(whole.ids));
        return [...change.decisions, ...shownOnward(change.onward)];
      });
      return { record: subject.recordName, outputId, source: subject.source, region, recorded: own, routes };
    }),
  };
}
