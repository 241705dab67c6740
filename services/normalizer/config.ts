import { commonOptions, defineConfig } from '@weir/config';

export const options = defineConfig({
  ...commonOptions,
  port: { env: 'WEIR_NORMALIZER_PORT', type: 'integer', min: 0, max: 65535, default: 8082, doc: 'Port of /healthz, /readyz and /metrics.' },
  sessionTimeoutMs: { env: 'WEIR_NORMALIZER_SESSION_MS', type: 'integer', min: 1000, max: 300_000, default: 10_000, doc: 'Group session timeout.' },
});
