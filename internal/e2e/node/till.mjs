// A till, with oauth4webapi: it has no browser, asks in the background (CIBA) by signed requests, authenticates by key and has its tokens bound to another (DPoP). Then it has a
// payment confirmed over HTTP. It prints what it was told as JSON.
import * as oauth from "oauth4webapi";
import { browser, newestCode, newestText } from "./browser.mjs";

const { issuer, client_id, client_key, username, password, inbox, phone } = JSON.parse(process.argv[2]);
const options = { [oauth.allowInsecureRequests]: true };

const as = await oauth.processDiscoveryResponse(new URL(issuer), await oauth.discoveryRequest(new URL(issuer), options));
const client = { client_id };
const key = await crypto.subtle.importKey("jwk", client_key, { name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
const auth = oauth.PrivateKeyJwt(key);
const DPoP = oauth.DPoP(client, await oauth.generateKeyPair("ES256"));
const bound = { ...options, DPoP };

const request = await oauth.issueRequestObject(as, client, { scope: "openid", login_hint: username, binding_message: "W4SCT", acr_values: "urn:watchword:acr:2" }, key);
const asked = await oauth.processBackchannelAuthenticationResponse(as, client, await oauth.backchannelAuthenticationRequest(as, client, auth, { request }, options));
async function poll() {
  try {
    return await oauth.processBackchannelAuthenticationGrantResponse(as, client, await oauth.backchannelAuthenticationGrantRequest(as, client, auth, asked.auth_req_id, bound));
  } catch (problem) {
    if (problem instanceof oauth.ResponseBodyError) return { error: problem.error };
    throw problem;
  }
}
let told = false;
const answer = poll(); // which waits for the person
answer.finally(() => (told = true));

const link = (await newestText(inbox, phone, /https?:\S+\/ciba\/\S+$/))[0];
const early = await poll();
const { browse, submit } = browser("https://till.example/");
await browse(link); // a preview, say
let page = await browse(link);
page = await submit(page, "/login", { username, password });
const code = await newestCode(inbox, phone);
page = await submit(page, "/login/code", { code });
const words = (html) => html.replaceAll(/<[^>]*>/g, " ").replaceAll(/\s+/g, " ");
const before = words(page.html);
const waited = !told;
page = await submit(page, "/consent", { answer: "allow" });
const tokens = await answer;
const again = await poll();
const introspected = await oauth.processIntrospectionResponse(as, client, await oauth.introspectionRequest(as, client, auth, tokens.access_token, options));
const claims = oauth.getValidatedIdTokenClaims(tokens);

// The payment: a token of its own, bound to the key, for the API.
const own = await oauth.processClientCredentialsResponse(as, client, await oauth.clientCredentialsGrantRequest(as, client, auth, { scope: "transactions" }, bound));
async function call(method, path, body) {
  const init = [method, new URL(path, issuer), new Headers({ "content-type": "application/json" }), body && JSON.stringify(body), bound];
  try {
    const answer = await oauth.protectedResourceRequest(own.access_token, ...init);
    return { status: answer.status, ...(await answer.json()) };
  } catch (problem) {
    if (problem.response) return problem.response.json();
    throw problem;
  }
}
const payee = { name: "Gas AG", account: "DE02100100109307118603" };
const order = { amount: "129.90", currency: "EUR", payee };
const first = await call("POST", "/v1/transactions", { user: claims.sub, ...order });
const [, wanted] = await newestText(inbox, phone, /Gas AG[^]*#(\d{6})$/);
const changed = await call("POST", `/v1/transactions/${first.id}/verify`, { code: wanted, ...order, amount: "129.91" });
const payment = await call("POST", "/v1/transactions", { user: claims.sub, ...order });
const [, right] = await newestText(inbox, phone, /Gas AG[^]*#(\d{6})$/, wanted);
const wrong = await call("POST", `/v1/transactions/${payment.id}/verify`, { code: right === "000000" ? "000001" : "000000", ...order });
const approved = await call("POST", `/v1/transactions/${payment.id}/verify`, { code: right, ...order });
const read = await call("GET", `/v1/transactions/${payment.id}`);

console.log(JSON.stringify({
  expires_in: asked.expires_in, interval: asked.interval, waited, early: early.error, asked: before, after: words(page.html), again: again.error, link, claims, told: introspected,
  jkt: await DPoP.calculateThumbprint(), token_type: tokens.token_type, payment, wrong, changed, approved, read,
  secrets: [tokens.access_token, tokens.id_token, own.access_token, asked.auth_req_id, code, wanted, right],
}));
