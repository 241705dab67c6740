/**
 * The parts of kafkajs 2.2.4 that Weir stands on: its connection and its encoding of the protocol. They are not
 * in its index; the version is pinned. Its producer, consumer and retry layers, which can lose a record that
 * they acknowledge and cannot wait for a drain before a rebalance, are not used.
 */
import type { Socket } from 'node:net';
import { createRequire } from 'node:module';

export interface Encoder {
  writeInt8(value: number): Encoder;
  writeInt16(value: number): Encoder;
  writeInt32(value: number): Encoder;
  writeInt64(value: number): Encoder;
  writeString(value: string | null): Encoder;
  writeBytes(value: Buffer): Encoder;
  writeArray(list: readonly Encoder[]): Encoder;
  writeBoolean(value: boolean): Encoder;
  writeUVarInt(value: number): Encoder;
  writeUVarIntString(value: string | null): Encoder;
  writeUVarIntArray(list: readonly Encoder[], type: 'object'): Encoder;
}

export interface Decoder {
  readInt8(): number;
  readInt16(): number;
  readInt32(): number;
  /** kafkajs's own long; Number() of it is exact below 2^53. */
  readInt64(): unknown;
  readString(): string | null;
  readBytes(): Buffer | null;
  readArray<T>(item: (decoder: Decoder) => T): T[];
  readUVarIntString(): string | null;
  readUVarIntArray<T>(item: (decoder: Decoder) => T): T[] | null;
  readTaggedFields(): unknown;
}

export interface Call<R> {
  readonly request: { readonly apiKey: number; readonly apiVersion: number; readonly apiName: string; readonly encode: () => Promise<Encoder> };
  readonly response: { readonly decode: (raw: Buffer) => Promise<R>; readonly parse?: unknown };
}

export interface KafkajsConnection {
  connect(): Promise<boolean>;
  authenticate(): Promise<void>;
  /** By number of the request; its authenticator looks up SaslHandshake (17) and SaslAuthenticate (36). */
  setVersions(versions: Readonly<Record<number, { readonly minVersion: number; readonly maxVersion: number }>>): void;
  setSupportAuthenticationProtocol(supported: boolean): void;
  /** ms that the login is still good for, from when it was made; 0 = for ever. The library's own long. */
  readonly sessionLifetime: { toNumber(): number };
  /** How long before its end the library logs in again, ms. */
  reauthenticationThreshold: number;
  send<R>(call: { request: Call<R>['request']; response: { decode: (raw: Buffer) => Promise<R>; parse: (decoded: R) => Promise<R> }; logResponseError: boolean }): Promise<R>;
  isConnected(): boolean;
  rejectRequests(error: Error): void;
  readonly socket: Socket;
  readonly requestQueue: {
    readonly pending: readonly unknown[];
    throttledUntil: number;
    throttleCheckTimeoutId: unknown;
    checkPendingRequests(): void;
    scheduleCheckPendingRequests(): void;
    destroy(): void;
  };
}

type Definition = { readonly protocol: (options: { version: number }) => (args: Record<string, unknown>) => Call<never> };

const require = createRequire(import.meta.url);
export const Connection = require('kafkajs/src/network/connection') as new (options: Record<string, unknown>) => KafkajsConnection;
export const socketFactory = (require('kafkajs/src/network/socketFactory') as () => unknown)();
export const EncoderOf = require('kafkajs/src/protocol/encoder') as new (size?: number) => Encoder;
export const DecoderOf = require('kafkajs/src/protocol/decoder') as new (raw: Buffer) => Decoder;
const { requests } = require('kafkajs/src/protocol/requests') as { requests: Record<string, Definition> };

/** A request of kafkajs's protocol at one version. */
export function call<R>(name: string, version: number, args: Record<string, unknown>): Call<R> {
  return requests[name]!.protocol({ version })(args) as unknown as Call<R>;
}
