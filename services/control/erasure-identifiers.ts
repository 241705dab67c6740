import type { OperationManifest } from '@weir/adapter';
import { linkedOperation } from '@weir/pipeline';
import type { CompiledRoute } from '@weir/policy';
import { keyedIdsOf, type Identifiers, type Release } from '@weir/release';
import type { ErasurePorts } from './erasure.ts';

/** By what operations name people (`identifiers` of the manifest), and what links keep. */
const types = ['userId', 'email', 'phone'] as const;
type Type = (typeof types)[number];

interface Further {
  readonly type: Type;
  readonly value: string;
}

/** What an erasure holds in the clear: one identifier of each type, and the others of the types that have several. Absent: none, or of an order of before it. */
export type Held = Identifiers & { readonly further?: readonly Further[] };

/** An Erasure under a further value of a type. */
export interface FurtherTold {
  /** Keyed. */
  readonly id: string;
  readonly identifiers: Identifiers;
  /** The operations that do not name people by this type, `<destination>/<operation>`: they were told the rest already. */
  readonly leftOut: readonly string[];
}

const nameOf = ({ destination, operation }: Pick<CompiledRoute, 'destination' | 'operation'>): string => `${destination}/${operation}`;
const keyedOf = (workspaceKey: Buffer, { type, value }: Further): string => keyedIdsOf(workspaceKey, { [type]: value })[0]!;

/** All of it, keyed. */
export function keyedIdsOfHeld(workspaceKey: Buffer, { further = [], ...identifiers }: Held): string[] {
  return [...keyedIdsOf(workspaceKey, identifiers), ...further.map((of) => keyedOf(workspaceKey, of))];
}

/**
 * What is told beside the first Erasure: each further value that some operation names people by, in the place of the first of its
 * type. As a change of consent goes on under a linked identifier (docs/decisions/0019): an address stands alone, as vendors look
 * at one of them; a user id may stand beside it. An operation that does not say by what it names people is told, too.
 *
 * @param routes of Erasure
 */
export function furtherTold(workspaceKey: Buffer, { further = [], ...first }: Held, routes: readonly CompiledRoute[], destinations: Release['destinations']): readonly FurtherTold[] {
  const manifestOf = ({ destination, operation }: CompiledRoute): OperationManifest | undefined => destinations.get(destination)?.operations[operation];
  // Where a request takes the address or else the number, that of the first Erasure takes its address: its number goes alone, too.
  const unseen: readonly Further[] = typeof first.email === 'string' && typeof first.phone === 'string' ? [{ type: 'phone', value: first.phone }] : [];
  return [...unseen, ...further].flatMap((of): FurtherTold[] => {
    const takes = (route: CompiledRoute): boolean => {
      const { identifiers: named = [], takesOne = false } = manifestOf(route) ?? {};
      if (unseen.includes(of)) return takesOne && named.includes('email') && named.includes('phone');
      return named.length === 0 || named.includes(of.type);
    };
    const leftOut = routes.filter((route) => !takes(route)).map(nameOf);
    if (leftOut.length === routes.length) return [];
    const { email: _email, phone: _phone, ...rest } = first;
    const identifiers = of.type === 'userId' ? { ...first, userId: of.value } : { ...rest, [of.type]: of.value };
    return [{ id: keyedOf(workspaceKey, of), identifiers, leftOut: [...new Set(leftOut)] }];
  });
}

/** An operation as the receipt has it: once for the first Erasure, and once for each further one that it is told, as the index shows it. */
export function operationsTold(route: CompiledRoute, further: readonly FurtherTold[]): readonly string[] {
  return [route.operation, ...further.filter(({ leftOut }) => !leftOut.includes(nameOf(route))).map(({ id }) => linkedOperation(route.operation, id))];
}

/** Finds what is known of a person in the clear. */
export function createIdentifierSearch({ subjects, workspaceKey }: Pick<ErasurePorts, 'subjects' | 'workspaceKey'>) {
  /**
   * Of each type what was given, or else the newest, as the records have it, or else the links; of user id, address and number all
   * the others that are the person's, too. Of a record of a source that is not trusted only those that are the person's.
   *
   * @param ids of the person; @param given what was given, or found before
   * @param goOn called for each record; what it throws ends the search
   */
  return async function identifiersIn(ids: readonly string[], given: Held, everyLink: boolean, goOn: () => void): Promise<{ found: Held; records: number }> {
    const { further: before = [], externalIds, ...first } = given;
    const newest: Identifiers = { externalIds: [] };
    const external = new Map<string, { type: string; value: string }>();
    const own = new Set(ids);
    const values = new Map<string, Further>();
    const isOwn = (identifiers: Partial<Identifiers>): boolean => keyedIdsOf(workspaceKey, identifiers).every((id) => own.has(id));
    const add = (list: unknown, takes: (e: { type: string; value: string }) => boolean = () => true): void => { for (const e of (list ?? []) as { type: string; value: string }[]) if (external.size < 64 && takes(e)) external.set(`${e.type}:${e.value}`, e); };
    /** Bounded by the identifiers of the person. */
    function keep(of: Further): void {
      const id = keyedOf(workspaceKey, of);
      if (own.has(id) && !values.has(id)) values.set(id, of);
    }
    let records = 0;
    add(externalIds);
    await subjects.scan(ids, ({ source, value }) => {
      goOn();
      records++;
      const whole = everyLink || subjects.trustsSource(source);
      for (const name of [...types, 'anonymousId'] as const) {
        const text = value?.[name];
        if (typeof text !== 'string' || text === newest[name] || !(whole || isOwn({ [name]: text }))) continue;
        newest[name] = text;
        if (name !== 'anonymousId') keep({ type: name, value: text });
      }
      add(value?.['externalIds'], (e) => whole || isOwn({ externalIds: [e] }));
    });
    // The newest first. Their keys are there still: what is erased is marked after it was found.
    const linked = (await subjects.linkValues(ids)).flatMap((link) => types.flatMap((type): Further[] => (link[type] === null ? [] : [{ type, value: link[type] }])));
    for (const of of [...linked, ...before]) keep(of);
    const ofLinks = Object.fromEntries(linked.toReversed().map(({ type, value }) => [type, value]));
    const found = { ...ofLinks, ...newest, ...first, externalIds: [...external.values()] };
    const told = new Set(keyedIdsOf(workspaceKey, found));
    const further = [...values].flatMap(([id, of]) => (told.has(id) ? [] : [of]));
    return { found: further.length === 0 ? found : { ...found, further }, records };
  };
}
