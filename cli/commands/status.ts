import { setTimeout as delay } from 'node:timers/promises';
import { incidentAbout } from '@weir/release';
import { createClient, type Client } from '../client.ts';
import { numberOption, UsageError, type Command } from '../command.ts';
import { printable, type Terminal } from '../terminal.ts';

export interface Status {
  readonly events: Readonly<Record<string, number>> & { readonly accepted: number; readonly pending: number };
  readonly deliveries: Readonly<Record<string, number>> & { readonly pending: number };
  readonly lag: Readonly<Record<string, number>>;
  readonly release?: string | null;
  readonly ready: boolean;
  readonly callers?: number | null;
  readonly held?: number;
  readonly incidents: readonly { readonly destination: string; readonly code: string; readonly since: string; readonly open?: number; readonly replay?: string | null }[];
  /** Absent: of a control service of before. */
  readonly ended?: readonly { readonly destination: string; readonly code: string; readonly since: string; readonly until: string; readonly replay: string }[];
  readonly paused?: readonly { readonly destination: string; readonly reason: string | null; readonly by: string; readonly since: string }[];
  /** Absent: of a control service of before. */
  readonly retired?: readonly { readonly destination: string; readonly waiting: number }[];
}

const pollMs = 250;

export const command: Command = {
  name: 'status',
  summary: 'Counts of events and deliveries, lag of every stage; pending 0 = settled.',
  usage: '[--wait] [--timeout <s>]',
  options: {
    wait: { type: 'boolean', doc: 'wait until nothing is pending; exit 1 when that does not happen in time' },
    timeout: { type: 'string', value: '<s>', doc: 'how long --wait waits, seconds (default 60)' },
  },
  positionals: [0, 0],
  async run(context) {
    const { terminal, json, values } = context;
    const client = createClient(context.target);
    const wait = values['wait'] === true;
    if (!wait && values['timeout'] !== undefined) throw new UsageError('--timeout says how long --wait waits: give both');
    const found = await settle(client, wait ? numberOption(context, 'timeout', 60, 1, 86_400) : 0, terminal, context.signal);
    if (json) terminal.json(found);
    else print(found, terminal);
    return wait && !settled(found) ? 1 : 0;
  },
};

export function settled(status: Status): boolean {
  return status.events.pending === 0 && status.deliveries.pending === 0;
}

/** The status, when it is settled or after `seconds`. */
async function settle(client: Client, seconds: number, terminal: Terminal, signal: AbortSignal): Promise<Status> {
  const end = performance.now() + seconds * 1000;
  let bar: ReturnType<Terminal['progress']> | undefined;
  let most = 0;
  for (;;) {
    const found = await client.get<Status>('/v1/status');
    const pending = found.events.pending + found.deliveries.pending;
    if (pending === 0 || performance.now() >= end || signal.aborted) {
      bar?.end();
      return found;
    }
    most = Math.max(most, pending);
    bar ??= terminal.progress(most, 'settling');
    bar.step(most - pending);
    await delay(pollMs);
  }
}

/** One incident as `weir status` prints it. */
export function incidentLine({ destination, code, since, open, replay }: Status['incidents'][number]): string {
  const { kind, name } = incidentAbout(destination);
  if (kind === 'policy') return `rule ${name} escalates since ${since}: what it holds is in weir policy held`;
  if (kind === 'source') return `polled source ${name} stands still since ${since}: the same page fails again and again (${code}); nothing of it is skipped, it goes on by itself when a page can be taken`;
  if (kind === 'consent') return `${open} ${open === 1 ? 'change' : 'changes'} of consent of ${name} ${open === 1 ? 'binds' : 'bind'} nobody, the first since ${since}: weir dlq list --code ${code} --source ${name} --open`;
  return `${name} is paused since ${since}: ${code}; its events wait and are sent from there by themselves${replay ? `; what was given up meanwhile: ${replay}` : ''}`;
}

export function print(status: Status, terminal: Terminal): void {
  const { paint } = terminal;
  terminal.line(`${status.ready ? paint.green('ready') : paint.red('not ready')}${settled(status) ? ', settled' : ''}${status.release ? `, release ${status.release}` : ''}`);
  for (const i of status.incidents) terminal.line(paint.red(incidentLine(i)));
  for (const { destination, code, since, until, replay } of status.ended ?? []) terminal.line(paint.yellow(`${destination} was paused from ${since} to ${until}: ${code}; what was given up meanwhile: ${replay}`));
  if ((status.held ?? 0) > 0) terminal.line(paint.red(`${status.held} ${status.held === 1 ? 'delivery is' : 'deliveries are'} held: nobody knows whether they took effect; see weir deliveries held`));
  for (const p of status.paused ?? []) terminal.line(paint.red(`${p.destination} is paused by the kill switch since ${p.since}, by ${printable(p.by)}${p.reason === null ? '' : `: ${printable(p.reason)}`}; its events are kept`));
  if (status.deliveries.pending > 0) for (const r of status.retired ?? []) terminal.line(paint.yellow(`${printable(r.destination)} has left the release with ${r.waiting} records on its topic: deliveries to it stay pending until a release has it again`));
  terminal.line();
  const rows = (group: string, counts: Readonly<Record<string, number>>): string[][] => Object.entries(counts).map(([name, n]) => [group, name, String(n)]);
  terminal.table(['of', 'what', 'count'], [...rows('events', status.events), ...rows('deliveries', status.deliveries), ...rows('lag', status.lag)]);
}
