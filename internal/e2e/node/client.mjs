// An application that signs somebody in with oauth4webapi, a library that is certified for OpenID Connect. It prints what it was told as JSON.
import * as oauth from "oauth4webapi";
import { browser, newestCode } from "./browser.mjs";

const { issuer, client_id, client_secret, redirect_uri, username, password, inbox, phone } = JSON.parse(process.argv[2]);
const options = { [oauth.allowInsecureRequests]: true };

const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), options));
const client = { client_id };
const auth = oauth.ClientSecretBasic(client_secret);
const verifier = oauth.generateRandomCodeVerifier();
const state = oauth.generateRandomState();
const nonce = oauth.generateRandomNonce();

const start = new URL(as.authorization_endpoint);
start.search = new URLSearchParams({
  client_id, redirect_uri, state, nonce, response_type: "code", scope: "openid profile email offline_access",
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256", acr_values: "urn:watchword:acr:2",
}).toString();

const { browse, submit } = browser(redirect_uri);
let page = await browse(start);
page = await submit(page, "/login", { username, password });
const code = await newestCode(inbox, phone);
page = await submit(page, "/login/code", { code });

const parameters = oauth.validateAuthResponse(as, client, new URL(page.url), state); // checks iss, RFC 9207
const tokens = await oauth.processAuthorizationCodeResponse(as, client,
  await oauth.authorizationCodeGrantRequest(as, client, auth, parameters, redirect_uri, verifier, options), { expectedNonce: nonce, requireIdToken: true });
const claims = oauth.getValidatedIdTokenClaims(tokens);
const info = await oauth.processUserInfoResponse(as, client, claims.sub, await oauth.userInfoRequest(as, client, tokens.access_token, options));
const refreshed = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token, options));
const again = oauth.getValidatedIdTokenClaims(refreshed);
const told = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, refreshed.access_token, options));
await oauth.processRevocationResponse(await oauth.revocationRequest(as, client, auth, refreshed.refresh_token, options));
const dead = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, refreshed.access_token, options));

console.log(JSON.stringify({
  claims, info, again, told, active_after_revocation: dead.active,
  secrets: [tokens.access_token, tokens.refresh_token, tokens.id_token, refreshed.access_token, refreshed.refresh_token, refreshed.id_token, code, parameters.get("code"), verifier],
}));
