import type { Heads } from './heads.ts';
import type { PolicyPorts } from './ports.ts';

/** What a record comes after: consent changes and identity links of its own item. */
export interface Dependencies {
  /**
   * True when all that the record comes after is in the tables; false while it is not; undefined when the header is
   * broken: it is no list of positions, or names a partition that the brokers still do not have some time after the
   * record came. @param arrivedAt monotonic ms at which the record had come
   */
  met(heads: Pick<Heads, 'afterConsent' | 'afterIdentity'>, arrivedAt: number): boolean | undefined;
  /** Asks how many partitions there are. */
  load(): Promise<void>;
  stop(): void;
}

/** Brokers may not all know of partitions just added; who wrote the record knew of them before. */
const settleMs = 3000;
const askEveryMs = 250;
const position = /^(\d{1,6}):(\d{1,16})$/;

/**
 * Partitions are added while the services run, and the normalizer may know of them first. A partition that is not known
 * is asked for again at the brokers, and waited for like a position that is not reached. @param changed called after each answer
 */
export function createDependencies(ports: Pick<PolicyPorts, 'admin' | 'tables' | 'fail'> & { readonly context: Pick<PolicyPorts['context'], 'topics' | 'clock'> }, changed: () => void): Dependencies {
  const { admin, tables } = ports;
  const { topics, clock } = ports.context;
  /** Partition counts of weir.consent.changes and weir.identity, and when they were asked for. */
  let counts: readonly [number, number] = [0, 0];
  let askedAt = -Infinity;
  let timer: unknown;
  let asking = false;
  let stopped = false;

  async function load(): Promise<void> {
    const at = clock.monotonic();
    counts = await Promise.all([admin.partitions(topics.consentChanges), admin.partitions(topics.identity)]);
    askedAt = at;
  }

  function askAgain(): void {
    if (asking || timer !== undefined || stopped) return;
    timer = clock.setTimer(() => {
      timer = undefined;
      asking = true;
      load().catch((error: unknown) => {
        const { code } = error as { code?: string };
        // Brokers that are away are asked again: nothing is rejected on an old answer.
        if (!stopped && code !== 'log-deadline' && code !== 'log-unavailable') ports.fail(error);
      }).finally(() => {
        asking = false;
        if (!stopped) changed();
      });
    }, askEveryMs);
  }

  /** Whether the table is past every position of a header; `kind` 0 = consent, 1 = identity. */
  function reached(header: string | undefined, kind: 0 | 1, arrivedAt: number): boolean | undefined {
    if (header === undefined || header === '') return true;
    for (const part of header.split(',')) {
      const match = position.exec(part);
      if (match === null) return undefined;
      const partition = Number(match[1]);
      if (partition >= counts[kind]) {
        if (askedAt >= arrivedAt + settleMs) return undefined;
        askAgain();
        return false;
      }
      if ((kind === 0 ? tables.folded(partition) : tables.identityPosition(partition)) <= Number(match[2])) return false;
    }
    return true;
  }

  return {
    load,
    met({ afterConsent, afterIdentity }, arrivedAt) {
      const consent = reached(afterConsent, 0, arrivedAt);
      return consent === true ? reached(afterIdentity, 1, arrivedAt) : consent;
    },
    stop() {
      stopped = true;
      if (timer !== undefined) clock.clearTimer(timer);
    },
  };
}
