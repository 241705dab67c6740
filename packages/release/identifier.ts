import { WeirError } from '@weir/errors';
import { phoneNumber } from '@weir/mapping';
import { keyedId } from '@weir/pipeline';
import { identifiersOf } from './identity.ts';

/** An identifier that another system gave. */
export interface ExternalId {
  readonly type: string;
  readonly value: string;
}

/** Identifiers of a person as canonical records have them. */
export interface Identifiers {
  userId?: string;
  email?: string;
  phone?: string;
  anonymousId?: string;
  externalIds: ExternalId[];
}

/** Of what a person types, `<type>:<value>`. */
export const identifierTypes = ['userId', 'email', 'phone', 'anonymousId', 'external'] as const;

const isAddress = (text: string): boolean => /^[^\s@]{1,64}@[^\s@]{1,255}$/.test(text);

/**
 * What a person types, of every command and of the control API: `ada@larkspur.example`, `+49 30 901820`, or
 * `email:…`, `phone:+49…`, `userId:…`, `anonymousId:…`, `external:<type>:<value>`. Given back as mappings write them:
 * addresses in lower case, numbers in E.164. Throws bad-request, with what an identifier is and never the value.
 */
export function parseIdentifier(text: string): Identifiers {
  const [, given, rest] = /^([A-Za-z]{1,16}):(.{1,500})$/s.exec(text) ?? [];
  const bare = text.trim();
  const type = given ?? (isAddress(bare) ? 'email' : bare.startsWith('+') ? 'phone' : undefined);
  const value = given === undefined ? text : rest!;
  const bad = (): WeirError => new WeirError('bad-request', `an identifier is an e-mail address, a number with + and country code, or <type>:<value>, with a type of ${identifierTypes.join(', ')}; an external one is external:<type>:<value>`);
  if (type === undefined || !(identifierTypes as readonly string[]).includes(type) || value.trim() === '') throw bad();
  if (type === 'email') {
    const email = value.trim().toLowerCase();
    if (!isAddress(email)) throw bad();
    return { email, externalIds: [] };
  }
  if (type === 'phone') {
    const phone = phoneNumber(value);
    if (phone === undefined) throw new WeirError('bad-request', 'a phone is a number with + and country code, such as phone:+4930901820');
    return { phone, externalIds: [] };
  }
  if (type !== 'external') return { [type]: value.trim(), externalIds: [] };
  const external = parseExternalId(value);
  if (external === undefined) throw bad();
  return { externalIds: [external] };
}

/** `<type>:<value>`, the value verbatim; undefined where one of them is missing. */
export function parseExternalId(text: string): ExternalId | undefined {
  const at = text.indexOf(':');
  return at < 1 || text.slice(at + 1).trim() === '' ? undefined : { type: text.slice(0, at), value: text.slice(at + 1) };
}

/** Keyed ids as the normalizer makes them, strongest first, each once. */
export function keyedIdsOf(workspaceKey: Buffer, identifiers: { readonly [Field in Exclude<keyof Identifiers, 'externalIds'>]?: string | null | undefined } & { readonly externalIds?: readonly ExternalId[] }): string[] {
  return identifiersOf(identifiers, (type, value) => keyedId(workspaceKey, type, value), Infinity)!;
}
