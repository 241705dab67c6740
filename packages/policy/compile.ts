import { compileCel, type CompiledCel } from '@weir/cel';
import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { parseYaml, type ParsedYaml, type YamlValue } from '@weir/yaml';
import { unknownFields } from './record-view.ts';
import { ruleVariables, type Purpose, type Route, type RuleEffect } from './types.ts';

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
  /** Absent = always. */
  readonly when: CompiledCel | undefined;
  readonly quietHours: QuietHours | undefined;
  /** delay: gives ms since the epoch or a timestamp. */
  readonly until?: CompiledCel | undefined;
  readonly limit: Limit | undefined;
}

export interface CompiledRoute extends Omit<Route, 'when'> {
  readonly destination: string;
  readonly kind: 'use' | 'restrict';
  readonly when: CompiledCel | undefined;
}

export interface CompiledPolicy {
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly rules: readonly CompiledRule[];
  /** Routes by record name without namespace. */
  readonly routes: ReadonlyMap<string, readonly CompiledRoute[]>;
}

type File = { readonly path: string; readonly content: string };
type At = readonly (string | number)[];
type Table = { [key: string]: YamlValue };
const isTable = (v: YamlValue | undefined): v is Table => v !== null && typeof v === 'object' && !Array.isArray(v);
const namePattern = /^[a-z][a-z0-9-]{0,62}$/;
const durations: Record<string, number> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `30s`, `15m`, `2h`, `7d` in ms; undefined when it is none of them. */
export function durationMs(text: YamlValue | undefined): number | undefined {
  const match = typeof text === 'string' ? /^(\d{1,6})(s|m|h|d)$/.exec(text) : null;
  return match === null ? undefined : Number(match[1]) * durations[match[2]!]!;
}

class Report {
  readonly problems: WorkspaceProblem[] = [];
  readonly file: string;
  readonly yaml: ParsedYaml;
  constructor(file: string, yaml: ParsedYaml) {
    this.file = file;
    this.yaml = yaml;
  }
  add(at: At, message: string, remedy: string): void {
    this.problems.push({ file: this.file, line: this.yaml.lineOf(at), message, remedy });
  }
  /** @param type record name without namespace; absent = the fields of any record may be named */
  cel(source: YamlValue | undefined, at: At, type?: string, result: 'bool' | 'any' = 'bool'): CompiledCel | undefined {
    if (source === undefined) return undefined;
    const text = typeof source === 'boolean' || typeof source === 'string' ? String(source) : '';
    const compiled = compileCel(text, { file: this.file, line: this.yaml.lineOf(at), variables: ruleVariables, result });
    if ('cel' in compiled) {
      for (const field of unknownFields(text, type)) this.add(at, `${type ?? 'no canonical record'} has ${type === undefined ? 'a' : 'no'} field ${field}`, 'use a field of the canonical schema');
      return compiled.cel;
    }
    this.problems.push(...compiled.problems);
    return undefined;
  }
  keys(table: Table, at: At, allowed: readonly string[]): void {
    for (const key of Object.keys(table)) if (!allowed.includes(key)) this.add([...at, key], `unknown key ${key}`, `use one of ${allowed.join(', ')}`);
  }
  end<T>(value: T): T {
    if (this.problems.length > 0) throw new WorkspaceError(this.problems);
    return value;
  }
}

/** purposes.yaml: `purposes: { <name>: { legalBasis, doc } }`. */
export function compilePurposes(file: File): ReadonlyMap<string, Purpose> {
  const report = new Report(file.path, parseYaml(file));
  const root = report.yaml.value;
  const table = isTable(root) ? root['purposes'] : undefined;
  const found = new Map<string, Purpose>();
  if (!isTable(table)) report.add([], 'no purposes', 'write purposes: with a table of names');
  for (const [name, spec] of Object.entries(isTable(table) ? table : {})) {
    const at = ['purposes', name];
    if (!namePattern.test(name)) report.add(at, `purpose name ${name}`, 'use lower case, digits and -');
    if (!isTable(spec)) {
      report.add(at, 'a purpose is a table', 'give legalBasis and doc');
      continue;
    }
    report.keys(spec, at, ['legalBasis', 'doc']);
    const basis = spec['legalBasis'];
    if (basis !== 'consent' && basis !== 'contract' && basis !== 'legitimate-interest' && basis !== 'legal-obligation') report.add([...at, 'legalBasis'], `legalBasis ${JSON.stringify(basis ?? null)}`, 'use consent, contract, legitimate-interest or legal-obligation');
    else found.set(name, { name, legalBasis: basis, doc: String(spec['doc'] ?? '') });
  }
  return report.end(found);
}

/** policies/*.yaml: `rules:` a list of named rules. */
export function compileRules(file: File, purposes: ReadonlyMap<string, Purpose>): readonly CompiledRule[] {
  const report = new Report(file.path, parseYaml(file));
  const root = report.yaml.value;
  const list = isTable(root) ? root['rules'] : undefined;
  if (!Array.isArray(list)) report.add([], 'no rules', 'write rules: with a list');
  const rules: CompiledRule[] = [];
  for (const [i, spec] of (Array.isArray(list) ? list : []).entries()) {
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
  report.keys(spec, at, ['name', 'doc', 'effect', 'when', 'quietHours', 'until', 'limit', 'purpose']);
  const name = spec['name'];
  if (name === 'restrict') report.add([...at, 'name'], 'the name restrict is taken', 'rename the rule');
  if (typeof name !== 'string' || !namePattern.test(name)) report.add(at, 'a rule needs a name', 'use lower case, digits and -');
  const effect = spec['effect'];
  if (effect !== 'allow' && effect !== 'deny' && effect !== 'delay' && effect !== 'limit') {
    report.add([...at, 'effect'], `effect ${JSON.stringify(effect ?? null)}`, 'use allow, deny, delay or limit');
    return undefined;
  }
  const purpose = spec['purpose'];
  if (purpose !== undefined && !purposes.has(String(purpose))) report.add([...at, 'purpose'], `unknown purpose ${String(purpose)}`, `use one of ${[...purposes.keys()].join(', ')}`);
  const text = spec['when'];
  const source = purpose === undefined ? text : `purpose == ${JSON.stringify(purpose)}${text === undefined ? '' : ` && (${String(text)})`}`;
  if (effect === 'delay' && (spec['quietHours'] === undefined) === (spec['until'] === undefined)) report.add(at, 'a delay needs either quietHours or until', 'give one of the two');
  for (const [key, owner] of [['quietHours', 'delay'], ['until', 'delay'], ['limit', 'limit']]) if (spec[key!] !== undefined && effect !== owner) report.add([...at, key!], `${key} has no meaning with effect ${effect}`, `use effect: ${owner}`);
  const quietHours = effect === 'delay' && spec['quietHours'] !== undefined ? compileQuietHours(spec['quietHours'], [...at, 'quietHours'], report) : undefined;
  const until = effect === 'delay' ? report.cel(spec['until'], [...at, 'until'], undefined, 'any') : undefined;
  const limit = effect === 'limit' ? compileLimit(spec['limit'], [...at, 'limit'], report) : undefined;
  return { name: String(name), effect, file: report.file, line: report.yaml.lineOf(at), when: report.cel(source, [...at, 'when']), quietHours, until, limit };
}

function compileQuietHours(spec: YamlValue | undefined, at: At, report: Report): QuietHours | undefined {
  const minutes = (v: YamlValue | undefined): number | undefined => {
    const match = typeof v === 'string' ? /^([01]\d|2[0-3]):([0-5]\d)$/.exec(v) : null;
    return match === null ? undefined : Number(match[1]) * 60 + Number(match[2]);
  };
  const table = isTable(spec) ? spec : {};
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
  const perMs = durationMs(table['per']);
  const count = table['count'];
  const by = table['by'] ?? 'subject';
  if (typeof count !== 'number' || !Number.isInteger(count) || count < 1 || perMs === undefined || perMs < 1000 || (by !== 'subject' && by !== 'destination')) {
    report.add(at, 'limit needs count, per and by', 'write limit: { count: 3, per: 1d, by: subject }');
    return undefined;
  }
  return { count, perMs, by };
}

/** `routes:` of one destination file, already parsed; checks record, operation, purpose. Problems are added to the list. */
export function compileRoutes(list: YamlValue | undefined, destination: string, operations: Readonly<Record<string, { readonly kind: 'use' | 'restrict'; readonly accepts: readonly string[] }>>, purposes: ReadonlyMap<string, Purpose>, file: File, yaml: ParsedYaml, problems: WorkspaceProblem[]): CompiledRoute[] {
  const report = new Report(file.path, yaml);
  const routes: CompiledRoute[] = [];
  if (!Array.isArray(list) || list.length === 0) report.add(['routes'], 'a destination needs routes', 'write - { on: Profile, operation: …, purpose: … }');
  for (const [i, spec] of (Array.isArray(list) ? list : []).entries()) {
    const at = ['routes', i];
    if (!isTable(spec)) {
      report.add(at, 'a route is a table', 'give on, operation, purpose');
      continue;
    }
    report.keys(spec, at, ['on', 'operation', 'purpose', 'channel', 'topic', 'when']);
    const operation = Object.hasOwn(operations, String(spec['operation'])) ? operations[String(spec['operation'])] : undefined;
    const on = String(spec['on']);
    if (operation === undefined) report.add([...at, 'operation'], `no operation ${JSON.stringify(spec['operation'] ?? null)}`, `use one of ${Object.keys(operations).join(', ')}`);
    else if (!operation.accepts.includes(`weir.canonical.${on}`)) report.add([...at, 'on'], `operation ${String(spec['operation'])} does not take ${on}`, `it takes ${operation.accepts.map((n) => n.slice(15)).join(', ')}`);
    const purpose = spec['purpose'] === undefined ? undefined : String(spec['purpose']);
    if (purpose !== undefined && !purposes.has(purpose)) report.add([...at, 'purpose'], `unknown purpose ${purpose}`, `use one of ${[...purposes.keys()].join(', ')}`);
    if (operation?.kind === 'use' && purpose === undefined) report.add(at, 'a route of an operation that uses data needs a purpose', 'add purpose:');
    const text = (key: string): string | undefined => (spec[key] === undefined ? undefined : String(spec[key]));
    if (operation !== undefined) routes.push({ destination, on, operation: String(spec['operation']), kind: operation.kind, purpose, channel: text('channel'), topic: text('topic'), when: report.cel(spec['when'], [...at, 'when'], on) });
  }
  problems.push(...report.problems);
  return routes;
}
