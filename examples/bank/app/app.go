// Package app is a small bank whose customers sign in, and approve what they pay, with Watchword. It shows each of the three ways in which a bank can ask:
//
//   - by its customer's browser: the payment is pushed as authorization_details (RFC 9126, RFC 9396), and Watchword's page shows it;
//   - on the bank's own page: the bank hands the payment over by REST, shows it itself, and sends the code on with what it showed;
//   - in the background (CIBA): the bank asks, and waits until its customer has answered on a page of Watchword's.
//
// Whichever way, it executes a payment only when the signed result verifies, is for this bank, and is of exactly this payment; and it keeps the result as evidence.
//
// Sessions and payments are kept in memory, and money is not moved: it is an example.
package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/text/unicode/norm"
)

// Config of the bank.
type Config struct {
	// Issuer is the provider.
	Issuer string
	// BaseURL is where browsers reach this bank. Its redirect URI is BaseURL/callback.
	BaseURL string
	// ClientID and Key are what the provider knows the bank by; Key is private, for ES256.
	ClientID string
	Key      jose.JSONWebKey
}

// RedirectURI is what has to be registered.
func RedirectURI(baseURL string) string { return baseURL + "/callback" }

const (
	cookieName  = "bank"
	maxSessions = 1000
	maxPayments = 100 // of one customer
)

// The ways to ask.
const (
	doorPage       = "page"
	doorOwn        = "own"
	doorBackground = "background"
)

// payment is what a customer wants to pay.
type payment struct {
	Number                                   int
	Amount, Currency, Payee, IBAN, Reference string
	Door                                     string
	State                                    string // asked, approved, or how it failed
	Problem                                  string
	Transaction                              string // as Watchword names it
	Claims                                   *idClaims
	Evidence                                 *evidence
	Result                                   string // signed

	customer string // sub of who pays
}

// session is one browser.
type session struct {
	mu sync.Mutex // held while a request of the browser is served, or an answer is
	// Of a request that is under way.
	state, nonce, verifier string
	paying                 *payment // that the request is for; nil: to sign in
	// Of a customer.
	subject, name string
	idToken       string
	payments      []*payment
}

type bank struct {
	cfg Config

	mu       sync.Mutex
	provider *provider // nil until the issuer answered
	sessions map[string]*session
	order    []string        // the oldest first
	used     map[string]bool // jti of results that were acted upon
}

// New makes the bank. The issuer need not answer yet.
func New(cfg Config) http.Handler {
	b := &bank{cfg: cfg, sessions: map[string]*session{}, used: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", b.home)
	mux.HandleFunc("GET /signin", b.signIn)
	mux.HandleFunc("GET /callback", b.callback)
	mux.HandleFunc("POST /pay", b.pay)
	mux.HandleFunc("GET /payments/{number}", b.show)
	mux.HandleFunc("POST /payments/{number}/code", b.code)
	mux.HandleFunc("POST /payments/{number}/cancel", b.cancel)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Write([]byte(style)) //nolint:errcheck // the browser is gone
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

func (b *bank) issuer(ctx context.Context) (*provider, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.provider == nil {
		found, err := discover(ctx, b.cfg)
		if err != nil {
			return nil, err
		}
		b.provider = found
	}
	return b.provider, nil
}

// ask pushes a request and sends the browser with it.
func (b *bank) ask(w http.ResponseWriter, r *http.Request, s *session, paying *payment) error {
	p, err := b.issuer(r.Context())
	if err != nil {
		return err
	}
	s.state, s.nonce, s.verifier, s.paying = rand.Text(), rand.Text(), rand.Text()+rand.Text(), paying
	sum := sha256.Sum256([]byte(s.verifier))
	form := url.Values{
		"response_type": {"code"}, "redirect_uri": {RedirectURI(b.cfg.BaseURL)}, "scope": {"openid profile"}, "state": {s.state}, "nonce": {s.nonce},
		"code_challenge": {base64.RawURLEncoding.EncodeToString(sum[:])}, "code_challenge_method": {"S256"},
	}
	if paying != nil {
		details, err := paying.details()
		if err != nil {
			return err
		}
		form.Set("authorization_details", details)
	}
	var pushed struct {
		RequestURI string `json:"request_uri"`
	}
	if err := p.post(r.Context(), p.metadata.Push, form, &pushed); err != nil {
		return err
	}
	http.Redirect(w, r, p.metadata.Authorize+"?"+url.Values{"client_id": {b.cfg.ClientID}, "request_uri": {pushed.RequestURI}}.Encode(), http.StatusSeeOther)
	return nil
}

func (b *bank) signIn(w http.ResponseWriter, r *http.Request) {
	s := b.session(r)
	if s == nil {
		s = &session{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b.keep(w, r, s)
	if err := b.ask(w, r, s, nil); err != nil {
		b.fail(w, err)
	}
}

func (b *bank) callback(w http.ResponseWriter, r *http.Request) {
	s, q := b.session(r), r.URL.Query()
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	if s == nil || s.state == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(s.state)) != 1 || q.Get("iss") != b.cfg.Issuer {
		b.fail(w, errors.New("this answer does not belong to a request that began in this browser"))
		return
	}
	paying := s.paying
	s.state, s.paying = "", nil
	target := "/"
	if paying != nil {
		target = fmt.Sprint("/payments/", paying.Number)
	}
	var err error
	switch {
	case q.Get("error") == "":
		err = b.redeem(r.Context(), s, paying, q.Get("code"))
	case paying != nil:
		paying.State, paying.Problem = "not approved", strings.TrimSpace(q.Get("error")+" "+q.Get("error_description"))
	default:
		err = errors.New(q.Get("error"))
	}
	if err != nil {
		if paying == nil {
			b.fail(w, err)
			return
		}
		paying.State, paying.Problem = "not approved", err.Error()
	}
	b.keep(w, r, s)
	http.Redirect(w, r, b.cfg.BaseURL+target, http.StatusSeeOther)
}

// redeem trades the code for tokens and checks them. Of a payment they name the transaction, whose signed result is fetched then.
func (b *bank) redeem(ctx context.Context, s *session, paying *payment, code string) error {
	p, err := b.issuer(ctx)
	if err != nil {
		return err
	}
	form := url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {RedirectURI(b.cfg.BaseURL)}, "code_verifier": {s.verifier}}
	claims, err := b.tokens(ctx, p, form, s.nonce)
	if err != nil {
		return err
	}
	if s.subject != "" && s.subject != claims.Subject {
		return errors.New("somebody else answered")
	}
	s.subject, s.idToken = claims.Subject, claims.raw
	if paying == nil {
		s.name, err = p.name(ctx, claims)
		return err
	}
	return b.execute(ctx, p, paying, claims)
}

// idClaims are what the bank reads of an ID Token.
type idClaims struct {
	Subject     string   `json:"sub"`
	Transaction string   `json:"txn"`
	SHA256      string   `json:"transaction_sha256"`
	ACR         string   `json:"acr"`
	AMR         []string `json:"amr"`
	AuthTime    int64    `json:"auth_time"`

	raw     string
	access  string          // token that came with it
	details json.RawMessage // that were allowed
}

func (b *bank) tokens(ctx context.Context, p *provider, form url.Values, nonce string) (*idClaims, error) {
	var got struct {
		ID      string          `json:"id_token"`
		Access  string          `json:"access_token"`
		Details json.RawMessage `json:"authorization_details"`
	}
	if err := p.post(ctx, p.metadata.Token, form, &got); err != nil {
		return nil, err
	}
	token, err := p.Verifier(&oidc.Config{ClientID: b.cfg.ClientID, SupportedSigningAlgs: []string{oidc.ES256, oidc.RS256}}).Verify(ctx, got.ID)
	if err != nil {
		return nil, err
	}
	if token.Nonce != nonce {
		return nil, errors.New("the ID Token belongs to another request")
	}
	if err := token.VerifyAccessToken(got.Access); err != nil {
		return nil, err
	}
	claims := &idClaims{raw: got.ID, access: got.Access, details: got.Details}
	return claims, token.Claims(claims)
}

// execute is the final gate before money moves: the tokens allow exactly this payment and name the transaction, whose signed result is fetched as evidence, checked, and acted upon once.
func (b *bank) execute(ctx context.Context, p *provider, paying *payment, claims *idClaims) error {
	if claims.Transaction == "" || !paying.allowedBy(claims.details) {
		return errors.New("the tokens are not of this payment")
	}
	paying.Transaction, paying.Claims = claims.Transaction, claims
	var got transaction
	if err := p.call(ctx, http.MethodGet, "/v1/transactions/"+claims.Transaction, nil, &got); err != nil {
		return err
	}
	return b.act(ctx, p, paying, got.Result, claims.SHA256)
}

// allowedBy reports whether authorization_details, as the token endpoint gives them back, are those of this payment alone.
func (p *payment) allowedBy(details []byte) bool {
	var allowed []struct {
		Type   string `json:"type"`
		Amount struct {
			Amount   string `json:"amount"`
			Currency string `json:"currency"`
		} `json:"instructedAmount"`
		Name    string `json:"creditorName"`
		Account struct {
			IBAN string `json:"iban"`
		} `json:"creditorAccount"`
		Reference string `json:"remittanceInformationUnstructured"`
	}
	if json.Unmarshal(details, &allowed) != nil || len(allowed) != 1 {
		return false
	}
	a := allowed[0]
	return a.Type == "payment_initiation" && a.Amount.Amount == p.Amount && a.Amount.Currency == p.Currency && a.Name == p.Payee && a.Account.IBAN == p.IBAN && a.Reference == p.Reference
}

// act executes a payment for which there is a signed result, of the hash that the tokens have; "": there are no tokens.
func (b *bank) act(ctx context.Context, p *provider, paying *payment, result, hash string) error {
	e, err := p.check(ctx, result, paying)
	if err != nil {
		return err
	}
	if hash != "" && hash != e.SHA256 {
		return errors.New("the tokens are of another payment")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used[e.ID] {
		return errors.New("this result was acted upon before")
	}
	b.used[e.ID] = true
	paying.State, paying.Problem, paying.Evidence, paying.Result, paying.Transaction = "approved", "", e, result, e.Transaction
	return nil
}

// euros is an amount as people type it.
var euros = regexp.MustCompile(`^([0-9]{1,12})(?:[.,]([0-9]{1,2}))?$`)

// read gives what a customer typed the form that it has in records: all decimals, Unicode Normalization Form C, single spaces. What is kept, shown, asked for and compared is the same text then.
func read(r *http.Request) (*payment, error) {
	field := func(name string) string {
		return strings.Join(strings.Fields(norm.NFC.String(r.PostFormValue(name))), " ")
	}
	amount := euros.FindStringSubmatch(field("amount"))
	if amount == nil {
		return nil, errors.New("give the amount as 129.90")
	}
	return &payment{
		Amount: cmp.Or(strings.TrimLeft(amount[1], "0"), "0") + "." + (amount[2] + "00")[:2], Currency: "EUR", Payee: field("payee"), IBAN: strings.ToUpper(strings.ReplaceAll(field("iban"), " ", "")),
		Reference: field("reference"), Door: field("door"), State: "asked",
	}, nil
}

// pay takes an order.
func (b *bank) pay(w http.ResponseWriter, r *http.Request) {
	s := b.session(r)
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	if s == nil || s.subject == "" {
		http.Redirect(w, r, b.cfg.BaseURL+"/", http.StatusSeeOther)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 10<<10)
	if len(s.payments) >= maxPayments {
		b.fail(w, errors.New("that is enough for an example"))
		return
	}
	paying, err := read(r)
	if err != nil {
		b.render(w, http.StatusBadRequest, &view{Issuer: b.cfg.Issuer, Session: s, Problem: err.Error()})
		return
	}
	paying.Number, paying.customer = len(s.payments)+1, s.subject
	s.payments = append(s.payments, paying)
	switch paying.Door {
	case doorOwn:
		err = b.begin(r.Context(), s, paying)
	case doorBackground:
		err = b.wait(r.Context(), s, paying)
	default:
		paying.Door = doorPage
		if err = b.ask(w, r, s, paying); err == nil {
			return
		}
	}
	if err != nil {
		paying.State, paying.Problem = "not asked", err.Error()
	}
	http.Redirect(w, r, fmt.Sprint(b.cfg.BaseURL, "/payments/", paying.Number), http.StatusSeeOther)
}

// find is the payment that a request is about, and done when it has been served. Nil: there is none.
func (b *bank) find(r *http.Request) (s *session, paying *payment, done func()) {
	if s = b.session(r); s == nil {
		return nil, nil, nil
	}
	s.mu.Lock()
	for _, p := range s.payments {
		if fmt.Sprint(p.Number) == r.PathValue("number") {
			return s, p, s.mu.Unlock
		}
	}
	s.mu.Unlock()
	return nil, nil, nil
}

func (b *bank) home(w http.ResponseWriter, r *http.Request) {
	s := b.session(r)
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	b.render(w, http.StatusOK, &view{Issuer: b.cfg.Issuer, Session: s})
}

func (b *bank) show(w http.ResponseWriter, r *http.Request) {
	s, paying, done := b.find(r)
	if paying == nil {
		http.Redirect(w, r, b.cfg.BaseURL+"/", http.StatusSeeOther)
		return
	}
	defer done()
	b.again(r.Context(), paying)
	b.render(w, http.StatusOK, &view{Issuer: b.cfg.Issuer, Session: s, Payment: paying})
}

func (b *bank) fail(w http.ResponseWriter, err error) {
	b.render(w, http.StatusBadRequest, &view{Issuer: b.cfg.Issuer, Problem: err.Error()})
}

// view is what a page shows.
type view struct {
	Issuer, Problem string
	Session         *session
	Payment         *payment
}

// Customer is who is signed in; "" for nobody.
func (v *view) Customer() string {
	if v.Session == nil {
		return ""
	}
	return v.Session.name
}

// Payments are those of the customer, the newest first.
func (v *view) Payments() (all []*payment) {
	if v.Session == nil {
		return nil
	}
	for i := range v.Session.payments {
		all = append(all, v.Session.payments[len(v.Session.payments)-1-i])
	}
	return all
}

// Waiting says that the page is worth loading again.
func (v *view) Waiting() bool {
	return v.Payment != nil && v.Payment.Door == doorBackground && v.Payment.State == "asked"
}

//go:embed style.css
var style string

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"time": func(at int64) string { return time.Unix(at, 0).UTC().Format("2006-01-02 15:04:05 UTC") },
	"join": strings.Join,
}).Parse(pageSource))

func (b *bank) render(w http.ResponseWriter, status int, v *view) {
	var out strings.Builder
	if err := page.Execute(&out, v); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	if v.Waiting() {
		h.Set("Refresh", "3")
	}
	// Paying is a form whose answer leads to the provider: Chromium holds every hop against form-action.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self' "+b.cfg.Issuer+"; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	w.Write([]byte(out.String())) //nolint:errcheck // the browser is gone
}

func (b *bank) session(r *http.Request) *session {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sessions[c.Value]
}

// keep gives the browser s, under a new name.
func (b *bank) keep(w http.ResponseWriter, r *http.Request, s *session) {
	id := rand.Text() + rand.Text()
	b.mu.Lock()
	defer b.mu.Unlock()
	if c, err := r.Cookie(cookieName); err == nil {
		delete(b.sessions, c.Value)
	}
	b.sessions[id] = s
	b.order = append(b.order, id)
	for len(b.order) > maxSessions {
		delete(b.sessions, b.order[0])
		b.order = b.order[1:]
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(b.cfg.BaseURL, "https:"),
	})
}
