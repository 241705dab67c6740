import { createClient } from '../client.ts';
import { numberOption, textOption, UsageError, type Command } from '../command.ts';
import { knownNames } from '../known-names.ts';
import { printLeft, type Page } from '../page.ts';
import { printable } from '../terminal.ts';
import { asUse } from './replay.ts';

interface Letter {
  readonly id: string;
  readonly eventId: string;
  /** ms since the epoch. */
  readonly at: number;
  readonly source: string | null;
  readonly destination: string;
  readonly operation: string;
  readonly message: string;
}
interface Resolved {
  readonly id: string;
  readonly destination: string;
  readonly operation: string;
  readonly finding: 'applied' | 'not-applied';
  readonly order: string | null;
}

export const command: Command = {
  name: 'deliveries',
  summary: 'Held deliveries, of which nobody knows whether they took effect: list them, and say what you found at the destination.',
  usage: 'held [--destination <name>] | resolve <dlq_…> --applied | --not-applied [--reason <text>]',
  options: {
    destination: { type: 'string', value: '<name>', doc: 'held: only of this destination' },
    limit: { type: 'string', value: '<n>', doc: 'held: at most n (default 50)' },
    after: { type: 'string', value: '<place>', doc: 'held: those behind, as an earlier list says' },
    applied: { type: 'boolean', doc: 'resolve: it took effect; it ends as delivered, without a call' },
    'not-applied': { type: 'boolean', doc: 'resolve: it did not; it is sent again, under the same key, if the policy of today lets it go as it stands' },
    reason: { type: 'string', value: '<text>', doc: 'resolve: how you know; stands in the audit leaf' },
  },
  takes: { held: ['destination', 'limit', 'after'], resolve: ['applied', 'not-applied', 'reason'] },
  positionals: [1, 2],
  async run(context) {
    const { terminal, json, values } = context;
    const [action, id] = context.positionals;
    const client = createClient(context.target);
    if (action === 'held' && id === undefined) {
      const [destination, after] = [textOption(context, 'destination'), textOption(context, 'after')];
      const query = new URLSearchParams({ code: 'delivery-held', open: 'true', limit: String(numberOption(context, 'limit', 50, 1, 10_000)), ...(destination === undefined ? {} : { destination }), ...(after === undefined ? {} : { after }) });
      const found = await asUse(client.get<Page & { deadLetters: readonly Letter[] }>(`/v1/dlq?${query}`));
      if (found.deadLetters.length === 0) await knownNames(context, client);
      if (json) terminal.json(found);
      else if (found.deadLetters.length === 0) terminal.line('nothing is held');
      else {
        terminal.table(['id', 'at', 'destination', 'event', 'reason'], found.deadLetters.map((l) => [l.id, new Date(l.at).toISOString(), `${l.destination}/${l.operation}`, l.eventId, l.message]));
        printLeft(context, found.deadLetters.length, found);
      }
      return 0;
    }
    if (action !== 'resolve' || id === undefined) throw new UsageError('give held, or resolve <id>');
    if (!/^dlq_[0-9a-f]{32}$/.test(id)) throw new UsageError(`${printable(id)} is no dead letter id (dlq_ and 32 hex digits)`);
    if ((values['applied'] === true) === (values['not-applied'] === true)) throw new UsageError('say --applied or --not-applied');
    const reason = textOption(context, 'reason');
    if (reason !== undefined && (reason === '' || reason.length > 500)) throw new UsageError('--reason takes 1 to 500 characters');
    const done = await client.post<Resolved>(`/v1/deliveries/${id}/resolve`, { finding: values['applied'] === true ? 'applied' : 'not-applied', ...(reason === undefined ? {} : { reason }) });
    if (json) terminal.json(done);
    else if (done.order === null) terminal.line(`${done.id} had ended as delivered already`);
    else terminal.line(done.finding === 'applied' ? `${done.destination}/${done.operation} ends as delivered (order ${done.order})` : `${done.destination}/${done.operation} is sent again (order ${done.order})`);
    return 0;
  },
};
