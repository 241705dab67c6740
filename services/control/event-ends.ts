/*
 * Whether an event that ended before it was routed stands as ended, from two rows of the index. The end and the redrive
 * come over different topics, either may be read first, and their times are of different clocks (a normalizer's, the
 * broker's). So the order decides: an end says which order had put its event back, and ends of one event stand on one
 * partition, redrives of one event on another, each in their order. Only an end of no order (as the event was accepted,
 * or a row of a version that did not write the order) is compared by time: a redrive of it comes after somebody read of
 * it; what a source sends once more under the same event id, and ends anew, after that.
 */

/** Orders that are kept of an event: an end may be read so many redrives late. */
const maxOrders = 8;

/** Reason of an outcome by which a person closes a change of consent that binds nobody (`weir consent settle`). */
export const settledReason = 'consent-settled';

/** Row of an end: `<state>@<ms>@<order>`. */
export const endText = (state: string, at: number, order: string): string => `${state}@${at}@${order}`;

/** When an event was put back last, ms, and by which orders, the last one last. */
function redrives(again: string | undefined): { readonly at: number; readonly orders: readonly string[] } {
  const [at, orders] = (again ?? '0').split('@');
  return { at: Number(at), orders: orders === undefined ? [] : orders.split(',') };
}

/** The order that put it back last; '' = none is known. */
export const lastOrder = (again: string | undefined): string => redrives(again).orders.at(-1) ?? '';

/** Row of the redrives with one more: `<ms>@<orders>`. */
export function putBack(again: string | undefined, order: string, at: number): string {
  const before = redrives(again);
  return `${Math.max(before.at, at)}@${[...before.orders.filter((known) => known !== order), order].slice(-maxOrders).join(',')}`;
}

/** How an event ended, by its last end and its redrives; undefined = it has not, or was put back since. */
export function standing(end: string | undefined, again: string | undefined): string | undefined {
  if (end === undefined) return undefined;
  const [state, at, order = ''] = end.split('@') as [string, string, string?];
  if (again === undefined) return state;
  const { at: againAt, orders } = redrives(again);
  const putBackSince = order === '' ? Number(at) <= againAt : orders.includes(order) && orders.at(-1) !== order;
  return putBackSince ? undefined : state;
}
