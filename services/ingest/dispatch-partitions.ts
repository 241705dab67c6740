import type { LogAdmin } from '@weir/log';
import type { TopicNames } from '@weir/pipeline';
import type { Clock } from '@weir/service';

/** How many partitions the dispatch topics have with which polled sources share an account, asked again once a minute: partitions may be added while a release runs. */
export interface DispatchPartitions {
  /** Undefined while its topic is not there. */
  of(destination: string): number | undefined;
  /** These from now on. Rejects where one cannot be asked for and was never known. */
  follow(destinations: readonly string[]): Promise<void>;
  close(): void;
}

const againMs = 60_000;
/** What is known stands: brokers are away, or the topic was deleted, which is for who dispatches from it to tell. */
const stands: ReadonlySet<string> = new Set(['log-unavailable', 'log-deadline', 'log-fatal']);

export function createDispatchPartitions(ports: { readonly admin: Pick<LogAdmin, 'partitions'>; readonly topics: Pick<TopicNames, 'dispatch'>; readonly clock: Pick<Clock, 'setTimer' | 'clearTimer'>; readonly fail: (error: unknown) => void }): DispatchPartitions {
  const { admin, topics, clock } = ports;
  const counts = new Map<string, number>();
  let names: readonly string[] = [];
  let timer: unknown;
  let closed = false;

  async function count(): Promise<void> {
    for (const name of names) {
      try {
        counts.set(name, await admin.partitions(topics.dispatch(name)));
      } catch (error) {
        const { code = '' } = error as { code?: string };
        if (!stands.has(code) || (code !== 'log-fatal' && !counts.has(name))) throw error;
      }
    }
  }

  function later(): void {
    if (closed || timer !== undefined || names.length === 0) return;
    timer = clock.setTimer(() => {
      count().catch((error: unknown) => {
        // One that was never known is asked for again.
        if (!closed && !stands.has((error as { code?: string }).code ?? '')) ports.fail(error);
      }).finally(() => {
        timer = undefined;
        later();
      });
    }, againMs);
  }

  return {
    of: (destination) => counts.get(destination),
    async follow(destinations) {
      names = destinations;
      await count();
      later();
    },
    close() {
      closed = true;
      if (timer !== undefined) clock.clearTimer(timer);
    },
  };
}
