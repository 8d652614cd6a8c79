// Revokes a token with a client library, as its documentation says: node clients.mjs LIBRARY ARGUMENT...
//
// Standard input is {base, id, secret, jwk, token}. Fails where the library takes the answer for a failure. Prints what
// introspection said of the token before and after, for the libraries and clients that can ask.
import { readFileSync } from 'node:fs';

const { base, id, secret, jwk, token } = JSON.parse(readFileSync(0)), hint = { token_type_hint: 'access_token' };

const importKey = async () => ({
  kid: jwk.kid, key: await crypto.subtle.importKey('jwk', jwk, { name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign']),
});

const libraries = { // each gives revoke() and, where it can ask, active()
  async 'openid-client'(method) {
    const { allowInsecureRequests, discovery, tokenIntrospection, tokenRevocation, ...lib } = await import('openid-client');
    const auth = {
      client_secret_basic: () => lib.ClientSecretBasic(secret), client_secret_post: () => lib.ClientSecretPost(secret),
      private_key_jwt: async () => lib.PrivateKeyJwt(await importKey()), none: () => lib.None(),
    };
    const config = await discovery(new URL(base), id, undefined, await auth[method](),
      { algorithm: 'oauth2', execute: [allowInsecureRequests] });
    return {
      revoke: () => tokenRevocation(config, token, hint),
      active: method !== 'none' && (async () => (await tokenIntrospection(config, token, hint)).active),
    };
  },
  async oauth4webapi(method) {
    const lib = await import('oauth4webapi'), insecure = { [lib.allowInsecureRequests]: true }, issuer = new URL(base);
    const as = await lib.processDiscoveryResponse(issuer, await lib.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }));
    const client = { client_id: id };
    const auth = { client_secret_basic: lib.ClientSecretBasic, client_secret_post: lib.ClientSecretPost }[method](secret);
    return {
      revoke: async () => lib.processRevocationResponse(await lib.revocationRequest(as, client, auth, token, insecure)),
      active: async () => (await lib.processIntrospectionResponse(as, client,
        await lib.introspectionRequest(as, client, auth, token, insecure))).active,
    };
  },
  async 'simple-oauth2'(authorizationMethod, revokePath = '/oauth2/revoke') {
    const { ClientCredentials } = await import('simple-oauth2');
    const client = new ClientCredentials({
      client: { id, secret }, auth: { tokenHost: base, revokePath }, options: { authorizationMethod },
    });
    return { revoke: () => client.createToken({ access_token: token }).revoke('access_token') };
  },
  async 'oidc-client-ts'() {
    const { InMemoryWebStorage, OidcClient, WebStorageStateStore } = await import('oidc-client-ts');
    const client = new OidcClient({
      authority: base, metadataUrl: `${base}/.well-known/oauth-authorization-server`, client_id: id, client_secret: secret,
      redirect_uri: 'https://app.example/callback', stateStore: new WebStorageStateStore({ store: new InMemoryWebStorage() }),
    });
    return { revoke: () => client.revokeToken(token, 'access_token') };
  },
  async 'authing-node-sdk'(protocol, method, options = '{}') {
    const { AuthenticationClient } = await import('authing-node-sdk');
    const client = new AuthenticationClient({
      appId: id, appSecret: secret, appHost: base, redirectUri: 'https://app.example/callback', protocol,
      revocationEndPointAuthMethod: method, introspectionEndPointAuthMethod: method,
      tokenEndPointAuthMethod: secret ? 'client_secret_post' : 'none', ...JSON.parse(options),
    });
    return {
      revoke: () => client.revokeToken(token),
      active: method !== 'none' && (async () => (await client.introspectToken(token)).active),
    };
  },
};

const [library, ...args] = process.argv.slice(2), { revoke, active } = await libraries[library](...args), said = {};
if (active) said.before = await active();
await revoke();
if (active) said.after = await active();
console.log(JSON.stringify(said));
