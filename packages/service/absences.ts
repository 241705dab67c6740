import type { Appender, LogAdmin } from '@weir/log';
import type { Gauge } from 'prom-client';
import type { Logger } from 'pino';
import type { Clock } from './types.ts';

/** Sources or destinations of the running release that lack a topic: they are not begun, and looked at again until it is there. */
export interface Absences {
  /** Whether every one of its topics is there. If not, it is told of, and `again` comes in a while. Rejects with what ended the question. */
  allThere(name: string, topics: readonly string[]): Promise<boolean>;
  /** Whether it was not, when it was last asked. */
  lacks(name: string): boolean;
  /** The others are of no interest any more. */
  keep(wanted: (name: string) => boolean): void;
  /** For people; undefined = nothing is missing. */
  reason(): string | undefined;
  close(): void;
}

interface Ports {
  readonly what: 'source' | 'destination';
  readonly appender: Pick<Appender, 'partitions'>;
  readonly admin: Pick<LogAdmin, 'describeTopics'>;
  readonly clock: Pick<Clock, 'setTimer' | 'clearTimer'>;
  readonly logger: Pick<Logger, 'error' | 'info'>;
  /** 1 for each that waits; its label is `what`. */
  readonly gauge: Pick<Gauge, 'set' | 'remove'>;
  readonly again: () => void;
}

const againMs = 5000;
const remedies: Readonly<Record<Ports['what'], string>> = {
  source: 'create it with: weir topics apply; what was on it and had not ended is lost to Weir, have it sent again',
  destination: 'create it with: weir topics apply; what was on it and had not ended is to be replayed',
};

/** A topic that somebody deleted must not end the process at each of its starts: the other sources or destinations have nothing to do with it. */
export function createAbsences({ what, appender, admin, clock, logger, gauge, again }: Ports): Absences {
  const remedy = remedies[what];
  /** What each waits for. */
  const missing = new Map<string, string>();
  let timer: unknown;

  function forget(name: string): void {
    if (missing.delete(name)) gauge.remove({ [what]: name });
  }

  return {
    async allThere(name, topics) {
      const looks = await Promise.allSettled(topics.map((topic) => appender.partitions(topic)));
      const failed = looks.find((look) => look.status === 'rejected');
      if (failed === undefined) {
        if (missing.has(name)) logger.info({ [what]: name }, 'its topics are there again');
        forget(name);
        return true;
      }
      const { code, message } = failed.reason as { code?: string; message: string };
      const absent = (await admin.describeTopics(topics)).filter(({ exists }) => !exists).map((topic) => topic.name);
      const other = absent.length === 0 && code === 'topic-repartitioned';
      if (absent.length === 0 && !other && code !== 'log-fatal') throw failed.reason;
      if (!missing.has(name)) logger.error({ [what]: name, topics: absent, code: other ? code : 'topic-missing' }, `a ${what} waits for its topic: ${other ? message : remedy}`);
      missing.set(name, other ? `${code}: the ${what} ${name} waits: ${message}` : `topic-missing: the ${what} ${name} waits for ${absent.join(', ')}; ${remedy}`);
      gauge.set({ [what]: name }, 1);
      timer ??= clock.setTimer(() => {
        timer = undefined;
        again();
      }, againMs);
      return false;
    },
    lacks: (name) => missing.has(name),
    keep(wanted) {
      for (const name of [...missing.keys()]) if (!wanted(name)) forget(name);
    },
    reason: () => missing.values().next().value,
    close() {
      if (timer !== undefined) clock.clearTimer(timer);
    },
  };
}
