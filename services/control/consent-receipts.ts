import { WeirError } from '@weir/errors';
import type { Appender, Serde } from '@weir/log';
import { consentRecord } from '@weir/mapping';
import { apiSource, deliveryOfStage, endsOf, H, type TopicNames } from '@weir/pipeline';
import { everything, parseIdentifier, type Release, type Scope } from '@weir/release';
import { count, instant, integer, list, named, nullable, object, text, type TypeOf } from '@weir/service';
import type { FastifyInstance } from 'fastify';
import type { DeadLetterRecord } from './letters.ts';
import { settledReason } from './event-ends.ts';
import type { ChangedBy } from './releases.ts';
import type { Stage, Store } from './store.ts';
import type { Subjects } from './subjects.ts';

const receipt = named('ConsentReceipt', object('What became of a change of consent at one destination.', {
  destination: text('Destination.'), operation: nullable(text('Operation there.')), outputId: nullable(text('Which change of the event, by the id of its output (`weir trace`); null = each of them.')),
  state: text('delivered, denied, pending, dead-lettered, quarantined, superseded; no-route = the release has no route that carries this change there.'),
  reason: nullable(text('Why.')), at: nullable(instant('When it ended.')), status: nullable(integer('What the vendor answered, HTTP status.')), attempts: nullable(count('Calls that were made.')),
}));
export type ConsentReceipt = TypeOf<typeof receipt>;

const changeReceipts = named('ChangeReceipts', object('An event that changed consent, with its receipts.', { id: text('Id of the change: the event that carried it.'), source: text('Who said it.'), actor: nullable(text('Who recorded it by the consent API, as in the audit log; null = it came by a source.', { example: 'oidc:4711' })), acceptedAt: instant('When it was accepted.'), receipts: list(receipt, 'Destination by destination; of an event with several changes (one per purpose and topic, say) a receipt for each.') }));
export type ChangeReceipts = TypeOf<typeof changeReceipts>;
const settledReply = object('The event is closed.', { id: text('Dead letter.'), eventId: text('Event; it ended as dropped.') });

interface Ports {
  readonly store: Pick<Store, 'stages' | 'deadLetter' | 'endedAs'>;
  readonly subjects: () => Pick<Subjects, 'resolve' | 'scan'>;
  readonly release: () => Release;
  readonly letter: (id: string) => Promise<DeadLetterRecord>;
  readonly appender: Appender;
  readonly serde: Serde;
  readonly topics: TopicNames;
  readonly now: () => number;
}

export interface ConsentReceipts {
  /** Throws not-found when no such change is known. */
  ofChange(id: string): ChangeReceipts;
  /** Of a person, the newest first, at most 100. Rejects with bad-request, not-ready. */
  ofPerson(identifier: string): Promise<readonly ChangeReceipts[]>;
  /** Closes what can be bound to nobody: the event ends as dropped, with who said so and why. Resolves when that is acknowledged. Rejects with not-found, bad-request. */
  settle(letter: string, reason: string, by: ChangedBy): Promise<TypeOf<typeof settledReply>>;
}

const maxChanges = 100;
const iso = (at: number): string => new Date(at).toISOString();
const textOf = (value: unknown): string | null => (typeof value === 'string' && value !== '' ? value : null);
const numberOf = (value: unknown): number | null => (typeof value === 'number' ? value : null);

const notAsked = { operation: null, state: 'no-route', reason: null, at: null, status: null, attempts: null };

function receiptOf(destination: string, decided: Stage, end: Stage | undefined): ConsentReceipt {
  const about = { destination, operation: textOf(decided['operation']), outputId: textOf(decided['outputId']) };
  if (end !== undefined) return { ...about, state: String(end['state']), reason: textOf(end['reason']), at: iso(end.at), status: numberOf(end['status']), attempts: numberOf(end['attempts']) };
  const allowed = decided['effect'] === 'allow';
  return { ...about, state: allowed ? 'pending' : 'denied', reason: textOf(decided['reason']), at: allowed ? null : iso(decided.at), status: null, attempts: null };
}

export function createConsentReceipts(ports: Ports): ConsentReceipts {
  const { store } = ports;

  function receiptsOf(id: string): ChangeReceipts | undefined {
    const stages = store.stages(id);
    const outputs = new Set(stages.filter((s) => s.stage === 'normalized' && s['record'] === consentRecord).map((s) => s['outputId']));
    if (outputs.size === 0) return undefined;
    const endOf = endsOf(stages);
    const receipts = new Map<string, ConsentReceipt>();
    /** Where each change was decided for. */
    const asked = new Map<unknown, Set<unknown>>();
    for (const stage of stages) {
      if (stage.stage !== 'decided' || !outputs.has(stage['outputId'])) continue;
      const destination = textOf(stage['destination']);
      asked.set(stage['outputId'], (asked.get(stage['outputId']) ?? new Set()).add(destination));
      if (destination !== null) receipts.set(deliveryOfStage(stage), receiptOf(destination, stage, endOf(stage)));
    }
    for (const destination of ports.release().destinations.keys()) {
      const without = [...asked].filter(([, destinations]) => !destinations.has(destination)).map(([output]) => output);
      for (const output of without.length === asked.size ? [null] : without) receipts.set(`${destination}|${String(output)}`, { ...notAsked, destination, outputId: textOf(output) });
    }
    const accepted = stages.find((s) => s.stage === 'accepted') ?? stages[0]!;
    return { id, source: textOf(accepted['source']) ?? apiSource, actor: textOf(stages.find((s) => s['actor'] !== undefined)?.['actor']), acceptedAt: iso(accepted.at), receipts: [...receipts.values()].sort((a, b) => (a.destination < b.destination ? -1 : a.destination > b.destination ? 1 : 0)) };
  }

  return {
    ofChange(id) {
      const found = receiptsOf(id);
      if (found === undefined) throw new WeirError('not-found', `no change of consent ${id}`);
      return found;
    },
    async ofPerson(identifier) {
      const subjects = ports.subjects();
      const events = new Map<string, number>();
      const { ids, onlyGiven } = await subjects.resolve(parseIdentifier(identifier), 'all');
      if (onlyGiven) throw new WeirError('bad-request', 'more than 64 identifiers are linked to this one: that is not one person');
      await subjects.scan(ids, ({ eventId, type, at }) => { if (type === consentRecord) events.set(eventId, at); });
      return [...events].sort((a, b) => b[1] - a[1]).slice(0, maxChanges).flatMap(([id]) => receiptsOf(id) ?? []);
    },
    async settle(id, reason, { actor }) {
      const summary = store.deadLetter(id);
      if (summary === undefined) throw new WeirError('not-found', `no dead letter ${id}`);
      if (!(summary['codes'] as string[]).includes('consent-unresolved')) throw new WeirError('bad-request', `${id} carries no change of consent that binds nobody`);
      const eventId = String(summary['eventId']);
      // What ingest set aside was accepted by nobody, and has no end before.
      const end = store.endedAs(eventId);
      if (end === undefined && summary['stage'] !== 'ingest') throw new WeirError('bad-request', `${id}: its event was put back since, and its change of consent has gone on, or is about to (weir trace ${eventId}): there is nothing to close`);
      if (end === 'dropped') throw new WeirError('bad-request', `${id}: ${eventId} is closed already`);
      const letter = await ports.letter(id);
      const key = Buffer.from(eventId);
      const value = ports.serde.encode('weir.internal.Outcome', {
        eventId, outputId: null, destination: null, operation: null, key: null, state: 'dropped', reason: settledReason, detail: `by ${actor}: ${reason}`, stage: 'normalizer', release: letter['release'], rule: null, purpose: null,
        consent: [], attempts: 0, status: null, attempt: null, acceptedAt: letter['acceptedAt'], at: ports.now(),
      });
      await ports.appender.append(ports.topics.outcome, [{ partition: ports.appender.partitionFor(ports.topics.outcome, key), key, value, headers: letter.headers.filter((h) => h.name === H.traceparent).map((h) => [h.name, h.value] as const) }]);
      return { id, eventId };
    },
  };
}

const whole = (): Scope => everything;
const id = { params: { type: 'object', properties: { id: { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,100}$', description: 'Id of the change (its event); of a settlement: of the dead letter.' } } } };
const idOf = (request: { params: unknown }): string => (request.params as { id: string }).id;
const identifier = { type: 'object', additionalProperties: false, required: ['identifier'], properties: { identifier: { type: 'string', minLength: 3, maxLength: 500, description: 'An identifier as every command takes it, `<type>:<value>`, or an e-mail address.' } } };
const why = { type: 'object', additionalProperties: false, required: ['reason'], properties: { reason: { type: 'string', minLength: 1, maxLength: 500, description: 'Stands in the outcome and the trace.' } } };

/** GET /v1/consent/changes/:id/receipts, POST /v1/consent/receipts (a person, in the body) and POST /v1/consent/unresolved/:id/settle. */
export function consentReceiptRoutes(app: FastifyInstance, receipts: ConsentReceipts, scopeOf: (kind: 'event' | 'letter', id: string) => Scope): void {
  app.get('/v1/consent/changes/:id/receipts', { schema: id, config: { replies: { 200: changeReceipts }, errors: ['not-found'], permission: 'trace.read', scope: (request) => scopeOf('event', idOf(request)), summary: 'What became of a change of consent, destination by destination.' } }, async (request) => receipts.ofChange(idOf(request)));
  app.post<{ Body: { identifier: string } }>('/v1/consent/receipts', { schema: { body: identifier }, config: { replies: { 200: object('Changes of consent of a person.', { changes: list(changeReceipts, 'At most 100, the newest first.') }) }, permission: 'consent.read', scope: whole, action: 'consent.receipts', privateBody: true, summary: 'Changes of consent of a person, each with its receipts.' } }, async (request) => ({ changes: await receipts.ofPerson(request.body.identifier) }));
  app.post<{ Body: { reason: string } }>('/v1/consent/unresolved/:id/settle', { schema: { ...id, body: why }, config: { replies: { 200: settledReply }, errors: ['not-found'], permission: 'consent.settle', scope: (request) => scopeOf('letter', idOf(request)), action: 'consent.settle', target: idOf, summary: 'Close a change of consent that can be bound to nobody.' } }, async (request) => receipts.settle(idOf(request), request.body.reason, { actor: request.principal.id, leaf: request.leaf }));
}
