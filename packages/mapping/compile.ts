import type { Json, JsonObject } from '@weir/adapter';
import { WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { outputId, type Reason } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import { parseYaml } from '@weir/yaml';
import { fieldKinds, type FieldKind } from './avro-kind.ts';
import { compileCondition, type Condition, type Located } from './condition.ts';
import { compileDirect, type DirectSpec } from './direct/compile.ts';
import { compileField, markConsumed, type FieldContext, type FieldFailure, type FieldReader } from './field.ts';
import { extrasText, leftover, parsePath, readPath, type Consumed, type Path, type Roots } from './path.ts';
import { TransformError, type TransformContext } from './transforms.ts';
import type { CompiledMapping, MappedOutput, MappingMeta, MappingResult } from './types.ts';

interface Output {
  readonly name: string;
  readonly line: number;
  readonly recordType: string;
  readonly when: Condition | undefined;
  readonly each: Path | undefined;
  readonly objectKey: readonly Path[];
  readonly template: Record<string, unknown>;
  readonly fields: ReadonlyArray<{ readonly name: string; readonly read: FieldReader }>;
  /** What is used of the whole item, and of the element of `each`. */
  readonly consumed: Consumed;
  readonly consumedOfElement: Consumed;
}

interface Drop {
  readonly name: string;
  readonly line: number;
  readonly when: Condition;
}

/** Records that one item may give. */
const maxOutputs = 1000;
/** In lists of all records of one item: each is an object before anything knows how many bytes it will be. */
const maxElements = 50_000;
/** Characters of extras of one record; the elements of `each` share them, but have these at least. The raw topic has the rest. */
const maxExtras = 65_536;
const leastExtras = 1024;
const outputKeys = new Set(['record', 'when', 'each', 'objectKey', 'fields', 'doc']);
const computed = new Set(['id', 'source', 'objectKey', 'extras']);
/** Weir's own: vendors delete what an Erasure names, which only a person may order, and a ConsentApplied says that a change holds everywhere, which only the policy service can know. */
const own = new Set(['Erasure', 'ConsentApplied']);
const outputName = /^[a-z][a-z0-9-]{0,40}$/;

/** Compile a mapping file. Throws WorkspaceError with every problem: file, line, what, remedy. */
export function compileMapping(file: { readonly path: string; readonly content: string }, context: TransformContext = {}): CompiledMapping {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const where: Located = {
    file: file.path,
    line: (path) => yaml.lineOf(path),
    problem: (path, message, remedy) => { problems.push({ file: file.path, line: yaml.lineOf(path), message, remedy }); },
  };
  const root = yaml.value;
  if (root === null || typeof root !== 'object' || Array.isArray(root)) throw new WorkspaceError([{ file: file.path, line: 1, message: 'a mapping is a table', remedy: 'start with mapping: <name> and outputs:' }]);
  for (const key of Object.keys(root)) if (!['mapping', 'doc', 'drop', 'outputs'].includes(key)) where.problem([key], `unknown key ${key}`, 'use mapping, doc, drop, outputs');
  const name = root['mapping'];
  if (typeof name !== 'string') where.problem([], 'a mapping needs a name', 'add mapping: <name>');
  const drops = compileDrops(root['drop'] ?? [], where);
  const outputs: Output[] = [];
  const table = root['outputs'];
  if (table === null || table === undefined || typeof table !== 'object' || Array.isArray(table) || Object.keys(table).length === 0) where.problem(['outputs'], 'a mapping needs outputs', 'add outputs: with at least one');
  else {
    for (const [key, spec] of Object.entries(table)) {
      const output = compileOutput(key, spec, where, context);
      if (output !== undefined) outputs.push(output);
    }
  }
  if (problems.length > 0) throw new WorkspaceError(problems);
  const spec: DirectSpec = {
    maxExtras, drops: drops.map((drop) => ({ name: drop.name, tests: drop.when.tests })),
    outputs: outputs.map((o) => ({ name: o.name, schema: loadSchemas().get(o.recordType)!, tests: o.when === undefined ? [] : o.when.tests, each: o.each !== undefined, objectKey: o.objectKey, fields: o.fields })),
  };
  return { name: name as string, file: file.path, apply: (item, envelope, meta) => apply(outputs, drops, file.path, item, envelope, meta), direct: (options) => compileDirect(spec, options) };
}

function compileDrops(value: Json, where: Located): Drop[] {
  if (!Array.isArray(value)) {
    where.problem(['drop'], 'drop takes a list', 'write - name: …, when: …');
    return [];
  }
  const drops: Drop[] = [];
  for (const [i, entry] of value.entries()) {
    for (const key of Object.keys(entry ?? {})) if (!['name', 'when', 'doc'].includes(key)) where.problem(['drop', i, key], `unknown key ${key}`, 'use name, when');
    const name = (entry as JsonObject | null)?.['name'];
    const when = compileCondition((entry as JsonObject | null)?.['when'], ['drop', i, 'when'], where);
    if (typeof name !== 'string') where.problem(['drop', i], 'a drop rule needs a name', 'the name is the reason shown in traces');
    else if (when !== undefined) drops.push({ name, line: where.line(['drop', i]), when });
  }
  return drops;
}

function compileOutput(name: string, spec: Json, where: Located, transforms: TransformContext): Output | undefined {
  const at = ['outputs', name];
  if (!outputName.test(name)) where.problem(at, `output name ${name}`, 'use lower case, digits and -');
  if (spec === null || typeof spec !== 'object' || Array.isArray(spec)) {
    where.problem(at, 'an output is a table', 'give record and fields');
    return undefined;
  }
  for (const key of Object.keys(spec)) if (!outputKeys.has(key)) where.problem([...at, key], `unknown key ${key}`, `use one of ${[...outputKeys].join(', ')}`);
  const schema = own.has(String(spec['record'])) ? undefined : loadSchemas().get(`weir.canonical.${String(spec['record'])}`);
  if (schema === undefined) {
    const names = [...loadSchemas().keys()].filter((n) => n.startsWith('weir.canonical.')).map((n) => n.slice(15)).filter((n) => !own.has(n));
    where.problem([...at, 'record'], `no canonical record ${JSON.stringify(spec['record'] ?? null)}`, `use one of ${names.join(', ')}`);
    return undefined;
  }
  const each = spec['each'] === undefined ? undefined : parsePath(String(spec['each']));
  if (spec['each'] !== undefined && each === undefined) where.problem([...at, 'each'], 'not a path', 'give the path of an array');
  const keyTexts = spec['objectKey'] === undefined ? [] : Array.isArray(spec['objectKey']) ? spec['objectKey'] : [spec['objectKey']];
  const objectKey = keyTexts.map((text) => parsePath(String(text)));
  if (objectKey.some((p) => p === undefined)) where.problem([...at, 'objectKey'], 'not a path', 'give the path of the sender\'s object id');
  if (each !== undefined && objectKey.length === 0) where.problem([...at, 'each'], 'an output with each needs an objectKey', 'give the path of an id in $item: an output is never identified by its position');
  const consumed = Object.create(null) as Consumed;
  const consumedOfElement = Object.create(null) as Consumed;
  const context: FieldContext = { where, transforms, consumed, item: { tree: each === undefined ? consumed : consumedOfElement, prefix: [] } };
  if (each?.root === 'root') markConsumed(context, each);
  const when = spec['when'] === undefined ? undefined : compileCondition(spec['when'], [...at, 'when'], where);
  for (const path of [...objectKey, ...(when?.paths ?? [])]) if (path !== undefined) markConsumed(context, path);
  const kinds = fieldKinds(schema);
  const fields = compileFields(kinds, spec['fields'] ?? {}, [...at, 'fields'], context);
  // Made at once: an object that grew by computed names is a hash table in V8, and six times as dear to copy and fill.
  const template = Object.fromEntries([...kinds.values()].map((kind) => [kind.name, kind.base === 'records' ? [] : kind.base === 'map' ? {} : (kind.defaultValue ?? null)]));
  return { name, line: where.line(at), recordType: `weir.canonical.${schema.name}`, when, each, objectKey: objectKey as Path[], template, fields, consumed, consumedOfElement };
}

function compileFields(kinds: ReadonlyMap<string, FieldKind>, table: Json, at: readonly (string | number)[], context: FieldContext): { name: string; read: FieldReader }[] {
  const { where } = context;
  if (table === null || typeof table !== 'object' || Array.isArray(table)) {
    where.problem(at, 'fields is a table', 'write field: path');
    return [];
  }
  for (const name of Object.keys(table)) {
    if (computed.has(name)) where.problem([...at, name], `${name} is filled by Weir`, 'remove it');
    else if (!kinds.has(name)) where.problem([...at, name], `no field ${name}`, `use one of ${[...kinds.keys()].filter((k) => !computed.has(k)).join(', ')}`);
  }
  const fields: { name: string; read: FieldReader }[] = [];
  for (const kind of kinds.values()) {
    if (computed.has(kind.name)) continue;
    const spec = table[kind.name];
    if (spec === undefined) {
      if (!kind.nullable && !kind.hasDefault && kind.name !== 'occurredAt') where.problem(at, `field ${kind.name} is required`, 'add it');
      continue;
    }
    const read = compileField(kind.name === 'occurredAt' ? { ...kind, hasDefault: true } : kind, spec, [...at, kind.name], context);
    if (read !== undefined) fields.push({ name: kind.name, read });
  }
  return fields;
}

function apply(outputs: readonly Output[], drops: readonly Drop[], file: string, item: Json, envelope: JsonObject | undefined, meta: MappingMeta): MappingResult {
  const roots: Roots = { root: item, item, envelope, meta: meta as unknown as JsonObject, left: { elements: maxElements } };
  const reasons: Reason[] = [];
  /** Outputs of this item that change consent: when the item fails, nobody is bound by them. */
  const changes = new Set<Output>();
  /** A condition that cannot be decided is a reason: to leave a record out for it would be to lose it in silence. */
  const holds = (rule: { readonly name: string; readonly line: number }, when: Condition, here: Roots): boolean => {
    try {
      return when.test(here);
    } catch (error) {
      if (!(error instanceof TransformError)) throw error;
      reasons.push({ code: 'mapping-failed', message: `when of ${rule.name}: ${error.message}`, file, line: rule.line });
      return false;
    }
  };
  for (const drop of drops) if (holds(drop, drop.when, roots)) return { kind: 'dropped', reason: drop.name };
  const mapped: MappedOutput[] = [];
  const seen = new Set<string>();
  for (const output of outputs) {
    const elements = output.each === undefined ? [item] : readPath(output.each, roots);
    if (!Array.isArray(elements)) continue;
    if (mapped.length + elements.length > maxOutputs) return { kind: 'failed', reasons: [{ code: 'mapping-failed', message: `one item gives more than ${maxOutputs} records`, file, line: output.line }] };
    const extras = Math.max(leastExtras, Math.floor(maxExtras / elements.length));
    for (const element of elements) {
      const here = output.each === undefined ? roots : { ...roots, item: element };
      const failures = reasons.length;
      const applies = output.when === undefined || holds(output, output.when, here);
      if (output.recordType === consentRecord && (applies || reasons.length > failures)) changes.add(output);
      if (!applies) continue;
      const made = fill(output, file, here, meta, extras, reasons);
      if (seen.has(made.outputId)) reasons.push({ code: 'mapping-failed', message: `two elements of output ${output.name} have the same objectKey`, file });
      seen.add(made.outputId);
      mapped.push(made);
    }
  }
  if (reasons.length > 0) return { kind: 'failed', reasons: [...reasons, ...[...changes].map((output) => unresolved(output.name, file, output.line))], outputs: mapped };
  if (mapped.length === 0) return { kind: 'failed', reasons: [{ code: 'mapping-no-output', message: 'no output of the mapping matches this item', file }] };
  return { kind: 'mapped', outputs: mapped };
}

/** Type of the records that change consent. */
export const consentRecord = 'weir.canonical.ConsentChange';

/** Beside the reasons why an item failed: what it says about consent holds for nobody until it is put right. */
export function unresolved(name: string, file?: string, line?: number): Reason {
  return { code: 'consent-unresolved', message: `output ${name} is a change of consent: it binds nobody until this is put right`, ...(file === undefined ? {} : { file }), ...(line === undefined ? {} : { line }) };
}

function fill(output: Output, file: string, roots: Roots, meta: MappingMeta, maxText: number, reasons: Reason[]): MappedOutput {
  const fail = (f: FieldFailure): void => { reasons.push({ code: 'mapping-failed', message: `${output.name}.${f.field} ${f.message}`, file, line: f.line, field: f.field, path: f.path }); };
  let key = '';
  for (const path of output.objectKey) {
    const value = readPath(path, roots);
    if (typeof value === 'string' || typeof value === 'number') {
      key = String(value);
      break;
    }
  }
  const id = outputId(meta.eventId, output.name, output.each === undefined ? '' : key);
  const record = { ...output.template };
  for (const { name, read } of output.fields) {
    const value = read(roots, fail);
    if (value !== undefined) record[name] = value;
  }
  record['id'] = id;
  record['source'] = meta.source;
  record['objectKey'] = key === '' ? null : key;
  record['occurredAt'] ??= meta.acceptedAt;
  const rest = restOf(output, roots);
  if (rest !== undefined) record['extras'] = extrasText(rest, maxText);
  return { name: output.name, recordType: output.recordType, outputId: id, record };
}

/** Source fields that no path of the output names. With `each`: those of the element under `$item`, beside those of the item around it. */
function restOf(output: Output, roots: Roots): JsonObject | undefined {
  const around = leftover(roots.root, output.consumed);
  const rest = isObject(around) ? around : undefined;
  if (output.each === undefined) return rest;
  const own = leftover(roots.item, output.consumedOfElement);
  return isObject(own) ? { ...rest, $item: own } : rest;
}

const isObject = (value: Json | undefined): value is JsonObject => value !== null && typeof value === 'object' && !Array.isArray(value);
