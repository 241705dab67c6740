import type { OperationManifest } from '@weir/adapter';
import type { WorkspaceProblem } from '@weir/errors';
import { durationMs, type CompiledRoute } from '@weir/policy';
import type { YamlValue } from '@weir/yaml';
import { nearest } from './config.ts';
import type { DestinationConfig, SecondVendor } from './types.ts';

type Report = (at: readonly (string | number)[], message: string, remedy: string) => void;

/** `{ destination, operation, after, prefer }` in the `via:` of a route, as it is written. */
export interface SecondSpec extends SecondVendor {
  readonly line: number;
}

const keys = ['destination', 'operation', 'after', 'prefer'];
const defaultAfterMs = 15 * 60_000;
const longestAfterMs = 7 * 86_400_000;
/** What everybody who may hold the person must be told, and no one in another's place. */
const everybodys = new Set(['ConsentChange', 'ConsentApplied', 'Erasure']);

/** The second vendor of each route, by the place of the route in the file. Problems of the entries themselves are reported; `linkSeconds` looks at what they name. */
export function compileSeconds(routes: YamlValue | undefined, lineOf: (at: readonly (string | number)[]) => number, report: Report): ReadonlyMap<number, SecondSpec> {
  const found = new Map<number, SecondSpec>();
  for (const [i, route] of (Array.isArray(routes) ? routes : []).entries()) {
    if (route === null || typeof route !== 'object' || Array.isArray(route) || !Array.isArray(route['via'])) continue;
    for (const [j, entry] of route['via'].entries()) {
      if (entry === null || typeof entry !== 'object' || Array.isArray(entry)) continue;
      const at = ['routes', i, 'via', j];
      for (const key of Object.keys(entry)) if (!keys.includes(key)) report([...at, key], `unknown key ${key}${nearest(key, keys)}`, `use one of ${keys.join(', ')}`);
      if (found.has(i)) {
        report(at, 'a route has one second vendor', 'leave one of them');
        continue;
      }
      const { destination, operation = route['operation'] ?? '', after, prefer = 'order' } = entry;
      const afterMs = after === undefined ? defaultAfterMs : durationMs(after);
      if (typeof destination !== 'string') report(at, 'the second vendor has no name', 'write { destination: <name of a file in destinations/> }');
      if (afterMs === undefined || afterMs > longestAfterMs) report([...at, 'after'], 'after is no duration, or longer than 7d', 'write e.g. after: 15m');
      if (prefer !== 'order' && prefer !== 'measured') report([...at, 'prefer'], `prefer ${JSON.stringify(prefer)}`, 'use order (the second when the first is away) or measured (whichever is through sooner)');
      found.set(i, { destination: String(destination), operation: String(operation), afterMs: afterMs ?? defaultAfterMs, prefer: prefer === 'measured' ? 'measured' : 'order', line: lineOf(at) });
    }
  }
  return found;
}

/** Key of `DestinationConfig.seconds`. */
export const secondKey = (recordType: string, operation: string): string => `${recordType.slice(recordType.lastIndexOf('.') + 1)}/${operation}`;

/** What a file of destinations gave: routes in the order of the file, with the second vendor of some of them. */
export interface RoutedDestination {
  readonly destination: DestinationConfig;
  /** Purposes that it may use data for; undefined = those of its routes. */
  readonly allowed: readonly string[] | undefined;
  readonly routes: readonly { readonly route: CompiledRoute; readonly second: SecondSpec | undefined }[];
}

/**
 * Joins each route to the route of its second vendor, and tells what would break a promise: a record that goes to both
 * by itself, two firsts that would meet under one key at the second, a restriction that only one of them would hear of.
 */
export function linkSeconds(compiled: ReadonlyMap<string, RoutedDestination>, problems: WorkspaceProblem[]): { readonly routes: CompiledRoute[]; readonly destinations: Map<string, DestinationConfig> } {
  const taken = new Map<string, string>();
  const linked: CompiledRoute[] = [];
  const destinations = new Map<string, DestinationConfig>();
  for (const [name, { destination, routes }] of compiled) {
    const seconds = new Map<string, SecondVendor>();
    for (const { route, second } of routes) {
      if (second === undefined) {
        linked.push(route);
        continue;
      }
      const file = `destinations/${name}.yaml`;
      const report = (message: string, remedy: string): void => { problems.push({ file, line: second.line, message, remedy }); };
      const there = compiled.get(second.destination);
      checkSecond(route, second, there, compiled, report);
      const key = secondKey(route.on, route.operation);
      const place = `${second.destination} ${secondKey(route.on, second.operation)}`;
      const known = seconds.get(key);
      if (known !== undefined && (known.destination !== second.destination || known.operation !== second.operation || known.afterMs !== second.afterMs || known.prefer !== second.prefer)) report(`another route of ${route.on} to ${route.operation} has another second vendor`, 'write the same');
      if ((taken.get(place) ?? `${name} ${key}`) !== `${name} ${key}`) report(`${second.destination} stands in for ${taken.get(place)!.replace(' ', ', ')} with ${second.operation} already`, 'name another operation: what both give over would be one delivery there');
      taken.set(place, `${name} ${key}`);
      seconds.set(key, { destination: second.destination, operation: second.operation, afterMs: second.afterMs, prefer: second.prefer });
      linked.push({ ...route, second: { ...route, destination: second.destination, operation: second.operation, line: second.line } });
    }
    if (seconds.size > 0) checkRestrict(name, routes.map((r) => r.route), routes.flatMap((r) => r.second ?? []), compiled, problems);
    destinations.set(name, seconds.size === 0 ? destination : { ...destination, seconds });
  }
  return { routes: linked, destinations };
}

type Told = (message: string, remedy: string) => void;

function checkSecond(route: CompiledRoute, second: SecondSpec, there: RoutedDestination | undefined, compiled: ReadonlyMap<string, RoutedDestination>, report: Told): void {
  if (everybodys.has(route.on) || route.kind === 'restrict') return report(`${route.on} to ${route.operation} has no second vendor`, 'give every destination that may hold the person a route of its own: a restriction is told to each of them');
  if (second.destination === route.destination) return report(`${second.destination} is this destination`, 'write the name of its operation instead');
  if (there === undefined) return report(`no destination ${second.destination}${nearest(second.destination, [...compiled.keys()])}`, `use one of ${[...compiled.keys()].filter((n) => n !== route.destination).join(', ')}`);
  const operations: Readonly<Record<string, OperationManifest>> = there.destination.operations;
  const operation = Object.hasOwn(operations, second.operation) ? operations[second.operation] : undefined;
  if (operation === undefined) return report(`${second.destination} has no operation ${second.operation}${nearest(second.operation, Object.keys(operations))}`, `use one of ${Object.keys(operations).join(', ')}`);
  if (operation.kind !== route.kind) report(`${second.operation} of ${second.destination} is of kind ${operation.kind}, ${route.operation} of kind ${route.kind}`, 'name an operation that does the same');
  if (!operation.accepts.includes(`weir.canonical.${route.on}`)) report(`${second.operation} of ${second.destination} does not take ${route.on}`, `it takes ${operation.accepts.map((n) => n.slice(15)).join(', ')}`);
  if (route.purpose !== undefined && there.allowed?.includes(route.purpose) === false) report(`${second.destination} may not use data for ${route.purpose}`, 'add it to purposes: of that destination, or take the second vendor away');
  if (there.routes.some((r) => r.route.on === route.on && r.route.operation === second.operation)) report(`${second.destination} has a route of ${route.on} to ${second.operation} itself: the record would go to both`, 'take that route away, or name another operation');
}

/** Who may get what is meant for the first may hold the person: what restricts there must be told here too. */
function checkRestrict(first: string, routes: readonly CompiledRoute[], seconds: readonly SecondSpec[], compiled: ReadonlyMap<string, RoutedDestination>, problems: WorkspaceProblem[]): void {
  const told = new Set(routes.filter((r) => r.kind === 'restrict').map((r) => r.on));
  for (const name of new Set(seconds.map((s) => s.destination))) {
    const there = compiled.get(name);
    if (there === undefined) continue;
    const line = seconds.find((s) => s.destination === name)!.line;
    for (const on of told) {
      if (there.routes.some((r) => r.route.kind === 'restrict' && r.route.on === on)) continue;
      problems.push({ file: `destinations/${first}.yaml`, line, message: `${first} is told to restrict by ${on}, ${name} is not, and may hold the same people`, remedy: `give ${name} a route of ${on} to an operation of kind restrict` });
    }
  }
}
