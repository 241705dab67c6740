/**
 * The closed catalogue of every error code in Weir. A code names the decision it causes, not the place
 * where it happened; codes are never reused. `docs/errors.md` is generated from this table and the
 * metric label `code` takes only these values.
 */

/** What the one place that acts on outcomes does with it. */
export type RetryClass =
  /** try again, later; the record keeps its place */
  | 'retry'
  /** will never succeed as it is: dead letter with every reason */
  | 'permanent'
  /** not an error of the record: the process must stop without a commit */
  | 'stop'
  /** refused at the door, nothing was kept */
  | 'refused'
  /** set aside with an alarm; a person decides */
  | 'quarantine';

export interface CatalogueEntry {
  /** What it means, one sentence. */
  readonly meaning: string;
  readonly retry: RetryClass;
  /** What the operator (or the sender) does about it. */
  readonly action: string;
  /** HTTP status when it is an answer of a Weir API. */
  readonly http?: number;
}

export const catalogue = {
  // --- at the door -------------------------------------------------------------------------------------
  'source-unknown': { meaning: 'No source of this name is in the running release.', retry: 'refused', action: 'Check the URL, or add workspace/sources/<name>.yaml and apply.', http: 404 },
  'signature-invalid': { meaning: 'The signature or credential of the request is missing, wrong or stale.', retry: 'refused', action: 'Check the secret and the clock of the sender.', http: 401 },
  'body-malformed': { meaning: 'The body is not the JSON that this source sends.', retry: 'refused', action: 'Fix the sender; nothing was kept.', http: 400 },
  'body-too-large': { meaning: 'The body, decompressed, is over the limit of the source.', retry: 'refused', action: 'Send smaller batches or raise limits.bodyBytes of the source.', http: 413 },
  'body-too-deep': { meaning: 'The body nests deeper than the limit.', retry: 'refused', action: 'Fix the sender; nothing was kept.', http: 400 },
  'too-many-items': { meaning: 'One body carries more items than the limit of the source.', retry: 'refused', action: 'Send smaller batches or raise limits.items of the source.', http: 413 },
  'request-timeout': { meaning: 'The request did not arrive in time.', retry: 'refused', action: 'Check the network of the sender, or raise WEIR_INGEST_REQUEST_TIMEOUT_MS.', http: 408 },
  'headers-too-large': { meaning: 'The headers are over 16 KiB.', retry: 'refused', action: 'Fix the sender; nothing was kept.', http: 431 },
  'encoding-unsupported': { meaning: 'The Content-Encoding is not identity, gzip, deflate or br.', retry: 'refused', action: 'Send it in a supported encoding.', http: 415 },
  'overloaded': { meaning: 'The log is behind: taking more would not be safe.', retry: 'refused', action: 'Retry after the seconds in Retry-After.', http: 429 },
  'log-unavailable': { meaning: 'The broker or the registry does not answer; nothing was accepted.', retry: 'refused', action: 'Retry after the seconds in Retry-After; check Kafka and the registry.', http: 503 },
  'not-ready': { meaning: 'The service has no release, or its tables are not caught up.', retry: 'refused', action: 'Retry; see /readyz for the reason.', http: 503 },
  'unauthorized': { meaning: 'No valid token.', retry: 'refused', action: 'Send Authorization: Bearer <token>.', http: 401 },
  'forbidden': { meaning: 'The token lacks the permission of this route.', retry: 'refused', action: 'Ask an administrator for the role.', http: 403 },
  'self-approval': { meaning: 'Who proposed a change can not approve it, nor a token that the proposer issued, nor who issued the token of the proposer.', retry: 'refused', action: 'Ask another person with the role approver, whose token neither of you has issued; propose with a token of your own, not with the admin token.', http: 403 },
  'approval-expired': { meaning: 'A delivery that waited for an approval was not let through in time.', retry: 'refused', action: 'Replay the event if it is still wanted.', http: 409 },
  'issuer-unavailable': { meaning: 'The OIDC issuer does not answer, so nobody can say whether the token is valid.', retry: 'refused', action: 'Retry; the admin token and API tokens work meanwhile. Check WEIR_OIDC_ISSUER, its discovery document and keys, and the way there.', http: 503 },
  'audit-broken': { meaning: 'The audit log is not what was signed: nothing may be changed.', retry: 'refused', action: 'Run weir audit verify; find who wrote to the audit topic, restore it. Checkpoints kept of another cluster, or another AUDIT_KEY, look the same.', http: 503 },
  'not-found': { meaning: 'There is nothing under this id.', retry: 'refused', action: 'Check the id.', http: 404 },
  'bad-request': { meaning: 'An argument is missing or wrong.', retry: 'refused', action: 'The message names it.', http: 400 },
  'consent-superseded': { meaning: 'The change was recorded, and a grant that came after it has opened again what it closed.', retry: 'refused', action: 'Ask with weir consent show; if it must be closed, send it again under a new Idempotency-Key.', http: 409 },
  // --- mapping and contract ------------------------------------------------------------------------------
  'item-undecodable': { meaning: 'The raw item is not valid JSON within the limits.', retry: 'permanent', action: 'Look at the bytes with weir dlq show; fix the sender.' },
  'item-too-large': { meaning: 'An item of a polled page is larger than a record of the log may be.', retry: 'permanent', action: 'The letter has its first bytes, size, hash and place: have the vendor send it smaller, or take it by hand; it can not be put back.' },
  'mapping-failed': { meaning: 'A mapping could not be applied to the item.', retry: 'permanent', action: 'Fix the mapping, apply, then weir replay dlq --code mapping-failed.' },
  'consent-unresolved': { meaning: 'A change of consent cannot be bound to anybody: it names nobody, or the item that carries it could not be mapped.', retry: 'permanent', action: 'Look at it with weir dlq list --code consent-unresolved --open; fix the mapping, weir apply it and redrive the letter; what nobody can be bound by: weir consent settle <letter> --reason …. The incident ends by itself.' },
  'mapping-no-output': { meaning: 'No output of the mapping matches the item.', retry: 'permanent', action: 'Add an output for this kind of item, or drop it by name in the mapping.' },
  'contract-breached': { meaning: 'The canonical record breaks its data contract; every reason is listed.', retry: 'permanent', action: 'Fix the mapping or the contract, apply, then redrive.' },
  'approval-required': { meaning: 'A rule of the policy holds the delivery until somebody lets it through.', retry: 'quarantine', action: 'Look at it with weir policy held, then approve or refuse it before it expires.' },
  'event-conflict': { meaning: 'The same event id arrived with a different body.', retry: 'quarantine', action: 'The sender reuses ids: compare both bodies, then redrive the right one.' },
  'source-retired': { meaning: 'The running release has no source or mapping for this record.', retry: 'permanent', action: 'Restore the source in the workspace, apply, then redrive.' },
  'avro-undecodable': { meaning: 'The bytes are not the Avro they claim, or go over the decode limits.', retry: 'permanent', action: 'Look at the bytes with weir dlq show; find who wrote to the topic.' },
  'schema-unknown': { meaning: 'The schema id of the record is not in the registry.', retry: 'permanent', action: 'Restore the registry or find who wrote to the topic.' },
  'subject-erased': { meaning: 'The person was erased: the key of the record is destroyed, or the event is older than the erasure.', retry: 'permanent', action: 'Nothing: it is meant to be unreadable. weir subject show tells when it was erased.' },
  'key-destroyed': { meaning: 'Nobody can read the record any more, and no erasure covers it: it was accepted after the erasure of the person and is sealed under a key that the erasure destroyed (who sealed it had not read the mark yet), or it is a raw item, or the dead letter of one, whose key of the day went at the end of retention.', retry: 'permanent', action: 'weir replay raw of its event: it is sealed anew, under the key of now. A change from the consent API is given again. A raw item past its retention is gone: ask the source to send it again.' },
  'expiring': { meaning: 'The record came within reach of the retention of its topic before it could be processed.', retry: 'permanent', action: 'Find why the stage lags; redrive.' },
  // --- delivery -----------------------------------------------------------------------------------------------
  'delivery-rejected': { meaning: 'The vendor refuses this request for good.', retry: 'permanent', action: 'Read the reason, fix mapping or data, redrive.' },
  'delivery-unbuildable': { meaning: 'The adapter cannot build a request from this record.', retry: 'permanent', action: 'Fix the destination config or mapping, redrive.' },
  'delivery-exhausted': { meaning: 'Calls failed for as long as the horizon of the destination.', retry: 'permanent', action: 'Check the vendor, then redrive.' },
  'delivery-held': { meaning: 'It is unknown whether the vendor applied it, the key window has passed, and the vendor cannot be asked or does not tell.', retry: 'quarantine', action: 'Look at the vendor, then weir deliveries resolve <id> --applied or --not-applied.' },
  'delivery-expired': { meaning: 'The event is older than the ledger remembers: sending it could be sending it twice.', retry: 'quarantine', action: 'Look at the vendor. Weir does not send it any more, nor by redrive or replay: what was not applied is entered there, or sent again by the source as a new event.' },
  'destination-retired': { meaning: 'The running release has no such destination or operation.', retry: 'permanent', action: 'Restore the destination, apply, redrive.' },
  'vendor-unavailable': { meaning: 'The vendor answered 5xx, cut the connection, or did not answer in time.', retry: 'retry', action: 'None: it is retried; the breaker opens when it lasts.' },
  'vendor-throttled': { meaning: 'The vendor answered 429 or its equivalent.', retry: 'retry', action: 'None: it is retried after what the vendor asked.' },
  'credential-rejected': { meaning: 'The vendor refuses our credential, or one delivery with a credential under which others pass.', retry: 'retry', action: 'Destination paused: renew the credential, its events are kept. Others pass: look at what the vendor has against this record or its operation; it is tried again until the horizon.' },
  'secret-unavailable': { meaning: 'A secret cannot be had now: its vault is down, sealed, slow or refuses, or its token server does.', retry: 'retry', action: 'Look at the vault; what needs the secret is paused, keeps its events and goes on by itself. Of a request nothing was kept: send it again.', http: 503 },
  'address-forbidden': { meaning: 'The outbound address is not a public one, or the answer was a redirect.', retry: 'retry', action: 'None when it passes (an outage page, a DNS fault): it is retried and the breaker opens. Else fix the URL of the destination or its DNS.' },
  'response-too-large': { meaning: 'The answer of the vendor is over the limit.', retry: 'permanent', action: 'Look at the vendor.' },
  'lease-lost': { meaning: 'The instance may no longer own the partition: the call was not started.', retry: 'retry', action: 'None: the new owner sends it.' },
  'topic-missing': { meaning: 'A topic that the running release needs is not there: it was deleted, or never created.', retry: 'retry', action: 'The message names it: weir topics apply. What needs it waits and goes on by itself; what was on it and had not ended is to be replayed.', http: 503 },
  'topic-repartitioned': { meaning: 'A topic has other partitions than it was made with.', retry: 'stop', action: 'More: keys stay where they are and the new partitions empty; nothing is to be done, and nothing else may write there. Fewer: it was deleted and made again; the message has the count with which to make it.' },
  // --- the process stops ------------------------------------------------------------------------------------
  'log-append-failed': { meaning: 'An append was not acknowledged before its deadline.', retry: 'stop', action: 'Check the brokers; the process restarts and repeats.' },
  'log-deadline': { meaning: 'A call to the log did not end before its deadline.', retry: 'stop', action: 'Check the brokers.' },
  'log-out-of-range': { meaning: 'A committed position is no longer in the topic.', retry: 'stop', action: 'Data was deleted before it was read: the message has the exact offsets. Restore the records, or accept the loss as docs/troubleshooting.md says.' },
  'log-assignment-stale': { meaning: 'A commit or call belongs to an assignment that has ended.', retry: 'stop', action: 'None: the new owner continues.' },
  'log-fatal': { meaning: 'The log refused for good (authorisation, unknown topic, record too large).', retry: 'stop', action: 'Check topics with weir topics check.' },
  'log-auth-failed': { meaning: 'A broker or the registry refuses the login or the client certificate.', retry: 'stop', action: 'The message names who refuses what: check WEIR_KAFKA_SASL_* or WEIR_SCHEMA_REGISTRY_*, and the user there.' },
  'log-tls-failed': { meaning: 'The certificate of a broker or of the registry is not trusted, or there is no TLS in common.', retry: 'stop', action: 'The message has the reason: check WEIR_KAFKA_SSL_CA_FILE or WEIR_SCHEMA_REGISTRY_CA_FILE, and the names in the certificate.' },
  'state-in-use': { meaning: 'The folder of local caches is in use by another process.', retry: 'stop', action: 'Give each instance a WEIR_DATA or WEIR_INSTANCE of its own, or end the other process.' },
  'state-unusable': { meaning: 'A local cache cannot be opened, and it is not its content.', retry: 'stop', action: 'The message names the folder and what the system says: rights, room, open files.' },
  'config-invalid': { meaning: 'An environment variable or option is missing or wrong.', retry: 'stop', action: 'The message names the variable and what it takes.' },
  'workspace-invalid': { meaning: 'The workspace does not compile.', retry: 'refused', action: 'The message names file, line and remedy.', http: 422 },
  'release-missing': { meaning: 'No release is on weir.control.', retry: 'stop', action: 'Run weir apply.' },
  'invariant-broken': { meaning: 'Weir found itself in a state that must not be.', retry: 'stop', action: 'Report it with the message.', http: 500 },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof catalogue;
export const errorCodes = Object.keys(catalogue) as ErrorCode[];
