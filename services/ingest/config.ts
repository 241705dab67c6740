import { commonOptions, defineConfig } from '@weir/config';
import { oidcConfig } from '@weir/service/authenticate';

export const options = defineConfig({
  ...commonOptions,
  port: { env: 'WEIR_INGEST_PORT', type: 'integer', min: 0, max: 65535, default: 8080, doc: 'Port of the webhooks, the Segment tracking API, /healthz, /readyz and /metrics.' },
  ackTimeoutMs: { env: 'WEIR_INGEST_ACK_TIMEOUT_MS', type: 'integer', min: 100, max: 60_000, default: 10_000, doc: 'How long a request waits for the acknowledgement of the log before it is answered 503.' },
  requestTimeoutMs: { env: 'WEIR_INGEST_REQUEST_TIMEOUT_MS', type: 'integer', min: 100, max: 600_000, default: 30_000, doc: 'How long a request may take to arrive whole before it is answered 408.' },
  maxInflightBytes: { env: 'WEIR_INGEST_MAX_INFLIGHT_BYTES', type: 'integer', min: 1_000_000, default: 64_000_000, doc: 'Bytes held by requests, or taken and not acknowledged, over which requests are answered 429.' },
  consentWaitMs: { env: 'WEIR_CONSENT_WAIT_MS', type: 'integer', min: 100, max: 120_000, default: 22_000, doc: 'How long POST /v1/consent?wait=applied waits at most before it answers 202 pending. More than the session of the dispatchers, or a stopped one makes it pending.' },
  consentPerSecond: { env: 'WEIR_CONSENT_PER_SECOND', type: 'integer', min: 1, max: 100_000, default: 500, doc: 'Changes of consent that one token may record per second, with a burst of twice as many; over it 429.' },
  pollerSessionMs: { env: 'WEIR_POLLER_SESSION_MS', type: 'integer', min: 1000, max: 300_000, default: 15_000, doc: 'How long a poller that is silent keeps its source before another instance takes it over.' },
  allowPrivate: { env: 'WEIR_ALLOW_PRIVATE_SOURCES', type: 'boolean', default: false, doc: 'Allow pollers to call private and loopback addresses.' },
  ...oidcConfig,
  sandboxUrl: { env: 'WEIR_SANDBOX_URL', type: 'string', default: 'http://127.0.0.1:8090', doc: 'Where the URL scheme sandbox: of a polled source leads.' },
});
