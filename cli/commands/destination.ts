import { createClient } from '../client.ts';
import { textOption, UsageError, type Command } from '../command.ts';
import { printable } from '../terminal.ts';

interface Switch {
  readonly destination: string;
  readonly paused: boolean;
  readonly reason: string | null;
  readonly by: string;
  readonly since: string;
}

/** `applied`: nobody starts a call that it forbids; `missing` may. A control service of a version before says neither. */
interface Switched extends Switch {
  readonly applied?: boolean;
  readonly missing?: readonly string[];
}

/** Control answers within 25 s of the order, and the audit leaf is written before. */
const answerMs = 60_000;

function paused({ destination, applied, missing = [] }: Switched): string {
  if (applied === undefined) return `${destination} is paused. This control service is of a version before and does not tell whether every dispatcher knows: some may still call it for a moment`;
  if (applied) return `${destination} is paused: no call starts, its events are kept`;
  if (missing.length === 0) return `${destination} is paused, but the brokers do not tell whether every dispatcher knows: some may still call it. Pause it again to ask again`;
  return `${destination} is paused, but these dispatchers do not know yet and may still call it: ${missing.map(printable).join(', ')}. Stop them, or pause it again to ask again: of one that has died, when its lease (WEIR_DISPATCHER_SESSION_MS) is over`;
}

export const command: Command = {
  name: 'destination',
  summary: 'Kill switch: pause a destination within a second, resume it, or list.',
  usage: 'pause <name> [--reason <text>] | resume <name> | list',
  options: { reason: { type: 'string', value: '<text>', doc: 'why; stands in weir status and beside the audit leaf' } },
  takes: { pause: ['reason'], resume: ['reason'], list: [] },
  positionals: [1, 2],
  async run(context) {
    const { terminal, json } = context;
    const [action, name] = context.positionals;
    const client = createClient(context.target);
    if (action === 'list' && name === undefined) {
      const { switches } = await client.get<{ switches: readonly Switch[] }>('/v1/destinations/switches');
      if (json) terminal.json({ switches });
      else terminal.table(['destination', 'state', 'since', 'by', 'reason'], switches.map((s) => [s.destination, s.paused ? 'paused' : 'running', s.since, s.by, s.reason ?? '']));
      return 0;
    }
    if ((action !== 'pause' && action !== 'resume') || name === undefined) throw new UsageError('give pause <name>, resume <name>, or list');
    if (!/^[a-z0-9][a-z0-9-]{0,62}$/.test(name)) throw new UsageError(`${printable(name)} is no destination name`);
    const reason = textOption(context, 'reason');
    if (reason !== undefined && (reason === '' || reason.length > 500)) throw new UsageError('--reason takes 1 to 500 characters');
    const done = await client.post<Switched>(`/v1/destinations/${name}/${action}`, reason === undefined ? {} : { reason }, undefined, answerMs);
    if (json) terminal.json(done);
    else terminal.line(done.paused ? paused(done) : `${done.destination} goes on`);
    return !done.paused || done.applied === true ? 0 : 1;
  },
};
