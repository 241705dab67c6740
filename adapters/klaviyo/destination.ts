import { classifyFailure, compileVerdicts, isHeaderSafe, parseJson, type AdapterConfig, type Destination, type HttpRequest, type Json } from '@weir/adapter';
import { findWeirError, WeirError } from '@weir/errors';
import { revision, verdicts } from './manifest.ts';
import { createReadBack } from './read-back.ts';
import { build } from './requests.ts';

const mediaType = 'application/vnd.api+json';
const errorBytes = 64 * 1024;

/** Codes and pointers of a JSON:API error document; never its free text, which may repeat the person's data. */
function errorsOf(body: Buffer): string {
  let parsed: Json;
  try {
    parsed = body.length > errorBytes ? null : parseJson(body, 16);
  } catch (error) {
    if (findWeirError(error) === undefined) throw error;
    return '';
  }
  const errors = parsed !== null && typeof parsed === 'object' && !Array.isArray(parsed) && Array.isArray(parsed['errors']) ? parsed['errors'] : [];
  return errors.slice(0, 5).map((e) => {
    const error = (e !== null && typeof e === 'object' && !Array.isArray(e) ? e : {}) as { code?: Json; source?: { pointer?: Json } };
    return [error.code, error.source?.pointer].filter((part) => typeof part === 'string' && /^[\w/.-]{1,100}$/.test(part)).join(' ');
  }).join('; ');
}

function send(path: string, config: AdapterConfig, body?: string): HttpRequest {
  const authorization = `Klaviyo-API-Key ${String(config['apiKey'])}`;
  if (!isHeaderSafe(authorization)) throw new WeirError('delivery-unbuildable', 'the API key holds a control character');
  const url = `${String(config['baseUrl']).replace(/\/$/, '')}${path}`;
  const headers = { authorization, accept: mediaType, ...(body === undefined ? {} : { 'content-type': mediaType }), revision, 'user-agent': 'weir/0.1' };
  return body === undefined ? { method: 'GET', url, headers } : { method: 'POST', url, body, headers };
}

const table = compileVerdicts(verdicts, (path, message) => { throw new WeirError('invariant-broken', `verdicts${path}: ${message}`); });

export const destination: Destination = {
  request(delivery, key, config) {
    const { path, body } = build(delivery, key, config['listId'] as string | undefined);
    return send(path, config, body);
  },
  classify: (response) => ('failure' in response ? classifyFailure(response) : table.verdict(response, `HTTP ${response.status} ${response.status >= 400 ? errorsOf(response.body) : ''}`.trim())),
  verify: createReadBack((path, config) => send(path, config), table),
};
