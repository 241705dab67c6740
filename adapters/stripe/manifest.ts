import type { Manifest } from '@weir/adapter';

const hour = 3_600_000;

export const manifest: Manifest = {
  name: 'stripe',
  title: 'Stripe webhooks',
  docs: 'https://docs.stripe.com/webhooks',
  source: {
    kind: 'webhook',
    config: {
      endpointSecret: { type: 'string', secret: true, required: true, doc: 'Signing secret of the webhook endpoint (whsec_…).' },
      tolerance: { type: 'number', default: 300, doc: 'Seconds that a signature may be old or ahead.' },
    },
    identity: { fields: ['id'], unique: true, cite: 'Stripe, Event object: id, "Unique identifier for the object"; retries of a delivery carry the same event' },
    retryHorizonMs: 72 * hour,
    limits: { bodyBytes: 1024 * 1024, items: 1, depth: 32 },
    mapping: 'mappings/stripe.yaml',
    signing: 'Stripe-Signature: t=<seconds>,v1=<hex of HMAC-SHA256 over t.body>[,v1=…]; other schemes are ignored',
  },
};
