/**
 * Checks an Avro datum against its writer schema before an object is made of it: bytes, items of arrays and
 * maps, nesting, union branches, and reserved map keys. avsc allocates what a datum claims (a 5-byte array of
 * nulls can claim 20 million items), so the claim is checked first.
 */
import { WeirError } from '@weir/errors';
import type { DecodeLimits } from './types.ts';

interface State {
  readonly buffer: Buffer;
  at: number;
  items: number;
  depth: number;
  readonly limits: DecodeLimits;
  /** Where each field of the outermost record ends, where it is asked for. */
  readonly ends: number[] | undefined;
}
type Walk = (s: State) => void;

const reserved = new Set(['__proto__', 'constructor', 'prototype']);

function refuse(message: string): never {
  throw new WeirError('avro-undecodable', message);
}

function varint(s: State): number {
  if (s.at >= s.buffer.length) refuse('datum is truncated');
  const first = s.buffer[s.at++]!;
  // Nearly all there are.
  return first < 128 ? (first >>> 1) ^ -(first & 1) : longVarint(s, first);
}

function longVarint(s: State, first: number): number {
  let value = first & 127;
  let scale = 128;
  for (let i = 1; i < 10; i++) {
    if (s.at >= s.buffer.length) refuse('datum is truncated');
    const byte = s.buffer[s.at++]!;
    value += (byte & 127) * scale;
    if (byte < 128) return value > 2 * Number.MAX_SAFE_INTEGER ? Number.POSITIVE_INFINITY : value % 2 === 1 ? -(value + 1) / 2 : value / 2;
    scale *= 128;
  }
  refuse('number is too long');
}

function skip(s: State, bytes: number): void {
  if (!(bytes >= 0 && bytes <= s.buffer.length - s.at)) refuse('length goes past the end of the datum');
  s.at += bytes;
}

function blocks(s: State, item: (s: State) => void): void {
  for (;;) {
    let count = varint(s);
    if (count === 0) return;
    if (count < 0) {
      count = -count;
      const size = varint(s);
      if (size < 0 || size > s.buffer.length - s.at) refuse('block size goes past the end of the datum');
    }
    s.items += count;
    if (!(s.items <= s.limits.maxItems)) refuse(`more than ${s.limits.maxItems} items`);
    for (let i = 0; i < count; i++) item(s);
  }
}

/** Longs become numbers: one that a number cannot hold exactly is refused, not rounded; the two outermost that it can are refused by the decoder (avsc), too. */
function safe(s: State): void {
  if (!(Math.abs(varint(s)) < Number.MAX_SAFE_INTEGER)) refuse('a long is beyond 2^53');
}

const primitives: ReadonlyMap<string, Walk> = new Map<string, Walk>([
  ['null', () => {}],
  ['boolean', (s) => skip(s, 1)],
  ['int', safe],
  ['long', safe],
  ['float', (s) => skip(s, 4)],
  ['double', (s) => skip(s, 8)],
  ['bytes', (s) => skip(s, varint(s))],
  ['string', (s) => skip(s, varint(s))],
]);

/** Compile the walker of a writer schema; refuses schemas with reserved names. `ends` is given where each field of the (outermost) record ends. */
export function compileBounds(schema: unknown, limits: DecodeLimits): (datum: Buffer, ends?: number[]) => void {
  const named = new Map<string, Walk>();

  function compile(node: unknown, namespace: string): Walk {
    if (typeof node === 'string') {
      const known = primitives.get(node);
      if (known !== undefined) return known;
      const full = node.includes('.') || namespace === '' ? node : `${namespace}.${node}`;
      return (s) => (named.get(full) ?? named.get(node) ?? refuse(`type ${node} is not defined`))(s);
    }
    if (Array.isArray(node)) {
      const branches = node.map((b) => compile(b, namespace));
      return (s) => {
        const branch = branches[varint(s)];
        if (branch === undefined) refuse('union branch is out of range');
        branch(s);
      };
    }
    return compileComplex(node as Record<string, unknown>, namespace);
  }

  function compileComplex(node: Record<string, unknown>, outer: string): Walk {
    const namespace = typeof node['namespace'] === 'string' ? node['namespace'] : outer;
    const name = typeof node['name'] === 'string' ? node['name'] : '';
    const full = name.includes('.') || namespace === '' ? name : `${namespace}.${name}`;
    const define = (walk: Walk): Walk => {
      if (name !== '') named.set(full, walk);
      return walk;
    };
    switch (node['type']) {
      case 'record':
        return define(compileRecord(node, namespace));
      case 'enum': {
        const symbols = (node['symbols'] as unknown[]).length;
        return define((s) => {
          const index = varint(s);
          if (index < 0 || index >= symbols) refuse('enum index is out of range');
        });
      }
      case 'fixed': {
        const size = node['size'] as number;
        return define((s) => skip(s, size));
      }
      case 'array': {
        const item = compile(node['items'], namespace);
        return nested((s) => blocks(s, item));
      }
      case 'map': {
        const value = compile(node['values'], namespace);
        return nested((s) => blocks(s, (inner) => {
          const length = varint(inner);
          const from = inner.at;
          skip(inner, length);
          if (length <= 11 && reserved.has(inner.buffer.toString('utf8', from, inner.at))) refuse('map has a reserved key');
          value(inner);
        }));
      }
      default:
        return compile(node['type'], namespace);
    }
  }

  function compileRecord(node: Record<string, unknown>, namespace: string): Walk {
    const fields: Walk[] = [];
    for (const field of node['fields'] as Array<{ name: string; type: unknown }>) {
      if (reserved.has(field.name)) refuse(`schema has the reserved field ${field.name}`);
      fields.push(compile(field.type, namespace));
    }
    return nested((s) => {
      if (s.ends === undefined || s.depth > 1) for (let i = 0; i < fields.length; i++) fields[i]!(s);
      else {
        for (let i = 0; i < fields.length; i++) {
          fields[i]!(s);
          s.ends[i] = s.at;
        }
      }
    });
  }

  function nested(walk: Walk): Walk {
    return (s) => {
      if (++s.depth > s.limits.maxDepth) refuse(`nests deeper than ${s.limits.maxDepth}`);
      walk(s);
      s.depth--;
    };
  }

  const root = compile(schema, '');
  return (datum, ends) => {
    if (datum.length > limits.maxBytes) refuse(`datum of ${datum.length} bytes is over ${limits.maxBytes}`);
    const state: State = { buffer: datum, at: 0, items: 0, depth: 0, limits, ends };
    root(state);
    if (state.at !== datum.length) refuse('bytes after the end of the datum');
  };
}
