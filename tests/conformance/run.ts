import type { Row } from './row.ts';
import type { DriverName, World } from './world.ts';

export const drivers: readonly DriverName[] = ['platformatic', 'kafkajs'];

/** One row over one driver; rejects when it does not hold or does not end. */
export async function runRow(world: World, row: Row, driver: DriverName, limitMs = row.limitMs): Promise<string> {
  let timer: NodeJS.Timeout | undefined;
  const hang = new Promise<never>((_, reject) => { timer = setTimeout(() => reject(new Error(`it did not end within ${limitMs / 1000} s`)), limitMs); });
  try {
    return await Promise.race([row.run(world, driver), hang]);
  } finally {
    clearTimeout(timer);
    await world.endOfRow();
  }
}
