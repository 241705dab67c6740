import { WeirError } from '@weir/errors';
import type { Json, JsonObject } from './types.ts';

/** Values that a template may name, by the first word of the placeholder. */
export type Scope = JsonObject;
export type Template = (scope: Scope) => Json | undefined;

export interface TemplateContext {
  /** First words that exist; anything else is a mistake of the writer. */
  readonly roots: readonly string[];
  fail(message: string): never;
}

const placeholder = /\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*(?:\.[a-zA-Z_][a-zA-Z0-9_]*)*)\s*\}\}/g;

type Part = string | readonly string[];

function read(path: readonly string[], scope: Scope): Json | undefined {
  let value: Json | undefined = scope;
  for (const key of path) {
    if (value === null || typeof value !== 'object' || Array.isArray(value) || !Object.hasOwn(value, key)) return undefined;
    value = value[key];
  }
  return value ?? undefined;
}

function toText(value: Json | undefined): string {
  return value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function partsOf(text: string, context: TemplateContext): Part[] {
  if (text.replaceAll(placeholder, '').includes('{{')) context.fail(`a placeholder is {{ path }}: ${JSON.stringify(text.slice(0, 80))}`);
  const parts: Part[] = [];
  let last = 0;
  for (const match of text.matchAll(placeholder)) {
    const path = match[1]!.split('.');
    if (!context.roots.includes(path[0]!)) context.fail(`${match[0]}: use one of ${context.roots.join(', ')}`);
    if (match.index > last) parts.push(text.slice(last, match.index));
    parts.push(path);
    last = match.index + match[0].length;
  }
  if (last < text.length) parts.push(text.slice(last));
  return parts;
}

function compileText(text: string, context: TemplateContext): Template {
  const parts = partsOf(text, context);
  if (parts.every((p) => typeof p === 'string')) return () => text;
  // A placeholder that is the whole text keeps the type of its value.
  if (parts.length === 1) return (scope) => read(parts[0] as string[], scope);
  return (scope) => parts.map((p) => (typeof p === 'string' ? p : toText(read(p, scope)))).join('');
}

/** Text, list or table with `{{ path }}` placeholders; a table leaves out keys whose value is absent, a list its absent elements. No logic, no loops. */
export function compileTemplate(value: Json, context: TemplateContext): Template {
  if (typeof value === 'string') return compileText(value, context);
  if (Array.isArray(value)) {
    const items = value.map((v) => compileTemplate(v, context));
    return (scope) => items.map((t) => t(scope)).filter((v) => v !== undefined) as Json[];
  }
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).map(([key, v]) => [key, compileTemplate(v, context)] as const);
    return (scope) => {
      // One with a prototype has a shape, which costs less to fill and to write; a key of that name is none of its own.
      const out: JsonObject = Object.hasOwn(value, '__proto__') ? Object.create(null) as JsonObject : {};
      for (let i = 0; i < entries.length; i++) {
        const made = entries[i]![1](scope);
        if (made !== undefined) out[entries[i]![0]] = made;
      }
      return out;
    };
  }
  return () => value;
}

/**
 * A path and query with placeholders. Values are percent-encoded, and one that would leave its place is refused: absent
 * or empty in the path (another resource than the one meant), `.` or `..` as a whole segment. Throws delivery-unbuildable.
 */
export function compileUrlTemplate(text: string, context: TemplateContext): (scope: Scope) => string {
  const parts = partsOf(text, context);
  const queryAt = parts.findIndex((p) => typeof p === 'string' && p.includes('?'));
  const encode = (path: readonly string[], index: number, scope: Scope): string => {
    const value = toText(read(path, scope));
    const inPath = queryAt < 0 || index < queryAt;
    if (inPath && value === '') throw new WeirError('delivery-unbuildable', `the path needs ${path.join('.')}`);
    if (!value.isWellFormed()) throw new WeirError('delivery-unbuildable', `${path.join('.')} is not valid text`);
    return encodeURIComponent(value);
  };
  return (scope) => {
    const url = parts.map((p, i) => (typeof p === 'string' ? p : encode(p, i, scope))).join('');
    if (url.split('?', 1)[0]!.split('/').some((segment) => segment === '.' || segment === '..')) throw new WeirError('delivery-unbuildable', 'a value would lead out of the path');
    return url;
  };
}
