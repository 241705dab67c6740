import type { Adapter, OperationManifest } from '@weir/adapter';
import { WeirError, WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { compileContract, compileMapping, type CompiledContract, type CompiledMapping } from '@weir/mapping';
import { isName } from '@weir/pipeline';
import { compilePurposes, compileRoutes, compileRules, durationMs, type CompiledPolicy, type CompiledRoute, type CompiledRule, type Purpose } from '@weir/policy';
import { parseYaml, type ParsedYaml, type YamlValue } from '@weir/yaml';
import { checkConfig, nearest } from './config.ts';
import { compileAccount, compileCaps, shareLimits } from './quota.ts';
import type { Cap, DestinationConfig, Release, ReleaseFile, SourceConfig } from './types.ts';
import { releaseHash } from './workspace.ts';

export interface CompileContext {
  readonly adapters: ReadonlyMap<string, Adapter>;
  /** Needed by mappings that use the `hash` transform. */
  readonly workspaceKey?: Buffer;
}

type Table = { [key: string]: YamlValue };
const day = 86_400_000;
/** What a workspace may raise the limits of a source to. */
const mostLimits = { bodyBytes: 64 * 1024 * 1024, items: 100_000, depth: 64 };

/** Files in, release out; or a WorkspaceError with every problem of every file. Default mappings must be among the files (see `withDefaults`). */
export function compileRelease(files: readonly ReleaseFile[], context: CompileContext): Release {
  const problems: WorkspaceProblem[] = [];
  const attempt = <T>(work: () => T): T | undefined => {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof WorkspaceError)) throw error;
      problems.push(...error.problems);
      return undefined;
    }
  };
  const byPath = new Map(files.map((f) => [f.path, f]));
  const inFolder = (folder: string): ReleaseFile[] => files.filter((f) => f.path.startsWith(`${folder}/`));
  const name = attempt(() => compileName(byPath.get('weir.yaml')));
  const purposesFile = byPath.get('purposes.yaml');
  if (purposesFile === undefined) problems.push({ file: 'purposes.yaml', line: 0, message: 'is missing', remedy: 'say for which purposes data is used' });
  const purposes: ReadonlyMap<string, Purpose> = (purposesFile === undefined ? undefined : attempt(() => compilePurposes(purposesFile))) ?? new Map();
  const rules: CompiledRule[] = inFolder('policies').flatMap((file) => attempt(() => compileRules(file, purposes)) ?? []);
  checkUnique(rules, problems);
  const contracts = new Map<string, CompiledContract[]>();
  for (const file of inFolder('contracts')) {
    const contract = attempt(() => compileContract(file));
    for (const record of contract?.records ?? []) contracts.set(record, [...(contracts.get(record) ?? []), contract!]);
  }
  // Each once, also those that no source uses yet: a mistake in a file is told when the file is written.
  const mappings = new Map<string, CompiledMapping | undefined>();
  for (const file of [...inFolder('mappings'), ...inFolder('adapters')]) mappings.set(file.path, attempt(() => compileMapping(file, { workspaceKey: context.workspaceKey })));
  const sources = new Map<string, SourceConfig>();
  for (const file of inFolder('sources')) {
    const source = attempt(() => compileSource(file, mappings, context));
    if (source !== undefined) sources.set(source.name, source);
  }
  const destinations = new Map<string, DestinationConfig>();
  const routes: CompiledRoute[] = [];
  for (const file of inFolder('destinations')) {
    const compiled = attempt(() => compileDestination(file, purposes, context));
    if (compiled === undefined) continue;
    destinations.set(compiled.destination.name, compiled.destination);
    routes.push(...compiled.routes);
  }
  const caps = inFolder('policies').flatMap((file) => attempt(() => policyCaps(file, purposes)) ?? []);
  for (const cap of caps) if (cap.destination !== undefined && !destinations.has(cap.destination)) problems.push({ file: cap.file, line: cap.line, message: `no destination ${cap.destination}`, remedy: `use one of ${[...destinations.keys()].join(', ')}` });
  const limits = shareLimits([...sources.values(), ...destinations.values()], (part) => `${'caps' in part ? 'destinations' : 'sources'}/${part.name}.yaml`, problems);
  for (const [key, source] of sources) sources.set(key, { ...source, accountLimit: limits.get(source.account) });
  for (const [key, destination] of destinations) destinations.set(key, { ...destination, accountLimit: limits.get(destination.account), caps: [...destination.caps, ...caps.filter((c) => c.destination === undefined || c.destination === key)] });
  if (problems.length > 0) throw new WorkspaceError(problems);
  const byRecord = new Map<string, CompiledRoute[]>();
  for (const route of routes) byRecord.set(route.on, [...(byRecord.get(route.on) ?? []), route]);
  const policy: CompiledPolicy = { purposes, rules, routes: byRecord };
  return { hash: releaseHash(files), files, name: name!, sources, destinations, policy, contracts };
}

/** `caps:` of a policy file: they hold at every destination that they do not name another than. */
function policyCaps(file: ReleaseFile, purposes: ReadonlyMap<string, Purpose>): Cap[] {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const caps = compileCaps(tableOf(yaml)['caps'], file.path, (at) => yaml.lineOf(at), purposes, (at, message, remedy) => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); });
  if (problems.length > 0) throw new WorkspaceError(problems);
  return caps;
}

function checkUnique(rules: readonly CompiledRule[], problems: WorkspaceProblem[]): void {
  const seen = new Map<string, CompiledRule>();
  for (const rule of rules) {
    const first = seen.get(rule.name);
    if (first !== undefined) problems.push({ file: rule.file, line: rule.line, message: `rule ${rule.name} exists already in ${first.file}:${first.line}`, remedy: 'rename one' });
    seen.set(rule.name, rule);
  }
}

function compileName(file: ReleaseFile | undefined): string {
  if (file === undefined) throw new WorkspaceError([{ file: 'weir.yaml', line: 0, message: 'is missing', remedy: 'write weir.yaml with name: <workspace>' }]);
  const yaml = parseYaml(file);
  const table = tableOf(yaml);
  const known = ['name', 'doc', 'region'];
  const problems = Object.keys(table).filter((key) => !known.includes(key)).map((key) => ({ file: file.path, line: yaml.lineOf([key]), message: `unknown key ${key}${nearest(key, known)}`, remedy: `use ${known.join(', ')}` }));
  if (problems.length > 0) throw new WorkspaceError(problems);
  const name = table['name'];
  if (typeof name !== 'string' || !isName(name)) throw new WorkspaceError([{ file: file.path, line: yaml.lineOf(['name']), message: 'the workspace needs a name', remedy: 'write name: with lower case, digits and -' }]);
  return name;
}

function tableOf(yaml: ParsedYaml): Table {
  return yaml.value !== null && typeof yaml.value === 'object' && !Array.isArray(yaml.value) ? yaml.value : {};
}

interface Opened {
  readonly name: string;
  readonly yaml: ParsedYaml;
  readonly table: Table;
  readonly problems: WorkspaceProblem[];
  report(at: readonly (string | number)[], message: string, remedy: string): void;
}

/** What source and destination files share: the name from the file name, a table, its keys, its adapter. */
function openFile(file: ReleaseFile, keys: readonly string[]): Opened {
  const yaml = parseYaml(file);
  const problems: WorkspaceProblem[] = [];
  const report = (at: readonly (string | number)[], message: string, remedy: string): void => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); };
  const name = file.path.slice(file.path.indexOf('/') + 1).replace(/\.ya?ml$/, '');
  if (!isName(name)) report([], `name ${name}`, 'use lower case, digits and - in the file name');
  const table = tableOf(yaml);
  for (const key of Object.keys(table)) if (!keys.includes(key)) report([key], `unknown key ${key}${nearest(key, keys)}`, `use one of ${keys.join(', ')}`);
  return { name, yaml, table, problems, report };
}

function adapterOf(opened: Opened, context: CompileContext, role: 'source' | 'destination'): Adapter {
  const name = String(opened.table['adapter']);
  const adapter = context.adapters.get(name);
  const known = [...context.adapters.values()].filter((a) => a[role] !== undefined).map((a) => a.manifest.name);
  if (adapter?.[role] === undefined) {
    opened.report(['adapter'], `no ${role} adapter ${JSON.stringify(opened.table['adapter'] ?? null)}`, `use one of ${known.join(', ')}`);
    throw new WorkspaceError(opened.problems);
  }
  return adapter;
}

/** Path of a source's mapping in the release: its own, or the adapter's default. */
export function mappingPath(source: Table, adapter: Adapter): string | undefined {
  const own = source['mapping'];
  if (own !== undefined) return `mappings/${String(own)}`;
  return adapter.manifest.source?.mapping === undefined ? undefined : `adapters/${adapter.manifest.name}/${adapter.manifest.source.mapping}`;
}

/** The mapping is undefined where its own problems were reported already: such a source is left out. */
function compileSource(file: ReleaseFile, mappings: ReadonlyMap<string, CompiledMapping | undefined>, context: CompileContext): SourceConfig | undefined {
  const opened = openFile(file, ['adapter', 'config', 'mapping', 'limits', 'dedupeWindow', 'account', 'accountLimit', 'doc']);
  const { table, report } = opened;
  const adapter = adapterOf(opened, context, 'source');
  const manifest = adapter.manifest.source!;
  const config = checkConfig(manifest.config, table['config'], ['config'], report);
  const path = mappingPath(table, adapter);
  if (path === undefined || !mappings.has(path)) report(['mapping'], path === undefined ? 'the adapter has no default mapping' : `no file ${path}`, 'write mapping: <file in mappings/>');
  const limits = { ...manifest.limits };
  const given = table['limits'] ?? {};
  if (typeof given !== 'object' || Array.isArray(given)) report(['limits'], 'limits is a table', 'write limits: { bodyBytes: 100000 }');
  for (const [key, value] of Object.entries(given)) {
    const most = Object.hasOwn(mostLimits, key) ? mostLimits[key as keyof typeof limits] : 0;
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > most) report(['limits', key], `limit ${key}`, `use bodyBytes (to ${mostLimits.bodyBytes}), items (to ${mostLimits.items}), depth (to ${mostLimits.depth}) with a whole number`);
    else limits[key as keyof typeof limits] = value;
  }
  const window = table['dedupeWindow'] === undefined ? 7 * day : durationMs(table['dedupeWindow']);
  if (window === undefined || window < manifest.retryHorizonMs) report(['dedupeWindow'], 'dedupeWindow is no duration, or shorter than the sender keeps retrying', `use at least ${Math.ceil(manifest.retryHorizonMs / 3_600_000)}h`);
  // No destination can have a name with a colon: a source that names no account shares with nobody.
  const { account, limit } = compileAccount(table, `source:${opened.name}`, report);
  if (opened.problems.length > 0) throw new WorkspaceError(opened.problems);
  const mapping = mappings.get(path!);
  return mapping === undefined ? undefined : { name: opened.name, adapter, config, mapping, limits, dedupeWindowMs: window!, account, accountLimit: limit };
}

function compileDestination(file: ReleaseFile, purposes: ReadonlyMap<string, Purpose>, context: CompileContext): { destination: DestinationConfig; routes: CompiledRoute[] } {
  const opened = openFile(file, ['adapter', 'config', 'routes', 'enabled', 'concurrency', 'retryHorizon', 'account', 'accountLimit', 'caps', 'doc']);
  const { table, report, problems } = opened;
  const adapter = adapterOf(opened, context, 'destination');
  const manifest = adapter.manifest.destination!;
  const config = checkConfig(manifest.config, table['config'], ['config'], report);
  if (problems.length > 0) throw new WorkspaceError(problems);
  let operations: Readonly<Record<string, OperationManifest>> = manifest.operations;
  try {
    operations = adapter.destination!.operations?.(config) ?? operations;
  } catch (error) {
    if (!(error instanceof WeirError)) throw error;
    report(['config'], error.message, 'correct the option');
  }
  const routes = compileRoutes(table['routes'], opened.name, operations, purposes, file, opened.yaml, problems);
  const concurrency = table['concurrency'] ?? 16;
  if (typeof concurrency !== 'number' || !Number.isInteger(concurrency) || concurrency < 1 || concurrency > 1000) report(['concurrency'], 'concurrency', 'use a whole number from 1 to 1000');
  const horizon = table['retryHorizon'] === undefined ? (manifest.retryHorizonMs ?? 3 * day) : durationMs(table['retryHorizon']);
  if (horizon === undefined) report(['retryHorizon'], 'retryHorizon is no duration', 'write e.g. 72h');
  const enabled = table['enabled'] ?? true;
  if (typeof enabled !== 'boolean') report(['enabled'], 'enabled', 'use true or false');
  const { account, limit } = compileAccount(table, opened.name, report);
  const caps = compileCaps(table['caps'], file.path, (at) => opened.yaml.lineOf(at), purposes, report);
  for (const cap of caps) if (cap.operation !== undefined && !Object.hasOwn(operations, cap.operation)) problems.push({ file: cap.file, line: cap.line, message: `no operation ${cap.operation}`, remedy: `use one of ${Object.keys(operations).join(', ')}` });
  if (problems.length > 0) throw new WorkspaceError(problems);
  return { destination: { name: opened.name, adapter, config, operations, enabled: enabled as boolean, concurrency: concurrency as number, retryHorizonMs: horizon!, account, accountLimit: limit, caps }, routes };
}

/** Adds the adapters' default mappings that the sources use, so that a release is whole by itself. */
export function withDefaults(files: readonly ReleaseFile[], adapters: ReadonlyMap<string, Adapter>, read: (adapter: string, path: string) => string): ReleaseFile[] {
  const all = new Map(files.map((f) => [f.path, f]));
  for (const file of files) {
    if (!file.path.startsWith('sources/')) continue;
    let table: YamlValue;
    try {
      table = parseYaml(file).value;
    } catch (error) {
      // Reported with its line by compileRelease.
      if (error instanceof WorkspaceError) continue;
      throw error;
    }
    if (table === null || typeof table !== 'object' || Array.isArray(table)) continue;
    const adapter = adapters.get(String(table['adapter']));
    const path = adapter === undefined ? undefined : mappingPath(table, adapter);
    if (path?.startsWith('adapters/') && !all.has(path)) all.set(path, { path, content: read(adapter!.manifest.name, adapter!.manifest.source!.mapping!) });
  }
  return [...all.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}
