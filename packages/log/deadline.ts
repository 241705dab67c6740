import { WeirError, type ErrorCode } from '@weir/errors';

/** Rejects with `code` when the promise is not settled in time. The work itself may go on: its owner discards the client. */
export function withDeadline<T>(promise: Promise<T>, ms: number, what: string, code: ErrorCode = 'log-deadline'): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new WeirError(code, `${what}: no answer within ${ms} ms`)), ms);
    promise.then((value) => {
      clearTimeout(timer);
      resolve(value);
    }, (error: unknown) => {
      clearTimeout(timer);
      reject(error);
    });
  });
}

/** False when it is not settled in time; a rejection in time is passed on, a later one is of no interest any more. */
export function settlesWithin(promise: Promise<unknown>, ms: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(false), ms);
    promise.then(() => {
      clearTimeout(timer);
      resolve(true);
    }, (error: unknown) => {
      clearTimeout(timer);
      reject(error);
    });
  });
}

/** Resolves after the time, or at once when one of the signals aborts. */
export function delay(ms: number, ...signals: readonly (AbortSignal | undefined)[]): Promise<void> {
  return new Promise((resolve) => {
    if (signals.some((signal) => signal?.aborted)) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      for (const signal of signals) signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    // Each by itself: Node holds what AbortSignal.any gives in a global set for as long as somebody listens.
    for (const signal of signals) signal?.addEventListener('abort', done);
  });
}
