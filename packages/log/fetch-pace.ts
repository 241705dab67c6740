import { createSpacing } from './spacing.ts';

/** What one request brought, and whether all of it is of those who are urgent. */
export interface FetchAnswer {
  readonly bytes: number;
  readonly urgent: boolean;
}

/** When the next request to one broker may begin. Times are monotonic ms. */
export interface FetchPace {
  /** A request begins. */
  began(now: number): void;
  /** The one that begins after this answer to the last, at the earliest; it may be past. @param hurried somebody waits for what it brings: no further apart than on a machine that is not full */
  dueAt(answer: FetchAnswer, hurried?: boolean): number;
  /** Its timer fired so much later than it was due, ms. */
  fired(lateMs: number): void;
}

/** From the begin of one request to that of the next, as long as what comes is little: a request costs both sides as much as tens of records. */
const spacingMs = 8;
/** So many urgent requests go without it, as long as there are no more of them in as many times the spacing. */
const urgentBurst = 4;
/** An answer of so much is followed by the next request at once. */
const fullBytes = 64 * 1024;

export function createFetchPace(): FetchPace {
  const spacing = createSpacing(spacingMs);
  /** Begins of the last requests, the oldest first. */
  const begins: number[] = new Array<number>(urgentBurst).fill(-Infinity);
  return {
    began(now) {
      begins.push(now);
      begins.shift();
    },
    dueAt({ bytes, urgent }, hurried = false) {
      if (bytes >= fullBytes) return begins.at(-1)!;
      return urgent ? begins[0]! + urgentBurst * spacingMs : begins.at(-1)! + (hurried ? spacingMs : spacing.ms());
    },
    fired: spacing.fired,
  };
}
