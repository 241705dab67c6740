import type { Task } from './types.ts';

/**
 * Whom a refused credential (401, 403) is about. `credential`: nothing says otherwise. `delivery`: others have passed under
 * the same credential since it was refused first. `doubtful`: others have passed since another refusal, so that the vendor
 * is known to refuse single deliveries; many in a row say that it is the credential after all.
 */
export type Refused = 'credential' | 'doubtful' | 'delivery';

/**
 * What calls of a destination say about its credential. A web application firewall or a right per resource answers 401 or 403
 * for one delivery while the others pass; a credential that is broken passes nothing. Only a call that was begun after the
 * refusal counts against it: an earlier one may have been let in before. It is the first refusal of a delivery that counts:
 * where little else is sent, its tries would otherwise be news each time. A credential of another value is not known at all.
 */
export interface Refusals {
  /** These took effect by their last call. `credential`: the config that it was built from, the same object while its values are. */
  passed(tasks: readonly Task[], credential: object): void;
  /** The last call of these was refused as one. */
  refused(tasks: readonly Task[], credential: object): Refused;
}

/** Deliveries whose refusal is remembered; the oldest is forgotten, and is taken for news. */
const maxRefused = 10_000;

export function createRefusals(): Refusals {
  /** When a delivery, by its key, was refused first, ms since the epoch. */
  const since = new Map<string, number>();
  let known: object | undefined;
  let firstRefused = Number.POSITIVE_INFINITY;
  let lastPassed = Number.NEGATIVE_INFINITY;

  function under(credential: object): void {
    if (credential === known) return;
    known = credential;
    since.clear();
    firstRefused = Number.POSITIVE_INFINITY;
    lastPassed = Number.NEGATIVE_INFINITY;
  }

  return {
    passed(tasks, credential) {
      under(credential);
      for (const { key, last } of tasks) {
        lastPassed = Math.max(lastPassed, last!.at);
        since.delete(key);
      }
    },
    refused(tasks, credential) {
      under(credential);
      const single = tasks.some(({ key }) => (since.get(key) ?? Number.POSITIVE_INFINITY) < lastPassed);
      const others = firstRefused < lastPassed;
      for (const { key, last } of tasks) {
        const at = last!.at + last!.durationMs;
        firstRefused = Math.min(firstRefused, at);
        if (since.has(key)) continue;
        if (since.size >= maxRefused) since.delete(since.keys().next().value!);
        since.set(key, at);
      }
      if (single) return 'delivery';
      return others ? 'doubtful' : 'credential';
    },
  };
}
