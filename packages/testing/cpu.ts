/** Processor time that this thread takes for some work, in milliseconds: unlike time on the clock it does not grow with what else runs on the machine. */
export function cpuMs(work: () => void): number {
  const before = process.threadCpuUsage();
  work();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1000;
}
