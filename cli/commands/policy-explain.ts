import type { Explanation } from '@weir/policy';
import { printable, type Terminal } from '../terminal.ts';

export interface Explained {
  readonly eventId: string;
  readonly release: string;
  readonly at: string;
  readonly records: ReadonlyArray<{
    readonly record: string;
    readonly outputId: string;
    readonly source: string;
    readonly region: string;
    readonly recorded: ReadonlyArray<{ readonly destination: string | null; readonly operation: string | null; readonly effect: string; readonly reason: string | null; readonly rule: string | null }>;
    readonly routes: readonly Explanation[];
  }>;
}

/** Every route of every record of the event, with the rules that were looked at; those that speak of other routes are left out. */
export function printExplanation(found: Explained, terminal: Terminal): void {
  terminal.line(`event ${found.eventId} by release ${found.release} at ${found.at}`);
  for (const record of found.records) {
    terminal.line(`\n${terminal.paint.bold(record.record)} from ${printable(record.source)}, region ${record.region === '' ? 'not known' : record.region}`);
    for (const route of record.routes) printRoute(route, record.recorded.find((r) => r.destination === route.destination && r.operation === route.operation), terminal);
  }
}

function printRoute(route: Explanation, recorded: { readonly effect: string; readonly reason: string | null } | undefined, terminal: Terminal): void {
  const colour = route.effect === 'allow' ? terminal.paint.green : route.effect === 'no match' ? terminal.paint.dim : terminal.paint.red;
  const why = [route.standsInFor === null ? '' : `second vendor of ${route.standsInFor}`, route.reason ?? (route.rule === null ? '' : `rule ${route.rule}`), route.purpose === null ? '' : `for ${route.purpose}`, route.notBefore === null ? '' : `not before ${route.notBefore}`, route.detail ?? ''].filter((part) => part !== '');
  terminal.line(`  ${colour(route.effect)}  ${route.destination}/${route.operation}${why.length === 0 ? '' : `: ${printable(why.join(', '))}`}  ${terminal.paint.dim(`${route.file ?? ''}:${route.line ?? 0}`)}`);
  if (recorded !== undefined && (recorded.effect !== route.effect || recorded.reason !== route.reason)) terminal.line(`         recorded: ${recorded.effect}${recorded.reason === null ? '' : ` ${recorded.reason}`}`);
  if (route.effect === 'no match') return terminal.line(`         ${valuesText(route.values)}`);
  for (const { rule, effect, file, line, result, values } of route.looked) {
    if (result !== 'elsewhere') terminal.line(`         ${result.padEnd(14)} ${effect} ${rule} (${file}:${line})${Object.keys(values).length === 0 ? '' : `  ${valuesText(values)}`}`);
  }
  if (route.consent.length > 0) terminal.line(`         consent: ${[...new Set(route.consent.map((c) => `${c.purpose} ${c.state}`))].join(', ')}`);
  if (route.effect === 'allow') terminal.line(`         sends ${route.sends.map((f) => (route.changed.includes(f) ? `${f} (changed)` : f)).join(', ')}${route.withheld.length === 0 ? '' : `; withholds ${route.withheld.join(', ')}`}`);
}

function valuesText(values: Readonly<Record<string, unknown>>): string {
  return printable(Object.entries(values).map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`).join(' '));
}
