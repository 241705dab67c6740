import type { Json, JsonObject } from '@weir/adapter';

/** What paths are read from. `item` is the element when the output has `each`. */
export interface Roots {
  readonly root: Json;
  readonly item: Json;
  /** The element that `item` stands in, where `each` goes two lists deep. */
  readonly parent?: Json;
  readonly envelope: JsonObject | undefined;
  readonly meta: JsonObject;
  /** List elements that the item may still give, over all of its records. */
  readonly left: { elements: number };
}

export interface Path {
  readonly text: string;
  readonly root: 'root' | 'item' | 'parent' | 'envelope' | 'meta';
  readonly keys: readonly string[];
}

const part = /^(?:([A-Za-z0-9_$@-]+(?:[ /:][A-Za-z0-9_$@-]+)*)|\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\])/;

function unquote(text: string): string | undefined {
  try {
    return JSON.parse(`"${text}"`) as string;
  } catch {
    // No JSON escape: the caller reports that it is not a path.
    return undefined;
  }
}

/**
 * `a.b`, `a["total billed"]`, `a[0].b`; roots `$item`, `$parent`, `$envelope`, `$meta`, else the whole item.
 * Undefined when it is not a path.
 */
export function parsePath(text: string): Path | undefined {
  const keys: string[] = [];
  let rest = text;
  while (rest !== '') {
    const match = part.exec(rest);
    if (match === null) return undefined;
    const key = match[1] ?? (match[2] !== undefined ? unquote(match[2]) : match[3]);
    if (key === undefined) return undefined;
    keys.push(key);
    rest = rest.slice(match[0].length);
    if (rest.startsWith('.')) {
      rest = rest.slice(1);
      if (rest === '') return undefined;
    } else if (rest !== '' && !rest.startsWith('[')) return undefined;
  }
  if (keys.length === 0 || keys.length > 16 || keys.some((k) => k === '__proto__' || k === 'constructor' || k === 'prototype')) return undefined;
  const root = keys[0] === '$item' ? 'item' : keys[0] === '$parent' ? 'parent' : keys[0] === '$envelope' ? 'envelope' : keys[0] === '$meta' ? 'meta' : 'root';
  return { text, root, keys: root === 'root' ? keys : keys.slice(1) };
}

/** Own properties only; undefined where the path ends early; null counts as absent. */
export function readPath(path: Path, roots: Roots): Json | undefined {
  let value: Json | undefined = roots[path.root] ?? null;
  for (let i = 0; i < path.keys.length; i++) {
    if (value === null || typeof value !== 'object') return undefined;
    const key = path.keys[i]!;
    if (!Object.hasOwn(value, key)) return undefined;
    value = (value as JsonObject)[key];
  }
  return value === null ? undefined : value;
}

/** Which source fields a mapping consumed: a tree of keys, `*` = each element of an array; `true` = with everything below. */
export interface Consumed { [key: string]: Consumed | true }

export function consume(tree: Consumed, keys: readonly string[]): void {
  let node = tree;
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i]!;
    const child = node[key];
    if (child === true) return;
    if (i === keys.length - 1) node[key] = true;
    else node = node[key] = child ?? (Object.create(null) as Consumed);
  }
}

/** What is left of the value when the consumed fields are taken out; undefined when nothing is. Elements keep their places: null where nothing is left of one. */
export function leftover(value: Json, tree: Consumed): Json | undefined {
  if (value === null || typeof value !== 'object') return value;
  if (Array.isArray(value)) {
    const rest = value.map((element, i) => {
      const used = tree[i] ?? tree['*'];
      return used === true ? null : used === undefined ? element : (leftover(element, used) ?? null);
    });
    return rest.every((element) => element === null) ? undefined : rest;
  }
  let out: JsonObject | undefined;
  for (const key of Object.keys(value)) {
    const used = tree[key];
    if (used === true) continue;
    const rest = used === undefined ? value[key]! : leftover(value[key]!, used);
    if (rest === undefined) continue;
    out ??= Object.create(null) as JsonObject;
    out[key] = rest;
  }
  return out;
}

/** What is left of `room` characters after the least that JSON text of the value takes; below 0 = it does not fit. It leaves off there: no more is read than has room. */
function leftOf(value: Json, room: number): number {
  if (typeof value === 'string') return room - value.length - 2;
  if (value === null || typeof value !== 'object') return room - 1;
  let left = room - 2;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length && left >= 0; i++) left = leftOf(value[i]!, i === 0 ? left : left - 1);
    return left;
  }
  let begun = false;
  for (const key in value) {
    if (left < 0) break;
    left = leftOf(value[key]!, left - key.length - (begun ? 4 : 3));
    begun = true;
  }
  return left;
}

/** False where JSON text of the value surely has more than `max` characters; no more of it is read than that. */
export const fitsJson = (value: Json, max: number): boolean => leftOf(value, max) >= 0;

/** `"key":value` of at most `max` characters; undefined = it has more. */
function entryText(key: string, value: Json, max: number): string | undefined {
  if (leftOf(value, max - key.length - 3) < 0) return undefined;
  const text = `${JSON.stringify(key)}:${JSON.stringify(value)}`;
  return text.length <= max ? text : undefined;
}

/**
 * JSON text of a table, put together entry by entry, at most `max` characters: it keeps the entries that fit and counts the
 * others under `$omitted`. Nothing is written out that does not fit.
 */
export class ExtrasText {
  /** All entries so far; undefined = they do not fit together. */
  private whole: string | undefined = '';
  private kept = '';
  private omitted = 0;
  private room: number;
  private readonly max: number;

  constructor(max: number) {
    this.max = max;
    this.room = max - 32;
  }

  /** One that goes on by itself. */
  copy(): ExtrasText {
    const copy = new ExtrasText(this.max);
    [copy.whole, copy.kept, copy.omitted, copy.room] = [this.whole, this.kept, this.omitted, this.room];
    return copy;
  }

  /** Each key once. */
  add(key: string, value: Json): this {
    const left = this.whole === undefined ? -1 : this.max - 2 - this.whole.length - (this.whole === '' ? 0 : 1);
    const text = entryText(key, value, Math.max(left, this.room - 1));
    this.whole = this.whole === undefined || text === undefined || text.length > left ? undefined : joined(this.whole, text);
    if (text === undefined || text.length + 1 > this.room) this.omitted++;
    else {
      this.kept = joined(this.kept, text);
      this.room -= text.length + 1;
    }
    return this;
  }

  end(): string {
    return `{${this.whole ?? joined(this.kept, `"$omitted":${this.omitted}`)}}`;
  }
}

const joined = (texts: string, text: string): string => (texts === '' ? text : `${texts},${text}`);

/** JSON text of what is left over, at most `max` characters: it keeps the fields that fit and counts the others under `$omitted`. */
export function extrasText(rest: JsonObject, max: number): string {
  if (leftOf(rest, max) >= 0) {
    const whole = JSON.stringify(rest);
    if (whole.length <= max) return whole;
  }
  const text = new ExtrasText(max);
  for (const key of Object.keys(rest)) text.add(key, rest[key]!);
  return text.end();
}
