/** A vendor with a rate limit of its own, which it states in no header, and what its log says of the calls. */
import { mostInWindow, waitFor } from '@weir/testing';

export interface StormFigures {
  readonly form: string;
  readonly deliveries: number;
  readonly vendorLimitPerSecond: number;
  /** Most calls in any second, by the sandbox's log: let through and refused. */
  readonly mostPerSecond: number;
  readonly refused: number;
  readonly delivered: number;
  readonly deadLettered: number;
  readonly outOfOrder: number;
  readonly seconds: number;
}

/** Retry-After as vendors send it, and as none should. */
export const forms: Readonly<Record<string, readonly string[]>> = {
  seconds: ['1'],
  date: ['date+2000'],
  absurd: ['99999999999', '-5', 'tomorrow', 'Thu, 01 Jan 1970 00:00:00 GMT', 'Fri, 31 Dec 9999 23:59:59 GMT', '1e9', ' '],
};

interface Arrival { readonly at: string; readonly status: number; readonly subject: string; readonly body: { readonly plan: string } }

/** What a storm needs of a running Weir; `npm start` and separate processes have it. */
export interface StormWorld {
  readonly sandbox: string;
  segment(path: string, body: unknown): Promise<Response>;
  status(): Promise<any>;
  settled(deadlineMs: number): Promise<any>;
}

/** @param options.crash kills Weir and starts it again; not the sandbox, whose limits would go with it */
export async function runStorm(weir: StormWorld, form: string, options: { readonly people: number; readonly each: number; readonly limit: number; readonly crash?: () => Promise<void> }): Promise<StormFigures> {
  const order = async (fault: object): Promise<void> => {
    const answer = await fetch(`${weir.sandbox}/faults`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(fault) });
    if (answer.status !== 201) throw new Error(await answer.text());
  };
  const arrivals = async (): Promise<Arrival[]> => ((await (await fetch(`${weir.sandbox}/arrivals?destination=crm`)).json()) as Arrival[]).filter((a) => a.subject.startsWith(`${form}-`));
  const deadBefore = (await weir.status()).deliveries.deadLettered as number;
  // Each value once, at the first calls; the last for whatever is over the limit.
  const values = forms[form]!;
  for (const [i, retryAfter] of values.entries()) await order({ destination: 'crm', mode: '429', retryAfter, ...(i < values.length - 1 ? { count: 1 } : { limit: options.limit, perMs: 1000 }) });
  const began = performance.now();
  for (let n = 0; n < options.each; n++) {
    const batch = Array.from({ length: options.people }, (_, p) => ({ type: 'identify', messageId: `${form}-${n}-${p}`, userId: `${form}-${p}`, timestamp: '2026-03-04T05:06:07Z', traits: { email: `${form}-${p}@larkspur.example`, plan: String(n).padStart(4, '0') } }));
    const answer = await weir.segment('batch', { batch });
    if (answer.status !== 200) throw new Error(await answer.text());
  }
  if (options.crash !== undefined) {
    const third = options.people * options.each / 3;
    await waitFor('a third is delivered', async () => (await arrivals()).filter((a) => a.status === 200).length > third, 120_000);
    await options.crash();
    const left = (await (await fetch(`${weir.sandbox}/faults`)).json()) as unknown[];
    if (left.length === 0) throw new Error('the limit of the vendor did not outlive the crash');
  }
  await weir.settled(240_000);
  await fetch(`${weir.sandbox}/faults`, { method: 'DELETE' });
  const list = await arrivals();
  const times = list.map((a) => Date.parse(a.at)).sort((a, b) => a - b);
  const effects = ((await (await fetch(`${weir.sandbox}/effects?destination=crm`)).json()) as any[]).filter((e) => String(e.subject).startsWith(`${form}-`));
  let outOfOrder = 0;
  const last = new Map<string, string>();
  for (const { subject, body } of effects) {
    if ((last.get(subject) ?? '') >= body.plan) outOfOrder++;
    last.set(subject, body.plan);
  }
  return { form, deliveries: options.people * options.each, vendorLimitPerSecond: options.limit, mostPerSecond: mostInWindow(times, 1000), refused: list.filter((a) => a.status === 429).length, delivered: effects.length, deadLettered: (await weir.status()).deliveries.deadLettered - deadBefore, outOfOrder, seconds: Math.round((performance.now() - began) / 1000) };
}
