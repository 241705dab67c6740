import { standings, type ReadBackAnswer, type ReplayPreview, type Standing } from '@weir/pipeline';
import { anything, count, epochMs, flag, instant, integer, list, map, named, nullable, number, object, oneOf, optional, text, type JsonSchema, type Schema, type TypeOf } from '@weir/service';
import type { FieldDifference } from './correct.ts';
import { froms, stages } from './order.ts';
import { states } from './orders.ts';

export const answers = ['applied', 'not-applied', 'unknown', 'unreadable'] as const satisfies readonly ReadBackAnswer[];

const preview: Schema<ReplayPreview> = named('ReplayPreview', object('What a replay would do, before it does it.', {
  derived: flag('Mapping and policy of the running release were run to know the deliveries of raw or canonical records.'), release: text('Hash of the running release.'),
  goneBefore: nullable(epochMs('Retention has deleted what was put on the topic before this time; null = the range is whole.')),
  records: count('Selected, each delivery or event once.'), repeated: count('Copies of what was met before: passed over.'), unreadable: count('Bytes that could not be read: passed over.'), held: count('Dead letters that wait for an approver.'),
  fails: count('Of raw records: the running release refuses them still.'), dropped: count('Of raw records: the running release drops them still.'), keyDestroyed: optional(count('Nobody can read them any more.')), goesOn: count('Ended before they were routed; the running release takes them.'),
  deliveries: object('How the deliveries stand (docs/replay.md).', Object.fromEntries(standings.map((standing) => [standing, count('Deliveries that stand so.')])) as Record<Standing, Schema<number>>),
  otherwise: optional(count('Of the denied: policy would send less, or other values, than they carry.')), undecided: optional(count('Of the denied: the record that policy would have to look at is not there.')),
  verified: object('Answers of the vendors about unknown effects; all 0 without verify.', Object.fromEntries(answers.map((answer) => [answer, count('Deliveries with this answer.')])) as Record<ReadBackAnswer, Schema<number>>),
  back: count('Records that would be put back.'),
  calls: list(object('Calls of one operation, batches as full as they may be.', {
    destination: text('Destination.'), operation: text('Operation there.'), calls: count('Calls.'), deliveries: optional(count('Deliveries in them.')), readBacks: optional(count('Questions to the vendor before a call.')), perSecond: nullable(number('The tightest limit; null = none is stated.')), seconds: nullable(number('How long it takes, at least.')),
  }), 'By destination and operation.'),
  limits: optional(list(object('A stated limit.', { account: text('Account.'), bucket: nullable(text('Bucket; null = of the whole account.')), calls: count('Calls that count against it.'), perSecond: number('Its rate.'), seconds: number('How long they take under it.'), windows: number('1 = one whole window of the tightest.') }), 'What they use up of each stated limit.')),
  seconds: nullable(number('The longest of these, or the order\'s own rate; null = without a stated limit.')), differs: count('Of a corrected replay: deliveries that differ.'), approved: optional(count('Of a corrected replay: deliveries that differ, too, and that an approver let through as they were; nothing corrects them.')), fields: map(count('Deliveries.'), 'Of these: by field.'),
}));

const counts = 'What was read (`read`), went meanwhile (`lost`), was selected (`selected`) and put back (`requeued`); the rest was passed over, by its standing.';
const ended = map(count('Deliveries or events.'), 'How what was put back ended, by state.');
interface Report { readonly ended: Readonly<Record<string, number>>; readonly seconds: number; readonly left?: readonly string[]; readonly [standing: string]: number | Readonly<Record<string, number>> | readonly string[] | undefined }
const reportJson: JsonSchema = { type: 'object', description: counts, required: ['ended', 'seconds'], properties: { ended: ended.json, seconds: { type: 'integer', description: 'From its start to its end.' }, left: { type: 'array', items: { type: 'string' }, description: 'Sources and destinations that left the release meanwhile: what was put back for them is not waited for.' } }, additionalProperties: { type: 'integer' } };
const report: Schema<Report> = named('ReplayReport', { json: reportJson });

/** An order as the API tells it. */
export const replayView = named('Replay', object('A replay order: its preview, how far it is, its report.', {
  id: text('Id of the order.', { example: 'rpl_7d793037-a076-4a5a-b2a2-3d1a3e3c6a1f' }), at: nullable(instant('When it was ordered.')), by: text('Who ordered it.'), leaf: text('Its audit leaf.'),
  from: oneOf(froms, 'Where the records are read.'), since: nullable(instant('Put on the topic at or after.')), until: nullable(instant('Put on the topic before.')), source: nullable(text('Source.')), destination: nullable(text('Destination.')), code: nullable(text('Code of the dead letters.')), stage: nullable(oneOf(stages, 'Stage of the dead letters.')), release: nullable(text('Release under which they were decided.')),
  ids: count('Ids that were named.'), subjects: count('Keyed identifiers of the person that was named.'), letters: flag('The ids are of dead letters.'), corrected: flag('Also what was delivered and differs under the running release.'), verify: flag('Vendors are asked about unknown effects.'), unknown: oneOf(['hold', 'resend'], 'What becomes of what stays unknown past the key window.'),
  share: number('Part of the accounts\' quota that asking may use.'), rate: integer('Records a second; 0 = no bound.'), ahead: integer('Records ahead of the stages; 0 = no bound.'), start: flag('It runs without waiting for a start.'),
  state: oneOf(states, 'How far it is.'), changedBy: text('Who changed it last.'), changedAt: nullable(instant('When.')), startedAt: nullable(instant('When it was started.')), finishedAt: nullable(instant('When everything had ended.')), reason: nullable(text('Why it failed, or was stopped.')),
  read: count('Records read of its range.'), total: count('Records of its range.'), counts: map(count('Records or deliveries.'), counts), waitingFor: nullable(text('What the run waits for.')), ended, preview: nullable(preview), report: nullable(report),
}));
export type ReplayView = TypeOf<typeof replayView>;

export const orderedReplay = named('OrderedReplay', object('The order, with others over the same records.', { ...replayView.fields, overlaps: list(object('Another order.', { id: text('Id.'), by: text('Who ordered it.'), state: oneOf(states, 'How far it is.') }), 'Orders that are not ended and may select the same records.') }));
export type OrderedReplay = TypeOf<typeof orderedReplay>;
export const replaysReply = object('Replay orders.', { replays: list(replayView, 'The newest first.') });

const delivery = { eventId: text('Event.'), outputId: text('Id of the output.'), destination: text('Destination.'), operation: text('Operation there.') };
const verifiedDelivery = named('VerifiedDelivery', object('A delivery that the vendor was asked about.', { ...delivery, answer: oneOf(answers, 'What it said; `unreadable` = it cannot be asked.') }));
export type VerifiedDelivery = TypeOf<typeof verifiedDelivery>;
export const verifiedReply = object('Deliveries of unknown effect that the vendor was asked about.', { deliveries: list(verifiedDelivery, 'By name.'), left: count('How many of those asked for come behind the last one.'), next: nullable(text('Give it as `after` for those; null = there are none.')) });
export type VerifiedReply = TypeOf<typeof verifiedReply>;

const difference: Schema<FieldDifference> = named('FieldDifference', object('A delivery that would be corrected.', { ...delivery, fields: list(object('A field that differs.', { field: text('Field.'), before: optional(anything('What was delivered.')), after: optional(anything('What would be.')) }), 'Field by field.') })) as Schema<FieldDifference>;
export const differencesReply = object('What a corrected replay would change.', { differences: list(difference, 'Of its first 50 deliveries.') });
