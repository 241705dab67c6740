import type { FastifyInstance, FastifyRequest } from 'fastify';
import { everything, identifierTypes, nothing, type Scope } from '@weir/release';
import { differencesReply, orderedReplay, answers, replayView, replaysReply, verifiedReply, type OrderedReplay, type ReplayView, type VerifiedReply } from './view.ts';
import type { FieldDifference } from './correct.ts';
import { froms, maxIds, scopeOfNames, stages, type ReplayRequest } from './order.ts';
import type { By } from './runner.ts';

/** What the routes need of replays. */
export interface ReplayApi {
  /** `touches`: of what the dead letters that are named are; undefined = what the request selects by name says it. */
  add(request: ReplayRequest, by: By, touches: Scope | undefined): Promise<OrderedReplay>;
  list(): readonly ReplayView[];
  view(id: string): ReplayView;
  change(id: string, action: 'start' | 'pause' | 'cancel', by: By): Promise<ReplayView>;
  /** Deliveries that the vendor was asked about, with its answer; of those behind `after`, `next` of an earlier answer. */
  answers(id: string, answer: string | undefined, limit: number, after: string | undefined): Promise<VerifiedReply>;
  /** What a corrected order would change, with values. */
  differences(id: string): readonly FieldDifference[];
  letterScope(id: string): Scope;
  /** Sources and destinations of a stored order. */
  scope(id: string): Scope;
}

/** 100,000 ids of 39 characters, and room. */
const orderBytes = 5 * 1024 * 1024;
const text = (maxLength: number) => ({ type: 'string', minLength: 1, maxLength });
const time = { type: 'integer', minimum: 0, maximum: 9_000_000_000_000 };
const order = {
  type: 'object', additionalProperties: false, required: ['from'],
  properties: {
    from: { enum: froms, description: 'Where the records are read.' }, all: { type: 'boolean', description: 'Everything in the topics; else at least one selector is needed.' }, since: { ...time, description: 'Put on the topic at or after, ms.' }, until: { ...time, description: 'Put on the topic before, ms.' },
    source: { ...text(64), description: 'Only of this source.' }, destination: { ...text(64), description: 'Only for this destination.' }, subject: { ...text(500), description: '<type>:<identifier>; kept keyed only.' }, code: { ...text(80), description: 'Dead letters with this code.' }, stage: { enum: stages, description: 'Dead letters of this stage.' }, release: { ...text(20), description: 'Decided under this release.' },
    ids: { type: 'array', maxItems: maxIds, items: text(40), description: 'Ids of events (evt_) or of dead letters (dlq_).' },
    corrected: { type: 'boolean', description: 'Also what was delivered and differs under the running release.' }, verify: { type: 'boolean', description: 'Ask the vendors about unknown effects.' },
    unknown: { enum: ['hold', 'resend'], description: 'What stays unknown past the key window.' }, share: { type: 'number', exclusiveMinimum: 0, maximum: 1, description: 'Part of the accounts\' quota that asking may use; a tenth is left to live traffic in any case.' },
    rate: { type: 'integer', minimum: 0, maximum: 1_000_000, description: 'Records a second; 0 = no bound.' }, ahead: { type: 'integer', minimum: 0, maximum: 10_000_000, description: 'Records ahead of the stages; 0 = no bound.' }, start: { type: 'boolean', description: 'Run without waiting for a start.' },
  },
};
const idOnly = { params: { type: 'object', properties: { id: { type: 'string', pattern: '^rpl_[0-9a-f-]{36}$', description: 'Id of the order.' } } } };
const by = (request: FastifyRequest): By => ({ actor: request.principal.id, leaf: request.leaf });
const idOf = (request: FastifyRequest): string => (request.params as { id: string }).id;
const maxScopedLetters = 1000;

/** What the dead letters that are named are of, together: one that was not routed yet may go to every destination. One that is not known counts as any. Undefined: not (only) letters are named, or too many to look at. */
function lettersScope({ ids, destination }: ReplayRequest, api: ReplayApi): Scope | undefined {
  if (ids === undefined || ids.length === 0 || ids.length > maxScopedLetters || !ids.every((id) => id.startsWith('dlq_'))) return undefined;
  return ids.map((id) => widened(api.letterScope(id), destination)).reduce(union, nothing);
}

function orderScope(request: FastifyRequest, api: ReplayApi): Scope {
  const body = request.body as ReplayRequest;
  return lettersScope(body, api) ?? scopeOfNames(body);
}

const widened = ({ sources, destinations }: Scope, only: string | undefined): Scope => ({ sources: sources.length > 0 ? sources : '*', destinations: destinations.length > 0 ? destinations : only === undefined ? '*' : [only] });

function union(a: Scope, b: Scope): Scope {
  const join = (x: Scope['sources'], y: Scope['sources']): Scope['sources'] => (x === '*' || y === '*' ? '*' : [...new Set([...x, ...y])]);
  return { sources: join(a.sources, b.sources), destinations: join(a.destinations, b.destinations) };
}

/** What the audit leaf says: the selection, without an identifier of a person, in whatever field it stands, and without a long list. Nothing of the request was looked at by then. */
const describe = (request: FastifyRequest): string => {
  const { subject, ids, ...rest } = request.body as ReplayRequest;
  const named = (text: string): string => (/^[a-z][a-z0-9-]*$/.test(text) ? text : 'given');
  const fields = Object.entries(rest).map(([name, value]) => [name, typeof value === 'string' ? named(value) : value]);
  const type = identifierTypes.find((one) => subject?.startsWith(`${one}:`)) ?? 'given';
  return JSON.stringify({ ...Object.fromEntries(fields), ...(subject === undefined ? {} : { subject: type }), ...(ids === undefined ? {} : { ids: ids.length <= 20 ? ids.map((id) => (/^(evt|dlq)_[0-9a-z]+$/.test(id) ? id : 'given')) : `${ids.length} ids` }) }).slice(0, 4000);
};

export function replayRoutes(app: FastifyInstance, api: ReplayApi): void {
  const scope = (request: FastifyRequest): Scope => api.scope(idOf(request));
  app.get('/v1/replays', { config: { replies: { 200: replaysReply }, permission: 'replay.read', scope: () => everything, summary: 'Replay orders, the newest first.' } }, async () => ({ replays: api.list() }));
  app.get('/v1/replays/:id', { schema: idOnly, config: { replies: { 200: replayView }, errors: ['not-found'], permission: 'replay.read', scope, summary: 'A replay order: its preview, how far it is, its report.' } }, async (request) => api.view(idOf(request)));
  app.get<{ Querystring: { answer?: string; limit?: number; after?: string } }>('/v1/replays/:id/verified', { schema: { ...idOnly, querystring: { type: 'object', properties: { answer: { enum: answers, description: 'Only those with this answer.' }, limit: { type: 'integer', minimum: 1, maximum: 100_000, description: '1000 when absent.' }, after: { ...text(200), description: 'Only those behind: `next` of an earlier answer.' } } } }, config: { replies: { 200: verifiedReply }, errors: ['not-found'], permission: 'replay.read', scope, summary: 'Deliveries of unknown effect that the vendor was asked about, by name.' } }, async (request) => api.answers(idOf(request), request.query.answer, request.query.limit ?? 1000, request.query.after));
  app.get('/v1/replays/:id/diff', { schema: idOnly, config: { replies: { 200: differencesReply }, errors: ['not-found'], permission: 'dlq.payload', scope, action: 'replay.diff', target: idOf, summary: 'What a corrected replay would change, field by field: of its first 50 deliveries.' } }, async (request) => ({ differences: api.differences(idOf(request)) }));
  app.post<{ Body: ReplayRequest }>('/v1/replays', { bodyLimit: orderBytes, schema: { body: order }, config: { replies: { 200: orderedReplay }, permission: 'replay.order', scope: (request) => orderScope(request, api), action: 'replay.order', privateBody: (request) => (request.body as ReplayRequest).subject !== undefined, target: describe, summary: 'Order a replay: a preview, and the run when `start` is set.' } }, async (request) => api.add(request.body, by(request), lettersScope(request.body, api)));
  for (const [action, summary] of [['start', 'Run what was previewed, or go on with what was paused.'], ['pause', 'Stop after the records in hand.'], ['cancel', 'Stop for good; what was put back stays.']] as const) {
    app.post(`/v1/replays/:id/${action}`, { schema: idOnly, config: { replies: { 200: replayView }, errors: ['not-found'], permission: 'replay.order', scope, action: `replay.${action}`, target: idOf, summary } }, async (request) => api.change(idOf(request), action, by(request)));
  }
}

