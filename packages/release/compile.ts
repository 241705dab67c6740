import type { Adapter, OperationManifest } from '@weir/adapter';
import { WeirError, WorkspaceError, type WorkspaceProblem } from '@weir/errors';
import { compileContract, compileMapping, type CompiledContract, type CompiledMapping } from '@weir/mapping';
import { apiSource, isName } from '@weir/pipeline';
import { checkPolicy, compileRoutes, compileRules, durationMs, isRegionCode, type CompiledPolicy, type CompiledRoute, type CompiledRule, type ConflictRule, type Purpose } from '@weir/policy';
import { parseYaml, type ParsedYaml, type YamlValue } from '@weir/yaml';
import { compilePaths } from './paths.ts';
import { compileSeconds, linkSeconds, type RoutedDestination } from './seconds.ts';
import { compileEscalation, type EscalationConfig } from './escalation.ts';
import { checkConfig, nearest } from './config.ts';
import { compileFields, compileTerms, isPolicyTest, type Terms } from './governance.ts';
import { compileAccount, compileCaps, shareLimits, shareOperationLimits } from './quota.ts';
import type { Cap, DestinationConfig, Release, ReleaseFile, SourceConfig } from './types.ts';
import { releaseHash } from './workspace.ts';

export interface CompileContext {
  readonly adapters: ReadonlyMap<string, Adapter>;
  /** Needed by mappings that use the `hash` transform. */
  readonly workspaceKey?: Buffer;
}

type Table = { [key: string]: YamlValue };
type Attempt = <T>(work: () => T) => T | undefined;
const day = 86_400_000;
/** What a workspace may raise the limits of a source to. */
const mostLimits = { bodyBytes: 64 * 1024 * 1024, items: 100_000, depth: 64 };

/** Files in, release out; or a WorkspaceError with every problem of every file. Default mappings must be among the files (see `withDefaults`). */
export function compileRelease(files: readonly ReleaseFile[], context: CompileContext): Release {
  const problems: WorkspaceProblem[] = [];
  const attempt: Attempt = (work) => {
    try {
      return work();
    } catch (error) {
      if (!(error instanceof WorkspaceError)) throw error;
      problems.push(...error.problems);
      return undefined;
    }
  };
  const inFolder = (folder: string): ReleaseFile[] => files.filter((f) => f.path.startsWith(`${folder}/`));
  const head = attempt(() => compileHead(files.find((f) => f.path === 'weir.yaml')));
  const terms = compileTerms(files, attempt, problems);
  const rules: CompiledRule[] = inFolder('policies').filter((file) => !isPolicyTest(file.path)).flatMap((file) => attempt(() => compileRules(file, terms.purposes, terms.regions)) ?? []);
  checkUnique(rules, problems);
  const contracts = new Map<string, CompiledContract | undefined>(inFolder('contracts').map((file) => [file.path, attempt(() => compileContract(file))]));
  // Each once, also those that no source uses yet: a mistake in a file is told when the file is written.
  const mappings = new Map<string, CompiledMapping | undefined>();
  for (const file of [...inFolder('mappings'), ...inFolder('adapters')]) mappings.set(file.path, attempt(() => compileMapping(file, { workspaceKey: context.workspaceKey })));
  const sources = new Map<string, SourceConfig>();
  for (const file of inFolder('sources')) {
    const source = attempt(() => compileSource(file, mappings, context));
    if (source !== undefined) sources.set(source.name, source);
  }
  const compiled = new Map<string, RoutedDestination>();
  let whole = true;
  for (const file of inFolder('destinations')) {
    const one = attempt(() => compileDestination(file, terms, contracts, context));
    if (one === undefined) whole = false;
    else compiled.set(one.destination.name, one);
  }
  // What a broken file would have said is not missed in another one.
  const { routes, destinations } = linkSeconds(compiled, whole ? problems : []);
  const general = generalContracts(contracts, destinations);
  const fields = compileFields(general.values(), terms, problems);
  const caps = inFolder('policies').filter((file) => !isPolicyTest(file.path)).flatMap((file) => attempt(() => policyCaps(file, terms.purposes)) ?? []);
  for (const cap of caps) if (cap.destination !== undefined && !destinations.has(cap.destination)) problems.push({ file: cap.file, line: cap.line, message: `no destination ${cap.destination}`, remedy: `use one of ${[...destinations.keys()].join(', ')}` });
  const limits = shareLimits([...sources.values(), ...destinations.values()], (part) => `${'caps' in part ? 'destinations' : 'sources'}/${part.name}.yaml`, problems);
  for (const [key, source] of sources) sources.set(key, { ...source, accountLimit: limits.get(source.account) });
  const operations = shareOperationLimits(destinations);
  for (const [key, destination] of destinations) destinations.set(key, { ...destination, operations: operations.get(key) ?? destination.operations, accountLimit: limits.get(destination.account), caps: [...destination.caps, ...caps.filter((c) => c.destination === undefined || c.destination === key)] });
  if (problems.length > 0) throw new WorkspaceError(problems);
  const byRecord = new Map<string, CompiledRoute[]>();
  for (const route of routes) byRecord.set(route.on, [...(byRecord.get(route.on) ?? []), route]);
  const regionsOf = (parts: ReadonlyMap<string, { readonly name: string; readonly region?: readonly string[] }>) => [...parts.values()].flatMap((part) => (part.region === undefined ? [] : [[part.name, part.region] as const]));
  const policy: CompiledPolicy = {
    purposes: terms.purposes, rules, routes: byRecord,
    governance: { regions: terms.regions, fields, sourceRegions: new Map(regionsOf(sources).map(([source, [code]]) => [source, code!])), destinationRegions: new Map(regionsOf(destinations)) },
  };
  problems.push(...checkPolicy(policy, new Set(destinations.keys())));
  if (problems.length > 0) throw new WorkspaceError(problems);
  return { hash: releaseHash(files), files, name: head!.name, consent: head!.consent, linkedIdentifiers: head!.linkedIdentifiers, ...(head!.escalation === undefined ? {} : { escalation: head!.escalation }), sources, destinations, policy, contracts: general };
}

/** A contract that a destination names governs what goes there; every other one governs the canonical records. */
function generalContracts(contracts: ReadonlyMap<string, CompiledContract | undefined>, destinations: ReadonlyMap<string, DestinationConfig>): Map<string, CompiledContract[]> {
  const own = new Set([...destinations.values()].map((d) => d.contract));
  const general = new Map<string, CompiledContract[]>();
  for (const contract of contracts.values()) {
    if (contract === undefined || own.has(contract)) continue;
    for (const record of contract.records) general.set(record, [...(general.get(record) ?? []), contract]);
  }
  return general;
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

const linkedRules: readonly string[] = ['keep', 'leave-out'];
const conflictRules = ['log-order', 'strictest', 'source-priority'] as const;

/** weir.yaml: the name, who is told of trouble, and which of several sources of consent may re-open what another closed. */
function compileHead(file: ReleaseFile | undefined): { readonly name: string; readonly consent: ConflictRule; readonly linkedIdentifiers: boolean; readonly escalation?: EscalationConfig } {
  if (file === undefined) throw new WorkspaceError([{ file: 'weir.yaml', line: 0, message: 'is missing', remedy: 'write weir.yaml with name: <workspace>' }]);
  const yaml = parseYaml(file);
  const table = tableOf(yaml);
  const known = ['name', 'doc', 'region', 'consent', 'escalation'];
  const problems: WorkspaceProblem[] = Object.keys(table).filter((key) => !known.includes(key)).map((key) => ({ file: file.path, line: yaml.lineOf([key]), message: `unknown key ${key}${nearest(key, known)}`, remedy: `use ${known.join(', ')}` }));
  const { name, consent } = table;
  if (typeof name !== 'string' || !isName(name)) problems.push({ file: file.path, line: yaml.lineOf(['name']), message: 'the workspace needs a name', remedy: 'write name: with lower case, digits and -' });
  const escalation = compileEscalation(table['escalation'], (at, message, remedy) => { problems.push({ file: file.path, line: yaml.lineOf(at), message, remedy }); });
  const given = consent === undefined ? {} : consent;
  const wrong = (at: string, message: string, remedy: string): void => { problems.push({ file: file.path, line: yaml.lineOf(['consent', ...(at === '' ? [] : [at])]), message, remedy }); };
  if (given === null || typeof given !== 'object' || Array.isArray(given)) {
    wrong('', 'consent is a table', 'give conflict, priority, linkedIdentifiers');
    throw new WorkspaceError(problems);
  }
  for (const key of Object.keys(given)) if (key !== 'conflict' && key !== 'priority' && key !== 'linkedIdentifiers') wrong(key, `unknown key ${key}`, 'use conflict, priority, linkedIdentifiers');
  const kind = given['conflict'] ?? 'log-order';
  if (!conflictRules.includes(kind as ConflictRule['kind'])) wrong('conflict', 'conflict names no rule', `use ${conflictRules.join(', ')}`);
  const priority = given['priority'] ?? [];
  const isList = Array.isArray(priority) && priority.every((p) => typeof p === 'string' && isName(p)) && new Set(priority).size === priority.length;
  if (!isList) wrong('priority', 'priority is no list of source names, each once', 'name the sources, the one that counts most first; the consent API is consent-api');
  else if ((kind === 'source-priority') !== ((priority as string[]).length > 0)) wrong('priority', 'priority goes with conflict: source-priority, and only with it', 'give both or neither');
  const linked = given['linkedIdentifiers'] ?? 'keep';
  if (!linkedRules.includes(linked as string)) wrong('linkedIdentifiers', 'linkedIdentifiers says neither keep nor leave-out', 'keep: vendors that know a person by a linked identifier are told of a no; leave-out: no address is kept with links');
  if (problems.length > 0) throw new WorkspaceError(problems);
  return { name: name as string, linkedIdentifiers: linked === 'keep', ...(escalation === undefined ? {} : { escalation }), consent: { kind: kind as ConflictRule['kind'], priority: priority as string[] } };
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
  const opened = openFile(file, ['adapter', 'config', 'mapping', 'limits', 'dedupeWindow', 'account', 'accountLimit', 'region', 'saysRegion', 'identityLinks', 'doc']);
  const { table, report } = opened;
  // Its changes are told apart by that name: what repeats, whose no it is, and what a key of it was used for.
  if (opened.name === apiSource) report([], `the name ${apiSource} is that of the consent API`, 'give the file another name');
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
  const region = regionCodes(opened, false);
  const says = table['saysRegion'] ?? (manifest.publicKey === true ? 'adds' : 'last');
  if (says !== 'last' && says !== 'adds') report(['saysRegion'], `saysRegion ${JSON.stringify(says)}`, 'use last (its profiles move people) or adds (they only add a region)');
  const links = table['identityLinks'] ?? (manifest.publicKey === true ? 'untrusted' : 'trusted');
  if (links !== 'trusted' && links !== 'untrusted') report(['identityLinks'], `identityLinks ${JSON.stringify(links)}`, 'use trusted (export and erasure of a person follow its links) or untrusted (they do not)');
  if (opened.problems.length > 0) throw new WorkspaceError(opened.problems);
  const mapping = mappings.get(path!);
  return mapping === undefined ? undefined : { name: opened.name, adapter, config, mapping, limits, dedupeWindowMs: window!, movesPeople: says === 'last', trustsLinks: links === 'trusted', account, accountLimit: limit, ...(region === undefined ? {} : { region }) };
}

/** `region:` of a source (where its people are) or a destination (where it keeps data, one or several). */
function regionCodes({ table, report }: Opened, several: boolean): readonly string[] | undefined {
  const value = table['region'];
  if (value === undefined) return undefined;
  const list = Array.isArray(value) ? value : [value];
  for (const [i, code] of list.entries()) if (typeof code !== 'string' || !isRegionCode(code)) report(Array.isArray(value) ? ['region', i] : ['region'], `unknown region ${JSON.stringify(code)}`, 'use ISO 3166 codes such as DE or US-CA');
  if (list.length === 0 || (!several && list.length > 1)) report(['region'], 'expected one region', 'write region: DE');
  return list as string[];
}

function compileDestination(file: ReleaseFile, terms: Terms, contracts: ReadonlyMap<string, CompiledContract | undefined>, context: CompileContext): RoutedDestination {
  const opened = openFile(file, ['adapter', 'config', 'routes', 'enabled', 'concurrency', 'retryHorizon', 'account', 'accountLimit', 'caps', 'region', 'purposes', 'contract', 'doc']);
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
  const allowed = purposesOf(opened, terms);
  const routes = compileRoutes(table['routes'], opened.name, operations, terms.purposes, file, opened.yaml, problems, { regions: terms.regions, allowed });
  const paths = compilePaths(table['routes'], operations, report);
  const seconds = compileSeconds(table['routes'], (at) => opened.yaml.lineOf(at), report);
  const region = regionCodes(opened, true);
  const contract = contractOf(opened, contracts);
  const concurrency = table['concurrency'] ?? 16;
  if (typeof concurrency !== 'number' || !Number.isInteger(concurrency) || concurrency < 1 || concurrency > 1000) report(['concurrency'], 'concurrency', 'use a whole number from 1 to 1000');
  const horizon = table['retryHorizon'] === undefined ? (manifest.retryHorizonMs ?? 3 * day) : durationMs(table['retryHorizon']);
  if (horizon === undefined) report(['retryHorizon'], 'retryHorizon is no duration', 'write e.g. 72h');
  const enabled = table['enabled'] ?? true;
  if (typeof enabled !== 'boolean') report(['enabled'], 'enabled', 'use true or false');
  const { account, limit } = compileAccount(table, opened.name, report);
  const caps = compileCaps(table['caps'], file.path, (at) => opened.yaml.lineOf(at), terms.purposes, report);
  for (const cap of caps) if (cap.operation !== undefined && !Object.hasOwn(operations, cap.operation)) problems.push({ file: cap.file, line: cap.line, message: `no operation ${cap.operation}`, remedy: `use one of ${Object.keys(operations).join(', ')}` });
  if (problems.length > 0) throw new WorkspaceError(problems);
  return { destination: { name: opened.name, adapter, config, operations, enabled: enabled as boolean, concurrency: concurrency as number, retryHorizonMs: horizon!, account, accountLimit: limit, caps, paths, ...(region === undefined ? {} : { region }), ...(contract === undefined ? {} : { contract }) }, allowed, routes: routes.map((route, i) => ({ route, second: seconds.get(i) })) };
}

/** `purposes:` of a destination: what it may use data for at all; absent = what its routes name. */
function purposesOf({ table, report }: Opened, terms: Terms): readonly string[] | undefined {
  const list = table['purposes'];
  if (list === undefined) return undefined;
  const names = Array.isArray(list) ? list : [];
  if (names.length === 0) report(['purposes'], 'purposes is a list', 'write purposes: [service]');
  for (const [i, name] of names.entries()) if (typeof name !== 'string' || !terms.purposes.has(name)) report(['purposes', i], `unknown purpose ${JSON.stringify(name)}`, `use one of ${[...terms.purposes.keys()].join(', ')}`);
  return names as string[];
}

/** `contract:` of a destination: what it needs of the records it gets, after minimisation. Undefined where the contract has problems of its own. */
function contractOf({ table, report }: Opened, contracts: ReadonlyMap<string, CompiledContract | undefined>): CompiledContract | undefined {
  const name = table['contract'];
  if (name === undefined) return undefined;
  const path = `contracts/${String(name)}`;
  if (!contracts.has(path)) report(['contract'], `no file ${path}`, 'write contract: <file in contracts/>');
  return contracts.get(path);
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
