/**
 * Imports point one way (docs/architecture.md, Layout). The allow-list is empty and stays so: a rule that does
 * not fit is changed here, in the open.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/** Layers from the bottom; a unit may import units of lower layers only (and units named in `also`). */
const layers: readonly (readonly string[])[] = [
  ['packages/errors', 'packages/durable', 'schemas'],
  ['packages/config'],
  ['packages/telemetry', 'packages/yaml', 'packages/cel', 'packages/vault', 'packages/failpoint'],
  ['packages/adapter'],
  ['packages/log', 'packages/http'],
  ['packages/state', 'packages/pipeline', 'packages/audit'],
  ['packages/mapping', 'packages/policy', 'packages/seal'],
  ['packages/consent', 'packages/release'],
  ['packages/service', 'packages/testing'],
  ['adapters'],
  ['services', 'cli', 'scripts', 'infra', 'bench', 'tests'],
];
const level = new Map(layers.flatMap((units, i) => units.map((unit) => [unit, i] as const)));
const kafkaClients = new Set(['kafkajs', '@platformatic/kafka', '@kafkajs/confluent-schema-registry']);

export interface Violation {
  readonly file: string;
  readonly message: string;
}

function unitOf(path: string): string {
  const [top, second] = path.split('/');
  return top === 'packages' ? `packages/${second}` : top!;
}

/** Violations of one file, given its path in the repository and its text. */
export function checkFile(path: string, text: string): Violation[] {
  const found: Violation[] = [];
  const report = (message: string): void => { found.push({ file: path, message }); };
  const unit = unitOf(path);
  const isTest = path.includes('.test.') || path.startsWith('tests/') || path === 'vitest.config.ts';
  for (const match of text.matchAll(/(?:^|\n)\s*(?:import|export)\s[^'"`;]*?from\s+['"]([^'"]+)['"]|import\(\s*['"]([^'"]+)['"]\s*\)|(?:^|\n)\s*import\s+['"]([^'"]+)['"]/g)) {
    const spec = match[1] ?? match[2] ?? match[3]!;
    if (kafkaClients.has(spec) && unit !== 'packages/log' && path !== 'bench/parties/bare-loop.ts') report(`imports ${spec}: only packages/log may, and the benchmark that measures against it`);
    const target = spec.startsWith('@weir/') ? targetOf(spec.slice(6)) : spec.startsWith('.') ? relative(root, resolve(root, dirname(path), spec)) : undefined;
    if (target === undefined) continue;
    if (spec.startsWith('.') && !/\.(ts|mjs|json)$/.test(spec)) report(`imports ${spec} without its extension`);
    checkTarget(path, unit, unitOf(target), target, isTest, report);
  }
  const mayReadEnv = /^(packages\/config|infra|scripts|tests|bench|cli)\//.test(path) || isTest || path === 'packages/service/run.ts' || path.startsWith('packages/testing/');
  if (!mayReadEnv && /\bprocess\.env\b/.test(text)) report('reads process.env: only packages/config and composition roots may');
  return found;
}

function targetOf(name: string): string {
  return name === 'adapters' || name === 'schemas' || name === 'cli' ? name : `packages/${name}`;
}

function checkTarget(path: string, unit: string, targetUnit: string, target: string, isTest: boolean, report: (message: string) => void): void {
  if (unit === 'adapters' && targetUnit === 'adapters') {
    const [, tool] = path.split('/');
    const [, other] = target.split('/');
    const inFolder = path.split('/').length > 2;
    if (inFolder && tool !== other && !isTest) report(`adapter ${tool} imports ${target}: adapters do not know each other`);
    return;
  }
  if (unit === 'services' && targetUnit === 'services' && path.split('/')[1] !== target.split('/')[1]) return report(`imports ${target}: no service knows another`);
  if (unit === targetUnit) return;
  if (unit === 'adapters' && !isTest && !['packages/adapter', 'packages/errors'].includes(targetUnit)) return report(`imports ${target}: adapters import @weir/adapter and @weir/errors only`);
  if (isTest) return;
  const from = level.get(unit);
  const to = level.get(targetUnit);
  if (from === undefined || to === undefined) return report(`${from === undefined ? unit : targetUnit} has no layer in scripts/check-boundaries.ts`);
  const outer = ['scripts', 'tests', 'bench', 'infra'].includes(unit);
  if (to > from || (to === from && !outer)) report(`imports ${target}: ${targetUnit} is not below ${unit}`);
}

/** TypeScript files of the repository, without what is installed or generated. */
export function sources(dir = root): string[] {
  return readdirSync(dir, { withFileTypes: true }).flatMap((entry) => {
    if (entry.name === 'node_modules' || entry.name.startsWith('.')) return [];
    const path = join(dir, entry.name);
    if (entry.isDirectory()) return sources(path);
    return /\.(ts|mjs)$/.test(entry.name) ? [relative(root, path)] : [];
  });
}

export function checkBoundaries(): Violation[] {
  return sources().flatMap((path) => checkFile(path, readFileSync(join(root, path), 'utf8')));
}
