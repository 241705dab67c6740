import { expect, test } from 'vitest';
import { parseYaml } from '@weir/yaml';
import { compileEscalation, escalationSecrets } from './escalation.ts';

function compile(text: string): { config: ReturnType<typeof compileEscalation>; problems: string[] } {
  const problems: string[] = [];
  const config = compileEscalation((parseYaml({ path: 'weir.yaml', content: `escalation:\n${text}` }).value as { escalation: never }).escalation, (at, message) => { problems.push(`${at.join('.')}: ${message}`); });
  return { config, problems };
}

test('webhook and e-mail with their secrets by name', () => {
  const { config, problems } = compile('  after: 5m\n  webhook: { url: https://hooks.example/x, secret: { secret: HOOK } }\n  email: { from: w@example.com, to: [a@example.com], smtp: { host: mail.example.com, tls: implicit, user: u, password: { secret: SMTP } } }\n');
  expect(problems).toEqual([]);
  expect(config).toMatchObject({ afterMs: 300_000, email: { smtp: { port: 465 } } });
  expect(escalationSecrets(config)).toEqual(['HOOK', 'SMTP']);
});

test.each([
  ['  after: soon\n', 'escalation.after'], ['  after: 5m\n', 'escalation: nobody'], ['  webhook: { url: ftp://x }\n', 'escalation.webhook.url'], ['  webhook: { url: https://u:p@x.example, secret: { secret: A } }\n', 'escalation.webhook.url'],
  ['  webhook: { url: https://x.example, secret: plain }\n', 'escalation.webhook.secret'], ['  email: { from: "a\\r\\nBcc: x@y.z", to: [a@b.example], smtp: { host: h } }\n', 'escalation.email.from'],
  ['  email: { from: a@b.example, to: [], smtp: { host: h } }\n', 'escalation.email.to'], ['  email: { from: a@b.example, to: [a@b.example], smtp: { host: "h h" } }\n', 'escalation.email.smtp.host'],
  ['  email: { from: a@b.example, to: [a@b.example], smtp: { host: h, tls: none, user: u, password: { secret: P } } }\n', 'escalation.email.smtp.tls'], ['  email: { from: a@b.example, to: [a@b.example], smtp: { host: h, user: u } }\n', 'escalation.email.smtp'],
])('%j is refused with its place', (text, place) => {
  expect(compile(text).problems.join('\n')).toContain(place);
});
