/** Everything that is generated from code and results: error page, environment tables, adapter tables, metrics, roles, OpenAPI documents, what was measured. `--check` compares instead of writing. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { registry } from '@weir/adapters';
import type { ConfigSchema as AdapterSchema } from '@weir/adapter';
import { configTable, vaultOptions, type ConfigSchema } from '@weir/config';
import { catalogue, type CatalogueEntry } from '@weir/errors';
import { acls, type AclGrants } from '@weir/pipeline';
import { permissions, roleNames, roles, type Permission } from '@weir/release';
import { limitsTable, machineLines, ratiosTable } from '../bench/results.ts';
import { scalingTables } from '../bench/scaling.ts';
import { brokerOptions } from '../cli/brokers.ts';
import { options as cliOptions } from '../cli/config.ts';
import { chaosTable, mutantsTable } from '../tests/chaos/tables.ts';
import { metricsTable } from './metrics-table.ts';
import { openApiDocuments } from './openapi.ts';

const root = resolve(import.meta.dirname, '..');

function errorsPage(): string {
  const rows = Object.entries(catalogue).map(([code, entry]: [string, CatalogueEntry]) => `| \`${code}\` | ${entry.meaning} | ${entry.retry} | ${entry.http ?? ''} | ${entry.action} |`);
  return ['# Error codes', '', 'Generated from `packages/errors/catalogue.ts` by `npm run generate`. A code names the decision it causes; codes are never reused. The metric label `code` takes only these values.', '', '| code | meaning | what happens | HTTP | what to do |', '|---|---|---|---|---|', ...rows, ''].join('\n');
}

function adapterTable(schema: AdapterSchema): string {
  const rows = Object.entries(schema).map(([name, f]) => `| \`${name}\` | ${f.secret === true ? 'secret' : f.type} | ${f.required === true ? '**required**' : f.default === undefined ? '' : `\`${JSON.stringify(f.default)}\``} | ${f.doc}${f.scopes === undefined ? '' : ` Scopes: ${f.scopes.map((scope) => `\`${scope}\``).join(', ')}.`} |`);
  return ['| option | type | default | meaning |', '|---|---|---|---|', ...rows].join('\n');
}

function rolesTable(): string {
  const rows = Object.entries(permissions).map(([name, doc]) => `| \`${name}\` | ${doc} | ${roleNames.map((role) => ((roles[role] as readonly Permission[]).includes(name as Permission) ? 'yes' : '')).join(' | ')} |`);
  return [`| permission | lets one | ${roleNames.join(' | ')} |`, `|---|---|${roleNames.map(() => '---|').join('')}`, ...rows].join('\n');
}

/** Topics and groups by service; what is declared is what tests/full/acls.test.ts runs them with. */
function aclsTable(): string {
  const services = Object.entries(acls) as [string, AclGrants][];
  const rows = (kind: keyof AclGrants): string[] => [...new Set(services.flatMap(([, grants]) => Object.keys(grants[kind])))].sort()
    .map((name) => `| ${kind === 'topics' ? 'topic' : 'group'} \`${name}\` | ${services.map(([, grants]) => (grants[kind][name] ?? []).join(', ')).join(' | ')} |`);
  return [`| under \`<prefix>.\` | ${services.map(([name]) => name).join(' | ')} |`, `|---|${services.map(() => '---|').join('')}`, ...rows('topics'), ...rows('groups')].join('\n');
}

function between(path: string, table: string, name = 'config', text = readFileSync(join(root, path), 'utf8')): string {
  const start = `<!-- ${name}:start -->`;
  const end = `<!-- ${name}:end -->`;
  const from = text.indexOf(start);
  const to = text.indexOf(end);
  if (from < 0 || to < from) throw new Error(`${path} has no ${start} … ${end}`);
  return `${text.slice(0, from + start.length)}\n${table}\n${text.slice(to)}`;
}

async function wanted(): Promise<Map<string, string>> {
  const faults = 'docs/faults.md';
  const performance = 'docs/performance.md';
  const files = new Map<string, string>([
    ...openApiDocuments(),
    ['docs/errors.md', errorsPage()], [faults, between(faults, mutantsTable(), 'mutants', between(faults, chaosTable(), 'chaos'))],
    [performance, between(performance, machineLines(), 'machine', between(performance, limitsTable(), 'limits'))], ['docs/scaling.md', between('docs/scaling.md', scalingTables(), 'scaling')], ['README.md', between('README.md', ratiosTable(), 'bench')],
    ['cli/README.md', between('cli/README.md', configTable({ ...cliOptions, ...brokerOptions, ...vaultOptions }))], ['docs/metrics.md', between('docs/metrics.md', metricsTable(), 'metrics')], ['docs/operate.md', between('docs/operate.md', aclsTable(), 'acls', between('docs/operate.md', rolesTable(), 'roles'))],
  ]);
  for (const service of readdirSync(join(root, 'services')).sort()) {
    const config = join(root, 'services', service, 'config.ts');
    if (!existsSync(config)) continue;
    const { options } = (await import(config)) as { options: ConfigSchema };
    const path = `services/${service}/README.md`;
    files.set(path, between(path, configTable(options)));
  }
  for (const { manifest } of registry.values()) {
    const path = `adapters/${manifest.name}/README.md`;
    const tables = [manifest.source?.config, manifest.destination?.config].filter((s) => s !== undefined).map(adapterTable);
    files.set(path, between(path, tables.join('\n\n')));
  }
  return files;
}

/** Paths whose content is not what the code says. */
export async function stale(): Promise<string[]> {
  const found: string[] = [];
  for (const [path, content] of await wanted()) if (!existsSync(join(root, path)) || readFileSync(join(root, path), 'utf8') !== content) found.push(path);
  return found;
}

if (import.meta.main) {
  const list = await stale();
  if (process.argv.includes('--check')) {
    for (const path of list) console.error(`${path} is out of date: npm run generate`);
    process.exitCode = list.length > 0 ? 1 : 0;
  } else for (const [path, content] of await wanted()) if (list.includes(path)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
}
