// Package browsertest opens pages in a real Chromium, as a person with a given taste would, and reports what that person or a machine that
// checks pages would object to: accessibility findings (axe-core), console errors, refused requests, requests to other sites, pages wider than the
// window.
package browsertest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// find gives the browser itself, not a distribution's wrapper around it: ending the wrapper would leave the browser running.
func find() (string, error) {
	for _, path := range []string{"/usr/lib/chromium/chromium-headless-shell", "/usr/lib/chromium/chromium", "/usr/lib/chromium-browser/chromium-browser", "/Applications/Chromium.app/Contents/MacOS/Chromium",
		"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome", "/opt/google/chrome/chrome"} {
		if info, err := os.Stat(path); err == nil && !info.IsDir() {
			return path, nil
		}
	}
	for _, name := range []string{"chromium", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no Chromium found: make test installs it; elsewhere install chromium")
}

// Taste is how somebody looks at pages.
type Taste struct {
	Dark, ForcedColors, NoScript bool
	Locale                       string // Accept-Language
	Width                        int64  // CSS pixels; default 1280
}

// String names the taste in a test.
func (o Taste) String() string {
	words := []string{o.Locale, fmt.Sprint(o.Width)}
	for word, is := range map[string]bool{"dark": o.Dark, "forced-colors": o.ForcedColors, "no-script": o.NoScript} {
		if is {
			words = append(words, word)
		}
	}
	return strings.Join(words, " ")
}

// Tab is a browser with one tab.
type Tab struct {
	t   testing.TB
	ctx context.Context
	mu  sync.Mutex
	bad []string
	own map[string]bool // origins that may be asked
}

// Open starts a browser with a fresh profile that ends with t. own are the origins that its pages may send requests to. A machine without
// Chromium fails the test: make test installs it.
func Open(t testing.TB, o Taste, own ...string) *Tab {
	t.Helper()
	if o.Width == 0 {
		o.Width = 1280
	}
	if o.Locale == "" {
		o.Locale = "en"
	}
	binary, err := find()
	if err != nil {
		t.Fatal(err)
	}
	profile, err := os.MkdirTemp("", "watchword-browser-") //nolint:usetesting // the browser's helpers outlive it by moments and still write there
	if err != nil {
		t.Fatal(err)
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(binary), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-sync", true), chromedp.UserDataDir(profile))
	allocator, stop := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	ctx, end := chromedp.NewContext(allocator)
	t.Cleanup(func() {
		chromedp.Cancel(ctx) //nolint:errcheck // a browser that is gone already is what is wanted
		end()
		stop()
		os.RemoveAll(profile) //nolint:errcheck // its helpers may still write; the directory is a temporary one
	})
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start %s: %v", binary, err)
	}
	tab := &Tab{t: t, ctx: ctx, own: map[string]bool{}}
	for _, origin := range own {
		tab.own[origin] = true
	}
	chromedp.ListenTarget(ctx, tab.watch)
	scheme, forced := "light", "none"
	if o.Dark {
		scheme = "dark"
	}
	if o.ForcedColors {
		forced = "active"
	}
	tab.run(chromedp.ActionFunc(func(ctx context.Context) error {
		return errors.Join(log.Enable().Do(ctx), network.Enable().Do(ctx), cdpruntime.Enable().Do(ctx),
			network.SetExtraHTTPHeaders(network.Headers{"Accept-Language": o.Locale}).Do(ctx),
			emulation.SetDeviceMetricsOverride(o.Width, 900, 1, false).Do(ctx),
			emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "forced-colors", Value: forced},
				{Name: "prefers-reduced-motion", Value: "reduce"}}).Do(ctx),
			emulation.SetScriptExecutionDisabled(o.NoScript).Do(ctx))
	}))
	return tab
}

// watch collects what pages do wrong.
func (tab *Tab) watch(event any) {
	complain := func(format string, args ...any) {
		tab.mu.Lock()
		defer tab.mu.Unlock()
		tab.bad = append(tab.bad, fmt.Sprintf(format, args...))
	}
	switch e := event.(type) {
	case *log.EventEntryAdded:
		// A page that is answered with 4xx is an error to the console, but not to a person.
		if e.Entry.Level == log.LevelError && !strings.Contains(e.Entry.Text, "the server responded with a status of 4") {
			complain("console: %s", e.Entry.Text)
		}
	case *cdpruntime.EventExceptionThrown:
		complain("exception: %s", e.ExceptionDetails.Text)
	case *network.EventRequestWillBeSent:
		u, err := url.Parse(e.Request.URL)
		if err == nil && (u.Scheme == "http" || u.Scheme == "https") && !tab.own[u.Scheme+"://"+u.Host] {
			complain("request to %s://%s", u.Scheme, u.Host)
		}
	}
}

func (tab *Tab) run(actions ...chromedp.Action) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		tab.t.Fatalf("browser: %v", err)
	}
}

// Go opens an address.
func (tab *Tab) Go(address string) {
	tab.t.Helper()
	tab.run(chromedp.Navigate(address))
}

// Type puts text into a field, in place of what it held.
func (tab *Tab) Type(selector, text string) {
	tab.t.Helper()
	tab.run(chromedp.WaitReady(selector, chromedp.ByQuery), chromedp.Focus(selector, chromedp.ByQuery), chromedp.ActionFunc(func(ctx context.Context) error {
		return chromedp.KeyEvent("a", chromedp.KeyModifiers(2)).Do(ctx) // Ctrl-A
	}), chromedp.SendKeys(selector, text, chromedp.ByQuery))
}

// Click presses something that leads to another page, and waits for that.
func (tab *Tab) Click(selector string) {
	tab.t.Helper()
	tab.run(chromedp.WaitReady(selector, chromedp.ByQuery))
	ctx, cancel := context.WithTimeout(tab.ctx, time.Minute)
	defer cancel()
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(selector, chromedp.ByQuery)); err != nil {
		tab.t.Fatalf("click %s: %v", selector, err)
	}
}

// Pick clicks on what leads nowhere: a radio button.
func (tab *Tab) Pick(selector string) {
	tab.t.Helper()
	tab.run(chromedp.WaitReady(selector, chromedp.ByQuery), chromedp.Click(selector, chromedp.ByQuery))
}

// URL is the address shown.
func (tab *Tab) URL() (address string) {
	tab.t.Helper()
	tab.run(chromedp.Location(&address))
	return address
}

// navigated is the code that the browser answers with when the page that was asked is no longer there.
const navigated = -32000

// Await waits until the address begins with prefix. A page that gives way to the next while it is asked has no address to tell: Chromium answers
// with navigated, and is asked again.
func (tab *Tab) Await(prefix string) {
	tab.t.Helper()
	ctx, cancel := context.WithTimeout(tab.ctx, 20*time.Second)
	defer cancel()
	for {
		var at string
		var between *cdproto.Error
		if err := chromedp.Run(ctx, chromedp.Location(&at)); errors.As(err, &between) && between.Code == navigated {
			continue
		} else if err != nil {
			tab.t.Fatalf("browser: the address never began with %s: %v", prefix, err)
		}
		if strings.HasPrefix(at, prefix) {
			return
		}
	}
}

// Text is what an element shows.
func (tab *Tab) Text(selector string) (text string) {
	tab.t.Helper()
	tab.run(chromedp.Text(selector, &text, chromedp.ByQuery))
	return strings.TrimSpace(text)
}

// Evaluate runs a script in the page, also where pages may not run their own.
func (tab *Tab) Evaluate(script string, into any) {
	tab.t.Helper()
	tab.run(chromedp.Evaluate(script, into, func(p *cdpruntime.EvaluateParams) *cdpruntime.EvaluateParams { return p.WithAwaitPromise(true) }))
}

// Before runs a script in every page before its own.
func (tab *Tab) Before(script string) {
	tab.t.Helper()
	tab.run(chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := cdppage.AddScriptToEvaluateOnNewDocument(script).Do(ctx)
		return err
	}))
}

// Forget drops all cookies: the next page is opened by somebody new.
func (tab *Tab) Forget() {
	tab.t.Helper()
	tab.run(network.ClearBrowserCookies())
}

// Screenshot saves the whole page as a PNG.
func (tab *Tab) Screenshot(path string) {
	tab.t.Helper()
	var png []byte
	tab.run(chromedp.FullScreenshot(&png, 100))
	if err := os.WriteFile(path, png, 0o600); err != nil {
		tab.t.Fatal(err)
	}
}

// Problems gives what pages did wrong since the last time.
func (tab *Tab) Problems() []string {
	tab.mu.Lock()
	defer tab.mu.Unlock()
	bad := tab.bad
	tab.bad = nil
	return bad
}

// axe reads the rules, which make test installs.
func axe() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	data, err := os.ReadFile(filepath.Join(filepath.Dir(here), "node_modules", "axe-core", "axe.min.js"))
	if err != nil {
		return "", errors.New("axe-core is not installed: make test installs it, or npm ci in internal/browsertest")
	}
	return string(data), nil
}

// Check gives every finding on the page as it stands: axe-core with the WCAG 2.2 AA rules and best practices, ids that are not unique or lead
// nowhere, and a page that has to be moved sideways to be read.
func (tab *Tab) Check() (findings []string) {
	tab.t.Helper()
	rules, err := axe()
	if err != nil {
		tab.t.Fatal(err)
	}
	var raw string
	tab.run(chromedp.Evaluate(rules+";0", nil))
	tab.Evaluate(`axe.run({runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]})
		.then(r => JSON.stringify(r.violations.flatMap(v => v.nodes.map(n => v.id + " at " + n.target + ": " + n.failureSummary))))`, &raw)
	if err := json.Unmarshal([]byte(raw), &findings); err != nil {
		tab.t.Fatal(err)
	}
	var more []string
	tab.Evaluate(`(() => {
		const found = [], ids = [...document.querySelectorAll("[id]")].map(e => e.id);
		for (const id of new Set(ids)) if (ids.filter(x => x === id).length > 1) found.push("id twice: " + id);
		for (const name of ["aria-describedby", "aria-labelledby", "aria-controls", "for"])
			for (const e of document.querySelectorAll("[" + name + "]"))
				for (const id of e.getAttribute(name).split(" ")) if (!document.getElementById(id)) found.push(name + " leads nowhere: " + id);
		for (const a of document.querySelectorAll(".summary a")) if (!document.getElementById(a.getAttribute("href").slice(1))) found.push("summary leads nowhere: " + a.href);
		if (document.documentElement.scrollWidth > document.documentElement.clientWidth) found.push("wider than the window: " + document.documentElement.scrollWidth);
		return found;
	})()`, &more)
	return append(findings, more...)
}
