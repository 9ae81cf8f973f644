// An application of the FAPI 2.0 Security Profile, with oauth4webapi: it pushes its request (RFC 9126), says what exactly it wants (RFC 9396), authenticates by key
// and has its tokens bound to another (RFC 9449). It prints what it was told as JSON.
import * as oauth from "oauth4webapi";
import { browser, newestCode } from "./browser.mjs";

const { issuer, client_id, client_key, redirect_uri, username, password, inbox, phone, details } = JSON.parse(process.argv[2]);
const options = { [oauth.allowInsecureRequests]: true };

const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), options));
const client = { client_id, id_token_signed_response_alg: "ES256" };
const auth = oauth.PrivateKeyJwt(await crypto.subtle.importKey("jwk", client_key, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]));
const DPoP = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
const bound = { ...options, DPoP };
const verifier = oauth.generateRandomCodeVerifier();
const state = oauth.generateRandomState();
const nonce = oauth.generateRandomNonce();

const pushed = await oauth.processPushedAuthorizationResponse(as, client, await oauth.pushedAuthorizationRequest(as, client, auth, {
  redirect_uri, state, nonce, response_type: "code", scope: "openid offline_access", authorization_details: JSON.stringify(details),
  code_challenge: await oauth.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
}, bound)); // the code is bound to the key

const { browse, submit } = browser(redirect_uri);
const start = new URL(as.authorization_endpoint);
start.search = new URLSearchParams({ client_id, request_uri: pushed.request_uri }).toString();
await browse(start);
let page = await browse(start); // loaded again
page = await submit(page, "/login", { username, password });
const code = await newestCode(inbox, phone);
page = await submit(page, "/login/code", { code });
const asked = page.html.replaceAll(/<[^>]*>/g, " ").replaceAll(/\s+/g, " ");
page = await submit(page, "/consent", { answer: "allow" });
const opened_again = (await browse(start)).url.startsWith(issuer);

const parameters = oauth.validateAuthResponse(as, client, new URL(page.url), state);
const tokens = await oauth.processAuthorizationCodeResponse(as, client,
  await oauth.authorizationCodeGrantRequest(as, client, auth, parameters, redirect_uri, verifier, bound), { expectedNonce: nonce, requireIdToken: true });
const claims = oauth.getValidatedIdTokenClaims(tokens);
const info = await oauth.processUserInfoResponse(as, client, claims.sub, await oauth.userInfoRequest(as, client, tokens.access_token, bound));
const less = [details[1]];
const refreshed = await oauth.processRefreshTokenResponse(as, client, await oauth.refreshTokenGrantRequest(as, client, auth, tokens.refresh_token,
  { ...bound, additionalParameters: { authorization_details: JSON.stringify(less) } }));
const told = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, refreshed.access_token, options));
const stolen = await fetch(as.userinfo_endpoint, { headers: { authorization: `Bearer ${tokens.access_token}` } });

console.log(JSON.stringify({
  expires_in: pushed.expires_in, asked, opened_again, claims, info, told, jkt: await DPoP.calculateThumbprint(), token_type: tokens.token_type,
  granted: tokens.authorization_details, narrowed: refreshed.authorization_details, refresh_token_kept: refreshed.refresh_token === undefined,
  stolen: { status: stolen.status, challenge: stolen.headers.get("www-authenticate") },
  secrets: [tokens.access_token, tokens.refresh_token, tokens.id_token, refreshed.access_token, refreshed.id_token, code, parameters.get("code"), verifier, pushed.request_uri],
}));
