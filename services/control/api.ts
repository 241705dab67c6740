import { randomUUID } from 'node:crypto';
import { catalogue, findWeirError, WorkspaceError, type CatalogueEntry, type ErrorCode } from '@weir/errors';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import { installAccess, type DeclaredRoute } from './access.ts';
import { checkpointReply, consistencyReply, leavesReply, proofReply, type AuditLog } from './audit.ts';
import type { Authenticate } from '@weir/service/authenticate';
import type { Erasures } from './erasure.ts';
import { heldDeliveryRoutes, type HeldDeliveries } from './deliveries.ts';
import { documentReply, openApi } from './openapi.ts';
import { policyRoutes, type PolicyApi } from './policy/routes.ts';
import { replayRoutes, type ReplayApi } from './replay/routes.ts';
import { letterReply, lettersReply, statsReply, type LetterApi, type LetterFilter } from './letters.ts';
import { appliedReply, proposedReply, releasesReply, runningRelease, shortRelease, topicsReply, type ChangedBy, type ReleaseApi, type ReleaseOrder } from './releases.ts';
import { statusReply, type Status } from './status.ts';
import { tailReply } from './tail.ts';
import { traceReply, type Trace } from './trace.ts';
import { everything, nothing, type Scope } from '@weir/release';
import { healthReply, metricsReply, readinessReply, type TypeOf } from '@weir/service';
import { consentRoutes, type ConsentLookup } from './consent.ts';
import { consentPreviewRoute, type ConsentPreview } from './consent-preview.ts';
import { consentReceiptRoutes, type ConsentReceipts } from './consent-receipts.ts';
import { subjectRoutes } from './subject-routes.ts';
import type { ExportClock } from './subject-export.ts';
import type { Subjects } from './subjects.ts';
import { switchRoutes, type SwitchApi } from './switches.ts';
import { issuedToken, proposalsReply, revokedToken, tokensReply, type Access } from './tokens.ts';
import { vaultRoutes } from './vault-changes.ts';

export interface ApiPorts {
  readonly authenticate: Authenticate;
  readonly audit: () => AuditLog;
  readonly access: Access;
  /** The end leaf of a change could not be written. */
  readonly endFailed: (error: unknown, leaf: string) => void;
  /** An error that nobody declared; the answer has its id and not its words. */
  readonly unexpected: (error: unknown, id: string) => void;
  /** A release is applied only after another person approved it. */
  readonly approval: boolean;
  /** Sources and destinations of an event or a dead letter; everything when it is not known. */
  scopeOf(kind: 'event' | 'letter', id: string): Scope;
  status(): Promise<Status>;
  trace(eventId: string): Trace;
  readonly letters: LetterApi;
  readonly replays: ReplayApi;
  release(): TypeOf<typeof shortRelease>;
  readonly consent: ConsentLookup;
  readonly consentPreview: ConsentPreview;
  readonly consentReceipts: ConsentReceipts;
  readonly releases: ReleaseApi;
  readonly policy: PolicyApi;
  readonly switches: SwitchApi;
  readonly deliveries: HeldDeliveries;
  readonly subjects: () => Subjects;
  readonly exports: () => Subjects;
  readonly clock: ExportClock;
  readonly erasures: () => Erasures;
  /** For how long what was written over on weir.consent stands there still, at most, ms; null = the brokers do not say. */
  readonly wordsKept: () => Promise<number | null>;
  /** Next events from a cursor on; long-polls up to `waitMs`. */
  tail(after: number, waitMs: number): Promise<TypeOf<typeof tailReply>>;
  /** Issuer of OIDC tokens; undefined = none are taken. */
  readonly oidcIssuer?: string;
  readonly metrics: () => Promise<string>;
  readonly readiness: () => { ready: boolean; reason?: string };
}

const idPattern = '^[a-zA-Z0-9_-]{1,100}$';
const changedBy = (request: FastifyRequest): ChangedBy => ({ actor: request.principal.id, leaf: request.leaf });
const whole = (): Scope => everything;
const none = (): Scope => nothing;

/** The control API. Every route under /v1 declares its permission, scope and, when it changes something or shows a person in the clear, its audit action (access.ts); errors are `{ error, message }`. */
export function createApi(ports: ApiPorts): FastifyInstance & { readonly declaredRoutes: readonly DeclaredRoute[] } {
  const app = Fastify({ bodyLimit: 256 * 1024, logger: false, requestTimeout: 60_000, forceCloseConnections: true });
  const declaredRoutes = installAccess(app, ports);
  app.get('/healthz', { config: { public: true, summary: 'Whether the process answers.', replies: { 200: healthReply } } }, async () => ({ status: 'ok' }));
  app.get('/readyz', { config: { public: true, summary: 'Whether requests can be taken now.', replies: { 200: readinessReply, 503: readinessReply } } }, async (_request, reply) => {
    const readiness = ports.readiness();
    return reply.code(readiness.ready ? 200 : 503).send(readiness);
  });
  app.get('/metrics', { config: { public: true, summary: 'Metrics.', replies: { 200: metricsReply } } }, async (_request, reply) => reply.type('text/plain; version=0.0.4').send(await ports.metrics()));
  app.setErrorHandler((error: Error & { statusCode?: number; validation?: unknown }, _request, reply: FastifyReply) => {
    const known = findWeirError(error);
    const code: ErrorCode = known?.code ?? (error.validation !== undefined || (error.statusCode ?? 500) < 500 ? 'bad-request' : 'log-unavailable');
    const entry: CatalogueEntry = catalogue[code];
    const status = known === undefined ? (error.statusCode ?? 503) : (entry.http ?? 503);
    return reply.code(status).send({ error: code, message: known === undefined && status >= 500 ? hidden(error) : known?.message ?? error.message, ...(known instanceof WorkspaceError ? { problems: known.problems } : {}) });
  });
  /** What went wrong below is for the log: its words may hold an address, a path or a value. */
  function hidden(error: unknown): string {
    const id = `err_${randomUUID()}`;
    ports.unexpected(error, id);
    return `an error that was not expected: ${id} in the log of the control service`;
  }
  app.setNotFoundHandler((_request, reply) => reply.code(404).send({ error: 'not-found', message: 'no such route' }));
  routes(app, ports);
  replayRoutes(app, ports.replays);
  releaseRoutes(app, ports);
  policyRoutes(app, ports);
  consentRoutes(app, ports.consent);
  consentPreviewRoute(app, ports.consentPreview);
  consentReceiptRoutes(app, ports.consentReceipts, ports.scopeOf);
  switchRoutes(app, ports.switches);
  heldDeliveryRoutes(app, ports.deliveries, ports.scopeOf);
  accessRoutes(app, ports);
  auditRoutes(app, ports);
  subjectRoutes(app, ports);
  vaultRoutes(app);
  app.get('/v1/openapi.json', { config: { permission: 'status.read', scope: none, summary: 'This document.', replies: { 200: documentReply } } }, async () => openApi(declaredRoutes, ports.oidcIssuer));
  return Object.assign(app, { declaredRoutes });
}

/** OpenAPI 3.1 of everything that control serves: the routes are added as in the service, and none is called. */
export const controlDocument = (): Readonly<Record<string, unknown>> => openApi(createApi({} as ApiPorts).declaredRoutes);

function routes(app: FastifyInstance, ports: ApiPorts): void {
  const idParams = { params: { type: 'object', properties: { id: { type: 'string', pattern: idPattern, description: 'Id of the event or the dead letter.' } } } };
  app.get('/v1/status', { config: { replies: { 200: statusReply }, permission: 'status.read', scope: none, summary: 'Counts of events, deliveries and dead letters, and lag.' } }, async () => ports.status());
  app.get('/v1/release', { config: { replies: { 200: shortRelease }, permission: 'status.read', scope: none, summary: 'The running release in short.' } }, async () => ports.release());
  app.get<{ Params: { id: string } }>('/v1/events/:id/trace', { schema: idParams, config: { replies: { 200: traceReply }, errors: ['not-found'], permission: 'trace.read', scope: (request) => ports.scopeOf('event', (request.params as { id: string }).id), summary: 'What happened to an event.' } }, async (request) => ports.trace(request.params.id));
  app.get<{ Querystring: { after?: number; wait?: number } }>('/v1/tail', { config: { replies: { 200: tailReply }, permission: 'trace.read', scope: whole, summary: 'Records after a cursor.' }, schema: { querystring: { type: 'object', properties: { after: { type: 'integer', minimum: 0, description: 'Cursor of the answer before; absent = only the cursor is given.' }, wait: { type: 'integer', minimum: 0, maximum: 30_000, description: 'Milliseconds that are waited for the first record; 0 when absent.' } } } } }, async (request) => ports.tail(request.query.after ?? -1, request.query.wait ?? 0));
  app.get<{ Params: { id: string } }>('/v1/dlq/:id', { schema: idParams, config: { replies: { 200: letterReply }, errors: ['not-found'], permission: 'dlq.payload', scope: (request) => ports.scopeOf('letter', (request.params as { id: string }).id), action: 'dlq.show', target: (request) => (request.params as { id: string }).id, summary: 'A dead letter with its bytes.' } }, async (request) => ports.letters.show(request.params.id));
  const only = (description: string) => ({ type: 'string', minLength: 1, maxLength: 80, description });
  const counted = { stage: only('Only of this stage.'), code: only('Only with this code of docs/errors.md.'), destination: only('Only for this destination.'), release: only('Only under this release.') };
  const filter = { ...counted, source: only('Only of this source.') };
  const time = (description: string) => ({ type: 'integer', minimum: 0, maximum: 9_000_000_000_000, description });
  app.get<{ Querystring: LetterFilter & { limit?: number; after?: string } }>('/v1/dlq', { config: { replies: { 200: lettersReply }, permission: 'dlq.read', scope: letterScope, summary: 'Dead letters, the newest first.' }, schema: { querystring: { type: 'object', properties: { limit: { type: 'integer', minimum: 1, maximum: 10_000, description: '100 when absent.' }, after: { type: 'string', pattern: '^[0-9]{16}/.{1,80}$', description: 'Only those behind: `next` of an earlier answer.' }, since: time('Died at or after, milliseconds since the epoch.'), until: time('Died before.'), open: { type: 'boolean', description: 'Only those whose record has not gone through since.' }, ...filter } } } }, async ({ query: { limit = 100, after, ...asked } }) => ports.letters.list(limit, asked, after));
  app.get<{ Querystring: LetterFilter }>('/v1/dlq/stats', { config: { replies: { 200: statsReply }, permission: 'dlq.read', scope: statsScope, summary: 'Dead letters by stage, code, destination and release.' }, schema: { querystring: { type: 'object', properties: counted } } }, async (request) => ports.letters.stats(request.query));
}

const releaseBytes = 2 * 1024 * 1024;
const releaseOrder = {
  type: 'object', additionalProperties: false, required: ['files'],
  properties: {
    files: { description: 'The whole workspace.', type: 'array', minItems: 1, maxItems: 600, items: { type: 'object', additionalProperties: false, required: ['path', 'content'], properties: { path: { type: 'string', pattern: '^[a-z0-9][a-z0-9./-]{0,200}$' }, content: { type: 'string', maxLength: 262_144 } } } },
    message: { type: ['string', 'null'], maxLength: 2000, description: 'What is said of it.' },
  },
};

/** What was asked for by name; else any of them. */
function letterScope(request: FastifyRequest): Scope {
  const { source, destination } = request.query as LetterFilter;
  return { sources: source === undefined ? '*' : [source], destinations: destination === undefined ? '*' : [destination] };
}

/** Letters are not counted by source. */
const statsScope = (request: FastifyRequest): Scope => ({ ...letterScope(request), sources: '*' });

function releaseRoutes(app: FastifyInstance, ports: ApiPorts): void {
  const { releases, access } = ports;
  app.get('/v1/releases', { config: { replies: { 200: releasesReply }, permission: 'release.read', scope: whole, summary: 'All releases.' } }, async () => ({ releases: await releases.list() }));
  app.get('/v1/releases/current', { config: { replies: { 200: runningRelease }, permission: 'release.read', scope: whole, summary: 'The running release with its files.' } }, async () => releases.current());
  app.post<{ Body: ReleaseOrder }>('/v1/releases', { bodyLimit: releaseBytes, schema: { body: releaseOrder }, config: { replies: { 200: proposedReply }, errors: ['workspace-invalid'], permission: 'release.propose', scope: whole, action: 'release.apply', summary: 'Apply a release, or propose it where approval is required.' } }, async (request) => {
    if (!ports.approval) return releases.apply(request.body, changedBy(request), null);
    const { hash } = releases.check(request.body);
    const { id } = await access.propose({ hash, files: request.body.files, message: request.body.message ?? null }, request.principal.id, request.leaf);
    return { hash, changed: false, topicsCreated: [], proposal: id };
  });
  app.get('/v1/proposals', { config: { replies: { 200: proposalsReply }, permission: 'release.read', scope: whole, summary: 'Proposed releases.' } }, async () => ({ proposals: access.proposals().map(({ files: _files, leaf: _leaf, ...rest }) => rest) }));
  app.post<{ Params: { id: string } }>('/v1/proposals/:id/approve', { schema: idOnly, config: { replies: { 200: appliedReply }, errors: ['not-found', 'self-approval', 'workspace-invalid'], permission: 'release.approve', scope: whole, action: 'release.approve', target: (request) => (request.params as { id: string }).id, summary: 'Approve what somebody else proposed; it is applied.' } }, async (request) => {
    const proposal = access.approvable(request.params.id, request.principal.id);
    const done = await releases.apply(proposal, changedBy(request), proposal.proposedBy);
    await access.approved(proposal, request.principal.id, request.leaf);
    return done;
  });
  app.get('/v1/topics/check', { config: { replies: { 200: topicsReply }, permission: 'status.read', scope: none, summary: 'Topics against their declaration.' } }, async () => releases.topics(false));
  app.post('/v1/topics/apply', { config: { replies: { 200: topicsReply }, permission: 'topics.apply', scope: whole, action: 'topics.apply', summary: 'Create missing topics.' } }, async () => releases.topics(true));
}

const idOnly = { params: { type: 'object', properties: { id: { type: 'string', pattern: idPattern, description: 'Id of the proposal, the token or the audit leaf.' } } } };

function accessRoutes(app: FastifyInstance, { access }: ApiPorts): void {
  const order = { type: 'object', additionalProperties: false, required: ['name', 'grants', 'days'], properties: { name: { type: 'string', minLength: 1, maxLength: 100, description: 'What it is for.' }, grants: { type: 'array', minItems: 1, maxItems: 20, items: { type: 'string', maxLength: 500 }, description: '`<role>` or `<role>@<source>:<destination>`, each.' }, days: { type: 'integer', minimum: 1, maximum: 366, description: 'Days until it ends.' } } };
  app.get('/v1/tokens', { config: { replies: { 200: tokensReply }, permission: 'token.read', scope: whole, summary: 'API tokens, without the tokens themselves.' } }, async () => ({ tokens: access.tokens() }));
  app.post<{ Body: { name: string; grants: string[]; days: number } }>('/v1/tokens', { schema: { body: order }, config: { replies: { 200: issuedToken }, permission: 'token.manage', scope: whole, action: 'token.issue', target: (request) => { const { name, grants } = request.body as { name: string; grants: string[] }; return `${name}: ${grants.join(' ')}`.slice(0, 4000); }, summary: 'Issue an API token; it is shown once.' } }, async (request) => access.issue(request.body, request.principal.id, request.leaf));
  app.delete<{ Params: { id: string } }>('/v1/tokens/:id', { schema: idOnly, config: { replies: { 200: revokedToken }, errors: ['not-found'], permission: 'token.manage', scope: whole, action: 'token.revoke', target: (request) => (request.params as { id: string }).id, summary: 'Revoke an API token.' } }, async (request) => access.revoke(request.params.id, request.leaf));
}

function auditRoutes(app: FastifyInstance, { audit }: ApiPorts): void {
  const from = { type: 'integer', minimum: 0, maximum: 2 ** 31, description: 'Place of the first leaf; of a consistency proof: leaves of the older tree.' };
  app.get<{ Querystring: { from?: number; limit?: number } }>('/v1/audit/leaves', { schema: { querystring: { type: 'object', properties: { from, limit: { type: 'integer', minimum: 1, maximum: 1000, description: '100 when absent.' } } } }, config: { replies: { 200: leavesReply }, permission: 'audit.read', scope: whole, summary: 'Leaves of the audit log, with the bytes that are hashed.' } }, async (request) => audit().leaves(request.query.from ?? 0, request.query.limit ?? 100));
  app.get('/v1/audit/checkpoint', { config: { replies: { 200: checkpointReply }, permission: 'audit.read', scope: whole, summary: 'The signed checkpoint over all leaves.' } }, async () => audit().checkpoint());
  app.get<{ Params: { id: string } }>('/v1/audit/leaves/:id/proof', { schema: idOnly, config: { replies: { 200: proofReply }, errors: ['not-found', 'audit-broken'], permission: 'audit.read', scope: whole, summary: 'Proof that a leaf is in the log.' } }, async (request) => audit().proof(request.params.id));
  app.get<{ Querystring: { from: number } }>('/v1/audit/consistency', { schema: { querystring: { type: 'object', required: ['from'], properties: { from } } }, config: { replies: { 200: consistencyReply }, permission: 'audit.read', scope: whole, summary: 'Proof that the first leaves are the beginning of all.' } }, async (request) => audit().consistency(request.query.from));
}
