import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import type { LogAdmin, TopicSpec } from '@weir/log';
import { parseYaml, type ParsedYaml, type YamlValue } from '@weir/yaml';

/** What of a release the plan needs; a Release has it. */
export interface TopicScope {
  readonly sources: ReadonlyMap<string, { readonly dedupeWindowMs: number }>;
  readonly destinations: ReadonlyMap<string, { readonly retryHorizonMs: number; readonly seconds?: ReadonlyMap<string, { readonly destination: string }> }>;
}

export interface TopicPlanOptions {
  readonly prefix: string;
  /** Brokers of the cluster: replication is 3 from three brokers on, else 1; `auto` of min.insync.replicas is 2 or 1. */
  readonly brokers: number;
}

/** One way in which a cluster differs from infra/topics.yaml, or the file from its own rule. */
export interface TopicFinding {
  readonly topic: string;
  readonly message: string;
  readonly remedy: string;
}

type Table = { readonly [key: string]: YamlValue };
interface Declared {
  readonly name: string;
  readonly partitions: number;
  readonly config: Readonly<Record<string, string>>;
}
interface Declarations {
  readonly topics: readonly Declared[];
  readonly rules: readonly Rule[];
}
interface Rule {
  readonly text: string;
  readonly left: string;
  readonly right: readonly string[];
}

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
const maxPartitions = 1000;
const retention = 'retention.ms';

/** `7d`, `12h`, `500ms`, or plain milliseconds; undefined when it is none of them. -1 = for ever. */
export function topicDurationMs(value: YamlValue | undefined): number | undefined {
  const match = /^(-1|\d{1,15})(ms|s|m|h|d)?$/.exec(String(value ?? ''));
  return match === null ? undefined : Number(match[1]) * units[match[2] ?? 'ms']!;
}

const isTable = (value: YamlValue | undefined): value is Table => value !== null && typeof value === 'object' && !Array.isArray(value);

/** infra/topics.yaml as values. Throws WorkspaceError with every problem. */
function readDeclarations(file: { readonly path: string; readonly content: string }): Declarations {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const report = (at: readonly (string | number)[], message: string, remedy: string): void => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); };
  const root = isTable(yaml.value) ? yaml.value : {};
  const defaults = isTable(root['defaults']) ? root['defaults'] : {};
  const standard = { partitions: defaults['partitions'] ?? 6, config: configOf(defaults['config'], ['defaults', 'config'], yaml, problems, file.path) };
  const topics: Declared[] = [];
  if (!isTable(root['topics'])) report(['topics'], 'topics is missing', 'list the topics by name');
  for (const [name, value] of Object.entries(isTable(root['topics']) ? root['topics'] : {})) {
    const at = ['topics', name];
    if (!/^[a-z0-9.-]+(<(source|destination)>)?$/.test(name)) report(at, `topic name ${name}`, 'use lower case, digits, - and ., with <source> or <destination> at the end');
    const table = isTable(value) ? value : {};
    const partitions = table['partitions'] ?? standard.partitions;
    if (typeof partitions !== 'number' || !Number.isInteger(partitions) || partitions < 1 || partitions > maxPartitions) report([...at, 'partitions'], 'partitions', `use a whole number from 1 to ${maxPartitions}`);
    topics.push({ name, partitions: partitions as number, config: { ...standard.config, ...configOf(table['config'], [...at, 'config'], yaml, problems, file.path) } });
  }
  const arithmetic = isTable(root['arithmetic']) ? root['arithmetic'] : {};
  for (const key of Object.keys(arithmetic)) if (key !== 'rules') report(['arithmetic', key], `unknown key ${key}`, 'use rules; retry horizons and dedupe windows come from the workspace');
  const texts = arithmetic['rules'];
  if (!Array.isArray(texts) || texts.length === 0) report(['arithmetic', 'rules'], 'no rules', 'write - ledger >= raw + retryHorizon + dlq');
  const rules = (Array.isArray(texts) ? texts : []).map((text, i) => {
    const rule = parseRule(String(text), topics);
    if (typeof rule === 'string') report(['arithmetic', 'rules', i], rule, 'write e.g. ledger >= raw + retryHorizon + dlq');
    return rule;
  });
  if (problems.length > 0) throw new WorkspaceError(problems);
  return { topics, rules: rules as Rule[] };
}

function configOf(value: YamlValue | undefined, at: readonly string[], yaml: ParsedYaml, problems: WorkspaceProblem[], file: string): Record<string, string> {
  const out: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [key, raw] of Object.entries(isTable(value) ? value : {})) {
    const ms = key.endsWith('.ms') ? topicDurationMs(raw) : undefined;
    if (raw === null || typeof raw === 'object' || (key.endsWith('.ms') && ms === undefined)) problems.push({ file, line: yaml.lineOf([...at, key]), message: `${key} is no ${key.endsWith('.ms') ? 'duration' : 'plain value'}`, remedy: 'write e.g. 7d, or a number' });
    else out[key] = ms === undefined ? String(raw) : String(ms);
  }
  return out;
}

/** `a >= b + c`: each name is a topic (its first word), retryHorizon or dedupeWindow. */
function parseRule(text: string, topics: readonly Declared[]): Rule | string {
  const families = topics.map((t) => family(t.name));
  const known = new Set([...workspaceTerms, ...families]);
  const [left, right, ...rest] = text.split('>=').map((side) => side.trim());
  const terms = (right ?? '').split('+').map((term) => term.trim());
  const unknown = families.includes(left ?? '') ? terms.find((term) => !known.has(term)) : left ?? '';
  return rest.length > 0 || unknown !== undefined ? `rule ${JSON.stringify(text)}${unknown === undefined ? '' : `: unknown ${JSON.stringify(unknown)}`}` : { text, left: left!, right: terms };
}

/** What a rule may name beside topics, and which comes from the workspace: the retry horizon of the destination in question, the longest dedupe window of the sources. */
const workspaceTerms = ['retryHorizon', 'dedupeWindow'];

/** `raw` of `raw.<source>`. */
function family(name: string): string {
  return name.split('.')[0]!;
}

/** Every topic of the release as infra/topics.yaml declares it, names under the prefix. Throws WorkspaceError. */
export function planTopics(file: { readonly path: string; readonly content: string }, scope: TopicScope, options: TopicPlanOptions): TopicSpec[] {
  const many = options.brokers >= 3;
  return readDeclarations(file).topics.flatMap((topic) => {
    const config = { ...topic.config };
    if (config['min.insync.replicas'] === 'auto') config['min.insync.replicas'] = many ? '2' : '1';
    return expand(topic.name, scope).map((name) => ({ name: `${options.prefix}.${name}`, partitions: topic.partitions, replicationFactor: many ? 3 : 1, config }));
  });
}

function expand(name: string, scope: TopicScope): string[] {
  if (name.endsWith('<source>')) return [...scope.sources.keys()].map((source) => name.replace('<source>', source));
  if (name.endsWith('<destination>')) return [...scope.destinations.keys()].map((destination) => name.replace('<destination>', destination));
  return [name];
}

/**
 * The retention rules of the file (ledger >= raw + retryHorizon + dedupeWindow + dlq), per topic with the retry horizon of its
 * destination and the longest dedupe window, both of the workspace as it is. `actual` gives the retention in force, ms,
 * of a topic; without it, the declared one counts. A retention of -1 is longer than everything.
 */
export function checkArithmetic(file: { readonly path: string; readonly content: string }, scope: TopicScope, prefix: string, actual?: (topic: string) => number | undefined): TopicFinding[] {
  const { topics, rules } = readDeclarations(file);
  const named = (declared: Declared): string[] => expand(declared.name, scope).map((name) => `${prefix}.${name}`);
  const retentionIn = (topic: string, declared: Declared): number => {
    const ms = actual?.(topic) ?? topicDurationMs(declared.config[retention]) ?? -1;
    return ms < 0 ? Number.POSITIVE_INFINITY : ms;
  };
  const longest = (name: string): number => Math.max(0, ...topics.filter((t) => family(t.name) === name).flatMap((t) => named(t).map((topic) => retentionIn(topic, t))));
  const window = Math.max(0, ...[...scope.sources.values()].map((source) => source.dedupeWindowMs));
  /** Of the destination that the topic is of; of all where it is of none. A second vendor remembers also what the first tried for its whole horizon before. */
  const horizonOf = (declared: Declared, at: number, remembers: boolean): number => {
    const all = [...scope.destinations.values()];
    const before = (name: string): number => Math.max(0, ...all.filter((d) => [...d.seconds?.values() ?? []].some((second) => second.destination === name)).map((d) => d.retryHorizonMs));
    const horizons = [...scope.destinations].map(([name, d]) => d.retryHorizonMs + (remembers ? before(name) : 0));
    return declared.name.endsWith('<destination>') ? horizons[at]! : Math.max(0, ...horizons);
  };
  const findings: TopicFinding[] = [];
  for (const rule of rules) {
    for (const declared of topics.filter((t) => family(t.name) === rule.left)) {
      for (const [at, topic] of named(declared).entries()) {
        const needed = rule.right.reduce((sum, term) => sum + (term === 'retryHorizon' ? horizonOf(declared, at, rule.left === 'ledger') : term === 'dedupeWindow' ? window : longest(term)), 0);
        const kept = retentionIn(topic, declared);
        if (kept < needed) findings.push({ topic, message: `keeps ${days(kept)}, ${rule.text} needs ${days(needed)}`, remedy: `raise ${retention} to at least ${needed}, or shorten what it is compared with: what is forgotten may be sent again, what is deleted is never sent` });
      }
    }
  }
  return findings;
}

function days(ms: number): string {
  return Number.isFinite(ms) ? `${Math.round(ms / 864_000) / 100} d` : 'everything';
}

/** What a cluster has otherwise than planned. Only declared settings are looked at. */
export function compareTopics(planned: readonly TopicSpec[], found: ReadonlyArray<TopicSpec & { readonly exists: boolean }>): TopicFinding[] {
  const findings: TopicFinding[] = [];
  const byName = new Map(found.map((topic) => [topic.name, topic]));
  for (const plan of planned) {
    const topic = byName.get(plan.name);
    if (topic === undefined || !topic.exists) {
      findings.push({ topic: plan.name, message: 'is missing', remedy: 'run weir topics apply' });
      continue;
    }
    if (topic.partitions !== plan.partitions) findings.push({ topic: plan.name, message: `has ${topic.partitions} partitions, declared are ${plan.partitions}`, remedy: topic.partitions > plan.partitions ? 'no key goes to partitions that were added (docs/troubleshooting.md, topic-repartitioned): write the number it has into infra/topics.yaml' : 'keys would move: keep the number it has in infra/topics.yaml, or migrate' });
    if (topic.replicationFactor < plan.replicationFactor) findings.push({ topic: plan.name, message: `has replication factor ${topic.replicationFactor}, expected ${plan.replicationFactor}`, remedy: 'reassign its partitions with more replicas' });
    for (const [key, value] of Object.entries(plan.config)) {
      const actual = topic.config[key];
      if (actual !== undefined && normal(actual) === normal(value)) continue;
      findings.push({ topic: plan.name, message: `${key} is ${actual ?? 'not set'}, declared is ${value}`, remedy: `set it: kafka-configs --alter --topic ${plan.name} --add-config ${key}=${value.includes(',') ? `[${value}]` : value}` });
    }
  }
  return findings;
}

/** `compact,delete` and `delete,compact` are one; `0.10` and `0.1` too. */
function normal(value: string): string {
  return value.split(',').map((part) => (/^\d+(\.\d+)?$/.test(part.trim()) ? String(Number(part)) : part.trim())).sort().join(',');
}

/** All findings of a cluster: what differs, and the retention arithmetic over the retention in force. */
export async function checkTopics(admin: Pick<LogAdmin, 'describeTopics'>, file: { readonly path: string; readonly content: string }, scope: TopicScope, plan: readonly TopicSpec[], prefix: string): Promise<TopicFinding[]> {
  const found = await admin.describeTopics(plan.map((topic) => topic.name));
  const byName = new Map(found.map((topic) => [topic.name, topic]));
  return [...compareTopics(plan, found), ...checkArithmetic(file, scope, prefix, (name) => topicDurationMs(byName.get(name)?.config[retention]))];
}
