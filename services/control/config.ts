import { commonOptions, defineConfig } from '@weir/config';
import { oidcConfig } from '@weir/service/authenticate';

/** Audit log, approvals and sign-in of the control API. */
export const controlOptions = defineConfig({
  witness: { env: 'WEIR_AUDIT_WITNESS', type: 'list', optional: true, doc: 'Where signed checkpoints of the audit log are kept: file paths and http(s) URLs, beside <WEIR_DATA>/audit-checkpoints.jsonl, which always is. Put one out of reach of who runs the brokers.' },
  approval: { env: 'WEIR_APPROVAL', type: 'boolean', default: false, doc: 'A release needs the approval of somebody else than its proposer.' },
  sandboxUrl: { env: 'WEIR_SANDBOX_URL', type: 'string', default: 'http://127.0.0.1:8090', doc: 'Where the URL scheme sandbox: of a destination leads, when a replay asks it what took effect.' },
  allowPrivate: { env: 'WEIR_ALLOW_PRIVATE_DESTINATIONS', type: 'boolean', default: false, doc: 'Allow destinations on private and loopback addresses, when a replay asks them what took effect.' },
  ...oidcConfig,
});

export const options = defineConfig({
  ...commonOptions,
  port: { env: 'WEIR_CONTROL_PORT', type: 'integer', min: 0, max: 65535, default: 8081, doc: 'Port of the control API, /healthz, /readyz and /metrics.' },
  ...controlOptions,
});
