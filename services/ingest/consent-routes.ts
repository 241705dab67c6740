import { catalogue, findWeirError, WeirError, type CatalogueEntry, type ErrorCode } from '@weir/errors';
import type { CompiledPolicy } from '@weir/policy';
import { changesOf, consentOrderSchema, maxOrderBytes, parseOrder, type Principal } from '@weir/release';
import { count, errorFields, flag, integer, list, named, object, oneOf, optional, text } from '@weir/service';
import { childTraceparent } from '@weir/telemetry';
import type { FastifyContextConfig, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { discard, readBody } from './body.ts';
import type { Budget } from './budget.ts';
import { mayOpen, type ConsentAccess } from './consent-access.ts';
import type { ConsentIntake, RecordedConsent, Told } from './consent-intake.ts';
import type { IngestMetrics } from './metrics.ts';
import type { Refusal } from './refusals.ts';
import { answerOf, onPost } from './server.ts';

export interface ConsentRoutePorts {
  readonly access: ConsentAccess;
  readonly intake: ConsentIntake;
  readonly policy: () => CompiledPolicy;
  /** False: this principal asks too often. */
  readonly rate: (principal: string) => boolean;
  readonly budget: Budget;
  readonly metrics: IngestMetrics;
  readonly refused: (refusal: Refusal) => void;
  readonly monotonic: () => number;
  /** Longest wait of one request, ms. */
  readonly maxWaitMs: number;
}

/** Requests that wait at one time: each holds a socket and a place among those woken by every report. */
const maxWaiting = 2000;
/** What a request may hold until its change is recorded, and while it waits. */
const heldBytes = 32 * 1024;
const waitingBytes = 4 * 1024;
const keyPattern = /^[\x21-\x7e]{1,200}$/;

const recordedFields = {
  id: text('Id of the change: its event; of a change for every purpose that of the first.', { example: 'evt_60303ae22b998861bce3b28f33eec1be' }), offset: integer('Offset of the first record on weir.consent.changes.'),
  offsets: list(object('A record of the change.', { partition: count('Partition of weir.consent.changes.'), offset: count('Offset there.') }), 'Every record of it.'), waitedMs: count('Milliseconds from the request to this answer.'),
  changes: optional(list(object('The change of one purpose.', { purpose: text('Purpose; `*` = every one.'), id: text('Its id.') }), 'Of a change for every purpose.')),
};
const appliedReply = named('ConsentApplied', object('Recorded, and applied: no `use` call that it forbids starts any more.', { ...recordedFields, state: oneOf(['applied'], 'How far it is.'), opened: optional(flag('Of a grant: false = every instance has it, and it opened nothing, because a no that stands keeps it closed (it is newer, of a source that this one may not lift, or to every purpose). Absent = it stands.')) }));
const pendingReply = named('ConsentPending', object('Recorded; nobody can say yet that it is applied everywhere, or that was not asked for.', { ...recordedFields, state: oneOf(['pending'], 'How far it is.') }));
const supersededReply = named('ConsentSuperseded', object('Recorded, and a grant that came after it has opened again what it closed.', { ...errorFields, ...recordedFields, state: oneOf(['superseded'], 'How far it is.') }));
const header = (name: string, description: string) => ({ name, in: 'header', required: false, description, schema: { type: 'string' } });

/** As the document has it. */
const consentRoute = (): FastifyContextConfig => ({
  tag: 'consent', summary: 'Record a change of consent.', replies: { 200: appliedReply, 202: pendingReply, 409: supersededReply },
  errors: ['unauthorized', 'forbidden', 'body-malformed', 'body-too-deep', 'body-too-large', 'encoding-unsupported', 'overloaded', 'log-unavailable', 'issuer-unavailable', 'secret-unavailable'],
  inputs: {
    description: 'Permission consent.write; what is no denial or withdrawal needs it over every source and destination. Answered when the log has the change. See docs/consent.md.', security: ['bearer', 'oidc'],
    parameters: [
      { name: 'wait', in: 'query', required: false, description: 'applied: answer when the change is applied everywhere, 202 when that is not known in time.', schema: { type: 'string', enum: ['applied'] } },
      { name: 'timeout', in: 'query', required: false, description: 'Longest wait in milliseconds; at most, and when absent, WEIR_CONSENT_WAIT_MS.', schema: { type: 'integer', minimum: 0 } },
      header('idempotency-key', '1 to 200 visible characters: the same key with the same order is the same change, unless a grant has undone a no in between.'), header('traceparent', 'W3C trace context; the trace goes on with it.'),
    ],
    body: { types: ['application/json'], description: 'At most 16 KiB.', schema: consentOrderSchema, example: { identifiers: { email: 'ann@example.com' }, purpose: 'marketing', channel: 'email', state: 'withdrawn' } },
  },
});

/** `?wait=applied` and `&timeout=<ms>`; anything else is refused, so that a typo is not an answer that says less. */
function waitOf(url: string, maxWaitMs: number): number {
  const query = new URLSearchParams(url.split('?', 2)[1] ?? '');
  const unknown = [...query.keys()].find((name) => name !== 'wait' && name !== 'timeout');
  if (unknown !== undefined) throw new WeirError('bad-request', 'the query takes wait=applied and timeout=<ms>');
  const wait = query.get('wait');
  if (wait !== null && wait !== 'applied') throw new WeirError('bad-request', 'wait: expected applied');
  const timeout = query.get('timeout');
  if (timeout !== null && (!/^\d{1,6}$/.test(timeout) || Number(timeout) > maxWaitMs)) throw new WeirError('bad-request', `timeout: expected milliseconds up to ${maxWaitMs}`);
  return wait === null ? 0 : timeout === null ? maxWaitMs : Number(timeout);
}

/** `POST /v1/consent`: record a change; with `?wait=applied` answer 200 once it is applied everywhere, 409 when a later grant undid it, else 202. */
export function registerConsent(app: FastifyInstance, ports: ConsentRoutePorts): void {
  let waiting = 0;

  /** Its change on the log, and how long to wait for what comes of it. What of the order is not needed for that is let go of. */
  async function take(request: FastifyRequest, principal: Principal): Promise<{ readonly recorded: readonly RecordedConsent[]; readonly purposes: readonly string[]; readonly waitMs: number }> {
    if (!ports.rate(principal.id)) throw new WeirError('overloaded', 'too many changes by this token');
    const waitMs = waitOf(request.raw.url ?? '', ports.maxWaitMs);
    const key = request.headers['idempotency-key'];
    if (key !== undefined && (typeof key !== 'string' || !keyPattern.test(key))) throw new WeirError('bad-request', 'Idempotency-Key: expected 1 to 200 visible characters');
    const order = parseOrder(await readBody(request.raw, maxOrderBytes, () => undefined), ports.policy());
    if (order.state !== 'withdrawn' && order.state !== 'denied' && !mayOpen(principal)) throw new WeirError('forbidden', `state: a token that is limited to some sources or destinations records withdrawn and denied, not ${order.state}, which would hold at all of them`);
    const traceparent = childTraceparent(request.headers['traceparent'] as string | undefined);
    const context = { source: 'consent-api', actor: principal.id, traceparent, ...(key === undefined ? {} : { key: `${principal.id}/${key}` }) };
    const changes = changesOf(order, ports.policy());
    return { recorded: await Promise.all(changes.map((change) => ports.intake(change, context))), purposes: changes.map(({ purpose }) => purpose), waitMs };
  }

  async function answer(reply: FastifyReply, { recorded, purposes, waitMs }: Awaited<ReturnType<typeof take>>, began: number): Promise<FastifyReply> {
    const offsets = recorded.flatMap((change) => change.offsets);
    let told: Told = 'pending';
    if (waitMs > 0 && waiting < maxWaiting) {
      waiting++;
      try {
        const left = waitMs - (ports.monotonic() - began);
        const states = await Promise.all(recorded.map((change) => change.applied(left)));
        told = (['superseded', 'pending', 'unopened'] as const).find((one) => states.includes(one)) ?? 'applied';
      } finally {
        waiting--;
      }
    }
    const waitedMs = Math.round(ports.monotonic() - began);
    const state = told === 'unopened' ? 'applied' : told;
    if (state === 'applied') ports.metrics.consentApplied.observe(waitedMs / 1000);
    ports.metrics.requests.inc({ source: 'consent-api', result: 'ok' });
    const superseded = state === 'superseded' ? answerOf('consent-superseded', catalogue['consent-superseded'].meaning) : {};
    const each = purposes.length === 1 ? {} : { changes: purposes.map((purpose, i) => ({ purpose, id: recorded[i]!.id })) };
    return reply.code(state === 'applied' ? 200 : state === 'pending' ? 202 : catalogue['consent-superseded'].http).send({ ...superseded, id: recorded[0]!.id, state, offset: offsets[0]!.offset, offsets, waitedMs, ...(told === 'unopened' ? { opened: false } : {}), ...each });
  }

  onPost(app, '/v1/consent', consentRoute(), async (request, reply) => {
    try {
      const began = ports.monotonic();
      // Before it holds anything: an issuer that hangs must not fill the budget with tokens that are none.
      const principal = await ports.access.authorize(request.headers.authorization);
      if (!ports.budget.take(heldBytes)) throw new WeirError('overloaded');
      let held = heldBytes;
      try {
        const taken = await take(request, principal);
        ports.budget.give(heldBytes - waitingBytes);
        held = waitingBytes;
        return await answer(reply, taken, began);
      } finally {
        ports.budget.give(held);
      }
    } catch (error) {
      return reply.send(refuse(request, reply, error));
    }
  });

  function refuse(request: FastifyRequest, reply: FastifyReply, error: unknown): ReturnType<typeof answerOf> {
    const known = findWeirError(error);
    const declared = known !== undefined && (catalogue[known.code] as CatalogueEntry).http !== undefined;
    const code: ErrorCode = declared ? known.code : known === undefined ? 'invariant-broken' : 'log-unavailable';
    const status = (catalogue[code] as CatalogueEntry).http!;
    ports.metrics.requests.inc({ source: 'consent-api', result: code });
    ports.refused({ source: 'consent-api', code, status, error });
    discard(request.raw);
    if (status === 429 || status === 503) reply.header('retry-after', status === 429 ? '1' : '2');
    reply.code(status);
    return answerOf(code, status < 500 ? known?.message : undefined);
  }
}
