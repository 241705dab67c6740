import type { OperationManifest } from '@weir/adapter';
import type { CompiledRoute, Decision } from '@weir/policy';
import type { Release } from './types.ts';

type Type = NonNullable<OperationManifest['identifiers']>[number];

/** Stands for a value that nobody here has, in the conditions of routes. */
const placeholder: Readonly<Record<Type, string>> = { userId: 'unknown', email: 'unknown@unknown.invalid', phone: '+10000000000' };
const types = Object.keys(placeholder) as Type[];
/** A change for one of these channels is not about an address of the other. */
const otherAddress: Readonly<Record<string, Type>> = { email: 'phone', sms: 'email' };

/** A change of consent, as it was decided on. */
export interface UntoldChange {
  readonly value: Readonly<Record<string, unknown>>;
  /** Its own identifiers. */
  readonly ids: readonly string[];
  /** With all that are linked to them; undefined = too many to say. */
  readonly linked: readonly string[] | undefined;
}

/**
 * What a no does not reach: a vendor that knows the person by an identifier that is linked and that the change does not
 * carry. Weir has only its keyed form, so there is nothing to send; each such vendor gets a denial `identifier-unknown`,
 * which is counted, traced and a receipt. Where the change goes there under another identifier, the denial is beside the
 * delivery, of the operation `<name> (not by <identifiers>)`.
 *
 * @param decisions on the change as it is
 * @param decideAs decides the same change with other values; takes nothing of any limit
 */
export function untold({ value, ids, linked }: UntoldChange, decisions: readonly Decision[], release: Pick<Release, 'destinations'>, decideAs: (record: Readonly<Record<string, unknown>>) => readonly Decision[]): Decision[] {
  if ((value['state'] !== 'withdrawn' && value['state'] !== 'denied') || linked === undefined || linked.length === ids.length) return [];
  const others = new Set(types.filter((type) => type !== otherAddress[String(value['channel'])] && linked.some((id) => id.startsWith(`${type}:`) && !ids.includes(id))));
  if (others.size === 0) return [];
  const found: Decision[] = [];
  for (const { route } of decideAs({ ...value, ...Object.fromEntries([...others].filter((type) => !isText(value[type])).map((type) => [type, placeholder[type]])) })) {
    if (route === undefined || route.kind !== 'restrict') continue;
    const named = release.destinations.get(route.destination)?.operations[route.operation]?.identifiers ?? [];
    const missing = named.filter((type) => others.has(type));
    const given = decisions.find((d) => d.route?.destination === route.destination && d.route.operation === route.operation);
    if (missing.length === 0) continue;
    if (given === undefined) found.push(denial(route, missing));
    else if (given.effect === 'allow') {
      // Who is told under an address knows the person, but not of another address.
      const left = named.some((type) => isText(value[type])) ? missing.filter((type) => type !== 'userId') : missing;
      if (left.length > 0) found.push(denial({ ...route, operation: `${route.operation} (not by ${left.join(', ')})` }, left));
    }
  }
  return found;
}

const isText = (value: unknown): boolean => typeof value === 'string' && value !== '';

function denial(route: CompiledRoute, missing: readonly Type[]): Decision {
  return { effect: 'deny', route, rule: 'restrict', reason: 'identifier-unknown', detail: `linked, and not in the change: ${missing.join(', ')}`, consent: [] };
}
