/**
 * The steps of an evaluation are counted while it runs, so that whatever an expression does with whatever a stranger sends,
 * it ends soon: what looks linear can go over all of the data for each element of a list, by names that stand for it, by
 * lists that hold it many times, or by a search for one text of the data in another. Counted is what can take more than a
 * moment: loops, and in them every operator and function; functions over texts and lists, and sums, everywhere. A step is about
 * 10 ns, or a byte of what is made.
 */

/** Steps of one evaluation: 0.2 to 0.5 s at the worst, and some 100 MB. */
export const maxSteps = 20_000_000;
/** Per node of its body, for each element of a loop: also what a list or table that is written there takes. */
const perNode = 10;
/** To make an error, and to give it on through an expression. */
const perError = 1500;
const perElement = 5;
/** Of a table; the library lists all keys of one to tell its type, which costs more where there are many. */
const perKey = 10;
const perKeyOfMany = 50;
const many = 100;
/** Of two texts that are compared, per step. */
const charsCompared = 16;
/** A text that is looked for: a longer one is compared anew at each place. */
const maxNeedle = 256;
/** Characters of an automaton (re2js): a step for each two of its instructions, and at least these. */
const perCharOfPattern = 4;
const instructionsPerStep = 2;
/** A time in the zone of another place. */
const perZone = 50_000;
const perPart = 16;
const perByteOfJson = 8;

/** Of the evaluation that is going on: it is synchronous, and none runs within another. */
let left = maxSteps;

class TooManySteps extends Error {
  readonly code = 'too_many_steps';
}
/** Made once: who is over is told again and again until it is out. */
const exceeded = new TooManySteps('too many steps');

/** A new evaluation begins. */
export function beginSteps(): void {
  left = maxSteps;
}

function spend(steps: number): void {
  left -= steps;
  if (left < 0) throw exceeded;
}

/** @param length characters that a regular expression goes over @param size instructions of its program */
export function spendOnPattern(length: number, size: number): void {
  spend(length * Math.max(perCharOfPattern, size / instructionsPerStep));
}

/** Steps to go over all of a value; it leaves off where there are more than are left. */
function sizeOf(value: unknown, perChar: number): number {
  if (typeof value === 'string') return 1 + value.length * perChar;
  if (typeof value !== 'object' || value === null) return 1;
  if (value instanceof Uint8Array) return 1 + value.length * perChar;
  // To list the keys of a large table takes long, too.
  if (left < 0) throw exceeded;
  let size = 0;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length && size <= left; i++) size += perElement + sizeOf(value[i], perChar);
    return 1 + size;
  }
  const keys = Object.keys(value);
  size = keys.length * (keys.length > many ? perKeyOfMany : perKey);
  for (let i = 0; i < keys.length && size <= left; i++) size += sizeOf((value as Record<string, unknown>)[keys[i]!], perChar);
  return 1 + size;
}

/** Elements that a loop goes over. */
const lengthOf = (items: unknown): number => (Array.isArray(items) ? items.length : typeof items === 'object' && items !== null ? Object.keys(items).length : 0);

const isText = (value: unknown): value is string => typeof value === 'string';

function spendOnOperator(op: string, a: unknown, b: unknown): void {
  const perChar = op === '+' ? 1 : 1 / charsCompared;
  if (isText(a) && isText(b)) spend(op === '+' ? a.length + b.length : Math.min(a.length, b.length) * perChar);
  else if (typeof a === 'object' || typeof b === 'object') spend(sizeOf(a, perChar) + sizeOf(b, perChar));
}

/** Of a value whose type is told, or that becomes a key. */
function spendOnValue(value: unknown): void {
  if (typeof value === 'object' || isText(value)) spend(sizeOf(value, 1 / charsCompared));
}

function spendOnCall(name: string, args: readonly unknown[]): void {
  let steps = 0;
  for (let i = 0; i < args.length; i++) steps += sizeOf(args[i], name === 'json' ? perByteOfJson : 1);
  const [first, second] = args;
  if (isText(first) && isText(second)) {
    if (name === 'lastIndexOf') steps += first.length * second.length / 8;
    else if (second.length > maxNeedle) steps += first.length * (second.length - maxNeedle);
  } else if (name === 'join' && Array.isArray(first) && isText(second)) steps += first.length * second.length;
  else if (name === 'duration' && isText(first)) steps += first.length ** 3;
  else if (isText(second) && zoned.test(name)) steps += perZone;
  spend(steps);
}

const zoned = /^get[A-Z]/;
/** Dearer than their texts are long. */
const unlike = new Set(['duration', 'lastIndexOf', 'split', 'json']);
/** Counted also outside of loops: what they make is as large as what they are given, or they may take longer than that is long. */
const making = new Set(['contains', 'indexOf', 'lastIndexOf', 'split', 'join', 'lowerAscii', 'upperAscii', 'trim', 'bytes', 'string', 'hex', 'base64', 'json', 'duration']);
const numeric = new Set(['int', 'double', 'uint']);
/** In loops. */
const operators = new Set(['==', '!=', '<', '<=', '>', '>=', 'in', '-', '*', '/', '%']);

type Handle = (...args: any[]) => any;
/** A node of the library's tree: `handle` does its work on operands that are known, `evaluate` all of it. */
interface Node {
  readonly op?: string;
  readonly args?: any;
  readonly checkedType?: { readonly name: string };
  readonly meta?: { readonly alternate?: Node; readonly macro?: { val?: Node; exp?: Node; evaluate: Handle }; readonly evaluate?: Handle };
  handle?: Handle;
  setMeta?(name: string, value: unknown): void;
}

/** Counts the steps of a tree that was checked and not yet evaluated. Throws on a macro that it does not know. */
export function meter(node: unknown): void {
  walk(node, false);
}

/** @param repeated it may be evaluated many times, or what it names may be made of what was made before */
function walk(node: unknown, repeated: boolean): void {
  if (Array.isArray(node)) return node.forEach((child) => walk(child, repeated));
  if (node === null || typeof node !== 'object') return;
  const { op, args, meta } = node as Node;
  if (meta?.alternate !== undefined) return walk(meta.alternate, repeated);
  if (meta?.macro !== undefined) return walkMacro(args[0] as string, meta.macro, repeated);
  if (op === 'comprehension') return walkLoop(node as Node, repeated);
  if (op === 'value' || op === 'id') return;
  walk(args, repeated);
  // What is added to a number is one, too, or an error.
  if (op === '+' && (repeated || !(args as readonly Node[]).some((operand) => numeric.has(operand.checkedType?.name ?? '')))) return before(node as Node, (a, b) => spendOnOperator('+', a, b));
  if (op === 'call' || op === 'rcall') return walkCall(node as Node, repeated);
  if (!repeated) return;
  if (operators.has(op!)) before(node as Node, (a, b) => spendOnOperator(op!, a, b));
  else if (op === '[]') before(node as Node, (_list, key) => spendOnValue(key));
  else if (op === '?:' || op === '!_' || op === '-_') before(node as Node, spendOnValue);
  else if (op === '&&' || op === '||') (args as readonly Node[]).forEach(countOperand);
  else if (op === 'map') for (const [key] of args as readonly (readonly [Node, Node])[]) countOperand(key);
}

function walkMacro(name: string, macro: NonNullable<NonNullable<Node['meta']>['macro']>, repeated: boolean): void {
  if (name === 'has') return;
  if (name !== 'bind') throw new Error(`${name}() is not known`);
  walk(macro.val, repeated);
  walk(macro.exp, true);
}

function walkLoop(node: Node, repeated: boolean): void {
  const { iterable, step, errorsAreFatal } = node.args as { readonly iterable: Node; readonly step: Node; readonly errorsAreFatal: boolean };
  walk(iterable, repeated);
  walk(step, true);
  const steps = countNodes(step) * perNode;
  before(node, (items) => spend(lengthOf(items) * steps));
  if (!errorsAreFatal) countOperand(step);
}

function walkCall(node: Node, repeated: boolean): void {
  const name = (node.args as readonly unknown[])[0] as string;
  if (!repeated && !making.has(name)) return;
  const { handle } = node;
  const plain = !unlike.has(name);
  node.handle = (args: readonly unknown[], a, b) => {
    const [first, second] = args;
    // Nearly all calls: short texts.
    if (plain && isText(first) && first.length <= maxNeedle && (second === undefined || (isText(second) && second.length <= maxNeedle))) {
      left -= first.length;
      if (left < 0) throw exceeded;
      return handle!(args, a, b);
    }
    spendOnCall(name, args);
    const value: unknown = handle!(args, a, b);
    if (name === 'split') spend(lengthOf(value) * perPart);
    return value;
  };
}

function before(node: Node, count: (a: any, b: any) => void): void {
  const { handle } = node;
  node.handle = (a, b, c, d) => {
    count(a, b);
    return handle!(a, b, c, d);
  };
}

/** Where the library takes an error of this node for a value and goes on, or tells the type of its value. */
function countOperand(node: Node): void {
  const { alternate, macro, evaluate } = node.meta!;
  if (alternate !== undefined) return countOperand(alternate);
  const counted = (inner: Handle): Handle => (ev, ast, context) => {
    // Who is out of steps fails at once: an error of each element would be dear.
    if (left < 0) throw exceeded;
    let value: unknown;
    try {
      value = inner(ev, ast, context);
    } catch (error) {
      spend(perError);
      throw error;
    }
    spendOnValue(value);
    return value;
  };
  if (macro !== undefined) macro.evaluate = counted(macro.evaluate);
  else node.setMeta!('evaluate', counted(evaluate!));
}

function countNodes(node: unknown): number {
  if (Array.isArray(node)) return node.reduce<number>((sum, child) => sum + countNodes(child), 0);
  if (node === null || typeof node !== 'object') return 0;
  const { op, args, meta } = node as Node;
  if (meta?.alternate !== undefined) return countNodes(meta.alternate);
  if (op === 'comprehension') return 1 + countNodes((args as { iterable: Node }).iterable) + countNodes((args as { step: Node }).step);
  return op === 'value' ? 1 : op === undefined ? 0 : 1 + countNodes(args);
}
