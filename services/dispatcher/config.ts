import { commonOptions, defineConfig } from '@weir/config';

export const options = defineConfig({
  ...commonOptions,
  port: { env: 'WEIR_DISPATCHER_PORT', type: 'integer', min: 0, max: 65535, default: 8084, doc: 'Port of /healthz, /readyz and /metrics.' },
  sessionTimeoutMs: { env: 'WEIR_DISPATCHER_SESSION_MS', type: 'integer', min: 2000, max: 300_000, default: 20_000, doc: 'Group session timeout. A lease lasts this long after the last acknowledged heartbeat; it must exceed the call deadline.' },
  callTimeoutMs: { env: 'WEIR_CALL_TIMEOUT_MS', type: 'integer', min: 100, max: 120_000, default: 10_000, doc: 'Deadline of one vendor call, where the operation states none.' },
  inLaneTries: { env: 'WEIR_IN_LANE_TRIES', type: 'integer', min: 1, max: 20, default: 4, doc: 'Failed calls of one delivery before its subject is parked.' },
  allowPrivate: { env: 'WEIR_ALLOW_PRIVATE_DESTINATIONS', type: 'boolean', default: false, doc: 'Allow destinations on private and loopback addresses (the sandbox, an on-premise CRM).' },
  sandboxUrl: { env: 'WEIR_SANDBOX_URL', type: 'string', default: 'http://127.0.0.1:8090', doc: 'Where the URL scheme sandbox: of a destination leads.' },
});
