import { Packer, type Headers, type OutRecord, type Sink } from '@weir/log';
import type { CompiledRoute, Decision, Minimiser } from '@weir/policy';
import type { Release } from '@weir/release';
import { isSealed, seal, sealedBy } from '@weir/seal';
import { createDeliveryBytes } from './delivery-bytes.ts';
import { deliveryRecord, deniedRecord, intentsOf, leftOut, outHeaders, type Canonical, type Standby } from './delivery.ts';
import type { PolicyPorts } from './ports.ts';
import { breachedRecords, escalation, heldRecords, type SetAside } from './set-aside.ts';

/** What a chunk of records gives, per topic. */
export interface Outputs {
  readonly topics: Map<string, OutRecord[]>;
  /** Holds the bytes of deliveries: to be reset when they are acknowledged. */
  readonly packer: Packer;
}

export const createOutputs = (packer = new Packer()): Outputs => ({ topics: new Map(), packer });

export function put({ topics }: Outputs, topic: string, record: OutRecord): void {
  const list = topics.get(topic);
  if (list === undefined) topics.set(topic, [record]);
  else list.push(record);
}

/** Legal basis of the purpose of a route. */
export function basisOf(release: Release, route: CompiledRoute): string | null {
  return route.purpose === undefined ? null : release.policy.purposes.get(route.purpose)?.legalBasis ?? null;
}

/** Both payloads of a delivery with a second vendor: its dead letter carries the whole of it, under what a topic takes (2 MiB). */
const maxPairBytes = 1_000_000;

const firstSink = 64 * 1024;
const largestSink = 4 * 1024 * 1024;

/** Decisions on a record, as what they give on which topic. */
export function createDecisionWriter(ports: PolicyPorts): (decisions: readonly Decision[], from: Canonical, release: Release, outputs: Outputs) => void {
  const { metrics, context: { serde, topics, keys } } = ports;
  /** When this process raised the incident of a rule last: it is seen on weir.control only a moment later. */
  const raised = new Map<string, number>();

  /** The canonical bytes in the schema of this version: those of another writer are encoded again. */
  function currentBytes({ bytes, name, value }: Canonical): Buffer {
    return bytes.readInt32BE(1) === serde.idOf(name) ? bytes : serde.encode(name, value());
  }

  /** What was sealed last: destinations that get the same of a record get the same sealed bytes, which are made once. */
  let last: { readonly canonical: Buffer; readonly payload: Buffer; readonly sealed: Buffer } | undefined;

  /** A payload under the key that its canonical record is sealed with; as it is when that is not sealed. */
  function sealedAs(payload: Buffer, canonical: Buffer): Buffer {
    if (keys === undefined || !isSealed(canonical)) return payload;
    if (last === undefined || last.canonical !== canonical || (last.payload !== payload && !last.payload.equals(payload))) last = { canonical, payload, sealed: seal(keys.byId(sealedBy(canonical))!, payload) };
    return last.sealed;
  }

  /** What the second vendor would get, or why it may not; `cut` is what goes to the first. */
  function standbyOf(decision: Decision, from: Canonical, cut: Buffer, current: Buffer, release: Release): Standby {
    const { destination, operation } = decision.route!;
    const refused = (reason: string): Standby => ({ destination, operation, refused: reason, rule: decision.rule, payload: null, notBefore: null });
    if (decision.effect !== 'allow') return refused(decision.reason);
    // A correction is of what one vendor has.
    if (from.intent !== '0') return refused('correction');
    if ((release.destinations.get(destination)?.contract?.check(from.name, decision.minimiser.record(from.value())) ?? []).length > 0) return refused('contract-breached');
    const own = decision.minimiser.bytes(current);
    const same = own.equals(cut);
    if (!same && own.length + cut.length > maxPairBytes) return refused('too-large');
    return { destination, operation, refused: null, rule: decision.rule, payload: same ? null : sealedAs(own, from.record.value!), notBefore: decision.notBefore };
  }

  function aside(outputs: Outputs, { dlq, outcome }: SetAside): void {
    put(outputs, topics.dlq, dlq);
    put(outputs, topics.outcome, outcome);
  }

  let cutLast: { readonly minimiser: Minimiser; readonly current: Buffer; readonly bytes: Buffer } | undefined;

  /** What leaves: destinations of the same minimiser get the same bytes. */
  function cutOf(minimiser: Minimiser, current: Buffer): Buffer {
    if (cutLast?.current !== current || cutLast.minimiser !== minimiser) cutLast = { minimiser, current, bytes: minimiser.bytes(current) };
    return cutLast.bytes;
  }

  /** Deliveries counted since the turn began, by destination: a counter with labels costs as much as to decide. */
  const allowed = new Map<string, number>();
  function countAllowed(destination: string): void {
    if (allowed.size === 0) queueMicrotask(() => {
      for (const [name, count] of allowed) metrics.decisions.inc({ destination: name, effect: 'allow', reason: '' }, count);
      allowed.clear();
    });
    allowed.set(destination, (allowed.get(destination) ?? 0) + 1);
  }

  const bytes = createDeliveryBytes(serde);
  const sink: Sink = { bytes: Buffer.allocUnsafe(firstSink), at: 0 };

  return function write(decisions, record, release, outputs) {
    const { heads } = record;
    const intents = intentsOf(heads);
    const isLeftOut = leftOut(heads);
    const parts = { packer: outputs.packer, sink, bytes };
    let others: Headers | undefined;
    /** Headers of what is not delivered. */
    const headers = (): Headers => (others ??= outHeaders(record.record, release.hash));
    let current: Buffer | undefined;
    for (const decision of decisions) {
      if (isLeftOut?.(decision) === true) continue;
      const from = intents === undefined ? record : { ...record, intent: intents(decision.route) };
      const destination = decision.route?.destination ?? '';
      let { effect }: { effect: string } = decision;
      if (decision.effect === 'allow') {
        const reasons = release.destinations.get(destination)?.contract?.check(from.name, decision.minimiser.record(from.value())) ?? [];
        if (reasons.length > 0) {
          effect = 'dead-letter';
          metrics.deadLettered.inc({ stage: 'policy', code: 'contract-breached' });
          aside(outputs, breachedRecords(ports, from, decision, reasons, headers()));
        } else {
          if (current === undefined) {
            current = currentBytes(from);
            bytes.record(record);
          }
          const cut = cutOf(decision.minimiser, current);
          const standby = decision.second === undefined ? null : standbyOf(decision.second, from, cut, current, release);
          put(outputs, topics.dispatch(destination), deliveryRecord(ports, parts, from, decision, basisOf(release, decision.route), sealedAs(cut, from.record.value!), standby));
          countAllowed(destination);
          continue;
        }
      } else if (decision.effect === 'hold') {
        aside(outputs, heldRecords(ports, from, decision, headers()));
        const incident = decision.escalate ? escalation(ports, decision, from.now, raised) : undefined;
        if (incident !== undefined) put(outputs, topics.control, incident);
      } else put(outputs, topics.outcome, deniedRecord(ports, from, decision, headers()));
      if (decision.route !== undefined) from.stopped?.(decision.route);
      metrics.decisions.inc({ destination, effect, reason: decision.effect === 'allow' ? '' : decision.reason.split(':', 1)[0]! });
    }
    // One huge record must not keep its size for ever.
    if (sink.bytes.length > largestSink) sink.bytes = Buffer.allocUnsafe(firstSink);
  };
}
