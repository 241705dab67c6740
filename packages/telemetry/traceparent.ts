import { randomFillSync } from 'node:crypto';

const pattern = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$/;

/** Trace id of a W3C traceparent (https://www.w3.org/TR/trace-context/#traceparent-header); undefined when it is not valid. */
export function parseTraceparent(text: string | undefined): { readonly traceId: string; readonly parentId: string; readonly flags: string } | undefined {
  if (text === undefined || text.length !== 55) return undefined;
  const match = pattern.exec(text);
  if (match === null || match[1] === 'ff' || /^0+$/.test(match[2]!) || /^0+$/.test(match[3]!)) return undefined;
  return { traceId: match[2]!, parentId: match[3]!, flags: match[4]! };
}

/** Random bytes are drawn many at a time: a call of the generator costs more than all else here. */
const pool = Buffer.alloc(8192);
let drawn = pool.length;

function randomHex(bytes: number): string {
  if (drawn + bytes > pool.length) {
    randomFillSync(pool);
    drawn = 0;
  }
  drawn += bytes;
  return pool.toString('hex', drawn - bytes, drawn);
}

/** A new root, sampled. */
export function newTraceparent(): string {
  return `00-${randomHex(16)}-${randomHex(8)}-01`;
}

/** The same trace with a new parent id; a new root when the given one is not valid. */
export function childTraceparent(parent: string | undefined): string {
  const known = parseTraceparent(parent);
  return known === undefined ? newTraceparent() : `00-${known.traceId}-${randomHex(8)}-${known.flags}`;
}

export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35);
}
