import { count, epochMs, instant, integer, list, anyOf, named, nullable, number, object, oneOf, optional, text, type Schema, type TypeOf } from '@weir/service';
import type { ConsentSeen } from '@weir/policy';

export const consentSeen: Schema<ConsentSeen> = named('ConsentSeen', object('A state of consent that a decision looked at.', {
  id: text('Keyed identifier that it is of, `<type>:<keyed id>`.'), purpose: text('Purpose.'), state: text('granted, denied, withdrawn or unknown.'), version: integer('Version of the state; -1 = there is none.'),
}));

const at = instant('When.');
const destination = nullable(text('Destination; null = of all.'));
const operation = nullable(text('Operation there.'));
const ofOutput = optional(nullable(text('Id of the output; null = of the event as a whole; absent = it was indexed before this was kept.')));
const path = optional(text('Path of the call, where the vendor has several.'));
const accepted = named('AcceptedStage', object('The event was accepted.', { stage: oneOf(['accepted'], 'Stage.'), at, source: text('Source.'), traceId: optional(nullable(text('Trace id (W3C).'))), bytes: count('Bytes on the topic.'), objectKey: optional(text('Key of the object at the sender, keyed where records are sealed.')) }));
const normalized = named('NormalizedStage', object('A canonical record was made of it.', { stage: oneOf(['normalized'], 'Stage.'), at, mapping: text('Mapping.'), release: text('Hash of the release.'), output: text('Output of the mapping.'), outputId: text('Id of the output.'), record: text('Canonical record.', { example: 'weir.canonical.Profile' }), subject: optional(text('Keyed identifier of the person.')), actor: optional(text('Of a change of consent that came by the consent API: who recorded it.', { example: 'token:tok_1b4f0e9851971998' })) }));
const decided = named('DecidedStage', object('The policy decided on it.', {
  stage: oneOf(['decided'], 'Stage.'), at, effect: oneOf(['allow', 'deny', 'hold', 'dead-letter'], 'What was decided.'), destination, outputId: nullable(text('Id of the output.')), operation, rule: nullable(text('Rule that decided.')), purpose: nullable(text('Purpose.')),
  reason: optional(nullable(text('Why not.'))), legalBasis: optional(nullable(text('Legal basis of the purpose, DPV term.'))), consent: list(consentSeen, 'Consent that was looked at.'), release: nullable(text('Hash of the release.')),
  notBefore: optional(epochMs('It waits until then.')), standby: optional(text('Second vendor of the route.')), refused: optional(text('Why it may not go there.')), from: optional(text('First vendor, where this is the second.')),
}));
const attempt = named('AttemptStage', object('A call was made.', { stage: oneOf(['attempt'], 'Stage.'), at, destination, outputId: ofOutput, operation, number: count('Which call it was, from 1.'), verdict: text('What the answer was taken for.', { example: 'retry' }), effect: text('Whether it took effect: none, maybe or done.'), status: nullable(integer('HTTP status of the answer; null = there was none.')), code: optional(nullable(text('Code of docs/errors.md.'))), ms: number('Milliseconds it took.'), path }));
const outcome = named('OutcomeStage', object('It ended.', { stage: oneOf(['outcome'], 'Stage.'), at, destination, outputId: ofOutput, operation, state: text('delivered, denied, dropped, dead-lettered, quarantined, superseded, expired or failed-over.'), reason: nullable(text('Why.')), detail: optional(text('In words.')), attempts: count('Calls that were made.'), status: optional(integer('HTTP status of the last answer.')), to: optional(text('Second vendor that it went on to.')), by: text('Stage that ended it.') }));

export const traceReply = named('Trace', object('What happened to an event.', {
  eventId: text('Event.', { example: 'evt_60303ae22b998861bce3b28f33eec1be' }), traceId: nullable(text('Trace id (W3C).')),
  stages: list(anyOf('A stage of its way.', accepted, normalized, decided, attempt, outcome), 'In the order of the way.'),
}));
/** What happened to an event. */
export type Trace = TypeOf<typeof traceReply>;
