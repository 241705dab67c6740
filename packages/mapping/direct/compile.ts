/**
 * A mapping run straight over the bytes of an item, into Avro: no JSON value, no record, no text in between. It
 * does what the general way does (parseJson, apply, check, encode) for items in plain form that map without a
 * failure, and gives up on all others, which then go the general way: there is one meaning, and the general way
 * has it. The property test beside this file holds the two together.
 */
import type { JsonObject } from '@weir/adapter';
import { room, type Sink } from '@weir/log';
import { outputId } from '@weir/pipeline';
import type { AvroRecord } from '@weir/schemas';
import { fieldKinds } from '../avro-kind.ts';
import type { PathTest } from '../condition.ts';
import type { FieldRule } from '../contract.ts';
import type { FieldReader } from '../field.ts';
import type { Path } from '../path.ts';
import type { MappingMeta } from '../types.ts';
import { asciiField, constantOf, constantOp, defaultOf, extrasField, fieldOp, long, Run, slotValue, targetOf, type Op, type Target } from './field.ts';
import { integer, plainText, Scan } from './scan.ts';
import { Shape } from './shape.ts';
import { writeBytes } from './bytes.ts';

/** What a compiled mapping tells of itself. */
export interface DirectSpec {
  readonly drops: readonly { readonly name: string; readonly tests: readonly PathTest[] | undefined }[];
  readonly outputs: readonly DirectOutputSpec[];
  readonly maxExtras: number;
}
export interface DirectOutputSpec {
  readonly name: string;
  readonly schema: AvroRecord;
  readonly tests: readonly PathTest[] | undefined;
  readonly each: boolean;
  readonly objectKey: readonly Path[];
  readonly fields: ReadonlyArray<{ readonly name: string; readonly read: FieldReader }>;
}

export interface DirectOptions {
  /** Rules of the contracts of a record type; undefined = some need the whole record. */
  readonly rules: (recordType: string) => readonly FieldRule[] | undefined;
  readonly idOf: (recordType: string) => number;
}

/** One record of the last run, until the next. */
export interface DirectOutput {
  readonly name: string;
  readonly recordType: string;
  readonly outputId: string;
  /** Where it stands in the sink, in the Confluent wire format. */
  readonly from: number;
  readonly to: number;
  /** The value of a canonical field. */
  value(field: string): unknown;
}

export interface DirectMapping {
  /** Writes the records of the item at [from, to) to the sink and tells how many; -1 = give up: nothing was written. */
  run(bytes: Buffer, from: number, to: number, maxDepth: number, meta: MappingMeta, sink: Sink): number;
  /** Reason of the last run when it gave no record because a rule drops the item. */
  readonly dropped: string | undefined;
  output(i: number): DirectOutput;
}

/** Keys that the scan can look for: plain ASCII, no place in an array, no property that values other than objects have. */
const plainKey = /^(?!\d|length$)[ !#-[\]-~]+$/;
const plainPath = (path: Path): boolean => (path.root === 'root' || path.root === 'item') && path.keys.length > 0 && path.keys.every((key) => plainKey.test(key));

/** Undefined for what needs a JSON value: CEL, `each`, lists and tables of fields, places in arrays, what surrounds the item. */
export function compileDirect(spec: DirectSpec, options: DirectOptions): DirectMapping | undefined {
  const compiled = spec.outputs.map((output) => compileOutput(output, options, spec.maxExtras));
  if (compiled.some((output) => output === undefined) || spec.drops.some((drop) => drop.tests === undefined || !drop.tests.every((t) => plainPath(t.path)))) return undefined;
  const outputs = compiled as Compiled[];
  // With one output and no rule its own scan says it all.
  const conditions = [...spec.drops.flatMap((d) => d.tests!), ...spec.outputs.flatMap((o) => o.tests ?? [])];
  const early = outputs.length > 1 || conditions.length > 0 ? conditionsOf(spec, conditions) : undefined;
  const matched: Compiled[] = [];
  const direct = {
    dropped: undefined as string | undefined,
    output: (i: number): DirectOutput => matched[i]!,
    run(bytes: Buffer, from: number, to: number, maxDepth: number, meta: MappingMeta, sink: Sink): number {
      direct.dropped = undefined;
      matched.length = 0;
      if (early !== undefined) {
        if (!early.scan.run(bytes, from, to, maxDepth, false)) return -1;
        direct.dropped = early.dropped();
        if (direct.dropped !== undefined) return 0;
      }
      const began = sink.at;
      for (let i = 0; i < outputs.length; i++) {
        if (early !== undefined && !early.matches(i)) continue;
        if (!outputs[i]!.write(bytes, from, to, maxDepth, meta, sink)) {
          sink.at = began;
          return -1;
        }
        matched.push(outputs[i]!);
      }
      return matched.length === 0 ? -1 : matched.length;
    },
  };
  return direct;
}

/** Whether the item at [from, to) may give something; true also where that cannot be told from its bytes. `around`: what surrounds it, asked for where a condition may look at it. */
export type MayGive = (bytes: Buffer, from: number, to: number, maxDepth: number, around: () => Around) => boolean;
export interface Around {
  readonly envelope: JsonObject | undefined;
  readonly meta: MappingMeta;
}

/** By the conditions of these outputs alone. Undefined: every item may, or they need a JSON value, as those of elements (`each`) do. */
export function compileMayGive(spec: DirectSpec): MayGive | undefined {
  const conditions = [...spec.drops, ...spec.outputs].flatMap(({ tests }) => tests ?? []);
  const isPlain = [...spec.drops, ...spec.outputs].every(({ tests }) => tests !== undefined) && conditions.every((t) => plainPath(t.path));
  if (!isPlain || spec.outputs.some(({ tests, each }) => each || tests!.length === 0)) return undefined;
  const early = conditionsOf(spec, conditions);
  return (bytes, from, to, maxDepth) => !early.scan.run(bytes, from, to, maxDepth, false) || (early.dropped() === undefined && spec.outputs.some((_, i) => early.matches(i)));
}

function conditionsOf(spec: DirectSpec, conditions: readonly PathTest[]) {
  const shape = new Shape(conditions.map((t) => t.path), []);
  const scan = new Scan(shape);
  const bind = (tests: readonly PathTest[]) => tests.map(({ path, test }) => ({ slot: shape.slotOf(path), test }));
  const drops = spec.drops.map((drop) => ({ name: drop.name, tests: bind(drop.tests!) }));
  const whens = spec.outputs.map((output) => bind(output.tests ?? []));
  const hold = (tests: ReturnType<typeof bind>): boolean => tests.every(({ slot, test }) => test(slotValue(scan, slot) ?? null));
  return { scan, dropped: () => drops.find((drop) => hold(drop.tests))?.name, matches: (i: number) => hold(whens[i]!) };
}

interface Compiled extends DirectOutput {
  write(bytes: Buffer, from: number, to: number, maxDepth: number, meta: MappingMeta, sink: Sink): boolean;
}

function compileOutput(spec: DirectOutputSpec, options: DirectOptions, maxExtras: number): Compiled | undefined {
  const recordType = `weir.canonical.${spec.schema.name}`;
  const rules = options.rules(recordType);
  if (spec.each || spec.tests === undefined || rules === undefined) return undefined;
  const plans = new Map(spec.fields.map(({ name, read }) => [name, read.plan]));
  if ([...plans.values()].some((plan) => plan === undefined || plan.steps.some((step) => step.apply.length > 1))) return undefined;
  const paths = [...spec.objectKey, ...[...plans.values()].flatMap((plan) => [...plan!.paths, ...plan!.when.map((t) => t.path)])];
  if (![...paths, ...spec.tests.map((t) => t.path)].every(plainPath)) return undefined;
  const shape = new Shape(paths, [...paths, ...spec.tests.map((t) => t.path)]);
  const scan = new Scan(shape);
  const kinds = [...fieldKinds(spec.schema).values()];
  const targets = kinds.map((kind, i) => targetOf(spec.schema.fields[i]!, i, kind));
  if (targets.some((t) => t === undefined)) return undefined;
  const run = new Run(scan, kinds.length);
  const ops = compileOps(targets as Target[], plans, shape, spec, run, maxExtras);
  if (ops === undefined) return undefined;
  const checks = rules.map((rule) => compileRule(rule, kinds.findIndex((kind) => kind.name === rule.field)));
  const indexes = new Map(kinds.map((kind, i) => [kind.name, i]));
  const id = options.idOf(recordType);
  const compiled = {
    name: spec.name, recordType, outputId: '', from: 0, to: 0,
    value: (field: string): unknown => run.value(indexes.get(field)!),
    write(bytes: Buffer, from: number, to: number, maxDepth: number, meta: MappingMeta, sink: Sink): boolean {
      if (!scan.run(bytes, from, to, maxDepth, true)) return false;
      run.meta = meta;
      compiled.outputId = run.outputId = outputId(meta.eventId, spec.name, '');
      compiled.from = sink.at;
      room(sink, 5);
      sink.bytes[sink.at] = 0;
      sink.bytes.writeInt32BE(id, sink.at + 1);
      sink.at += 5;
      for (let i = 0; i < ops.length; i++) if (!ops[i]!(run, sink)) return false;
      compiled.to = sink.at;
      for (let i = 0; i < checks.length; i++) if (!checks[i]!(run)) return false;
      return true;
    },
  };
  return compiled;
}

/** One op a field, neighbours that are constant in one. */
function compileOps(targets: readonly Target[], plans: ReadonlyMap<string, FieldReader['plan']>, shape: Shape, spec: DirectOutputSpec, run: Run, maxExtras: number): Op[] | undefined {
  const ops: Op[] = [];
  let constants: Buffer[] = [];
  const flush = (): void => {
    if (constants.length > 0) ops.push(constantOp(Buffer.concat(constants)));
    constants = [];
  };
  const keys = spec.objectKey.map((path) => shape.slotOf(path));
  for (const target of targets) {
    const { kind, index, prefix, rest } = target;
    const plan = plans.get(kind.name);
    const fixed = plan?.constant !== undefined && plan.when.length === 0 ? constantOf(plan, target) : undefined;
    const op = kind.name === 'id' ? asciiField(index, prefix, (r) => r.outputId)
      : kind.name === 'source' ? asciiField(index, prefix, (r) => r.meta.source)
      : kind.name === 'objectKey' ? keyField(target, keys)
      : kind.name === 'extras' ? extrasField(index, prefix, rest!, maxExtras)
      : kind.name === 'occurredAt' ? (plan === undefined ? acceptedField(target) : fieldOp(plan, target, (path) => shape.slotOf(path), acceptedField(target)))
      : plan !== undefined && fixed === undefined ? fieldOp(plan, target, (path) => shape.slotOf(path), undefined) : undefined;
    if (op !== undefined) {
      flush();
      ops.push(op);
    } else if (fixed === undefined && rest === undefined) return undefined;
    else {
      run.set(index, fixed === undefined ? defaultOf(kind) : fixed.value);
      constants.push(fixed === undefined ? rest! : fixed.bytes);
    }
  }
  flush();
  return ops;
}

const acceptedField = ({ index, prefix }: Target): Op => (run, sink) => {
  const { acceptedAt } = run.meta;
  if (!Number.isSafeInteger(acceptedAt)) return false;
  room(sink, 11);
  if (prefix >= 0) sink.bytes[sink.at++] = prefix;
  long(sink, acceptedAt);
  run.setNumber(index, acceptedAt);
  return true;
};

/** The first path with text or a number; empty text is no key. */
function keyField({ index, prefix, write }: Target, slots: readonly number[]): Op {
  return (run, sink) => {
    const { scan } = run;
    for (const slot of slots) {
      const kind = scan.kind[slot]!;
      if (kind === plainText || kind === integer) {
        const length = scan.to[slot]! - scan.from[slot]!;
        if (length === 0) break;
        writeBytes(sink, prefix, scan.src, scan.from[slot]!, scan.to[slot]!);
        run.setText(index, sink, length);
        return true;
      }
      const value = slotValue(scan, slot);
      if (typeof value !== 'string' && typeof value !== 'number') continue;
      write(sink, String(value));
      run.set(index, String(value));
      return true;
    }
    write(sink, null);
    run.set(index, null);
    return true;
  };
}

/** True = the rule holds. What can be said without making the value is. */
function compileRule({ holds, need, limit }: FieldRule, index: number): (run: Run) => boolean {
  if (need === 'present') return (run) => run.textBytes(index) > 0 || holds(run.value(index));
  // No text has more characters than bytes.
  if (need === 'at-most') return (run) => {
    const bytes = run.textBytes(index);
    return (bytes >= 0 && bytes <= limit!) || holds(run.value(index));
  };
  return (run) => holds(run.value(index));
}
