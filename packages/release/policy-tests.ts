import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { canonicalSchemas, checkUse, decide, isRegionCode, type ConsentEntry, type Decision, type DecisionContext, type Subject } from '@weir/policy';
import type { AvroField, AvroRecord } from '@weir/schemas';
import { parseYaml, type ParsedYaml, type YamlValue } from '@weir/yaml';
import { isPolicyTest } from './governance.ts';
import type { Release, ReleaseFile } from './types.ts';

/** How a table test of the policies went. */
export interface PolicyTest {
  readonly file: string;
  readonly line: number;
  readonly name: string;
  /** What was not as expected; empty = passed. */
  readonly problems: readonly WorkspaceProblem[];
}

type Table = { [key: string]: YamlValue };
type At = readonly (string | number)[];
const isTable = (v: YamlValue | undefined): v is Table => v !== null && typeof v === 'object' && !Array.isArray(v);
const testKeys = ['name', 'doc', 'record', 'source', 'regions', 'at', 'acceptedAt', 'consent', 'used', 'approved', 'expect'];
const expectKeys = ['destination', 'operation', 'effect', 'rule', 'reason', 'notBefore', 'fields', 'without', 'values'];
const stateWords = ['granted', 'denied', 'withdrawn', 'unknown'];
const identifierFields = ['userId', 'email', 'phone', 'anonymousId'];
const maxTests = 1000;

/** Runs policies/*.test.yaml against the release they are part of. A file that is no test file throws WorkspaceError. */
export function runPolicyTests(release: Release): readonly PolicyTest[] {
  return release.files.filter((file) => isPolicyTest(file.path)).flatMap((file) => runFile(file, release));
}

/** The same as one answer: a WorkspaceError that names every test that fails. */
export function assertPolicyTests(release: Release): void {
  const problems = runPolicyTests(release).flatMap((found) => found.problems);
  if (problems.length > 0) throw new WorkspaceError(problems);
}

function runFile(file: ReleaseFile, release: Release): PolicyTest[] {
  const yaml = parseYaml(file);
  const list = isTable(yaml.value) ? yaml.value['tests'] : undefined;
  if (!Array.isArray(list) || list.length > maxTests) throw new WorkspaceError([{ file: file.path, line: 0, message: `no tests, or more than ${maxTests}`, remedy: 'write tests: with a list of { name, record, expect }' }]);
  return list.map((spec, i) => {
    const problems: WorkspaceProblem[] = [];
    const at = ['tests', i];
    const test = new TestRun(file.path, yaml, at, problems);
    const name = isTable(spec) ? String(spec['name'] ?? `test ${i + 1}`) : `test ${i + 1}`;
    if (isTable(spec)) test.run(spec, name, release);
    else test.add([], 'a test is a table', 'give name, record and expect');
    return { file: file.path, line: yaml.lineOf(at), name, problems };
  });
}

/** One test: what is wrong with it as a text, then what is not as expected. */
class TestRun {
  private readonly file: string;
  private readonly yaml: ParsedYaml;
  private readonly at: At;
  private readonly problems: WorkspaceProblem[];
  constructor(file: string, yaml: ParsedYaml, at: At, problems: WorkspaceProblem[]) {
    this.file = file;
    this.yaml = yaml;
    this.at = at;
    this.problems = problems;
  }

  add(at: At, message: string, remedy: string): void {
    this.problems.push({ file: this.file, line: this.yaml.lineOf([...this.at, ...at]), message, remedy });
  }

  run(spec: Table, name: string, release: Release): void {
    for (const key of Object.keys(spec)) if (!testKeys.includes(key)) this.add([key], `unknown key ${key}`, `use one of ${testKeys.join(', ')}`);
    const subject = this.subject(spec, release);
    const states = this.consent(spec['consent'], release);
    const limits = this.limits(spec['used'], release);
    const now = this.time(spec['at'], ['at']) ?? Date.now();
    const expected = Array.isArray(spec['expect']) ? spec['expect'] : [];
    if (expected.length === 0) this.add(['expect'], 'a test expects something', 'write expect: [{ destination: crm, effect: allow }]');
    if (subject === undefined || this.problems.length > 0) return;
    const decisions = decide(release.policy, subject, {
      now, ...limits,
      consent: (ids, route) => checkUse(ids, route.purpose!, route.channel ?? null, route.topic ?? null, release.policy.purposes.get(route.purpose!)?.legalBasis ?? null, () => states, now, release.policy),
    });
    for (const [i, want] of expected.entries()) {
      if (isTable(want)) this.compare(want, ['expect', i], name, decisions, subject);
      else this.add(['expect', i], 'an expectation is a table', 'write { destination: crm, effect: allow }');
    }
  }

  private subject(spec: Table, release: Release): Subject | undefined {
    const given = isTable(spec['record']) ? spec['record'] : {};
    const { type, ...fields } = given;
    const schema = canonicalSchemas().get(String(type));
    if (schema === undefined) {
      this.add(['record'], `no canonical record ${JSON.stringify(type ?? null)}`, `write record: { type: ${[...canonicalSchemas().keys()].join(' | ')}, … }`);
      return undefined;
    }
    const record = this.record(schema, fields);
    const source = String(spec['source'] ?? [...release.sources.keys()][0] ?? 'test');
    if (spec['source'] !== undefined && !release.sources.has(source)) this.add(['source'], `no source ${source}`, `use one of ${[...release.sources.keys()].join(', ')}`);
    const regions = this.regions(spec['regions']);
    const ids = identifierFields.filter((f) => typeof record[f] === 'string').map((f) => `${f}:${String(record[f])}`);
    const approved = isTable(spec['approved']) ? spec['approved'] : undefined;
    const approval = approved === undefined ? undefined : { destination: String(approved['destination']), operation: String(approved['operation']), rules: Array.isArray(approved['rules']) ? approved['rules'].map(String) : [] };
    return { recordName: String(type), record, source, key: ids[0] ?? 'event:test', ids, regions: () => regions, eventId: 'evt_test', acceptedAt: this.time(spec['acceptedAt'], ['acceptedAt']) ?? this.time(spec['at'], ['at']) ?? Date.now(), approval };
  }

  /** A code or a list of them: where other records of the person said that it is. */
  private regions(spec: YamlValue | undefined): readonly string[] {
    const list = spec === undefined ? [] : (Array.isArray(spec) ? spec : [spec]).map(String);
    for (const code of list) if (!isRegionCode(code)) this.add(['regions'], `unknown region ${JSON.stringify(code)}`, 'use ISO 3166 codes such as DE or US-CA');
    return list;
  }

  private record(schema: AvroRecord, fields: Table): Record<string, unknown> {
    const known = new Map(schema.fields.map((f) => [f.name, f]));
    for (const name of Object.keys(fields)) if (!known.has(name)) this.add(['record', name], `${schema.name} has no field ${name}`, 'use a field of the canonical schema');
    const record: Record<string, unknown> = {};
    for (const field of schema.fields) {
      const value = fields[field.name];
      record[field.name] = value === undefined ? emptyOf(field) : value;
      if (value !== undefined && !fits(field.type, value)) this.add(['record', field.name], `${field.name} does not take ${JSON.stringify(value).slice(0, 80)}`, 'give a value of its type; times are milliseconds');
    }
    return record;
  }

  /** `{ three-a-day: 2 }`: so many were let through before by each key of the rule. Other limits are not counted. */
  private limits(spec: YamlValue | undefined, release: Release): Required<Pick<DecisionContext, 'take' | 'has'>> {
    const before = new Map<string, number>();
    if (spec !== undefined && !isTable(spec)) this.add(['used'], 'used is a table', 'write used: { <rule>: <how many were let through before> }');
    const known = release.policy.rules.filter((rule) => rule.limit !== undefined).map((rule) => rule.name);
    for (const [rule, count] of Object.entries(isTable(spec) ? spec : {})) {
      if (!known.includes(rule)) this.add(['used', rule], `no limit rule ${rule}`, `use one of ${known.join(', ') || 'none: the workspace has no rule with effect: limit'}`);
      if (typeof count === 'number' && Number.isSafeInteger(count) && count >= 0) before.set(rule, count);
      else this.add(['used', rule], `${JSON.stringify(count)} is no count`, 'write a whole number, from 0 on');
    }
    const taken = new Map<string, number>();
    const has: DecisionContext['take'] = ({ name, limit }, key) => !before.has(name) || before.get(name)! + (taken.get(`${name}/${key}`) ?? 0) < limit!.count;
    return { has, take: (rule, key, now, route) => has(rule, key, now, route) && taken.set(`${rule.name}/${key}`, (taken.get(`${rule.name}/${key}`) ?? 0) + 1) !== undefined };
  }

  /** `{ news: granted }`, or a list of `{ purpose, channel, topic, state, expiresAt }`. */
  private consent(spec: YamlValue | undefined, release: Release): readonly ConsentEntry[] {
    const list = isTable(spec) ? Object.entries(spec).map(([purpose, state]): Table => ({ purpose, state })) : Array.isArray(spec) ? spec.filter(isTable) : [];
    return list.map((entry, i) => {
      const [purpose, state] = [String(entry['purpose']), String(entry['state'])];
      if (!release.policy.purposes.has(purpose)) this.add(['consent'], `unknown purpose ${purpose}`, `use one of ${[...release.policy.purposes.keys()].join(', ')}`);
      if (!stateWords.includes(state)) this.add(['consent'], `unknown state ${state}`, `use one of ${stateWords.join(', ')}`);
      return { purpose, channel: String(entry['channel'] ?? ''), topic: String(entry['topic'] ?? ''), state: state as ConsentEntry['state'], version: i, expiresAt: this.time(entry['expiresAt'], ['consent']) ?? null };
    });
  }

  private time(value: YamlValue | undefined, at: At): number | undefined {
    if (value === undefined) return undefined;
    const ms = typeof value === 'number' ? value : Date.parse(String(value));
    if (!Number.isFinite(ms)) this.add(at, `${JSON.stringify(value)} is no time`, 'write e.g. 2026-01-15T22:00:00Z');
    return Number.isFinite(ms) ? ms : undefined;
  }

  private compare(want: Table, at: At, name: string, decisions: readonly Decision[], subject: Subject): void {
    for (const key of Object.keys(want)) if (!expectKeys.includes(key)) this.add([...at, key], `unknown key ${key}`, `use one of ${expectKeys.join(', ')}`);
    const where = `${String(want['destination'])}${want['operation'] === undefined ? '' : `/${String(want['operation'])}`}`;
    const found = decisions.filter((d) => (d.route?.destination ?? null) === (want['destination'] ?? null) && (want['operation'] === undefined || d.route?.operation === want['operation']));
    const differ = (what: string, got: unknown): void => this.add(at, `test "${name}": ${where}: expected ${what}, got ${typeof got === 'string' ? got : JSON.stringify(got)}`, 'correct the policy, or the test');
    const [decision] = found;
    if (decision === undefined) {
      if (want['effect'] !== 'none') differ(String(want['effect'] ?? 'a decision'), 'none');
      return;
    }
    if (want['effect'] !== undefined && want['effect'] !== decision.effect) return differ(String(want['effect']), describe(decision));
    if (want['rule'] !== undefined && want['rule'] !== decision.rule) differ(`rule ${String(want['rule'])}`, describe(decision));
    const reason = decision.effect === 'allow' ? null : decision.reason;
    if (want['reason'] !== undefined && want['reason'] !== reason) differ(`reason ${String(want['reason'])}`, describe(decision));
    if (decision.effect === 'allow') this.compareSent(want, at, decision, subject, differ);
    else for (const key of ['notBefore', 'fields', 'without', 'values']) if (want[key] !== undefined) differ(`${key} of what is sent`, describe(decision));
  }

  private compareSent(want: Table, at: At, decision: Extract<Decision, { effect: 'allow' }>, subject: Subject, differ: (what: string, got: unknown) => void): void {
    const sent = decision.minimiser.record(subject.record);
    const present = Object.keys(sent).filter((f) => !['id', 'source', 'occurredAt'].includes(f) && sent[f] !== null && (typeof sent[f] !== 'object' || Object.keys(sent[f]!).length > 0) && sent[f] !== '');
    const names = (key: string): string[] => (Array.isArray(want[key]) ? want[key].map(String) : []);
    if (want['fields'] !== undefined && JSON.stringify(names('fields').toSorted()) !== JSON.stringify(present.toSorted())) differ(`the fields ${names('fields').join(', ') || 'none'}`, present.join(', ') || 'none');
    const there = names('without').filter((f) => present.includes(f));
    if (there.length > 0) differ(`no ${there.join(', ')}`, `${there.join(', ')} among what is sent`);
    for (const [field, value] of Object.entries(isTable(want['values']) ? want['values'] : {})) if (JSON.stringify(sent[field] ?? null) !== JSON.stringify(value)) differ(`${field} ${JSON.stringify(value)}`, sent[field] ?? null);
    if (want['notBefore'] !== undefined && this.time(want['notBefore'], [...at, 'notBefore']) !== (decision.notBefore ?? undefined)) differ(`not before ${String(want['notBefore'])}`, decision.notBefore === null ? 'at once' : new Date(decision.notBefore).toISOString());
  }
}

function describe(decision: Decision): string {
  return decision.effect === 'allow' ? `allow (rule ${decision.rule})` : `${decision.effect} (${decision.reason})`;
}

const branches = (type: unknown): readonly unknown[] => (Array.isArray(type) ? type : [type]);
function emptyOf(field: AvroField): unknown {
  if (branches(field.type).includes('null')) return null;
  const [type] = branches(field.type);
  const base = typeof type === 'object' && type !== null ? (type as { type: string }).type : type;
  return base === 'array' ? [] : base === 'map' ? {} : base === 'string' ? '' : base === 'boolean' ? false : 0;
}
function fits(type: unknown, value: YamlValue): boolean {
  return branches(type).some((branch) => {
    const base = typeof branch === 'object' && branch !== null ? (branch as { type: string }).type : branch;
    if (base === 'null') return value === null;
    if (base === 'array') return Array.isArray(value);
    if (base === 'map') return isTable(value) && Object.values(value).every((v) => typeof v === 'string');
    if (base === 'string' || base === 'boolean') return typeof value === base;
    return typeof value === 'number' && (base === 'double' || Number.isSafeInteger(value));
  });
}
