import type { BatchItem, Delivery, HttpFailure, HttpRequest, HttpResponse, OperationManifest, ReadBack, Verdict } from '@weir/adapter';
import { findWeirError, recordFault, type ErrorCode } from '@weir/errors';
import { failpoint, failpointSoon } from '@weir/failpoint';
import { objectOf } from '@weir/pipeline';
import type { DestinationConfig } from '@weir/release';
import { unknownCountry } from '@weir/schemas';
import { consentRefusal, type ToStart } from './attempt.ts';
import type { DestinationPorts } from './ports.ts';
import type { PartitionRunner } from './partition.ts';
import type { Task } from './types.ts';

/** Nothing was sent; `returned`: for another delivery of its batch. */
export type Refusal = { readonly kind: 'refused'; readonly reason: 'lease' | 'consent' | 'disabled' | 'returned'; readonly detail: string };
export type Unbuildable = { readonly kind: 'unbuildable'; readonly code: ErrorCode; readonly detail: string };
/** `headers` of the answer, where there was one: the quota learns from them. `sharedBy`: so many deliveries are refused as one, of which another may be the reason. */
export type CallResult = { readonly kind: 'verdict'; readonly verdict: Verdict; readonly sharedBy?: number; readonly headers?: HttpResponse['headers'] } | Refusal | Unbuildable;
export type ReadBackResult = { readonly kind: 'read'; readonly read: ReadBack; readonly headers?: HttpResponse['headers'] } | Refusal | Unbuildable;

interface Exchanged {
  readonly kind: 'answered';
  readonly response: HttpResponse | HttpFailure;
  readonly startedAt: number;
  readonly durationMs: number;
}

/** Who a call is for. */
export interface Member {
  readonly runner: PartitionRunner;
  readonly task: Task;
}

/** How long a call may take, ms. */
const deadlineOf = ({ callTimeoutMs }: Pick<DestinationPorts, 'callTimeoutMs'>, timeoutMs = callTimeoutMs): number => Math.min(timeoutMs, callTimeoutMs);

const withinAssignment = (ports: DestinationPorts, deadlineMs: number): boolean => ports.clock.monotonic() < ports.consumer().leaseUntil() - deadlineMs;
const withinConsent = ({ lease }: DestinationPorts, kind: OperationManifest['kind'], deadlineMs: number): boolean => kind !== 'use' || lease.covers(deadlineMs);

/** False: a lease runs out before the deadline of a call that is written now, which would be kept back. It is not begun: that takes of quota and connections. */
export function isCovered(ports: DestinationPorts, { kind, operation }: ToStart): boolean {
  const deadlineMs = deadlineOf(ports, kind === 'call' ? operation.timeoutMs : operation.verify?.timeoutMs);
  return withinAssignment(ports, deadlineMs) && withinConsent(ports, kind === 'call' ? operation.kind : 'restrict', deadlineMs);
}

/** One exchange with the vendor; lease, switch and consent of every member are looked at in the tick of the socket write (I3, I6): one that may not be sent keeps the whole of it back. */
async function exchange(ports: DestinationPorts, members: readonly Member[], operation: Pick<OperationManifest, 'kind' | 'timeoutMs'>, build: () => HttpRequest): Promise<Exchanged | { readonly kind: 'kept-back'; readonly refusals: readonly (Refusal | undefined)[] } | Unbuildable> {
  const deadlineMs = deadlineOf(ports, operation.timeoutMs);
  let request: HttpRequest;
  try {
    request = build();
  } catch (error) {
    const known = findWeirError(error);
    if (known === undefined) throw error;
    return { kind: 'unbuildable', code: known.code, detail: known.message };
  }
  let refusals: (Refusal | undefined)[] | undefined;
  let over: (() => void) | undefined;
  const startedAt = ports.clock.now();
  const started = ports.clock.monotonic();
  failpoint('dispatcher.before-connect');
  let response: HttpResponse | HttpFailure;
  try {
    response = await ports.http.call(request, {
      deadlineMs,
      onBeforeWrite: () => {
        refusals = refusalsOf(ports, members, operation.kind, deadlineMs);
        if (refusals !== undefined) return false;
        if (operation.kind === 'use') over = ports.lease.began(() => members.some(({ task }) => consentRefusal(ports, task, operation.kind, ports.clock.now()) !== undefined));
        failpointSoon('dispatcher.sent');
        return true;
      },
    });
  } finally {
    over?.();
  }
  if (refusals !== undefined) return { kind: 'kept-back', refusals };
  // It never left, and says nothing of the vendor.
  if ('failure' in response && response.failure === 'unsendable' && !response.sent) return { kind: 'unbuildable', code: 'delivery-unbuildable', detail: response.detail };
  failpoint('dispatcher.response-read');
  return { kind: 'answered', response, startedAt, durationMs: ports.clock.monotonic() - started };
}

/** One exchange, for each verdict that came of it: of a batch there may be several. */
function measured(ports: DestinationPorts, { path, delivery }: Task, verdict: Verdict['kind'], { durationMs }: Exchanged): void {
  ports.metrics.calls.observe({ destination: ports.name, operation: path === '' ? delivery.operation : path, verdict }, durationMs / 1000);
}

/** What a call came to for one delivery: fills `task.last`, counts the attempt, and remembers since when an effect is possible. */
function account(task: Task, verdict: Verdict, done: Exchanged, sharedBy?: number): CallResult {
  task.attempts++;
  if (verdict.effect === 'maybe' && task.maybeSince === 0) task.maybeSince = done.startedAt;
  const last = { at: done.startedAt, durationMs: done.durationMs, verdict: verdict.kind, effect: verdict.effect, status: statusOf(done.response), path: task.path === '' ? null : task.path };
  task.last = 'code' in verdict ? { ...last, code: verdict.code } : last;
  const headers = headersOf(done.response);
  return sharedBy === undefined ? { kind: 'verdict', verdict, headers } : { kind: 'verdict', verdict, sharedBy, headers };
}

/** One call for one delivery. */
export async function call(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task, operation: OperationManifest): Promise<CallResult> {
  const adapter = destination.adapter.destination!;
  const delivery = toAdapterDelivery(ports, destination, task);
  if ('kind' in delivery) return delivery;
  const done = await exchange(ports, [{ runner, task }], operation, () => adapter.request(delivery, task.key, destination.config, ports.clock.now()));
  if (done.kind === 'kept-back') return done.refusals[0]!;
  if (done.kind !== 'answered') return done;
  const verdict = adapter.classify(done.response, delivery, destination.config);
  measured(ports, task, verdict.kind, done);
  return account(task, verdict, done);
}

/**
 * Whether a delivery is refused by what the answer says of the call, and not of its item: the one verdict for all, which items that the
 * answer does not list have, too. A smaller call may be taken. What took effect is not repeated, and a reason of the vendor's has no size.
 */
function isOfCall(verdict: Verdict, ofCall: Verdict): boolean {
  if (verdict.kind !== 'permanent' || ofCall.kind !== 'permanent' || verdict.effect === 'done' || verdict.vendorSide === true) return false;
  return verdict.code === ofCall.code && verdict.detail === ofCall.detail;
}

const untold: Verdict = { kind: 'retry', effect: 'maybe', code: 'vendor-unavailable', detail: 'the answer does not tell of this item' };

/** One call for several deliveries: a result for each, in their order. `items` are those of `itemOf`. */
export async function callBatch(ports: DestinationPorts, members: readonly Member[], items: readonly BatchItem[], destination: DestinationConfig, operation: OperationManifest): Promise<CallResult[]> {
  const adapter = destination.adapter.destination!;
  const batch = adapter.batch!;
  const done = await exchange(ports, members, operation, () => batch.request(items, destination.config, ports.clock.now()));
  if (done.kind === 'kept-back') return done.refusals.map((r) => r ?? { kind: 'refused', reason: 'returned', detail: 'another delivery of the batch may not be sent' });
  if (done.kind === 'unbuildable') return members.map(() => done);
  const found = batch.classify(done.response, items, destination.config);
  const verdicts = Array.isArray(found) ? found as readonly Verdict[] : undefined;
  const all = members.map((_, i) => (verdicts === undefined ? found as Verdict : verdicts[i] ?? untold));
  for (const kind of new Set(all.map((verdict) => verdict.kind))) measured(ports, members[0]!.task, kind, done);
  const ofCall = members.length === 1 || all.every(({ kind }) => kind !== 'permanent') ? undefined : verdicts === undefined ? found as Verdict : adapter.classify(done.response, items[0]!.delivery, destination.config);
  return members.map(({ task }, i) => account(task, all[i]!, done, ofCall !== undefined && isOfCall(all[i]!, ofCall) ? members.length : undefined));
}

/** The delivery as an item of a batch, or why it cannot be one. */
export function itemOf(ports: DestinationPorts, task: Task, destination: DestinationConfig): BatchItem | Unbuildable {
  const delivery = toAdapterDelivery(ports, destination, task);
  if ('kind' in delivery) return delivery;
  try {
    return { delivery, key: task.key, text: destination.adapter.destination!.batch!.item(delivery, task.key, destination.config) };
  } catch (error) {
    const known = findWeirError(error);
    if (known === undefined) throw error;
    return { kind: 'unbuildable', code: known.code, detail: known.message };
  }
}

/** Ask the vendor whether the delivery took effect. Of kind restrict: it changes nothing and needs no consent. A `not-applied` clears the doubt. */
export async function readBack(ports: DestinationPorts, runner: PartitionRunner, destination: DestinationConfig, task: Task, operation: OperationManifest): Promise<ReadBackResult> {
  const verify = destination.adapter.destination!.verify!;
  const delivery = toAdapterDelivery(ports, destination, task, task.delivery.operation);
  if ('kind' in delivery) return delivery;
  const done = await exchange(ports, [{ runner, task }], { kind: 'restrict', timeoutMs: operation.verify!.timeoutMs }, () => verify.request(delivery, task.key, destination.config, ports.clock.now()));
  if (done.kind === 'kept-back') return done.refusals[0]!;
  if (done.kind !== 'answered') return done;
  const read = verify.classify(done.response, delivery, task.key, destination.config);
  task.attempts++;
  task.readBacks++;
  if (read.kind === 'not-applied') Object.assign(task, { maybeSince: 0, doubtSince: 0, notApplied: true });
  const effect = read.kind === 'applied' ? 'done' : read.kind === 'not-applied' ? 'none' : 'maybe';
  task.last = { at: done.startedAt, durationMs: done.durationMs, verdict: `read-back: ${read.kind}`, effect, status: statusOf(done.response), path: task.path === '' ? null : task.path };
  ports.metrics.readBacks.inc({ destination: ports.name, operation: task.delivery.operation, answer: read.kind });
  return { kind: 'read', read, headers: headersOf(done.response) };
}

/** Lease, switch and consent of each member in the tick of the socket write; undefined = go. What holds for many of them is asked once: it is one tick. */
function refusalsOf(ports: DestinationPorts, members: readonly Member[], kind: OperationManifest['kind'], deadlineMs: number): (Refusal | undefined)[] | undefined {
  const consumer = ports.consumer();
  const topic = ports.topics.dispatch(ports.name);
  const inTime = withinAssignment(ports, deadlineMs);
  const ofAll: Refusal | undefined = !withinConsent(ports, kind, deadlineMs)
    ? { kind: 'refused', reason: 'lease', detail: 'the consent lease does not cover the call' }
    : ports.destination()?.enabled !== true ? { kind: 'refused', reason: 'disabled', detail: 'the destination is disabled' } : undefined;
  const now = ports.clock.now();
  let found: (Refusal | undefined)[] | undefined;
  let last: PartitionRunner | undefined;
  let held = false;
  for (let i = 0; i < members.length; i++) {
    const { runner, task } = members[i]!;
    if (runner !== last) {
      last = runner;
      held = inTime && !runner.closed() && consumer.holds(topic, runner.partition, runner.epoch);
    }
    let refusal: Refusal | undefined = held ? ofAll : { kind: 'refused', reason: 'lease', detail: 'the lease does not cover the call' };
    if (refusal === undefined) {
      const reason = consentRefusal(ports, task, kind, now);
      if (reason !== undefined) refusal = { kind: 'refused', reason: 'consent', detail: reason };
    }
    if (refusal !== undefined) (found ??= new Array<Refusal | undefined>(members.length).fill(undefined))[i] = refusal;
  }
  return found;
}

function headersOf(response: HttpResponse | HttpFailure): HttpResponse['headers'] | undefined {
  return 'status' in response ? response.headers : undefined;
}

function statusOf(response: HttpResponse | HttpFailure): number | null {
  return 'status' in response ? response.status : null;
}

/** What the adapter gets; or, where the bytes of the payload are no record, why it cannot be built: whoever reads them finds the same, and it is no fault of the process. */
function toAdapterDelivery(ports: DestinationPorts, destination: DestinationConfig, task: Task, operation = task.path === '' ? task.delivery.operation : task.path): Delivery | Unbuildable {
  const { delivery } = task;
  let record: ReturnType<DestinationPorts['serde']['decode']>['value'];
  try {
    record = ports.serde.decode(delivery.payload).value;
  } catch (error) {
    const code = recordFault(error);
    if (code === undefined) throw error;
    return { kind: 'unbuildable', code, detail: `the payload of the delivery: ${(error as Error).message}` };
  }
  if (task.object === '') task.object = objectOf(ports.workspaceKey, delivery, destination.operations[delivery.operation], () => record);
  // It was decoded for this call; what no mapping named goes nowhere.
  if (record.extras !== undefined) record.extras = undefined;
  // That Weir does not know the country is nothing to tell a vendor.
  if (record.country === unknownCountry) record.country = null;
  const identifiers: { type: 'userId' | 'email' | 'phone' | 'external' | 'anonymousId'; value: string }[] = [];
  if (typeof record.userId === 'string') identifiers.push({ type: 'userId', value: record.userId });
  if (typeof record.email === 'string') identifiers.push({ type: 'email', value: record.email });
  if (typeof record.phone === 'string') identifiers.push({ type: 'phone', value: record.phone });
  for (const e of record.externalIds ?? []) identifiers.push({ type: 'external', value: `${e.type}:${e.value}` });
  if (typeof record.anonymousId === 'string') identifiers.push({ type: 'anonymousId', value: record.anonymousId });
  return { destination: delivery.destination, operation, recordType: delivery.recordType, record, identifiers, eventId: delivery.eventId, outputId: delivery.outputId, acceptedAt: delivery.acceptedAt };
}

/** What the quota learns of a call, also of one that was not sent. */
export function tellQuota(ports: DestinationPorts, bucket: string, result: CallResult | ReadBackResult, verdict: { readonly kind: string; readonly retryAfterMs?: number } | undefined): void {
  const headers = 'headers' in result ? result.headers : undefined;
  const throttled = verdict?.kind === 'throttled';
  const sent = result.kind === 'verdict' || result.kind === 'read';
  ports.quota.finished(bucket, { sent, throttled, answered: headers !== undefined, retryAfterMs: throttled ? verdict.retryAfterMs : undefined, headers }, ports.clock.monotonic());
}
