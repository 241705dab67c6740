import type { Json, JsonObject } from '@weir/adapter';

/** Values that a template may name: `record.email`, `key`, `event_id`, `output_id`, `accepted_at`, `operation`. */
export type Scope = JsonObject;
export type Template = (scope: Scope) => Json | undefined;

const placeholder = /\{\{\s*([a-zA-Z_][a-zA-Z0-9_]*(?:\.[a-zA-Z_][a-zA-Z0-9_]*)*)\s*\}\}/g;

function read(path: readonly string[], scope: Scope): Json | undefined {
  let value: Json | undefined = scope;
  for (const key of path) {
    if (value === null || typeof value !== 'object' || Array.isArray(value) || !Object.hasOwn(value, key)) return undefined;
    value = value[key];
  }
  return value ?? undefined;
}

function compileText(text: string, fail: (message: string) => never): Template {
  if (text.replaceAll(placeholder, '').includes('{{')) fail(`a placeholder is {{ path }}: ${JSON.stringify(text.slice(0, 80))}`);
  const parts: (string | string[])[] = [];
  let last = 0;
  for (const match of text.matchAll(placeholder)) {
    if (match.index > last) parts.push(text.slice(last, match.index));
    parts.push(match[1]!.split('.'));
    last = match.index + match[0].length;
  }
  if (last < text.length) parts.push(text.slice(last));
  if (parts.every((p) => typeof p === 'string')) return () => text;
  // A placeholder that is the whole text keeps the type of its value.
  if (parts.length === 1) return (scope) => read(parts[0] as string[], scope);
  return (scope) => parts.map((p) => (typeof p === 'string' ? p : toText(read(p, scope)))).join('');
}

function toText(value: Json | undefined): string {
  return value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);
}

/** Text, list or table with placeholders; a table leaves out keys whose value is absent. No logic, no loops. */
export function compileTemplate(value: Json, fail: (message: string) => never): Template {
  if (typeof value === 'string') return compileText(value, fail);
  if (Array.isArray(value)) {
    const items = value.map((v) => compileTemplate(v, fail));
    return (scope) => items.map((t) => t(scope)).filter((v) => v !== undefined) as Json[];
  }
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).map(([key, v]) => [key, compileTemplate(v, fail)] as const);
    return (scope) => {
      const out: JsonObject = Object.create(null) as JsonObject;
      for (const [key, template] of entries) {
        const made = template(scope);
        if (made !== undefined) out[key] = made;
      }
      return out;
    };
  }
  return () => value;
}
