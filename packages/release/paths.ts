import type { OperationManifest } from '@weir/adapter';
import type { YamlValue } from '@weir/yaml';
import { nearest } from './config.ts';

type Report = (at: readonly (string | number)[], message: string, remedy: string) => void;

/**
 * `via:` of the routes: operation → operations of this destination that do the same, itself first where it is not named.
 * Who writes it says that they have the same effect under the same key, whichever is taken. Problems are reported. Second
 * vendors in the same list are those of seconds.ts.
 */
export function compilePaths(routes: YamlValue | undefined, operations: Readonly<Record<string, OperationManifest>>, report: Report): ReadonlyMap<string, readonly string[]> {
  const found = new Map<string, readonly string[]>();
  for (const [i, route] of (Array.isArray(routes) ? routes : []).entries()) {
    if (route === null || typeof route !== 'object' || Array.isArray(route) || route['via'] === undefined) continue;
    const at = ['routes', i, 'via'];
    const own = String(route['operation']);
    const given = route['via'];
    const isSecond = (v: YamlValue): boolean => v !== null && typeof v === 'object' && !Array.isArray(v);
    if (!Array.isArray(given) || given.length === 0 || given.length > 8 || !given.every((v) => typeof v === 'string' || isSecond(v))) {
      report(at, 'via is no list of 1 to 8 operations and at most one second vendor', 'write via: [track, track-bulk] or via: [{ destination: other, after: 15m }]');
      continue;
    }
    const via = given.filter((v) => typeof v === 'string');
    if (via.length === 0) continue;
    const names = [...new Set(via.includes(own) ? via : [own, ...via])];
    const primary = Object.hasOwn(operations, own) ? operations[own] : undefined;
    for (const name of names) {
      const operation = Object.hasOwn(operations, name) ? operations[name] : undefined;
      if (operation === undefined) report(at, `no operation ${name}${nearest(name, Object.keys(operations))}`, `use one of ${Object.keys(operations).join(', ')}`);
      else if (primary !== undefined && (operation.kind !== primary.kind || !operation.accepts.includes(`weir.canonical.${String(route['on'])}`))) report(at, `${name} is not of the same kind, or does not take ${String(route['on'])}`, 'name operations that do the same');
      else if (primary !== undefined && (operation.idempotency.scheme !== primary.idempotency.scheme || operation.idempotency.scheme === 'none')) report(at, `${name} does not tell a repetition as ${own} does`, 'paths need the same idempotency scheme, and not none: a repetition may take another one');
      else if (primary !== undefined && (operation.idempotency.windowMs !== primary.idempotency.windowMs || operation.idempotency.pastWindow !== primary.idempotency.pastWindow)) report(at, `${name} does not know a key for as long as ${own}, or has another rule past that`, 'paths need the same window and pastWindow: a repetition may take another one');
    }
    const before = found.get(own);
    if (before !== undefined && before.join() !== names.join()) report(at, `another route of ${own} lists other paths`, 'list the same');
    found.set(own, names);
  }
  return found;
}
