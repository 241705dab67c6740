import type { CompiledCel } from '@weir/cel';
import type { WorkspaceProblem } from '@weir/errors';
import { parseYaml, type ParsedYaml, type YamlValue } from '@weir/yaml';
import { classWords, dataClass, dataClasses, identifiers, type ClassPurposes, type DataClass, type FieldUse } from './classes.ts';
import type { Regions } from './regions.ts';
import { isTable, Report, type Table } from './report.ts';
import { changeable } from './minimise.ts';
import { canonicalSchemas } from './record-view.ts';
import { compileHash, isRuleName, type CompiledRule } from './rules.ts';
import type { Transform } from './transforms.ts';
import type { Purpose, Route } from './types.ts';

export interface CompiledRoute extends Omit<Route, 'when'> {
  readonly destination: string;
  readonly kind: 'use' | 'restrict';
  readonly when: CompiledCel | undefined;
  /** Of kind restrict: fields that are told hashed, as the vendor knows its people. */
  readonly hash?: ReadonlyMap<string, Transform>;
  /** The same for the second vendor of the route; it is decided with this one, never by itself. */
  readonly second?: CompiledRoute;
  readonly file?: string;
  readonly line?: number;
}

/** What is sent to whom, beside the rules. All names are those of the release. */
export interface Governance {
  readonly regions: Regions;
  /** Region of the people a source speaks of, where a record does not say. */
  readonly sourceRegions: ReadonlyMap<string, string>;
  /** Where a destination keeps its data. */
  readonly destinationRegions: ReadonlyMap<string, readonly string[]>;
  /** By record name without namespace. */
  readonly fields: ReadonlyMap<string, ReadonlyMap<string, FieldUse>>;
}

export interface CompiledPolicy {
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly rules: readonly CompiledRule[];
  /** Routes by record name without namespace. */
  readonly routes: ReadonlyMap<string, readonly CompiledRoute[]>;
  /** Absent: no contract, no regions, every ordinary field for every purpose. */
  readonly governance?: Governance;
}

type File = { readonly path: string; readonly content: string };

export interface CompiledPurposes {
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly classes: ClassPurposes;
}

/** purposes.yaml: `purposes: { <name>: { legalBasis, doc } }`, and optionally `classes: { <class>: [purposes] }`. */
export function compilePurposesFile(file: File): CompiledPurposes {
  const report = new Report(file.path, parseYaml(file));
  const root = isTable(report.yaml.value) ? report.yaml.value : {};
  report.keys(root, [], ['purposes', 'classes']);
  const table = root['purposes'];
  const found = new Map<string, Purpose>();
  if (!isTable(table)) report.add([], 'no purposes', 'write purposes: with a table of names');
  for (const [name, spec] of Object.entries(isTable(table) ? table : {})) {
    const at = ['purposes', name];
    if (!isRuleName(name)) report.add(at, `purpose name ${name}`, 'use lower case, digits and -');
    if (!isTable(spec)) {
      report.add(at, 'a purpose is a table', 'give legalBasis and doc');
      continue;
    }
    report.keys(spec, at, ['legalBasis', 'doc']);
    const basis = spec['legalBasis'];
    if (basis !== 'consent' && basis !== 'contract' && basis !== 'legitimate-interest' && basis !== 'legal-obligation') report.add([...at, 'legalBasis'], `legalBasis ${JSON.stringify(basis ?? null)}`, 'use consent, contract, legitimate-interest or legal-obligation');
    else found.set(name, { name, legalBasis: basis, doc: String(spec['doc'] ?? '') });
  }
  return report.end({ purposes: found, classes: compileClasses(root['classes'], found, report) });
}

/** The purposes of purposes.yaml. */
export function compilePurposes(file: File): ReadonlyMap<string, Purpose> {
  return compilePurposesFile(file).purposes;
}

function compileClasses(table: YamlValue | undefined, purposes: ReadonlyMap<string, Purpose>, report: Report): ClassPurposes {
  if (table === undefined) return undefined;
  const classes = new Map<DataClass, readonly string[]>();
  if (!isTable(table)) report.add(['classes'], 'classes is a table', 'write classes: { personal: [service] }');
  for (const [word, list] of Object.entries(isTable(table) ? table : {})) {
    const kind = dataClass([word]);
    if (kind === undefined) report.add(['classes', word], `unknown class ${word}`, `use one of ${dataClasses.join(', ')}`);
    else if (classes.has(kind)) report.add(['classes', word], `${word} is the class ${kind}, which is here already`, 'write it once');
    const none = Array.isArray(list) && list.length === 0;
    const names = none ? [] : report.names(list, ['classes', word], 'purpose', (name) => purposes.has(name), `use purposes of this file: ${[...purposes.keys()].join(', ')}`);
    if (kind !== undefined) classes.set(kind, names);
  }
  return classes;
}

export { classWords };

interface RouteContext {
  readonly destination: string;
  readonly operations: Readonly<Record<string, { readonly kind: 'use' | 'restrict'; readonly accepts: readonly string[] }>>;
  readonly purposes: ReadonlyMap<string, Purpose>;
  readonly report: Report;
  /** Purposes that the destination may use data for; undefined = those of its routes. */
  readonly allowed: readonly string[] | undefined;
}

/** `routes:` of one destination file, already parsed; checks record, operation, purpose. Problems are added to the list. */
export function compileRoutes(list: YamlValue | undefined, destination: string, operations: RouteContext['operations'], purposes: ReadonlyMap<string, Purpose>, file: File, yaml: ParsedYaml, problems: WorkspaceProblem[], more: { readonly regions?: Regions; readonly allowed?: readonly string[] | undefined } = {}): CompiledRoute[] {
  const report = new Report(file.path, yaml, more.regions);
  const routes: CompiledRoute[] = [];
  if (!Array.isArray(list) || list.length === 0) report.add(['routes'], 'a destination needs routes', 'write - { on: Profile, operation: …, purpose: … }');
  for (const [i, spec] of (Array.isArray(list) ? list : []).entries()) {
    if (!isTable(spec)) {
      report.add(['routes', i], 'a route is a table', 'give on, operation, purpose');
      continue;
    }
    const route = compileRoute(spec, i, { destination, operations, purposes, report, allowed: more.allowed });
    if (route !== undefined) routes.push(route);
  }
  problems.push(...report.problems);
  return routes;
}

function compileRoute(spec: Table, i: number, { destination, operations, purposes, report, allowed }: RouteContext): CompiledRoute | undefined {
  const at = ['routes', i];
  report.keys(spec, at, ['on', 'operation', 'via', 'purpose', 'channel', 'topic', 'when', 'hash']);
  const operation = Object.hasOwn(operations, String(spec['operation'])) ? operations[String(spec['operation'])] : undefined;
  const on = String(spec['on']);
  if (operation === undefined) report.add([...at, 'operation'], `no operation ${JSON.stringify(spec['operation'] ?? null)}`, `use one of ${Object.keys(operations).join(', ')}`);
  else if (!operation.accepts.includes(`weir.canonical.${on}`)) report.add([...at, 'on'], `operation ${String(spec['operation'])} does not take ${on}`, `it takes ${operation.accepts.map((n) => n.slice(15)).join(', ')}`);
  const purpose = spec['purpose'] === undefined ? undefined : String(spec['purpose']);
  if (purpose !== undefined && !purposes.has(purpose)) report.add([...at, 'purpose'], `unknown purpose ${purpose}`, `use one of ${[...purposes.keys()].join(', ')}`);
  else if (purpose !== undefined && allowed?.includes(purpose) === false) report.add([...at, 'purpose'], `${destination} may not use data for ${purpose}`, 'add it to purposes: of the destination, or take the route away');
  if (operation?.kind === 'use' && purpose === undefined) report.add(at, 'a route of an operation that uses data needs a purpose', 'add purpose:');
  const [channel, topic] = [report.text(spec, 'channel', at), report.text(spec, 'topic', at)];
  if (operation === undefined) return undefined;
  const hash = spec['hash'] === undefined ? undefined : routeHash(spec, at, operation.kind, on, report);
  return { destination, on, operation: String(spec['operation']), kind: operation.kind, purpose, channel, topic, when: report.cel(spec['when'], [...at, 'when'], on), ...(hash === undefined ? {} : { hash }), file: report.file, line: report.yaml.lineOf(at) };
}

/** Of what a scheme hashes, the fields that a restriction carries. Rules hash for operations of kind use. */
function routeHash(spec: Table, at: readonly (string | number)[], kind: CompiledRoute['kind'], on: string, report: Report): ReadonlyMap<string, Transform> | undefined {
  const here = [...at, 'hash'];
  if (kind !== 'restrict') {
    report.add(here, 'hash of a route is for operations of kind restrict', 'write a rule with effect: hash for what is used');
    return undefined;
  }
  const fields = (canonicalSchemas().get(on)?.fields ?? []).filter((field) => identifiers.has(field.name) && changeable(field)).map(({ name }) => name);
  const { change } = compileHash(spec, at, report);
  if (change === undefined) return undefined;
  const hashed = new Map([...change].filter(([name]) => fields.includes(name)));
  const remedy = `use fields of ${fields.join(', ')}`;
  if (isTable(spec['hash']) && spec['hash']['fields'] !== undefined) {
    for (const name of change.keys()) if (!hashed.has(name)) report.add([...here, 'fields'], `${on}.${name} is no identifier that a restriction can carry hashed`, remedy);
  } else if (hashed.size === 0 && change.size > 0) report.add(here, `${on} has no identifier that it would hash: all would be told in the clear`, remedy);
  return hashed;
}
