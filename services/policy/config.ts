import { commonOptions, defineConfig } from '@weir/config';

export const options = defineConfig({
  ...commonOptions,
  port: { env: 'WEIR_POLICY_PORT', type: 'integer', min: 0, max: 65535, default: 8083, doc: 'Port of /healthz, /readyz and /metrics.' },
  sessionTimeoutMs: { env: 'WEIR_POLICY_SESSION_MS', type: 'integer', min: 1000, max: 300_000, default: 10_000, doc: 'Group session timeout.' },
  windowRecords: { env: 'WEIR_POLICY_WINDOW_RECORDS', type: 'integer', min: 1, max: 1_000_000, default: 10_000, doc: 'Records per partition between commit and read position; then the partition pauses.' },
  windowBytes: { env: 'WEIR_POLICY_WINDOW_BYTES', type: 'integer', min: 1_048_576, max: 1_073_741_824, default: 16_777_216, doc: 'The same in bytes.' },
});
