import { catalogue, type CatalogueEntry, type ErrorCode } from './catalogue.ts';

export { catalogue, errorCodes, type CatalogueEntry, type ErrorCode, type RetryClass } from './catalogue.ts';

/** An error with a code of the catalogue. `details` must hold no secret and no personal data. */
export class WeirError extends Error {
  readonly code: ErrorCode;
  readonly details: Readonly<Record<string, unknown>>;

  constructor(code: ErrorCode, message?: string, options?: { details?: Record<string, unknown>; cause?: unknown }) {
    super(message ?? catalogue[code].meaning, options?.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'WeirError';
    this.code = code;
    this.details = Object.freeze({ ...options?.details });
  }

  get entry(): CatalogueEntry {
    return catalogue[this.code];
  }
}

/** The WeirError in an error or its chain of causes (aggregates included), else undefined. */
export function findWeirError(error: unknown): WeirError | undefined {
  const seen = new Set<unknown>();
  const queue: unknown[] = [error];
  while (queue.length > 0) {
    const e = queue.shift();
    if (e === undefined || e === null || seen.has(e)) continue;
    seen.add(e);
    if (e instanceof WeirError) return e;
    if (e instanceof AggregateError) queue.push(...e.errors);
    if (e instanceof Error) queue.push(e.cause);
  }
  return undefined;
}

/** The code of an error that is a fault of the bytes of a record: whoever reads them, and whenever, finds the same. Undefined when it is not, and the record must be kept. */
export function recordFault(error: unknown): 'avro-undecodable' | 'schema-unknown' | 'subject-erased' | undefined {
  const code = (error as { code?: unknown } | null)?.code;
  return code === 'avro-undecodable' || code === 'schema-unknown' || code === 'subject-erased' ? code : undefined;
}

/** One thing wrong with a workspace file: where, what, and how to mend it. */
export interface WorkspaceProblem {
  readonly file: string;
  /** From 1; 0 when the whole file is meant. */
  readonly line: number;
  readonly message: string;
  readonly remedy: string;
}

/** Every problem of a workspace at once (code workspace-invalid). */
export class WorkspaceError extends WeirError {
  readonly problems: readonly WorkspaceProblem[];
  constructor(problems: readonly WorkspaceProblem[]) {
    super('workspace-invalid', problems.map((p) => `${p.file}:${p.line}: ${p.message} (${p.remedy})`).join('\n'));
    this.name = 'WorkspaceError';
    this.problems = problems;
  }
}
