import type { RateHeaders } from '@weir/adapter';
import type { Rate } from './limits.ts';

/** What an answer says. */
export interface ToldRate {
  readonly remaining?: number;
  /** From the answer to the reset, ms. */
  readonly resetMs?: number;
  /** Limits with a known window. */
  readonly rates: readonly Rate[];
}

/**
 * Fields that are read at every vendor: draft-ietf-httpapi-ratelimit-headers-03 to -06 (RateLimit-Limit, -Remaining,
 * -Reset in seconds, windows as `;w=`), and the X- forms before it, whose reset is seconds, or an epoch in s or ms.
 * The fields of -07 and later, `RateLimit` and `RateLimit-Policy`, are structured and read by `readStructured`.
 */
export const standardHeaders: readonly RateHeaders[] = [
  { limit: 'ratelimit-limit', remaining: 'ratelimit-remaining', reset: 'ratelimit-reset', resetIn: 'auto' },
  { limit: 'x-ratelimit-limit', remaining: 'x-ratelimit-remaining', reset: 'x-ratelimit-reset', resetIn: 'auto' },
  { limit: 'x-rate-limit-limit', remaining: 'x-rate-limit-remaining', reset: 'x-rate-limit-reset', resetIn: 'auto' },
];

type Headers = Readonly<Record<string, string | undefined>>;
const maxLength = 500;
const maxRates = 4;
const maxCount = 1e9;
const dayMs = 86_400_000;

const textOf = (headers: Headers, name: string | undefined): string | undefined => {
  const text = name === undefined ? undefined : headers[name]?.trim();
  return text === undefined || text === '' || text.length > maxLength ? undefined : text;
};
const countOf = (text: string | undefined): number | undefined => {
  if (text === undefined || !/^\d{1,10}(\.\d{1,6})?$/.test(text)) return undefined;
  const n = Number(text);
  return n <= maxCount ? n : undefined;
};

function resetOf(text: string | undefined, unit: RateHeaders['resetIn'], now: number): number | undefined {
  if (text === undefined || !/^\d{1,16}(\.\d{1,6})?$/.test(text)) return undefined;
  const n = Number(text);
  const kind = unit === undefined || unit === 'auto' ? (n >= 1e11 ? 'epoch-ms' : n >= 1e8 ? 'epoch-seconds' : 'seconds') : unit;
  const ms = kind === 'seconds' ? n * 1000 : kind === 'ms' ? n : kind === 'epoch-ms' ? n - now : n * 1000 - now;
  // A day and more is no window that a client waits for: such a reset is left out, and the count goes by itself.
  return ms >= 0 && ms <= dayMs ? ms : undefined;
}

/** `100;w=60, 1000;w=3600`, also with a leading plain number; `q=` of the later drafts. */
function ratesOf(text: string | undefined, windowMs: number | undefined): Rate[] {
  if (text === undefined) return [];
  const found: Rate[] = [];
  for (const part of text.split(',').slice(0, maxRates + 1)) {
    const [head, ...parameters] = part.split(';').map((p) => p.trim());
    const parameter = (name: string): number | undefined => countOf(parameters.find((p) => p.startsWith(`${name}=`))?.slice(name.length + 1));
    const count = parameter('q') ?? countOf(head);
    const seconds = parameter('w');
    const perMs = seconds === undefined ? windowMs : seconds * 1000;
    if (count !== undefined && count > 0 && perMs !== undefined && perMs > 0 && perMs <= 31 * dayMs) found.push({ count, perMs });
  }
  return found.slice(0, maxRates);
}

/** `RateLimit: "default";r=50;t=30`: the policy with the least left is what binds. */
function readStructured(headers: Headers, now: number): ToldRate | undefined {
  const text = textOf(headers, 'ratelimit');
  const rates = ratesOf(textOf(headers, 'ratelimit-policy'), undefined);
  let remaining: number | undefined;
  let resetMs: number | undefined;
  for (const part of text?.split(',').slice(0, maxRates) ?? []) {
    const r = countOf(/;\s*r\s*=\s*([\d.]+)/.exec(part)?.[1]);
    if (r === undefined || (remaining !== undefined && remaining <= r)) continue;
    remaining = r;
    resetMs = resetOf(/;\s*t\s*=\s*([\d.]+)/.exec(part)?.[1], 'seconds', now);
  }
  return remaining === undefined && rates.length === 0 ? undefined : { remaining, resetMs, rates };
}

/**
 * What the answer says of the limit; undefined when it says nothing that can be used. `own` is read before the
 * standard names. Whatever a header holds, this neither throws nor gives a number out of bounds: it is a stranger's.
 * @param now ms since the epoch, for resets that are dates
 */
export function readRateHeaders(headers: Headers, own: RateHeaders | undefined, now: number): ToldRate | undefined {
  const structured = readStructured(headers, now);
  if (structured !== undefined) return structured;
  for (const names of own === undefined ? standardHeaders : [own, ...standardHeaders]) {
    const remaining = countOf(textOf(headers, names.remaining));
    const rates = ratesOf(textOf(headers, names.limit), names.windowMs);
    if (remaining !== undefined || rates.length > 0) return { remaining, resetMs: resetOf(textOf(headers, names.reset), names.resetIn, now), rates };
  }
  return undefined;
}
