import type { ConsentBarrier } from '@weir/consent';
import { WeirError } from '@weir/errors';
import type { Appender } from '@weir/log';
import { saveSwitch, type DestinationSwitch } from '@weir/release';
import { flag, instant, list, named, nullable, object, text, type ServiceContext, type TypeOf } from '@weir/service';
import type { FastifyInstance } from 'fastify';
import type { ChangedBy } from './releases.ts';

export const switchView = named('Switch', object('A kill switch of a destination, as it was last set.', {
  destination: text('Destination.'), paused: flag('No call to it starts; its events are kept.'), reason: nullable(text('Why, by who set it.')), by: text('Who set it.', { example: 'admin' }), since: instant('Since when.'),
}));
export type SwitchView = TypeOf<typeof switchView>;

/** What came of a switch. */
const switched = named('Switched', object('What came of a switch.', {
  ...switchView.fields,
  applied: flag('Of a pause: no dispatcher starts a call to it from now on. False: some may, or nobody could be asked.'),
  missing: list(text('Name of an instance.'), 'Dispatchers that may still start calls.'),
}));
export type Switched = TypeOf<typeof switched>;

/** Kill switches of destinations. */
export interface SwitchApi {
  /**
   * The order is on weir.control when this resolves, and for a pause every dispatcher has it, or has lost the right to call
   * without it; or the deadline has passed, and who may still call is told. Rejects with not-found. Setting what is set is no change.
   */
  set(destination: string, paused: boolean, reason: string | null, by: ChangedBy): Promise<Switched>;
  list(): readonly SwitchView[];
}

export const viewOf = ({ destination, paused, reason, by, at }: DestinationSwitch): SwitchView => ({ destination, paused, reason, by, since: new Date(at).toISOString() });

/** From the order on, of all that is waited for. Longer than a lease of the default length (WEIR_DISPATCHER_SESSION_MS), shorter than clients wait for an answer. */
const deadlineMs = 25_000;
/** Asked for at least so long, however long the record took: whoever has read it says so within milliseconds. */
const leastMs = 1000;

export function createSwitchApi(context: Pick<ServiceContext, 'releases' | 'serde' | 'topics' | 'clock'>, appender: Appender, barrier: Pick<ConsentBarrier, 'switchedOff'>): SwitchApi {
  const { releases, serde, topics, clock } = context;
  return {
    async set(destination, paused, reason, { actor, leaf }) {
      // One that has left the release can still be resumed: its switch must not wait there for a new one of the name.
      if (!releases.current().destinations.has(destination) && !releases.switches().has(destination)) throw new WeirError('not-found', `no destination ${destination}`);
      const from = clock.monotonic();
      const change: DestinationSwitch = { destination, paused, reason, by: actor, at: clock.now() };
      const offset = await saveSwitch({ appender, serde, topic: topics.control, change, leaf });
      const missing = paused ? await barrier.switchedOff(offset, Math.max(leastMs, deadlineMs - (clock.monotonic() - from))) : [];
      return { ...viewOf(change), applied: missing?.length === 0, missing: missing ?? [] };
    },
    list: () => [...releases.switches().values()].map(viewOf),
  };
}

const name = { type: 'string', pattern: '^[a-z0-9][a-z0-9-]{0,62}$', description: 'Name of the destination.' };
const schema = { params: { type: 'object', properties: { name } }, body: { type: ['object', 'null'], additionalProperties: false, properties: { reason: { type: 'string', minLength: 1, maxLength: 500, description: 'Shown to whoever looks at the switch.' } } } };
const nameOf = (request: { params: unknown }): string => (request.params as { name: string }).name;

/** POST /v1/destinations/:name/pause and /resume, GET /v1/destinations/switches. */
export function switchRoutes(app: FastifyInstance, switches: SwitchApi): void {
  app.get('/v1/destinations/switches', { config: { permission: 'status.read', scope: () => ({ sources: [], destinations: [] }), summary: 'Kill switches of destinations.', replies: { 200: object('Kill switches.', { switches: list(switchView, 'Of every destination that has or had one.') }) } } }, async () => ({ switches: switches.list() }));
  for (const action of ['pause', 'resume'] as const) {
    app.post<{ Body: { reason?: string } | null }>(`/v1/destinations/:name/${action}`, {
      schema,
      config: { replies: { 200: switched }, errors: ['not-found'], permission: 'destination.switch', scope: (request) => ({ sources: [], destinations: [nameOf(request)] }), action: `destination.${action}`, target: nameOf, summary: action === 'pause' ? 'Kill switch: no call to the destination starts, its events are kept. Answers when every dispatcher has it, with those that may still call.' : 'Let a paused destination go on.' },
    }, async (request) => switches.set(nameOf(request), action === 'pause', request.body?.reason ?? null, { actor: request.principal.id, leaf: request.leaf }));
  }
}
