package carriersim_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-auth/watchword/sms/carriersim"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

// desk is a simulator that listens, and a webhook that notes what it is told.
type desk struct {
	t    *testing.T
	sim  *carriersim.Simulator
	url  string
	hook string

	mu    sync.Mutex
	calls []call
	next  int // of the texts' ids
}

// call is what reached the webhook.
type call struct {
	header http.Header
	body   string
}

func start(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, sim: carriersim.New(carriersim.Options{Now: func() time.Time { return noon }})}
	server := httptest.NewUnstartedServer(d.sim)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	hook := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d.mu.Lock()
		defer d.mu.Unlock()
		d.calls = append(d.calls, call{r.Header, string(body)})
	}))
	t.Cleanup(hook.Close)
	d.url, d.hook = server.URL, hook.URL
	return d
}

// told is what reached the webhook so far.
func (d *desk) told() []call {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.calls)
}

// states are those of the receipts that came, once all have.
func (d *desk) states() (states []string) {
	d.t.Helper()
	d.sim.Wait()
	for _, c := range d.told() {
		var in struct{ State string }
		if err := json.Unmarshal([]byte(c.body), &in); err != nil {
			d.t.Fatalf("receipt %s: %v", c.body, err)
		}
		states = append(states, in.State)
	}
	return states
}

// sign is the signature of Standard Webhooks, with the secret that the simulator starts with.
func sign(id, timestamp, body string) string {
	mac := hmac.New(sha256.New, []byte("simulator-simulator-simulator"))
	fmt.Fprintf(mac, "%s.%s.%s", id, timestamp, body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// text is what is handed to the http vendor.
type text struct {
	ID       string `json:"id"`
	To       string `json:"to"`
	From     string `json:"from"`
	Text     string `json:"text"`
	Callback string `json:"status_callback,omitempty"`
}

func (d *desk) request(in text) *http.Request {
	d.mu.Lock()
	d.next++
	if in.ID == "" {
		in.ID = fmt.Sprintf("text-%d", d.next)
	}
	d.mu.Unlock()
	body, err := json.Marshal(in)
	if err != nil {
		d.t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url+"/http/send", strings.NewReader(string(body)))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Idempotency-Key", in.ID)
	r.Header.Set("Webhook-Id", in.ID)
	r.Header.Set("Webhook-Timestamp", "1795262400")
	r.Header.Set("Webhook-Signature", sign(in.ID, "1795262400", string(body)))
	return r
}

// send hands a text to the http vendor and gives its answer.
func (d *desk) send(in text) (status int, code string, err error) {
	// On a connection that was used before, the client would try again by itself when it drops.
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(d.request(in))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var out struct{ Code string }
	json.NewDecoder(resp.Body).Decode(&out) //nolint:errcheck // a spoilt answer has no code
	return resp.StatusCode, out.Code, nil
}

// arrive sends a text that must be taken.
func (d *desk) arrive(in text) {
	d.t.Helper()
	if status, code, err := d.send(in); status != http.StatusCreated || err != nil {
		d.t.Fatalf("send %+v: %d %s %v", in, status, code, err)
	}
}

// refuse sends a text that must not be taken.
func (d *desk) refuse(in text) {
	d.t.Helper()
	if status, code, err := d.send(in); status != http.StatusUnprocessableEntity || err != nil {
		d.t.Fatalf("send %+v: %d %s %v", in, status, code, err)
	}
}

// reply is an answer that was read.
type reply struct {
	status int
	header http.Header
	body   string
}

// do sends a body as a script would; redirects are not followed.
func (d *desk) do(method, path, kind, body string, headers ...string) reply {
	d.t.Helper()
	r, err := http.NewRequestWithContext(d.t.Context(), method, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header, string(data)}
}

const form, document = "application/x-www-form-urlencoded", "application/json"

// expect does the same and checks the status.
func (d *desk) expect(status int, method, path, kind, body string) string {
	d.t.Helper()
	got := d.do(method, path, kind, body)
	if got.status != status {
		d.t.Fatalf("%s %s %s = %d %s, want %d", method, path, body, got.status, got.body, status)
	}
	return got.body
}

// faults are what GET /faults says of a vendor.
func (d *desk) faults(vendor string) carriersim.Faults {
	d.t.Helper()
	var all []carriersim.Faults
	if err := json.Unmarshal([]byte(d.expect(http.StatusOK, http.MethodGet, "/faults", "", "")), &all); err != nil {
		d.t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(f carriersim.Faults) bool { return f.Vendor == vendor })
	if i < 0 || len(all) != len(d.sim.Vendors()) {
		d.t.Fatalf("/faults has %d vendors: %+v", len(all), all)
	}
	return all[i]
}

func TestMessages(t *testing.T) {
	t.Parallel()
	d := start(t)
	for _, to := range []string{"+12025550143", "+12025550144", "+12025550143"} {
		d.arrive(text{To: to, From: "Example", Text: "code <123456> & more"})
	}
	d.sim.Wait()
	var got []carriersim.Message
	for _, query := range []string{"?to=%2B12025550143", "?to=+12025550143"} {
		if err := json.Unmarshal([]byte(d.expect(http.StatusOK, http.MethodGet, "/messages"+query, "", "")), &got); err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 {
			t.Fatalf("%s: %+v, want two texts", query, got)
		}
	}
	if got[0].ID != "text-3" || got[1].ID != "text-1" {
		t.Errorf("order %s, %s; want the newest first", got[0].ID, got[1].ID)
	}
	want := `{"id":"text-3","to":"+12025550143","from":"Example","text":"code \u003c123456\u003e \u0026 more","channel":"sms","vendor":"http","state":"delivered","at":"2026-11-21T12:00:00Z"}`
	if raw, err := json.Marshal(got[0]); err != nil || string(raw) != want {
		t.Errorf("message %s, want %s", raw, want)
	}
	if got := d.expect(http.StatusOK, http.MethodGet, "/messages?to=%2B12025550199", "", ""); got != "[]\n" {
		t.Errorf("a number without texts: %q, want an empty list", got)
	}
	d.expect(http.StatusNoContent, http.MethodDelete, "/messages", "", "")
	if got := d.expect(http.StatusOK, http.MethodGet, "/messages", "", ""); got != "[]\n" {
		t.Errorf("after DELETE: %q, want an empty list", got)
	}
}

func TestSuffixes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		to       string
		status   int // 0: the connection drops
		code     string
		state    string // "": it did not arrive
		receipts []string
	}{
		{to: "+12025550143", status: 201, code: "ok", state: "delivered", receipts: []string{"sent", "delivered"}},
		{to: "+12025550001", status: 422, code: "invalid_recipient"},
		{to: "+12025550002", status: 422, code: "opted_out"},
		{to: "+12025550003", status: 422, code: "rate_limited"},
		{to: "+12025550004", status: 201, code: "ok", state: "undelivered", receipts: []string{"sent", "undelivered"}},
		{to: "+12025550005", status: 201, code: "ok", state: "expired", receipts: []string{"sent", "expired"}},
		{to: "+12025550006", status: 500},
		{to: "+12025550007", state: "delivered", receipts: []string{"sent", "delivered"}},
		{to: "+12025550008", status: 422, code: "blocked"},
		{to: "+12025550009", status: 201, code: "ok", state: "accepted"},
		{to: "+12025550010", status: 201, code: "ok", state: "delivered", receipts: []string{"delivered", "delivered", "sent", "sent"}},
	} {
		t.Run(tt.to, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			status, code, err := d.send(text{To: tt.to, Text: "code 123456", Callback: d.hook})
			if status != tt.status || code != tt.code || (err != nil) != (tt.status == 0) {
				t.Errorf("answer %d %q, %v; want %d %q", status, code, err, tt.status, tt.code)
			}
			if strings.HasSuffix(tt.to, "010") && len(d.told()) != 4 {
				t.Errorf("%d receipts came before the answer, want all 4", len(d.told()))
			}
			if diff := cmp.Diff(tt.receipts, d.states()); diff != "" {
				t.Errorf("receipts (-want +got):\n%s", diff)
			}
			state := ""
			if arrived := d.sim.Messages(tt.to); len(arrived) > 0 {
				state = arrived[0].State
			}
			if state != tt.state {
				t.Errorf("state %q, want %q", state, tt.state)
			}
		})
	}
}

func TestSecondTry(t *testing.T) {
	t.Parallel()
	d := start(t)
	in := text{ID: "same", To: "+12025550006", Text: "code 123456"}
	if status, _, err := d.send(in); status != http.StatusInternalServerError || err != nil {
		t.Fatalf("first answer %d, %v; want 500", status, err)
	}
	d.arrive(in)
	d.arrive(in)
	if n := len(d.sim.Messages("")); n != 1 {
		t.Errorf("%d texts arrived under one key, want 1", n)
	}
}

func TestForgedRequests(t *testing.T) {
	t.Parallel()
	d := start(t)
	r := d.request(text{To: "+12025550143", Text: "code 123456"})
	r.Header.Set("Webhook-Timestamp", "1795262401")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized || len(d.sim.Messages("")) != 0 {
		t.Errorf("answer %d and %d texts, want 401 and none", resp.StatusCode, len(d.sim.Messages("")))
	}
}

func TestReceipts(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		faults carriersim.Faults
		want   []string
		state  string // "": it does not arrive
	}{
		{"in order", carriersim.Faults{}, []string{"sent", "delivered"}, "delivered"},
		{"copies", carriersim.Faults{ReceiptCopies: 2}, []string{"sent", "sent", "sent", "delivered", "delivered", "delivered"}, "delivered"},
		{"reversed", carriersim.Faults{ReceiptsReversed: true}, []string{"delivered", "sent"}, "delivered"},
		{"none", carriersim.Faults{NoReceipts: true}, nil, "accepted"},
		{"lost", carriersim.Faults{LossPercent: 100}, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := start(t)
			d.sim.SetFaults(tt.faults)
			d.arrive(text{ID: "one", To: "+12025550143", Text: "code 123456", Callback: d.hook})
			if diff := cmp.Diff(tt.want, d.states()); diff != "" {
				t.Errorf("receipts (-want +got):\n%s", diff)
			}
			state := ""
			if arrived := d.sim.Messages(""); len(arrived) > 0 {
				state = arrived[0].State
			}
			if state != tt.state {
				t.Errorf("state %q, want %q", state, tt.state)
			}
			for _, c := range d.told() {
				if c.header.Get("Webhook-Signature") != sign(c.header.Get("Webhook-Id"), c.header.Get("Webhook-Timestamp"), c.body) {
					t.Errorf("the receipt %s is not signed", c.body)
				}
				if !strings.Contains(c.body, `"id":"one"`) {
					t.Errorf("the receipt %s does not name its text", c.body)
				}
			}
		})
	}
}

// TestReversedReceiptsKeepTheEnd shows that a late receipt does not undo an earlier one.
func TestReversedReceiptsKeepTheEnd(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.sim.SetFaults(carriersim.Faults{ReceiptsReversed: true})
	d.arrive(text{To: "+12025550004", Text: "code 123456"})
	d.sim.Wait()
	if state := d.sim.Messages("")[0].State; state != "undelivered" {
		t.Errorf("state %q, want undelivered", state)
	}
}

func TestReceiptIsRepeated(t *testing.T) {
	t.Parallel()
	d := start(t)
	var mu sync.Mutex
	tries := 0
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	t.Cleanup(broken.Close)
	d.arrive(text{To: "+12025550143", Text: "code 123456", Callback: broken.URL})
	d.sim.Wait()
	mu.Lock()
	defer mu.Unlock()
	if tries != 3 {
		t.Errorf("%d calls, want two for the first receipt and one for the second", tries)
	}
}

func TestOutageIsOfOneVendor(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.expect(http.StatusOK, http.MethodPost, "/faults", document, `{"vendor":"http","outage":true}`)
	if status, _, err := d.send(text{To: "+12025550143", Text: "code 123456"}); status != http.StatusServiceUnavailable || err != nil {
		t.Errorf("answer %d, %v; want 503", status, err)
	}
	if status := d.twilio("+12025550143", "code 123456"); status != http.StatusCreated {
		t.Errorf("twilio answers %d, want 201", status)
	}
	d.expect(http.StatusOK, http.MethodPost, "/faults", document, `{"vendor":"http"}`)
	d.arrive(text{To: "+12025550143", Text: "code 123456"})
	d.expect(http.StatusOK, http.MethodPost, "/faults", document, `{"outage":true}`)
	for _, name := range d.sim.Vendors() {
		d.expect(http.StatusServiceUnavailable, http.MethodGet, "/"+name+"/", "", "")
	}
}

// twilio sends a text as Twilio's customer.
func (d *desk) twilio(to, body string) (status int) {
	d.t.Helper()
	a := d.sim.Account("twilio")
	values := url.Values{"From": {"+12025550100"}, "To": {to}, "Body": {body}}
	return d.do(http.MethodPost, "/twilio/2010-04-01/Accounts/"+a.ID+"/Messages.json", form, values.Encode(),
		"Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(a.ID+":"+a.Secret))).status
}

func TestFailuresAndSpoiltAnswers(t *testing.T) {
	t.Parallel()
	d := start(t)
	in := text{To: "+12025550143", Text: "code 123456"}
	d.expect(http.StatusOK, http.MethodPost, "/faults", document, `{"vendor":"http","fail":2,"class":"insufficient_funds","spoil":1}`)
	if status, _, err := d.send(in); err == nil {
		t.Errorf("first answer %d, want a connection that drops", status)
	}
	if status, code, err := d.send(in); status != http.StatusUnprocessableEntity || code != "insufficient_funds" || err != nil {
		t.Errorf("second answer %d %q, %v; want 422 insufficient_funds", status, code, err)
	}
	if f := d.faults("http"); f.Fail != 0 || f.Spoil != 0 {
		t.Errorf("faults left: %+v", f)
	}
	d.arrive(in)
	for how, check := range map[string]func(r *http.Response, body string) bool{
		"garbage": func(r *http.Response, body string) bool {
			return r.StatusCode == 200 && strings.Contains(body, "<html>")
		},
		"oversize": func(_ *http.Response, body string) bool { return len(body) > 1<<20 },
		"redirect": func(r *http.Response, _ string) bool { return r.StatusCode == http.StatusTemporaryRedirect },
	} {
		d.expect(http.StatusOK, http.MethodPost, "/faults", document, `{"vendor":"http","spoil":1,"how":"`+how+`"}`)
		resp, err := http.DefaultTransport.RoundTrip(d.request(in))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if !check(resp, string(body)) {
			t.Errorf("%s: answer %d, %d bytes", how, resp.StatusCode, len(body))
		}
	}
	if n := len(d.sim.Messages("")); n != 4 {
		t.Errorf("%d texts arrived, want 4: spoilt answers are to texts that were taken", n)
	}
}

func TestFaultsFromForms(t *testing.T) {
	t.Parallel()
	d := start(t)
	post := func(body, leads string) {
		t.Helper()
		got := d.do(http.MethodPost, "/faults", form, body)
		if got.status != http.StatusSeeOther || got.header.Get("Location") != leads {
			t.Fatalf("%s: %d to %q: %s", body, got.status, got.header.Get("Location"), got.body)
		}
	}
	want := func(want carriersim.Faults) {
		t.Helper()
		if diff := cmp.Diff(want, d.faults(want.Vendor)); diff != "" {
			t.Fatalf("faults (-want +got):\n%s", diff)
		}
	}
	post("vendor=twilio&fail=3&class=rate_limited&spoil=2&how=garbage&delay_ms=40&jitter_ms=10&loss_percent=25&receipt_delay_ms=5&receipt_copies=1"+
		"&receipts_reversed=on&no_receipts=off&no_receipts=on", "/#vendor-twilio")
	all := carriersim.Faults{
		Vendor: "twilio", Fail: 3, Class: "rate_limited", Spoil: 2, How: "garbage", DelayMS: 40, JitterMS: 10, LossPercent: 25, ReceiptDelayMS: 5, ReceiptCopies: 1,
		ReceiptsReversed: true, NoReceipts: true,
	}
	want(all)
	post("vendor=twilio&outage=on", "/#vendor-twilio")
	all.Outage = true
	want(all)
	post("vendor=twilio&no_receipts=off&fail=&loss_percent=0", "/#vendor-twilio")
	all.NoReceipts, all.Fail, all.LossPercent = false, 0, 0
	want(all)
	want(carriersim.Faults{Vendor: "http"})
	post("vendor=http&fail=1", "/#vendor-http")
	want(carriersim.Faults{Vendor: "http", Fail: 1, Class: "temporary"})
	post("vendor=twilio&reset=on&fail=9", "/#vendor-twilio")
	want(carriersim.Faults{Vendor: "twilio"})
	post("outage=true", "/")
	want(carriersim.Faults{Vendor: "http", Fail: 1, Class: "temporary", Outage: true})
	want(carriersim.Faults{Vendor: "vonage", Outage: true})
	post("reset=on", "/")
	want(carriersim.Faults{Vendor: "http"})
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	d := start(t)
	for _, tt := range []struct {
		path, kind, body string
		status           int
		says             string
	}{
		{"/faults", document, `{"vendor":"nobody"}`, 404, "choose one of http, twilio"},
		{"/faults", document, `{"vendor":"http","outrage":true}`, 400, "send an object with any of vendor, outage"},
		{"/faults", document, `nonsense`, 400, "send an object"},
		{"/faults", document, `{"fail":1,"class":"bad_mood"}`, 400, "class is one of [invalid_recipient"},
		{"/faults", document, `{"spoil":1,"how":"politely"}`, 400, "how is one of drop, garbage"},
		{"/faults", document, `{"fail":-1}`, 400, "fail is a number from 0 to 1000"},
		{"/faults", document, `{"delay_ms":30001}`, 400, "delay_ms is a number from 0 to 30000"},
		{"/faults", form, `vendor=nobody&outage=on`, 404, "choose one of"},
		{"/faults", form, `vendor=http&outrage=on`, 400, `there is no field \"outrage\"`},
		{"/faults", form, `vendor=http&outage=perhaps`, 400, "outage is on or off"},
		{"/faults", form, `vendor=http&reset=perhaps`, 400, "reset is on or off"},
		{"/faults", form, `vendor=http&fail=many`, 400, "fail is a number from 0 to 1000"},
		{"/faults", form, `vendor=http&outage=on&loss_percent=101`, 400, "loss_percent is a number from 0 to 100"},
		{"/faults", form, `outage=on&class=bad_mood`, 400, "class is one of"},
		{"/replies", document, `nonsense`, 400, "the phone's number"},
		{"/replies", document, `{"from":"+12025550143"}`, 400, "what it says"},
		{"/replies", document, `{"from":"+12025550143","text":"STOP"}`, 404, "no text that it could answer"},
		{"/replies", form, `from=%2B12025550143&text=STOP`, 404, "no text that it could answer"},
		{"/accounts", document, `{"vendor":"nobody"}`, 404, "choose one of"},
		{"/accounts", document, `{"vendor":"http","colour":"red"}`, 400, "what is left out stays"},
		{"/accounts", document, `{"vendor":"http","receipts_url":"notaurl"}`, 400, "receipts_url is not a web address"},
	} {
		got := d.expect(tt.status, http.MethodPost, tt.path, tt.kind, tt.body)
		if !strings.Contains(got, tt.says) {
			t.Errorf("%s %s: %s, want %q", tt.path, tt.body, got, tt.says)
		}
	}
	for _, name := range d.sim.Vendors() {
		if diff := cmp.Diff(carriersim.Faults{Vendor: name}, d.faults(name)); diff != "" {
			t.Errorf("what is refused changed something (-want +got):\n%s", diff)
		}
	}
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	d := start(t)
	type row struct {
		Vendor  string `json:"vendor"`
		BaseURL string `json:"base_url"`
		Send    string `json:"send"`
		Secret  string `json:"secret"`
		Inbound string `json:"inbound_url"`
	}
	accounts := func() (rows []row) {
		t.Helper()
		if err := json.Unmarshal([]byte(d.expect(http.StatusOK, http.MethodGet, "/accounts", "", "")), &rows); err != nil {
			t.Fatal(err)
		}
		return rows
	}
	rows := accounts()
	if len(rows) != len(d.sim.Vendors())-2 {
		t.Errorf("%d accounts, want one for each of %v but smpp and smtp, which nobody serves", len(rows), d.sim.Vendors())
	}
	for _, r := range rows {
		if r.BaseURL != d.url+"/"+r.Vendor || r.Secret == "" || !strings.HasPrefix(r.Send, "POST /"+r.Vendor+"/") || strings.Contains(r.Send, "{account}") {
			t.Errorf("account %+v has no base URL, no secret or no path of texts", r)
		}
		if got := d.do(http.MethodGet, "/"+r.Vendor+"/nowhere/at/all/for/sure", "", ""); got.status != http.StatusNotFound || !strings.Contains(got.body, "POST /"+r.Vendor+"/") {
			t.Errorf("%s answers %d %s to a path that is not there, want 404 and its routes", r.Vendor, got.status, got.body)
		}
	}
	before := d.sim.Account("twilio")
	d.expect(http.StatusOK, http.MethodPost, "/accounts", document, `{"vendor":"twilio","inbound_url":"https://example.com/in"}`)
	before.Inbound = "https://example.com/in"
	if diff := cmp.Diff(before, d.sim.Account("twilio")); diff != "" {
		t.Errorf("what is left out stays (-want +got):\n%s", diff)
	}
	if i := slices.IndexFunc(accounts(), func(r row) bool { return r.Vendor == "twilio" && r.Inbound == "https://example.com/in" }); i < 0 {
		t.Error("/accounts does not show what was set")
	}
}

func TestReplies(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.expect(http.StatusOK, http.MethodPost, "/accounts", document, `{"vendor":"http","inbound_url":"`+d.hook+`"}`)
	d.arrive(text{To: "+12025550143", From: "Old", Text: "code 111111"})
	d.arrive(text{To: "+12025550143", From: "New", Text: "code 222222"})
	d.expect(http.StatusOK, http.MethodPost, "/replies", document, `{"from":"+12025550143","text":"who is this?"}`)
	d.sim.Wait()
	d.expect(http.StatusOK, http.MethodPost, "/replies", document, `{"from":"+12025550143","to":"Old","text":"HELP"}`)
	d.sim.Wait()
	got := d.do(http.MethodPost, "/replies?still", form, "from=%2B12025550143&to=New&text=Stop")
	if got.status != http.StatusSeeOther || got.header.Get("Location") != "/?still" {
		t.Errorf("a form is answered %d to %q, want 303 to the page it was on", got.status, got.header.Get("Location"))
	}
	d.sim.Wait()
	var said []string
	for _, c := range d.told() {
		if c.header.Get("Webhook-Signature") != sign(c.header.Get("Webhook-Id"), c.header.Get("Webhook-Timestamp"), c.body) {
			t.Errorf("the reply %s is not signed", c.body)
		}
		said = append(said, c.body)
	}
	want := []string{
		`{"from":"+12025550143","text":"who is this?","to":"New","type":"inbound"}`, `{"from":"+12025550143","text":"HELP","to":"Old","type":"inbound"}`,
		`{"from":"+12025550143","text":"Stop","to":"New","type":"inbound"}`,
	}
	if diff := cmp.Diff(want, said); diff != "" {
		t.Errorf("webhook (-want +got):\n%s", diff)
	}
	if newest := d.sim.Messages("")[0]; !newest.Reply || newest.To != "+12025550143" || newest.Text != "Stop" {
		t.Errorf("the inbox has %+v, want the phone's own text", newest)
	}
	if status, code, err := d.send(text{To: "+12025550143", Text: "code 333333"}); status != http.StatusUnprocessableEntity || code != "opted_out" || err != nil {
		t.Errorf("after STOP: %d %q, %v; want 422 opted_out", status, code, err)
	}
	d.expect(http.StatusOK, http.MethodPost, "/replies", document, `{"from":"+12025550143","text":"START"}`)
	d.arrive(text{To: "+12025550143", Text: "code 444444"})
}

// TestRepliesThatNobodyHears shows that whoever lets a phone answer learns that nobody was told, and why.
func TestRepliesThatNobodyHears(t *testing.T) {
	t.Parallel()
	d := start(t)
	refusing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	t.Cleanup(refusing.Close)
	if status := d.twilio("+12025550143", "code 123456"); status != http.StatusCreated {
		t.Fatalf("twilio answers %d", status)
	}
	for _, tt := range []struct{ inbound, want, note string }{
		{"", `{"delivered_to":null,"hint":"set inbound_url of twilio under its credentials, or with POST /accounts"}`, "Told nobody: set inbound_url of twilio under its credentials, or with POST /accounts"},
		{"http://127.0.0.1:1/x", `{"delivered_to":null,"hint":"nothing answers at inbound_url, http://127.0.0.1:1/x"}`, "Told nobody: nothing answers at inbound_url, http://127.0.0.1:1/x"},
		{refusing.URL, `{"delivered_to":null,"hint":"inbound_url, ` + refusing.URL + `, answers 401"}`, "Told nobody: inbound_url, " + refusing.URL + ", answers 401"},
		{d.hook, `{"delivered_to":"` + d.hook + `"}`, ""},
	} {
		a := d.sim.Account("twilio")
		a.Inbound = tt.inbound
		d.sim.SetAccount("twilio", a)
		if got := d.expect(http.StatusOK, http.MethodPost, "/replies", document, `{"from":"+12025550143","text":"STOP"}`); got != tt.want+"\n" {
			t.Errorf("answer %s, want %s", got, tt.want)
		}
		if got := d.sim.Messages("")[0].Note; got != tt.note {
			t.Errorf("the inbox says %q, want %q", got, tt.note)
		}
	}
	if page := d.expect(http.StatusOK, http.MethodGet, "/", "", ""); !strings.Contains(page, "Told nobody: set inbound_url of twilio") {
		t.Error("the page does not say that nobody was told")
	}
}

// TestRepliesHaveNames shows that no two replies have the same id, even if they say the same.
func TestRepliesHaveNames(t *testing.T) {
	t.Parallel()
	d := start(t)
	a := d.sim.Account("twilio")
	a.Inbound = d.hook
	d.sim.SetAccount("twilio", a)
	d.twilio("+12025550143", "code 123456")
	seen := map[string]bool{}
	for range 2 {
		d.expect(http.StatusOK, http.MethodPost, "/replies", document, `{"from":"+12025550143","text":"STOP"}`)
	}
	for _, c := range d.told() {
		fields, err := url.ParseQuery(c.body)
		if id := fields.Get("MessageSid"); err != nil || !regexp.MustCompile(`^SM[0-9a-f]{32}$`).MatchString(id) || seen[id] {
			t.Errorf("reply %q: %v, want an id of its own in Twilio's form", id, err)
		}
		seen[fields.Get("MessageSid")] = true
	}
	if len(seen) != 2 {
		t.Errorf("%d replies came, want 2", len(seen))
	}
}

// TestDocumentsWithoutType shows that JSON is read as such although curl -d calls it a form, and that vendors have the names of Watchword's configuration too.
func TestDocumentsWithoutType(t *testing.T) {
	t.Parallel()
	d := start(t)
	d.expect(http.StatusOK, http.MethodPost, "/faults", form, ` {"vendor":"simulator","outage":true}`)
	d.expect(http.StatusOK, http.MethodPost, "/faults", form, `{"vendor":"message_central","outage":true}`)
	if !d.faults("http").Outage || !d.faults("message-central").Outage {
		t.Error("the faults were not understood")
	}
	d.expect(http.StatusOK, http.MethodPost, "/faults", form, `{"vendor":"simulator","reset":true}`)
	if d.faults("http").Outage {
		t.Error("reset leaves an outage")
	}
	d.expect(http.StatusSeeOther, http.MethodPost, "/faults", form, "vendor=message_central&reset=on")
	if d.faults("message-central").Outage {
		t.Error("reset in a form leaves an outage")
	}
	d.expect(http.StatusOK, http.MethodPost, "/accounts", form, `{"vendor":"twilio_verify","receipts_url":"https://example.com/x"}`)
	if got := d.sim.Account("twilio-verify").Receipts; got != "https://example.com/x" {
		t.Errorf("receipts go to %q", got)
	}
	d.expect(http.StatusSeeOther, http.MethodPost, "/accounts", form, "vendor=twilio_verify&receipts_url=")
	if got := d.sim.Account("twilio-verify").Receipts; got != "" {
		t.Errorf("receipts go to %q although the form emptied the field", got)
	}
	d.twilio("+12025550143", "code 123456")
	d.expect(http.StatusOK, http.MethodPost, "/replies", form, `{"from":"+12025550143","text":"HELP"}`)
}

// TestOtherSites shows that a page of somebody else cannot use a visitor's browser to get at the simulator.
func TestOtherSites(t *testing.T) {
	t.Parallel()
	d := start(t)
	for _, headers := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		if got := d.do(http.MethodPost, "/faults", form, "outage=on", headers...); got.status != http.StatusForbidden {
			t.Errorf("%v: %d, want 403", headers, got.status)
		}
	}
	for _, headers := range [][]string{{"Sec-Fetch-Site", "same-origin"}, {"Origin", d.url}} {
		if got := d.do(http.MethodPost, "/faults", form, "reset=on", headers...); got.status != http.StatusSeeOther {
			t.Errorf("%v: %d, want 303", headers, got.status)
		}
	}
}

// TestBounds fills the simulator over the brim.
func TestBounds(t *testing.T) {
	t.Parallel()
	const most = 5000
	d := start(t)
	d.sim.SetFaults(carriersim.Faults{NoReceipts: true})
	hand := func(in text) {
		t.Helper()
		w := httptest.NewRecorder()
		if d.sim.ServeHTTP(w, d.request(in)); w.Code != http.StatusCreated {
			t.Fatalf("send: %d %s", w.Code, w.Body)
		}
	}
	for i := range most + 2 {
		hand(text{ID: fmt.Sprintf("key-%d", i), To: fmt.Sprintf("+1202%06d9", i), Text: "code 123456"})
	}
	all := d.sim.Messages("")
	if len(all) != most || all[0].ID != "key-5001" || all[most-1].ID != "key-2" {
		t.Fatalf("%d texts from %s to %s, want the newest 5000", len(all), all[len(all)-1].ID, all[0].ID)
	}
	hand(text{ID: "key-3", To: "+12020000039", Text: "code 123456"})
	if newest := d.sim.Messages("")[0].ID; newest != "key-5001" {
		t.Errorf("the newest text is %s: a repeat was taken for a new text", newest)
	}
	hand(text{ID: "key-0", To: "+12020000009", Text: "code 123456"})
	if newest := d.sim.Messages("")[0].ID; newest != "key-0" {
		t.Errorf("the newest text is %s: a key outlived its text", newest)
	}
	if page := d.expect(http.StatusOK, http.MethodGet, "/", "", ""); strings.Count(page, `class="phone"`) != 40 || !strings.Contains(page, "4960 more phones") {
		t.Errorf("the page shows %d phones, want 40 and how many more there are", strings.Count(page, `class="phone"`))
	}
	for range 100 {
		hand(text{To: "+12025550143", Text: "code 123456"})
	}
	if page := d.expect(http.StatusOK, http.MethodGet, "/", "", ""); strings.Count(page, `class="in accepted"`) != 39+60 || !strings.Contains(page, "40 older") {
		t.Errorf("the page shows %d texts, want 60 of the first phone", strings.Count(page, `class="in accepted"`))
	}
	if got := d.do(http.MethodPost, "/http/send", document, strings.Repeat("x", 65<<10)); got.status != http.StatusBadRequest {
		t.Errorf("a request of 65 KiB: %d, want 400", got.status)
	}
}

// watch opens the events; the function that it gives waits for the next.
func (d *desk) watch(ctx context.Context) (status int, next func() string) {
	d.t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/events", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { resp.Body.Close() })
	lines := bufio.NewReader(resp.Body)
	return resp.StatusCode, func() string {
		d.t.Helper()
		line, err := lines.ReadString('\n')
		blank, _ := lines.ReadString('\n')
		if err != nil {
			d.t.Fatal(err)
		}
		return line + blank
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	d := start(t)
	_, next := d.watch(t.Context())
	changes := []func(){
		func() {}, // whoever comes is told to look
		func() { d.arrive(text{To: "+12025550009", Text: "code 123456"}) },
		func() { d.sim.Reply("+12025550009", "", "HELP") },
		func() { d.expect(http.StatusSeeOther, http.MethodPost, "/faults", form, "vendor=http&fail=1") },
		func() { d.refuse(text{To: "+12025550009", Text: "code 123456"}) },
		func() { d.sim.SetAccount("http", d.sim.Account("http")) },
		func() { d.expect(http.StatusNoContent, http.MethodDelete, "/messages", "", "") },
	}
	for i, change := range changes {
		change()
		if event := next(); event != "data: look\n\n" {
			t.Fatalf("event %d is %q", i, event)
		}
	}
}

func TestWatchersAreBounded(t *testing.T) {
	t.Parallel()
	d := start(t)
	for range 64 {
		if status, _ := d.watch(t.Context()); status != http.StatusOK {
			t.Fatalf("status %d, want 200", status)
		}
	}
	if status, _ := d.watch(t.Context()); status != http.StatusServiceUnavailable {
		t.Errorf("status %d for the 65th, want 503", status)
	}
}

func TestPage(t *testing.T) {
	t.Parallel()
	d := start(t)
	empty := d.expect(http.StatusOK, http.MethodGet, "/", "", "")
	for _, want := range []string{"No texts yet", "curl -u AC00000000000000000000000000000001:twilio-auth-token", "/twilio/2010-04-01/Accounts/", d.url + "/vonage-verify", "whatsapp-app-secret", `http-equiv="refresh"`} {
		if !strings.Contains(empty, want) {
			t.Errorf("the empty page lacks %q", want)
		}
	}
	if strings.Contains(d.expect(http.StatusOK, http.MethodGet, "/?still", "", ""), `http-equiv="refresh"`) {
		t.Error("the still page reloads itself")
	}
	const attack = `<script>alert(1)</script>" onload="alert(2)`
	for _, in := range []text{
		{To: "+12025550144", From: attack, Text: attack + " 123456"},
		{To: attack, From: "Example", Text: "Your code is 482913. Nothing to do with 4829130.\n@example.com #482913"},
		{To: "+12025550143", From: "", Text: "Call +12025550100 at 12:30, order 123-4567"},
	} {
		d.arrive(in)
	}
	d.sim.Reply("+12025550144", "", attack)
	d.expect(http.StatusSeeOther, http.MethodPost, "/faults", form, "vendor=http&fail=2&class=blocked_fraud&outage=on")
	got := d.do(http.MethodGet, "/", "", "")
	page := strings.ReplaceAll(got.body, "&#43;", "+")
	if policy := got.header.Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'; script-src 'self'; style-src 'self';") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	if strings.Contains(page, "<script>") || strings.Contains(page, `" onload="`) || strings.Count(page, "<script ") != 1 {
		t.Error("what a text says got out of its place")
	}
	for _, want := range []string{
		"<bdi>&lt;script&gt;alert(1)&lt;/script&gt;&#34; onload=&#34;alert(2)</bdi>", `data-key="&lt;script&gt;`,
		"Your code is <mark data-copy>482913</mark>. Nothing to do with 4829130.\n@example.com #<mark data-copy>482913</mark>", "Call +12025550100 at 12:30, order 123-4567",
		"no sender", `class="out replied"`, "outage, fails next 2: blocked_fraud", `aria-checked="true" name="outage" value="off"`, "<option selected>blocked_fraud</option>",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	first, second := strings.Index(page, "Phone +12025550144"), strings.Index(page, "Phone +12025550143")
	if first < 0 || second < first {
		t.Errorf("the phones are at %d and %d, want the one that answered last before the other", first, second)
	}
}

func TestAssets(t *testing.T) {
	t.Parallel()
	d := start(t)
	for name, kind := range map[string]string{"inbox.css": "text/css; charset=utf-8", "inbox.js": "text/javascript; charset=utf-8"} {
		got := d.do(http.MethodGet, "/assets/"+name, "", "")
		if got.status != http.StatusOK || got.header.Get("Content-Type") != kind || len(got.body) == 0 || len(got.body) > 8192 {
			t.Errorf("%s: %d, %s, %d bytes", name, got.status, got.header.Get("Content-Type"), len(got.body))
		}
	}
	d.expect(http.StatusNotFound, http.MethodGet, "/assets/inbox.html", "", "")
	d.expect(http.StatusNotFound, http.MethodGet, "/assets/..%2Finbox.go", "", "")
}
