import { arm, standStill } from '@weir/failpoint';

/** Arms the points of WEIR_FAILPOINTS in this process: it kills itself or stands still there. Tests only. Throws config-invalid. */
export function armFailpoints(spec: string | undefined): void {
  if (spec === undefined) return;
  arm(spec, (point, stallMs) => {
    if (stallMs === 0) process.kill(process.pid, 'SIGKILL');
    standStill(stallMs);
    console.error(`stood still for ${stallMs} ms at ${point}`);
  });
}
