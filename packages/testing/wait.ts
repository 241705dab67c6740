let counter = 0;

/** A topic prefix of its own, so that tests share a cluster and nothing else. */
export function testPrefix(name = 't'): string {
  return `${name}-${process.pid}-${Date.now().toString(36)}-${counter++}`;
}

/** Looks at a condition until it holds; its value when it does, an error that names it when the deadline is over. */
export async function waitFor<T>(what: string, condition: () => T | undefined | false | Promise<T | undefined | false>, deadlineMs = 30_000, everyMs = 25): Promise<T> {
  const end = performance.now() + deadlineMs;
  let last: unknown;
  for (;;) {
    try {
      const value = await condition();
      if (value !== undefined && value !== false) return value;
      last = value;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) throw new Error(`${what}: did not hold within ${deadlineMs} ms (last: ${last instanceof Error ? last.message : JSON.stringify(last)})`);
    await new Promise((done) => setTimeout(done, everyMs));
  }
}
