/** Whether the services of the instance are ready, and of one mind about the time. */
import type { Check } from './doctor.ts';
import type { Target } from './command.ts';

/** By what is added to the base port. */
const services = ['ingest', 'control', 'normalizer', 'policy', 'dispatcher'] as const;
const timeoutMs = 3000;
/** Signatures, leases and retention bear seconds. The header has whole ones. */
const maxSkewMs = 3000;

interface Answer {
  readonly name: string;
  readonly check: Check;
  /** Clock there less the clock here, ms; undefined = nobody answered. */
  readonly skewMs?: number;
}

async function ask(name: string, host: string, port: number): Promise<Answer> {
  const at = `${host}:${port}`;
  const began = Date.now();
  let response: Response;
  let text: string;
  try {
    response = await fetch(`http://${at}/readyz`, { redirect: 'error', signal: AbortSignal.timeout(timeoutMs) });
    text = await response.text();
  } catch (error) {
    const code = ((error as Error).cause as NodeJS.ErrnoException | undefined)?.code;
    // Nothing listens: not started, or elsewhere. Anything else is one that hangs.
    return { name, check: code === 'ECONNREFUSED' ? { check: name, state: 'warn', message: `nothing listens on ${at}`, remedy: 'start it; if it runs elsewhere, set WEIR_HOST and WEIR_PORT' } : { check: name, state: 'fail', message: `no answer from ${at} (${code ?? (error as Error).name})`, remedy: 'it hangs, or the way there is cut: its log, then restart it' } };
  }
  const there = Date.parse(response.headers.get('date') ?? '');
  const skewMs = Number.isNaN(there) ? undefined : there + 500 - (began + Date.now()) / 2;
  const answer = readinessOf(text);
  if (answer === undefined) return { name, check: { check: name, state: 'fail', message: `${at} is taken by something else (status ${response.status})`, remedy: 'give Weir other ports: WEIR_PORT' } };
  if (answer.ready) return { name, skewMs, check: { check: name, state: 'ok', message: `ready on ${at}` } };
  return { name, skewMs, check: { check: name, state: 'fail', message: `not ready: ${answer.reason ?? `status ${response.status}`}`, remedy: 'docs/troubleshooting.md, and its log' } };
}

function readinessOf(text: string): { readonly ready: boolean; readonly reason?: string } | undefined {
  try {
    const answer = JSON.parse(text) as { readonly ready?: unknown; readonly reason?: unknown } | null;
    return typeof answer?.ready === 'boolean' ? { ready: answer.ready, ...(typeof answer.reason === 'string' ? { reason: answer.reason } : {}) } : undefined;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    return undefined;
  }
}

/** One line where none runs, as before a start; else one for each service, and one for the clock. `control` = its API answers. */
export async function checkServices({ host, port }: Pick<Target, 'host' | 'port'>): Promise<{ readonly checks: readonly Check[]; readonly control: boolean }> {
  const answers = await Promise.all(services.map((name, i) => ask(name, host, port + i)));
  const control = answers[1]!.skewMs !== undefined;
  if (answers.every(({ check }) => check.state === 'warn')) return { control, checks: [{ check: 'services', state: 'warn', message: `none runs on ${host}:${port} to ${port + services.length - 1}`, remedy: 'as before a start; else set WEIR_HOST and WEIR_PORT to where they run' }] };
  const skews = answers.flatMap(({ skewMs }) => (skewMs === undefined ? [] : [skewMs]));
  const skew = skews.toSorted((a, b) => Math.abs(b) - Math.abs(a))[0];
  const clock: Check[] = skew === undefined ? [] : [Math.abs(skew) <= maxSkewMs ? { check: 'clock', state: 'ok', message: 'the services have the time of this machine' } : { check: 'clock', state: 'fail', message: `a service is ${(Math.abs(skew) / 1000).toFixed(0)} s ${skew > 0 ? 'ahead of' : 'behind'} this machine`, remedy: 'synchronise the clocks (NTP): signatures and retention go by them' }];
  return { control, checks: [...answers.map(({ check }) => check), ...clock] };
}
