// Verify a phone from Node 18 or later: WATCHWORD_API=https://login.example.com WATCHWORD_API_KEY=otp_… node verify.mjs +12025550143
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline/promises";

async function call(path, body, key = randomUUID()) {
  const answer = await fetch(process.env.WATCHWORD_API + path, {
    method: "POST",
    headers: { "X-API-Key": process.env.WATCHWORD_API_KEY, "Content-Type": "application/json", "Idempotency-Key": key }, // repeat a request with its key: it is done once
    body: JSON.stringify(body),
  });
  const result = await answer.json();
  if (!answer.ok) throw new Error(`${result.code}: ${result.detail}`); // decide by code
  return result;
}

const sent = await call("/v1/verifications", { to: process.argv[2], purpose: "sign_up" });
console.log("Sent to", sent.to);
for await (const line of createInterface({ input: process.stdin })) {
  const result = await call(`/v1/verifications/${sent.id}/check`, { code: line.trim() });
  if (result.valid) {
    console.log("Verified");
    process.exit(0);
  }
  console.log("Wrong code, attempts left:", result.attempts_left);
}
process.exit(1);
