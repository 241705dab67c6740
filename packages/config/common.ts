import { defineConfig } from './config.ts';
import { securityOptions } from './connection.ts';

/** Options that every service reads. */
export const commonOptions = defineConfig({
  brokers: { env: 'KAFKA_BROKERS', type: 'list', doc: 'Kafka bootstrap servers, host:port, comma-separated.' },
  registryUrl: { env: 'SCHEMA_REGISTRY_URL', type: 'string', doc: 'Confluent-compatible schema registry, e.g. http://127.0.0.1:8085/apis/ccompat/v7.' },
  kafkaClient: { env: 'WEIR_KAFKA_CLIENT', type: 'enum', values: ['platformatic', 'kafkajs'], default: 'platformatic', doc: 'Kafka client driver.' },
  ...securityOptions,
  topicPrefix: { env: 'WEIR_TOPIC_PREFIX', type: 'string', default: 'weir', doc: 'Prefix of every topic and group of this workspace.' },
  dataDir: { env: 'WEIR_DATA', type: 'string', default: '.weir', doc: 'Folder of local caches (SQLite), keys and the embedded platform.' },
  workspaceKey: { env: 'WEIR_KEY', type: 'secret', optional: true, doc: 'Workspace key, 32 bytes base64url, or wrapped by the Transit engine of the vault (vault:v…, see weir vault wrap-key); default: created once as <WEIR_DATA>/workspace.key.' },
  sealing: { env: 'WEIR_SEALING', type: 'boolean', default: true, doc: 'Seal personal data on the topics: canonical records and deliveries under a key per person, raw items under a key per source and day.' },
  vaultAddr: { env: 'WEIR_VAULT_ADDR', type: 'string', optional: true, doc: 'HashiCorp Vault or OpenBao, e.g. https://vault.example:8200; without it secrets come from the environment and the sealed file.' },
  vaultAllowHttp: { env: 'WEIR_VAULT_ALLOW_HTTP', type: 'boolean', default: false, doc: 'Take an http:// address of the vault that is not loopback: its token and every secret go over the network in the clear.' },
  vaultPath: { env: 'WEIR_VAULT_PATH', type: 'string', default: 'secret/weir', doc: 'KV v2 document, <mount>/<path>; each field is a secret.' },
  vaultNamespace: { env: 'WEIR_VAULT_NAMESPACE', type: 'string', optional: true, doc: 'Namespace of the vault.' },
  vaultToken: { env: 'WEIR_VAULT_TOKEN', type: 'secret', optional: true, doc: 'Token of the vault, where AppRole is not used.' },
  vaultRoleId: { env: 'WEIR_VAULT_ROLE_ID', type: 'string', optional: true, doc: 'AppRole role id.' },
  vaultSecretId: { env: 'WEIR_VAULT_SECRET_ID', type: 'secret', optional: true, doc: 'AppRole secret id.' },
  vaultTransitKey: { env: 'WEIR_VAULT_TRANSIT_KEY', type: 'string', default: 'transit/weir', doc: 'Transit key, <mount>/<key>, that a wrapped WEIR_KEY (vault:v…) is opened with.' },
  vaultTimeoutMs: { env: 'WEIR_VAULT_TIMEOUT_MS', type: 'integer', min: 100, max: 60_000, default: 5000, doc: 'Deadline of one call to the vault.' },
  vaultRefreshMs: { env: 'WEIR_VAULT_REFRESH_MS', type: 'integer', min: 100, max: 3_600_000, default: 30_000, doc: 'How often the secrets are read again.' },
  vaultMaxStaleMs: { env: 'WEIR_VAULT_MAX_STALE_MS', type: 'integer', min: 1000, max: 86_400_000, default: 3_600_000, doc: 'How long what was read serves while the vault does not answer.' },
  vaultOverlapMs: { env: 'WEIR_VAULT_OVERLAP_MS', type: 'integer', min: 0, max: 604_800_000, default: 86_400_000, doc: 'How long the value before a rotation is still accepted from senders.' },
  host: { env: 'WEIR_HOST', type: 'string', default: '127.0.0.1', doc: 'Address the service listens on.' },
  logLevel: { env: 'WEIR_LOG_LEVEL', type: 'enum', values: ['trace', 'debug', 'info', 'warn', 'error', 'silent'], default: 'info', doc: 'Log level.' },
  failpoints: { env: 'WEIR_FAILPOINTS', type: 'string', optional: true, doc: 'Tests only: kill or stall this process at named points, <name>[@<detail>]:<n>[+<ms>][~<ms>]; see packages/failpoint.' },
  instance: { env: 'WEIR_INSTANCE', type: 'string', default: '1', doc: 'Name of this instance; unique per service. It names the folder of its local caches.' },
});

type VaultOptionName = Extract<keyof typeof commonOptions, `vault${string}`>;
/** The part of them that says where the vault is, for who needs no brokers: the CLI, and a start that brings its own. */
export const vaultOptions = defineConfig(Object.fromEntries(Object.entries(commonOptions).filter(([name]) => name.startsWith('vault'))) as Pick<typeof commonOptions, VaultOptionName>);
