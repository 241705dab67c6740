import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from './client.ts';
import type { ConsentAnswer, ConsentOrder } from './consent-api.ts';

type Identifiers = ConsentOrder['identifiers'];
interface Change { readonly purpose: string; readonly id?: string }
interface Receipts { readonly receipts: ReadonlyArray<{ readonly destination: string; readonly state: string; readonly reason: string | null }> }

/** What became of the vendors that know a stopped person only by an identifier that was not given. */
export interface Told {
  /** Destinations that were not told. */
  readonly destinations: readonly string[];
  /** Types of the identifiers under which they were told then; none: no record that is kept has one in the clear. */
  readonly by: readonly string[];
  readonly changes: ReadonlyArray<Change & { readonly state?: string; readonly message?: string }>;
}

const types = ['userId', 'email', 'phone'] as const;
type Fields = Readonly<Record<string, unknown>>;
const pollMs = 250;
const untold = 'identifier-unknown';

/**
 * A vendor is told of a no in the clear. Links keep that sealed (docs/decisions/0019), and a change of consent that closes goes on
 * under it by itself, but not where the value of a link is not known: it is older, or the workspace leaves it out. A person who
 * stops somebody may read the records of the person, as for an export, and so the no goes out once more with the newest identifier
 * of each type in them, or else in what links keep. Undefined: every vendor was told, as far as `waitMs` shows.
 *
 * @param changes that were applied
 * @param send sends a withdrawal and waits until it is applied
 */
export async function tellLinked(client: Pick<Client, 'find' | 'stream'>, identifier: string, given: Identifiers, changes: readonly Change[], send: (purpose: string, identifiers: Identifiers) => Promise<ConsentAnswer>, waitMs = 5000): Promise<Told | undefined> {
  const found = await Promise.all(changes.flatMap((change) => (change.id === undefined || change.purpose === '*' ? [] : [missedBy(client, change.id, waitMs).then((destinations) => ({ purpose: change.purpose, destinations }))])));
  const missed = found.filter((f) => f.destinations.length > 0);
  if (missed.length === 0) return undefined;
  const destinations = [...new Set(missed.flatMap((f) => f.destinations))].sort();
  const known = await identifiersOfRecords(client, identifier);
  const by = types.filter((type) => given[type] === undefined && known[type] !== undefined);
  if (by.length === 0) return { destinations, by, changes: [] };
  return { destinations, by, changes: await Promise.all(missed.map(async ({ purpose }) => {
    const { id, state, message } = await send(purpose, { ...known, ...given });
    return { purpose, id, state, message };
  })) };
}

/** Destinations that a change did not reach for what it lacks; looked at until it was decided and nothing is on its way. */
async function missedBy(client: Pick<Client, 'find'>, change: string, waitMs: number): Promise<string[]> {
  for (const end = Date.now() + waitMs; ;) {
    const receipts = (await client.find<Receipts>(`/v1/consent/changes/${change}/receipts`))?.receipts ?? [];
    const asked = receipts.filter((r) => r.state !== 'no-route');
    if ((asked.length > 0 && asked.every((r) => r.state !== 'pending')) || Date.now() >= end) return asked.filter((r) => r.reason === untold).map((r) => r.destination);
    await delay(pollMs);
  }
}

/** The newest of each type in the readable records of the person, or else in what links keep of it, by every link: a no holds for all of them. None where they may be of several people. */
async function identifiersOfRecords(client: Pick<Client, 'stream'>, identifier: string): Promise<Identifiers> {
  type Found = { userId?: string; email?: string; phone?: string };
  const found: Found = {};
  const ofLinks: Found = {};
  let rest = '';
  const take = (line: string): boolean => {
    if (line === '') return true;
    const { incomplete, record, link } = JSON.parse(line) as { readonly incomplete?: string; readonly record?: Fields | null; readonly link?: Fields };
    for (const type of types) {
      if (typeof record?.[type] === 'string') found[type] = record[type];
      // The newest comes first.
      if (typeof link?.[type] === 'string') ofLinks[type] ??= link[type];
    }
    return incomplete === undefined;
  };
  for await (const text of client.stream('/v1/subjects/export', { identifier, linked: 'all' })) {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) if (!take(line)) return {};
  }
  return take(rest) ? { ...ofLinks, ...found } : {};
}
