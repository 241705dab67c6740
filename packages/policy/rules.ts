import type { CompiledCel } from '@weir/cel';
import { parseYaml, type YamlValue } from '@weir/yaml';
import { canonicalSchemas, unknownFields } from './record-view.ts';
import type { Regions, RegionSet } from './regions.ts';
import { isTable, Report, type At, type Table } from './report.ts';
import { hasher, hashSchemes, hashers, keepFirst, keepLast, masks, type Transform } from './transforms.ts';
import type { Purpose, RuleEffect } from './types.ts';

export interface QuietHours {
  /** Minutes after midnight. */
  readonly from: number;
  readonly to: number;
  /** IANA zone. */
  readonly timezone: string;
  /** Field of the record whose zone is taken instead, when it holds one. */
  readonly timezoneField?: string;
}
export interface Limit {
  readonly count: number;
  readonly perMs: number;
  readonly by: 'subject' | 'destination';
}

export interface CompiledRule {
  readonly name: string;
  readonly effect: RuleEffect;
  readonly file: string;
  readonly line: number;
  /** It speaks of routes of this purpose only. */
  readonly purpose?: string | undefined;
  /** Absent = always. */
  readonly when: CompiledCel | undefined;
  readonly quietHours: QuietHours | undefined;
  /** delay: gives ms since the epoch or a timestamp. */
  readonly until?: CompiledCel | undefined;
  readonly limit: Limit | undefined;
  /** route: of the destinations `among`, only `to` may get it. */
  readonly route?: { readonly to: ReadonlySet<string>; readonly among: ReadonlySet<string> } | undefined;
  /** residency: data of people in `subject` (absent = everybody) goes to `destinations` only. */
  readonly residency?: { readonly subject: RegionSet | undefined; readonly destinations: RegionSet } | undefined;
  /** require-approval, escalate: how long it waits for an approver. */
  readonly approval?: { readonly expiresMs: number } | undefined;
  /** minimise: fields that stay here, or with `keep` the only ones that go. */
  readonly drop?: { readonly fields: ReadonlySet<string>; readonly keep: boolean } | undefined;
  /** hash, mask: by field. */
  readonly change?: ReadonlyMap<string, Transform> | undefined;
}

const namePattern = /^[a-z][a-z0-9-]{0,62}$/;
const durations: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const maxRules = 500;
const defaultExpiryMs = 3 * 86_400_000;
const maxExpiryMs = 29 * 86_400_000;

/** `30s`, `15m`, `2h`, `7d` in ms; undefined when it is none of them. */
export function durationMs(text: YamlValue | undefined): number | undefined {
  const match = typeof text === 'string' ? /^(\d{1,6})(s|m|h|d)$/.exec(text) : null;
  return match === null ? undefined : Number(match[1]) * durations[match[2]!]!;
}

export const isRuleName = (name: string): boolean => namePattern.test(name);

/** What an effect takes beside name, doc, purpose and when, and how it is compiled. */
type Part = (spec: Table, at: At, report: Report) => Partial<CompiledRule>;
const effects: Readonly<Record<RuleEffect, { readonly keys: readonly string[]; readonly compile: Part }>> = {
  allow: { keys: [], compile: () => ({}) },
  deny: { keys: [], compile: () => ({}) },
  delay: { keys: ['quietHours', 'until'], compile: compileDelay },
  limit: { keys: ['limit'], compile: (spec, at, report) => ({ limit: compileLimit(spec['limit'], [...at, 'limit'], report) }) },
  route: { keys: ['route'], compile: compileRoute },
  residency: { keys: ['residency'], compile: compileResidency },
  'require-approval': { keys: ['expires'], compile: compileApproval },
  escalate: { keys: ['expires'], compile: compileApproval },
  minimise: { keys: ['fields', 'keep'], compile: compileDrop },
  hash: { keys: ['hash'], compile: compileHash },
  mask: { keys: ['mask'], compile: compileMask },
};
export const ruleEffects = Object.keys(effects) as RuleEffect[];

/** policies/*.yaml: `rules:` a list of named rules. */
export function compileRules(file: { readonly path: string; readonly content: string }, purposes: ReadonlyMap<string, Purpose>, regions?: Regions): readonly CompiledRule[] {
  const report = new Report(file.path, parseYaml(file), regions);
  const root = isTable(report.yaml.value) ? report.yaml.value : {};
  // Caps are compiled with the destinations they hold at.
  report.keys(root, [], ['rules', 'caps', 'doc']);
  const list = root['rules'];
  if (!Array.isArray(list) && (list !== undefined || root['caps'] === undefined)) report.add([], 'no rules', 'write rules: with a list');
  const rules: CompiledRule[] = [];
  const specs = Array.isArray(list) ? list : [];
  if (specs.length > maxRules) report.add(['rules', maxRules], `more than ${maxRules} rules`, 'merge some');
  for (const [i, spec] of specs.slice(0, maxRules).entries()) {
    const rule = compileRule(spec, ['rules', i], report, purposes);
    if (rule === undefined) continue;
    const same = rules.find((r) => r.name === rule.name);
    if (same !== undefined) report.add(['rules', i, 'name'], `the rule ${rule.name} is in line ${same.line} already`, 'rename one of the two');
    rules.push(rule);
  }
  return report.end(rules);
}

function compileRule(spec: YamlValue, at: At, report: Report, purposes: ReadonlyMap<string, Purpose>): CompiledRule | undefined {
  if (!isTable(spec)) {
    report.add(at, 'a rule is a table', 'give name, effect and when');
    return undefined;
  }
  const name = spec['name'];
  if (name === 'restrict') report.add([...at, 'name'], 'the name restrict is taken', 'rename the rule');
  if (typeof name !== 'string' || !isRuleName(name)) report.add(at, 'a rule needs a name', 'use lower case, digits and -');
  const effect = spec['effect'];
  if (typeof effect !== 'string' || !Object.hasOwn(effects, effect)) {
    report.add([...at, 'effect'], `effect ${JSON.stringify(effect ?? null)}`, `use one of ${ruleEffects.join(', ')}`);
    return undefined;
  }
  const { keys, compile } = effects[effect as RuleEffect];
  report.keys(spec, at, ['name', 'doc', 'effect', 'when', 'purpose', ...keys]);
  const purpose = spec['purpose'];
  if (purpose !== undefined && !purposes.has(String(purpose))) report.add([...at, 'purpose'], `unknown purpose ${String(purpose)}`, `use one of ${[...purposes.keys()].join(', ')}`);
  const when = report.cel(spec['when'], [...at, 'when']);
  return { name: String(name), effect: effect as RuleEffect, file: report.file, line: report.yaml.lineOf(at), purpose: purpose === undefined ? undefined : String(purpose), when, quietHours: undefined, limit: undefined, ...compile(spec, at, report) };
}

function compileDelay(spec: Table, at: At, report: Report): Partial<CompiledRule> {
  if ((spec['quietHours'] === undefined) === (spec['until'] === undefined)) report.add(at, 'a delay needs either quietHours or until', 'give one of the two');
  return {
    quietHours: spec['quietHours'] === undefined ? undefined : compileQuietHours(spec['quietHours'], [...at, 'quietHours'], report),
    until: report.cel(spec['until'], [...at, 'until'], undefined, 'any'),
  };
}

function compileQuietHours(spec: YamlValue | undefined, at: At, report: Report): QuietHours | undefined {
  const minutes = (v: YamlValue | undefined): number | undefined => {
    const match = typeof v === 'string' ? /^([01]\d|2[0-3]):([0-5]\d)$/.exec(v) : null;
    return match === null ? undefined : Number(match[1]) * 60 + Number(match[2]);
  };
  const table = isTable(spec) ? spec : {};
  report.keys(table, at, ['from', 'to', 'timezone', 'timezoneField']);
  const from = minutes(table['from']);
  const to = minutes(table['to']);
  const timezone = String(table['timezone'] ?? 'UTC');
  try {
    new Intl.DateTimeFormat('en', { timeZone: timezone });
  } catch {
    report.add([...at, 'timezone'], `unknown time zone ${timezone}`, 'use an IANA name such as Europe/Berlin');
  }
  if (from === undefined || to === undefined || from === to) {
    report.add(at, 'quietHours needs from and to', 'write quietHours: { from: "22:00", to: "07:00", timezone: Europe/Berlin }');
    return undefined;
  }
  const timezoneField = table['timezoneField'];
  if (timezoneField !== undefined && (typeof timezoneField !== 'string' || unknownFields(`record.${timezoneField}`).length > 0)) report.add([...at, 'timezoneField'], 'timezoneField is no field of a canonical record', 'use timezone');
  return { from, to, timezone, ...(typeof timezoneField === 'string' ? { timezoneField } : {}) };
}

function compileLimit(spec: YamlValue | undefined, at: At, report: Report): Limit | undefined {
  const table = isTable(spec) ? spec : {};
  report.keys(table, at, ['count', 'per', 'by']);
  const perMs = durationMs(table['per']);
  const count = table['count'];
  const by = table['by'] ?? 'subject';
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || perMs === undefined || perMs < 1000 || (by !== 'subject' && by !== 'destination')) {
    report.add(at, 'limit needs count, per and by', 'write limit: { count: 3, per: 1d, by: subject }');
    return undefined;
  }
  return { count, perMs, by };
}

/** Names of destinations are checked when the release knows them all. */
function compileRoute(spec: Table, at: At, report: Report): Partial<CompiledRule> {
  const table = isTable(spec['route']) ? spec['route'] : {};
  const remedy = 'write route: { to: [crm-eu], among: [crm-eu, crm-us] }';
  report.keys(table, [...at, 'route'], ['to', 'among']);
  const among = report.names(table['among'], [...at, 'route', 'among'], 'destination', isRuleName, remedy);
  const to = report.names(table['to'], [...at, 'route', 'to'], 'destination', (name) => among.includes(name), 'the destinations of to are among those of among');
  return { route: { to: new Set(to), among: new Set(among) } };
}

function compileResidency(spec: Table, at: At, report: Report): Partial<CompiledRule> {
  const table = isTable(spec['residency']) ? spec['residency'] : {};
  const remedy = 'write residency: { subject: [EEA], destinations: [EEA, CH] } with ISO 3166 codes or groups of regions.yaml';
  report.keys(table, [...at, 'residency'], ['subject', 'destinations']);
  const set = (key: string): RegionSet => {
    const codes = report.names(table[key], [...at, 'residency', key], 'region', (name) => report.regions.resolve(name) !== undefined, remedy);
    return new Set(codes.flatMap((name) => [...report.regions.resolve(name)!]));
  };
  return { residency: { subject: table['subject'] === undefined ? undefined : set('subject'), destinations: set('destinations') } };
}

function compileApproval(spec: Table, at: At, report: Report): Partial<CompiledRule> {
  const expiresMs = spec['expires'] === undefined ? defaultExpiryMs : durationMs(spec['expires']);
  if (expiresMs === undefined || expiresMs < 60_000 || expiresMs > maxExpiryMs) report.add([...at, 'expires'], 'expires is no duration from 1m to 29d', 'write e.g. expires: 48h');
  return { approval: { expiresMs: expiresMs ?? defaultExpiryMs } };
}

const isField = (name: string): boolean => [...canonicalSchemas().values()].some((schema) => schema.fields.some((f) => f.name === name));
const fieldRemedy = 'use fields of the canonical schema';

function compileDrop(spec: Table, at: At, report: Report): Partial<CompiledRule> {
  const key = spec['keep'] === undefined ? 'fields' : 'keep';
  if (spec['keep'] !== undefined && spec['fields'] !== undefined) report.add(at, 'minimise takes either fields or keep', 'give one of the two');
  return { drop: { fields: new Set(report.names(spec[key], [...at, key], 'field', isField, fieldRemedy)), keep: key === 'keep' } };
}

/** `hash: { as, fields }` of a rule, or of a route of kind restrict: how each named field is hashed. */
export function compileHash(spec: Table, at: At, report: Report): Pick<CompiledRule, 'change'> {
  const table = isTable(spec['hash']) ? spec['hash'] : {};
  report.keys(table, [...at, 'hash'], ['as', 'fields']);
  const scheme = String(table['as'] ?? null);
  if (!hashSchemes.includes(scheme)) {
    report.add([...at, 'hash', 'as'], `unknown hash ${scheme}`, `use one of ${hashSchemes.join(', ')}`);
    return {};
  }
  const own = Object.keys((hashers as Readonly<Record<string, object>>)[scheme] ?? {});
  const fields = table['fields'] === undefined && own.length > 0 ? own : report.names(table['fields'], [...at, 'hash', 'fields'], 'field', (name) => isField(name) && hasher(scheme, name) !== undefined, own.length > 0 ? `${scheme} takes ${own.join(', ')} hashed` : fieldRemedy);
  return { change: new Map(fields.map((field) => [field, hasher(scheme, field)!])) };
}

function compileMask(spec: Table, at: At, report: Report): Partial<CompiledRule> {
  const table = isTable(spec['mask']) ? spec['mask'] : {};
  const here = [...at, 'mask'];
  report.keys(table, here, ['fields', 'keep', 'first', 'last']);
  const ways = ['keep', 'first', 'last'].filter((key) => table[key] !== undefined);
  const count = table['first'] ?? table['last'];
  const named = typeof table['keep'] === 'string' && Object.hasOwn(masks, table['keep']) ? masks[table['keep']] : undefined;
  const counted = typeof count === 'number' && Number.isInteger(count) && count >= 0 && count <= 32;
  if (ways.length !== 1 || (ways[0] === 'keep' ? named === undefined : !counted)) {
    report.add(here, 'a mask needs one of keep, first, last', `write mask: { fields: [phone], last: 4 }, or keep: ${Object.keys(masks).join(' | ')}`);
    return {};
  }
  const transform = named ?? (ways[0] === 'first' ? keepFirst(count as number) : keepLast(count as number));
  return { change: new Map(report.names(table['fields'], [...here, 'fields'], 'field', isField, fieldRemedy).map((field) => [field, transform])) };
}
