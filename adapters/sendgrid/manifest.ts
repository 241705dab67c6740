import type { Manifest } from '@weir/adapter';

const hour = 3_600_000;

export const manifest: Manifest = {
  name: 'sendgrid',
  title: 'Twilio SendGrid event webhook',
  docs: 'https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event',
  source: {
    kind: 'webhook',
    config: {
      verificationKey: { type: 'string', secret: true, required: true, doc: 'Public verification key of the signed event webhook: base64 of the SPKI DER.' },
    },
    identity: { fields: ['sg_event_id'], unique: true, cite: 'SendGrid, Event Webhook reference: sg_event_id is "a unique ID to this event that you can use for deduplication purposes"' },
    retryHorizonMs: 24 * hour,
    limits: { bodyBytes: 2 * 1024 * 1024, items: 5000, depth: 16 },
    mapping: 'mappings/sendgrid.yaml',
    signing: 'ECDSA P-256 with SHA-256 over timestamp header + raw body, signature base64 of DER (sendgrid-nodejs, packages/eventwebhook). No tolerance is stated: the timestamp is signed, not checked against the clock.',
  },
};
