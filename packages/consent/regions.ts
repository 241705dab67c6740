import { recordFault } from '@weir/errors';
import type { Serde } from '@weir/log';

/** Where a record said that a person is. */
export interface KnownRegion {
  /** ISO 3166 code; '' = a record said so that nobody can read now: not known, which closes. */
  readonly code: string;
  /** When that record was accepted, ms since the epoch. */
  readonly at: number;
}

export const personRegion = 'weir.internal.PersonRegion';
const mark = '@';

/** Key on weir.identity of where a person is, by this keyed identifier. */
export const regionKey = (id: string): string => mark + id;

/** The identifier of such a key; undefined = it is another's. */
export function regionOwner(key: string): string | undefined {
  return key.startsWith(mark) && key.length > 1 && !key.includes('~') ? key.slice(1) : undefined;
}

const unreadable: KnownRegion = { code: '', at: 0 };
const code = /^[A-Z]{2}(?:-[A-Z0-9]{1,3})?$/;

/** What a record of weir.identity says about where a person is. */
export function regionValue(serde: Pick<Serde, 'decode'>, value: Buffer): KnownRegion {
  try {
    const { name, value: found } = serde.decode(value);
    const { region, at } = found as { readonly region: unknown; readonly at: unknown };
    const time = Number(at);
    return name === personRegion && typeof region === 'string' && code.test(region) && Number.isSafeInteger(time) && time >= 0 ? { code: region, at: time } : unreadable;
  } catch (error) {
    if (recordFault(error) === undefined) throw error;
    return unreadable;
  }
}
