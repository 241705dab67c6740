import type { ErrorCode } from '@weir/errors';
import { incidentName, type Incident } from '@weir/release';
import type { Logger } from 'pino';

export interface PollIncidentPorts {
  /** Incidents on weir.control, as this process has read them. */
  readonly incidents: () => ReadonlyMap<string, Incident>;
  /** Puts the incident on weir.control; resolves when it is acknowledged. */
  readonly save: (incident: Incident) => Promise<void>;
  readonly now: () => number;
  readonly logger: Pick<Logger, 'error' | 'info'>;
}

/** The page of one source that can not be taken. */
export interface PollIncident {
  /** The page asked for with this cursor failed as a whole; `code` says how. */
  failed(code: ErrorCode, cursor: string): void;
  /** A page was taken: what lasted is over. */
  over(): void;
  /** Another may poll now: what it tells counts from here on. */
  lost(): void;
  /** Resolves when what was to be told is told, or could not be. */
  settled(): Promise<void>;
}

/** With the back-off of the poller about a minute. */
const failuresToTell = 5;

/**
 * Tells people of a source that stands still: the same page failed in the same way several times on end. Nothing of it is
 * skipped, because nobody knows what it holds; it is asked for again, and the incident ends with the first page that is taken.
 */
export function createPollIncident(source: string, ports: PollIncidentPorts): PollIncident {
  const name = incidentName.source(source);
  let failure = '';
  let failures = 0;
  let since = 0;
  /** Told by this process, and perhaps not read back yet. */
  let told: Incident | undefined;
  let saving: Promise<void> = Promise.resolve();

  const open = (): Incident | undefined => {
    if (told !== undefined) return told.until === null ? told : undefined;
    const known = ports.incidents().get(name);
    return known?.until === null ? known : undefined;
  };

  function tell(incident: Incident): void {
    const before = told;
    told = incident;
    saving = saving.then(() => ports.save(incident)).catch((error: unknown) => {
      // Tried again at the next failure, or the next page.
      if (told === incident) told = before;
      ports.logger.error({ err: error, source }, 'incident not saved');
    });
  }

  return {
    failed(code, cursor) {
      const same = `${code} ${cursor}`;
      if (same !== failure) since = ports.now();
      failures = same === failure ? failures + 1 : 1;
      failure = same;
      if (failures < failuresToTell || open() !== undefined) return;
      ports.logger.error({ source, code, failures, since: new Date(since).toISOString() }, 'the source stands still: its page fails again and again');
      tell({ destination: name, code, since, until: null });
    },
    over() {
      failure = '';
      failures = 0;
      const incident = open();
      if (incident !== undefined) tell({ ...incident, until: ports.now() });
    },
    lost() {
      failure = '';
      failures = 0;
      told = undefined;
    },
    settled: () => saving,
  };
}
