import { commonOptions, defineConfig } from '@weir/config';

export const options = defineConfig({
  dataDir: commonOptions.dataDir,
  host: commonOptions.host,
  logLevel: commonOptions.logLevel,
  port: { env: 'WEIR_SANDBOX_PORT', type: 'integer', min: 0, max: 65535, default: 8090, doc: 'Port of the sandbox vendor.' },
  bodyBytes: { env: 'WEIR_SANDBOX_BODY_BYTES', type: 'integer', min: 1024, max: 64 * 1024 * 1024, default: 5 * 1024 * 1024, doc: 'Largest request body; larger ones get 413.' },
  maxArrivals: { env: 'WEIR_SANDBOX_MAX_ARRIVALS', type: 'integer', min: 1, max: 100_000_000, default: 2_000_000, doc: 'Arrivals kept in the log; past it every request gets 507 until the log is deleted.' },
  klaviyoKey: { env: 'WEIR_SANDBOX_KLAVIYO_KEY', type: 'secret', optional: true, doc: 'Klaviyo private key that is accepted; default: any.' },
  webhookSecret: { env: 'WEIR_SANDBOX_WEBHOOK_SECRET', type: 'secret', optional: true, doc: 'Standard Webhooks secret (whsec_…); when set, requests with webhook-* headers must be signed with it.' },
});
