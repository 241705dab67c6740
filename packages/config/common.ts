import { defineConfig } from './config.ts';

/** Options that every service reads. */
export const commonOptions = defineConfig({
  brokers: { env: 'KAFKA_BROKERS', type: 'list', doc: 'Kafka bootstrap servers, host:port, comma-separated.' },
  registryUrl: { env: 'SCHEMA_REGISTRY_URL', type: 'string', doc: 'Confluent-compatible schema registry, e.g. http://127.0.0.1:8085/apis/ccompat/v7.' },
  kafkaClient: { env: 'WEIR_KAFKA_CLIENT', type: 'enum', values: ['platformatic', 'kafkajs'], default: 'platformatic', doc: 'Kafka client driver.' },
  topicPrefix: { env: 'WEIR_TOPIC_PREFIX', type: 'string', default: 'weir', doc: 'Prefix of every topic and group of this workspace.' },
  dataDir: { env: 'WEIR_DATA', type: 'string', default: '.weir', doc: 'Folder of local caches (LMDB), keys and the embedded platform.' },
  workspaceKey: { env: 'WEIR_KEY', type: 'secret', optional: true, doc: 'Workspace key, 32 bytes base64url; default: created once as <WEIR_DATA>/workspace.key.' },
  host: { env: 'WEIR_HOST', type: 'string', default: '127.0.0.1', doc: 'Address the service listens on.' },
  logLevel: { env: 'WEIR_LOG_LEVEL', type: 'enum', values: ['trace', 'debug', 'info', 'warn', 'error', 'silent'], default: 'info', doc: 'Log level.' },
  failpoints: { env: 'WEIR_FAILPOINTS', type: 'string', optional: true, doc: 'Tests only: kill this process at named points, <name>[@<detail>]:<n>; see packages/failpoint.' },
  instance: { env: 'WEIR_INSTANCE', type: 'string', default: '1', doc: 'Name of this instance; unique per service. It names the folder of its local caches.' },
});
