/**
 * Header names on Weir's topics. Values are UTF-8 text unless stated. One place, so that a reader of a topic
 * and every stage agree.
 */
export const H = {
  /** Event id: `evt_` + 32 hex. On every topic. */
  event: 'weir-event',
  /** SHA-256 of the raw item, hex, first 32 characters; of a change by the consent API as many of an HMAC of its order under the workspace key. */
  hash: 'weir-hash',
  source: 'weir-source',
  /** Accept time, ms since the epoch, decimal. */
  accepted: 'weir-accepted',
  /** Consent change out of a raw record: the broker's time of that record (LogAppendTime), ms since the epoch. */
  logged: 'weir-logged',
  /** In the dead letter of an item in quarantine, raw when it is put back: hash of the body that came first under its event id. */
  firstHash: 'weir-first-hash',
  /** W3C trace context. */
  traceparent: 'traceparent',
  contentType: 'content-type',
  /** Raw only: JSON of what surrounded the item in its body. */
  envelope: 'weir-envelope',
  /** Canonical and later: output id, `out_` + 32 hex. */
  output: 'weir-output',
  /** Output name in the mapping. */
  outputName: 'weir-output-name',
  /** Mapping name. */
  mapping: 'weir-mapping',
  /** Release hash, `rel_` + 16 hex. */
  release: 'weir-release',
  /** Canonical: keyed identifiers, strongest first: `<type>:<keyed id>` joined by `,`. */
  ids: 'weir-ids',
  /** Canonical: consent changes of the same item, to be folded before it is decided: `<partition>:<offset>,…` on weir.consent.changes. */
  afterConsent: 'weir-after-consent',
  /** Canonical: identity links of the same item: `<partition>:<offset>,…` on weir.identity. */
  afterIdentity: 'weir-after-identity',
  /** Object key of the sender (raw key), for order checks. */
  objectKey: 'weir-object',
  /** Set on records that a replay order put back, and on what comes of them: the order id. Lanes know replay from live traffic by it. */
  intent: 'weir-intent',
  /** With `intent`: `<topic>/<partition>/<offset>` of the record that the order selected. */
  origin: 'weir-origin',
  /** With `intent`, dispatch only: `applied` = it is known that the vendor has it; the delivery ends without a call. `not-applied` = a person says that it has not: it is sent without a question. */
  verified: 'weir-verified',
  /**
   * With `intent`, and the same as it (of any other order it says nothing): what may have taken effect, and of which nobody can
   * be asked, is sent again also past the key window.
   */
  resend: 'weir-resend',
  /** With `intent`, raw and canonical: the one destination that the order is for; decisions about others are left out. */
  only: 'weir-only',
  /** With `intent`, raw and canonical: what the order corrects, `<output id>/<destination>/<operation>=<intent>` joined by `,`. */
  corrects: 'weir-corrects',
  /**
   * With `intent`, raw and canonical: deliveries of it that the order does not send (the vendor has them, or nothing may be done about
   * them), `<output id>/<destination>/<operation>` joined by `,`. Decisions about them are left out. Without `intent` on an Erasure
   * under a further identifier: those that do not name people by its type.
   */
  settled: 'weir-settled',
  /** Canonical, put back by an approver: `<destination>/<operation>/<rules joined by ,>`; only that delivery is decided, and those rules do not hold it. */
  approval: 'weir-approval',
  /** Dead letters that wait for an approver: `<rule>;<ms since the epoch until which it may be let through>`. */
  held: 'weir-held',
  /** Dispatch: what limit rules counted, `<ms since the epoch of the decision>;<operation>;<rules joined by ,>`. */
  limits: 'weir-limits',
  /** Consent change: who recorded it, e.g. token:tok_…. */
  actor: 'weir-actor',
  /** Parked: when its head may be tried, ms since the epoch. */
  due: 'weir-due',
  /** Parked: `<offset>:<timestamp>` of the record on weir.dispatch.<destination>. */
  dispatched: 'weir-dispatched',
} as const;

/** Mapping of the changes that the consent API writes onto weir.consent.changes: what follows from one is written by who folds it. */
export const consentApi = 'weir:consent-api';
/** Source and mapping of what an erasure writes itself: it names nobody in the clear, or is sealed under the key of its order, which ends with it. */
export const erasureSource = 'weir-erasure';
/** In the header `mapping` of a change of consent whose item is a dead letter: it holds within Weir, and no destination was told of it yet. */
export const ofDeadLetter = 'weir:dead-letter';
/** The same of a change whose item is in quarantine, also when the item is put back: its event id came before with another body, so of when it was said nothing else is known. */
export const ofQuarantine = 'weir:quarantine';
/** The same of a change that was written before its turn in a backlog (services/normalizer/ahead.ts): at its turn it comes under its own id, and is told. */
export const ofAhead = 'weir:ahead';
