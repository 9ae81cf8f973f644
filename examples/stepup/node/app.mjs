// An application that is asked for more by the API that it calls, and gets it from the provider: step-up authentication by RFC 9470. It does what
// ../app does in Go, with openid-client, which is certified for OpenID Connect, and nothing else.
//
//   ISSUER=http://localhost:8080 API=http://127.0.0.1:8091 CLIENT_ID=… CLIENT_SECRET=… node app.mjs
//
// Sessions are kept in memory: it is an example, not a server for many.
import { createServer } from "node:http";
import { randomBytes } from "node:crypto";
import * as oidc from "openid-client";

const { ISSUER, API, CLIENT_ID, CLIENT_SECRET, LISTEN = "127.0.0.1:8090" } = process.env;
const [host, port] = LISTEN.split(":");
const insecure = ISSUER.startsWith("http:") ? { execute: [oidc.allowInsecureRequests] } : undefined; // for development
let discovered; // the provider need not answer yet
const provider = () => (discovered ??= oidc.discovery(new URL(ISSUER), CLIENT_ID, undefined, oidc.ClientSecretBasic(CLIENT_SECRET), insecure)
  .catch((error) => { discovered = undefined; throw error; }));

// session: { flow, tokens, said, problem }. flow is a sign-in under way: { state, nonce, verifier, wants, transfer }.
const sessions = new Map();
const named = (request) => request.headers.cookie?.match(/(?:^|; )stepup=([^;]+)/)?.[1];
const find = (request) => sessions.get(named(request)) ?? {};
function keep(response, session) {
  const id = randomBytes(32).toString("base64url");
  sessions.delete(named(response.req));
  sessions.set(id, session);
  if (sessions.size > 1000) sessions.delete(sessions.keys().next().value);
  response.setHeader("Set-Cookie", `stepup=${id}; Path=/; HttpOnly; SameSite=Lax${base.startsWith("https:") ? "; Secure" : ""}`);
}
function lead(response, target) {
  response.writeHead(303, { Location: String(target), "Cache-Control": "no-store" }).end();
}
function finish(response, session) {
  keep(response, session);
  lead(response, base + "/");
}

// Sends the browser to the provider. What the API wants goes along as it came: the provider asks for no more than is missing.
async function authorize(response, session, wants = {}, transfer = false) {
  const verifier = oidc.randomPKCECodeVerifier();
  const flow = { state: oidc.randomState(), nonce: oidc.randomNonce(), verifier, wants, transfer };
  const parameters = {
    redirect_uri: base + "/callback", scope: "openid", state: flow.state, nonce: flow.nonce,
    code_challenge: await oidc.calculatePKCECodeChallenge(verifier), code_challenge_method: "S256",
  };
  if (wants.acr_values) parameters.acr_values = wants.acr_values;
  if (wants.max_age) parameters.max_age = wants.max_age;
  if (session.tokens) parameters.id_token_hint = session.tokens.id_token; // the same person, nobody else
  const target = oidc.buildAuthorizationUrl(await provider(), parameters);
  keep(response, { tokens: session.tokens, flow });
  lead(response, target);
}

// Calls the API, and if it wants more than the token proves, sends the browser to prove it: once.
async function transfer(response, tokens, again) {
  try {
    const answer = await oidc.fetchProtectedResource(await provider(), tokens.access_token, new URL(API + "/transfers"), "POST");
    if (!answer.ok) return finish(response, { tokens, problem: `The bank answers ${answer.status}.` });
    finish(response, { tokens, said: (await answer.json()).said });
  } catch (error) {
    if (!(error instanceof oidc.WWWAuthenticateChallengeError)) throw error;
    const wants = error.cause.find(({ scheme, parameters }) => scheme === "bearer" && parameters.error === "insufficient_user_authentication")?.parameters;
    if (!wants) return finish(response, { problem: "The token is not good any more. Sign in again." });
    if (again) return finish(response, { tokens, problem: "The bank wants more still." });
    await authorize(response, { tokens }, wants, true);
  }
}

async function callback(request, response) {
  const { flow, tokens: before } = find(request);
  if (!flow) return finish(response, { tokens: before, problem: "This answer does not belong to a sign-in that began in this browser." });
  const { wants } = flow;
  let tokens;
  try {
    tokens = await oidc.authorizationCodeGrant(await provider(), new URL(request.url, base), {
      pkceCodeVerifier: flow.verifier, expectedState: flow.state, expectedNonce: flow.nonce, idTokenExpected: true,
      ...(wants.max_age && { maxAge: Number(wants.max_age) }),
    });
  } catch (error) {
    if (!(error instanceof oidc.AuthorizationResponseError)) throw error;
    const unmet = error.error === "unmet_authentication_requirements";
    return finish(response, { tokens: before, problem: unmet ? "The bank wants a stronger sign-in than your account has." : `You were not signed in: ${error.error}` });
  }
  const { sub, acr } = tokens.claims();
  if (before && before.claims().sub !== sub) return finish(response, { tokens: before, problem: "Somebody else signed in." });
  if (wants.acr_values && !wants.acr_values.split(" ").includes(acr)) { // RFC 9470 section 5: a provider may ignore what it does not know
    return finish(response, { tokens: before, problem: "The provider did not reach what the bank wants." });
  }
  if (flow.transfer) return transfer(response, tokens, Boolean(wants.acr_values || wants.max_age));
  finish(response, { tokens });
}

const escape = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);
function home(request, response) {
  const { tokens, said, problem } = find(request);
  const claims = tokens?.claims();
  const who = claims && `<dl>
<dt>sub</dt><dd>${escape(claims.sub)}</dd>
<dt>acr</dt><dd>${escape(claims.acr)}</dd>
<dt>amr</dt><dd>${escape(claims.amr.join(" "))}</dd>
<dt>auth_time</dt><dd>${new Date(claims.auth_time * 1000).toISOString().replace(".000", "")}</dd>
</dl>
${claims.amr.includes("sms") ? "<p>A text message confirmed that it is you.</p>" : ""}`;
  response.writeHead(200, {
    "Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": `default-src 'none'; form-action 'self' ${new URL(ISSUER).origin}; frame-ancestors 'none'; base-uri 'none'`,
  }).end(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Step-up example</title>
<h1>Step-up example</h1>
${problem ? `<p role="alert">${escape(problem)}</p>` : ""}${said ? `<p role="status">${escape(said)}</p>` : ""}
${who ?? '<p><a href="/signin">Sign in</a></p>'}
<form method="post" action="/transfer"><button>Transfer 100.00</button></form>
</html>
`);
}

const routes = {
  "GET /": home,
  "GET /signin": (_, response) => authorize(response, {}),
  "GET /callback": callback,
  "POST /transfer": (request, response) => {
    const site = request.headers["sec-fetch-site"], origin = request.headers.origin; // another site's form moves no money
    if ((site && site !== "same-origin") || (origin && origin !== base)) return response.writeHead(403).end();
    const { tokens } = find(request);
    return tokens ? transfer(response, tokens, false) : authorize(response, {}, {}, true);
  },
};

let base;
const server = createServer(async (request, response) => {
  try {
    const route = routes[`${request.method} ${new URL(request.url, base).pathname}`];
    await (route ? route(request, response) : response.writeHead(404).end());
  } catch (error) {
    console.error(error);
    if (!response.headersSent) finish(response, { problem: "Something went wrong. Try again." });
  }
});
server.listen(Number(port), host, () => {
  base = process.env.BASE_URL ?? `http://${host}:${server.address().port}`;
  console.log(`Open ${base}`);
});
