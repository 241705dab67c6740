/** Token buckets by name, at most `maxNames`: past that an unknown name shares one bucket with the others. */
export function createRate(perSecond: number, burst: number, monotonic: () => number, maxNames = 1000): (name: string) => boolean {
  const buckets = new Map<string, { left: number; at: number }>();
  return (name) => {
    const now = monotonic();
    const key = buckets.has(name) || buckets.size < maxNames ? name : '';
    const bucket = buckets.get(key) ?? { left: burst, at: now };
    bucket.left = Math.min(burst, bucket.left + ((now - bucket.at) / 1000) * perSecond);
    bucket.at = now;
    buckets.set(key, bucket);
    if (bucket.left < 1) return false;
    bucket.left--;
    return true;
  };
}
