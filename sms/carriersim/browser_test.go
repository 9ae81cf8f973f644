package carriersim_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/browsertest"
	"github.com/watchword-auth/watchword/sms/carriersim"
)

// screens is where pictures of the inbox go; empty: none are taken.
var screens = flag.String("screens", "", "directory for pictures of the inbox")

// fill has phones with everything on them that a phone can show.
func (d *desk) fill() {
	d.t.Helper()
	const code = "Never share this code, even with us. Example sign-in code: %d. Expires in 10 min.\n\n@login.example.com #%[1]d"
	d.arrive(text{To: "+12025550004", From: "Example", Text: fmt.Sprintf(code, 904117)})
	d.sim.Wait()
	d.arrive(text{To: "+12025550009", From: "+12025550100", Text: fmt.Sprintf(code, 118204)})
	d.arrive(text{To: "+4915123456789", From: "Beispiel", Text: "لا تشارك هذا الرمز مع أحد، ولا معنا. رمز دخول Beispiel: 553104. صالح 10 دقائق."})
	d.arrive(text{To: "+4915123456789", From: "a-sender-whose-name-is-far-too-long-for-a-phone", Text: strings.Repeat("w", 120) + " <b>200 817</b>"})
	if status := d.twilio("+12025550143", fmt.Sprintf(code, 482913)); status != http.StatusCreated {
		d.t.Fatalf("twilio answers %d", status)
	}
	d.arrive(text{To: "+12025550143", From: "Example", Text: fmt.Sprintf(code, 771340)})
	d.sim.Wait()
	for _, reply := range []string{"Who is this? I did not ask for 771340", "STOP"} {
		d.sim.Reply("+12025550143", "Example", reply)
	}
	d.sim.Wait()
	d.sim.SetFaults(carriersim.Faults{Vendor: "vonage", Outage: true})
	d.sim.SetFaults(carriersim.Faults{Vendor: "infobip", Fail: 2, Class: "rate_limited", LossPercent: 20, NoReceipts: true})
}

// TestInboxPage shows the page to people of different tastes, and to a machine that checks pages.
func TestInboxPage(t *testing.T) {
	t.Parallel()
	for _, taste := range []browsertest.Taste{
		{Width: 1280}, {Width: 1280, Dark: true}, {Width: 320}, {Width: 320, Dark: true}, {Width: 320, ForcedColors: true},
	} {
		taste.Locale = "en"
		t.Run(taste.String(), func(t *testing.T) {
			t.Parallel()
			d := start(t)
			tab := browsertest.Open(t, taste, d.url)
			check := func(state string) {
				t.Helper()
				for _, finding := range append(tab.Check(), tab.Problems()...) {
					t.Errorf("%s: %s", state, finding)
				}
				if *screens != "" {
					if err := os.MkdirAll(*screens, 0o755); err != nil { //nolint:gosec // pictures for everybody
						t.Fatal(err)
					}
					look := "light"
					if taste.Dark {
						look = "dark"
					}
					if taste.ForcedColors {
						look += "-forced"
					}
					tab.Screenshot(filepath.Join(*screens, fmt.Sprintf("inbox-%s-%s-%d.png", state, look, taste.Width)))
				}
			}
			tab.Go(d.url)
			tab.Evaluate(live, nil)
			check("empty")
			d.fill()
			tab.Evaluate(until(`document.querySelectorAll(".phone").length === 4 && document.querySelectorAll(".vendor.bad").length === 2`), nil)
			check("full")
			tab.Evaluate(`for (const details of document.querySelectorAll("details")) details.open = true`, nil)
			check("open")
		})
	}
}

// live resolves once the page hears of what arrives.
var live = until(`document.getElementById("live").textContent === "Live"`)

// until is a script that resolves once a condition holds. The page changes where somebody sees it.
func until(condition string) string {
	return `new Promise(done => {
		const watch = new MutationObserver(look);
		function look() { if (` + condition + `) { watch.disconnect(); done(true); } }
		watch.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
		look();
	})`
}

// TestInboxLive checks what the script adds: texts turn up by themselves and take nothing away from whoever writes, forms are sent without leaving the page, codes
// are copied.
func TestInboxLive(t *testing.T) {
	t.Parallel()
	d := start(t)
	tab := browsertest.Open(t, browsertest.Taste{}, d.url)
	tab.Before(`window.stay = true; Object.defineProperty(navigator, "clipboard", {value: {writeText: async text => { window.copied = text; }}});`)
	d.arrive(text{To: "+12025550143", From: "Example", Text: "Your code is 482913."})
	d.sim.Wait()
	tab.Go(d.url)
	tab.Evaluate(live, nil)
	tab.Type(".reply input[name=text]", "half a thou")
	tab.Evaluate(`document.querySelector("#vendor-http details").open = true; document.querySelector("#vendor-http [name=fail]").value = 7; window.here = true`, nil)
	d.arrive(text{To: "+12025550144", From: "Example", Text: "Your code is 771340."})
	tab.Evaluate(until(`document.querySelectorAll(".phone").length === 2`), nil)
	d.arrive(text{To: "+12025550143", From: "Example", Text: "Your code is 118204."})
	d.sim.Wait()
	tab.Evaluate(until(`document.querySelector(".phone").dataset.key === "+12025550143" && document.querySelectorAll(".delivered").length === 3`), nil)
	expect := func(script, want string) {
		t.Helper()
		var got json.RawMessage
		if tab.Evaluate(script, &got); string(got) != want {
			t.Errorf("%s is %s, want %s", script, got, want)
		}
	}
	expect(`[document.activeElement.name, document.activeElement.value, document.querySelector("#vendor-http details").open, document.querySelector("#vendor-http [name=fail]").value]`,
		`["text","half a thou",true,"7"]`)
	expect(`document.getElementById("said").textContent`, `"New text for +12025550143: Your code is 118204."`)

	tab.Evaluate(`document.querySelector(".phone li:last-child button.mark").click()`, nil)
	expect(until(`document.getElementById("said").textContent === "Copied 118204"`)+`.then(() => window.copied)`, `"118204"`)

	tab.Evaluate(`document.querySelector(".phone .reply button").click()`, nil)
	expect(until(`document.querySelector(".phone .out .text")?.textContent === "half a thou" && document.querySelector(".phone .reply input[name=text]").value === ""`), `true`)
	tab.Evaluate(`document.querySelector(".phone .quick button").click()`, nil)
	expect(until(`document.querySelector(".phone .note")?.textContent.includes("nothing more from http")`), `true`)

	tab.Evaluate(`document.querySelector("#vendor-http .main").click()`, nil)
	expect(until(`document.querySelector("#vendor-http .state").textContent === "fails next 7: invalid_recipient"`), `true`)
	d.refuse(text{To: "+12025550199", Text: "refused"})
	expect(until(`document.querySelector("#vendor-http [name=fail]").value === "6"`), `true`)
	tab.Evaluate(`document.querySelector("#vendor-http .switch").click()`, nil)
	expect(until(`document.querySelector("#vendor-http .switch").ariaChecked === "true"`), `true`)
	expect(`window.here`, `true`)

	// The vendor that is in use comes first, the others are folded away until one of them is in trouble.
	expect(`[...document.querySelectorAll("#vendors > ul > .vendor")].map(v => v.id).join()`, `"vendor-http"`)
	expect(`document.querySelector(".others").open`, `false`)
	d.sim.SetFaults(carriersim.Faults{Vendor: "vonage", Outage: true})
	expect(until(`document.querySelector(".others").open && document.querySelector(".others #vendor-vonage.bad")`), `true`)

	// Addresses for receipts and replies are set from the page too.
	tab.Evaluate(`for (const details of document.querySelectorAll("#vendor-octopush details")) details.open = true`, nil)
	tab.Evaluate(`document.querySelector("#vendor-octopush [name=receipts_url]").value = "https://login.example.com/v1/delivery-reports/octopush"; document.querySelector("#vendor-octopush form[action^='/accounts'] button").click()`, nil)
	expect(until(`document.querySelector("#vendors > ul > #vendor-octopush [name=receipts_url]")?.value === "https://login.example.com/v1/delivery-reports/octopush"`), `true`)
	if got := d.sim.Account("octopush").Receipts; got != "https://login.example.com/v1/delivery-reports/octopush" {
		t.Errorf("receipts of octopush go to %q", got)
	}

	tab.Evaluate(`document.getElementById("clear").click()`, nil)
	tab.Evaluate(until(`document.querySelector(".empty")`), nil)
	for _, problem := range tab.Problems() {
		t.Error(problem)
	}
}

// TestInboxWithoutScript walks where pages may not run a script of their own.
func TestInboxWithoutScript(t *testing.T) {
	t.Parallel()
	d := start(t)
	tab := browsertest.Open(t, browsertest.Taste{NoScript: true}, d.url)
	d.arrive(text{To: "+12025550143", From: "Example", Text: "Your code is 482913."})
	d.sim.Wait()
	tab.Go(d.url + "/?still")
	tab.Type(".reply input[name=text]", "who is this?")
	tab.Click(".reply button")
	if got := tab.Text(".out .text"); got != "who is this?" {
		t.Errorf("the phone shows %q", got)
	}
	tab.Click(".quick button")
	if got := tab.Text(".note"); !strings.Contains(got, "nothing more from http") {
		t.Errorf("after STOP the phone shows %q", got)
	}
	tab.Click("#vendor-http .switch")
	if got := tab.Text("#vendor-http .state"); got != "outage" {
		t.Errorf("the vendor's state is %q, want outage", got)
	}
	if got := tab.URL(); got != d.url+"/?still#vendor-http" {
		t.Errorf("the forms lead to %s", got)
	}
	tab.Click("#vendor-http summary + .faults button[value=on], #vendors > .head button")
	if got := tab.Text("#vendor-http .state"); got != "works" {
		t.Errorf("the vendor's state is %q, want works", got)
	}
	d.sim.Reply("+12025550143", "", "to whom?")
	d.arrive(text{To: "+12025550004", Text: "Your code is 904117."})
	d.sim.Wait()
	d.sim.Reply("+12025550004", "", "who is this?")
	tab.Go(d.url + "/?still")
	if got := tab.Text(".failed .badge"); got != "undelivered, never arrived" {
		t.Errorf("a text that was not delivered is shown as %q", got)
	}
	if got := tab.Text("[data-key='+12025550004'] .out .who bdi"); got != "http" {
		t.Errorf("an answer to a text without a sender goes to %q", got)
	}
	tab.Click("#clear")
	if got := tab.Text("#empty"); got != "No texts yet" {
		t.Errorf("after Clear the page shows %q", got)
	}
	tab.Go(d.url)
	if got := tab.Text("noscript a"); got != "Hold it still" {
		t.Errorf("a page that reloads itself offers %q", got)
	}
	for _, problem := range tab.Problems() {
		t.Error(problem)
	}
}
