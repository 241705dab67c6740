/** What a vendor is to the sandbox: a pure rule over a request and the vendor's own state. */

export interface VendorRequest {
  readonly destination: string;
  readonly method: string;
  /** Below the destination's base URL, without the leading slash and the query. */
  readonly path: string;
  /** What follows the `?`, decoded; absent = none. */
  readonly query?: URLSearchParams;
  /** Names lower case. */
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly raw: Buffer;
  /** The body as JSON; undefined when it is none. */
  readonly json: unknown;
  /** ms since the epoch. */
  readonly now: number;
}

/** One line of the log: what arrived and whether it took effect. */
export interface Arrival {
  readonly operation: string;
  /** Key by which the vendor tells a repetition; null where it has none. */
  readonly idempotencyKey: string | null;
  readonly subject: string | null;
  readonly applied: boolean;
  readonly body: unknown;
}

export interface Reply {
  readonly status: number;
  readonly contentType: string;
  readonly body: unknown;
  readonly arrivals: readonly Arrival[];
  /** Changes of the vendor's state; kept in the log with the first arrival. */
  readonly puts: ReadonlyArray<readonly [key: string, value: string]>;
}

export interface VendorState {
  get(key: string): string | undefined;
}

export interface Vendor {
  /** What the request is about, for the log, also when it is refused. */
  look(request: VendorRequest): { readonly operation: string; readonly subject: string | null };
  handle(request: VendorRequest, state: VendorState): Reply;
  /** An error in the vendor's own shape. */
  refusal(status: number, code: string, detail: string): { readonly contentType: string; readonly body: unknown };
}
