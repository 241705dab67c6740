import { createPlatformaticLog } from './platformatic/log.ts';
import type { Log, LogOptions } from './types.ts';

/** The log over the driver asked for. Nothing is connected before the first call. */
export function createLog(options: LogOptions): Log {
  return createPlatformaticLog(options);
}
