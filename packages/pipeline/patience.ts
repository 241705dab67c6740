/** Of a service's clock. */
export interface Timers { setTimer(callback: () => void, ms: number): unknown }

/** Brokers or a registry that are away, or take too long to answer: nothing of it says that it cannot be done. */
const away: ReadonlySet<string> = new Set(['log-unavailable', 'log-deadline']);
/** As `away`, or because the partition is another one's by now. */
const passing: ReadonlySet<string> = new Set([...away, 'log-assignment-stale']);
const againMs = 200;

const codeOf = (error: unknown): string => (error as { code?: string } | null)?.code ?? '';
/** What may end work on the log without saying anything of it, or because its partition is another one's. */
export const isPassing = (error: unknown): boolean => passing.has(codeOf(error));
/** What says of work that begins anew after it only that brokers or a registry are away; of an append it is not known whether it was written. */
export const isAway = (error: unknown): boolean => away.has(codeOf(error)) || codeOf(error) === 'log-append-failed';
/** Resolves when it is time to try again. */
export const soon = (clock: Timers): Promise<void> => new Promise((resolve) => { clock.setTimer(resolve, againMs); });

/** Does what may be done twice until it is done: brokers and a registry that are away for a while are no end of the process. Rejects with what ended it, and with whatever it was once `gone`. `waits` is told each time. `passes`: what is waited for; `isAway` for who may append again. */
export async function patiently<T>(clock: Timers, gone: () => boolean, work: () => Promise<T>, waits?: (error: unknown) => void, passes = (error: unknown): boolean => away.has(codeOf(error))): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (gone() || !passes(error)) throw error;
      waits?.(error);
      await soon(clock);
      if (gone()) throw error;
    }
  }
}
