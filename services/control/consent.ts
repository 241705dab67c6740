import type { ConsentTables } from '@weir/consent';
import { WeirError } from '@weir/errors';
import { phoneNumber } from '@weir/mapping';
import { apiSource } from '@weir/pipeline';
import { closes, consentKey, type ConsentEntry } from '@weir/policy';
import { count, flag, instant, list, named, nullable, object, oneOf, text as words, type ServiceContext, type TypeOf } from '@weir/service';
import { everything, keyedIdsOf, type Identifiers } from '@weir/release';
import type { FastifyInstance } from 'fastify';

export type Person = Partial<Identifiers>;

export const stateView = named('ConsentState', object('A state of consent that is known.', {
  of: words('Type of the identifier it is of; `linked <type>` when it was not asked for by name.', { example: 'email' }), purpose: words('Purpose; `*` = every one.'), channel: words('Channel; empty = every one.'), topic: words('Topic; empty = every one.'),
  state: words('granted, denied, withdrawn or unknown.'), source: words('Who said it last.'), changedAt: words('When, ISO 8601; empty = not known.'), expiresAt: nullable(instant('Until when it counts.')),
  legalBasis: nullable(words('Legal basis, DPV term.')), jurisdiction: nullable(words('Jurisdiction.')), noticeVersion: nullable(words('Version of the notice that was shown.')), proof: nullable(words('Where the proof is.')), closedBy: list(words('Source.'), 'Sources that closed it and have not opened it again.'),
}));
export type StateView = TypeOf<typeof stateView>;

const personView = named('PersonConsent', object('What is known of the consent of a person, and what is open now.', {
  known: oneOf(['yes', 'unclear', 'nobody'], 'Whether anybody is known by these. `nobody`: no key, link, state of consent or mark of erasure is, so it is mistyped, or somebody whose first event is not normalised yet. `unclear`: nothing but a no that the consent API recorded, or nothing is sealed, so that records would not show.'),
  identifiers: nullable(count('Identifiers of the person, with those that are linked; null = too many to decide on, everything is closed.')),
  states: list(stateView, 'Of all of them.'),
  purposes: list(object('One purpose of the workspace, for every channel and topic.', { purpose: words('Purpose.'), legalBasis: words('Its legal basis.'), open: flag('The person may be used for it now.'), reason: nullable(words('Why not.')) }), 'Every purpose of the workspace.'),
}));
export type PersonView = TypeOf<typeof personView>;

export interface ConsentLookup { lookup(people: readonly Person[]): PersonView[] }

const iso = (at: number | null | undefined): string | null => (at === null || at === undefined ? null : new Date(at).toISOString());

/** A state of an identifier as it is shown. @param of whose it is, in words */
export function viewOf(tables: Pick<ConsentTables, 'stored'>, of: string, id: string, entry: ConsentEntry): StateView {
  const stored = tables.stored(consentKey(id, entry.purpose, entry.channel, entry.topic))?.state;
  return {
    of, purpose: entry.purpose, channel: entry.channel, topic: entry.topic, state: entry.state, source: stored?.source ?? '', changedAt: iso(stored?.changedAt) ?? '', expiresAt: iso(entry.expiresAt),
    legalBasis: stored?.legalBasis ?? null, jurisdiction: stored?.jurisdiction ?? null, noticeVersion: stored?.noticeVersion ?? null, proof: stored?.proof ?? null, closedBy: stored?.closedBy ?? [],
  };
}

/** What is known of the consent of people, from the same tables that decide. */
export function createConsentLookup(context: Pick<ServiceContext, 'workspaceKey' | 'releases' | 'clock' | 'keys'>, tables: ConsentTables): ConsentLookup {
  const { workspaceKey, releases, clock, keys } = context;

  function knownBy(given: readonly string[], linked: readonly string[] | undefined, states: readonly StateView[]): PersonView['known'] {
    if (linked === undefined || linked.length > given.length || given.some((id) => tables.states(id) === 'too-many') || states.some(({ state, source }) => source !== apiSource || !closes(state))) return 'yes';
    if (states.length > 0 || keys === undefined) return 'unclear';
    // Whoever has a record has a key; so has who was given a no, and has a state then.
    return keys.erasedUntil(given) > 0 || given.some((id) => keys.current(id) !== undefined) ? 'yes' : 'nobody';
  }

  return {
    lookup(people) {
      if (!tables.caughtUp()) throw new WeirError('not-ready', 'the tables of consent are being read');
      const now = clock.now();
      return people.map((person) => {
        const given = keyedIdsOf(workspaceKey, { ...person, phone: person.phone === undefined ? undefined : phoneNumber(person.phone) ?? person.phone });
        const linked = tables.linked(given);
        const states = (linked ?? given).flatMap((id) => {
          const found = tables.states(id);
          const [type] = id.split(':') as [string];
          return found === 'too-many' ? [] : found.map((entry) => viewOf(tables, given.includes(id) ? type : `linked ${type}`, id, entry));
        });
        const purposes = [...releases.current().policy.purposes.values()].map(({ name, legalBasis }) => {
          const answer = linked === undefined ? { ok: false as const, reason: 'identity-too-wide' } : tables.check(linked, name, null, null, legalBasis, now);
          return { purpose: name, legalBasis, open: answer.ok, reason: answer.ok ? null : answer.reason };
        });
        return { known: knownBy(given, linked, states), identifiers: linked?.length ?? null, states, purposes };
      });
    },
  };
}

const text = { type: 'string', minLength: 1, maxLength: 254 };
const externalIds = { type: 'array', minItems: 1, maxItems: 16, items: { type: 'object', additionalProperties: false, required: ['type', 'value'], properties: { type: text, value: text } } };
const body = {
  type: 'object', additionalProperties: false, required: ['people'],
  properties: { people: { type: 'array', minItems: 1, maxItems: 500, items: { type: 'object', additionalProperties: false, minProperties: 1, properties: { userId: text, email: text, phone: text, anonymousId: text, externalIds } } } },
};

/** POST, so that no identifier stands in a URL; who looked is in the audit log, at whom is not. */
export function consentRoutes(app: FastifyInstance, consent: ConsentLookup): void {
  app.post<{ Body: { people: Person[] } }>('/v1/consent/lookup', { schema: { body }, config: { replies: { 200: object('What is known, person by person.', { people: list(personView, 'In the order of the request.') }) }, permission: 'consent.read', scope: () => everything, action: 'consent.lookup', privateBody: true, target: (request) => `${(request.body as { people: unknown[] }).people.length} people`, summary: 'What is known of the consent of people, and what is open for them now.' } }, async (request) => ({ people: consent.lookup(request.body.people) }));
}
