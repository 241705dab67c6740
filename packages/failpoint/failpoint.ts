import { WeirError } from '@weir/errors';

/** Every place where a crash is tried, with what has happened there. `npm run chaos` kills a process at each of them. */
export const failpoints = {
  'log.produce-sent': 'a produce request is handed to the socket, no answer yet (detail: topic)',
  'log.commit-sent': 'an offset commit is handed to the socket, no answer yet (detail: group)',
  'log.schema-fetch': 'a schema is being looked up or registered: every start passes it once for each',
  'ingest.verified': 'a body is verified and split, nothing is produced',
  'ingest.acked': 'the items are acknowledged, nothing is answered',
  'ingest.half-response': 'the items are acknowledged, half of the status line is written',
  'poller.page-fetched': 'a page with items is read, nothing of it is produced',
  'poller.produced': 'all items of a page, one at least, are acknowledged, the cursor is not saved',
  'poller.cursor-saved': 'the cursor is saved',
  'normalizer.before-transform': 'a batch is read, nothing is mapped',
  'normalizer.dependencies-written': 'consent changes and links are acknowledged, canonical records are not produced',
  'normalizer.dlq-written': 'dead letters are acknowledged, the offset is not committed',
  'normalizer.outputs-acked': 'everything of a slice is acknowledged, the offset is not committed',
  'normalizer.release-switch': 'another release became current',
  'policy.tables-loading': 'consent and identity tables are being read, not to their end',
  'policy.decided': 'deliveries are decided, not produced',
  'policy.outputs-acked': 'deliveries are acknowledged, the offset is not committed',
  'policy.folded': 'consent changes are folded, the states are not produced',
  'policy.states-acked': 'consent states are acknowledged, the offset is not committed',
  'dispatcher.taking-over': 'the ledger of an assigned partition is being read',
  'dispatcher.intent-written': 'the intent is acknowledged, no call is made',
  'dispatcher.before-connect': 'a call is about to start',
  'dispatcher.sent': 'the request is written, no answer is read',
  'dispatcher.response-read': 'the answer is read, no end is written',
  'dispatcher.dlq-written': 'a dead letter is acknowledged, its end is not written',
  'dispatcher.ledger-written': 'ends are acknowledged, the offset is not committed',
  'dispatcher.retry-scheduled': 'a retry waits for its time',
  'dispatcher.parked-written': 'deliveries are on the parked topic, the marker is not written',
  'dispatcher.marker-written': 'the marker of a parked subject is acknowledged, the offset is not committed',
  'control.authorized': 'who asks for a change may make it, nothing is written',
  'control.audit-written': 'the intent of a change is in the audit log, the change is not made',
  'control.change-made': 'the change is made, its end is not in the audit log, nothing is answered',
  'control.put-back': 'records of a replay are acknowledged, its cursor is not saved',
  'control.erasure-marked': 'the mark of an erasure is acknowledged, the erasure does not say so',
  'control.keys-destroyed': 'the keys of a person are destroyed, the erasure does not say so',
} as const;
export type Failpoint = keyof typeof failpoints;

interface Armed {
  readonly detail: string;
  left: number;
  /** Passings before this time (performance.now()) do not count. */
  readonly from: number;
  /** Stand still for so long instead of dying; 0 = die. */
  readonly stallMs: number;
}

let armed: Map<string, Armed> | undefined;
let act: (name: Failpoint, stallMs: number) => void = () => undefined;

/**
 * Arms points from a text of the form `<name>[@<detail>]:<n>[+<ms>][~<ms>][,…]`: at the n-th time the point is passed
 * (with a detail that ends with <detail>, and later than `+<ms>` from now), `strike` is called, with 0 for a crash or
 * with the time of `~<ms>` for an event loop that stands still. Without it no point does anything. For tests: it is
 * set by WEIR_FAILPOINTS only. Throws config-invalid.
 */
export function arm(spec: string, strike: (name: Failpoint, stallMs: number) => void): void {
  armed = new Map();
  act = strike;
  for (const part of spec.split(',')) {
    const match = /^([a-z.-]+)(?:@([^:]+))?:(\d{1,9})(?:\+(\d{1,7}))?(?:~(\d{1,6}))?$/.exec(part);
    if (match === null || !Object.hasOwn(failpoints, match[1]!)) throw new WeirError('config-invalid', `WEIR_FAILPOINTS: ${JSON.stringify(part.slice(0, 80))} is not <name>[@<detail>]:<n>[+<ms>][~<ms>]`);
    armed.set(match[1]!, { detail: match[2] ?? '', left: Number(match[3]), from: performance.now() + Number(match[4] ?? 0), stallMs: Number(match[5] ?? 0) });
  }
}

/** Nothing runs in this thread for so long: what a long synchronous computation or garbage collection does. */
export function standStill(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** No point is armed any more. */
export function disarm(): void {
  armed = undefined;
}

/** Whether the point may act: for a point that must prepare its damage. */
export const isArmed = (name: Failpoint): boolean => armed?.has(name) === true;

/** Pass the point: nothing happens, unless a test armed it. */
export function failpoint(name: Failpoint, detail = ''): void {
  if (armed !== undefined) pass(name, detail);
}

/** Pass the point after the current turn of the event loop: what was handed to a socket before is on its way. */
export function failpointSoon(name: Failpoint): void {
  if (armed?.has(name) === true) setImmediate(pass, name, '');
}

function pass(name: Failpoint, detail: string): void {
  const point = armed?.get(name);
  if (point === undefined || !detail.endsWith(point.detail) || performance.now() < point.from || --point.left !== 0) return;
  act(name, point.stallMs);
}
