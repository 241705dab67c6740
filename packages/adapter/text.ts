import { WeirError } from '@weir/errors';
import { RE2JS } from 're2js';
import type { Json, JsonObject } from './types.ts';

/** Own property as non-empty text; numbers become text. Undefined otherwise. */
export function textOf(object: Json | undefined, key: string): string | undefined {
  if (object === null || typeof object !== 'object' || Array.isArray(object) || !Object.hasOwn(object, key)) return undefined;
  const value = object[key];
  if (typeof value === 'string' && value !== '') return value;
  return typeof value === 'number' ? String(value) : undefined;
}

/** Own property as object. */
export function objectOf(object: Json | undefined, key: string): JsonObject | undefined {
  if (object === null || typeof object !== 'object' || Array.isArray(object) || !Object.hasOwn(object, key)) return undefined;
  const value = object[key];
  return value !== null && typeof value === 'object' && !Array.isArray(value) ? value : undefined;
}

/** What a dotted path may look like: `data.items`. A number is the position in a list. */
export const dottedPath = '^[A-Za-z0-9_$@-]{1,64}(\\.[A-Za-z0-9_$@-]{1,64}){0,15}$';

/** Value under a dotted path, by own properties; undefined where it ends early. */
export function valueAt(value: Json | undefined, path: string): Json | undefined {
  if (!path.includes('.')) return value !== null && typeof value === 'object' && Object.hasOwn(value, path) ? (value as JsonObject)[path] : undefined;
  for (const key of path.split('.')) {
    if (value === null || typeof value !== 'object' || !Object.hasOwn(value, key)) return undefined;
    value = (value as JsonObject)[key];
  }
  return value;
}

const units: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `30s`, `15m`, `2h`, `7d` in ms; undefined when it is none of them. */
export function durationMs(text: unknown): number | undefined {
  const match = typeof text === 'string' ? /^(\d{1,6})(s|m|h|d)$/.exec(text) : null;
  return match === null ? undefined : Number(match[1]) * units[match[2]!]!;
}

/** A regular expression in RE2 syntax, matched in linear time whatever the text. Throws workspace-invalid when it does not compile. */
export function compilePattern(pattern: string): { readonly test: (text: string) => boolean } {
  if (pattern.length > 500) throw new WeirError('workspace-invalid', 'a pattern has at most 500 characters');
  try {
    const compiled = RE2JS.compile(pattern);
    return { test: (text) => compiled.matcher(text).find() };
  } catch (error) {
    throw new WeirError('workspace-invalid', `the pattern ${JSON.stringify(pattern)} is not RE2`, { cause: error });
  }
}
