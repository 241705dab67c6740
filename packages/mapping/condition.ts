import type { Json } from '@weir/adapter';
import { compileCel } from '@weir/cel';
import type { WorkspaceProblem } from '@weir/errors';
import { parsePath, readPath, type Path, type Roots } from './path.ts';
import { TransformError } from './transforms.ts';

/** A condition on the value of one path; null = absent. */
export interface PathTest {
  readonly path: Path;
  test(value: Json): boolean;
}

export interface Condition {
  /** All of these together are the condition; undefined when it is more than values of paths. */
  readonly tests: readonly PathTest[] | undefined;
  readonly paths: readonly Path[];
  /** Throws TransformError when CEL cannot decide it (a field that is not there): unknown is neither true nor false. */
  test(roots: Roots): boolean;
}

export interface Located {
  readonly file: string;
  line(path: readonly (string | number)[]): number;
  problem(path: readonly (string | number)[], message: string, remedy: string): void;
}

export const celVariables = { item: 'dyn', parent: 'dyn', envelope: 'dyn', meta: 'map' } as const;

export function celRoots(roots: Roots): Record<string, unknown> {
  return { item: roots.item, parent: roots.parent ?? {}, envelope: roots.envelope ?? {}, meta: roots.meta };
}

/**
 * `{ path, equals | in | exists | not }`, `{ cel: … }`, or a list of them (all must hold). Simple forms are
 * compiled without CEL. Undefined after a problem was reported.
 */
export function compileCondition(value: unknown, at: readonly (string | number)[], where: Located): Condition | undefined {
  if (Array.isArray(value)) {
    const parts = value.map((v, i) => compileCondition(v, [...at, i], where));
    if (parts.some((p) => p === undefined)) return undefined;
    return { tests: parts.every((p) => p!.tests !== undefined) ? parts.flatMap((p) => p!.tests!) : undefined, paths: parts.flatMap((p) => p!.paths), test: (roots) => parts.every((p) => p!.test(roots)) };
  }
  if (value === null || typeof value !== 'object') {
    where.problem(at, 'a condition is { path: …, equals: … }', 'write e.g. when: { path: type, equals: identify }');
    return undefined;
  }
  const condition = value as Record<string, Json>;
  if (typeof condition['cel'] === 'string' && Object.keys(condition).length === 1) return celCondition(condition['cel'], at, where);
  const known = new Set(['path', 'equals', 'in', 'exists', 'not']);
  const strange = Object.keys(condition).find((k) => !known.has(k));
  const path = typeof condition['path'] === 'string' ? parsePath(condition['path']) : undefined;
  if (strange !== undefined || path === undefined) {
    where.problem(strange === undefined ? at : [...at, strange], strange === undefined ? 'a condition needs a path' : `unknown key ${strange}`, 'use path with equals, in, not or exists; or cel');
    return undefined;
  }
  const [operator, another] = Object.keys(condition).filter((key) => key !== 'path');
  if (operator === undefined || another !== undefined) {
    where.problem(at, 'a condition takes exactly one of equals, in, not, exists', 'several conditions that must all hold are a list');
    return undefined;
  }
  const wanted = condition[operator]!;
  if (operator === 'exists') {
    if (typeof wanted === 'boolean') return onPath(path, (value) => (value !== null) === wanted);
    where.problem([...at, operator], 'exists takes true or false', 'YAML 1.2 knows no yes and no');
    return undefined;
  }
  const values = Array.isArray(wanted) ? wanted : [wanted];
  if ((operator === 'in') !== Array.isArray(wanted) && operator !== 'not' || values.some((v) => v !== null && typeof v === 'object')) {
    where.problem([...at, operator], `${operator} takes ${operator === 'equals' ? 'one value' : 'a list of values'}`, 'write e.g. equals: identify, or in: [page, screen]');
    return undefined;
  }
  const set = new Set(values);
  const negate = operator === 'not';
  return onPath(path, (value) => set.has(value) !== negate);
}

const onPath = (path: Path, test: (value: Json) => boolean): Condition => ({ tests: [{ path, test }], paths: [path], test: (roots) => test(readPath(path, roots) ?? null) });

function celCondition(source: string, at: readonly (string | number)[], where: Located): Condition | undefined {
  const compiled = compileCel(source, { file: where.file, line: where.line([...at, 'cel']), variables: celVariables, result: 'bool' });
  if ('problems' in compiled) {
    for (const p of compiled.problems as readonly WorkspaceProblem[]) where.problem([...at, 'cel'], p.message, p.remedy);
    return undefined;
  }
  return {
    tests: undefined,
    paths: [],
    test(roots) {
      const result = compiled.cel.evaluate(celRoots(roots));
      if (!result.ok) throw new TransformError(`CEL: ${result.message}`);
      return result.value === true;
    },
  };
}
