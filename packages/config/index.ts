export { defineConfig, readConfig, configTable, type ConfigOption, type ConfigSchema, type ConfigOf } from './config.ts';
export { kafkaConnection, kafkaSecurity, registryConnection, registrySecurity, securityOptions, type Credential, type KafkaSecurity, type RegistrySecurity, type SaslMechanism, type TlsFiles } from './connection.ts';
export { Secret } from './secret.ts';
export { commonOptions, vaultOptions } from './common.ts';
