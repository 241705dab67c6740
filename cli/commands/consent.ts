import { randomUUID } from 'node:crypto';
import { createClient } from '../client.ts';
import { Finding, textOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { createConsentSender, identifiersOf, importKey, lookUpConsent } from '../consent-api.ts';
import { planImport, type ImportPlan } from '../consent-import.ts';
import { sendInOrder } from '../consent-order.ts';
import { printable } from '../terminal.ts';

const atOnce = 16;
const shownProblems = 20;
/** With --json. */
const toldProblems = 1000;

async function show(context: CommandContext, identifier: string): Promise<number> {
  const { terminal, json } = context;
  const identifiers = identifiersOf(identifier);
  const [person] = await lookUpConsent(createClient(context.target), [identifiers]);
  if (json) {
    terminal.json(person);
    return 0;
  }
  const { identifiers: linked, states, purposes } = person!;
  terminal.line(linked === null ? 'more linked identifiers than are decided on: everything is closed' : `${linked} linked ${linked === 1 ? 'identifier' : 'identifiers'}, ${states.length} ${states.length === 1 ? 'state' : 'states'}`);
  terminal.table(['purpose', 'legal basis', 'now', 'why'], purposes.map((p) => [p.purpose, p.legalBasis, p.open ? 'open' : 'closed', p.reason ?? '']));
  if (states.length > 0) {
    terminal.line();
    terminal.table(['of', 'purpose', 'channel', 'topic', 'state', 'since', 'source', 'until', 'proof'], states.map((s) => [s.of, s.purpose, s.channel || 'every', s.topic || 'every', s.state, s.changedAt, s.source, s.expiresAt ?? '-', s.proof ?? '-']));
  }
  return 0;
}

interface Receipts {
  readonly id: string;
  readonly source: string;
  /** Absent: of a control service of before. */
  readonly actor?: string | null;
  readonly acceptedAt: string;
  readonly receipts: ReadonlyArray<{ readonly destination: string; readonly operation: string | null; /** Absent: of a control service of before. */ readonly outputId?: string | null; readonly state: string; readonly reason: string | null; readonly at: string | null; readonly status: number | null }>;
}

const toldAs: Readonly<Record<string, string>> = { delivered: 'told', denied: 'not told', pending: 'on its way', 'no-route': 'no route carries it there' };

/** Of one change, or of every change of a person. */
async function receipts(context: CommandContext, what: string): Promise<number> {
  const { terminal, json } = context;
  const isChange = /^evt_[0-9a-f]{32}$/.test(what);
  if (!isChange) identifiersOf(what);
  const client = createClient(context.target);
  const one = isChange ? await client.find<Receipts>(`/v1/consent/changes/${what}/receipts`) : undefined;
  if (isChange && one === undefined) throw new Finding(`no change of consent ${what}`);
  const changes = one === undefined ? (await client.post<{ changes: readonly Receipts[] }>('/v1/consent/receipts', { identifier: what })).changes : [one];
  if (json) {
    terminal.json({ changes });
    return 0;
  }
  if (changes.length === 0) terminal.line('no change of consent is known');
  for (const change of changes) {
    terminal.line(`${change.id}  from ${printable(change.source)}${change.actor ? ` by ${printable(change.actor)}` : ''}, accepted ${change.acceptedAt}`);
    const several = new Set(change.receipts.flatMap((r) => r.outputId ?? [])).size > 1;
    terminal.table(['destination', 'operation', 'receipt', 'at', 'answer', ...(several ? ['change'] : [])], change.receipts.map((r) => [r.destination, r.operation ?? '', `${toldAs[r.state] ?? r.state}${r.reason === null ? '' : `: ${r.reason}`}`, r.at ?? '', r.status === null ? '' : `HTTP ${r.status}`, ...(several ? [r.outputId ?? 'each'] : [])]));
    terminal.line();
  }
  return 0;
}

async function settle(context: CommandContext, letter: string): Promise<number> {
  const { terminal, json } = context;
  const reason = textOption(context, 'reason');
  if (!/^dlq_[0-9a-f]{32}$/.test(letter) || reason === undefined) throw new UsageError('settle takes the id of a dead letter (weir dlq list --code consent-unresolved --open) and --reason');
  const done = await createClient(context.target).post<{ id: string; eventId: string }>(`/v1/consent/unresolved/${letter}/settle`, { reason });
  if (json) terminal.json(done);
  else terminal.line(`${done.eventId} is closed: its change of consent binds nobody`);
  return 0;
}

async function set(context: CommandContext, identifier: string): Promise<number> {
  const { terminal, json } = context;
  const [purpose, state] = [textOption(context, 'purpose'), textOption(context, 'state')];
  if (purpose === undefined || state === undefined) throw new UsageError('set takes --purpose and --state');
  const identifiers = identifiersOf(identifier);
  const optional = Object.fromEntries((['channel', 'topic', 'proof'] as const).flatMap((name) => (textOption(context, name) === undefined ? [] : [[name, textOption(context, name)]])));
  const answer = await createConsentSender(context.target, context.signal)({ identifiers, purpose, state, ...optional }, { wait: true });
  if (json) terminal.json(answer);
  else if (answer.status >= 400) terminal.error(printable(answer.message ?? String(answer.status)));
  else if (answer.opened === false) terminal.error(`recorded, and it opened nothing: a no that stands keeps it closed (weir consent show): ${answer.id}`);
  else terminal.line(answer.state === 'applied' ? `applied everywhere after ${answer.waitedMs} ms: ${answer.id}` : `recorded, not yet applied everywhere: ${answer.id}`);
  return answer.status === 200 && answer.opened !== false ? 0 : 1;
}

async function look(context: CommandContext, file: string): Promise<ImportPlan> {
  let bar: ReturnType<CommandContext['terminal']['progress']> | undefined;
  try {
    return await planImport(createClient(context.target), file, (done, of) => (bar ??= context.terminal.progress(of, 'checking')).step(done));
  } finally {
    bar?.end();
  }
}

async function importFile(context: CommandContext, file: string): Promise<number> {
  const { terminal, json, values } = context;
  const { rows, problems, changes } = await look(context, file);
  const apply = values['yes'] === true;
  if (!json) {
    terminal.table(['change', 'rows', 'lines'], changes.map((c) => [c.change, String(c.rows), `${c.lines.join(', ')}${c.rows > c.lines.length ? ', …' : ''}`]));
    for (const problem of problems.slice(0, shownProblems)) terminal.error(printable(problem));
    if (problems.length > shownProblems) terminal.error(`and ${problems.length - shownProblems} more`);
  }
  if (!apply || problems.length > 0) {
    if (json) terminal.json({ changes, problems: problems.slice(0, toldProblems), wrongRows: problems.length, applied: 0 });
    else terminal.line(problems.length > 0 ? `nothing is imported: ${problems.length} rows are wrong` : 'nothing is changed; --yes imports it');
    return problems.length > 0 ? 1 : 0;
  }
  const send = createConsentSender(context.target, context.signal);
  const run = randomUUID();
  const refused: string[] = [];
  let done = 0;
  const bar = terminal.progress(rows.length, 'importing');
  try {
    await sendInOrder(rows, async ({ order, line }) => {
      const answer = await send(order, { wait: false, key: importKey(order, line, run) });
      if (answer.status >= 400) refused.push(`line ${line}: ${answer.message ?? answer.status}`);
      bar.step(++done);
    }, atOnce, context.signal);
  } finally {
    bar.end();
  }
  if (json) terminal.json({ changes, problems: refused.slice(0, toldProblems), wrongRows: refused.length, applied: done - refused.length });
  else {
    for (const problem of refused.slice(0, shownProblems)) terminal.error(printable(problem));
    terminal.line(`${done - refused.length} of ${rows.length} rows are recorded${refused.length > 0 ? `, ${refused.length} were refused` : ''}; importing the file again grants nothing again, and closes again what it closes`);
  }
  return refused.length > 0 || done < rows.length ? 1 : 0;
}

export const command: Command = {
  name: 'consent',
  summary: 'Consent of a person: show, set, receipts of each destination; import changes from a CSV file; close one that binds nobody. An identifier is an e-mail address, a number with +, or email:, phone:, userId:, anonymousId:, external:<type>: and its value.',
  usage: 'show <identifier> | set <identifier> --purpose <p> --state <s> | receipts <change id or identifier> | import <file.csv> [--yes] | settle <dead letter> --reason <text>',
  options: {
    purpose: { type: 'string', value: '<name>', doc: 'a purpose of the workspace' },
    state: { type: 'string', value: '<state>', doc: 'granted, denied, withdrawn or unknown' },
    channel: { type: 'string', value: '<name>', doc: 'only this channel (default every)' },
    topic: { type: 'string', value: '<name>', doc: 'only this topic (default every)' },
    proof: { type: 'string', value: '<text>', doc: 'how it was given: a form, a ticket' },
    reason: { type: 'string', value: '<text>', doc: 'settle: why nobody can be bound by it' },
    yes: { type: 'boolean', doc: 'import: do it, instead of saying what would change' },
  },
  takes: { show: [], set: ['purpose', 'state', 'channel', 'topic', 'proof'], receipts: [], import: ['yes'], settle: ['reason'] },
  positionals: [2, 2],
  run(context) {
    const [action, what] = context.positionals as [string, string];
    if (action === 'show') return show(context, what);
    if (action === 'set') return set(context, what);
    if (action === 'import') return importFile(context, what);
    if (action === 'receipts') return receipts(context, what);
    if (action === 'settle') return settle(context, what);
    throw new UsageError('give show <identifier>, set <identifier>, receipts <change id or identifier>, import <file.csv>, or settle <dead letter>');
  },
};
