import type { OperationManifest } from '@weir/adapter';

type Limit = OperationManifest['limit'];

/** What a call counts against. */
export interface Draw {
  readonly bucket: string;
  readonly limit: Limit;
}

/** Calls of these operations count together. */
export const bucketOf = (operation: string, limit: Limit): string => limit?.bucket ?? operation;

/** What a call of an operation counts against. */
export const drawOf = (name: string, operation: OperationManifest): Draw => ({ bucket: bucketOf(name, operation.limit), limit: operation.limit });

/** What a look at what the vendor has counts against: a limit of its own where the vendor states one, else that of its operation. */
export function readBackDraw(name: string, operation: OperationManifest): Draw {
  const own = operation.verify?.limit;
  return own === undefined ? drawOf(name, operation) : { bucket: bucketOf(`${name} read-back`, own), limit: own };
}
