export { isPublicAddress } from './address.ts';
export { createHttpClient, type CallOptions, type HttpClient, type HttpClientOptions } from './client.ts';
export * from './quota/index.ts';
