import { Readable } from 'node:stream';
import { count, flag, instant, list, named, nullable, object, oneOf, text, type TypeOf } from '@weir/service';
import type { FastifyInstance } from 'fastify';
import { erasureStates, markOf, type Erasure } from './erasure-receipt.ts';
import type { Erasures } from './erasure.ts';
import { everything, parseIdentifier } from '@weir/release';
import { exportLines, exportReply, type ExportClock } from './subject-export.ts';
import { decisionsReply, leftOutList, subjectReply, type Follow, type Subjects } from './subjects.ts';

const whole = () => everything;
const body = { type: 'object', additionalProperties: false, required: ['identifier'], properties: { identifier: { type: 'string', minLength: 3, maxLength: 500, description: 'An identifier as every command takes it, `<type>:<value>`, or an e-mail address.' } } } as const;
const linked = { type: 'string', enum: ['trusted', 'all'], description: 'Which links make the person: `trusted` (when absent) those that a trusted source said, `all` also those that only sources with `identityLinks: untrusted` said.' } as const;
const person = { ...body, properties: { ...body.properties, linked } };
const order = { ...body, properties: { ...body.properties, linked, deadlineDays: { type: 'integer', minimum: 1, maximum: 366, description: 'Days that destinations have; 30 when absent.' }, force: { type: 'boolean', description: 'Go on also where nobody is known by what was given.' } } };
const ask = { ...body, properties: { ...body.properties, destination: { type: 'string', pattern: '^[a-z0-9][a-z0-9-]{0,62}$', description: 'Only those of this one.' }, limit: { type: 'integer', minimum: 1, maximum: 1000, description: '50 when absent.' } } };
const id = { type: 'object', properties: { id: { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,100}$', description: 'Id of the erasure.' } } };
const day = 86_400_000;
/** GDPR article 12(3): "without undue delay and in any event within one month". */
const defaultDays = 30;

const iso = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString());

const erasureView = named('Erasure', object('The receipt of an erasure.', {
  id: text('Id of the erasure: its audit leaf.'), ids: list(text('Keyed identifier.'), 'Identifiers that are erased.'), by: text('Who ordered it.'), state: oneOf(erasureStates, 'How far it is; erased = nothing of the person can be read here; done = every destination has ended, too (docs/erasure.md).'),
  orderedAt: instant('When it was ordered.'), markedAt: nullable(instant('What was accepted until then is erased; null before the mark.')), stoppedAt: nullable(instant('From then on nothing is sent.')), erasedAt: nullable(instant('When it was acknowledged.')),
  keysDestroyed: count('Keys that are destroyed, counted before they go.'), recordsUnreadable: count('Records that nobody can read any more.'), recordsReadable: count('Records of before the mark that can be read still; none once it is acknowledged.'),
  readableUntil: nullable(instant('When retention has taken those.')), rawUntil: nullable(instant('When the last sealed raw key is destroyed, at the latest; null = not as far as is known.')), wordsUntil: nullable(instant('When the words (proof, notice, jurisdiction) of states of consent, withdrawn before the acknowledgement, have left weir.consent by compaction, at the latest; null = not acknowledged, or the brokers do not say.')),
  deadline: nullable(instant('Until when the destinations have to have erased.')),
  eventId: nullable(text('Event by which the destinations are told.')),
  destinations: list(object('A destination.', { destination: text('Destination.'), operation: nullable(text('Operation, `<name> (by <type>:…)` where it is told once more by a further identifier; null = it has none that erases.')), state: text('pending, late, not-asked, or how the delivery ended.'), at: nullable(instant('When.')) }), 'Those that are told.'),
  onlyGiven: flag('More than 64 identifiers are linked to those given: only those are erased.'), forced: flag('It goes on also where nobody is known by what was given.'), known: flag('Somebody was known by what was given.'),
  unnamed: list(text('Type of an identifier.'), 'Linked identifiers that destinations are not told, each once.'),
  everyLink: flag('It follows also links that only sources with `identityLinks: untrusted` said.'), leftOut: leftOutList,
}));
const orderedErasure = named('OrderedErasure', object('The receipt as it is, of a new erasure or of one that was under way.', { ...erasureView.fields, joined: flag('It is one that was ordered before and covers this order.'), underWay: list(text('Id.'), 'Other erasures of the person that are not acknowledged.') }));

/** A receipt as it is shown: times in ISO 8601, the sealed identifiers left out. @param wordsKept of `SubjectRoutePorts` */
function shownErasure({ sealed: _sealed, ...erasure }: Erasure, wordsKept: number | null): TypeOf<typeof erasureView> {
  return {
    ...erasure, orderedAt: new Date(erasure.orderedAt).toISOString(), markedAt: iso(markOf(erasure)), stoppedAt: iso(erasure.stoppedAt), erasedAt: iso(erasure.erasedAt), rawUntil: iso(erasure.rawUntil), readableUntil: iso(erasure.readableUntil), wordsUntil: iso(erasure.erasedAt === null || wordsKept === null ? null : erasure.erasedAt + wordsKept), deadline: iso(erasure.deadline),
    destinations: erasure.destinations.map((part) => ({ ...part, at: iso(part.at) })),
  };
}

export interface SubjectRoutePorts {
  readonly subjects: () => Subjects;
  /** For exports, which hold up no other search. */
  readonly exports: () => Subjects;
  readonly clock: ExportClock;
  readonly erasures: () => Erasures;
  /** For how long what was written over on weir.consent stands there still, at most, ms; null = the brokers do not say. */
  readonly wordsKept: () => Promise<number | null>;
}

/**
 * What is known of a person, and its erasure. The identifier comes in the body, so that it stands in no access log, and the
 * audit leaf says that somebody looked, not at whom by a hash that can be guessed (`privateBody`).
 */
export function subjectRoutes(app: FastifyInstance, ports: SubjectRoutePorts): void {
  type Asked = { Body: { identifier: string; deadlineDays?: number; force?: boolean; destination?: string; limit?: number; linked?: Follow } };
  app.post<Asked>('/v1/subjects/show', { schema: { body: person }, config: { replies: { 200: subjectReply }, permission: 'subject.read', scope: whole, action: 'subject.show', privateBody: true, summary: 'What Weir knows of a person, in short.' } }, async (request) => ports.subjects().summary(parseIdentifier(request.body.identifier), request.body.linked ?? 'trusted'));
  app.post<Asked>('/v1/subjects/decisions', { schema: { body: ask }, config: { replies: { 200: decisionsReply }, permission: 'subject.read', scope: whole, action: 'subject.decisions', privateBody: true, summary: 'What was decided about a person, the newest first, and why.' } }, async (request) => {
    const { identifier, destination, limit = 50 } = request.body;
    return ports.subjects().decisions(parseIdentifier(identifier), destination, limit);
  });
  app.post<Asked>('/v1/subjects/export', { schema: { body: person }, config: { replies: { 200: exportReply }, permission: 'subject.read', scope: whole, action: 'subject.export', privateBody: true, summary: 'Every canonical record and change of consent of a person, its states of consent, where something was delivered, what links keep of it and where it was last said to be, as NDJSON.' } }, async (request, reply) => {
    const subjects = ports.exports();
    const found = await subjects.resolve(parseIdentifier(request.body.identifier), request.body.linked ?? 'trusted');
    return reply.type('application/x-ndjson').send(Readable.from(exportLines(subjects, found, ports.clock)));
  });
  app.post<Asked>('/v1/subjects/erase', { schema: { body: order }, config: { replies: { 202: orderedErasure }, permission: 'erasure.order', scope: whole, action: 'subject.erase', privateBody: true, summary: 'Erase a person: answered once the order is written, or with one that is under way; poll the erasure for its receipt.' } }, async (request, reply) => {
    const { identifier, deadlineDays = defaultDays, force = false, linked = 'trusted' } = request.body;
    const { erasure, joined, underWay } = await ports.erasures().order(parseIdentifier(identifier), { by: request.principal.id, leaf: request.leaf, deadlineMs: deadlineDays * day, forced: force, everyLink: linked === 'all' });
    return reply.code(202).send({ ...shownErasure(erasure, await ports.wordsKept()), joined, underWay });
  });
  app.get('/v1/erasures', { config: { replies: { 200: object('Erasures.', { erasures: list(erasureView, 'The newest 1000, the newest first.') }) }, permission: 'subject.read', scope: whole, summary: 'Erasures, newest first.' } }, async () => {
    const kept = await ports.wordsKept();
    return { erasures: ports.erasures().list().slice(0, 1000).map((erasure) => shownErasure(erasure, kept)) };
  });
  app.get<{ Params: { id: string } }>('/v1/erasures/:id', { schema: { params: id }, config: { replies: { 200: erasureView }, errors: ['not-found'], permission: 'subject.read', scope: whole, summary: 'The receipt of an erasure.' } }, async (request) => shownErasure(ports.erasures().get(request.params.id), await ports.wordsKept()));
}
