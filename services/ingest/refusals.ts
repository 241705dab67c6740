import type { ErrorCode } from '@weir/errors';
import type { Logger } from 'pino';

export interface Refusal {
  readonly source: string;
  readonly code: ErrorCode;
  readonly status: number;
  readonly traceId?: string;
  /** For the operator, never for the answer. */
  readonly detail?: string;
  readonly error?: unknown;
}

const everyMs = 1000;

/** Writes at most one line a second for each source and code; the next line says how many were left out. A flood of refusals must not become a flood of lines. */
export function createRefusalLog(logger: Logger, monotonic: () => number): (refusal: Refusal) => void {
  const last = new Map<string, { at: number; left: number }>();
  return ({ source, code, status, traceId, detail, error }) => {
    const key = `${source}/${code}`;
    const now = monotonic();
    const before = last.get(key);
    if (before !== undefined && now - before.at < everyMs) {
      before.left++;
      return;
    }
    last.set(key, { at: now, left: 0 });
    logger[status >= 500 ? 'error' : 'info']({ source, code, traceId, detail, leftOut: before?.left ?? 0, ...(status >= 500 ? { err: error } : {}) }, 'request refused');
  };
}
