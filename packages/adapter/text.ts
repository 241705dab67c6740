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
