// A real OpenID provider for the end-to-end tests: the certified npm package `oidc-provider` on 127.0.0.1.
//
//     node oidc-provider.mjs '{"clients": [{"client_id": "demo", "client_secret": "…", "redirect_uris": ["…"]}]}'
//
// Listens on a free port and prints one line of JSON, {"issuer": "http://127.0.0.1:PORT", "port": PORT}. Ends when
// its standard input does, so it never outlives whoever started it. Any login name and password are accepted.
//
// Settings, as JSON in the first argument; `clients` is required:
//   clients         oidc-provider's client metadata; redirect_uris are needed, the rest has defaults. The client credentials
//                   grant and token exchange (RFC 8693) work for clients that have these grant types
//   accessTokenTtl  seconds an access token lives (3600)
//   clockTolerance  seconds for which expired tokens are still accepted (0)
//   dpopNonce       whether every DPoP proof must have the server's nonce (false)
//   resources       URLs of the APIs that tokens are issued for (RFC 8707); clients may then register themselves (RFC 7591),
//                   the access tokens are JWTs, and every client gets a refresh token ([])
//
// For the tests alone:
//   GET  /_log       what was asked of /request (pushed authorization requests), /token, /me, /token/revocation and /reg:
//                    facts about each request, no secrets
//   GET  /_tokens    every code, code verifier, token and request URI that went over the wire, to search other places for them
//   POST /_settings  changes settings while running: {"accessTokenTtl": 3600}

import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';

console.info = console.error; // standard output belongs to the one line of JSON

const { default: Provider, errors } = await import('oidc-provider');

const tokenExchange = 'urn:ietf:params:oauth:grant-type:token-exchange';
const accessTokenType = 'urn:ietf:params:oauth:token-type:access_token';

const settings = {
  accessTokenTtl: 3600,
  clockTolerance: 0,
  dpopNonce: false,
  resources: [],
  ...JSON.parse(process.argv[2] ?? '{}'),
};
if (!Array.isArray(settings.clients)) {
  console.error('usage: node oidc-provider.mjs \'{"clients": [{"client_id": …, "redirect_uris": […]}]}\'');
  process.exit(2);
}

const watched = new Set(['/request', '/token', '/me', '/token/revocation', '/reg']);
const apiScopes = ['tools', 'tools:write'];
const log = [];
const seen = { codes: [], codeVerifiers: [], accessTokens: [], refreshTokens: [], idTokens: [], requestUris: [] };

// Else a machine with much to do closes a kept connection just when it is used again.
const server = createServer({ keepAliveTimeout: 300_000 });
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
const { port } = server.address();
const issuer = `http://127.0.0.1:${port}`;
server.on('request', application().callback());
console.log(JSON.stringify({ issuer, port }));

process.stdin.resume();
process.stdin.on('end', () => process.exit(0));

function application() {
  const provider = new Provider(issuer, configuration());
  provider.on('server_error', (_ctx, error) => console.error(error));
  registerTokenExchange(provider);
  provider.use(testRoutes);
  provider.use(record);
  return provider;
}

function configuration() {
  return {
    clients: settings.clients.map((client) => ({
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
      ...client,
    })),
    claims: {
      openid: ['sub'],
      email: ['email', 'email_verified'],
      profile: ['name', 'preferred_username'],
    },
    clockTolerance: settings.clockTolerance, // without it expired tokens are accepted for another 15 seconds
    cookies: { keys: [randomBytes(32).toString('base64url')] },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      dPoP: { enabled: true, nonceSecret: randomBytes(32), requireNonce: () => settings.dpopNonce },
      pushedAuthorizationRequests: { enabled: true },
      registration: { enabled: settings.resources.length > 0 },
      resourceIndicators: { enabled: settings.resources.length > 0, getResourceServerInfo: api },
      revocation: { enabled: true },
      userinfo: { enabled: true },
    },
    ...(settings.resources.length > 0 && { issueRefreshToken: () => true }),
    findAccount: (_ctx, id) => ({ accountId: id, claims: () => claims(id) }),
    jwks: { keys: [signingKey()] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    scopes: ['openid', 'offline_access', ...(settings.resources.length > 0 ? apiScopes : [])],
    ttl: {
      AccessToken: () => settings.accessTokenTtl,
      AuthorizationCode: 60,
      ClientCredentials: () => settings.accessTokenTtl,
      Grant: 3600,
      IdToken: 3600,
      Interaction: 3600,
      RefreshToken: 3600,
      Session: 3600,
    },
  };
}

// oidc-provider has no token exchange of its own, so this is a grant type in the way that its documentation describes. The
// new token belongs to the grant of the subject token, and ends with it.
function registerTokenExchange(provider) {
  const names = ['audience', 'requested_token_type', 'scope', 'subject_token', 'subject_token_type'];
  const exchange = async (ctx) => {
    const { client, params } = ctx.oidc;
    if (params.subject_token_type !== accessTokenType || !params.audience) {
      throw new errors.InvalidRequest('an access token and an audience are required');
    }
    const subject = await provider.AccessToken.find(params.subject_token);
    if (!subject || subject.clientId !== client.clientId) {
      throw new errors.InvalidRequest('the subject token is unknown, expired or revoked');
    }
    const { accountId, claims, grantId } = subject;
    const scope = params.scope ?? subject.scope;
    const token = new provider.AccessToken({ accountId, claims, client, grantId, gty: 'token_exchange', scope });
    const value = await token.save();
    ctx.body = {
      access_token: value,
      expires_in: token.expiration,
      issued_token_type: accessTokenType,
      scope,
      token_type: 'Bearer',
    };
  };
  provider.registerGrantType(tokenExchange, exchange, names, ['audience']);
}

// An API that access tokens are issued for.
function api(_ctx, resource) {
  if (!settings.resources.includes(resource)) {
    throw new errors.InvalidTarget();
  }
  const accessTokenTTL = settings.accessTokenTtl;
  return { scope: apiScopes.join(' '), audience: resource, accessTokenFormat: 'jwt', accessTokenTTL };
}

function claims(id) {
  return { sub: id, email: `${id}@example.test`, email_verified: true, name: `${id} (name)`, preferred_username: id };
}

function signingKey() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), kid: 'test', use: 'sig', alg: 'RS256' };
}

async function testRoutes(ctx, next) {
  switch (`${ctx.method} ${ctx.path}`) {
    case 'GET /_log':
      ctx.body = log;
      break;
    case 'GET /_tokens':
      ctx.body = seen;
      break;
    case 'POST /_settings':
      Object.assign(settings, JSON.parse(await text(ctx.req)));
      ctx.body = settings;
      break;
    default:
      await next();
  }
}

async function record(ctx, next) {
  if (!watched.has(ctx.path)) {
    await next();
    return;
  }
  const entry = {
    method: ctx.method,
    path: ctx.path,
    authorization: ctx.get('authorization').split(' ')[0] || null,
    accept: ctx.get('accept') || null,
    userAgent: ctx.get('user-agent') || null,
    cookie: ctx.get('cookie') !== '',
    jkt: thumbprint(ctx.get('dpop')),
  };
  log.push(entry);
  await next();
  entry.status = ctx.status;
  if (ctx.path === '/me') {
    return;
  }
  const params = ctx.oidc?.params ?? {};
  Object.assign(entry, {
    grantType: params.grant_type ?? null,
    tokenTypeHint: params.token_type_hint ?? null,
    clientSecretInBody: params.client_secret !== undefined,
    codeVerifierLength: params.code_verifier?.length ?? null,
    error: ctx.body?.error ?? null,
    tokenType: ctx.body?.token_type ?? null,
  });
  remember(params, ctx.body ?? {});
}

// Of the key that a DPoP proof shows (RFC 7638), null without a proof. The provider itself checks the proof.
function thumbprint(proof) {
  if (proof === '') {
    return null;
  }
  const { crv, kty, x, y } = JSON.parse(Buffer.from(proof.split('.')[0], 'base64url')).jwk;
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
}

function remember(params, answer) {
  keep(seen.codes, params.code);
  keep(seen.codeVerifiers, params.code_verifier);
  keep(seen.accessTokens, answer.access_token);
  keep(seen.refreshTokens, answer.refresh_token);
  keep(seen.idTokens, answer.id_token);
  keep(seen.requestUris, answer.request_uri);
}

function keep(list, value) {
  if (typeof value === 'string' && !list.includes(value)) {
    list.push(value);
  }
}
