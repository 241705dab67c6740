import { WeirError } from '@weir/errors';
import type { Appender, Headers, Reader, Serde } from '@weir/log';
import { H, type TopicNames } from '@weir/pipeline';
import type { Scope } from '@weir/release';
import { named, nullable, object, oneOf, text, type TypeOf } from '@weir/service';
import type { FastifyInstance } from 'fastify';
import { readDeadLetter } from './letters.ts';
import type { ChangedBy } from './releases.ts';
import { recordOf } from './replay/put-back.ts';
import type { Today } from './replay/today.ts';
import type { Store } from './store.ts';

const findings = ['applied', 'not-applied'] as const;
/** What a person found out about a delivery of which nobody knows whether it took effect. */
export type Finding = (typeof findings)[number];

const resolvedReply = named('ResolvedDelivery', object('What became of a held delivery.', {
  id: text('Dead letter id of the held delivery.'), eventId: text('Event.'), destination: text('Destination.'), operation: text('Operation there.'), finding: oneOf(findings, 'What was found out.'),
  order: nullable(text('Order under which it goes on, with the audit leaf of this change in it; null = it had ended as delivered already.')),
}));
export type Resolved = TypeOf<typeof resolvedReply>;

export interface HeldDeliveries {
  /**
   * Ends what is held: as delivered, without a call; or sends it again, under the same key, without asking the vendor. Twice
   * is harmless: the dispatcher decides on the ledger, where a delivered end absorbs everything. What is to be sent is decided
   * again before it goes back, as a replay of it is. Throws not-found, bad-request (also where policy would not let it go as it stands).
   */
  resolve(id: string, finding: Finding, by: ChangedBy): Promise<Resolved>;
}

interface Ports {
  readonly store: Pick<Store, 'deadLetter' | 'deliveryState'>;
  readonly reader: Reader;
  readonly appender: Pick<Appender, 'partitions' | 'append'>;
  readonly serde: Serde;
  readonly topics: TopicNames;
  /** What policy says today of a delivery as it stands on its topic. */
  readonly today: (record: { readonly topic: string; readonly value: Buffer | null }) => Promise<Today>;
}

/** Why what was found not to be applied is not sent, and what to do. */
const refusals: Readonly<Record<Exclude<Today, 'same'>, string>> = {
  denied: 'policy of the running release does not let it go now (weir policy explain tells why): nothing is sent; say it again when it does',
  otherwise: 'policy of the running release would send less, or other values, than it carries: it is not sent as it stands; a replay of its event from canonical or raw with --resend-unknown sends it with what policy lets through, under the same key',
  undecided: 'its canonical record is gone or cannot be read, so policy cannot decide on it: weir replay raw makes it anew where its raw record is there still; then say it again',
};

export function createHeldDeliveries({ store, reader, appender, serde, topics, today }: Ports): HeldDeliveries {
  return {
    async resolve(id, finding, { leaf }) {
      const summary = store.deadLetter(id);
      if (summary === undefined) throw new WeirError('not-found', `no dead letter ${id}`);
      const { codes, eventId, outputId, destination, operation } = summary as { codes: readonly string[]; eventId: string; outputId: string; destination: string; operation: string };
      if (!codes.includes('delivery-held')) throw new WeirError('bad-request', `${id} is not held: it is ${codes.join(', ')}, and a replay sends it again (weir dlq redrive)`);
      const done = { id, eventId, destination, operation, finding };
      if (store.deliveryState(`${outputId}|${destination}|${operation}`) === 'delivered') {
        if (finding === 'applied') return { ...done, order: null };
        throw new WeirError('bad-request', `${id} has ended as delivered meanwhile`);
      }
      const letter = await readDeadLetter(store, reader, serde, topics, id);
      const says = finding === 'applied' ? 'same' : await today(letter);
      if (says !== 'same') throw new WeirError('bad-request', `${id}: ${refusals[says]}`);
      const order = `res_${leaf.replace(/^leaf_/, '')}`;
      const headers: Headers = letter.headers.map((h) => [h.name, h.value] as const);
      const record = recordOf({ id: order, from: 'dlq', destination: null, unknown: 'hold' }, { origin: { ...letter, offset: 0, headers }, from: id, kind: 'derived', deliveries: [] });
      await appender.partitions(letter.topic);
      await appender.append(letter.topic, [{ ...record, headers: [...record.headers ?? [], [H.verified, Buffer.from(finding)]] }]);
      return { ...done, order };
    },
  };
}

const idOf = (request: { params: unknown }): string => (request.params as { id: string }).id;
const schema = {
  params: { type: 'object', properties: { id: { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,100}$', description: 'Dead letter id of the held delivery.' } } },
  body: { type: 'object', additionalProperties: false, required: ['finding'], properties: { finding: { enum: findings, description: 'Whether it took effect at the destination.' }, reason: { type: 'string', minLength: 1, maxLength: 500, description: 'Stands in the audit leaf.' } } },
};

/** POST /v1/deliveries/:id/resolve. What is held is listed by GET /v1/dlq?code=delivery-held&open=true. */
export function heldDeliveryRoutes(app: FastifyInstance, held: HeldDeliveries, scopeOf: (kind: 'event' | 'letter', id: string) => Scope): void {
  app.post<{ Body: { finding: Finding; reason?: string } }>('/v1/deliveries/:id/resolve', {
    schema,
    config: {
      replies: { 200: resolvedReply }, errors: ['not-found'],
      permission: 'delivery.resolve', scope: (request) => scopeOf('letter', idOf(request)), action: 'delivery.resolve', summary: 'Say whether a held delivery took effect: it ends as delivered, or is sent again.',
      target: (request) => {
        const { finding, reason } = request.body as { finding: string; reason?: string };
        return `${idOf(request)}: ${finding}${reason === undefined ? '' : `, ${reason}`}`;
      },
    },
  }, async (request) => held.resolve(idOf(request), request.body.finding, { actor: request.principal.id, leaf: request.leaf }));
}
