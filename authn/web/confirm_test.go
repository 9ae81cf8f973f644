package web_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/browsertest"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// unsigned stands in for the provider's keys.
type unsigned struct{}

func (unsigned) SignAs(typ string, payload []byte) (string, error) { return typ + string(payload), nil }

// pay lets payments be confirmed in the world.
func (w *world) pay(t *testing.T) {
	t.Helper()
	w.payments = &transaction.Service{DB: w.DB.DB, Keys: w.Keys, Ledger: w.Service.Ledger, Signer: unsigned{}, Issuer: "https://login.example", Config: transaction.DefaultConfig(), HeldBack: w.Service.HeldBack}
	var err error
	if w.orders, err = transaction.NewDetails(); err != nil {
		t.Fatal(err)
	}
}

// paymentOf is what the bank asks to have confirmed.
func paymentOf(name string) string {
	data, err := json.Marshal(map[string]any{
		"type": "payment_initiation", "instructedAmount": map[string]string{"amount": "129.90", "currency": "EUR"}, "creditorName": name,
		"creditorAccount": map[string]string{"iban": "DE89370400440532013000"}, "remittanceInformationUnstructured": "Invoice 4711",
	})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func (a *application) Completion(_ http.ResponseWriter, _ *http.Request, p *authn.Progress, cookie authn.Cookie, payment uuid.UUID) (*authn.Completion, error) {
	return &authn.Completion{
		ACR:   "urn:watchword:acr:2",
		Able:  func(q *postgres.Query) string { return a.w.Service.HoldSignIn(q, p.SignIn, cookie, false) },
		Along: func(q *postgres.Query, approved string) { a.w.Service.CompleteAfter(q, p.SignIn, cookie, approved) },
		Answer: func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://rp.example/cb?code=x&txn="+transaction.PublicID(payment), http.StatusSeeOther)
		},
	}, nil
}

func (a *application) Told(*authn.Progress) string { return "urn:watchword:acr:2" }

func (a *application) SignOutWith(ctx context.Context, q *postgres.Query, cookie authn.Cookie, reason string) {
	a.w.Service.EndAlone(ctx, q, cookie, reason)
}

const payee = "Bäckerei Müller & Söhne"

// atPayment is a browser that has signed in and been led to the page; the text is on its way.
func (w *world) atPayment(t *testing.T) (*browser, *page) {
	t.Helper()
	w.DB.Advance(t, 25*time.Hour)
	b, p := w.atCode(t, "?pay="+url.QueryEscape(payee))
	return b, b.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}})
}

// transaction is the newest there is.
func (w *world) transaction(t *testing.T) *transaction.Transaction {
	t.Helper()
	var id uuid.UUID
	if err := w.DB.GetContext(t.Context(), &id, "SELECT id FROM transactions ORDER BY created_at DESC LIMIT 1"); err != nil {
		t.Fatal(err)
	}
	found, err := w.payments.Get(t.Context(), "demo", id)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// how says how the newest transaction stands.
func (w *world) how(t *testing.T) string {
	t.Helper()
	now := w.transaction(t)
	return strings.TrimSpace(string(now.State) + " " + now.Reason)
}

func (w *world) paymentCode(t *testing.T) string {
	t.Helper()
	return w.Code(t, w.transaction(t).Challenge.ID)
}

func TestConfirm(t *testing.T) {
	t.Parallel()

	t.Run("in order", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		p.want(t, "page", http.StatusOK, "Confirm this payment", "The Bank", "EUR 129.90", "Bäckerei Müller &amp; Söhne", "••••3000", "Invoice 4711", "number ending <strong><bdi>43</bdi></strong>",
			"Code to pay EUR 129.90 to Bäckerei Müller &amp; Söhne", "Approve payment", "Don't approve", "I didn't ask for this", "it is a scam", "another way to pay", "You can approve it until <time",
			`<bdi dir="ltr">+44 20 7946 0000</bdi>`, `autocomplete="one-time-code"`)
		order := []string{"The Bank<", "Confirm this payment</h1>", "EUR 129.90</bdi>", "Söhne</bdi>", "••••3000", "Invoice 4711", "If anything is different", "Code to pay", "Approve payment", "Don't approve", "I didn't ask", "it is a scam", "another way to pay"}
		at := 0
		for _, text := range order { // UX: the order of the elements
			next := strings.Index(p.html[at:], text)
			if next < 0 {
				t.Fatalf("%q does not come after what was before it:\n%s", text, p.html)
			}
			at += next
		}
		if strings.Contains(p.html, "DE89") || strings.Contains(p.html, "autofocus") || w.Texts(t) != 2 {
			t.Errorf("the account is not masked, something has the focus, or there are %d texts", w.Texts(t))
		}
		done := b.submit(t, p, "/confirm", url.Values{"code": {w.paymentCode(t)}, "answer": {"approve"}})
		now := w.transaction(t)
		if done.status != http.StatusSeeOther || done.location != "https://rp.example/cb?code=x&txn="+transaction.PublicID(now.ID) || now.State != transaction.Approved {
			t.Fatalf("%d %s, %s", done.status, done.location, now.State)
		}
		if fmt.Sprint(now.AMR) != "[pwd sms mfa]" || now.ACR != "urn:watchword:acr:2" || len(now.Shown) != 2 || now.Shown[1].Channel != "page" ||
			!strings.Contains(now.Shown[1].Text, "Amount: EUR 129.90\nTo: "+payee+"\nAccount: ••••3000\nReference: Invoice 4711") {
			t.Errorf("rests on %v %s, shown %+v", now.AMR, now.ACR, now.Shown)
		}
		b.do(t, http.MethodGet, p.url, nil).want(t, "back after success", http.StatusOK, "You approved this payment", transaction.PublicID(now.ID))
		if again := b.submit(t, p, "/confirm", url.Values{"code": {"123456"}, "answer": {"approve"}}); again.status != http.StatusOK || !strings.Contains(again.html, "You approved this payment") { // TX-5
			t.Errorf("sent again: %d %s", again.status, again.html)
		}
	})

	t.Run("nothing is sent before it is asked for", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "")
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE authenticators SET bound_at = bound_at - interval '2 days'"); err != nil {
			t.Fatal(err)
		}
		b.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}})
		texts := w.Texts(t)
		for range 2 {
			p = b.do(t, http.MethodGet, "/begin?pay=x", nil)
		}
		p = b.do(t, http.MethodGet, p.url, nil)
		p.want(t, "first", http.StatusOK, "Send a code", "Don't approve", "I didn't ask for this", "for this payment alone")
		if w.Texts(t) != texts || strings.Contains(p.html, "Approve payment") {
			t.Fatalf("%d texts were sent by opening pages", w.Texts(t)-texts)
		}
		p = b.submit(t, p, "/confirm/code", nil)
		p.want(t, "sent", http.StatusOK, "Approve payment", "You can ask for a new code in")
		if done := b.submit(t, p, "/confirm", url.Values{"code": {w.paymentCode(t)}, "answer": {"approve"}}); !strings.HasPrefix(done.location, "https://rp.example/cb?code=") {
			t.Errorf("%d %s", done.status, done.html)
		}
	})

	t.Run("wrong codes TX-8", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		code := w.paymentCode(t)
		send := func(code string) *page {
			return b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}})
		}
		send("12345").want(t, "short", http.StatusUnprocessableEntity, "Enter all 6 digits of the code", "Bäckerei")
		send(wrongCode(code)).want(t, "wrong", http.StatusUnprocessableEntity, "The code is not right. Check it")
		send(wrongCode(code)).want(t, "wrong", http.StatusUnprocessableEntity, "You can try 3 more times", "Bäckerei")
		send(wrongCode(code))
		send(wrongCode(code)).want(t, "wrong", http.StatusUnprocessableEntity, "You can try 1 more time")
		send(wrongCode(code)).want(t, "fifth", http.StatusOK, "This payment was not approved", "too many times")
		send(code).want(t, "right too late", http.StatusOK, "This payment was not approved")
		if w.how(t) != "failed attempts" {
			t.Error(w.how(t))
		}
		back := b.submit(t, b.do(t, http.MethodGet, p.url, nil), "/confirm/back", nil)
		if back.location != "https://rp.example/cb?error=access_denied&error_description=transaction_failed" {
			t.Error(back.location)
		}
	})

	// TX-1, RTS Art. 5(1)(d): each difference between what the page showed and the record ends the payment, with the right code too.
	for what, change := range map[string]url.Values{
		"one cent":         {"amount": {"129.91"}},
		"another currency": {"currency": {"USD"}},
		"one letter":       {"payee-0": {"Bäckerei Müler & Söhne"}},
		"another record":   {"record": {"AAAA"}},
		"no payee":         {"payee-0": {""}},
		"one more payee":   {"payee-1": {"Mallory"}},
		"a payee far off":  {"payee-9": {"Mallory"}},
		"nothing":          {"amount": {""}, "currency": {""}, "payee-0": {""}, "record": {""}},
	} {
		t.Run("changed in the page "+what, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			b, p := w.atPayment(t)
			fields := url.Values{"code": {w.paymentCode(t)}, "answer": {"approve"}}
			for name, v := range change {
				fields[name] = v
			}
			b.submit(t, p, "/confirm", fields).want(t, "outcome", http.StatusOK, "This payment was changed or taken back")
			if w.how(t) != "failed changed" {
				t.Error(w.how(t))
			}
		})
	}

	t.Run("TX-9 the address says nothing", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		b.do(t, http.MethodGet, p.url+"&amount=1.00&payee=Friend", nil).want(t, "page", http.StatusOK, "EUR 129.90", "Bäckerei")
	})

	t.Run("TX-3 a code for signing in", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.DB.Advance(t, 25*time.Hour)
		b, p := w.atCode(t, "?pay=x")
		code := w.Code(t, w.challenge(t))
		p = b.submit(t, p, "/login/code", url.Values{"code": {code}})
		if code == w.paymentCode(t) { // once in a million: then that code is right, and nothing can be told
			return
		}
		b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}}).want(t, "page", http.StatusUnprocessableEntity, "The code is not right")
	})

	t.Run("TX-4 another browser", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		other, _ := w.atCode(t, "")
		if got := other.do(t, http.MethodGet, p.url, nil); got.status != http.StatusGone {
			t.Errorf("opened: %d", got.status)
		}
		for _, path := range []string{"/confirm", "/confirm/report", "/confirm/code"} {
			if got := other.submit(t, p, path, url.Values{"code": {w.paymentCode(t)}, "answer": {"refuse"}}); got.status < 400 {
				t.Errorf("%s: %d", path, got.status)
			}
		}
		forged := url.Values{"proof": {"x"}, "answer": {"refuse"}}
		if got := b.submit(t, p, "/confirm", forged); got.status != http.StatusForbidden {
			t.Errorf("without a proof: %d", got.status)
		}
		if w.how(t) != "pending" {
			t.Error(w.how(t))
		}
	})

	t.Run("refused", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		code := w.paymentCode(t)
		out := b.submit(t, p, "/confirm", url.Values{"answer": {"refuse"}})
		out.want(t, "outcome", http.StatusOK, "You did not approve this payment", "Call The Bank", transaction.PublicID(w.transaction(t).ID))
		b.do(t, http.MethodGet, "/account", nil).want(t, "account", http.StatusOK, "Payment for demo not approved")
		b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}}).want(t, "afterwards", http.StatusOK, "You did not approve this payment") // TX-7
		for range 2 {
			if back := b.submit(t, out, "/confirm/back", nil); back.location != "https://rp.example/cb?error=access_denied&error_description=user_refused" {
				t.Errorf("%d %s", back.status, back.location)
			}
		}
	})

	t.Run("reported", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		code := w.paymentCode(t)
		out := b.submit(t, p, "/confirm/report", nil)
		out.want(t, "outcome", http.StatusOK, "We stopped this payment", "signed you out here", "Call The Bank")
		b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}}).want(t, "afterwards", http.StatusOK, "We stopped this payment")
		var told int
		if err := w.DB.GetContext(t.Context(), &told, "SELECT count(*) FROM events WHERE type = 'fraud.reported'"); err != nil || told != 2 {
			t.Errorf("%d events %v", told, err)
		}
		if back := b.submit(t, out, "/confirm/back", nil); back.location != "https://rp.example/cb?error=access_denied&error_description=user_reported" {
			t.Errorf("%d %s", back.status, back.location)
		}
		if next := b.do(t, http.MethodGet, "/begin", nil); !strings.Contains(next.url, "/login?flow=") {
			t.Errorf("the session goes on: %s", next.url)
		}
	})

	t.Run("reported after it was approved", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		b.submit(t, p, "/confirm", url.Values{"code": {w.paymentCode(t)}, "answer": {"approve"}})
		b.submit(t, b.do(t, http.MethodGet, p.url, nil), "/confirm/report", nil).want(t, "outcome", http.StatusOK, "We told The Bank that you did not ask for this", "Call The Bank")
		if w.how(t) != "approved" || w.transaction(t).ReportedAt.IsZero() {
			t.Error(w.how(t))
		}
	})

	t.Run("expired", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		code := w.paymentCode(t)
		w.DB.Advance(t, 5*time.Minute)
		out := b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}})
		out.want(t, "outcome", http.StatusOK, "This payment was not approved in time", "start again")
		if back := b.submit(t, out, "/confirm/back", nil); back.location != "https://rp.example/cb?error=access_denied&error_description=transaction_expired" {
			t.Error(back.location)
		}
	})

	t.Run("taken back by the bank", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		code := w.paymentCode(t)
		if _, err := w.payments.Cancel(t.Context(), "demo", w.transaction(t).ID); err != nil {
			t.Fatal(err)
		}
		b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}}).want(t, "outcome", http.StatusOK, "This payment was changed or taken back")
		b.do(t, http.MethodGet, p.url, nil).want(t, "opened", http.StatusOK, "This payment was changed or taken back")
	})

	t.Run("resent", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		early := b.submit(t, p, "/confirm/code", nil)
		early.want(t, "too early", http.StatusTooManyRequests, "You can ask for a new code in", "Bäckerei")
		w.DB.Advance(t, 31*time.Second)
		b.submit(t, p, "/confirm/code", nil).want(t, "resent", http.StatusOK, "We sent another code at", "Bäckerei")
		if w.Texts(t) != 3 {
			t.Errorf("%d texts", w.Texts(t))
		}
	})

	t.Run("the sign-in was canceled meanwhile", func(t *testing.T) { // both or neither
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		code := w.paymentCode(t)
		if _, err := w.DB.ExecContext(t.Context(), "UPDATE sign_ins SET done_at = wall()"); err != nil {
			t.Fatal(err)
		}
		if got := b.submit(t, p, "/confirm", url.Values{"code": {code}, "answer": {"approve"}}); got.status != http.StatusGone || w.how(t) != "pending" {
			t.Errorf("%d, %s", got.status, w.how(t))
		}
	})
}

func TestConfirmUnready(t *testing.T) {
	t.Parallel()

	t.Run("new phone", func(t *testing.T) { // BND: a fresh phone waits 24 h
		t.Parallel()
		w := newWorld(t)
		b, p := w.atCode(t, "?pay=x")
		p = b.submit(t, p, "/login/code", url.Values{"code": {w.Code(t, w.challenge(t))}})
		p.want(t, "page", http.StatusOK, "You cannot approve this payment here yet", "added a short while ago", "<time datetime=", "Call The Bank")
		if back := b.submit(t, p, "/confirm/back", nil); back.location != "https://rp.example/cb?error=unmet_authentication_requirements" {
			t.Error(back.location)
		}
		if w.Texts(t) != 1 {
			t.Errorf("%d texts", w.Texts(t))
		}
	})

	t.Run("a SIM that was changed", func(t *testing.T) { // TXN-13, OTP-13
		t.Parallel()
		w := newWorld(t)
		b, _ := w.atPayment(t)
		w.Service.Signal = changed{}
		p := b.do(t, http.MethodGet, "/begin?pay=x", nil)
		p.want(t, "page", http.StatusOK, "You cannot approve this payment here yet", "SIM card of your phone was changed", "Call The Bank")
		if back := b.submit(t, p, "/confirm/back", nil); back.location != "https://rp.example/cb?error=unmet_authentication_requirements" {
			t.Error(back.location)
		}
	})

	t.Run("a SIM that was changed while the page was open", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, p := w.atPayment(t)
		w.DB.Advance(t, 31*time.Second)
		w.Service.Signal = changed{}
		texts := w.Texts(t)
		b.submit(t, p, "/confirm/code", nil).want(t, "page", http.StatusUnprocessableEntity, "Confirm this payment", "SIM card of your phone was changed")
		if w.Texts(t) != texts || w.how(t) != "pending" {
			t.Errorf("%d texts more, %s", w.Texts(t)-texts, w.how(t))
		}
	})

	t.Run("an app and no phone", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.Subscriber(t, "bob", "")
		app := w.App(t, w.find(t, "bob"))
		w.DB.Advance(t, 25*time.Hour)
		b := w.browser(t)
		p := b.submit(t, b.do(t, http.MethodGet, "/begin?pay=x", nil), "/login", url.Values{"username": {"bob"}, "password": {authntest.Password}})
		p = b.submit(t, p, "/login/app", url.Values{"code": {app.Code(t, 0)}})
		p.want(t, "page", http.StatusOK, "You cannot approve this payment here yet", "no phone on your account")
	})

	t.Run("too many at once", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		b, _ := w.atPayment(t)
		for range 2 {
			b.do(t, http.MethodGet, "/begin?pay=x", nil).want(t, "page", http.StatusOK, "Confirm this payment")
		}
		b.do(t, http.MethodGet, "/begin?pay=x", nil).want(t, "fourth", http.StatusOK, "Several payments wait for your approval already")
	})
}

// toPayment leads to the page, with the text sent unless later.
func (v *visit) toPayment(later bool) {
	v.sql("UPDATE authenticators SET bound_at = bound_at - interval '2 days'")
	if later {
		v.toCode("?consent")
		v.code(v.w.Code(v.t, v.w.challenge(v.t)))
		v.begin("?pay=" + url.QueryEscape(payee))
		return
	}
	v.toCode("?pay=" + url.QueryEscape(strings.Repeat("Donaudampfschifffahrtsgesellschaft", 2)))
	v.code(v.w.Code(v.t, v.w.challenge(v.t)))
}

func (v *visit) approve(code string) {
	v.Type("#code", code)
	v.Click("button[value=approve]")
}

// confirmStates are those of the pages on which payments are confirmed.
func confirmStates() []state {
	return []state{
		{"confirm first", func(v *visit) { v.toPayment(true) }},
		{"confirm", func(v *visit) { v.toPayment(false) }},
		{"confirm resent", func(v *visit) {
			v.toPayment(false)
			v.w.DB.Advance(v.t, 31*time.Second)
			v.Click("form[action^='/confirm/code'] button")
		}},
		{"confirm too early", func(v *visit) { v.toPayment(false); v.Click("form[action^='/confirm/code'] button") }},
		{"confirm wrong", func(v *visit) { v.toPayment(false); v.approve("000000"); v.approve("000000"); v.approve("000000") }},
		{"confirm expired", func(v *visit) { v.toPayment(false); v.w.DB.Advance(v.t, 5*time.Minute); v.again() }},
		{"confirm undeliverable", func(v *visit) {
			v.toPayment(false)
			v.sql("UPDATE messages SET state = 'failed', reason = 'invalid_recipient' WHERE state = 'queued'")
			v.again()
		}},
		{"confirm refused", func(v *visit) { v.toPayment(false); v.Click("button[value=refuse]") }},
		{"confirm reported", func(v *visit) { v.toPayment(false); v.Click("form[action^='/confirm/report'] button") }},
		{"confirm changed", func(v *visit) {
			v.toPayment(false)
			v.Evaluate(`document.querySelector("input[name=amount]").value = "1.00"; 0`, nil)
			v.approve("123456")
		}},
		{"confirm failed", func(v *visit) {
			v.toPayment(false)
			for range 5 {
				v.approve("000000")
			}
		}},
		{"confirm taken back", func(v *visit) {
			v.toPayment(false)
			if _, err := v.w.payments.Cancel(v.t.Context(), "demo", v.w.transaction(v.t).ID); err != nil {
				v.t.Fatal(err)
			}
			v.again()
		}},
		{"confirm approved", func(v *visit) {
			v.toPayment(false)
			v.sql("UPDATE challenges SET ended_at = wall(), outcome = 'verified' WHERE ended_at IS NULL")
			v.sql("UPDATE transactions SET state = 'approved', decided_at = wall(), acr = 'x', amr = '{sms}', auth_time = wall() WHERE state = 'pending'")
			v.again()
		}},
		{"confirm new phone", func(v *visit) { v.toCode("?pay=x"); v.code(v.w.Code(v.t, v.w.challenge(v.t))) }},
	}
}

// TestConfirmPages shows them to people of different tastes, and to a machine that checks pages.
func TestConfirmPages(t *testing.T) {
	t.Parallel()
	show(t, confirmStates())
}

// TestConfirmWithoutScript walks where pages may not run a script of their own, and holds the two answers to one size, none of them with the focus.
func TestConfirmWithoutScript(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	v := &visit{Tab: browsertest.Open(t, browsertest.Taste{NoScript: true}, w.server.URL, "https://rp.example"), w: w, t: t}
	v.enrol(0)
	v.toPayment(true)
	v.Click("form[action^='/confirm/code'] button")
	var boxes []struct{ W, H float64 }
	v.Evaluate(`[...document.querySelectorAll("button[name=answer]")].map(b => { const r = b.getBoundingClientRect(); return {W: r.width, H: r.height} })`, &boxes)
	var focus string
	v.Evaluate(`document.activeElement.tagName`, &focus)
	if len(boxes) != 2 || boxes[0] != boxes[1] || focus != "BODY" {
		t.Errorf("the answers measure %+v, %s has the focus", boxes, focus)
	}
	v.approve("000000")
	if got := v.Text("#code-fault"); got != "The code is not right. Check it, or send a new code" {
		t.Errorf("fault %q", got)
	}
	v.Click("button[value=refuse]")
	if got := v.Text("h1"); got != "You did not approve this payment" {
		t.Errorf("refused: %q", got)
	}
}
