import type { IncomingMessage } from 'node:http';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { WeirError } from '@weir/errors';

/** A body may be at most this many times its compressed size (and always at least `floor` bytes). */
const maxRatio = 100;
const floor = 64 * 1024;

/**
 * The body, content-decoded, within `maxBytes`; both caps are held while streaming, so a bomb costs its
 * compressed bytes and one chunk. Rejects with body-too-large, encoding-unsupported or body-malformed.
 */
export function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  const encoding = (request.headers['content-encoding'] ?? 'identity').trim().toLowerCase();
  if (Number(request.headers['content-length'] ?? 0) > maxBytes) return Promise.reject(new WeirError('body-too-large'));
  const decoder = encoding === 'identity' || encoding === '' ? undefined : encoding === 'gzip' || encoding === 'x-gzip' ? createGunzip() : encoding === 'deflate' ? createInflate() : encoding === 'br' ? createBrotliDecompress() : null;
  if (decoder === null) return Promise.reject(new WeirError('encoding-unsupported'));
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let received = 0;
    let size = 0;
    const fail = (error: WeirError): void => {
      request.pause();
      request.removeAllListeners('data');
      decoder?.destroy();
      reject(error);
    };
    const take = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > maxBytes || (decoder !== undefined && size > Math.max(floor, received * maxRatio))) return fail(new WeirError('body-too-large'));
      chunks.push(chunk);
    };
    const end = (): void => resolve(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks));
    request.on('error', () => reject(new WeirError('body-malformed', 'the request was cut')));
    request.on('aborted', () => reject(new WeirError('body-malformed', 'the request was cut')));
    if (decoder === undefined) {
      request.on('data', take);
      request.on('end', end);
      return;
    }
    decoder.on('data', take);
    decoder.on('end', end);
    decoder.on('error', () => fail(new WeirError('body-malformed', `not ${encoding}`)));
    request.on('data', (chunk: Buffer) => {
      received += chunk.length;
      if (received > maxBytes) return fail(new WeirError('body-too-large'));
      if (!decoder.write(chunk)) {
        request.pause();
        decoder.once('drain', () => request.resume());
      }
    });
    request.on('end', () => decoder.end());
  });
}
