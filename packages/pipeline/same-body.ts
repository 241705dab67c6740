interface Body {
  readonly itemHash: string;
}

/** Source of what comes by the consent API; no source of a workspace has that name. */
export const apiSource = 'consent-api';
const ofChange: ReadonlySet<string> = new Set(['weir.canonical.ConsentChange', 'weir.canonical.ConsentApplied']);

/**
 * Whether a delivery has another body than the end under its key: the sender used one event id for two. The id of a change by the
 * consent API is made of its order, so there are no two; its hash is keyed now and was plain before, and a change that is sent
 * again meets the end that it had with the other one, as long as the ledger keeps that.
 */
export function isOtherBody(end: Body, delivery: Body & { readonly source: string; readonly recordType: string }): boolean {
  return end.itemHash !== delivery.itemHash && !(delivery.source === apiSource && ofChange.has(delivery.recordType));
}
