import { allows, everything, type ReleaseFile, type Scope } from '@weir/release';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { ChangedBy } from '../releases.ts';
import { explainReply, type ExplainedEvent } from './explain.ts';
import { heldDelivery, heldReply, heldStates, type HeldApi, type HeldDelivery } from './held.ts';
import { rehearsal, type RehearsalApi } from './rehearsal.ts';

/** What can be asked of policies, and the deliveries that they hold. */
export interface PolicyApi {
  explain(eventId: string, against: 'recorded' | 'current'): Promise<ExplainedEvent>;
  readonly rehearsals: RehearsalApi;
  readonly held: Pick<HeldApi, 'list' | 'decide'>;
}

const id = { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,100}$', description: 'Id of the event, the rehearsal or the held delivery (its dead letter).' };
const idParams = { params: { type: 'object', properties: { id } } };
const idOf = (request: { params: unknown }): string => (request.params as { id: string }).id;
const whole = (): Scope => everything;
const changedBy = (request: FastifyRequest): ChangedBy => ({ actor: request.principal.id, leaf: request.leaf });
const rehearsalBytes = 2 * 1024 * 1024;
const maxSinceMs = 90 * 86_400_000;
const order = {
  type: 'object', additionalProperties: false, required: ['files', 'sinceMs'],
  properties: {
    files: { description: 'The whole workspace.', type: 'array', minItems: 1, maxItems: 600, items: { type: 'object', additionalProperties: false, required: ['path', 'content'], properties: { path: { type: 'string', pattern: '^[a-z0-9][a-z0-9./-]{0,200}$' }, content: { type: 'string', maxLength: 262_144 } } } },
    sinceMs: { type: 'integer', minimum: 1000, maximum: maxSinceMs, description: 'How far back, milliseconds.' },
  },
};

/** GET /v1/events/:id/explain, /v1/rehearsals, /v1/held. */
export function policyRoutes(app: FastifyInstance, ports: { readonly policy: PolicyApi; scopeOf(kind: 'event' | 'letter', id: string): Scope }): void {
  const { policy } = ports;
  app.get<{ Params: { id: string }; Querystring: { release?: 'recorded' | 'current' } }>('/v1/events/:id/explain', { schema: { ...idParams, querystring: { type: 'object', properties: { release: { type: 'string', enum: ['recorded', 'current'], description: 'By which release and at which moment; recorded when absent.' } } } }, config: { replies: { 200: explainReply }, errors: ['not-found'], permission: 'policy.explain', scope: (request) => ports.scopeOf('event', idOf(request)), action: 'event.explain', target: idOf, summary: 'Which rules were looked at for an event, and which decided, with the values that they read.' } }, async (request) => explained(request, await policy.explain(request.params.id, request.query.release ?? 'recorded')));
  /** The scope of the request is of what was recorded; routes may lead elsewhere, too, by another release most of all. */
  function explained(request: FastifyRequest, event: ExplainedEvent): ExplainedEvent {
    const { sources } = ports.scopeOf('event', event.eventId);
    return { ...event, records: event.records.map((record) => ({ ...record, routes: record.routes.filter(({ destination }) => allows(request.principal, 'policy.explain', { sources, destinations: [destination] })) })) };
  }
  app.post<{ Body: { files: ReleaseFile[]; sinceMs: number } }>('/v1/rehearsals', { bodyLimit: rehearsalBytes, schema: { body: order }, config: { replies: { 200: rehearsal }, errors: ['workspace-invalid', 'overloaded'], permission: 'policy.rehearse', scope: whole, action: 'policy.rehearse', target: (request) => `since ${String((request.body as { sinceMs: number }).sinceMs)} ms`, summary: 'Decide history once more by a changed policy; nothing is sent.' } }, async (request) => policy.rehearsals.start(request.body.files, request.body.sinceMs));
  app.get('/v1/rehearsals/:id', { schema: idParams, config: { replies: { 200: rehearsal }, errors: ['not-found'], permission: 'policy.rehearse', scope: whole, summary: 'How far a rehearsal is, and what would be decided otherwise.' } }, async (request) => policy.rehearsals.get(idOf(request)));
  app.delete('/v1/rehearsals/:id', { schema: idParams, config: { replies: { 200: rehearsal }, errors: ['not-found'], permission: 'policy.rehearse', scope: whole, action: 'policy.rehearse.stop', target: idOf, summary: 'Stop a rehearsal.' } }, async (request) => policy.rehearsals.stop(idOf(request)));
  app.get<{ Querystring: { limit?: number; state?: HeldDelivery['state']; after?: string } }>('/v1/held', { schema: { querystring: { type: 'object', properties: { limit: { type: 'integer', minimum: 1, maximum: 10_000, description: '100 when absent.' }, state: { enum: heldStates, description: 'Only those that stand so.' }, after: { type: 'string', pattern: '^[0-9]{16}/.{1,80}$', description: 'Only those behind: `next` of an earlier answer.' } } } }, config: { replies: { 200: heldReply }, permission: 'held.read', scope: whole, summary: 'Deliveries that a rule holds for an approver.' } }, async ({ query }) => policy.held.list(query.limit ?? 100, query.state, query.after));
  for (const [verb, decision] of [['approve', 'approved'], ['refuse', 'refused']] as const) {
    app.post(`/v1/held/:id/${verb}`, { schema: idParams, config: { replies: { 200: heldDelivery }, errors: ['not-found', 'self-approval', 'approval-expired'], permission: 'held.decide', scope: (request) => ports.scopeOf('letter', idOf(request)), action: `held.${verb}`, target: idOf, summary: decision === 'approved' ? 'Let a held delivery through; consent and rules are asked again.' : 'Refuse a held delivery.' } }, async (request) => policy.held.decide(idOf(request), decision, changedBy(request)));
  }
}
