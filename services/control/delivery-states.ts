import { hashOf, type Hash } from '@weir/state';
import { hash } from 'node:crypto';

/** How a delivery stands, the lowest first: a higher one is never replaced by a lower one. */
export const deliveryStates = ['pending', 'denied', 'superseded', 'quarantined', 'dead-lettered', 'failed-over', 'delivered'] as const;
export type DeliveryState = (typeof deliveryStates)[number];

/** Place of a state among them; -1 = of none. */
export const rank = (state: string | undefined): number => (state === undefined ? -1 : deliveryStates.indexOf(state as DeliveryState));

/** Of `<output>|<destination>|<operation>`. */
export const deliveryHash = (id: string): Hash => hashOf(hash('sha256', id, 'hex'));

/** Times are kept up to the year 2527. */
const timeRange = 2 ** 44;

/** A state and when it began (ms since the epoch) as one number, which is exact. */
export const numberOf = (state: DeliveryState, at: number): number => (rank(state) + 1) * timeRange + Math.min(Math.max(0, Math.floor(at)), timeRange - 1);

/** What `numberOf` was made from. */
export function deliveryOf(number: number): { readonly state: DeliveryState; readonly at: number } {
  return { state: deliveryStates[Math.floor(number / timeRange) - 1]!, at: number % timeRange };
}
