import type { IncomingMessage } from 'node:http';
import type { Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { WeirError } from '@weir/errors';

/** A body may be at most this many times its compressed size (and always at least `floor` bytes). */
const maxRatio = 100;
const floor = 64 * 1024;
/** How much of a refused body is still taken, so that its sender gets to read the answer (as nginx, lingering_close). */
const lingerBytes = 4 * 1024 * 1024;

const decoders: Readonly<Record<string, () => Transform>> = { 'gzip': createGunzip, 'x-gzip': createGunzip, 'deflate': createInflate, 'br': createBrotliDecompress };

/** Room of a body that comes in more than one chunk, at first. */
const firstRoom = 4096;

/**
 * Bytes that come in chunks. A lone chunk is kept as it is; more are copied into one buffer that doubles, because an object
 * for each would cost a hundred times the bytes of a sender who sends them one by one. `hold` is told of all room before
 * it is taken, so that what it was told of is what is really held.
 * @param whole how long the body will be, when that is known: the room is no larger
 */
function createGather(whole: number, hold: (bytes: number) => void): { add(chunk: Buffer): void; bytes(): Buffer } {
  let held: Buffer = Buffer.alloc(0);
  let size = 0;
  return {
    add(chunk) {
      const needed = size + chunk.length;
      if (size === 0) {
        hold(chunk.length);
        held = chunk;
      } else {
        if (needed > held.length) {
          const room = Math.max(needed, Math.min(Math.max(firstRoom, 2 * held.length), whole));
          hold(room - held.length);
          const larger = Buffer.allocUnsafeSlow(room);
          held.copy(larger, 0, 0, size);
          held = larger;
        }
        chunk.copy(held, size);
      }
      size = needed;
    },
    bytes: () => held.subarray(0, size),
  };
}

/** Content-Encoding of a request; undefined when it is none. */
export function encodingOf(request: IncomingMessage): string | undefined {
  const encoding = request.headers['content-encoding']?.trim().toLowerCase();
  return encoding === '' || encoding === 'identity' ? undefined : encoding;
}

/**
 * The body, content-decoded, within `maxBytes`; caps are held while streaming, so a bomb costs its compressed bytes
 * and one chunk. `hold` is told of all memory before it is taken, at most twice the bytes of the body (or 4 KiB), and may throw. Rejects with body-too-large,
 * encoding-unsupported, body-malformed, or what `hold` threw; what is left of the body is then still to be discarded.
 */
export function readBody(request: IncomingMessage, maxBytes: number, hold: (bytes: number) => void): Promise<Buffer> {
  const encoding = encodingOf(request);
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) return Promise.reject(new WeirError('body-too-large'));
  if (encoding !== undefined && !Object.hasOwn(decoders, encoding)) return Promise.reject(new WeirError('encoding-unsupported'));
  // It was cut before anybody looked: there will be no event any more.
  if (request.destroyed && !request.complete) return Promise.reject(new WeirError('body-malformed', 'the request was cut'));
  const decoder = encoding === undefined ? undefined : decoders[encoding]!();
  const length = Number(request.headers['content-length']);
  const gather = createGather(decoder === undefined && length > 0 ? Math.min(length, maxBytes) : maxBytes, hold);
  return new Promise((resolve, reject) => {
    let received = 0;
    let size = 0;

    const settle = (): void => {
      request.off('data', decoder === undefined ? keep : decode).off('end', decoder === undefined ? finish : flush).off('error', cut).off('close', cut);
      decoder?.destroy();
    };
    const fail = (error: unknown): void => {
      settle();
      request.pause();
      reject(error);
    };
    const finish = (): void => {
      settle();
      resolve(gather.bytes());
    };
    const cut = (): void => fail(new WeirError('body-malformed', 'the request was cut'));
    const keep = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > maxBytes || (decoder !== undefined && size > Math.max(floor, received * maxRatio))) return fail(new WeirError('body-too-large'));
      try {
        gather.add(chunk);
      } catch (error) {
        return fail(error);
      }
    };
    const decode = (chunk: Buffer): void => {
      received += chunk.length;
      if (received > maxBytes) return fail(new WeirError('body-too-large'));
      if (decoder!.write(chunk)) return;
      request.pause();
      decoder!.once('drain', () => request.resume());
    };
    const flush = (): void => {
      // The request is whole: that it closes now, before the decoder is through, is no cut.
      request.off('close', cut);
      decoder!.end();
    };

    request.on('error', cut).on('close', cut);
    if (decoder === undefined) {
      request.on('data', keep).on('end', finish);
      return;
    }
    decoder.on('data', keep).on('end', finish).on('error', () => fail(new WeirError('body-malformed', `not ${encoding}`)));
    request.on('data', decode).on('end', flush);
  });
}

/** Lets the rest of a refused body run out, up to a bound past which the connection is cut. Nothing of it is kept. */
export function discard(request: IncomingMessage): void {
  if (request.complete || request.destroyed) return;
  let left = lingerBytes;
  request.on('data', (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) request.destroy();
  });
  request.resume();
}
