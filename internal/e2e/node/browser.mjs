// The browser's part, by hand: cookies are kept, redirects followed, forms read and posted as they are.
export function browser(redirect_uri) {
  const jar = new Map();
  async function browse(url, init = {}) {
    for (;;) {
      const answer = await fetch(url, { ...init, redirect: "manual", headers: { ...init.headers, cookie: [...jar].map(([k, v]) => `${k}=${v}`).join("; ") } });
      for (const line of answer.headers.getSetCookie()) {
        const [pair] = line.split(";");
        jar.set(pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1));
      }
      const next = answer.headers.get("location");
      if (!next) return { url: String(url), html: await answer.text() };
      url = new URL(next, url);
      if (String(url).startsWith(redirect_uri)) return { url: String(url) };
      init = {};
    }
  }
  async function submit(page, path, fields) {
    for (const [, attributes, body] of page.html.matchAll(/<form([^>]*)>(.*?)<\/form>/gs)) {
      const action = attributes.match(/action="([^"]*)"/)[1].replaceAll("&amp;", "&");
      if (!action.startsWith(path + "?")) continue;
      const form = new URLSearchParams();
      for (const [, name, value] of body.matchAll(/<input type="hidden" name="([^"]*)" value="([^"]*)"/g)) form.set(name, value);
      for (const [name, value] of Object.entries(fields)) form.set(name, value);
      return browse(new URL(action, page.url), { method: "POST", body: form });
    }
    throw new Error(`no form for ${path}`);
  }
  return { browse, submit };
}

// newestText finds in the newest text to a phone that fits what the pattern finds, waiting for one whose first group is not before.
export async function newestText(inbox, phone, pattern, before) {
  for (let i = 0; i < 100; i++) {
    const texts = await (await fetch(`${inbox}/messages?to=${encodeURIComponent(phone)}`)).json();
    for (const { text } of texts) {
      const found = text.match(pattern);
      if (found && found[1] === before && before !== undefined) break;
      if (found) return found;
    }
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error("no text arrived");
}

// newestCode reads the code of the newest text to a phone.
export async function newestCode(inbox, phone) {
  for (let i = 0; i < 100; i++) {
    const texts = await (await fetch(`${inbox}/messages?to=${encodeURIComponent(phone)}`)).json();
    const code = texts[0]?.text.match(/#(\d{6})$/)?.[1];
    if (code) return code;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error("no text arrived");
}
