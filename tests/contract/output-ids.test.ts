/**
 * Ids of changes of consent, as commit 812e6af gave them: an upgrade keeps them, so that a raw item which is replayed is known
 * to the fold. A late no under a new id would close again what a yes has opened since.
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';

const before: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'segment/consent-categories-and-unsubscribe': { out_679c48b02184046734ac480ad756d282: 'analytics-preference', out_9bb2176330e0e4b1ea771cc28b5122c2: 'advertising-preference', out_b10afc051b320abc79ec46cf330bf931: 'unsubscribed' },
  'segment/identify-with-consent': { out_506e073827e6a903687ea09bb5262bf9: 'marketing-consent' },
  'segment/identify-with-privacy-control': { out_71d4ca5c710a78a03a5a00952c5bdc5a: 'privacy-control' },
  'onetrust/two-purposes': { out_70e31de19a389c5be8988f7bf6dc4323: 'purpose', out_4af26e94e9af4a3321127831eaeb898a: 'purpose' },
  'klaviyo/webhook-says-no': { out_25e5c0ff200d3bc2031d6adfe8805a86: 'withdrawal', out_36ba783e4c3cd2dfe089739265b2ba90: 'withdrawal', out_7c4f79429d86e04e2a8e88f97faad4f1: 'withdrawal', out_7294d5fd29e42ca2be03dacaa4f67245: 'bounce', out_df6cb43e589ff594788185574d6e99a3: 'bounce', out_42eae550cfad2fb3a48084c8052b3b0f: 'sms-withdrawal' },
  'klaviyo/webhook-says-yes': { out_3a2776cced3732113a415a65d75fd69f: 'grant', out_6900a7dccf6b8570d94da3774684568e: 'sms-grant' },
  'standard-webhooks/contact-unsubscribed': { out_6a1cc84a54068c34f9d37af9c9de9a1f: 'withdrawal' },
  'sendgrid/engagement-and-consent': { out_92a865617f0b05e0c038daf4ec57fd74: 'bounce', out_e38de610075c8c3261a689cbbab804f6: 'withdrawal', out_4877793b5d5265fa163a6f76d731c041: 'group-withdrawal', out_93841a729995b9a87958330f7306c7b2: 'group-grant' },
};

test.each(Object.entries(before))('%s', (name, ids) => {
  const [adapter, file] = name.split('/');
  // What golden.test.ts holds the mapping to.
  const items = JSON.parse(readFileSync(resolve(import.meta.dirname, '../../adapters', adapter!, 'golden', `${file}.out.json`), 'utf8')) as { readonly outputs: readonly { readonly name: string; readonly outputId: string }[] }[];
  expect(Object.fromEntries(items.flatMap((item) => item.outputs).map((o) => [o.outputId, o.name]))).toMatchObject(ids);
});
