import { createClient, type Client } from '../client.ts';
import { numberOption, type Command } from '../command.ts';
import { printable } from '../terminal.ts';

interface TailLine {
  readonly n: number;
  /** ms since the epoch. */
  readonly at: number;
  readonly topic: string;
  readonly eventId: string;
  readonly source?: string;
}

const waitMs = 20_000;

export const command: Command = {
  name: 'tail',
  summary: 'Events, deliveries, outcomes and dead letters as they come, until Ctrl-C.',
  usage: '[--count <n>]',
  options: { count: { type: 'string', value: '<n>', doc: 'end after n lines' } },
  positionals: [0, 0],
  async run(context) {
    const { terminal, json, signal } = context;
    let left = numberOption(context, 'count', Number.MAX_SAFE_INTEGER, 1, Number.MAX_SAFE_INTEGER);
    const client = createClient(context.target);
    let { cursor } = await client.get<{ cursor: number }>('/v1/tail');
    while (left > 0 && !signal.aborted) {
      const next = await nextLines(client, cursor, signal);
      // A cursor that went back is another run of the instance: its lines are all new.
      cursor = next.cursor < cursor ? 0 : next.cursor;
      for (const line of next.lines.slice(0, left)) {
        left--;
        const at = new Date(line.at).toISOString();
        if (json) terminal.json({ ...line, at });
        else terminal.line(`${at}  ${printable(line.topic).padEnd(28)}  ${printable(line.eventId)}  ${terminal.paint.dim(printable(line.source ?? ''))}`.trimEnd());
      }
    }
    return 0;
  },
};

async function nextLines(client: Client, cursor: number, signal: AbortSignal): Promise<{ cursor: number; lines: readonly TailLine[] }> {
  try {
    return await client.get(`/v1/tail?after=${cursor}&wait=${waitMs}`, signal);
  } catch (error) {
    if (signal.aborted) return { cursor, lines: [] };
    throw error;
  }
}
