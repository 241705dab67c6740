import type { ErrorCode } from '@weir/errors';

/** One thing wrong with a record, precise enough to fix it. */
export interface Reason {
  readonly code: ErrorCode;
  readonly message: string;
  /** Mapping or contract file, when the reason is in one. */
  readonly file?: string;
  readonly line?: number;
  /** Canonical field. */
  readonly field?: string;
  /** Path in the source item. */
  readonly path?: string;
}

/** What a stage decided for one record. One place (the stage runner) acts on it; offsets commit after that was acknowledged. */
export type Outcome<T> =
  | { readonly kind: 'ok'; readonly value: T }
  | { readonly kind: 'drop'; readonly reason: string }
  | { readonly kind: 'dlq'; readonly reasons: readonly Reason[] }
  | { readonly kind: 'retry'; readonly code: ErrorCode; readonly afterMs: number }
  | { readonly kind: 'park'; readonly untilMs: number; readonly reason: string };
