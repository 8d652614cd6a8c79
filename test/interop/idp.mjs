// An OpenID provider for tests: node idp.mjs PORT
//
// Clients one and two (secrets secret-one and secret-two) get at+jwt access tokens for the API by client_credentials,
// ES256 for scope "es", RS256 otherwise. Prints its issuer once it listens, and ends on SIGTERM.
import { generateKeyPairSync } from 'node:crypto';
import { Provider, errors } from 'oidc-provider';

const port = Number(process.argv[2]), issuer = `http://127.0.0.1:${port}`, api = 'https://api.example';
const key = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg.toLowerCase(),
});
const client = (name) => ({
  client_id: name, client_secret: `secret-${name}`, token_endpoint_auth_method: 'client_secret_basic',
  grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
});

const provider = new Provider(issuer, {
  clients: [client('one'), client('two')],
  jwks: { keys: [key('RS256', 'rsa', { modulusLength: 2048 }), key('ES256', 'ec', { namedCurve: 'P-256' })] },
  scopes: ['read', 'es'],
  cookies: { keys: ['not used by client_credentials'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => api,
      getResourceServerInfo: (ctx, resource) => {
        if (resource !== api) throw new errors.InvalidTarget();
        const es = ctx.oidc.params.scope === 'es';
        return {
          scope: 'read es', audience: api, accessTokenTTL: 600, accessTokenFormat: 'jwt',
          jwt: { sign: { alg: es ? 'ES256' : 'RS256' } },
        };
      },
    },
  },
});
const server = provider.listen(port, '127.0.0.1', () => console.log(issuer));
process.on('SIGTERM', () => { server.close(); server.closeAllConnections(); });
