import { textOption, UsageError, type CommandContext } from './command.ts';

/** Which links make the person, as --linked says: part of a request. Nothing where it is not given. */
export function linkedOf(context: Pick<CommandContext, 'values'>): { readonly linked?: 'trusted' | 'all' } {
  const linked = textOption(context as CommandContext, 'linked');
  if (linked === undefined) return {};
  if (linked !== 'trusted' && linked !== 'all') throw new UsageError('--linked takes trusted or all');
  return { linked };
}

/** `2 email, 1 phone` */
export const countsOf = (types: readonly string[]): string => [...Map.groupBy(types, (type) => type)].map(([type, list]) => `${list.length} ${type}`).join(', ');

/** How what is left out is taken in; by hand, once somebody has looked whose it is. */
export const howToAdd = (commands: string): string => `where it is surely this person's, give ${commands} each of them, too, or --linked all`;

/** Of identifiers that only untrusted sources have linked, which, and what may be done. @param ids keyed identifiers @param commands what may be told to take them in */
export function whatIsLeftOut(ids: readonly string[], commands: string): string {
  return `${countsOf(ids.map((id) => id.split(':')[0]!))} that only untrusted sources have linked, so anybody may have said it; ${howToAdd(commands)}`;
}

/** The same as a line by itself. */
export const leftOutText = (ids: readonly string[], commands: string): string => `left out: ${whatIsLeftOut(ids, commands)}`;
