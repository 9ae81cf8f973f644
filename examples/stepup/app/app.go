// Package app is a small application that is asked for more by the API that it calls, and gets it from the provider: step-up authentication by RFC 9470.
//
//	application                    API                          provider
//	POST /transfers ────────────►  401 insufficient_user_authentication
//	                               acr_values="…", max_age="300"
//	redirect the browser ─────────────────────────────────────►  asks for what is missing
//	code, new token ◄─────────────────────────────────────────   acr, amr, auth_time
//	POST /transfers ────────────►  200
//
// It is written with coreos/go-oidc and golang.org/x/oauth2. Sessions are kept in memory: it is an example, not a server for many.
package app

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Config of the application.
type Config struct {
	// Issuer is the provider, API the address of package api.
	Issuer, API string
	// BaseURL is where browsers reach this application. Its redirect URI is BaseURL/callback.
	BaseURL string
	// ClientID and ClientSecret are what the provider knows the application by.
	ClientID, ClientSecret string
}

const (
	cookieName  = "stepup"
	maxSessions = 1000
)

// session is one browser.
type session struct {
	// Of a sign-in that is under way.
	state, nonce, verifier string
	asked                  challenge
	transfer               bool // is to be repeated after it

	// Of one that is done.
	access, idToken string
	who             claims
	said, problem   string
}

// claims are what the ID Token says of the person and of how they signed in.
type claims struct {
	Subject  string   `json:"sub"`
	ACR      string   `json:"acr"`
	AMR      []string `json:"amr"`
	AuthTime int64    `json:"auth_time"`
}

// challenge is what the API wants: RFC 9470 section 3.
type challenge struct {
	acr    []string
	maxAge string // in seconds; "": however old
}

type application struct {
	cfg Config

	mu       sync.Mutex
	provider *oidc.Provider // nil until the issuer answered
	sessions map[string]*session
	order    []string // the oldest first
}

// New makes the application. The issuer need not answer yet.
func New(cfg Config) http.Handler {
	a := &application{cfg: cfg, sessions: map[string]*session{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { a.render(w, http.StatusOK, a.session(r)) })
	mux.HandleFunc("GET /signin", func(w http.ResponseWriter, r *http.Request) { a.authorize(w, r, &session{}) })
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("POST /transfer", func(w http.ResponseWriter, r *http.Request) {
		s := a.session(r)
		if s.access == "" {
			a.authorize(w, r, &session{transfer: true})
			return
		}
		a.transfer(w, r, s, false)
	})
	return http.NewCrossOriginProtection().Handler(mux)
}

// transfer calls the API, and if it wants more than the token proves, sends the browser to prove it. again says that it was sent just now: once is enough.
func (a *application) transfer(w http.ResponseWriter, r *http.Request, s *session, again bool) {
	said, wants, err := a.call(r.Context(), s.access)
	switch {
	case err != nil:
		a.finish(w, r, &session{access: s.access, idToken: s.idToken, who: s.who, problem: err.Error()})
	case wants == nil:
		a.finish(w, r, &session{access: s.access, idToken: s.idToken, who: s.who, said: said})
	case again:
		a.finish(w, r, &session{access: s.access, idToken: s.idToken, who: s.who, problem: "The bank wants more still."})
	default:
		a.authorize(w, r, &session{asked: *wants, transfer: true, access: s.access, idToken: s.idToken, who: s.who})
	}
}

// call asks the API for a transfer. It wants more where wants is not nil.
func (a *application) call(ctx context.Context, token string) (said string, wants *challenge, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.API+"/transfers", nil)
	if err != nil {
		return "", nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	if err != nil {
		return "", nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		parameters := bearer(resp.Header.Get("WWW-Authenticate"))
		if parameters["error"] != "insufficient_user_authentication" {
			return "", nil, errors.New("The token is not good any more. Sign in again.") //nolint:staticcheck,revive // a sentence for people
		}
		if _, err := strconv.ParseUint(parameters["max_age"], 10, 31); err != nil {
			parameters["max_age"] = ""
		}
		return "", &challenge{acr: strings.Fields(parameters["acr_values"]), maxAge: parameters["max_age"]}, nil
	}
	var answer struct {
		Said string `json:"said"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || resp.StatusCode != http.StatusOK {
		return "", nil, fmt.Errorf("the bank answers %s", resp.Status)
	}
	return answer.Said, nil, nil
}

var parameter = regexp.MustCompile(`([A-Za-z_]+)="((?:[^"\\]|\\.)*)"`)

// bearer reads a challenge of scheme Bearer: RFC 6750 section 3.
func bearer(header string) map[string]string {
	parameters := map[string]string{}
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return parameters
	}
	for _, found := range parameter.FindAllStringSubmatch(rest, -1) {
		parameters[strings.ToLower(found[1])] = strings.ReplaceAll(found[2], `\`, "")
	}
	return parameters
}

// authorize sends the browser to the provider. What the API wants goes along as it came: the provider asks for no more than is missing.
func (a *application) authorize(w http.ResponseWriter, r *http.Request, s *session) {
	_, conf, err := a.oauth(r.Context())
	if err != nil {
		a.finish(w, r, &session{problem: err.Error()})
		return
	}
	s.state, s.nonce, s.verifier = rand.Text(), rand.Text(), oauth2.GenerateVerifier()
	options := []oauth2.AuthCodeOption{oidc.Nonce(s.nonce), oauth2.S256ChallengeOption(s.verifier)}
	if len(s.asked.acr) > 0 {
		options = append(options, oauth2.SetAuthURLParam("acr_values", strings.Join(s.asked.acr, " ")))
	}
	if s.asked.maxAge != "" {
		options = append(options, oauth2.SetAuthURLParam("max_age", s.asked.maxAge))
	}
	if s.idToken != "" { // the same person, nobody else
		options = append(options, oauth2.SetAuthURLParam("id_token_hint", s.idToken))
	}
	a.keep(w, r, s)
	http.Redirect(w, r, conf.AuthCodeURL(s.state, options...), http.StatusSeeOther)
}

func (a *application) callback(w http.ResponseWriter, r *http.Request) {
	s, q := a.session(r), r.URL.Query()
	before := &session{access: s.access, idToken: s.idToken, who: s.who}
	fail := func(problem string) { before.problem = problem; a.finish(w, r, before) }
	switch {
	case s.state == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(s.state)) != 1:
		fail("This answer does not belong to a sign-in that began in this browser.")
		return
	case q.Get("iss") != a.cfg.Issuer: // RFC 9207
		fail("This answer is from another issuer.")
		return
	case q.Get("error") == "unmet_authentication_requirements":
		fail("The bank wants a stronger sign-in than your account has.")
		return
	case q.Get("error") != "":
		fail("You were not signed in: " + q.Get("error"))
		return
	}
	done, err := a.exchange(r.Context(), s, q.Get("code"))
	switch {
	case err != nil:
		fail(err.Error())
	case s.transfer:
		a.transfer(w, r, done, len(s.asked.acr) > 0 || s.asked.maxAge != "")
	default:
		a.finish(w, r, done)
	}
}

// exchange trades the code for tokens, and checks that they say what was asked for.
func (a *application) exchange(ctx context.Context, s *session, code string) (*session, error) {
	provider, conf, err := a.oauth(ctx)
	if err != nil {
		return nil, err
	}
	tokens, err := conf.Exchange(ctx, code, oauth2.VerifierOption(s.verifier))
	if err != nil {
		return nil, err
	}
	raw, _ := tokens.Extra("id_token").(string)
	idToken, err := provider.Verifier(&oidc.Config{ClientID: a.cfg.ClientID}).Verify(ctx, raw)
	if err != nil {
		return nil, err
	}
	done := &session{access: tokens.AccessToken, idToken: raw}
	if err := idToken.Claims(&done.who); err != nil {
		return nil, err
	}
	switch {
	case idToken.Nonce != s.nonce:
		return nil, errors.New("the ID Token belongs to another sign-in")
	case s.who.Subject != "" && s.who.Subject != idToken.Subject:
		return nil, errors.New("somebody else signed in")
	case len(s.asked.acr) > 0 && !slices.Contains(s.asked.acr, done.who.ACR): // RFC 9470 section 5: a provider may ignore what it does not know
		return nil, errors.New("the provider did not reach what the bank wants")
	}
	return done, nil
}

func (a *application) oauth(ctx context.Context) (*oidc.Provider, *oauth2.Config, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.provider == nil {
		provider, err := oidc.NewProvider(context.WithoutCancel(ctx), a.cfg.Issuer)
		if err != nil {
			return nil, nil, fmt.Errorf("the issuer %s does not answer: %w", a.cfg.Issuer, err)
		}
		a.provider = provider
	}
	return a.provider, &oauth2.Config{
		ClientID: a.cfg.ClientID, ClientSecret: a.cfg.ClientSecret, RedirectURL: a.cfg.BaseURL + "/callback", Endpoint: a.provider.Endpoint(), Scopes: []string{oidc.ScopeOpenID},
	}, nil
}

// finish keeps s and shows it at the front page, which can be loaded again.
func (a *application) finish(w http.ResponseWriter, r *http.Request, s *session) {
	a.keep(w, r, s)
	http.Redirect(w, r, a.cfg.BaseURL+"/", http.StatusSeeOther)
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Step-up example</title>
<h1>Step-up example</h1>
{{with .Problem}}<p role="alert">{{.}}</p>{{end}}{{with .Said}}<p role="status">{{.}}</p>{{end}}
{{with .Who}}<dl>
<dt>sub</dt><dd>{{.Subject}}</dd>
<dt>acr</dt><dd>{{.ACR}}</dd>
<dt>amr</dt><dd>{{range $i, $m := .AMR}}{{if $i}} {{end}}{{$m}}{{end}}</dd>
<dt>auth_time</dt><dd>{{$.At}}</dd>
</dl>
{{if $.Texted}}<p>A text message confirmed that it is you.</p>{{end}}
{{else}}<p><a href="/signin">Sign in</a></p>
{{end}}<form method="post" action="/transfer"><button>Transfer 100.00</button></form>
</html>
`))

func (a *application) render(w http.ResponseWriter, status int, s *session) {
	data := map[string]any{"Problem": s.problem, "Said": s.said}
	if s.access != "" {
		data["Who"], data["At"] = s.who, time.Unix(s.who.AuthTime, 0).UTC().Format(time.RFC3339)
		data["Texted"] = slices.Contains(s.who.AMR, "sms") // RFC 8176 section 2
	}
	var b strings.Builder
	if err := page.Execute(&b, data); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	// The answer to the form may lead to the provider: Chromium holds every hop against form-action.
	h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self' "+a.origin()+"; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	w.Write([]byte(b.String())) //nolint:errcheck // the browser is gone
}

func (a *application) origin() string {
	u, err := url.Parse(a.cfg.Issuer)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// session is that of a browser; one that is not known has an empty one.
func (a *application) session(r *http.Request) *session {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return &session{}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if s := a.sessions[c.Value]; s != nil {
		return s
	}
	return &session{}
}

// keep gives the browser s, under a new name.
func (a *application) keep(w http.ResponseWriter, r *http.Request, s *session) {
	id := rand.Text() + rand.Text()
	a.mu.Lock()
	defer a.mu.Unlock()
	if c, err := r.Cookie(cookieName); err == nil {
		delete(a.sessions, c.Value)
	}
	a.sessions[id] = s
	a.order = append(a.order, id)
	for len(a.order) > maxSessions {
		delete(a.sessions, a.order[0])
		a.order = a.order[1:]
	}
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: id, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: strings.HasPrefix(a.cfg.BaseURL, "https:"),
	})
}
