/**
 * Every schema against its own history: FULL_TRANSITIVE, as the registry has it (each version reads each other
 * one), a doc on every field, no reserved name. `--freeze` records the present version when it is new.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import avsc from 'avsc';
import { loadSchemas, type AvroRecord } from './index.ts';

const history = join(import.meta.dirname, 'history');
const reserved = new Set(['__proto__', 'constructor', 'prototype']);

export function versionsOf(name: string): AvroRecord[] {
  const dir = join(history, name);
  if (!existsSync(dir)) return [];
  return readdirSync(dir).filter((f) => f.endsWith('.avsc')).sort((a, b) => parseInt(a, 10) - parseInt(b, 10)).map((f) => JSON.parse(readFileSync(join(dir, f), 'utf8')) as AvroRecord);
}

/** Why `reader` cannot read what `writer` wrote; undefined when it can. */
export function incompatibility(reader: AvroRecord, writer: AvroRecord): string | undefined {
  try {
    avsc.Type.forSchema(reader as avsc.Schema).createResolver(avsc.Type.forSchema(writer as avsc.Schema));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/** Fields without a doc and names that are not allowed, at any depth. */
export function styleProblems(schema: unknown, path = ''): string[] {
  if (Array.isArray(schema)) return schema.flatMap((s) => styleProblems(s, path));
  if (schema === null || typeof schema !== 'object') return [];
  const node = schema as { type?: unknown; name?: string; doc?: string; fields?: { name: string; doc?: string; type: unknown }[]; items?: unknown; values?: unknown };
  const found: string[] = [];
  if (node.type === 'record') {
    if (!node.doc) found.push(`${path}${node.name ?? ''} has no doc`);
    for (const field of node.fields ?? []) {
      if (!field.doc) found.push(`${path}${node.name ?? ''}.${field.name} has no doc`);
      if (reserved.has(field.name)) found.push(`${path}${node.name ?? ''}.${field.name} is a reserved name`);
      found.push(...styleProblems(field.type, `${path}${node.name ?? ''}.${field.name}: `));
    }
    return found;
  }
  return [...styleProblems(node.items, path), ...styleProblems(node.values, path), ...(typeof node.type === 'object' ? styleProblems(node.type, path) : [])];
}

export function check(): string[] {
  const problems: string[] = [];
  for (const [name, schema] of loadSchemas()) {
    problems.push(...styleProblems(schema));
    const versions = versionsOf(name);
    if (versions.length === 0 || JSON.stringify(versions[versions.length - 1]) !== JSON.stringify(schema)) problems.push(`${name}: the present version is not in schemas/history: node schemas/check.ts --freeze`);
    versions.forEach((old, i) => {
      const backward = incompatibility(schema, old);
      const forward = incompatibility(old, schema);
      if (backward !== undefined) problems.push(`${name} cannot read version ${i + 1}: ${backward}`);
      if (forward !== undefined) problems.push(`${name} version ${i + 1} cannot read the present one: ${forward}`);
    });
  }
  return problems;
}

function freeze(): void {
  for (const [name, schema] of loadSchemas()) {
    const versions = versionsOf(name);
    if (versions.length > 0 && JSON.stringify(versions[versions.length - 1]) === JSON.stringify(schema)) continue;
    mkdirSync(join(history, name), { recursive: true });
    writeFileSync(join(history, name, `${versions.length + 1}.avsc`), `${JSON.stringify(schema, null, 2)}\n`);
  }
}

if (import.meta.main) {
  if (process.argv.includes('--freeze')) freeze();
  const problems = check();
  for (const problem of problems) console.error(problem);
  process.exitCode = problems.length > 0 ? 1 : 0;
}
