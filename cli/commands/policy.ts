import { setTimeout as delay } from 'node:timers/promises';
import { runPolicyTests } from '@weir/release';
import { durationMs } from '@weir/policy';
import { createClient, type Client } from '../client.ts';
import { Finding, numberOption, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { printLeft, type Page } from '../page.ts';
import { printable } from '../terminal.ts';
import { compileFiles, compileFolder, readFolder } from '../workspace.ts';
import { printExplanation, type Explained } from './policy-explain.ts';
import { asUse } from './replay.ts';

export const command: Command = {
  name: 'policy',
  summary: 'Test policies, explain a decision, rehearse a change on history; see, approve and refuse held deliveries.',
  usage: 'test [dir] | explain <event-id> [--current] | rehearse [dir] --since <time> | held | approve <id> | refuse <id>',
  options: {
    current: { type: 'boolean', doc: 'explain by the running release and the consent of now, instead of what was recorded' },
    since: { type: 'string', value: '<time>', doc: 'how far back a rehearsal goes, e.g. 12h or 7d (default 7d)' },
    all: { type: 'boolean', doc: 'held: also what was decided, or has expired' },
    limit: { type: 'string', value: '<n>', doc: 'held: at most n (default 50)' },
    after: { type: 'string', value: '<place>', doc: 'held: those behind, as an earlier list says' },
  },
  takes: { test: [], explain: ['current'], rehearse: ['since'], held: ['all', 'limit', 'after'], approve: [], refuse: [] },
  positionals: [1, 2],
  async run(context) {
    const [action, argument] = context.positionals;
    switch (action) {
      case 'test': return runTests(context, argument ?? 'workspace');
      case 'explain': return explain(context, argument);
      case 'rehearse': return rehearse(context, argument ?? 'workspace');
      case 'held': return held(context);
      case 'approve': case 'refuse': return decide(context, action, argument);
      default: throw new UsageError('give test, explain, rehearse, held, approve or refuse');
    }
  },
};

function runTests({ terminal, json }: CommandContext, dir: string): number {
  const tests = runPolicyTests(compileFiles(readFolder(dir)));
  const failed = tests.filter((t) => t.problems.length > 0);
  if (json) terminal.json({ ok: failed.length === 0, tests });
  else {
    for (const { name, problems } of tests) {
      terminal.line(`${problems.length === 0 ? terminal.paint.green('passed') : terminal.paint.red('failed')}  ${printable(name)}`);
      for (const p of problems) terminal.line(`        ${printable(p.file)}:${p.line}: ${printable(p.message)}`);
    }
    terminal.line(`${tests.length} tests, ${failed.length} failed`);
  }
  return failed.length === 0 ? 0 : 1;
}

async function explain({ terminal, json, values, target }: CommandContext, id: string | undefined): Promise<number> {
  if (id === undefined || !/^evt_[0-9a-f]{32}$/.test(id)) throw new UsageError('an event id is evt_ and 32 hex digits, as weir send prints it');
  const found = await createClient(target).find<Explained>(`/v1/events/${id}/explain?release=${values['current'] === true ? 'current' : 'recorded'}`);
  if (found === undefined) throw new Finding(`no canonical record of ${id}: see weir trace`);
  if (json) terminal.json(found);
  else printExplanation(found, terminal);
  return 0;
}

interface Rehearsal {
  readonly id: string;
  readonly release: string;
  readonly since: string;
  readonly state: string;
  readonly message: string | null;
  readonly read: number;
  readonly total: number;
  readonly decisions: number;
  readonly unrecorded: number;
  readonly flips: ReadonlyArray<{ readonly destination: string; readonly operation: string; readonly from: string; readonly to: string; readonly rule: string | null; readonly count: number; readonly examples: readonly string[] }>;
  readonly fields: ReadonlyArray<{ readonly destination: string; readonly operation: string; readonly added: readonly string[]; readonly removed: readonly string[]; readonly count: number; readonly examples: readonly string[] }>;
}

const pollMs = 200;

/** Nothing is changed by it: exit 0 also when decisions would flip. */
async function rehearse(context: CommandContext, dir: string): Promise<number> {
  const { terminal, json, target, signal } = context;
  const sinceMs = durationMs(textOption(context, 'since') ?? '7d');
  if (sinceMs === undefined || sinceMs < 1000) throw new UsageError('--since takes a duration such as 12h or 7d');
  const { files } = compileFolder(dir);
  const client = createClient(target);
  let run = await client.post<Rehearsal>('/v1/rehearsals', { files, sinceMs });
  const bar = terminal.progress(100, 'rehearse');
  try {
    while (run.state === 'running') {
      bar.step(run.total === 0 ? 0 : Math.floor((run.read / run.total) * 100));
      await delay(pollMs);
      run = signal.aborted ? await stopped(client, run.id) : await client.get<Rehearsal>(`/v1/rehearsals/${run.id}`);
    }
  } finally {
    bar.end();
  }
  if (json) terminal.json(run);
  else printRehearsal(run, context);
  if (run.state === 'failed') throw new Finding(`the rehearsal failed: ${run.message ?? ''}`);
  return run.state === 'done' ? 0 : 1;
}

const stopped = (client: Client, id: string): Promise<Rehearsal> => client.delete<Rehearsal>(`/v1/rehearsals/${id}`);

function printRehearsal(run: Rehearsal, { terminal }: CommandContext): void {
  terminal.line(`release ${run.release} over ${run.read} records since ${run.since}: ${run.decisions} decisions${run.unrecorded === 0 ? '' : `, ${run.unrecorded} records without a recorded one`}`);
  if (run.flips.length === 0) terminal.line('no decision would be another');
  else terminal.table(['count', 'destination', 'from', 'to', 'rule', 'examples'], run.flips.map((f) => [String(f.count), `${f.destination}/${f.operation}`, f.from, f.to, f.rule ?? '-', f.examples.join(' ')]));
  if (run.fields.length > 0) terminal.table(['count', 'destination', 'sends more', 'sends less', 'examples'], run.fields.map((f) => [String(f.count), `${f.destination}/${f.operation}`, f.added.join(',') || '-', f.removed.join(',') || '-', f.examples.join(' ')]));
}

interface Held {
  readonly id: string;
  readonly eventId: string;
  readonly rule: string;
  readonly destination: string;
  readonly operation: string;
  readonly at: string;
  readonly until: string;
  readonly state: string;
  readonly by: string | null;
}

async function held(context: CommandContext): Promise<number> {
  const { terminal, json, target, values } = context;
  const after = textOption(context, 'after');
  const query = new URLSearchParams({ limit: String(numberOption(context, 'limit', 50, 1, 10_000)), ...(values['all'] === true ? {} : { state: 'waiting' }), ...(after === undefined ? {} : { after }) });
  const found = await asUse(createClient(target).get<Page & { held: readonly Held[] }>(`/v1/held?${query}`));
  if (json) terminal.json(found);
  else if (found.held.length === 0) terminal.line(values['all'] === true ? 'nothing is held' : 'nothing waits to be let through; --all lists what was decided, or has expired');
  else terminal.table(['id', 'event', 'about', 'rule', 'since', 'until', 'state', 'by'], found.held.map((h) => [h.id, h.eventId, `${h.destination}/${h.operation}`, h.rule, h.at, h.until, h.state, h.by ?? '-']));
  if (!json) printLeft(context, found.held.length, found);
  return 0;
}

async function decide({ terminal, json, target }: CommandContext, action: 'approve' | 'refuse', id: string | undefined): Promise<number> {
  if (id === undefined || !/^dlq_[0-9a-f]{32}$/.test(id)) throw new UsageError('a held delivery is named by dlq_ and 32 hex digits, as weir policy held prints it');
  const done = await createClient(target).post<Held>(`/v1/held/${id}/${action}`, {});
  if (json) terminal.json(done);
  else terminal.line(`${action === 'approve' ? terminal.paint.green('approved') : terminal.paint.yellow('refused')}  ${done.destination}/${done.operation} of ${done.eventId}, held by ${done.rule}`);
  return 0;
}
