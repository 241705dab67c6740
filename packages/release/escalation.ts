import { durationMs } from '@weir/policy';
import type { YamlValue } from '@weir/yaml';
import { isSecretRef, nearest, type SecretRef } from './config.ts';

/** Who is told when a destination does not come back by itself (`escalation:` of weir.yaml). */
export interface EscalationConfig {
  /** How long the breaker of a destination stays open before it is told; a broken credential is told at once. */
  readonly afterMs: number;
  /** Signed by Standard Webhooks 1.0. */
  readonly webhook?: { readonly url: string; readonly secret: SecretRef };
  readonly email?: EscalationEmail;
}

export interface EscalationEmail {
  readonly from: string;
  readonly to: readonly string[];
  readonly smtp: { readonly host: string; readonly port: number; readonly tls: 'implicit' | 'starttls' | 'none'; readonly user?: string; readonly password?: SecretRef };
}

type Table = { [key: string]: YamlValue };
type Report = (at: readonly (string | number)[], message: string, remedy: string) => void;
const isTable = (value: YamlValue | undefined): value is Table => value !== null && typeof value === 'object' && !Array.isArray(value);
const address = /^[^\s@<>",;:]{1,64}@[A-Za-z0-9.-]{1,253}$/;
const hostName = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/;
const defaultAfterMs = 15 * 60_000;

function known(table: Table, keys: readonly string[], at: readonly string[], report: Report): void {
  for (const key of Object.keys(table)) if (!keys.includes(key)) report([...at, key], `unknown key ${key}${nearest(key, keys)}`, `use ${keys.join(', ')}`);
}

function webhookOf(value: YamlValue, report: Report): EscalationConfig['webhook'] {
  const at = ['escalation', 'webhook'];
  const table = isTable(value) ? value : {};
  known(table, ['url', 'secret'], at, report);
  const { url, secret } = table;
  const scheme = typeof url === 'string' && URL.canParse(url) ? new URL(url) : undefined;
  if (scheme === undefined || !['https:', 'http:'].includes(scheme.protocol) || scheme.username !== '' || scheme.password !== '') report([...at, 'url'], 'url is no http or https URL without credentials', 'write https://…');
  if (!isSecretRef(secret)) report([...at, 'secret'], 'the webhook needs a secret to be signed with', 'write secret: { secret: NAME }');
  return { url: String(url), secret: secret as unknown as SecretRef };
}

function emailOf(value: YamlValue, report: Report): EscalationEmail {
  const at = ['escalation', 'email'];
  const table = isTable(value) ? value : {};
  known(table, ['from', 'to', 'smtp'], at, report);
  const to = Array.isArray(table['to']) ? table['to'] : [table['to'] ?? ''];
  if (!address.test(String(table['from'] ?? ''))) report([...at, 'from'], 'from is no address', 'write weir@example.com');
  if (to.length === 0 || to.length > 20 || !to.every((a) => address.test(String(a)))) report([...at, 'to'], 'to is no list of 1 to 20 addresses', 'write [oncall@example.com]');
  const smtp = isTable(table['smtp']) ? table['smtp'] : {};
  known(smtp, ['host', 'port', 'tls', 'user', 'password'], [...at, 'smtp'], report);
  const tls = smtp['tls'] ?? 'starttls';
  const port = smtp['port'] ?? (tls === 'implicit' ? 465 : 587);
  if (!hostName.test(String(smtp['host'] ?? ''))) report([...at, 'smtp', 'host'], 'host is no host name', 'write mail.example.com');
  if (tls !== 'implicit' && tls !== 'starttls' && tls !== 'none') report([...at, 'smtp', 'tls'], `tls ${String(tls)}`, 'use implicit, starttls or none');
  if (typeof port !== 'number' || !Number.isInteger(port) || port < 1 || port > 65_535) report([...at, 'smtp', 'port'], 'port', 'use a whole number from 1 to 65535');
  if (smtp['password'] !== undefined && !isSecretRef(smtp['password'])) report([...at, 'smtp', 'password'], 'a secret is given by name, never by value', 'write password: { secret: NAME }');
  if ((smtp['user'] === undefined) !== (smtp['password'] === undefined)) report([...at, 'smtp'], 'user and password go together', 'give both or none');
  if (tls === 'none' && smtp['password'] !== undefined) report([...at, 'smtp', 'tls'], 'a password is not sent in the clear', 'use implicit or starttls');
  return { from: String(table['from']), to: to.map(String), smtp: { host: String(smtp['host']), port: port as number, tls: tls as EscalationEmail['smtp']['tls'], ...(smtp['user'] === undefined ? {} : { user: String(smtp['user']), password: smtp['password'] as unknown as SecretRef }) } };
}

/** `escalation:` of weir.yaml; undefined = nobody is told. Problems are reported, never thrown. */
export function compileEscalation(value: YamlValue | undefined, report: Report): EscalationConfig | undefined {
  if (value === undefined || value === null) return undefined;
  const table = isTable(value) ? value : {};
  known(table, ['after', 'webhook', 'email'], ['escalation'], report);
  const afterMs = table['after'] === undefined ? defaultAfterMs : durationMs(table['after']);
  if (afterMs === undefined || afterMs < 1000) report(['escalation', 'after'], 'after is no duration of a second or more', 'write e.g. 15m');
  if (table['webhook'] === undefined && table['email'] === undefined) report(['escalation'], 'nobody to tell', 'give webhook, email, or both');
  return {
    afterMs: afterMs ?? defaultAfterMs,
    ...(table['webhook'] === undefined ? {} : { webhook: webhookOf(table['webhook'], report) }),
    ...(table['email'] === undefined ? {} : { email: emailOf(table['email'], report) }),
  };
}

/** Names of the secrets that it refers to. */
export function escalationSecrets(config: EscalationConfig | undefined): string[] {
  return [config?.webhook?.secret, config?.email?.smtp.password].flatMap((ref) => (ref === undefined ? [] : [ref.secret]));
}
