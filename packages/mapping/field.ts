import type { Json } from '@weir/adapter';
import { compileCel, type CompiledCel } from '@weir/cel';
import { fit, kindWords, type FieldKind } from './avro-kind.ts';
import { celRoots, celVariables, compileCondition, type Located, type PathTest } from './condition.ts';
import { consume, fitsJson, parsePath, readPath, type Consumed, type Path, type Roots } from './path.ts';
import { TransformError, transforms, type Transform, type TransformContext } from './transforms.ts';

/** A failure of one field, turned into a Reason by the caller. */
export interface FieldFailure {
  readonly field: string;
  readonly message: string;
  readonly line: number;
  readonly path?: string;
}

/** Value for the field; undefined = leave the default. Failures go to `fail`. */
export interface FieldReader {
  (roots: Roots, fail: (failure: FieldFailure) => void): unknown;
  /** How a field of one value is made; undefined for lists, tables and CEL. */
  plan?: FieldPlan;
}

/** What a scalar field reader does, in parts. The first path whose value is there (of several: and not '') counts. */
export interface FieldPlan {
  readonly paths: readonly Path[];
  /** Instead of paths. */
  readonly constant: Json | undefined;
  readonly steps: readonly Step[];
  readonly fallback: unknown;
  /** A failure leaves the fallback, and is none. */
  readonly skip: boolean;
  readonly required: boolean;
  readonly when: readonly PathTest[];
}

export interface Step {
  readonly name: string;
  readonly apply: Transform;
}

export interface FieldContext {
  readonly where: Located;
  readonly transforms: TransformContext;
  /** Source fields that this output uses, from the root. */
  readonly consumed: Consumed;
  /** Where `$item` paths count as used: a tree, and the keys from its top to the element. */
  readonly item: { readonly tree: Consumed; readonly prefix: readonly string[] };
  /** What is used of the element around the element. */
  readonly parent: Consumed;
}

type At = readonly (string | number)[];
const scalarKeys = ['from', 'pipe', 'default', 'const', 'cel', 'map', 'when', 'required', 'onError'];
const fieldKeys: Readonly<Record<FieldKind['base'], readonly string[]>> = { string: scalarKeys, long: scalarKeys, int: scalarKeys, double: scalarKeys, boolean: scalarKeys, map: ['entries'], records: ['list', 'each', 'fields'] };
/** Characters that CEL may give for a field, written as JSON: a record takes no more, and a short list can hold a long text a thousand times. */
const maxComputed = 1_000_000;
/** Elements of one list in a record. */
const maxElements = 10_000;

export function markConsumed(context: FieldContext, path: Path): void {
  if (path.root === 'root') consume(context.consumed, path.keys);
  else if (path.root === 'item') consume(context.item.tree, [...context.item.prefix, ...path.keys]);
  else if (path.root === 'parent') consume(context.parent, path.keys);
}

/** The context of the elements under a path. */
function within(context: FieldContext, path: Path): FieldContext {
  const { item, consumed } = context;
  if (path.root === 'root') return { ...context, item: { tree: consumed, prefix: [...path.keys, '*'] } };
  if (path.root === 'item') return { ...context, item: { tree: item.tree, prefix: [...item.prefix, ...path.keys, '*'] } };
  return { ...context, item: { tree: Object.create(null) as Consumed, prefix: ['*'] } };
}

function pathsOf(value: Json | undefined, at: At, context: FieldContext): Path[] | undefined {
  const texts = Array.isArray(value) ? value : [value];
  const paths = texts.map((text) => (typeof text === 'string' ? parsePath(text) : undefined));
  const bad = paths.findIndex((p) => p === undefined);
  if (bad >= 0 || paths.length === 0) {
    context.where.problem(at, `not a path: ${JSON.stringify(texts[bad] ?? null)}`, 'write e.g. traits.email, or a list of paths of which the first present one counts');
    return undefined;
  }
  for (const path of paths) markConsumed(context, path!);
  return paths as Path[];
}

/** Compile one entry of a `fields:` table for a canonical field. Undefined after problems were reported. */
export function compileField(kind: FieldKind, spec: Json, at: At, context: FieldContext): FieldReader | undefined {
  if (typeof spec === 'string' || Array.isArray(spec)) return compileField(kind, { from: spec }, at, context);
  if (spec === null || typeof spec !== 'object') {
    context.where.problem(at, `${kind.name}: expected a path or a table`, 'write e.g. email: traits.email');
    return undefined;
  }
  const strange = Object.keys(spec).find((key) => !fieldKeys[kind.base].includes(key));
  if (strange !== undefined) {
    context.where.problem([...at, strange], `${kind.name}: unknown key ${strange}`, `it takes ${kindWords[kind.base]}: use ${fieldKeys[kind.base].join(', ')}`);
    return undefined;
  }
  if (kind.base === 'records') return compileRecords(kind, spec, at, context);
  if (kind.base === 'map') return compileEntries(kind, spec, at, context);
  return compileScalar(kind, spec, at, context);
}

function compileScalar(kind: FieldKind, spec: { [key: string]: Json }, at: At, context: FieldContext): FieldReader | undefined {
  const line = context.where.line(at);
  const source = compileSource(kind, spec, at, context);
  const pipe = compilePipe(spec, at, context);
  const when = spec['when'] === undefined ? undefined : compileCondition(spec['when'], [...at, 'when'], context.where);
  if (source === undefined || pipe === undefined || (spec['when'] !== undefined && when === undefined)) return undefined;
  const fallback = spec['default'] === undefined ? undefined : fit(kind, spec['default']);
  if (spec['default'] !== undefined && fallback === undefined) {
    context.where.problem([...at, 'default'], `${kind.name} takes ${kindWords[kind.base]}`, 'correct the default');
    return undefined;
  }
  if (!isOneOf(spec['onError'], ['skip', 'fail']) || !isOneOf(spec['required'], [true, false])) {
    context.where.problem(at, `${kind.name}: onError takes skip or fail, required takes true or false`, 'correct it');
    return undefined;
  }
  const skip = spec['onError'] === 'skip';
  const required = spec['required'] === true || (!kind.nullable && !kind.hasDefault);
  for (const path of when?.paths ?? []) markConsumed(context, path);
  const transforms = pipe.map((step) => step.apply);
  const read: FieldReader = (roots, fail) => {
    try {
      if (when !== undefined && !when.test(roots)) return fallback;
      let value = source.read(roots);
      for (let i = 0; i < transforms.length && value !== undefined; i++) value = transforms[i]!(value, roots);
      if (value === undefined || value === null) {
        if (fallback !== undefined) return fallback;
        if (required) fail({ field: kind.name, message: 'is required and the source does not have it', line, path: source.text });
        return undefined;
      }
      const fitted = fit(kind, value);
      if (fitted === undefined) throw new TransformError(`expected ${kindWords[kind.base]}`);
      return fitted;
    } catch (error) {
      if (!(error instanceof TransformError)) throw error;
      if (!skip) fail({ field: kind.name, message: error.message, line, path: source.text });
      return fallback;
    }
  };
  const tests = when === undefined ? [] : when.tests;
  if ((source.paths !== undefined || source.constant !== undefined) && tests !== undefined) read.plan = { paths: source.paths ?? [], constant: source.constant, steps: pipe, fallback, skip, required, when: tests };
  return read;
}

const isOneOf = (value: Json | undefined, allowed: readonly Json[]): boolean => value === undefined || allowed.includes(value);

interface Source {
  readonly text: string;
  /** Both undefined for CEL. */
  readonly paths?: readonly Path[];
  readonly constant?: Json;
  read(roots: Roots): Json | undefined;
}

function compileSource(kind: FieldKind, spec: { [key: string]: Json }, at: At, context: FieldContext): Source | undefined {
  const given = ['from', 'const', 'cel'].filter((key) => spec[key] !== undefined);
  if (given.length !== 1) {
    context.where.problem(at, `${kind.name}: give exactly one of from, const, cel`, 'remove or add one');
    return undefined;
  }
  if (spec['const'] !== undefined) {
    const value = spec['const'];
    if (fit(kind, value) === undefined) {
      context.where.problem([...at, 'const'], `${kind.name} takes ${kindWords[kind.base]}`, 'correct the constant');
      return undefined;
    }
    return { text: 'const', constant: value, read: () => value };
  }
  if (spec['cel'] !== undefined) return celSource(String(spec['cel']), at, context);
  const paths = pathsOf(spec['from'], [...at, 'from'], context);
  if (paths === undefined) return undefined;
  const text = paths.map((p) => p.text).join(' | ');
  const [only] = paths;
  if (paths.length === 1) return { text, paths, read: (roots) => readPath(only!, roots) };
  return {
    text,
    paths,
    read(roots) {
      for (const path of paths) {
        const value = readPath(path, roots);
        if (value !== undefined && value !== '') return value;
      }
      return undefined;
    },
  };
}

function celSource(source: string, at: At, context: FieldContext): Source | undefined {
  const compiled = compileCel(source, { file: context.where.file, line: context.where.line([...at, 'cel']), variables: celVariables, result: 'any' });
  if ('problems' in compiled) {
    for (const p of compiled.problems) context.where.problem([...at, 'cel'], p.message, p.remedy);
    return undefined;
  }
  const cel: CompiledCel = compiled.cel;
  return {
    text: 'cel',
    read(roots) {
      const result = cel.evaluate(celRoots(roots));
      if (!result.ok) throw new TransformError(`CEL: ${result.message}`);
      if (!fitsJson(result.value as Json, maxComputed)) throw new TransformError(`CEL: gives more than ${maxComputed} characters`);
      return result.value === null ? undefined : (result.value as Json);
    },
  };
}

function compilePipe(spec: { [key: string]: Json }, at: At, context: FieldContext): Step[] | undefined {
  const steps: Json[] = spec['pipe'] === undefined ? [] : Array.isArray(spec['pipe']) ? [...spec['pipe']] : [spec['pipe']];
  if (spec['map'] !== undefined) steps.push({ map: spec['map'] });
  const compiled: Step[] = [];
  for (const [i, step] of steps.entries()) {
    const where = [...at, 'pipe', i];
    const name = typeof step === 'string' ? step : step !== null && typeof step === 'object' && !Array.isArray(step) && Object.keys(step).length === 1 ? Object.keys(step)[0]! : '';
    const factory = transforms[name];
    if (factory === undefined) {
      context.where.problem(where, `unknown transform ${JSON.stringify(name)}`, `use one of ${Object.keys(transforms).join(', ')}`);
      return undefined;
    }
    const made = factory(typeof step === 'string' ? null : ((step as { [key: string]: Json })[name] ?? null), context.transforms);
    if (typeof made === 'string') {
      context.where.problem(where, `${name} ${made}`, 'correct its options');
      return undefined;
    }
    compiled.push({ name, apply: made });
  }
  return compiled;
}

/** `each: path` with a `fields:` table over `$item`, or `list:` of tables. An element without a required field is left out. */
function compileRecords(kind: FieldKind, spec: { [key: string]: Json }, at: At, context: FieldContext): FieldReader | undefined {
  const tables = spec['list'] !== undefined ? spec['list'] : [spec['fields']];
  if (!Array.isArray(tables)) {
    context.where.problem([...at, 'list'], 'list takes a list of tables', 'write - type: { const: … }');
    return undefined;
  }
  const eachPath = typeof spec['each'] === 'string' ? parsePath(spec['each']) : undefined;
  if (spec['list'] === undefined && eachPath === undefined) {
    context.where.problem(at, `${kind.name}: give list, or each with fields`, 'write e.g. each: properties.products');
    return undefined;
  }
  const inner = eachPath === undefined ? context : within(context, eachPath);
  const line = context.where.line(at);
  const elements = tables.map((table, i) => compileElement(kind, table ?? null, spec['list'] === undefined ? [...at, 'fields'] : [...at, 'list', i], inner));
  if (elements.some((e) => e === undefined)) return undefined;
  return (roots, fail) => {
    const out: unknown[] = [];
    const items = eachPath === undefined ? [roots.item] : readPath(eachPath, roots);
    if (!Array.isArray(items)) return undefined;
    if (items.length > maxElements) {
      fail({ field: kind.name, message: `has ${items.length} elements, at most ${maxElements} are taken`, line, path: eachPath!.text });
      return undefined;
    }
    roots.left.elements -= items.length * elements.length;
    if (roots.left.elements < 0) {
      fail({ field: kind.name, message: 'the lists of all records of the item have too many elements together', line, path: eachPath?.text });
      return undefined;
    }
    for (const item of items) {
      for (const element of elements) {
        const record = element!(eachPath === undefined ? roots : { ...roots, item }, fail);
        if (record !== undefined) out.push(record);
      }
    }
    return out;
  };
}

function compileElement(kind: FieldKind, table: Json, at: At, context: FieldContext): ((roots: Roots, fail: (f: FieldFailure) => void) => Record<string, unknown> | undefined) | undefined {
  if (table === null || typeof table !== 'object' || Array.isArray(table)) {
    context.where.problem(at, 'expected a table of fields', 'write field: path');
    return undefined;
  }
  const readers: { field: FieldKind; read: FieldReader }[] = [];
  for (const [name, spec] of Object.entries(table)) {
    const field = kind.element!.get(name);
    if (field === undefined) {
      context.where.problem([...at, name], `${kind.name} has no field ${name}`, `use one of ${[...kind.element!.keys()].join(', ')}`);
      return undefined;
    }
    const read = compileField({ ...field, hasDefault: true }, spec, [...at, name], context);
    if (read === undefined) return undefined;
    readers.push({ field, read });
  }
  const fields = [...kind.element!.values()];
  const template: Record<string, unknown> = Object.fromEntries(fields.map((field) => [field.name, field.defaultValue ?? null]));
  return (roots, fail) => {
    const record = { ...template };
    for (const { field, read } of readers) {
      const value = read(roots, fail);
      if (value !== undefined) record[field.name] = value;
    }
    for (const field of fields) if (!field.nullable && record[field.name] === null) return undefined;
    return record;
  };
}

const textKind = (name: string): FieldKind => ({ name, base: 'string', nullable: true, hasDefault: true, defaultValue: null });

/** `entries:` { key: field spec } for a map of texts. */
function compileEntries(kind: FieldKind, spec: { [key: string]: Json }, at: At, context: FieldContext): FieldReader | undefined {
  const entries = spec['entries'];
  if (entries === null || typeof entries !== 'object' || Array.isArray(entries)) {
    context.where.problem(at, `${kind.name}: give entries, a table of key: path`, 'write entries: { plan: traits.plan }');
    return undefined;
  }
  const readers: [string, FieldReader][] = [];
  for (const [key, value] of Object.entries(entries)) {
    const read = compileField(textKind(key), value, [...at, 'entries', key], context);
    if (read === undefined) return undefined;
    readers.push([key, read]);
  }
  return (roots, fail) => {
    const out: Record<string, string> = {};
    for (const [key, read] of readers) {
      const value = read(roots, fail);
      if (typeof value === 'string') out[key] = value;
    }
    return out;
  };
}
