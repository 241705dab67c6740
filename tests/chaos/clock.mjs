// Preloaded into a service under chaos: its wall clock is that of the machine plus the offset (ms) in the file
// WEIR_TEST_CLOCK, read again all the time. The monotonic clock stays as it is, as after a step by NTP.
import { readFileSync } from 'node:fs';

const file = process.env.WEIR_TEST_CLOCK;
const RealDate = Date;
const now = RealDate.now;
let offset = 0;
const read = () => {
  try {
    offset = Number(readFileSync(file, 'utf8')) || 0;
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
  }
};
if (file !== undefined) {
  read();
  setInterval(read, 250).unref();
  RealDate.now = () => now() + offset;
  globalThis.Date = new Proxy(RealDate, { construct: (target, args, self) => Reflect.construct(target, args.length === 0 ? [RealDate.now()] : args, self === globalThis.Date ? target : self) });
}
