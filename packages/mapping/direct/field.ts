/** Fields of an output written in Avro order, straight from the places of a scan. */
import type { Json } from '@weir/adapter';
import { compileEncoder, room, varint, type Sink, type Write } from '@weir/log';
import type { AvroField } from '@weir/schemas';
import { fit, type FieldKind } from '../avro-kind.ts';
import type { FieldPlan } from '../field.ts';
import { TransformError } from '../transforms.ts';
import type { MappingMeta } from '../types.ts';
import { byteStepOf, empty, integerOf, timeOf, written, writeBytes } from './bytes.ts';
import { absent, array, escapedText, integer, isFalse, isNull, isTrue, number, object, plainText, type Scan } from './scan.ts';

/** State of a field: where its value is. */
const inValues = 0;
const inSink = 1;
const inNumbers = 2;

/** One record while it is written. */
export class Run {
  readonly scan: Scan;
  meta!: MappingMeta;
  outputId = '';
  readonly #state: Uint8Array;
  readonly #from: Int32Array;
  readonly #to: Int32Array;
  readonly #numbers: Float64Array;
  readonly #values: unknown[];
  #sink: Sink | undefined;

  constructor(scan: Scan, fields: number) {
    this.scan = scan;
    this.#state = new Uint8Array(fields);
    this.#from = new Int32Array(fields);
    this.#to = new Int32Array(fields);
    this.#numbers = new Float64Array(fields);
    this.#values = new Array<unknown>(fields).fill(null);
  }
  set(field: number, value: unknown): void {
    this.#state[field] = inValues;
    this.#values[field] = value;
  }
  setNumber(field: number, value: number): void {
    this.#state[field] = inNumbers;
    this.#numbers[field] = value;
  }
  /** A text of so many bytes that ends where the sink is. */
  setText(field: number, sink: Sink, bytes: number): void {
    this.#state[field] = inSink;
    this.#to[field] = sink.at;
    this.#from[field] = sink.at - bytes;
    this.#sink = sink;
  }
  /** Bytes of the text of a field, more than its characters; -1 when it is no text in the sink. */
  textBytes(field: number): number {
    return this.#state[field] === inSink ? this.#to[field]! - this.#from[field]! : -1;
  }
  /** The value as a record of the general way has it. Before the sink is used again. */
  value(field: number): unknown {
    const state = this.#state[field];
    if (state === inSink) return this.#sink!.bytes.toString('utf8', this.#from[field]!, this.#to[field]!);
    return state === inNumbers ? this.#numbers[field] : this.#values[field];
  }
}

/** Writes one field, or a run of constant ones; false = give up. */
export type Op = (run: Run, sink: Sink) => boolean;

/** The value of a slot as the general parser gives it; null and absent are undefined. */
export function slotValue(scan: Scan, slot: number): Json | undefined {
  const { src, from, to } = scan;
  switch (scan.kind[slot]) {
    case absent: case isNull: return undefined;
    case plainText: return scan.wide[slot] === 1 ? src.toString('utf8', from[slot], to[slot]) : src.toString('latin1', from[slot], to[slot]);
    case escapedText: return JSON.parse(src.toString('utf8', from[slot]! - 1, to[slot]! + 1)) as Json;
    case integer: return integerOf(scan, slot);
    case isTrue: return true;
    case isFalse: return false;
    case number: case object: case array: return JSON.parse(src.toString('utf8', from[slot], to[slot])) as Json;
    default: return undefined;
  }
}

/** What a field of the schema needs to be written. */
export interface Target {
  readonly index: number;
  readonly kind: FieldKind;
  readonly write: Write;
  /** Byte before a value that is there (of a union with null); -1 = none. */
  readonly prefix: number;
  /** Bytes of the default; undefined when there is none. */
  readonly rest: Buffer | undefined;
}

const encoded = (write: Write, value: unknown): Buffer => {
  const sink: Sink = { bytes: Buffer.alloc(64), at: 0 };
  write(sink, value);
  return Buffer.from(sink.bytes.subarray(0, sink.at));
};

export const defaultOf = (kind: FieldKind): unknown => (kind.base === 'records' ? [] : kind.base === 'map' ? {} : (kind.defaultValue ?? null));

export function targetOf(field: AvroField, index: number, kind: FieldKind): Target | undefined {
  const write = compileEncoder(field.type);
  if (write === undefined) return undefined;
  const nullAt = Array.isArray(field.type) ? field.type.indexOf('null') : -1;
  const value = defaultOf(kind);
  return { index, kind, write, prefix: nullAt < 0 ? -1 : nullAt === 0 ? 2 : 0, rest: value === null && nullAt < 0 ? undefined : encoded(write, value) };
}

export function constantOp(bytes: Buffer): Op {
  return (_run, sink) => {
    room(sink, bytes.length);
    for (let i = 0; i < bytes.length; i++) sink.bytes[sink.at + i] = bytes[i]!;
    sink.at += bytes.length;
    return true;
  };
}

/** The constant of a field, after its transforms; undefined when it fails: the general way says how. */
export function constantOf(plan: FieldPlan, { kind, write }: Target): { readonly bytes: Buffer; readonly value: unknown } | undefined {
  let value: Json | undefined = plan.constant;
  for (const { apply } of plan.steps) if (value !== undefined) value = apply(value, undefined as never);
  const fitted = value === undefined ? undefined : fit(kind, value);
  return fitted === undefined ? undefined : { bytes: encoded(write, fitted), value: fitted };
}

/** Slot of the first path that has a value: as FieldPlan says it. -1 = none. */
function pick(scan: Scan, slots: readonly number[]): number {
  if (slots.length === 1) return scan.kind[slots[0]!]! > isNull ? slots[0]! : -1;
  for (const slot of slots) {
    const kind = scan.kind[slot]!;
    if (kind > isNull && (kind !== plainText || scan.to[slot]! > scan.from[slot]!)) return slot;
  }
  return -1;
}

/** A field with a plan of paths or a constant under a condition. `absentOp` stands for the default of occurredAt. */
export function fieldOp(plan: FieldPlan, target: Target, slotOf: (path: FieldPlan['paths'][number]) => number, absentOp: Op | undefined): Op {
  const { index, kind, write, prefix, rest } = target;
  const slots = plan.paths.map(slotOf);
  const tests = plan.when.map(({ path, test }) => ({ slot: slotOf(path), test }));
  const steps = plan.steps.map((step) => step.apply);
  const value = (run: Run, sink: Sink, fitted: unknown): boolean => {
    write(sink, fitted);
    run.set(index, fitted);
    return true;
  };
  const left: Op = (run, sink) => {
    if (plan.fallback !== undefined) return value(run, sink, plan.fallback);
    if (absentOp !== undefined) return absentOp(run, sink);
    if (rest === undefined) return false;
    run.set(index, defaultOf(kind));
    room(sink, rest.length);
    for (let i = 0; i < rest.length; i++) sink.bytes[sink.at++] = rest[i]!;
    return true;
  };
  const missing: Op = (run, sink) => (plan.fallback === undefined && plan.required ? false : left(run, sink));
  const slow = (run: Run, sink: Sink, given: Json | undefined): boolean => {
    let fitted: unknown;
    try {
      let now = given;
      for (let i = 0; i < steps.length && now !== undefined; i++) now = steps[i]!(now, undefined as never);
      if (now === undefined || now === null) return missing(run, sink);
      fitted = fit(kind, now);
    } catch (error) {
      if (!(error instanceof TransformError)) throw error;
    }
    if (fitted !== undefined) return value(run, sink, fitted);
    return plan.skip ? left(run, sink) : false;
  };
  const fast = plan.constant !== undefined ? undefined : kind.base === 'string' ? fastText(plan, index, prefix, missing) : kind.base === 'long' ? fastLong(plan, index, prefix) : undefined;
  return (run, sink) => {
    const { scan } = run;
    for (const { slot, test } of tests) if (!test(slotValue(scan, slot) ?? null)) return left(run, sink);
    if (plan.constant !== undefined) return slow(run, sink, plan.constant);
    const slot = pick(scan, slots);
    if (slot < 0) return missing(run, sink);
    if (fast !== undefined) {
      const done = fast(run, sink, slot);
      if (done !== undefined) return done;
    }
    return slow(run, sink, slotValue(scan, slot));
  };
}

type Fast = (run: Run, sink: Sink, slot: number) => boolean | undefined;

function fastText(plan: FieldPlan, index: number, prefix: number, missing: Op): Fast | undefined {
  const step = byteStepOf(plan.steps);
  if (step === undefined) return undefined;
  return (run, sink, slot) => {
    if (run.scan.kind[slot] !== plainText) return undefined;
    const before = sink.at;
    const done = step(run.scan, slot, sink, prefix);
    if (done === empty) return missing(run, sink);
    if (done !== written) return undefined;
    run.setText(index, sink, textLength(sink, before + (prefix < 0 ? 0 : 1)));
    return true;
  };
}

/** Length of the text whose length stands at `at`. */
function textLength(sink: Sink, at: number): number {
  let v = 0;
  let shift = 0;
  for (;;) {
    const byte = sink.bytes[at++]!;
    v |= (byte & 127) << shift;
    if (byte < 128) return v >>> 1;
    shift += 7;
  }
}

function fastLong(plan: FieldPlan, index: number, prefix: number): Fast | undefined {
  const [step, another] = plan.steps;
  const isTime = step?.name === 'timestamp';
  if (another !== undefined || (step !== undefined && !isTime && step.name !== 'integer')) return undefined;
  // Its options say which texts are times; the form of toISOString is one for `auto` and `iso`: asked of the transform itself.
  const takesIso = isTime && takes(step.apply, '2020-01-01T00:00:00.000Z', 1_577_836_800_000);
  if (isTime && !takesIso) return undefined;
  return (run, sink, slot) => {
    const n = isTime ? timeOf(run.scan, slot) : run.scan.kind[slot] === integer ? integerOf(run.scan, slot) : Number.NaN;
    if (Number.isNaN(n)) return undefined;
    room(sink, 11);
    if (prefix >= 0) sink.bytes[sink.at++] = prefix;
    long(sink, n);
    run.setNumber(index, n);
    return true;
  };
}

function takes(apply: FieldPlan['steps'][number]['apply'], text: string, wanted: number): boolean {
  try {
    return apply(text, undefined as never) === wanted;
  } catch (error) {
    if (error instanceof TransformError) return false;
    throw error;
  }
}

/** Zigzag varint of a safe integer, in two halves where it needs more than 32 bits: no BigInt. */
export function long(sink: Sink, n: number): void {
  if (n < 0 || n < 0x40000000) return varint(sink, n);
  const { bytes } = sink;
  let { at } = sink;
  let v = n * 2;
  while (v >= 0x80000000) {
    bytes[at++] = (v % 128) | 128;
    v = Math.floor(v / 128);
  }
  while (v > 127) {
    bytes[at++] = (v & 127) | 128;
    v >>>= 7;
  }
  bytes[at++] = v;
  sink.at = at;
}

/** Text known before: ids and names, ASCII. */
export function asciiField(index: number, prefix: number, of: (run: Run) => string): Op {
  return (run, sink) => {
    const text = of(run);
    const { length } = text;
    room(sink, length + 11);
    if (prefix >= 0) sink.bytes[sink.at++] = prefix;
    varint(sink, length);
    for (let i = 0; i < length; i++) sink.bytes[sink.at + i] = text.charCodeAt(i);
    sink.at += length;
    run.set(index, text);
    return true;
  };
}

/** What the scan left over; gives up on more than `max` characters. */
export function extrasField(index: number, prefix: number, rest: Buffer, max: number): Op {
  const none = constantOp(rest);
  return (run, sink) => {
    const { restEnd } = run.scan;
    if (restEnd === 0) {
      run.set(index, null);
      return none(run, sink);
    }
    if (restEnd > max) return false;
    writeBytes(sink, prefix, run.scan.rest, 0, restEnd);
    run.setText(index, sink, restEnd);
    return true;
  };
}
