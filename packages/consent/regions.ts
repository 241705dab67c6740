import { recordFault } from '@weir/errors';
import type { Serde } from '@weir/log';

/** Where records said that a person is. */
export interface KnownRegion {
  /**
   * ISO 3166 code that a source said last which may move people, with what others have added since (`DE+US`; `+US` where only
   * such have said something; an empty one at the end: too many were added, or one that is no code). `regionsIn` takes it apart. '' = what
   * was said is no code, or a record said so that nobody can read now: not known, which closes.
   */
  readonly code: string;
  /** When the record that said the first one was accepted, ms since the epoch. */
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
const iso = '[A-Z]{2}(?:-[A-Z0-9]{1,3})?';
const plus = '+';
/** Of different codes that sources may add which move nobody: past it where the person is counts as not known, so that nobody fills the list before the true one comes. */
const maxAdded = 8;
const code = new RegExp(`^(?:${iso})?(?:\\+${iso}){0,${maxAdded}}\\+?$`);

/** ISO codes of all regions that hold, at least one; '' among them = not known, which closes. */
export function regionsIn(text: string): readonly string[] {
  if (!text.includes(plus)) return [text];
  return text.slice(text.startsWith(plus) ? 1 : 0).split(plus);
}

/** What is known once a source has said it that may move people: it takes the place of all that was said before it. Undefined = what it was. */
export function movedTo(known: KnownRegion | undefined, region: string, at: number): KnownRegion | undefined {
  if (known !== undefined && (known.code === region || (known.at > at && !known.code.startsWith(plus)))) return undefined;
  return { code: region, at };
}

/** What is known once a source has said it that may not: it stands beside what was said. Undefined = what it was. */
export function addedTo(known: KnownRegion | undefined, region: string, at: number): KnownRegion | undefined {
  if (known === undefined) return { code: plus + region, at };
  const codes = regionsIn(known.code);
  if (codes.includes(region) || codes.includes('') || (known.at > at && !known.code.startsWith(plus))) return undefined;
  const added = codes.length - (known.code.startsWith(plus) ? 0 : 1);
  return { code: known.code + plus + (added < maxAdded ? region : ''), at: known.at };
}

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
