import type { IncomingMessage } from 'node:http';
import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readBody } from './body.ts';

const encoders = { identity: (b: Buffer) => b, gzip: (b: Buffer) => gzipSync(b), deflate: (b: Buffer) => deflateSync(b), br: (b: Buffer) => brotliCompressSync(b) } as const;

function requestOf(bytes: Buffer, encoding: string, cuts: readonly number[]): IncomingMessage {
  const stream = new PassThrough();
  let at = 0;
  for (const cut of [...new Set(cuts.map((c) => c % (bytes.length + 1)))].sort((a, b) => a - b)) {
    stream.write(bytes.subarray(at, cut));
    at = cut;
  }
  stream.end(bytes.subarray(at));
  return Object.assign(stream, { headers: { 'content-encoding': encoding } }) as unknown as IncomingMessage;
}

test('a body is the same bytes however it is cut and packed, and what it takes was held before: its bytes, at most twice as many or 4 KiB', async () => {
  await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), fc.constantFrom(...Object.keys(encoders) as (keyof typeof encoders)[]), fc.array(fc.nat(), { maxLength: 8 }), async (bytes, encoding, cuts) => {
    let held = 0;
    const body = await readBody(requestOf(encoders[encoding](Buffer.from(bytes)), encoding, cuts), 5000, (n) => { held += n; });
    expect(body.equals(bytes)).toBe(true);
    expect(held).toBeGreaterThanOrEqual(bytes.length);
    expect(held).toBeLessThanOrEqual(Math.max(4096, 2 * bytes.length));
  }));
});

test('the limit is exact, packed or not: the last byte allowed is taken, one more is refused', async () => {
  const body = Buffer.alloc(1000, 'ab');
  for (const encoding of Object.keys(encoders) as (keyof typeof encoders)[]) {
    expect((await readBody(requestOf(encoders[encoding](body), encoding, [7]), 1000, () => {})).length).toBe(1000);
    await expect(readBody(requestOf(encoders[encoding](body), encoding, [7]), 999, () => {})).rejects.toMatchObject({ code: 'body-too-large' });
  }
});

test('a bomb is not unpacked further than its limit', async () => {
  for (const encoding of ['gzip', 'deflate', 'br'] as const) {
    let held = 0;
    await expect(readBody(requestOf(encoders[encoding](Buffer.alloc(50_000_000)), encoding, []), 500_000, (n) => { held += n; })).rejects.toMatchObject({ code: 'body-too-large' });
    expect(held).toBeLessThanOrEqual(500_000);
  }
});

test('a body that comes byte by byte takes no more memory than is held for it', async () => {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc') as () => void;
  const used = (): number => {
    collect();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external;
  };
  const request = Object.assign(new EventEmitter(), { headers: {}, pause: () => undefined });
  let held = 0;
  const before = used();
  const body = readBody(request as unknown as IncomingMessage, 2_097_152, (n) => { held += n; });
  for (let i = 0; i < 1_000_000; i++) request.emit('data', Buffer.from([i % 251]));
  // An object for each would be some 120 MB; what else the process does meanwhile is a few.
  expect(used() - before).toBeLessThan(held + 30_000_000);
  request.emit('end');
  const bytes = await body;
  expect([bytes.length, bytes[999_999], held]).toEqual([1_000_000, 999_999 % 251, expect.any(Number)]);
});

test('what the holder throws ends the reading, and the sender is not read on', async () => {
  const request = requestOf(Buffer.alloc(100_000), 'identity', [10]);
  await expect(readBody(request, 200_000, () => { throw new Error('full'); })).rejects.toThrow('full');
  expect(request.isPaused()).toBe(true);
});
