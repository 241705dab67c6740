import { endsOf } from '@weir/pipeline';
import { setTimeout as delay } from 'node:timers/promises';
import { createClient } from '../client.ts';
import { Finding, numberOption, UsageError, type Command } from '../command.ts';
import type { Terminal } from '../terminal.ts';
import type { Status } from './status.ts';

export interface Stage {
  readonly stage: string;
  readonly at: string;
  readonly [detail: string]: unknown;
}
export interface Trace {
  readonly eventId: string;
  readonly traceId: string | null;
  readonly stages: readonly Stage[];
}

const pollMs = 100;
/** Stages come over several topics: a trace that looks whole counts as whole when nothing was added for this long. */
const stillMs = 300;

export const command: Command = {
  name: 'trace',
  summary: 'The whole way of one event: accepted, normalized, decided, attempt, outcome.',
  usage: '<event-id> [--wait <s>]',
  options: { wait: { type: 'string', value: '<s>', doc: 'wait so long for the event to end everywhere, seconds (default 5, 0 = do not wait)' } },
  positionals: [1, 1],
  async run(context) {
    const { terminal, json, positionals } = context;
    const id = positionals[0]!;
    if (!/^evt_[0-9a-f]{32}$/.test(id)) throw new UsageError('an event id is evt_ and 32 hex digits, as weir send prints it');
    const client = createClient(context.target);
    const end = performance.now() + numberOption(context, 'wait', 5, 0, 3600) * 1000;
    for (let before = 0, since = performance.now(); ;) {
      const found = await client.find<Trace>(`/v1/events/${id}/trace`);
      if (found?.stages.length !== before) since = performance.now();
      before = found?.stages.length ?? 0;
      const ended = found !== undefined && hasEnded(found.stages);
      if ((ended && performance.now() - since >= stillMs) || performance.now() >= end || context.signal.aborted) {
        if (found === undefined) throw new Finding(`no event ${id}: check the id, or that it went to this instance`);
        const waits = ended ? [] : waitsOf(found.stages, await client.get<Status>('/v1/status'));
        if (json) terminal.json({ ...found, waits });
        else print(found, waits, ended, terminal);
        return 0;
      }
      await delay(pollMs);
    }
  },
};

/** What was let through and has not ended. */
function openOf(stages: readonly Stage[]): Stage[] {
  const endOf = endsOf(stages);
  return stages.filter((s) => s.stage === 'decided' && s['effect'] === 'allow' && endOf(s) === undefined);
}

/** Something ended, and everything that was let through did. */
export const hasEnded = (stages: readonly Stage[]): boolean => stages.some((s) => s.stage === 'outcome') && openOf(stages).length === 0;

/** Why an event has not ended everywhere, as far as the whole instance shows it. */
export function waitsOf(stages: readonly Stage[], status: Pick<Status, 'lag' | 'incidents' | 'paused' | 'callers'>): string[] {
  const lag = (name: string): number => status.lag[name] ?? 0;
  if (!stages.some((s) => s.stage === 'normalized' || s.stage === 'outcome')) return [`not normalized: ${lag('normalizer')} raw records wait`];
  if (!stages.some((s) => s.stage === 'decided' || s.stage === 'outcome')) return [`not decided, so closed: ${lag('policy')} records wait for the policy service, ${lag('consent')} changes of consent are not in its tables`];
  const open = new Set(openOf(stages).map((s) => String(s['destination'])));
  return [...open].map((name) => {
    const incident = status.incidents.find((i) => i.destination === name);
    const paused = status.paused?.find((p) => p.destination === name);
    if (paused !== undefined) return `${name} is paused by the kill switch since ${paused.since}`;
    if (incident !== undefined) return `${name} is paused since ${incident.since}: ${incident.code}`;
    if (status.callers === 0) return `${name} is closed: no dispatcher has read the tables of consent, ${lag(`dispatcher.${name}`)} deliveries wait`;
    return `${name}: ${lag(`dispatcher.${name}`)} deliveries wait for its dispatcher`;
  });
}

function print(trace: Trace, waits: readonly string[], ended: boolean, terminal: Terminal): void {
  terminal.line(`event ${trace.eventId}  trace ${trace.traceId ?? '-'}${ended ? '' : `  ${terminal.paint.yellow('not ended yet')}`}`);
  terminal.line();
  const begin = Date.parse(trace.stages[0]?.at ?? '');
  // Of several outputs each has decisions and ends of its own.
  const shown = new Set(trace.stages.flatMap((stage) => stage['outputId'] ?? [])).size > 1 ? [...order, 'outputId'] : order;
  terminal.table(['stage', 'at', 'what'], trace.stages.map((stage) => [stage.stage, `${stage.at} +${Math.max(0, Date.parse(stage.at) - begin)}ms`, describe(stage, shown)]));
  if (waits.length > 0) terminal.line();
  for (const wait of waits) terminal.line(terminal.paint.yellow(`waits: ${wait}`));
}

const order = ['destination', 'operation', 'effect', 'from', 'standby', 'refused', 'state', 'to', 'reason', 'detail', 'verdict', 'status', 'ms', 'source', 'actor', 'mapping', 'record', 'output', 'rule', 'purpose', 'consent', 'release'];

function describe(stage: Stage, fields: readonly string[]): string {
  const parts: string[] = [];
  for (const name of fields) {
    const value = stage[name];
    if (value === undefined || value === null || (Array.isArray(value) && value.length === 0)) continue;
    parts.push(name === 'consent' ? `consent=${consentText(value)}` : `${name}=${typeof value === 'number' && !Number.isInteger(value) ? value.toFixed(1) : String(value)}`);
  }
  return parts.join(' ');
}

/** States seen, without the keyed ids: `granted` or `unknown,denied`. */
function consentText(value: unknown): string {
  if (!Array.isArray(value)) return String(value);
  return [...new Set(value.map((seen: { state?: string; purpose?: string }) => `${seen.purpose ?? ''}:${seen.state ?? 'unknown'}`))].join(',');
}
