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

export interface CompiledContract {
  readonly id: string;
  readonly version: string;
  readonly file: string;
  /** Canonical record names it governs. */
  readonly records: readonly string[];
  /** Every breach, not the first. */
  check(recordType: string, record: Readonly<Record<string, unknown>>): Reason[];
}

type Rule = (record: Readonly<Record<string, unknown>>) => Reason | undefined;
type At = readonly (string | number)[];

const documentKeys = new Set(['apiVersion', 'kind', 'id', 'name', 'version', 'status', 'domain', 'dataProduct', 'tenant', 'tags', 'description', 'schema', 'team', 'support', 'slaProperties', 'servers', 'roles', 'price', 'customProperties', 'authoritativeDefinitions', 'contractCreatedTs']);
const objectKeys = new Set(['name', 'physicalName', 'physicalType', 'logicalType', 'businessName', 'description', 'properties', 'quality', 'tags', 'dataGranularityDescription', 'customProperties', 'authoritativeDefinitions', 'id', 'relationships']);
const propertyKeys = new Set(['name', 'id', 'logicalType', 'physicalType', 'physicalName', 'businessName', 'description', 'required', 'unique', 'primaryKey', 'primaryKeyPosition', 'classification', 'criticalDataElement', 'examples', 'tags', 'logicalTypeOptions', 'customProperties', 'authoritativeDefinitions', 'encryptedName', 'quality']);
const jsTypes: Record<string, (v: unknown) => boolean> = {
  string: (v) => typeof v === 'string', date: (v) => typeof v === 'number' || typeof v === 'string', timestamp: (v) => typeof v === 'number',
  number: (v) => typeof v === 'number', integer: (v) => Number.isSafeInteger(v), boolean: (v) => typeof v === 'boolean',
  object: (v) => v !== null && typeof v === 'object' && !Array.isArray(v), array: Array.isArray,
};
const formats: Record<string, RE2JS> = {
  email: RE2JS.compile('^[^\\s@]{1,64}@[^\\s@]+\\.[^\\s@]+$'), uuid: RE2JS.compile('^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$'),
  uri: RE2JS.compile('^[a-zA-Z][a-zA-Z0-9+.-]*:[^\\s]+$'), hostname: RE2JS.compile('^[A-Za-z0-9.-]{1,253}$'),
};

export function compileContract(file: { readonly path: string; readonly content: string }): CompiledContract {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const problem = (at: At, message: string, remedy: string): void => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); };
  const root = (yaml.value ?? {}) as JsonObject;
  for (const key of Object.keys(root)) if (!documentKeys.has(key)) problem([key], `unknown key ${key}`, 'use the keys of ODCS 3.1');
  if (typeof root['apiVersion'] !== 'string' || !/^v3\.1(\.\d+)?$/.test(root['apiVersion'])) problem(['apiVersion'], 'apiVersion is not v3.1.x', 'write apiVersion: v3.1.0');
  if (root['kind'] !== 'DataContract') problem(['kind'], 'kind is not DataContract', 'write kind: DataContract');
  for (const key of ['id', 'version', 'status']) if (typeof root[key] !== 'string') problem([key], `${key} is missing`, 'it is required by ODCS');
  const rules = new Map<string, Rule[]>();
  const list = Array.isArray(root['schema']) ? root['schema'] : [];
  if (list.length === 0) problem(['schema'], 'no schema', 'list the canonical records that the contract governs');
  for (const [i, object] of list.entries()) compileObject(object as JsonObject, ['schema', i], file.path, yaml.lineOf, problem, rules);
  if (problems.length > 0) throw new WorkspaceError(problems);
  return {
    id: root['id'] as string, version: root['version'] as string, file: file.path, records: [...rules.keys()],
    check(recordType, record) {
      const reasons: Reason[] = [];
      for (const rule of rules.get(recordType) ?? []) {
        const reason = rule(record);
        if (reason !== undefined) reasons.push(reason);
      }
      return reasons;
    },
  };
}

type Report = (at: At, message: string, remedy: string) => void;

function compileObject(object: JsonObject, at: At, file: string, lineOf: (at: At) => number, problem: Report, rules: Map<string, Rule[]>): void {
  const recordType = `weir.canonical.${String(object['name'])}`;
  const schema = loadSchemas().get(recordType);
  if (schema === undefined) return problem([...at, 'name'], `no canonical record ${JSON.stringify(object['name'] ?? null)}`, 'use Profile, Company, Event, ConsentChange, Order or CampaignMetric');
  for (const key of Object.keys(object)) if (!objectKeys.has(key)) problem([...at, key], `unknown key ${key}`, 'use the keys of ODCS 3.1');
  const fields = new Set(schema.fields.map((f) => f.name));
  const found = rules.get(recordType) ?? [];
  rules.set(recordType, found);
  for (const [i, property] of ((object['properties'] ?? []) as JsonObject[]).entries()) compileProperty(property, [...at, 'properties', i], fields, file, lineOf, problem, found);
  for (const [i, quality] of ((object['quality'] ?? []) as JsonObject[]).entries()) compileQuality(quality, [...at, 'quality', i], file, lineOf, problem, found);
}

function compileProperty(property: JsonObject, at: At, fields: ReadonlySet<string>, file: string, lineOf: (at: At) => number, problem: Report, rules: Rule[]): void {
  const name = String(property['name']);
  for (const key of Object.keys(property)) if (!propertyKeys.has(key)) problem([...at, key], `unknown key ${key}`, 'use the keys of ODCS 3.1');
  if (!fields.has(name)) return problem([...at, 'name'], `the record has no field ${name}`, `use one of ${[...fields].join(', ')}`);
  if (property['unique'] === true || property['primaryKey'] === true) problem(at, `${name}: unique and primaryKey cannot be checked on one record`, 'remove it');
  const breach = (message: string, where: At): Reason => ({ code: 'contract-breached', message: `${name} ${message}`, file, line: lineOf(where), field: name });
  if (property['required'] === true) {
    const reason = breach('is required', [...at, 'required']);
    rules.push((record) => (record[name] === null || record[name] === undefined || record[name] === '' ? reason : undefined));
  }
  const logicalType = property['logicalType'];
  if (logicalType !== undefined) {
    const test = jsTypes[String(logicalType)];
    if (test === undefined) return problem([...at, 'logicalType'], `unknown logicalType ${String(logicalType)}`, `use one of ${Object.keys(jsTypes).join(', ')}`);
    const reason = breach(`is not a ${String(logicalType)}`, [...at, 'logicalType']);
    rules.push((record) => (record[name] === null || record[name] === undefined || test(record[name]) ? undefined : reason));
  }
  for (const [option, value] of Object.entries((property['logicalTypeOptions'] ?? {}) as JsonObject)) {
    const test = compileOption(option, value);
    if (typeof test === 'string') problem([...at, 'logicalTypeOptions', option], `${option}: ${test}`, 'correct it');
    else {
      const reason = breach(`breaks ${option} ${JSON.stringify(value)}`, [...at, 'logicalTypeOptions', option]);
      rules.push((record) => (record[name] === null || record[name] === undefined || test(record[name]) ? undefined : reason));
    }
  }
  for (const [i, quality] of ((property['quality'] ?? []) as JsonObject[]).entries()) compileQuality(quality, [...at, 'quality', i], file, lineOf, problem, rules);
}

function compileOption(option: string, value: Json): ((v: unknown) => boolean) | string {
  const size = (v: unknown): number => (typeof v === 'string' ? [...v].length : Array.isArray(v) ? v.length : 0);
  switch (option) {
    case 'minLength': case 'minItems': return typeof value === 'number' ? (v) => size(v) >= value : 'expected a number';
    case 'maxLength': case 'maxItems': return typeof value === 'number' ? (v) => size(v) <= value : 'expected a number';
    case 'minimum': return typeof value === 'number' ? (v) => typeof v === 'number' && v >= value : 'expected a number';
    case 'maximum': return typeof value === 'number' ? (v) => typeof v === 'number' && v <= value : 'expected a number';
    case 'exclusiveMinimum': return typeof value === 'number' ? (v) => typeof v === 'number' && v > value : 'expected a number';
    case 'exclusiveMaximum': return typeof value === 'number' ? (v) => typeof v === 'number' && v < value : 'expected a number';
    case 'multipleOf': return typeof value === 'number' && value > 0 ? (v) => typeof v === 'number' && Number.isInteger(v / value) : 'expected a positive number';
    case 'format': {
      const format = formats[String(value)];
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

/** `type: custom, engine: cel, implementation: <CEL over record>`; documentation (`type: text`) is kept and not checked. */
function compileQuality(quality: JsonObject, at: At, file: string, lineOf: (at: At) => number, problem: Report, rules: Rule[]): void {
  if (quality['type'] === 'text') return;
  if (quality['type'] !== 'custom' || quality['engine'] !== 'cel' || typeof quality['implementation'] !== 'string') return problem(at, 'a quality rule that cannot be checked on one record', 'use type: custom, engine: cel, implementation: <CEL over record>; or type: text');
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
