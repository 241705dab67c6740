import type { Appender, LogAdmin } from '@weir/log';
import type { Clock } from '@weir/service';
import type { Logger } from 'pino';
import type { DispatcherMetrics } from './metrics.ts';

/** Destinations of the running release that lack a topic: they are not begun, and looked at again until it is there. */
export interface Absences {
  /** Whether every one of its topics is there. If not, it is told of, and `again` comes in a while. Rejects with what ended the question. */
  allThere(destination: string, topics: readonly string[]): Promise<boolean>;
  /** The others are of no interest any more. */
  keep(wanted: (destination: string) => boolean): void;
  /** For people; undefined = nothing is missing. */
  reason(): string | undefined;
  close(): void;
}

interface Ports {
  readonly appender: Pick<Appender, 'partitions'>;
  readonly admin: Pick<LogAdmin, 'describeTopics'>;
  readonly clock: Pick<Clock, 'setTimer' | 'clearTimer'>;
  readonly logger: Pick<Logger, 'error' | 'info'>;
  readonly metrics: Pick<DispatcherMetrics, 'topicMissing'>;
  readonly again: () => void;
}

const againMs = 5000;
const remedy = 'create it with: weir topics apply; what was on it and had not ended is to be replayed';

/** A topic that somebody deleted must not end the process at each of its starts: the other destinations have nothing to do with it. */
export function createAbsences({ appender, admin, clock, logger, metrics, again }: Ports): Absences {
  const missing = new Map<string, readonly string[]>();
  let timer: unknown;

  function forget(destination: string): void {
    if (missing.delete(destination)) metrics.topicMissing.remove({ destination });
  }

  return {
    async allThere(destination, topics) {
      const looks = await Promise.allSettled(topics.map((topic) => appender.partitions(topic)));
      const failed = looks.find((look) => look.status === 'rejected');
      if (failed === undefined) {
        if (missing.has(destination)) logger.info({ destination }, 'its topics are there again');
        forget(destination);
        return true;
      }
      const absent = (await admin.describeTopics(topics)).filter(({ exists }) => !exists).map(({ name }) => name);
      if (absent.length === 0 && (failed.reason as { code?: string }).code !== 'log-fatal') throw failed.reason;
      if (!missing.has(destination)) logger.error({ destination, topics: absent, code: 'topic-missing' }, `a destination waits for its topic: ${remedy}`);
      missing.set(destination, absent);
      metrics.topicMissing.set({ destination }, 1);
      timer ??= clock.setTimer(() => {
        timer = undefined;
        again();
      }, againMs);
      return false;
    },
    keep(wanted) {
      for (const name of [...missing.keys()]) if (!wanted(name)) forget(name);
    },
    reason() {
      const [first] = missing;
      return first === undefined ? undefined : `topic-missing: the destination ${first[0]} waits for ${first[1].join(', ')}; ${remedy}`;
    },
    close() {
      if (timer !== undefined) clock.clearTimer(timer);
    },
  };
}
