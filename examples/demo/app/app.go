// Package app is a small application that signs people in with Watchword and shows what it was told. It is written with nothing but
// a certified client library (coreos/go-oidc) and golang.org/x/oauth2, as any application would be: authorization code flow, PKCE, state,
// nonce, and the issuer checked in the answer (RFC 9207).
//
// Sessions are kept in memory: it is an example, not a server for many.
package app

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// Config of the application.
type Config struct {
	// Issuer is the provider.
	Issuer string
	// BaseURL is where browsers reach this application. Its redirect URI is BaseURL/callback.
	BaseURL string
	// ClientID and ClientSecret are what the provider knows the application by.
	ClientID, ClientSecret string
	// Scopes beside openid. Default: profile, email, address, phone.
	Scopes []string
}

// RedirectURI is what has to be registered.
func RedirectURI(baseURL string) string { return baseURL + "/callback" }

// PostLogoutURI is what has to be registered for signing out.
func PostLogoutURI(baseURL string) string { return baseURL + "/" }

const (
	cookieName  = "demo"
	maxSessions = 1000
)

// session is one browser.
type session struct {
	// Of a sign-in that is under way.
	state, nonce, verifier string
	// Of one that is done.
	idToken  string
	claims   map[string]any
	userinfo map[string]any
	problem  string
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
	if cfg.Scopes == nil {
		cfg.Scopes = []string{"profile", "email", "address", "phone"}
	}
	a := &application{cfg: cfg, sessions: map[string]*session{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.home)
	mux.HandleFunc("GET /signin", a.signIn)
	mux.HandleFunc("GET /callback", a.callback)
	mux.HandleFunc("POST /signout", a.signOut)
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		w.Write([]byte(style)) //nolint:errcheck // the browser is gone
	})
	return http.NewCrossOriginProtection().Handler(mux)
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
		ClientID: a.cfg.ClientID, ClientSecret: a.cfg.ClientSecret, RedirectURL: RedirectURI(a.cfg.BaseURL),
		Endpoint: a.provider.Endpoint(), Scopes: append([]string{oidc.ScopeOpenID}, a.cfg.Scopes...),
	}, nil
}

func (a *application) signIn(w http.ResponseWriter, r *http.Request) {
	_, conf, err := a.oauth(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	s := &session{state: rand.Text(), nonce: rand.Text(), verifier: oauth2.GenerateVerifier()}
	a.keep(w, r, s)
	options := []oauth2.AuthCodeOption{oidc.Nonce(s.nonce), oauth2.S256ChallengeOption(s.verifier)}
	for _, name := range []string{"prompt", "acr_values", "max_age", "login_hint", "ui_locales"} { // try them by hand
		if v := r.URL.Query().Get(name); v != "" {
			options = append(options, oauth2.SetAuthURLParam(name, v))
		}
	}
	http.Redirect(w, r, conf.AuthCodeURL(s.state, options...), http.StatusSeeOther)
}

func (a *application) callback(w http.ResponseWriter, r *http.Request) {
	s, q := a.session(r), r.URL.Query()
	done := &session{}
	var err error
	switch {
	case s == nil || s.state == "" || subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(s.state)) != 1:
		err = errors.New("this answer does not belong to a sign-in that began in this browser")
	case q.Get("iss") != a.cfg.Issuer:
		err = errors.New("this answer is from another issuer")
	case q.Get("error") != "":
		done.problem = strings.TrimSuffix(q.Get("error")+": "+q.Get("error_description"), ": ")
	default:
		err = a.exchange(r.Context(), s, q.Get("code"), done)
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.keep(w, r, done)
	http.Redirect(w, r, a.cfg.BaseURL+"/", http.StatusSeeOther)
}

// exchange trades the code for tokens and checks them.
func (a *application) exchange(ctx context.Context, s *session, code string, done *session) error {
	provider, conf, err := a.oauth(ctx)
	if err != nil {
		return err
	}
	token, err := conf.Exchange(ctx, code, oauth2.VerifierOption(s.verifier))
	if err != nil {
		return err
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return errors.New("the answer has no ID Token")
	}
	idToken, err := provider.Verifier(&oidc.Config{ClientID: a.cfg.ClientID}).Verify(ctx, raw)
	if err != nil {
		return err
	}
	if idToken.Nonce != s.nonce {
		return errors.New("the ID Token belongs to another sign-in")
	}
	if err := idToken.VerifyAccessToken(token.AccessToken); err != nil {
		return err
	}
	if err := idToken.Claims(&done.claims); err != nil {
		return err
	}
	info, err := provider.UserInfo(ctx, conf.TokenSource(ctx, token))
	if err != nil {
		return err
	}
	if info.Subject != idToken.Subject {
		return errors.New("UserInfo is about somebody else")
	}
	done.idToken = raw
	return info.Claims(&done.userinfo)
}

// signOut forgets the session here and asks the provider to end its own (RP-Initiated Logout 1.0).
func (a *application) signOut(w http.ResponseWriter, r *http.Request) {
	s := a.session(r)
	provider, _, err := a.oauth(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	var metadata struct {
		EndSession string `json:"end_session_endpoint"`
	}
	if err := provider.Claims(&metadata); err != nil || metadata.EndSession == "" {
		a.fail(w, r, errors.New("the issuer has no way to sign out"))
		return
	}
	to := url.Values{"post_logout_redirect_uri": {PostLogoutURI(a.cfg.BaseURL)}, "client_id": {a.cfg.ClientID}, "state": {rand.Text()}}
	if s != nil && s.idToken != "" {
		to.Set("id_token_hint", s.idToken)
	}
	a.keep(w, r, &session{})
	http.Redirect(w, r, metadata.EndSession+"?"+to.Encode(), http.StatusSeeOther)
}

func (a *application) home(w http.ResponseWriter, r *http.Request) {
	s := a.session(r)
	if s == nil {
		s = &session{}
	}
	a.render(w, http.StatusOK, s)
}

func (a *application) fail(w http.ResponseWriter, _ *http.Request, err error) {
	a.render(w, http.StatusBadRequest, &session{problem: err.Error()})
}

// fact is one line of what the application was told.
type fact struct{ Name, Value, Meaning string }

var meanings = map[string]string{
	"sub": "who it is, to this application", "acr": "level that was reached", "amr": "what was proven", "auth_time": "when it was proven",
	"sid": "the session at the provider", "iss": "who says so", "aud": "whom it is said to", "exp": "until when it holds", "iat": "when it was said",
	"nonce": "ties it to this browser", "at_hash": "ties it to the access token",
}

func facts(claims map[string]any, first ...string) []fact {
	names := make([]string, 0, len(claims))
	for name := range claims {
		names = append(names, name)
	}
	rank := func(name string) int {
		if i := slices.Index(first, name); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortFunc(names, func(x, y string) int {
		if d := rank(x) - rank(y); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	all := make([]fact, 0, len(names))
	for _, name := range names {
		all = append(all, fact{name, text(name, claims[name]), meanings[name]})
	}
	return all
}

func text(name string, v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		if slices.Contains([]string{"auth_time", "exp", "iat", "updated_at"}, name) {
			return time.Unix(int64(v), 0).UTC().Format("2006-01-02 15:04:05 UTC")
		}
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = fmt.Sprint(v[i])
		}
		return strings.Join(parts, ", ")
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

//go:embed style.css
var style string

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

func (a *application) render(w http.ResponseWriter, status int, s *session) {
	var b strings.Builder
	err := page.Execute(&b, map[string]any{
		"SignedIn": s.idToken != "", "Problem": s.problem, "Issuer": a.cfg.Issuer,
		"Token": facts(s.claims, "sub", "acr", "amr", "auth_time", "sid"), "UserInfo": facts(s.userinfo, "sub", "name", "email"),
	})
	if err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	// Signing out is a form whose answer leads to the provider: Chromium holds every hop against form-action.
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self' "+a.cfg.Issuer+"; frame-ancestors 'none'; base-uri 'none'")
	w.WriteHeader(status)
	w.Write([]byte(b.String())) //nolint:errcheck // the browser is gone
}

func (a *application) session(r *http.Request) *session {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sessions[c.Value]
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
