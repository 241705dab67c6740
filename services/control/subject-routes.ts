import { Readable } from 'node:stream';
import type { FastifyInstance } from 'fastify';
import { markOf, type Erasure, type Erasures } from './erasure.ts';
import { everything, parseIdentifier } from '@weir/release';
import type { Subjects } from './subjects.ts';

const whole = () => everything;
const body = { type: 'object', additionalProperties: false, required: ['identifier'], properties: { identifier: { type: 'string', minLength: 3, maxLength: 500 } } } as const;
const order = { ...body, properties: { ...body.properties, deadlineDays: { type: 'integer', minimum: 1, maximum: 366 }, force: { type: 'boolean' } } };
const ask = { ...body, properties: { ...body.properties, destination: { type: 'string', pattern: '^[a-z0-9][a-z0-9-]{0,62}$' }, limit: { type: 'integer', minimum: 1, maximum: 1000 } } };
const id = { type: 'object', properties: { id: { type: 'string', pattern: '^[a-zA-Z0-9_-]{1,100}$' } } };
const day = 86_400_000;
/** GDPR article 12(3): "without undue delay and in any event within one month". */
const defaultDays = 30;
const exportChunk = 64 * 1024;

const iso = (at: number | null): string | null => (at === null ? null : new Date(at).toISOString());

/** First line of an export that is not of all that is linked. */
const wideNote = { incomplete: 'more than 64 identifiers are linked to this one: only the records under the one given follow' };

/** A receipt as it is shown: times in ISO 8601, the sealed identifiers left out. */
export function shownErasure({ sealed: _sealed, ...erasure }: Erasure): Record<string, unknown> {
  return {
    ...erasure, orderedAt: iso(erasure.orderedAt), markedAt: iso(markOf(erasure)), stoppedAt: iso(erasure.stoppedAt), erasedAt: iso(erasure.erasedAt), rawUntil: iso(erasure.rawUntil), readableUntil: iso(erasure.readableUntil), deadline: iso(erasure.deadline),
    destinations: erasure.destinations.map((part) => ({ ...part, at: iso(part.at) })),
  };
}

/**
 * What is known of a person, and its erasure. The identifier comes in the body, so that it stands in no access log, and the
 * audit leaf says that somebody looked, not at whom by a hash that can be guessed (`privateBody`).
 */
export function subjectRoutes(app: FastifyInstance, ports: { readonly subjects: () => Subjects; readonly erasures: () => Erasures }): void {
  type Asked = { Body: { identifier: string; deadlineDays?: number; force?: boolean; destination?: string; limit?: number } };
  app.post<Asked>('/v1/subjects/show', { schema: { body }, config: { permission: 'subject.read', scope: whole, action: 'subject.show', privateBody: true, summary: 'What Weir knows of a person, in short.' } }, async (request) => ports.subjects().summary(parseIdentifier(request.body.identifier)));
  app.post<Asked>('/v1/subjects/decisions', { schema: { body: ask }, config: { permission: 'subject.read', scope: whole, action: 'subject.decisions', privateBody: true, summary: 'What was decided about a person, the newest first, and why.' } }, async (request) => {
    const { identifier, destination, limit = 50 } = request.body;
    return ports.subjects().decisions(parseIdentifier(identifier), destination, limit);
  });
  app.post<Asked>('/v1/subjects/export', { schema: { body }, config: { permission: 'subject.read', scope: whole, action: 'subject.export', privateBody: true, summary: 'Every readable canonical record of a person, what links keep of it and where it was last said to be, as NDJSON.' } }, async (request, reply) => {
    const subjects = ports.subjects();
    const { ids, onlyGiven } = await subjects.resolve(parseIdentifier(request.body.identifier));
    return reply.type('application/x-ndjson').send(Readable.from(lines(subjects, ids, onlyGiven)));
  });
  app.post<Asked>('/v1/subjects/erase', { schema: { body: order }, config: { permission: 'erasure.order', scope: whole, action: 'subject.erase', privateBody: true, summary: 'Erase a person: answered once the order is written, or with one that is under way; poll the erasure for its receipt.' } }, async (request, reply) => {
    const { identifier, deadlineDays = defaultDays, force = false } = request.body;
    const { erasure, joined, underWay } = await ports.erasures().order(parseIdentifier(identifier), { by: request.principal.id, leaf: request.leaf, deadlineMs: deadlineDays * day, forced: force });
    return reply.code(202).send({ ...shownErasure(erasure), joined, underWay });
  });
  app.get('/v1/erasures', { config: { permission: 'subject.read', scope: whole, summary: 'Erasures, newest first.' } }, async () => ({ erasures: ports.erasures().list().slice(0, 1000).map(shownErasure) }));
  app.get<{ Params: { id: string } }>('/v1/erasures/:id', { schema: { params: id }, config: { permission: 'subject.read', scope: whole, summary: 'The receipt of an erasure.' } }, async (request) => shownErasure(ports.erasures().get(request.params.id)));
}

/** Records as NDJSON text, while they are read: the reader waits for who takes them, and stops when he has left. */
async function* lines(subjects: Subjects, ids: readonly string[], onlyGiven: boolean): AsyncGenerator<string> {
  let chunk = onlyGiven ? `${JSON.stringify(wideNote)}\n` : '';
  let left = false;
  let give = Promise.withResolvers<string>();
  let taken = Promise.withResolvers<void>();
  const done = subjects.scan(ids, async ({ at, value, broken, ...rest }) => {
    if (left) throw new Error('nobody reads the export any more');
    chunk += `${JSON.stringify({ at: new Date(at).toISOString(), ...rest, erased: value === undefined && !broken, ...(broken ? { broken } : {}), record: value ?? null })}\n`;
    if (chunk.length < exportChunk) return;
    give.resolve(chunk);
    chunk = '';
    await taken.promise;
  });
  const end = done.then(() => undefined, (error: unknown) => { if (!left) throw error; });
  try {
    for (;;) {
      const text = await Promise.race([give.promise, end]);
      if (text === undefined) break;
      yield text;
      const before = taken;
      give = Promise.withResolvers<string>();
      taken = Promise.withResolvers<void>();
      before.resolve();
    }
    // Of those that are too many the links are of several people.
    if (!onlyGiven) {
      for (const { at, ...link } of await subjects.linkValues(ids)) chunk += `${JSON.stringify({ at: new Date(at).toISOString(), link })}\n`;
      for (const { at, region } of subjects.regions(ids)) chunk += `${JSON.stringify({ at: new Date(at).toISOString(), region })}\n`;
    }
    if (chunk !== '') yield chunk;
  } finally {
    left = true;
    taken.resolve();
    await end;
  }
}
