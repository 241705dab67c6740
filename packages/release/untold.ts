import type { OperationManifest } from '@weir/adapter';
import type { CompiledRoute, Decision } from '@weir/policy';
import type { Release } from './types.ts';

/** By what operations name people. */
export type Type = NonNullable<OperationManifest['identifiers']>[number];

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

/** A restrict operation that a change which closes lacks an identifier for. */
export interface Untold {
  readonly route: CompiledRoute;
  /** Types of the identifiers that are linked and that the change does not carry. */
  readonly missing: readonly Type[];
  /** It goes there all the same, under another identifier. */
  readonly told: boolean;
}

/** What a change that closes lacks. */
export interface Lacking {
  /** What it lacks at an operation, whatever the conditions of its routes say; undefined = nothing, or it is not to go there. */
  at(route: CompiledRoute): Untold | undefined;
  /** The operations whose conditions take it with stand-ins for what it lacks. */
  readonly missed: readonly Untold[];
}

/**
 * What a no does not reach as it came: a vendor that knows the person by an identifier that is linked and that the change does
 * not carry. Weir has its keyed form, and where the link keeps it the sealed one (`linked.ts`). Undefined: it lacks nothing.
 *
 * @param decisions on the change as it is
 * @param decideAs decides the same change with other values; takes nothing of any limit
 */
export function untold({ value, ids, linked }: UntoldChange, decisions: readonly Decision[], release: Pick<Release, 'destinations'>, decideAs: (record: Readonly<Record<string, unknown>>) => readonly Decision[]): Lacking | undefined {
  if ((value['state'] !== 'withdrawn' && value['state'] !== 'denied') || linked === undefined || linked.length === ids.length) return undefined;
  const others = new Set(types.filter((type) => type !== otherAddress[String(value['channel'])] && linked.some((id) => id.startsWith(`${type}:`) && !ids.includes(id))));
  if (others.size === 0) return undefined;

  function at(route: CompiledRoute): Untold | undefined {
    if (route.kind !== 'restrict') return undefined;
    const named = release.destinations.get(route.destination)?.operations[route.operation]?.identifiers ?? [];
    const missing = named.filter((type) => others.has(type));
    const given = decisions.find((d) => d.route?.destination === route.destination && d.route.operation === route.operation);
    if (missing.length === 0) return undefined;
    if (given === undefined) return { route, missing, told: false };
    if (given.effect !== 'allow') return undefined;
    // Who is told under an address knows the person, but not of another address.
    const left = named.some((type) => isText(value[type])) ? missing.filter((type) => type !== 'userId') : missing;
    return left.length > 0 ? { route, missing: left, told: true } : undefined;
  }

  const stoodIn = decideAs({ ...value, ...Object.fromEntries([...others].filter((type) => !isText(value[type])).map((type) => [type, placeholder[type]])) });
  return { at, missed: stoodIn.flatMap(({ route }) => (route === undefined ? [] : at(route) ?? [])) };
}

export const isText = (value: unknown): value is string => typeof value === 'string' && value !== '';

/**
 * The denial of who is not told, which is counted, traced and a receipt. Where the change goes there under another identifier
 * it stands beside the delivery, of the operation `<name> (not by <identifiers>)`.
 */
export function untoldDenial({ route, missing, told }: Untold): Decision {
  return { effect: 'deny', route: told ? { ...route, operation: `${route.operation} (not by ${missing.join(', ')})` } : route, rule: 'restrict', reason: 'identifier-unknown', detail: `linked, and not in the change: ${missing.join(', ')}`, consent: [] };
}
