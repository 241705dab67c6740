import type { Purpose } from '@weir/policy';
import { durationMs } from '@weir/policy';
import type { WorkspaceProblem } from '@weir/errors';
import type { YamlValue } from '@weir/yaml';
import type { OperationManifest } from '@weir/adapter';
import { drawOf, readBackDraw } from '@weir/http';
import type { AccountLimit, Cap, DestinationConfig } from './types.ts';

type Table = { [key: string]: YamlValue };
type At = readonly (string | number)[];
type Report = (at: At, message: string, remedy: string) => void;
const isTable = (v: YamlValue | undefined): v is Table => v !== null && typeof v === 'object' && !Array.isArray(v);
const namePattern = /^[a-z0-9][a-z0-9-]{0,62}$/;
const maxCaps = 50;

export interface Account {
  readonly account: string;
  readonly limit: AccountLimit | undefined;
}

/**
 * `account:` and `accountLimit:` of a destination or a polled source. Those that name one account share its quota at
 * the vendor; `accountLimit` is what the vendor grants the account over all operations.
 */
export function compileAccount(table: Table, standard: string, report: Report): Account {
  const account = table['account'] ?? standard;
  if (typeof account !== 'string' || (!namePattern.test(account) && account !== standard)) report(['account'], `account ${JSON.stringify(table['account'])}`, 'use lower case, digits and -');
  const given = table['accountLimit'];
  if (given === undefined) return { account: String(account), limit: undefined };
  const part = (key: 'burst' | 'steady'): AccountLimit['burst'] => {
    const spec = isTable(given) ? given[key] : undefined;
    if (spec === undefined) return undefined;
    const count = isTable(spec) ? spec['count'] : undefined;
    const perMs = isTable(spec) ? durationMs(spec['per']) : undefined;
    if (typeof count === 'number' && Number.isInteger(count) && count >= 1 && count <= 1e9 && perMs !== undefined && perMs > 0) return { count, perMs };
    report(['accountLimit', key], `${key} needs count and per`, `write ${key}: { count: 100, per: 10s }`);
    return undefined;
  };
  if (!isTable(given) || (given['burst'] === undefined && given['steady'] === undefined)) report(['accountLimit'], 'accountLimit needs burst or steady', 'write accountLimit: { burst: { count: 100, per: 10s } }');
  else for (const key of Object.keys(given)) if (key !== 'burst' && key !== 'steady') report(['accountLimit', key], `unknown key ${key}`, 'use burst and steady');
  return { account: String(account), limit: { burst: part('burst'), steady: part('steady') } };
}

/** One account has one limit: the first that states it counts, another one that differs is a problem. */
export function shareLimits<T extends { readonly name: string; readonly account: string; readonly accountLimit?: AccountLimit }>(parts: readonly T[], fileOf: (part: T) => string, problems: WorkspaceProblem[]): Map<string, AccountLimit> {
  const found = new Map<string, { limit: AccountLimit; by: string }>();
  for (const part of parts) {
    if (part.accountLimit === undefined) continue;
    const first = found.get(part.account);
    if (first === undefined) found.set(part.account, { limit: part.accountLimit, by: fileOf(part) });
    else if (JSON.stringify(first.limit) !== JSON.stringify(part.accountLimit)) problems.push({ file: fileOf(part), line: 0, message: `account ${part.account} has another limit in ${first.by}`, remedy: 'state it once' });
  }
  return new Map([...found].map(([account, { limit }]) => [account, limit]));
}

/** What an operation of a destination, or its read-back where that has a limit of its own, counts against. */
export interface Counted {
  readonly destination: string;
  readonly operation: string;
  readonly readBack: boolean;
  readonly limit: OperationManifest['limit'];
}

/** What counts together at a vendor: the same operation of one adapter at one account, from whichever destination, and all that declares one `bucket`. */
export interface Together {
  readonly account: string;
  /** Undefined where the bucket is declared. */
  readonly adapter: string | undefined;
  readonly name: string;
  readonly all: Counted[];
}

type Calling = Pick<DestinationConfig, 'name' | 'account' | 'adapter' | 'operations'>;

/** The operations of these destinations by what counts together. */
export function countedTogether(destinations: Iterable<Calling>): Together[] {
  const found = new Map<string, Together>();
  for (const { name: destination, account, adapter, operations } of destinations) {
    for (const [operation, manifest] of Object.entries(operations)) {
      for (const readBack of manifest.verify?.limit === undefined ? [false] : [false, true]) {
        const { bucket: name, limit } = readBack ? readBackDraw(operation, manifest) : drawOf(operation, manifest);
        const of = limit?.bucket === undefined ? adapter.manifest.name : undefined;
        const key = JSON.stringify([account, of ?? null, name]);
        let together = found.get(key);
        if (together === undefined) found.set(key, together = { account, adapter: of, name, all: [] });
        together.all.push({ destination, operation, readBack, limit });
      }
    }
  }
  return [...found.values()];
}

const shortestFirst = (limits: readonly (AccountLimit | undefined)[]) => limits.flatMap((l) => [l?.burst, l?.steady]).filter((r) => r !== undefined).sort((a, b) => a.perMs - b.perMs || a.count - b.count);

/** The rates of a limit, that of the shortest window first, as text; '' = it states none. */
export const ratesOf = (limit: AccountLimit | undefined): string => shortestFirst([limit]).map((r) => `${r.count} per ${r.perMs} ms`).join(' and ');

/**
 * A limit that keeps each of these in every window; undefined where none states a rate. One that is stated alone, or by
 * all alike, is itself. Where more than two rates bind, the longer ones become one that keeps each of them: of their windows, the one
 * that lets most through, with what each of the others leaves for one such window.
 */
export function strictest(limits: readonly (AccountLimit | undefined)[]): AccountLimit | undefined {
  const stated = [...new Map(limits.map((l) => [ratesOf(l), l]))].filter(([rates]) => rates !== '').map(([, limit]) => limit);
  if (stated.length <= 1) return stated[0];
  const rates = shortestFirst(stated);
  // Without those that another one keeps already: no more in no shorter a window.
  const [shortest, ...longer] = rates.filter((r, i) => !rates.some((s, j) => s.count <= r.count && s.perMs >= r.perMs && (s.count < r.count || s.perMs > r.perMs || j < i)));
  if (longer.length === 0) return { steady: shortest };
  const joined = longer.map(({ perMs }) => ({ count: Math.min(...longer.map((r) => Math.floor(r.count / Math.ceil(r.perMs / perMs)))), perMs }));
  return { burst: shortest, steady: joined.reduce((most, r) => (r.count / r.perMs > most.count / most.perMs ? r : most)) };
}

/**
 * What counts together has one limit, the strictest that one of its operations states, and a name that nothing else of
 * the account has. Operations by destination, of those where that changes something.
 */
export function shareOperationLimits(destinations: ReadonlyMap<string, Calling>): Map<string, DestinationConfig['operations']> {
  const together = countedTogether(destinations.values());
  const named = Map.groupBy(together, ({ account, name }) => `${account}\n${name}`);
  const changed = new Map<string, Record<string, OperationManifest>>();
  for (const { account, adapter, name, all } of together) {
    const apart = adapter !== undefined && named.get(`${account}\n${name}`)!.length > 1 ? { bucket: `${adapter} ${name}` } : undefined;
    const one = strictest(all.map((c) => c.limit));
    for (const { destination, operation, readBack, limit } of all) {
      if (apart === undefined && ratesOf(limit) === ratesOf(one)) continue;
      let operations = changed.get(destination);
      if (operations === undefined) changed.set(destination, operations = { ...destinations.get(destination)!.operations });
      const before = operations[operation]!;
      const shared = { cite: '', ...limit, burst: one?.burst, steady: one?.steady, ...apart };
      operations[operation] = readBack ? { ...before, verify: { ...before.verify!, limit: shared } } : { ...before, limit: shared };
    }
  }
  return changed;
}

/** `caps:` of a destination or a policy file: how many deliveries a subject gets a day, at most, of a purpose and a channel. */
export function compileCaps(value: YamlValue | undefined, file: string, lineOf: (at: At) => number, purposes: ReadonlyMap<string, Purpose>, report: Report): Cap[] {
  if (value === undefined) return [];
  if (!Array.isArray(value) || value.length > maxCaps) {
    report(['caps'], `caps is a list of at most ${maxCaps}`, 'write - { name: …, max: 3, purpose: … }');
    return [];
  }
  const caps: Cap[] = [];
  for (const [i, spec] of value.entries()) {
    const at: At = ['caps', i];
    const before = caps.length;
    if (!isTable(spec)) {
      report(at, 'a cap is a table', 'give name, max, purpose, channel, operation, timezone, over');
      continue;
    }
    for (const key of Object.keys(spec)) if (!['name', 'doc', 'max', 'purpose', 'channel', 'operation', 'destination', 'timezone', 'over'].includes(key)) report([...at, key], `unknown key ${key}`, 'use name, doc, max, purpose, channel, operation, destination, timezone, over');
    const { name, max, purpose, timezone = 'UTC', over = 'deny' } = spec;
    const ok = [
      typeof name === 'string' && namePattern.test(name) || report([...at, 'name'], 'a cap needs a name', 'use lower case, digits and -'),
      typeof max === 'number' && Number.isInteger(max) && max >= 1 && max <= 10_000 || report([...at, 'max'], `max ${JSON.stringify(max ?? null)}`, 'use a whole number from 1 to 10000'),
      purpose === undefined || purposes.has(String(purpose)) || report([...at, 'purpose'], `unknown purpose ${String(purpose)}`, `use one of ${[...purposes.keys()].join(', ')}`),
      over === 'deny' || over === 'delay' || report([...at, 'over'], `over ${JSON.stringify(over)}`, 'use deny or delay'),
      ...['purpose', 'channel', 'operation', 'destination'].map((key) => isTextOrAbsent(spec[key]) || report([...at, key], `${key} ${JSON.stringify(spec[key])}: expected a text`, `leave ${key} out for every one, or write a cap for each`)),
      isZone(timezone) || report([...at, 'timezone'], `unknown time zone ${String(timezone)}`, 'use an IANA name such as Europe/Berlin'),
    ].every((r) => r === true);
    const text = (key: string): string | undefined => (spec[key] === undefined ? undefined : String(spec[key]));
    if (ok) caps.push({ name: String(name), max: Number(max), purpose: text('purpose'), channel: text('channel'), operation: text('operation'), destination: text('destination'), timezone: String(timezone), over: over as Cap['over'], file, line: lineOf(at) });
    if (caps.length > before && caps.slice(0, before).some((c) => c.name === name)) report([...at, 'name'], `the cap ${String(name)} is in the list already`, 'rename one of the two');
  }
  return caps;
}

/** What is there and is no text (left blank, a list) must not become one: the cap would count nothing. */
const isTextOrAbsent = (value: unknown): boolean => value === undefined || (typeof value === 'string' && value.trim() !== '') || typeof value === 'number';

function isZone(zone: unknown): boolean {
  try {
    if (typeof zone !== 'string') return false;
    new Intl.DateTimeFormat('en', { timeZone: zone });
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}
