import { commonOptions, defineConfig } from '@weir/config';

export const options = defineConfig({
  ...commonOptions,
  port: { env: 'WEIR_CONTROL_PORT', type: 'integer', min: 0, max: 65535, default: 8081, doc: 'Port of the control API, /healthz, /readyz and /metrics.' },
});
