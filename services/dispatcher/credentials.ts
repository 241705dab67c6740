import { isDeepStrictEqual } from 'node:util';
import { findWeirError, type ErrorCode } from '@weir/errors';
import { incidentAbout, resolveConfig, type DestinationConfig, type Incident, type ReleaseFeed } from '@weir/release';
import type { Clock } from '@weir/service';
import type { Vault } from '@weir/vault';
import type { Logger } from 'pino';
import { Gauge, type Registry } from 'prom-client';

export interface Credentials {
  /** The destination of the running release with its secrets; undefined when it is not in the release or a secret cannot be had: it is not called and keeps its events. `config` is the same object while its values, secrets too, are the same. */
  destination(name: string): DestinationConfig | undefined;
  /** The vendor refused the credential: the vault is asked again and an incident begins, or goes on. */
  rejected(name: string): void;
  /** The vendor answered a call that carried the credential: an incident ends. */
  accepted(name: string): void;
  close(): Promise<void>;
}

interface Ports {
  readonly vault: Vault;
  readonly releases: Pick<ReleaseFeed, 'current' | 'incidents'>;
  readonly sandboxUrl: string;
  readonly logger: Logger;
  readonly registry: Registry;
  readonly clock: Clock;
  /** Puts the incident on weir.control; resolves when it is acknowledged. */
  readonly save: (incident: Incident) => Promise<void>;
  /** A destination can be had again, or has another credential. */
  readonly changed: () => void;
}

const firstRetryMs = 500;
const maxRetryMs = 30_000;

/**
 * Credentials of the destinations. One that cannot be resolved is tried again with a backoff of its own (0.5 s
 * to 30 s) and whenever the vault changed. An incident keeps its start over restarts and instances.
 */
export function createCredentials(ports: Ports): Credentials {
  const { vault, releases, logger, clock } = ports;
  const paused = new Gauge({ name: 'weir_destination_credential_paused', help: '1 while the destination is paused because its secret cannot be had or is refused.', labelNames: ['destination', 'code'], registers: [ports.registry] });
  const resolved = new Map<string, DestinationConfig>();
  const open = new Map<string, Incident>();
  let resolvedFor = '';
  let resolvedRevision = -1;
  let timer: unknown;
  let tries = 0;
  let saving: Promise<void> = Promise.resolve();
  const off = vault.onChange(() => { ports.changed(); });

  for (const incident of releases.incidents().values()) if (incident.until === null && incidentAbout(incident.destination).kind === 'destination') begin(incident.destination, incident.code as ErrorCode, incident.since);

  function save(incident: Incident): void {
    // Out of reach the log fails the work itself; the incident is in the log file and the metric then.
    saving = saving.then(() => ports.save(incident)).catch((error: unknown) => logger.error({ err: error, destination: incident.destination }, 'incident not saved'));
  }

  function begin(destination: string, code: ErrorCode, since?: number): void {
    const known = open.get(destination);
    if (known?.code === code) return;
    if (known !== undefined) paused.remove({ destination, code: known.code });
    // Another instance may have noticed it first.
    const told = releases.incidents().get(destination);
    const incident: Incident = { destination, code, since: since ?? known?.since ?? (told?.until === null ? told.since : clock.now()), until: null };
    open.set(destination, incident);
    paused.set({ destination, code }, 1);
    if (since === undefined) save(incident);
    logger.error({ destination, code, since: new Date(incident.since).toISOString() }, 'destination paused: credential');
  }

  function end(destination: string): void {
    const known = open.get(destination);
    if (known === undefined) return;
    open.delete(destination);
    paused.remove({ destination, code: known.code });
    save({ ...known, until: clock.now() });
    logger.info({ destination, code: known.code, since: new Date(known.since).toISOString() }, 'destination goes on: credential');
  }

  function retryLater(): void {
    if (timer !== undefined) return;
    timer = clock.setTimer(() => {
      timer = undefined;
      // Resolved again by the next destination(); the vault answers from memory when it is up to date.
      resolvedFor = '';
      void vault.refresh().then(ports.changed, (error: unknown) => {
        logger.error({ err: error }, 'vault refresh failed');
        ports.changed();
      });
    }, Math.min(maxRetryMs, firstRetryMs * 2 ** Math.min(tries++, 10)));
  }

  function resolveAll(): void {
    const before = new Map(resolved);
    resolved.clear();
    let missing = false;
    for (const config of releases.current().destinations.values()) {
      try {
        const known = before.get(config.name)?.config;
        const found = resolveConfig(config.config, { vault, sandboxUrl: ports.sandboxUrl, sentBy: config.adapter.manifest.destination?.config });
        resolved.set(config.name, { ...config, config: isDeepStrictEqual(known, found) ? known! : found });
        if (open.get(config.name)?.code !== 'credential-rejected') end(config.name);
      } catch (error) {
        const known = findWeirError(error);
        if (known === undefined) throw error;
        if (open.get(config.name)?.code !== known.code) logger.warn({ destination: config.name, reason: known.message }, 'no usable secret');
        begin(config.name, known.code);
        missing = true;
      }
    }
    for (const name of open.keys()) if (!releases.current().destinations.has(name)) end(name);
    if (missing) retryLater();
    else tries = 0;
  }

  return {
    destination(name) {
      const { hash } = releases.current();
      const revision = vault.revision();
      if (hash !== resolvedFor || revision !== resolvedRevision) {
        resolvedFor = hash;
        resolvedRevision = revision;
        resolveAll();
      }
      return resolved.get(name);
    },
    rejected(name) {
      begin(name, 'credential-rejected');
      void vault.refresh(true).catch((error: unknown) => logger.error({ err: error }, 'vault refresh failed'));
    },
    accepted(name) {
      if (open.size > 0) end(name);
    },
    async close() {
      off();
      if (timer !== undefined) clock.clearTimer(timer);
      await saving;
    },
  };
}
