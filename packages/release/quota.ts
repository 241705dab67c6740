import type { Purpose } from '@weir/policy';
import { durationMs } from '@weir/policy';
import type { WorkspaceProblem } from '@weir/errors';
import type { YamlValue } from '@weir/yaml';
import type { Cap, AccountLimit } from './types.ts';

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
      isZone(timezone) || report([...at, 'timezone'], `unknown time zone ${String(timezone)}`, 'use an IANA name such as Europe/Berlin'),
    ].every((r) => r === true);
    const text = (key: string): string | undefined => (spec[key] === undefined ? undefined : String(spec[key]));
    if (ok) caps.push({ name: String(name), max: Number(max), purpose: text('purpose'), channel: text('channel'), operation: text('operation'), destination: text('destination'), timezone: String(timezone), over: over as Cap['over'], file, line: lineOf(at) });
    if (caps.length > before && caps.slice(0, before).some((c) => c.name === name)) report([...at, 'name'], `the cap ${String(name)} is in the list already`, 'rename one of the two');
  }
  return caps;
}

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
