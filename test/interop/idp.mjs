// An OpenID provider for tests: node idp.mjs PORT [VERSION [LOGOUT_URI]]
//
// Clients one and two (secrets secret-one and secret-two) get at+jwt access tokens for the API by client_credentials,
// ES256 for scope "es", RS256 otherwise. Users sign in to client portal (secret-portal) as whomever login_hint names,
// and it gets such tokens for them and opaque refresh tokens; LOGOUT_URI hears of the end of their sessions. Prints its
// issuer once it listens, and ends on SIGTERM.
import { generateKeyPairSync } from 'node:crypto';

const [, , port, version = '8', logoutURI] = process.argv;
const { Provider, errors } = await import({ 8: 'oidc-provider', 9: 'oidc-provider-9' }[version]);
const issuer = `http://127.0.0.1:${port}`, api = 'https://api.example';
const key = (alg, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: alg.toLowerCase(),
});
const client = (name) => ({
  client_id: name, client_secret: `secret-${name}`, token_endpoint_auth_method: 'client_secret_basic',
  grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
});

const provider = new Provider(issuer, {
  clients: [client('one'), client('two'), {
    ...client('portal'), grant_types: ['authorization_code', 'refresh_token'], response_types: ['code'],
    redirect_uris: ['https://portal.example/callback'],
    ...(logoutURI && { backchannel_logout_uri: logoutURI, backchannel_logout_session_required: true }),
  }],
  jwks: { keys: [key('RS256', 'rsa', { modulusLength: 2048 }), key('ES256', 'ec', { namedCurve: 'P-256' })] },
  scopes: ['openid', 'read', 'es'],
  cookies: { keys: ['of tests only'] },
  pkce: { required: () => false },
  interactions: { url: (ctx, { uid }) => `/sign-in/${uid}` },
  findAccount: (ctx, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  issueRefreshToken: () => true,
  async loadExistingGrant(ctx) { // everybody grants all
    const { client: { clientId }, session: { accountId } } = ctx.oidc, grant = new provider.Grant({ accountId, clientId });
    grant.addOIDCScope('openid read');
    grant.addResourceScope(api, 'read');
    await grant.save();
    return grant;
  },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    revocation: { enabled: true },
    backchannelLogout: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => api,
      useGrantedResource: () => true,
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
provider.use(async (ctx, next) => {
  if (!ctx.path.startsWith('/sign-in/')) return next();
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  await provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: params.login_hint } });
});
provider.on('backchannel.error', (ctx, error) => console.log(error.message));
const server = provider.listen(Number(port), '127.0.0.1', () => console.log(issuer));
process.on('SIGTERM', () => { server.close(); server.closeAllConnections(); });
