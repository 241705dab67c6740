import type { ConsentTables } from '@weir/consent';
import type { Appender, Headers, LogAdmin, LogRecord } from '@weir/log';
import type { Progress, RetentionWatch, ServiceContext } from '@weir/service';
import type { PolicyMetrics } from './metrics.ts';

/** What the folder and the decision stage share. */
export interface PolicyPorts {
  readonly context: ServiceContext;
  readonly appender: Appender;
  readonly admin: LogAdmin;
  readonly tables: ConsentTables;
  readonly metrics: PolicyMetrics;
  readonly progress: Progress;
  readonly retention: RetentionWatch;
  readonly sessionTimeoutMs: number;
  readonly windowRecords: number;
  readonly windowBytes: number;
  /** Something nobody declared: the process stops without a commit. */
  fail(error: unknown): void;
}

export function headerOf(headers: Headers, name: string): Buffer | undefined {
  for (const header of headers) if (header[0] === name) return header[1];
  return undefined;
}

export function textOf(record: LogRecord, name: string): string {
  return headerOf(record.headers, name)?.toString() ?? '';
}

/** Decimal header; 0 when it is missing or no number. */
export function numberOf(record: LogRecord, name: string): number {
  const value = Number(headerOf(record.headers, name)?.toString() ?? 0);
  return Number.isSafeInteger(value) && value >= 0 ? value : 0;
}
