import type { Client } from './client.ts';
import { numberOption, textOption, UsageError, type CommandContext } from './command.ts';
import { identifiersOf, lookUpConsent } from './consent-api.ts';
import { printable } from './terminal.ts';

interface Decision {
  readonly eventId: string;
  readonly at: string;
  readonly source: string;
  readonly record: string | null;
  readonly destination: string | null;
  readonly operation: string | null;
  readonly effect: string;
  readonly rule: string | null;
  readonly purpose: string | null;
  readonly reason: string | null;
  readonly end: { readonly state: string; readonly at: string; readonly reason: string | null } | null;
}

/** Reasons of docs/policies.md in words; others speak for themselves. */
const words: Readonly<Record<string, string>> = {
  'consent-missing': 'no consent was given', 'consent-withdrawn': 'consent was withdrawn', 'consent-denied': 'consent was denied', 'consent-expired': 'consent has expired', 'no-route': 'no destination takes this record',
  'no-allow-rule': 'no rule allows it', 'subject-erased': 'the person was erased', 'subject-unidentified': 'the record names nobody', 'identity-too-wide': 'too many identifiers are linked', 'policy-error': 'a rule failed',
};

function because({ effect, reason, rule, purpose, end }: Decision): string {
  const denial = end?.reason ?? reason;
  const text = denial !== null ? `${denial}${words[denial] === undefined ? '' : `: ${words[denial]}`}` : effect === 'allow' ? `rule ${rule ?? '-'} allows it` : effect;
  return `${text}${purpose === null ? '' : `, for ${purpose}`}`;
}

/** Why the person did, or did not, get something: every decision, the newest first, and the consent behind the purposes. */
export async function why(context: CommandContext, client: Client, identifier: string): Promise<number> {
  const { terminal, json } = context;
  const destination = textOption(context, 'destination');
  if (destination !== undefined && !/^[a-z0-9][a-z0-9-]{0,62}$/.test(destination)) throw new UsageError(`${printable(destination)} is no destination name`);
  const person = identifiersOf(identifier);
  const { decisions, onlyGiven, cut = false } = await client.post<{ decisions: readonly Decision[]; onlyGiven: boolean; /** Absent: of a control service of before. */ cut?: boolean }>('/v1/subjects/decisions', { identifier, limit: numberOption(context, 'limit', 20, 1, 1000), ...(destination === undefined ? {} : { destination }) });
  const [consent] = await lookUpConsent(client, [person]);
  const purposes = new Set(decisions.map((d) => d.purpose));
  const now = consent?.purposes.filter((p) => purposes.has(p.purpose)) ?? [];
  const states = consent?.states.filter((s) => purposes.has(s.purpose)) ?? [];
  if (json) {
    terminal.json({ decisions, onlyGiven, cut, consent: { now, states } });
    return 0;
  }
  if (onlyGiven) terminal.line('more than 64 identifiers are linked to this one, so no use is open: only what was decided under the one given');
  if (cut) terminal.line('of the newest 20000 events alone, as there are more:');
  if (decisions.length === 0) terminal.line(`nothing was decided about this person${destination === undefined ? '' : ` for ${destination}`}: no event of it was accepted, or it has left the topics`);
  else terminal.table(['decided', 'what', 'destination', 'result', 'because', 'event'], decisions.map((d) => [d.at, `${d.record ?? 'erased record'} of ${d.source}`, d.destination === null ? '-' : `${d.destination}/${d.operation ?? ''}`, d.end?.state ?? (d.effect === 'allow' ? 'on its way' : d.effect), because(d), d.eventId]));
  if (now.length > 0) {
    terminal.line();
    terminal.table(['purpose', 'legal basis', 'now', 'because', 'last word', 'from', 'proof'], now.map((p) => {
      const last = states.filter((s) => s.purpose === p.purpose).sort((a, b) => (a.changedAt < b.changedAt ? 1 : -1))[0];
      return [p.purpose, p.legalBasis, p.open ? 'allowed' : 'denied', p.reason ?? '-', last === undefined ? 'none' : `${last.state} ${last.changedAt}`, last?.source ?? '-', last?.proof ?? '-'];
    }));
  }
  return 0;
}
