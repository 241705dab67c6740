import { createInterface } from 'node:readline/promises';
import { createClient, type Client } from '../client.ts';
import { Finding, numberOption, UsageError, type Command, type CommandContext } from '../command.ts';
import { identifiersOf } from '../consent-api.ts';
import { stop } from '../subject-stop.ts';
import { countsOf, howToAdd, leftOutText, linkedOf, whatIsLeftOut } from '../subject-linked.ts';
import { why } from '../subject-why.ts';
import { printable } from '../terminal.ts';

interface Summary {
  readonly ids: readonly string[];
  readonly onlyGiven: boolean;
  readonly leftOut: readonly string[];
  readonly erasedUntil: string | null;
  readonly purposes: ReadonlyArray<{ readonly purpose: string; readonly channel: string | null; readonly allowed: boolean; readonly reason: string | null }>;
  readonly records: { readonly total: number; readonly readable: number };
  readonly destinations: ReadonlyArray<{ readonly destination: string; readonly delivered: number; readonly last: string }>;
  /** Absent: of a control service of before. */
  readonly cut?: boolean;
}
interface Receipt {
  readonly id: string;
  readonly state: string;
  readonly by: string;
  readonly ids: readonly string[];
  readonly orderedAt: string;
  readonly markedAt: string | null;
  readonly onlyGiven: boolean;
  readonly stoppedAt: string | null;
  readonly erasedAt: string | null;
  readonly keysDestroyed: number;
  readonly recordsUnreadable: number;
  readonly recordsReadable: number;
  readonly readableUntil: string | null;
  readonly rawUntil: string | null;
  /** Absent: of a control service of before. */
  readonly wordsUntil?: string | null;
  readonly deadline: string | null;
  readonly eventId: string | null;
  readonly unnamed: readonly string[];
  readonly everyLink: boolean;
  readonly leftOut: readonly string[];
  readonly destinations: ReadonlyArray<{ readonly destination: string; readonly operation: string | null; readonly state: string; readonly at: string | null }>;
}

/** The answer to an order: of an erasure that was under way already when `joined`. */
interface Ordered extends Receipt {
  readonly joined: boolean;
  readonly underWay: readonly string[];
}

const withIdentifier: ReadonlySet<string> = new Set(['show', 'why', 'stop', 'export', 'erase']);
const pollMs = 500;
const wide = 'more than 64 identifiers are linked to this one: only what is known under the one given';

export const command: Command = {
  name: 'subject',
  summary: 'A person: what is known, why it did (not) get something, stop every use now, export, erase with a receipt.',
  usage: 'show|why|stop|export|erase <e-mail address, number with +, or type:value> | receipt <erasure-id>',
  options: {
    destination: { type: 'string', value: '<name>', doc: 'why: only what was decided for this destination' },
    linked: { type: 'string', value: 'trusted|all', doc: 'show, export, erase: all = also what only sources with identityLinks: untrusted have linked (default trusted)' },
    limit: { type: 'string', value: '<n>', doc: 'why: at most n decisions, the newest (default 20)' },
    purpose: { type: 'string', multiple: true, value: '<name>', doc: 'stop: only this purpose; may be given again (default all)' },
    proof: { type: 'string', value: '<text>', doc: 'stop: how the person asked for it: a letter, a ticket' },
    yes: { type: 'boolean', doc: 'erase without asking' },
    force: { type: 'boolean', doc: 'erase: go on also where nobody is known by the identifier' },
    days: { type: 'string', value: '<n>', doc: 'erase: deadline of the destinations in days (default 30)' },
    wait: { type: 'string', value: '<seconds>', doc: 'erase: how long to wait for the acknowledgement (default 120)' },
  },
  takes: { show: ['linked'], why: ['destination', 'limit'], stop: ['purpose', 'proof'], export: ['linked'], erase: ['yes', 'force', 'days', 'wait', 'linked'], receipt: [] },
  positionals: [2, 2],
  async run(context) {
    const [action, identifier] = context.positionals as [string, string];
    // Before it is asked whether to erase, and before anything is sent.
    if (withIdentifier.has(action)) identifiersOf(identifier);
    const client = createClient(context.target);
    switch (action) {
      case 'show': return show(context, await client.post<Summary>('/v1/subjects/show', { identifier, ...linkedOf(context) }));
      case 'export': {
        let first = true;
        for await (const text of client.stream('/v1/subjects/export', { identifier, ...linkedOf(context) })) {
          if (first && text.startsWith('{"incomplete"')) context.terminal.error(wide);
          if (first && text.startsWith('{"leftOut"')) context.terminal.error(`left out: what only untrusted sources have linked, in the first line; ${howToAdd('export')}`);
          first = false;
          context.terminal.write(text);
        }
        return 0;
      }
      case 'why': return why(context, client, identifier);
      case 'stop': return stop(context, client, identifier);
      case 'erase': return erase(context, client, identifier);
      case 'receipt': {
        const found = await client.find<Receipt>(`/v1/erasures/${encodeURIComponent(identifier)}`);
        if (found === undefined) throw new Finding(`no erasure ${printable(identifier)}`);
        return receipt(context, found);
      }
      default: throw new UsageError('give show, why, stop, export or erase with an identifier, or receipt with the id of an erasure');
    }
  },
};

function show({ terminal, json }: CommandContext, summary: Summary): number {
  if (json) {
    terminal.json(summary);
    return 0;
  }
  terminal.line(`${summary.ids.length} linked identifiers, ${summary.records.total} records, ${summary.records.readable} readable${summary.erasedUntil === null ? '' : `; erased until ${summary.erasedUntil}`}`);
  if (summary.onlyGiven) terminal.line(wide);
  if (summary.leftOut.length > 0) terminal.line(leftOutText(summary.leftOut, 'export, erase'));
  terminal.line('');
  terminal.table(['purpose', 'channel', 'now', 'because'], summary.purposes.map((p) => [p.purpose, p.channel ?? 'any', p.allowed ? 'allowed' : 'denied', p.reason ?? '']));
  terminal.line('');
  if (summary.cut === true) terminal.line('of the newest 20000 events alone, as there are more:');
  terminal.table(['destination', 'delivered', 'last'], summary.destinations.map((d) => [d.destination, String(d.delivered), d.last]));
  return 0;
}

async function erase(context: CommandContext, client: Client, identifier: string): Promise<number> {
  const days = numberOption(context, 'days', 30, 1, 366);
  const waitMs = numberOption(context, 'wait', 120, 0, 3600) * 1000;
  if (context.values['yes'] !== true) {
    if (!process.stdin.isTTY) throw new UsageError('erasure cannot be undone: give --yes');
    const ask = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await ask.question(`Erase ${printable(identifier)}? It cannot be undone. Type erase: `);
    ask.close();
    if (answer.trim() !== 'erase') throw new Finding('nothing was erased');
  }
  const say = (text: string): void => { if (!context.json) context.terminal.error(text); };
  const ordered = await client.post<Ordered>('/v1/subjects/erase', { identifier, deadlineDays: days, force: context.values['force'] === true, ...linkedOf(context) });
  say(ordered.joined ? `an erasure of this person is under way already: ${ordered.id}` : `erasure ${ordered.id}`);
  for (const id of ordered.underWay) say(`an earlier one of this person is not acknowledged yet: ${id}`);
  let found: Receipt = ordered;
  if (found.leftOut.length > 0) say(leftOutText(found.leftOut, 'erase'));
  say(found.state);
  for (const end = Date.now() + waitMs; found.erasedAt === null && found.state !== 'unknown' && found.state !== 'readable' && Date.now() < end;) {
    await new Promise((done) => { setTimeout(done, pollMs); });
    const { state } = found;
    found = await client.get<Receipt>(`/v1/erasures/${found.id}`);
    if (found.state !== state) say(found.state);
  }
  if (found.state === 'unknown') {
    if (context.json) context.terminal.json(found);
    throw new Finding('nobody is known by this identifier: nothing was erased, and no destination told. Look at how it is written, or give --force');
  }
  receipt(context, found);
  if (found.erasedAt !== null) return 0;
  if (found.recordsReadable > 0) throw new Finding(`it is not acknowledged: ${readableText(found)}. It goes on by itself: weir subject receipt ${found.id}`);
  throw new Finding(`it is not acknowledged yet and goes on by itself: weir subject receipt ${found.id}`);
}

const readableText = ({ recordsReadable, readableUntil }: Receipt): string => `${recordsReadable} records can still be read, ${readableUntil === null ? 'on a topic that is kept for ever, or for a time that the brokers do not tell' : `until retention takes them, at the latest ${readableUntil}`}`;

const wordsText = (until: string | null): string => `withdrawn from the states of consent; ${until === null ? 'their bytes leave when the brokers compact the topic' : `compaction takes their bytes until ${until}, where something is written to their partition`}`;

function receipt({ terminal, json }: CommandContext, found: Receipt): number {
  if (json) {
    terminal.json(found);
    return 0;
  }
  const facts: [string, string][] = [
    ['erasure', found.id], ['ordered', `${found.orderedAt} by ${found.by}`], ['state', found.state], ['marked', found.markedAt === null ? 'not yet' : `${found.markedAt}; what was accepted until then is erased`], ['stopped', found.stoppedAt ?? 'not yet'], ['erased', found.erasedAt ?? 'not yet'],
    ['keys', `${found.keysDestroyed} destroyed, over ${found.ids.length} linked identifiers; ${found.recordsUnreadable} records cannot be read any more`],
    ['raw items', found.rawUntil === null ? (found.markedAt === null ? 'not known yet' : 'a topic of them is kept for ever, or the brokers do not tell how long, so their key stays, too') : `their last key is destroyed ${found.rawUntil}`], ['deadline', found.deadline ?? '-'],
  ];
  if (found.erasedAt !== null) facts.push(['proofs', wordsText(found.wordsUntil ?? null)]);
  if (found.recordsReadable > 0) facts.push(['readable', `${readableText(found)}: they are not sealed, or under a key that is not of these identifiers. It is acknowledged once they are gone`]);
  if (found.onlyGiven) facts.push(['only', wide]);
  if (found.leftOut.length > 0) facts.push(['left out', whatIsLeftOut(found.leftOut, 'erase')]);
  if (found.unnamed.length > 0) facts.push(['not told', `destinations are not told of ${countsOf(found.unnamed)} linked to this person: nothing that is kept has it in the clear, or a newer one is told. Who has it: weir subject erase <it>`]);
  for (const [name, value] of facts) terminal.line(`${terminal.paint.bold(name.padEnd(9))} ${printable(value)}`);
  terminal.line('');
  terminal.table(['destination', 'operation', 'state', 'at'], found.destinations.map((d) => [d.destination, d.operation ?? '-', d.state, d.at ?? '']));
  return 0;
}
