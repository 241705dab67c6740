import { Environment } from '@marcbachmann/cel-js';
import type { WorkspaceProblem } from '@weir/errors';
import { RE2JS } from 're2js';
import { failureText } from './failure.ts';
import { beginSteps, meter, spendOnPattern } from './meter.ts';

/** `message` says what failed and where in the expression, never a value of the data: it may be kept where anybody reads it. */
export type CelResult = { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly message: string };

export interface CompiledCel {
  readonly source: string;
  /** Never throws, and ends after a bounded number of steps (`meter.ts`), whatever the data; ints come back as numbers, also within lists and maps. */
  evaluate(variables: Readonly<Record<string, unknown>>): CelResult;
}

export interface CelContext {
  readonly file: string;
  readonly line: number;
  /** Variable name → CEL type (`map`, `dyn`, `string`, `int`, `bool`, `double`, `list`). */
  readonly variables: Readonly<Record<string, string>>;
  readonly result: 'bool' | 'string' | 'int' | 'double' | 'any';
  readonly functions?: readonly CelFunction[];
}

/** A function beside those of CEL. Pure; where it throws, the expression fails, and the text of the error is given on to nobody. */
export interface CelFunction {
  /** `name(type, …): type` */
  readonly signature: string;
  readonly name: string;
  /** Place of an argument that must be written out as text, so that `check` can look at it when the expression is compiled. */
  readonly literal: number;
  /** What is wrong with that text; undefined = nothing. */
  check(text: string): string | undefined;
  run(...args: any[]): unknown;
}

const maxLength = 2000;
const maxLoops = 2;
const maxPattern = 500;
/** Instructions of a pattern: for each character of a text all of them may be looked at. What is repeated up to a count stands there as often. */
const maxProgram = 700;
const loops = new Set(['all', 'exists', 'exists_one', 'map', 'filter']);
/** Functions that go over the whole of a text or a list. */
const costly = new Set(['re', 'size', 'contains', 'indexOf', 'lastIndexOf', 'lowerAscii', 'upperAscii', 'split', 'substring', 'trim', 'join']);
const patterns = new Map<string, RE2JS>();

/** Throws on a pattern that does not compile or is too large. */
function patternOf(text: string): RE2JS {
  let compiled = patterns.get(text);
  if (compiled === undefined) {
    if (text.length > maxPattern) throw new Error(`longer than ${maxPattern} characters`);
    compiled = RE2JS.compile(text);
    const size = compiled.programSize();
    if (size > maxProgram) throw new Error(`${size} instructions, at most ${maxProgram}: what is repeated counts as often as it may be there`);
    if (patterns.size >= 1000) patterns.clear();
    patterns.set(text, compiled);
  }
  return compiled;
}

/** Linear-time regular expressions (RE2 syntax); `matches` of the CEL library backtracks, so it is refused and `re` stands in. */
function re(text: string, pattern: string): boolean {
  const compiled = patternOf(pattern);
  spendOnPattern(text.length, compiled.programSize());
  return compiled.matcher(text).find();
}

interface Ast { readonly op?: string; readonly args?: unknown }

/** The name at the left end of `a.b[c].d`. */
function rootOf(node: unknown): unknown {
  let at = node as Ast;
  while (Array.isArray(at?.args) && (at.op === '.' || at.op === '[]')) at = at.args[0] as Ast;
  return at?.op === 'id' ? at.args : undefined;
}

/**
 * What an operation in a loop goes over besides the element: for each element of a stranger's list, all of another list or
 * text of his would take quadratic time. That is refused where it is plain to see, so that an author hears of it before any
 * data does; what keeps an evaluation short whatever it does is `meter.ts`.
 */
function overPayload({ op, args }: Ast, known: readonly unknown[]): boolean {
  const isPayload = (node: unknown): boolean => {
    const root = rootOf(node);
    return typeof root === 'string' && !known.includes(root);
  };
  if (!Array.isArray(args)) return false;
  if (op === 'in') return isPayload(args[1]);
  if (op === 'call') return costly.has(args[0] as string) && (args[1] as unknown[]).some(isPayload);
  return op === 'rcall' && costly.has(args[0] as string) && [args[1], ...(args[2] as unknown[])].some(isPayload);
}

/**
 * Problems of the syntax tree: `matches`, patterns that do not compile or are too large, too many loops, and a loop in a loop over
 * anything but the element or a written list, as well as what else goes over more than the element.
 */
function inspect(ast: unknown, functions: readonly CelFunction[], variables: CelContext['variables'], report: (message: string) => void): void {
  let found = 0;
  /** Names and numbers, of the release and the time. */
  const single = Object.keys(variables).filter((name) => ['string', 'int', 'double', 'bool'].includes(variables[name]!));
  const walk = (node: unknown, bound: readonly unknown[]): void => {
    if (Array.isArray(node)) return node.forEach((child) => walk(child, bound));
    if (node === null || typeof node !== 'object') return;
    const { op, args } = node as Ast;
    if (bound.length > 0 && overPayload(node as Ast, [...bound, ...single])) report('in a loop, in and functions must go over the element or a written list: take what is the same for each element out of the loop');
    if (op === 'rcall' && Array.isArray(args)) {
      const [name, receiver, inner] = args as [unknown, Ast, unknown[]];
      if (name === 'matches') report('matches() can take exponential time: use re(text, pattern)');
      if (loops.has(name as string)) {
        found++;
        if (bound.length > 0 && receiver.op !== 'list' && !bound.includes(rootOf(receiver))) report('a loop in a loop must go over a part of the element');
        walk(receiver, bound);
        return walk(inner, [...bound, (inner[0] as Ast).args]);
      }
    }
    if (op === 'call' && Array.isArray(args)) for (const f of functions) if (f.name === args[0]) checkLiteral(f, args[1], report);
    if (op !== 'value') walk(args, bound);
  };
  walk(ast, []);
  if (found > maxLoops) report(`more than ${maxLoops} loops (all, exists, map, filter)`);
}

function checkLiteral(of: CelFunction, args: unknown, report: (message: string) => void): void {
  const argument = Array.isArray(args) ? (args[of.literal] as Ast | undefined) : undefined;
  if (argument?.op !== 'value' || typeof argument.args !== 'string') return report(`argument ${of.literal + 1} of ${of.name}() must be written out as text`);
  const problem = of.check(argument.args);
  if (problem !== undefined) report(problem);
}

const reFunction: CelFunction = {
  signature: 're(string, string): bool', name: 're', literal: 1, run: re,
  check(pattern) {
    try {
      patternOf(pattern);
      return undefined;
    } catch (error) {
      return `bad pattern: ${(error as Error).message}`;
    }
  },
};

/** Parse and check once. Problems (syntax, unknown variable, wrong type, unbounded) are given back, never thrown. */
export function compileCel(source: string, context: CelContext): { readonly cel: CompiledCel } | { readonly problems: readonly WorkspaceProblem[] } {
  const problems: WorkspaceProblem[] = [];
  const report = (message: string): void => { problems.push({ file: context.file, line: context.line, message: `CEL: ${message.split('\n')[0]!}`, remedy: `fix the expression ${JSON.stringify(source.slice(0, 120))}` }); };
  if (source.length > maxLength) {
    report(`longer than ${maxLength} characters`);
    return { problems };
  }
  const env = new Environment({ unlistedVariablesAreDyn: false, limits: { maxAstNodes: 500, maxDepth: 32, maxListElements: 200, maxMapEntries: 50, maxCallArguments: 16 } });
  for (const [name, type] of Object.entries(context.variables)) env.registerVariable(name, type);
  const functions = [reFunction, ...(context.functions ?? [])];
  for (const f of functions) env.registerFunction(f.signature, f.run as (...args: unknown[]) => unknown, { async: false });
  try {
    const parsed = env.parse(source);
    const check = parsed.check();
    if (!check.valid) report(check.error?.message ?? 'does not check');
    else if (context.result !== 'any' && check.type !== context.result && check.type !== 'dyn') report(`gives ${check.type}, expected ${context.result}`);
    else inspect(parsed.ast, functions, context.variables, report);
    if (problems.length > 0) return { problems };
    meter(parsed.ast);
    return { cel: { source, evaluate: (variables) => run(parsed, source, variables, context.result) } };
  } catch (error) {
    report((error as Error).message);
    return { problems };
  }
}

function run(parsed: (variables: Record<string, unknown>) => unknown, source: string, variables: Readonly<Record<string, unknown>>, result: CelContext['result']): CelResult {
  beginSteps();
  try {
    const value = parsed(variables as Record<string, unknown>);
    const plain = typeof value === 'object' && value !== null ? plainOf(value, new Map()) : typeof value === 'bigint' ? Number(value) : value;
    if (result === 'bool' && typeof plain !== 'boolean') return { ok: false, message: 'did not give a bool' };
    return { ok: true, value: plain };
  } catch (error) {
    return { ok: false, message: failureText(error, source) };
  }
}

/**
 * CEL's ints are BigInt wherever they stand, which JSON does not have: who writes such a list as text would throw. What stands
 * in a list many times, as an expression can make it, is one object afterwards as before.
 */
function plainOf(value: unknown, made: Map<object, unknown>): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value === null || typeof value !== 'object') return value;
  const known = made.get(value);
  if (known !== undefined) return known;
  if (Array.isArray(value)) {
    const list: unknown[] = [];
    made.set(value, list);
    for (const element of value) list.push(plainOf(element, made));
    return list;
  }
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return value;
  const table = Object.create(null) as Record<string, unknown>;
  made.set(value, table);
  for (const [key, inner] of Object.entries(value)) table[key] = plainOf(inner, made);
  return table;
}
