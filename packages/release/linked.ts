import { linkedOperation } from '@weir/pipeline';
import type { CompiledRoute, Decision } from '@weir/policy';
import { isText, untoldDenial, type Lacking, type Type, type Untold, type UntoldChange } from './untold.ts';

/** A change of consent once more, under an identifier that is linked and that it does not carry. */
export interface Onward {
  /** Keyed. */
  readonly id: string;
  readonly type: Type;
  /** The change with that identifier in the clear in the place of its own of this kind. */
  readonly record: Readonly<Record<string, unknown>>;
  /** Of restrict operations only. */
  readonly decisions: readonly Decision[];
}

export interface CarriedOn {
  readonly onward: readonly Onward[];
  /** Of what nobody is told under: no value is known, or a route needs two at once that the change lacks. */
  readonly denials: readonly Decision[];
}

/**
 * Carries a change that closes on to the vendors that know the person by what it lacks: once for each linked identifier whose
 * value is known, decided as a record of its own, conditions included.
 *
 * @param lacking what it does not reach as it came
 * @param routes of changes of consent
 * @param valueOf the value in the clear of a keyed identifier; undefined = not known
 * @param decideAs decides the same change with other values, for who is linked by `id`; takes nothing of any limit
 */
export function carryOn({ value, ids, linked = [] }: UntoldChange, { at, missed }: Lacking, routes: readonly CompiledRoute[], valueOf: (id: string) => string | undefined, decideAs: (record: Readonly<Record<string, unknown>>, id: string) => readonly Decision[]): CarriedOn {
  const wanted = new Set(routes.flatMap((route) => at(route)?.missing ?? []));
  const onward: Onward[] = [];
  const unknown = new Set<Type>();
  const first = new Map<Type, string>();
  const reached = new Set<string>();
  const nameOf = (route: Untold['route'], type: Type): string => `${type}/${route.destination}/${route.operation}`;
  for (const id of linked) {
    const type = id.slice(0, id.indexOf(':')) as Type;
    if (!wanted.has(type) || ids.includes(id)) continue;
    const known = valueOf(id);
    if (known === undefined) {
      unknown.add(type);
      continue;
    }
    if (!first.has(type)) first.set(type, known);
    const record = underOne(value, type, known);
    const decisions = decideAs(record, id).filter(({ route }) => route !== undefined && at(route)?.missing.includes(type) === true);
    if (decisions.length === 0) continue;
    onward.push({ id, type, record, decisions });
    for (const { route } of decisions) reached.add(nameOf(route!, type));
  }
  const denials = missed.flatMap((m) => {
    // Not reached by a value that is known: its condition does not take it, unless it is for want of another one.
    const left = m.missing.filter((type) => unknown.has(type) || (!reached.has(nameOf(m.route, type)) && takesTogether(m, type)));
    return left.length === 0 ? [] : [untoldDenial({ route: m.route, missing: left, told: m.told || m.missing.some((type) => reached.has(nameOf(m.route, type))) })];
  });
  return { onward, denials };

  function takesTogether(missing: Untold, type: Type): boolean {
    const values = Object.fromEntries([...first].filter(([of]) => of === type || !isText(value[of])));
    return decideAs({ ...value, ...values }, linked.find((id) => id.startsWith(`${type}:`) && !ids.includes(id))!).some(({ route }) => route !== undefined && isSame(missing.route, route));
  }
}

const isSame = (a: Untold['route'], b: Untold['route']): boolean => a.destination === b.destination && a.operation === b.operation;

/** An address stands alone: of another one that the change carries its own delivery tells. Beside a user id it may stand, and a user id beside it. */
function underOne(value: Readonly<Record<string, unknown>>, type: Type, known: string): Readonly<Record<string, unknown>> {
  return type === 'userId' ? { ...value, userId: known } : { ...value, email: null, phone: null, [type]: known };
}

/** What goes onward, as decisions beside those on the change itself. */
export function shownOnward(onward: readonly Onward[]): Decision[] {
  return onward.flatMap(({ id, decisions }) => decisions.map((d): Decision => ({ ...d, route: { ...d.route!, operation: linkedOperation(d.route!.operation, id) } })));
}
