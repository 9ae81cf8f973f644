// Package api is a small API whose riskier half wants a stronger or a more recent sign-in than the one that its caller has. It asks for it by RFC 9470: 401 with
// error insufficient_user_authentication, acr_values and max_age. What the application does with that is in package app.
//
// Access tokens are JWTs of RFC 9068, checked here with the provider's keys: signature, type, issuer, audience, expiry. acr, amr and auth_time in them tell
// how the person signed in. An API for more than an example would look at scope as well, or ask the provider's introspection endpoint, which knows at once what was revoked
// and answers with the same three claims.
package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// Config of the API.
type Config struct {
	// Issuer is the provider. Its access tokens name it as their audience, too.
	Issuer string
	// Levels are the provider's acr values, the weakest first: a higher one includes those below.
	Levels []string
	// ACR and MaxAge are what a transfer wants: at least this level, proven at most so long ago. MaxAge 0: however long ago.
	ACR    string
	MaxAge time.Duration
	// Now is the time.
	Now func() time.Time
}

// Caller is what an access token says of the person.
type Caller struct {
	Subject  string   `json:"sub"`
	ACR      string   `json:"acr"`
	AMR      []string `json:"amr"`
	AuthTime int64    `json:"auth_time"`
}

type api struct {
	cfg Config

	mu       sync.Mutex
	provider *oidc.Provider // nil until the issuer answered
}

// New makes the API: GET /balance for everybody who is signed in, POST /transfers for those who proved enough.
func New(cfg Config) (http.Handler, error) {
	if !slices.Contains(cfg.Levels, cfg.ACR) {
		return nil, fmt.Errorf("%q is not among the levels", cfg.ACR)
	}
	a := &api{cfg: cfg}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /balance", a.called(func(w http.ResponseWriter, c *Caller) { reply(w, c, "Your balance is 1,024.00.") }))
	mux.HandleFunc("POST /transfers", a.called(func(w http.ResponseWriter, c *Caller) {
		if why := a.lacks(c); why != "" {
			a.challenge(w, why)
			return
		}
		reply(w, c, "100.00 were transferred.")
	}))
	return mux, nil
}

func reply(w http.ResponseWriter, c *Caller, said string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(map[string]any{"said": said, "acr": c.ACR, "amr": c.AMR, "auth_time": c.AuthTime}) //nolint:errcheck,errchkjson // the caller is gone
}

// lacks says what is missing for a transfer, or "".
func (a *api) lacks(c *Caller) string {
	switch {
	case slices.Index(a.cfg.Levels, c.ACR) < slices.Index(a.cfg.Levels, a.cfg.ACR): // a level that nobody knows is below all
		return "a stronger sign-in is needed"
	case a.cfg.MaxAge > 0 && a.cfg.Now().Sub(time.Unix(c.AuthTime, 0)) > a.cfg.MaxAge:
		return "a more recent sign-in is needed"
	}
	return ""
}

// challenge asks for what a transfer wants, RFC 9470 section 3. It names both demands, whichever is not met: the next token has to meet both.
func (a *api) challenge(w http.ResponseWriter, why string) {
	header := fmt.Sprintf(`Bearer error="insufficient_user_authentication", error_description="%s", acr_values="%s"`, why, a.cfg.ACR)
	if a.cfg.MaxAge > 0 {
		header += fmt.Sprintf(`, max_age="%d"`, int(a.cfg.MaxAge.Seconds()))
	}
	w.Header().Set("WWW-Authenticate", header)
	http.Error(w, why, http.StatusUnauthorized)
}

// called finds out who calls, RFC 6750.
func (a *api) called(handle func(http.ResponseWriter, *Caller)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token, found := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if !found {
			w.Header().Set("WWW-Authenticate", "Bearer")
			http.Error(w, "sign in", http.StatusUnauthorized)
			return
		}
		verifier, err := a.verifier(r.Context())
		if err != nil {
			http.Error(w, "the provider does not answer", http.StatusServiceUnavailable)
			return
		}
		c, err := caller(r.Context(), verifier, token)
		if err != nil {
			w.Header().Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			http.Error(w, "the token is not good", http.StatusUnauthorized)
			return
		}
		handle(w, c)
	}
}

// caller checks an access token: RFC 9068 section 4.
func caller(ctx context.Context, verifier *oidc.IDTokenVerifier, token string) (*Caller, error) {
	head, _, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(head)
	if err != nil {
		return nil, err
	}
	var header struct {
		Type string `json:"typ"`
	}
	if err := json.Unmarshal(data, &header); err != nil {
		return nil, err
	}
	if kind := strings.ToLower(header.Type); kind != "at+jwt" && kind != "application/at+jwt" { // an ID Token opens nothing
		return nil, errors.New("not an access token")
	}
	checked, err := verifier.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	c := new(Caller)
	return c, checked.Claims(c)
}

func (a *api) verifier(ctx context.Context) (*oidc.IDTokenVerifier, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.provider == nil {
		provider, err := oidc.NewProvider(context.WithoutCancel(ctx), a.cfg.Issuer)
		if err != nil {
			return nil, err
		}
		a.provider = provider
	}
	return a.provider.Verifier(&oidc.Config{ClientID: a.cfg.Issuer, SupportedSigningAlgs: []string{oidc.ES256}, Now: a.cfg.Now}), nil
}
