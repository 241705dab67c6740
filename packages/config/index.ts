export { defineConfig, readConfig, configTable, type ConfigOption, type ConfigSchema, type ConfigOf } from './config.ts';
export { commonOptions, vaultOptions } from './common.ts';
