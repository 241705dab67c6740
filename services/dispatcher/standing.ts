import { askedPauseMs } from '@weir/http';
import type { DestinationConfig } from '@weir/release';
import { closed, onAlive, onCancelled, onFailure, onStart, onSuccess, type BreakerState } from './breaker.ts';
import type { CallResult, ReadBackResult } from './call.ts';
import type { DestinationPorts } from './ports.ts';
import { createRefusals } from './refusals.ts';
import type { Task } from './types.ts';

/** A server's guess of when it is well again holds back what restricts use, too: past this, one call looks. */
const longestAfterErrorMs = 5 * 60_000;

/**
 * How a destination stands, by what its calls come to: its breaker, and what is known of its credential. A call counts for the
 * state that it began in: what was sent before the breaker opened is no probe of it, nor does it open one that has closed since.
 */
export function createStanding(ports: Pick<DestinationPorts, 'name' | 'clock' | 'logger' | 'metrics' | 'credential'>, changed: () => void) {
  const refusals = createRefusals();
  let breaker: BreakerState = closed;
  let openSince: number | undefined;
  let aliveAt = 0;
  /** Changes of state until now. */
  let changes = 0;

  function set(next: BreakerState): void {
    if (next.state !== breaker.state) changes++;
    if (next.state !== breaker.state && (next.state === 'open' || next.state === 'closed')) {
      ports.logger[next.state === 'open' ? 'warn' : 'info']({ destination: ports.name, breaker: next.state, reason: next.reason }, 'breaker');
      ports.metrics.breaker.set({ destination: ports.name }, next.state === 'closed' ? 0 : 1);
    }
    if (next.state === 'closed') openSince = undefined;
    else openSince ??= ports.clock.now();
    breaker = next;
    changed();
  }

  return {
    breaker: () => breaker,
    /** A call begins. What it gives is handed to `judge` with its results. */
    began(): number {
      set(onStart(breaker));
      return changes;
    },
    /** What a call says about the destination, once for all of its deliveries: it answered for one of them, so it is alive; else the trouble counts. */
    judge(results: readonly (CallResult | ReadBackResult)[], tasks: readonly Task[], { config }: Pick<DestinationConfig, 'config'>, since: number): void {
      const now = ports.clock.monotonic();
      const counts = since === changes;
      const found = results.flatMap((r): { readonly kind: string; readonly code?: string; readonly retryAfterMs?: number }[] => (r.kind === 'verdict' ? [r.verdict] : r.kind === 'read' ? [r.read] : []));
      const trouble = (kind: string) => found.find((v) => v.kind === kind);
      const answered = found.find((v) => !['retry', 'throttled', 'auth-broken'].includes(v.kind));
      if (answered !== undefined) {
        aliveAt = ports.clock.now();
        if (found.some((v) => ['ok', 'applied', 'not-applied'].includes(v.kind))) refusals.passed(tasks, config);
        if (!counts) return;
        ports.credential.accepted();
        return set(answered.kind === 'ok' ? onSuccess() : onAlive());
      }
      const broken = trouble('auth-broken');
      const about = broken === undefined ? undefined : refusals.refused(tasks, config);
      if (!counts) return;
      if (broken !== undefined) {
        if (about === 'delivery') return set(onCancelled(breaker, now));
        // Trouble of the whole destination: it says nothing about its records, which keep their place.
        const next = onFailure(breaker, now, broken.code!, { force: about === 'credential', retryAfterMs: askedPauseMs(broken.retryAfterMs) });
        if (next.state === 'open') ports.credential.rejected();
        return set(next);
      }
      // The account's quota is closed until the vendor asked to be tried again; its other operations go on.
      if (trouble('throttled') !== undefined) return set(onAlive());
      const failed = trouble('retry');
      // A server's error is of the whole of it, and so is the time for which it asks; what a refusal of one record asks for is of that record.
      const asked = tasks.some(({ last }) => (last?.status ?? 0) >= 500) ? Math.min(longestAfterErrorMs, askedPauseMs(failed?.retryAfterMs) ?? 0) : undefined;
      set(failed === undefined ? onCancelled(breaker, now) : onFailure(breaker, now, failed.code!, { retryAfterMs: asked }));
    },
    /** Another credential, or the same again: an open breaker that a refused one opened probes now. */
    credentialChanged(): void {
      if (breaker.state === 'open' && breaker.reason === 'credential-rejected') set({ ...breaker, until: ports.clock.monotonic() });
    },
    /** No delivery of it is this instance's any more: how it is, others find out, and so does this one when it has some again. */
    forget(): void {
      if (breaker.state === 'closed') return;
      changes++;
      breaker = closed;
      openSince = undefined;
      ports.metrics.breaker.set({ destination: ports.name }, 0);
      changed();
    },
    /** For people: since when the breaker has not been closed, why, and when a call was answered last (ms; 0 = never). */
    health: () => ({ openSince, openCode: breaker.reason, aliveAt }),
  };
}
