import type { Verdict } from '@weir/adapter';
import { failpointSoon } from '@weir/failpoint';
import { askedPauseMs } from '@weir/http';
import { recordAttempt } from './attempt-record.ts';
import { backoffMs } from './backoff.ts';
import type { BreakerState } from './breaker.ts';
import type { CallResult, ReadBackResult, Refusal, Unbuildable } from './call.ts';
import type { Ending } from './ends.ts';
import { failOver, secondOf } from './fail-over.ts';
import type { Lane } from './lane.ts';
import type { PartitionRunner } from './partition.ts';
import { leavePath } from './paths.ts';
import type { DestinationPorts } from './ports.ts';
import { effectSoFar } from './task.ts';
import type { Task } from './types.ts';

interface Context {
  readonly ports: DestinationPorts;
  readonly breaker: () => BreakerState;
  end(lane: Lane, runner: PartitionRunner, ending: Ending): void;
  /** The head is offered again after so many ms. */
  later(lane: Lane, runner: PartitionRunner, ms: number): void;
  offer(lane: Lane, runner: PartitionRunner): void;
}

export const unbuildable = (task: Task, result: Unbuildable): Ending => ({ task, state: 'dead-lettered', effect: effectSoFar(task), code: result.code, detail: result.detail, deadLetter: true });

/** The one place that acts on what a call came to for a delivery: it ends, waits, is parked, or is tried again. */
export function createSettle({ ports, breaker, end, later, offer }: Context) {
  function call(lane: Lane, runner: PartitionRunner, task: Task, result: CallResult): void {
    if (result.kind === 'unbuildable') return notBuilt(lane, runner, task, result);
    if (result.kind === 'refused') return notSent(lane, runner, task, result);
    const { verdict, sharedBy } = result;
    switch (verdict.kind) {
      case 'ok':
        return end(lane, runner, { task, state: 'delivered', effect: 'done', code: null, detail: verdict.detail ?? null, deadLetter: false });
      case 'permanent':
        if (sharedBy !== undefined) return apart(lane, runner, task, verdict, sharedBy);
        return end(lane, runner, refused(runner, task, verdict));
      default:
        return again(lane, runner, task, verdict);
    }
  }

  /**
   * Refused with others, of which one may be the reason, or how many they are: it goes again under its key in a call of half as many at
   * most, so that only a call of its own refuses a delivery for good, after as many rounds as their number can be halved. It is no trouble
   * of the delivery. Whether one may be called again that may have taken effect is asked before the call, as of every head (pastWindow).
   */
  function apart(lane: Lane, runner: PartitionRunner, task: Task, verdict: Extract<Verdict, { kind: 'permanent' }>, sharedBy: number): void {
    recordAttempt(ports, runner, task, verdict);
    task.batchLimit = Math.ceil(sharedBy / 2);
    offer(lane, runner);
  }

  function notBuilt(lane: Lane, runner: PartitionRunner, task: Task, result: Unbuildable): void {
    const destination = ports.destination();
    if (destination !== undefined && leavePath(destination, task)) return offer(lane, runner);
    end(lane, runner, unbuildable(task, result));
  }

  /** Refused for good: a dead letter, or where the reason is the vendor's and nothing took effect, a delivery of its second vendor. */
  function refused(runner: PartitionRunner, task: Task, verdict: Extract<Verdict, { kind: 'permanent' }>): Ending {
    const { code, detail = null, effect } = verdict;
    const destination = verdict.vendorSide === true && effect === 'none' ? ports.destination() : undefined;
    const second = destination === undefined ? undefined : secondOf(ports, runner, destination, task);
    if (second !== undefined) return failOver(task, second, code, detail ?? code);
    return { task, state: 'dead-lettered', effect: effect === 'none' ? effectSoFar(task) : effect, code, detail, deadLetter: true };
  }

  /** What the vendor says of an earlier call: it ends the delivery, or opens the way for a call, or leaves it to a person. */
  function read(lane: Lane, runner: PartitionRunner, task: Task, result: ReadBackResult): void {
    if (result.kind === 'refused') return notSent(lane, runner, task, result);
    const held = (why: string): void => end(lane, runner, { task, state: 'quarantined', effect: 'maybe', code: 'delivery-held', detail: `unknown whether it was applied: ${why}`, deadLetter: true });
    if (result.kind === 'unbuildable') return held(result.detail);
    const { read } = result;
    if (read.kind === 'retry' || read.kind === 'throttled' || read.kind === 'auth-broken') return again(lane, runner, task, read);
    recordAttempt(ports, runner, task, { kind: task.last!.verdict, effect: task.last!.effect, code: null, detail: read.detail });
    switch (read.kind) {
      case 'applied':
        return end(lane, runner, { task, state: 'delivered', effect: 'done', code: null, detail: `read back: ${read.detail ?? 'applied'}`, deadLetter: false });
      case 'unknown':
        return held(read.detail ?? 'the vendor does not tell');
      case 'not-applied':
        return offer(lane, runner);
    }
  }

  function notSent(lane: Lane, runner: PartitionRunner, task: Task, refusal: Refusal): void {
    ports.metrics.refused.inc({ destination: ports.name, reason: refusal.reason });
    switch (refusal.reason) {
      case 'consent':
        return end(lane, runner, { task, state: 'denied', effect: effectSoFar(task), code: refusal.detail, detail: null, deadLetter: false });
      case 'returned':
        return offer(lane, runner);
      default:
        return later(lane, runner, refusal.reason === 'lease' ? 50 : 500);
    }
  }

  function again(lane: Lane, runner: PartitionRunner, task: Task, verdict: Extract<Verdict, { kind: 'retry' | 'throttled' | 'auth-broken' }>): void {
    recordAttempt(ports, runner, task, verdict);
    failpointSoon('dispatcher.retry-scheduled');
    if (verdict.kind === 'throttled') return offer(lane, runner);
    // The destination waits for its credential, and the head in line with it: it goes when that works again, whatever the breaker waited for. Where it does not, the refusal is trouble of this delivery as any other.
    if (verdict.kind === 'auth-broken' && breaker().state === 'open' && breaker().reason === verdict.code) return offer(lane, runner);
    const { at } = task.last!;
    task.trouble = { since: task.trouble?.since ?? at, at };
    const backoff = Math.max(askedPauseMs(verdict.retryAfterMs) ?? 0, backoffMs(task.attempts, ports.clock.random()));
    if (breaker().state === 'closed' && task.attempts >= ports.inLaneTries) return runner.parking.park(lane, ports.clock.now() + backoff, verdict.code);
    later(lane, runner, backoff);
  }

  return { call, read };
}
