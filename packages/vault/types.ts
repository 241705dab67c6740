import type { Secret } from '@weir/config';

/** What a provider knows of one secret. */
export interface StoredSecret {
  readonly value: string;
  /** The signing half of a local pair. */
  readonly signingValue?: string;
  /** The value before the last rotation, accepted until `previousUntil` (ms since the epoch). */
  readonly previous?: string;
  readonly previousUntil?: number;
  /** Of a refresh token only: SHA-256 of the OAuth2 client that it was given to. */
  readonly of?: string;
  /** Of a refresh token only: when it was kept, ms since the epoch. */
  readonly keptAt?: number;
}

export interface VaultStatus {
  /** False: the last read of the provider failed; what was read before serves until it is `maxStaleMs` old. */
  readonly available: boolean;
  /** Why not, without any secret. */
  readonly reason?: string;
  /** Ms since the epoch of the first failed read in a row. */
  readonly since?: number;
}

/**
 * Secrets by name. Reads are synchronous and from memory or the local file, so that a hot path never waits for a
 * remote provider; `refresh` and a timer keep the memory up to date.
 */
export interface Vault {
  /**
   * The secret of this name; of an OAuth2 client its access token, never one that has run out. Throws WeirError config-invalid that names it and says how to set it, or
   * secret-unavailable when its provider cannot be asked: that one heals by itself.
   */
  get(name: string): Secret;
  has(name: string): boolean;
  /** Scopes of the access token of an OAuth2 client; while there is none, those that it asks for. Undefined: not known, or it is no client. Never throws for what cannot be had. */
  scopes(name: string): readonly string[] | undefined;
  /** The signing half of a local pair, when there is one (see WebhookSource.localSecrets). */
  signing(name: string): Secret | undefined;
  /** The value before the last rotation while both are accepted. */
  previous(name: string): Secret | undefined;
  /** Grows with every change of a value that this process has noticed, and in the moment in which an access token runs out. */
  revision(): number;
  /** Called after a change was noticed; returns what ends it. */
  onChange(listener: () => void): () => void;
  /** Ask the providers now, and token servers for tokens that are due: also those of clients that are asked for meanwhile; of the secrets in `force` also for new access tokens although the old look valid (a vendor refused one), for each at most every 10 s; those of others stay. Calls at the same time share one read. A provider's failure does not reject: see status(). */
  refresh(force?: readonly string[]): Promise<void>;
  status(): VaultStatus;
  close(): void;
}
