/**
 * Full-jitter exponential backoff in milliseconds: uniform in [base/2, min(cap, base * 2^(attempt-1))].
 * Source: AWS Architecture Blog, "Exponential Backoff And Jitter". `attempt` is 1 after the first failure.
 */
export function backoffMs(attempt: number, random: number, base = 200, cap = 60_000): number {
  const ceiling = Math.min(cap, base * 2 ** Math.min(attempt - 1, 20));
  return Math.round(base / 2 + random * Math.max(0, ceiling - base / 2));
}
