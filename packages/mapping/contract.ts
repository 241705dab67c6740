/**
 * Data contracts: Open Data Contract Standard 3.1 (https://bitol-io.github.io/open-data-contract-standard),
 * the part that can be decided on one record. What a contract says and Weir cannot check is refused, not
 * ignored.
 */
import type { Json, JsonObject } from '@weir/adapter';
import { compileCel } from '@weir/cel';
import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import type { Reason } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import { parseYaml } from '@weir/yaml';
import { RE2JS } from 're2js';
import { fieldKinds, kindWords, type FieldKind } from './avro-kind.ts';

export interface CompiledContract {
  readonly id: string;
  readonly version: string;
  readonly file: string;
  /** Canonical record names it governs. */
  readonly records: readonly string[];
  /** What it says of fields beside their values, by record and field. */
  readonly terms: ReadonlyMap<string, ReadonlyMap<string, ContractTerms>>;
  /** Every breach, not the first. */
  check(recordType: string, record: Readonly<Record<string, unknown>>): Reason[];
  /** The rules as rules on single fields; undefined when one of them needs the whole record. */
  fieldRules(recordType: string): readonly FieldRule[] | undefined;
}

/** Classification, tags and purposes of a field; who uses them knows the words. */
export interface ContractTerms {
  readonly classification: string | undefined;
  readonly tags: readonly string[];
  /** `customProperties: [{ property: purposes, value: [...] }]`. */
  readonly purposes: readonly string[] | undefined;
  readonly required: boolean;
  readonly line: number;
}

/** A rule that the value of one field decides. */
export interface FieldRule {
  readonly field: string;
  readonly holds: (value: unknown) => boolean;
  readonly reason: Reason;
  /** `present`: text that is not empty holds. `at-most`: text of at most `limit` characters holds. */
  readonly need?: 'present' | 'at-most';
  readonly limit?: number;
}
type RecordRule = (record: Readonly<Record<string, unknown>>) => Reason | undefined;
type Rule = FieldRule | RecordRule;
type At = readonly (string | number)[];

const documentKeys = new Set(['apiVersion', 'kind', 'id', 'name', 'version', 'status', 'domain', 'dataProduct', 'tenant', 'tags', 'description', 'schema', 'team', 'support', 'slaProperties', 'servers', 'roles', 'price', 'customProperties', 'authoritativeDefinitions', 'contractCreatedTs']);
const objectKeys = new Set(['name', 'physicalName', 'physicalType', 'logicalType', 'businessName', 'description', 'properties', 'quality', 'tags', 'dataGranularityDescription', 'customProperties', 'authoritativeDefinitions', 'id', 'relationships']);
const propertyKeys = new Set(['name', 'id', 'logicalType', 'physicalType', 'physicalName', 'businessName', 'description', 'required', 'unique', 'primaryKey', 'primaryKeyPosition', 'classification', 'criticalDataElement', 'examples', 'tags', 'logicalTypeOptions', 'customProperties', 'authoritativeDefinitions', 'encryptedName', 'quality', 'properties']);
const keyKeys = new Set(['name', 'id', 'businessName', 'description', 'classification', 'tags', 'customProperties', 'authoritativeDefinitions', 'examples']);
const qualityKeys = new Set(['id', 'name', 'description', 'type', 'metric', 'arguments', 'mustBe', 'unit', 'engine', 'implementation', 'dimension', 'severity', 'businessImpact', 'method', 'tags', 'customProperties', 'authoritativeDefinitions']);
/** ODCS type → the Avro fields that hold it; dates are ISO 8601 text, timestamps are ms. */
const logicalTypes: Readonly<Record<string, readonly FieldKind['base'][]>> = {
  string: ['string'], date: ['string', 'long'], timestamp: ['long'], number: ['double', 'long', 'int'], integer: ['long', 'int', 'double'], boolean: ['boolean'], object: ['map'], array: ['records'],
};
const numeric: readonly FieldKind['base'][] = ['double', 'long', 'int'];
const optionTypes: Readonly<Record<string, readonly FieldKind['base'][]>> = {
  minLength: ['string'], maxLength: ['string'], pattern: ['string'], format: ['string'], minItems: ['records'], maxItems: ['records'],
  minimum: numeric, maximum: numeric, exclusiveMinimum: numeric, exclusiveMaximum: numeric, multipleOf: numeric,
};
const formats: Record<string, RE2JS> = {
  email: RE2JS.compile('^[^\\s@]{1,64}@[^\\s@]+\\.[^\\s@]+$'), uuid: RE2JS.compile('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'),
  uri: RE2JS.compile('^[a-zA-Z][a-zA-Z0-9+.-]*:[^\\s]+$'), hostname: RE2JS.compile('^[A-Za-z0-9.-]{1,253}$'),
};

export function compileContract(file: { readonly path: string; readonly content: string }): CompiledContract {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const problem = (at: At, message: string, remedy: string): void => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); };
  const root = isTable(yaml.value) ? yaml.value : {};
  for (const key of Object.keys(root)) if (!documentKeys.has(key)) problem([key], `unknown key ${key}`, 'use the keys of ODCS 3.1');
  if (typeof root['apiVersion'] !== 'string' || !/^v3\.1(\.\d+)?$/.test(root['apiVersion'])) problem(['apiVersion'], 'apiVersion is not v3.1.x', 'write apiVersion: v3.1.0');
  if (root['kind'] !== 'DataContract') problem(['kind'], 'kind is not DataContract', 'write kind: DataContract');
  for (const key of ['id', 'version', 'status']) if (typeof root[key] !== 'string') problem([key], `${key} is missing`, 'it is required by ODCS');
  const rules = new Map<string, Rule[]>();
  const terms = new Map<string, Map<string, ContractTerms>>();
  const list = tablesOf(root['schema'], ['schema'], problem);
  if (list.length === 0) problem(['schema'], 'no schema', 'list the canonical records that the contract governs');
  for (const [i, object] of list.entries()) {
    compileObject(object, ['schema', i], file.path, yaml.lineOf, problem, rules);
    collectTerms(object, ['schema', i], yaml.lineOf, problem, terms);
  }
  if (problems.length > 0) throw new WorkspaceError(problems);
  return {
    id: root['id'] as string, version: root['version'] as string, file: file.path, records: [...rules.keys()], terms,
    check(recordType, record) {
      const reasons: Reason[] = [];
      for (const rule of rules.get(recordType) ?? []) {
        const reason = typeof rule === 'function' ? rule(record) : rule.holds(record[rule.field]) ? undefined : rule.reason;
        if (reason !== undefined) reasons.push(reason);
      }
      return reasons;
    },
    fieldRules(recordType) {
      const found = rules.get(recordType) ?? [];
      return found.some((rule) => typeof rule === 'function') ? undefined : (found as FieldRule[]);
    },
  };
}

const textsOf = (value: Json | undefined): readonly string[] | undefined => (Array.isArray(value) && value.every((v) => typeof v === 'string') ? value : undefined);

/** Terms of the properties of one schema object, and of the keys of a map as `<field>.<key>`; later properties of the same name add to them. */
function collectTerms(object: JsonObject, at: At, lineOf: (at: At) => number, problem: Report, terms: Map<string, Map<string, ContractTerms>>): void {
  const recordType = `weir.canonical.${String(object['name'])}`;
  const found = terms.get(recordType) ?? new Map<string, ContractTerms>();
  terms.set(recordType, found);
  const collect = (list: Json | undefined, where: At, prefix: string): void => {
    for (const [i, property] of (Array.isArray(list) ? list : []).entries()) {
      if (!isTable(property)) continue;
      const here = [...where, 'properties', i];
      const name = `${prefix}${String(property['name'])}`;
      found.set(name, termsOf(property, found.get(name), here, lineOf(here), problem));
      if (prefix === '') collect(property['properties'], here, `${name}.`);
    }
  };
  collect(object['properties'], at, '');
}

function termsOf(property: JsonObject, before: ContractTerms | undefined, here: At, line: number, problem: Report): ContractTerms {
  const { classification } = property;
  if (classification !== undefined && typeof classification !== 'string') problem([...here, 'classification'], 'classification is a text', 'write e.g. classification: personal');
  if (property['tags'] !== undefined && textsOf(property['tags']) === undefined) problem([...here, 'tags'], 'tags is a list of texts', 'write tags: [kyc-sensitive]');
  const custom = (Array.isArray(property['customProperties']) ? property['customProperties'] : []).find((p) => isTable(p) && p['property'] === 'purposes') as JsonObject | undefined;
  const purposes = textsOf(custom?.['value']);
  if (custom !== undefined && purposes === undefined) problem([...here, 'customProperties'], 'purposes is a list of names', 'write customProperties: [{ property: purposes, value: [service] }]');
  return {
    classification: typeof classification === 'string' ? classification : before?.classification, tags: [...(before?.tags ?? []), ...(textsOf(property['tags']) ?? [])],
    purposes: purposes ?? before?.purposes, required: property['required'] === true || before?.required === true, line,
  };
}

/** Keys of a map: their class and purposes are looked at, nothing else can be checked of them. */
function checkKeys(property: JsonObject, at: At, base: FieldKind['base'], problem: Report): void {
  const list = tablesOf(property['properties'], [...at, 'properties'], problem);
  if (list.length > 0 && base !== 'map') problem([...at, 'properties'], `${String(property['name'])} takes ${kindWords[base]}, which has no keys`, 'classify the field itself');
  for (const [i, key] of list.entries()) {
    const here = [...at, 'properties', i];
    if (typeof key['name'] !== 'string' || key['name'] === '') problem([...here, 'name'], 'a key of a map needs a name', 'write - name: passport');
    for (const word of Object.keys(key)) if (!keyKeys.has(word)) problem([...here, word], `${word} of a key of a map cannot be checked`, `use ${[...keyKeys].join(', ')}`);
  }
}

type Report = (at: At, message: string, remedy: string) => void;
const isTable = (value: Json | undefined): value is JsonObject => value !== null && typeof value === 'object' && !Array.isArray(value);

/** A list of tables; what is none is reported and left out. */
function tablesOf(value: Json | undefined, at: At, problem: Report): JsonObject[] {
  if (value === undefined || value === null) return [];
  if (Array.isArray(value) && value.every(isTable)) return value;
  problem(at, `${String(at.at(-1))} is not a list of tables`, 'write - name: …');
  return [];
}

function compileObject(object: JsonObject, at: At, file: string, lineOf: (at: At) => number, problem: Report, rules: Map<string, Rule[]>): void {
  const recordType = `weir.canonical.${String(object['name'])}`;
  const schema = loadSchemas().get(recordType);
  if (schema === undefined) return problem([...at, 'name'], `no canonical record ${JSON.stringify(object['name'] ?? null)}`, 'use Profile, Company, Event, ConsentChange, Order or CampaignMetric');
  for (const key of Object.keys(object)) if (!objectKeys.has(key)) problem([...at, key], `unknown key ${key}`, 'use the keys of ODCS 3.1');
  const fields = fieldKinds(schema);
  const found = rules.get(recordType) ?? [];
  rules.set(recordType, found);
  for (const [i, property] of tablesOf(object['properties'], [...at, 'properties'], problem).entries()) compileProperty(property, [...at, 'properties', i], fields, file, lineOf, problem, found);
  for (const [i, quality] of tablesOf(object['quality'], [...at, 'quality'], problem).entries()) compileQuality(quality, [...at, 'quality', i], undefined, file, lineOf, problem, found);
}

function compileProperty(property: JsonObject, at: At, fields: ReadonlyMap<string, FieldKind>, file: string, lineOf: (at: At) => number, problem: Report, rules: Rule[]): void {
  const name = String(property['name']);
  for (const key of Object.keys(property)) if (!propertyKeys.has(key)) problem([...at, key], `unknown key ${key}`, 'use the keys of ODCS 3.1');
  const kind = fields.get(name);
  if (kind === undefined) return problem([...at, 'name'], `the record has no field ${name}`, `use one of ${[...fields.keys()].join(', ')}`);
  checkKeys(property, at, kind.base, problem);
  if (property['unique'] === true || property['primaryKey'] === true) problem(at, `${name}: unique and primaryKey cannot be checked on one record`, 'remove it');
  const breach = (message: string, where: At): Reason => ({ code: 'contract-breached', message: `${name} ${message}`, file, line: lineOf(where), field: name });
  if (property['required'] === true) {
    const reason = breach('is required', [...at, 'required']);
    rules.push({ field: name, need: 'present', reason, holds: (value) => value !== null && value !== undefined && value !== '' });
  }
  const logicalType = property['logicalType'];
  if (logicalType !== undefined) {
    // Every record has the Avro type of its field: what the contract says of the type is true or false here.
    const bases = Object.hasOwn(logicalTypes, String(logicalType)) ? logicalTypes[String(logicalType)]! : [];
    if (bases.length === 0) return problem([...at, 'logicalType'], `unknown logicalType ${String(logicalType)}`, `use one of ${Object.keys(logicalTypes).join(', ')}`);
    if (!bases.includes(kind.base)) return problem([...at, 'logicalType'], `${name} takes ${kindWords[kind.base]}, never one of type ${String(logicalType)}`, 'correct the type, or govern another field');
    if (logicalType === 'integer' && kind.base === 'double') {
      const reason = breach('is not an integer', [...at, 'logicalType']);
      rules.push({ field: name, reason, holds: (value) => value === null || Number.isInteger(value) });
    }
  }
  const options = property['logicalTypeOptions'] ?? {};
  if (!isTable(options)) return problem([...at, 'logicalTypeOptions'], 'logicalTypeOptions is a table', 'write logicalTypeOptions: { maxLength: 20 }');
  for (const [option, value] of Object.entries(options)) {
    const bases = Object.hasOwn(optionTypes, option) ? optionTypes[option]! : [kind.base];
    const test = bases.includes(kind.base) ? compileOption(option, value) : `${name} takes ${kindWords[kind.base]}`;
    if (typeof test === 'string') problem([...at, 'logicalTypeOptions', option], `${option}: ${test}`, 'correct it');
    else {
      const reason = breach(`breaks ${option} ${JSON.stringify(value)}`, [...at, 'logicalTypeOptions', option]);
      rules.push({ field: name, reason, holds: (given) => given === null || given === undefined || test(given), ...(option === 'maxLength' ? { need: 'at-most' as const, limit: value as number } : {}) });
    }
  }
  for (const [i, quality] of tablesOf(property['quality'], [...at, 'quality'], problem).entries()) compileQuality(quality, [...at, 'quality', i], name, file, lineOf, problem, rules);
}

/** Code points: a surrogate pair is one. */
function characters(text: string): number {
  let count = text.length;
  for (let i = 0; i < text.length - 1; i++) if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) count--;
  return count;
}

function compileOption(option: string, value: Json): ((v: unknown) => boolean) | string {
  const size = (v: unknown): number => (typeof v === 'string' ? characters(v) : Array.isArray(v) ? v.length : 0);
  switch (option) {
    case 'minLength': case 'minItems': return typeof value === 'number' ? (v) => size(v) >= value : 'expected a number';
    case 'maxLength': case 'maxItems': return typeof value === 'number' ? (v) => size(v) <= value : 'expected a number';
    case 'minimum': return typeof value === 'number' ? (v) => typeof v === 'number' && v >= value : 'expected a number';
    case 'maximum': return typeof value === 'number' ? (v) => typeof v === 'number' && v <= value : 'expected a number';
    case 'exclusiveMinimum': return typeof value === 'number' ? (v) => typeof v === 'number' && v > value : 'expected a number';
    case 'exclusiveMaximum': return typeof value === 'number' ? (v) => typeof v === 'number' && v < value : 'expected a number';
    case 'multipleOf': return typeof value === 'number' && value > 0 ? (v) => typeof v === 'number' && Number.isInteger(v / value) : 'expected a positive number';
    case 'format': {
      const format = Object.hasOwn(formats, String(value)) ? formats[String(value)] : undefined;
      return format === undefined ? `unknown format, use one of ${Object.keys(formats).join(', ')}` : (v) => typeof v === 'string' && format.matcher(v).find();
    }
    case 'pattern':
      try {
        const compiled = RE2JS.compile(String(value));
        return (v) => typeof v === 'string' && compiled.matcher(v).find();
      } catch (error) {
        return `not an RE2 pattern: ${(error as Error).message}`;
      }
    default: return 'cannot be checked on one record';
  }
}

/**
 * `type: custom, engine: cel, implementation: <CEL over record>`, and the library metrics of one field with `mustBe: 0`;
 * documentation (`type: text`) is kept and not checked.
 */
function compileQuality(quality: JsonObject, at: At, field: string | undefined, file: string, lineOf: (at: At) => number, problem: Report, rules: Rule[]): void {
  for (const key of Object.keys(quality)) if (!qualityKeys.has(key)) problem([...at, key], `quality key ${key} cannot be checked on one record`, `use ${[...qualityKeys].join(', ')}`);
  if (quality['type'] === 'text') return;
  if ((quality['type'] ?? 'library') === 'library' && field !== undefined) return compileMetric(quality, at, field, file, lineOf, problem, rules);
  if (quality['type'] !== 'custom' || quality['engine'] !== 'cel' || typeof quality['implementation'] !== 'string') return problem(at, 'a quality rule that cannot be checked on one record', 'use type: custom, engine: cel, implementation: <CEL over record>; nullValues, missingValues or invalidValues of a property; or type: text');
  const compiled = compileCel(quality['implementation'], { file, line: lineOf([...at, 'implementation']), variables: { record: 'map' }, result: 'bool' });
  if ('problems' in compiled) {
    for (const p of compiled.problems) problem([...at, 'implementation'], p.message, p.remedy);
    return;
  }
  const message = `rule ${typeof quality['name'] === 'string' ? quality['name'] : compiled.cel.source} does not hold`;
  const line = lineOf(at);
  rules.push((record) => {
    const result = compiled.cel.evaluate({ record });
    return result.ok && result.value === true ? undefined : { code: 'contract-breached', message: result.ok ? message : `${message}: ${result.message}`, file, line };
  });
}

/** Library metrics count rows; on one record `mustBe: 0` says that it is not one of them. */
function compileMetric(quality: JsonObject, at: At, field: string, file: string, lineOf: (at: At) => number, problem: Report, rules: Rule[]): void {
  const metric = String(quality['metric']);
  if (quality['mustBe'] !== 0) return problem(at, `${metric}: a share of many records cannot be checked on one record`, 'write mustBe: 0');
  const given = quality['arguments'] ?? {};
  const bad = isTable(given) ? compileBad(metric, given) : 'arguments is a table';
  if (typeof bad === 'string') return problem([...at, 'arguments'], `${metric}: ${bad}`, 'use nullValues, missingValues with missingValues: [..], or invalidValues with validValues: [..] or pattern');
  const reason: Reason = { code: 'contract-breached', message: `${field} breaks ${typeof quality['name'] === 'string' ? quality['name'] : metric}`, file, line: lineOf(at), field };
  rules.push({ field, reason, holds: (value) => !bad(value ?? null) });
}

/** True for a value that the metric counts; a message when the metric is not known or lacks arguments. */
function compileBad(metric: string, given: JsonObject): ((value: unknown) => boolean) | string {
  if (metric === 'nullValues') return (value) => value === null;
  const list = given[metric === 'missingValues' ? 'missingValues' : 'validValues'];
  if (metric === 'missingValues' && Array.isArray(list)) return (value) => list.includes(value as Json);
  if (metric !== 'invalidValues') return metric === 'missingValues' ? 'expected missingValues' : 'cannot be checked on one record';
  if (Array.isArray(list) && given['pattern'] === undefined) return (value) => value !== null && !list.includes(value as Json);
  if (list !== undefined || typeof given['pattern'] !== 'string') return 'expected validValues or pattern, one of them';
  const matches = compileOption('pattern', given['pattern']);
  return typeof matches === 'string' ? matches : (value) => value !== null && !matches(value);
}
