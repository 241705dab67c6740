import { connect, type Socket } from 'node:net';
import { signWebhook } from '@weir/adapter';
import type { HttpClient } from '@weir/http';
import { incidentAbout, replayOf, type EscalationConfig } from '@weir/release';
import type { Vault } from '@weir/vault';
import { createTransport } from 'nodemailer';
import type { EscalationPorts, Notice } from './escalation.ts';

const deadlineMs = 10_000;
/** For a whole mail: the others are of a server that says nothing, and one that drips is never silent. */
const mailMs = 60_000;

interface Ports {
  readonly http: Pick<HttpClient, 'call'>;
  readonly vault: Pick<Vault, 'get'>;
  readonly now: () => number;
  /** Name of the workspace. */
  workspace(): string;
  /** For a whole mail, ms; a test has less. */
  readonly mailDeadlineMs?: number;
}

function textOf(notice: Notice, workspace: string): { readonly subject: string; readonly text: string } {
  const since = new Date(notice.since).toISOString();
  const { kind, name } = incidentAbout(notice.destination);
  if (kind === 'consent') {
    return notice.phase === 'opened'
      ? { subject: `[weir ${workspace}] changes of consent of ${name} bind nobody`, text: `Since ${since} changes of consent from source ${name} cannot be bound to anybody: who they are about may still be sent to. They are kept: weir dlq list --code consent-unresolved --source ${name} --open.\n` }
      : { subject: `[weir ${workspace}] changes of consent of ${name}: all bound`, text: `Every change of consent from source ${name} that bound nobody since ${since} was put back by ${new Date(notice.until!).toISOString()}.\n` };
  }
  if (kind === 'policy') {
    return notice.phase === 'opened'
      ? { subject: `[weir ${workspace}] rule ${name} escalates`, text: `Rule ${name} holds deliveries since ${since}, and asks for somebody to look at them: weir policy held, then weir policy approve or refuse.\n` }
      : { subject: `[weir ${workspace}] rule ${name}: all decided`, text: `Everything that rule ${name} held since ${since} was decided by ${new Date(notice.until!).toISOString()}.\n` };
  }
  if (kind === 'source') {
    return notice.phase === 'opened'
      ? { subject: `[weir ${workspace}] polled source ${name} stands still`, text: `Since ${since} the same page of ${name} fails again and again (${notice.code}). Nothing is skipped. weir status tells more.\n` }
      : { subject: `[weir ${workspace}] polled source ${name} goes on`, text: `Source ${name} goes on since ${new Date(notice.until!).toISOString()}.\n` };
  }
  const what = notice.kind === 'breaker' ? 'does not answer: its breaker stays open' : 'is paused: its credential cannot be had or is refused';
  const subject = notice.phase === 'opened' ? `[weir ${workspace}] ${notice.destination} ${notice.kind === 'breaker' ? 'does not answer' : 'is paused for its credential'}` : `[weir ${workspace}] ${notice.destination} goes on`;
  const text = notice.phase === 'opened'
    ? `Destination ${notice.destination} ${what} (${notice.code}), since ${since}.\nNothing is lost: its events wait and go on by themselves. See weir status.\n`
    : `Destination ${notice.destination} goes on. The trouble (${notice.code}) was from ${since} to ${new Date(notice.until!).toISOString()}.\nWhat waited is sent by itself. What was given up meanwhile: ${replayOf(notice)}\n`;
  return { subject, text };
}

/** Webhook by the guarded client, signed by Standard Webhooks; e-mail over SMTP. Secrets come from the vault at the time of sending. */
export function createChannels(ports: Ports): EscalationPorts['channels'] {
  return {
    async webhook({ webhook }: EscalationConfig, notice) {
      const { destination, kind, code, since, until, phase, id } = notice;
      const now = ports.now();
      const body = JSON.stringify({ type: `weir.destination.${phase}`, timestamp: new Date(now).toISOString(), data: { workspace: ports.workspace(), destination, kind, code, since: new Date(since).toISOString(), until: until === null ? null : new Date(until).toISOString(), ...(until === null ? {} : { replay: replayOf(notice) }) } });
      const headers = { 'content-type': 'application/json', 'user-agent': 'weir/0.1', ...signWebhook(ports.vault.get(webhook!.secret.secret).reveal(), id, now, body) };
      const response = await ports.http.call({ method: 'POST', url: webhook!.url, headers, body }, { deadlineMs });
      if ('failure' in response) throw new Error(`${response.failure}: ${response.detail}`);
      if (response.status < 200 || response.status >= 300) throw new Error(`HTTP ${response.status}`);
    },
    async email({ email }: EscalationConfig, notice) {
      const { host, port, tls, user, password } = email!.smtp;
      const { mailDeadlineMs = mailMs } = ports;
      // Our own, because closing the transport leaves the connection of a mail under way.
      let socket: Socket | undefined;
      const transport = createTransport({
        getSocket(_options, done) {
          const opened = socket = connect({ host, port });
          opened.once('error', (error) => done(error, false));
          opened.once('connect', () => done(null, { connection: opened }));
        },
        host, port, secure: tls === 'implicit', requireTLS: tls === 'starttls', ignoreTLS: tls === 'none',
        connectionTimeout: deadlineMs, greetingTimeout: deadlineMs, socketTimeout: deadlineMs, disableFileAccess: true, disableUrlAccess: true,
        ...(user === undefined ? {} : { auth: { user, pass: ports.vault.get(password!.secret).reveal() } }),
      });
      const late = Promise.withResolvers<never>();
      const timer = setTimeout(() => late.reject(new Error(`the mail was not taken within ${mailDeadlineMs} ms`)), mailDeadlineMs);
      try {
        await Promise.race([late.promise, transport.sendMail({ from: email!.from, to: [...email!.to], messageId: `<${notice.id}@${email!.from.split('@')[1]}>`, ...textOf(notice, ports.workspace()) })]);
      } finally {
        clearTimeout(timer);
        socket?.destroy();
        transport.close();
      }
    },
  };
}
