import { parseJson, type Json, type JsonObject } from '@weir/adapter';
import { findWeirError, WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { outputId, type Reason } from '@weir/pipeline';
import { loadSchemas } from '@weir/schemas';
import { parseYaml } from '@weir/yaml';
import { fieldKinds, type FieldKind } from './avro-kind.ts';
import { compileCondition, type Condition, type Located } from './condition.ts';
import { compileDirect, compileMayGive, type Around, type DirectSpec, type MayGive } from './direct/compile.ts';
import { compileField, markConsumed, type FieldContext, type FieldFailure, type FieldReader } from './field.ts';
import { consume, ExtrasText, extrasText, leftover, parsePath, readPath, type Consumed, type Path, type Roots } from './path.ts';
import { TransformError, type TransformContext } from './transforms.ts';
import type { CompiledMapping, MappedOutput, MappingMeta, MappingResult } from './types.ts';

interface Output {
  readonly name: string;
  readonly line: number;
  readonly recordType: string;
  readonly when: Condition | undefined;
  /** The lists whose elements it goes over, the outer one first; none = the item itself. */
  readonly each: readonly Level[];
  readonly objectKey: ObjectKey;
  readonly template: Record<string, unknown>;
  readonly fields: ReadonlyArray<{ readonly name: string; readonly read: FieldReader }>;
  /** What is used of the whole item, and of the element of `each`. */
  readonly consumed: Consumed;
  readonly consumedOfElement: Consumed;
  readonly consumedOfParent: Consumed;
}

/** A list, or (`entries`) a table whose pairs are the elements, as { key, value }. */
interface Level {
  readonly path: Path;
  readonly entries: boolean;
}

/** The first path that is present, or (`all`) the parts of every path, joined. */
interface ObjectKey {
  readonly paths: readonly Path[];
  readonly all: boolean;
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
/** Lists in lists that one output goes over. */
const maxLevels = 2;
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
    outputs: outputs.map((o) => ({ name: o.name, schema: loadSchemas().get(o.recordType)!, tests: o.when === undefined ? [] : o.when.tests, each: o.each.length > 0 || o.objectKey.all, objectKey: o.objectKey.paths, fields: o.fields })),
  };

  function mayGive(record: string): MayGive | undefined {
    const own = outputs.filter(({ recordType }) => recordType === record);
    const conditions = [...drops, ...own].map(({ when }) => when);
    if (own.some(({ when, each }) => when === undefined && each.length === 0)) return undefined;
    // What CEL looks at is not known.
    const surrounded = conditions.some((when) => when !== undefined && (when.tests === undefined || when.paths.some(({ root }) => root === 'envelope' || root === 'meta')));
    return compileMayGive({ ...spec, outputs: spec.outputs.filter((_, i) => outputs[i]!.recordType === record) }) ?? ((bytes, from, to, maxDepth, around) => givesSome(own, drops, file.path, bytes.subarray(from, to), maxDepth, surrounded ? around : undefined));
  }
  return { name: name as string, file: file.path, records: new Set(outputs.map((o) => o.recordType)), apply: (item, envelope, meta) => apply(outputs, drops, file.path, item, envelope, meta), direct: (options) => compileDirect(spec, options), mayGive };
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
  const each = spec['each'] === undefined ? [] : compileLevels(spec['each'], [...at, 'each'], where);
  const objectKey = compileKey(spec['objectKey'], [...at, 'objectKey'], where);
  if (each.length > 0 && objectKey.paths.length === 0) where.problem([...at, 'each'], 'an output with each needs an objectKey', 'give the path of an id in $item: an output is never identified by its position');
  const consumed = Object.create(null) as Consumed;
  const consumedOfElement = Object.create(null) as Consumed;
  const consumedOfParent = Object.create(null) as Consumed;
  const context: FieldContext = { where, transforms, consumed, item: { tree: each.length === 0 ? consumed : consumedOfElement, prefix: [] }, parent: consumedOfParent };
  for (const [i, { path }] of each.entries()) {
    if (path.root === 'root') markConsumed(context, path);
    else if (i > 0) consume(consumedOfParent, path.keys);
  }
  const when = spec['when'] === undefined ? undefined : compileCondition(spec['when'], [...at, 'when'], where);
  for (const path of [...objectKey.paths, ...(when?.paths ?? [])]) markConsumed(context, path);
  const kinds = fieldKinds(schema);
  const fields = compileFields(kinds, spec['fields'] ?? {}, [...at, 'fields'], context);
  if (each.length < 2 && Object.keys(consumedOfParent).length > 0) where.problem(at, '$parent is the element around $item: there is none', 'use it where each goes over a list in a list');
  // Made at once: an object that grew by computed names is a hash table in V8, and six times as dear to copy and fill.
  const template = Object.fromEntries([...kinds.values()].map((kind) => [kind.name, kind.base === 'records' ? [] : kind.base === 'map' ? {} : (kind.defaultValue ?? null)]));
  return { name, line: where.line(at), recordType: `weir.canonical.${schema.name}`, when, each, objectKey, template, fields, consumed, consumedOfElement, consumedOfParent };
}

/** `each`: a path, `{ entries: <path of a table> }`, or two of them, the second within the elements of the first. */
function compileLevels(value: Json, at: readonly (string | number)[], where: Located): Level[] {
  const given = Array.isArray(value) ? value : [value];
  const levels: Level[] = [];
  for (const level of given) {
    const entries = level !== null && typeof level === 'object' && !Array.isArray(level);
    const text = entries ? (Object.keys(level).length === 1 ? level['entries'] : undefined) : level;
    const path = typeof text === 'string' ? parsePath(text) : undefined;
    if (path === undefined) where.problem(at, 'not a path', 'give the path of an array, or entries: with the path of a table');
    else levels.push({ path, entries });
  }
  if (given.length === 0 || given.length > maxLevels) where.problem(at, `each takes one list, or ${maxLevels}`, 'give the path of an array, or of two, the second from $item');
  if (levels.slice(1).some(({ path }) => path.root !== 'item')) where.problem(at, 'the second list stands in the elements of the first', 'begin its path with $item');
  return levels;
}

function compileKey(value: Json | undefined, at: readonly (string | number)[], where: Located): ObjectKey {
  const all = value !== null && typeof value === 'object' && !Array.isArray(value);
  const texts = value === undefined ? [] : all ? (value['all'] ?? null) : value;
  const paths = (Array.isArray(texts) ? texts : [texts]).map((text) => (typeof text === 'string' ? parsePath(text) : undefined));
  const found = paths.filter((path) => path !== undefined);
  if (found.length < paths.length || (all && (found.length === 0 || Object.keys(value).length !== 1))) where.problem(at, 'not a path', 'give the path of the sender\'s object id, or all: with the paths whose values together are it');
  return { paths: found, all };
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

const nobody: MappingMeta = { eventId: '', source: '', acceptedAt: 0 };

/** Whether some of these outputs gives a record, or fails; of an item that is none it may. */
function givesSome(outputs: readonly Output[], drops: readonly Drop[], file: string, bytes: Buffer, maxDepth: number, around?: () => Around): boolean {
  let item: Json;
  let known: Around | undefined;
  try {
    item = parseJson(bytes, maxDepth);
    known = around?.();
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return true;
  }
  const result = apply(outputs, drops, file, item, known?.envelope, known?.meta ?? nobody);
  return result.kind === 'mapped' || (result.kind === 'failed' && result.reasons.some(({ code }) => code !== 'mapping-no-output'));
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
  let full = false;
  for (const output of outputs) {
    const found = output.each.length === 0 ? { elements: [roots], over: false } : elementsOf(output, roots, file, reasons, changes);
    let { elements } = found;
    if (full || found.over || mapped.length + elements.length > maxOutputs) {
      if (!full) reasons.push({ code: 'mapping-failed', message: `one item gives more than ${maxOutputs} records`, file, line: output.line });
      full = true;
      // The item has failed: what else it says no to is read, as far as there is room.
      if (output.recordType !== consentRecord) continue;
      if (output.each.length > 0) {
        const fitting = elements.slice(0, Math.max(0, maxOutputs - mapped.length));
        if (found.over || fitting.length < elements.length) changes.add(output);
        elements = fitting;
      }
    }
    const extras = new Leavings(output, item, Math.max(leastExtras, Math.floor(maxExtras / elements.length)));
    for (const here of elements) {
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

/**
 * Where each record of an output is read from. What should be a list and is none gives no record; of a change of consent,
 * and of a list in a list, that is a reason: it might hold a no. `over`: a list has more than one item may give.
 */
function elementsOf(output: Output, roots: Roots, file: string, reasons: Reason[], changes: Set<Output>): { readonly elements: readonly Roots[]; readonly over: boolean } {
  let here: readonly Roots[] = [roots];
  let over = false;
  for (const [i, level] of output.each.entries()) {
    const inner: Roots[] = [];
    for (const around of here) {
      if (inner.length > maxOutputs) break;
      const value = readPath(level.path, around);
      const found = level.entries ? pairsOf(value) : Array.isArray(value) ? value : undefined;
      if (found === undefined) {
        if (value === undefined || (i === 0 && output.recordType !== consentRecord)) continue;
        reasons.push({ code: 'mapping-failed', message: `each of ${output.name}: expected ${level.entries ? 'a table' : 'a list'}`, file, line: output.line, path: level.path.text });
        if (output.recordType === consentRecord) changes.add(output);
        continue;
      }
      for (const item of found) {
        // One more than may be is enough to tell that there are too many.
        if (inner.length > maxOutputs) break;
        inner.push(i === 0 ? { ...roots, item } : { ...roots, item, parent: around.item });
      }
    }
    over ||= inner.length > maxOutputs;
    here = inner;
  }
  return { elements: here, over };
}

const pairsOf = (value: Json | undefined): Json[] | undefined => (isObject(value) ? Object.keys(value).slice(0, maxOutputs + 1).map((key) => ({ key, value: value[key]! })) : undefined);

/** Type of the records that change consent. */
export const consentRecord = 'weir.canonical.ConsentChange';

/** Beside the reasons why an item failed: what it says about consent, but for a no that can be read (packages/release, closingOf), holds for nobody until it is put right. */
export function unresolved(name: string, file?: string, line?: number): Reason {
  return { code: 'consent-unresolved', message: `output ${name} is a change of consent: but for a no that can be read, it binds nobody until this is put right`, ...(file === undefined ? {} : { file }), ...(line === undefined ? {} : { line }) };
}

function fill(output: Output, file: string, roots: Roots, meta: MappingMeta, extras: Leavings, reasons: Reason[]): MappedOutput {
  const fail = (f: FieldFailure): void => { reasons.push({ code: 'mapping-failed', message: `${output.name}.${f.field} ${f.message}`, file, line: f.line, field: f.field, path: f.path }); };
  const key = keyOf(output, roots, fail);
  const id = outputId(meta.eventId, output.name, output.each.length === 0 ? '' : key);
  const record = { ...output.template };
  for (const { name, read } of output.fields) {
    const value = read(roots, fail);
    if (value !== undefined) record[name] = value;
  }
  record['id'] = id;
  record['source'] = meta.source;
  record['objectKey'] = key === '' ? null : key;
  record['occurredAt'] ??= meta.acceptedAt;
  const left = extras.of(roots);
  if (left !== undefined) record['extras'] = left;
  return { name: output.name, recordType: output.recordType, outputId: id, record };
}

function keyOf({ objectKey, line }: Output, roots: Roots, fail: (f: FieldFailure) => void): string {
  const parts: string[] = [];
  for (const path of objectKey.paths) {
    const value = readPath(path, roots);
    if (typeof value === 'string' || typeof value === 'number') {
      if (!objectKey.all) return String(value);
      parts.push(encodeURIComponent(String(value).toWellFormed()));
    } else if (objectKey.all) fail({ field: 'objectKey', message: 'needs every part of it', line, path: path.text });
  }
  return parts.join('/');
}

/**
 * Extras of the records of one output: the source fields that none of its paths names; with `each`, those of the element
 * under `$item` (and of the element around it under `$parent`), beside those of the item. What elements share is read and
 * written out once for all of them: the work is that of the item, however many elements it has.
 */
class Leavings {
  private readonly output: Output;
  private readonly root: Json;
  private readonly max: number;
  private around: JsonObject | undefined;
  /** Texts of what elements share, begun: by whether the element, and the one around it, leave something. */
  private bases: (ExtrasText | undefined)[] = [];
  private parent: { readonly of: Json; readonly rest: JsonObject | undefined; readonly texts: (ExtrasText | undefined)[] } | undefined;

  constructor(output: Output, root: Json, max: number) {
    this.output = output;
    this.root = root;
    this.max = max;
  }

  /** Text of at most `max` characters; undefined = nothing is left over. */
  of(roots: Roots): string | undefined {
    const { consumed, consumedOfElement, each } = this.output;
    if (each.length === 0) {
      const rest = tableOf(leftover(this.root, consumed));
      return rest === undefined ? undefined : extrasText(rest, this.max);
    }
    const own = tableOf(leftover(roots.item, consumedOfElement));
    const parent = roots.parent === undefined ? undefined : this.parentOf(roots.parent);
    const at = (own === undefined ? 0 : 1) + (parent?.rest === undefined ? 0 : 2);
    const base = this.bases[at] ??= this.begin(own !== undefined, parent?.rest !== undefined);
    if (at === 0) return this.around === undefined ? undefined : base.end();
    const shared = parent?.rest === undefined ? base : parent.texts[at] ??= base.copy().add('$parent', parent.rest);
    return own === undefined ? shared.end() : shared.copy().add('$item', own).end();
  }

  /** Elements of one parent come one after the other. */
  private parentOf(of: Json): NonNullable<Leavings['parent']> {
    if (this.parent?.of !== of) this.parent = { of, rest: tableOf(leftover(of, this.output.consumedOfParent)), texts: [] };
    return this.parent!;
  }

  /** A field of the item that has one of these two names gives way to what an element leaves. */
  private begin(item: boolean, parent: boolean): ExtrasText {
    if (this.bases.length === 0) this.around = tableOf(leftover(this.root, this.output.consumed));
    const text = new ExtrasText(this.max);
    if (this.around === undefined) return text;
    for (const key of Object.keys(this.around)) if (!(item && key === '$item') && !(parent && key === '$parent')) text.add(key, this.around[key]!);
    return text;
  }
}

const tableOf = (value: Json | undefined): JsonObject | undefined => (isObject(value) ? value : undefined);
const isObject = (value: Json | undefined): value is JsonObject => value !== null && typeof value === 'object' && !Array.isArray(value);
