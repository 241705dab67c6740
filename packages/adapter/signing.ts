import { createHmac, timingSafeEqual } from 'node:crypto';

/** Compares without an oracle in time; different lengths are unequal. */
export function safeEqual(a: Buffer, b: Buffer): boolean {
  return a.length === b.length && timingSafeEqual(a, b);
}

export function hmac(algorithm: 'sha1' | 'sha256', key: string | Buffer, ...parts: readonly (string | Buffer)[]): Buffer {
  const mac = createHmac(algorithm, key);
  for (const part of parts) mac.update(part);
  return mac.digest();
}

/** A header value may hold no control characters. Refuses rather than strips: a changed id would be another id. */
export function isHeaderSafe(value: string): boolean {
  return !/[\u0000-\u001f\u007f]|[^\u0000-\u00ff]/.test(value);
}
