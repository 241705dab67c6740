import type { Release } from '@weir/release';
import type { PolicyPorts } from './ports.ts';

/** The running release, when the partitions of what is written under it are known. */
export interface ReleaseTopics {
  /** Undefined while they are looked up; `changed` is told when that is over. */
  ready(): Release | undefined;
  /** For people: what it waits for; undefined = nothing is missing. */
  lacks(): string | undefined;
  stop(): void;
}

const againMs = 2000;

/** No such topic; or it was made again with fewer partitions than its keys are hashed over. */
const waited: ReadonlySet<string> = new Set(['log-fatal', 'topic-repartitioned']);

/**
 * A topic that the brokers do not have is waited for: what is decided for its destination can go nowhere, and what is behind it
 * keeps its place. The process goes on, for changes of consent are folded by it.
 *
 * Nothing is decided for the other destinations meanwhile, and that is on purpose (README, A missing topic): unlike absences of
 * packages/service, where each source or destination has a position of its own, they share the one of weir.canonical.
 */
export function createReleaseTopics(ports: Pick<PolicyPorts, 'appender' | 'metrics' | 'fail'> & { readonly context: Pick<PolicyPorts['context'], 'topics' | 'releases' | 'clock' | 'logger'> }, changed: () => void): ReleaseTopics {
  const { topics, releases, clock, logger } = ports.context;
  let prepared: Release | undefined;
  let preparing: Release | undefined;
  let missing: string | undefined;
  let timer: unknown;

  function tell(reason: string | undefined): void {
    if (reason !== undefined && reason !== missing) logger.error({ code: 'topic-missing', reason }, 'nothing is decided until the topic is there');
    missing = reason;
    ports.metrics.topicMissing.set(reason === undefined ? 0 : 1);
  }

  async function prepare(release: Release): Promise<void> {
    try {
      await Promise.all([topics.outcome, topics.dlq, ...[...release.destinations.keys()].map((name) => topics.dispatch(name))].map((topic) => ports.appender.partitions(topic)));
    } catch (error) {
      if (!waited.has((error as { code?: string }).code ?? '')) throw error;
      if (preparing !== release) return;
      tell((error as Error).message);
      timer = clock.setTimer(() => {
        timer = undefined;
        if (preparing === release) preparing = undefined;
        changed();
      }, againMs);
      return;
    }
    if (preparing !== release) return;
    if (missing !== undefined) tell(undefined);
    prepared = release;
    changed();
  }

  return {
    ready() {
      const release = releases.current();
      if (release === prepared) return release;
      if (preparing !== release) {
        preparing = release;
        if (timer !== undefined) clock.clearTimer(timer);
        timer = undefined;
        prepare(release).catch((error: unknown) => ports.fail(error));
      }
      return undefined;
    },
    lacks: () => (missing === undefined ? undefined : `topic-missing: ${missing}`),
    stop() {
      if (timer !== undefined) clock.clearTimer(timer);
    },
  };
}
