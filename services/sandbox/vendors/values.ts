import { hash } from 'node:crypto';

/** Own properties of an object that came as JSON; anything else gives none. */
export function own(value: unknown, ...path: readonly string[]): unknown {
  let at = value;
  for (const key of path) {
    if (at === null || typeof at !== 'object' || !Object.hasOwn(at, key)) return undefined;
    at = (at as Record<string, unknown>)[key];
  }
  return at;
}

export function text(value: unknown): string | undefined {
  if (typeof value === 'string' && value !== '') return value;
  return typeof value === 'number' ? String(value) : undefined;
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return value !== null && typeof value === 'object' && !Array.isArray(value);
}

/** 128 bits of SHA-256 over the parts, base64url: keys of the state stay short whatever is sent. */
export function digest(...parts: readonly unknown[]): string {
  return hash('sha256', JSON.stringify(parts), 'base64url').slice(0, 22);
}

/** JSON with sorted keys: equal values give equal text. */
export function canonical(value: unknown): string {
  return JSON.stringify(value, (_key, child: unknown) => (isObject(child) ? Object.fromEntries(Object.entries(child).sort(([a], [b]) => (a < b ? -1 : 1))) : child));
}

const subjectKeys = [['email'], ['external_id', 'externalId', 'userId', 'user_id'], ['phone', 'phone_number', 'phoneNumber'], ['anonymousId', 'anonymous_id']] as const;
const maxNodes = 500;
const maxDepth = 6;

/** The identifier a body is about: an e-mail anywhere in it, else an external or user id, phone, anonymous id; nearest to the top first. */
export function subjectOf(body: unknown): string | null {
  const found: (string | undefined)[] = [];
  let level: unknown[] = [body];
  let nodes = 0;
  for (let depth = 0; depth < maxDepth && level.length > 0 && found[0] === undefined; depth++) {
    const next: unknown[] = [];
    for (const node of level) {
      if (node === null || typeof node !== 'object' || ++nodes > maxNodes) continue;
      if (!Array.isArray(node)) for (const [i, names] of subjectKeys.entries()) for (const name of names) found[i] ??= text(own(node, name));
      next.push(...Object.values(node).slice(0, maxNodes));
    }
    level = next;
  }
  return found.find((value) => value !== undefined) ?? null;
}
