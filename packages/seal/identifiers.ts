import { recordFault } from '@weir/errors';
import { fieldReader, type Serde } from '@weir/log';
import { isReadable, isSealed, seal, sealedBy, type SealKey } from './envelope.ts';
import type { KeyRing } from './key-ring.ts';

/** What vendors name people by, in the clear. */
export interface ClearIdentifiers {
  readonly userId: string | null;
  readonly email: string | null;
  readonly phone: string | null;
}

/** What a link says beside its key. */
export interface LinkValue {
  /** When the record that said so was accepted, ms since the epoch. */
  readonly at: number;
  /** A weir.internal.LinkedIdentifiers under the key of the subject of that record; null = none is kept. */
  readonly sealed: Buffer | null;
}

const name = 'weir.internal.LinkedIdentifiers';
const linkName = 'weir.internal.IdentityLink';
const types = ['userId', 'email', 'phone'] as const;

/** Identifiers as a link keeps them; null where there are none. The same ones under the same key give the same bytes. */
export function sealIdentifiers(serde: Pick<Serde, 'encode'>, key: SealKey, { userId, email, phone }: ClearIdentifiers): Buffer | null {
  return isText(userId) || isText(email) || isText(phone) ? seal(key, serde.encode(name, { userId, email, phone })) : null;
}

const isText = (value: unknown): boolean => typeof value === 'string' && value !== '';

/**
 * Gives the identifiers of a sealed record of this type for the links that it makes, under the key that the record is sealed
 * with. Null: it is not sealed, its key is destroyed, it has none, or nobody can read it.
 */
export function identifiersSealer(serde: Pick<Serde, 'idOf' | 'encode' | 'decode'>, keys: Pick<KeyRing, 'byId' | 'open'>): (recordName: string, record: Buffer) => Buffer | null {
  const readers = new Map<string, ReturnType<typeof fieldReader<ClearIdentifiers>>>();
  return (recordName, record) => {
    if (!isSealed(record)) return null;
    try {
      const plain = keys.open(record);
      const key = keys.byId(sealedBy(record));
      if (plain === undefined || key === undefined) return null;
      let read = readers.get(recordName);
      if (read === undefined) readers.set(recordName, read = fieldReader<ClearIdentifiers>(recordName, types));
      const found = read(serde, plain);
      return found === undefined ? null : sealIdentifiers(serde, key, found);
    } catch (error) {
      if (recordFault(error) === undefined) throw error;
      return null;
    }
  };
}

const readLink = fieldReader<LinkValue>(linkName, ['at', 'sealed']);

/** What a value of weir.identity says. Undefined: it is none that this version can read now; its key says who is linked all the same. */
export function linkValue(serde: Pick<Serde, 'idOf' | 'decode' | 'known'>, value: Buffer | null): LinkValue | undefined {
  if (!isReadable(value) || isSealed(value) || !serde.known(value)) return undefined;
  try {
    const found = readLink(serde, value);
    return found === undefined ? undefined : { at: Number(found.at), sealed: found.sealed ?? null };
  } catch (error) {
    if (recordFault(error) === undefined) throw error;
    return undefined;
  }
}

const readSource = fieldReader<{ readonly source: string }>(linkName, ['source']);

/** The source that said a link; undefined: as for `linkValue`. */
export function linkSource(serde: Pick<Serde, 'idOf' | 'decode' | 'known'>, value: Buffer | null): string | undefined {
  if (!isReadable(value) || isSealed(value) || !serde.known(value)) return undefined;
  try {
    return readSource(serde, value)?.source;
  } catch (error) {
    if (recordFault(error) === undefined) throw error;
    return undefined;
  }
}

/** The identifiers that a link keeps; undefined: their key is destroyed or not read yet, or nobody can read them. @param serde one that opens what is sealed */
export function openIdentifiers(serde: Pick<Serde, 'decode'>, sealed: Buffer): ClearIdentifiers | undefined {
  try {
    const decoded = serde.decode(sealed);
    return decoded.name === name ? decoded.value as ClearIdentifiers : undefined;
  } catch (error) {
    if (recordFault(error) === undefined) throw error;
    return undefined;
  }
}
