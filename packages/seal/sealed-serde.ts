import { findWeirError, WeirError } from '@weir/errors';
import type { Serde } from '@weir/log';
import { isSealed } from './envelope.ts';
import type { KeyRing } from './key-ring.ts';

/**
 * A serde that also reads sealed values: opened under the key they name, then decoded. `decode` throws subject-erased when
 * that key is destroyed; `known` is false while the key or the schema is not here, and `prepare` waits until the ring has
 * what its topic holds, and for the schema. Encoding is as before: what is written is sealed by who writes it.
 */
export function sealedSerde(serde: Serde, ring: Pick<KeyRing, 'open' | 'readToEnd'>): Serde {
  /** Bytes that somebody changed are there to be decoded, and refused then: who only asks is not the one to stop for it. */
  function look(bytes: Buffer): Buffer | undefined | 'changed' {
    try {
      return ring.open(bytes);
    } catch (error) {
      if (findWeirError(error)?.code === 'avro-undecodable') return 'changed';
      throw error;
    }
  }

  function opened(bytes: Buffer): Buffer {
    const plain = ring.open(bytes);
    if (plain === undefined) throw new WeirError('subject-erased');
    return plain;
  }

  return {
    start: () => serde.start(),
    idOf: (name) => serde.idOf(name),
    encode: (name, value) => serde.encode(name, value),
    encodeTo: (name, value, sink) => serde.encodeTo(name, value, sink),
    decode: (bytes) => serde.decode(opened(bytes)),
    check: (bytes) => serde.check(opened(bytes)),
    known(bytes) {
      const opened = look(bytes);
      return opened === 'changed' || (opened !== undefined && serde.known(opened));
    },
    async prepare(bytes) {
      if (!isSealed(bytes)) return serde.prepare(bytes);
      if (look(bytes) === undefined) await ring.readToEnd();
      const opened = look(bytes);
      // Destroyed or changed: decode says so.
      if (opened !== undefined && opened !== 'changed' && !serde.known(opened)) await serde.prepare(opened);
    },
  };
}
