import type { Manifest } from '@weir/adapter';

const hour = 3_600_000;

export const manifest: Manifest = {
  name: 'onetrust',
  title: 'OneTrust Consent & Preference Management',
  docs: 'https://developer.onetrust.com/onetrust/reference/createconsentreceiptusingpost',
  source: {
    kind: 'webhook',
    config: {
      token: { type: 'string', secret: true, required: true, doc: 'What the HTTP action of the OneTrust workflow sends as Authorization: Bearer <token>.' },
    },
    identity: { fields: ['eventId'], unique: true, cite: 'OneTrust event 3010 (Data Subject Profile Updated), schema of the integration workflow trigger: eventId beside eventTime and messageKey' },
    retryHorizonMs: 24 * hour,
    limits: { bodyBytes: 1024 * 1024, items: 1, depth: 24 },
    mapping: 'mappings/onetrust.yaml',
    signing: 'None: OneTrust does not sign; the bearer token of the workflow action is compared in constant time.',
  },
};
