// Package oidc tells applications who signed in and how: an OpenID Provider.
//
// # What it keeps
//
// A client's registration, signing keys, and grants. A grant is what one sign-in gave one application: its acr, amr, auth_time and
// sid are said there once, and every token is minted from it. A refresh mints the same again; a step-up is a new grant.
// Codes, refresh tokens and opaque access tokens are 256 random bits, stored hashed. A signed access token names its
// grant in its jti, so that this server's own endpoints see a revocation at once. Tokens can be bound to a key of the client (DPoP, RFC 9449).
//
// # What is the library's and what is ours
//
// github.com/zitadel/oidc parses and routes the back channel (token, introspection, revocation, UserInfo, discovery, keys), behind
// a guard that first refuses what it would let pass: parameters in the query, repeated ones, large bodies. The front channel, client
// authentication, the comparison of redirect_uri, PKCE and minting are this package's own: see docs/decisions.
//
// # How single use is kept
//
// A code is redeemed, a refresh token rotated, in one statement, which also stores what follows from it. Whoever comes second
// gets nothing and ends the grant, be it at the same moment.
//
// What a request brings with it and may bring only once, a client's assertion or a proof of possession, is stored by the statement that does what the
// request asks for, as a plain INSERT: brought twice, the whole statement fails, and nothing has happened.
//
// # Requests that were pushed
//
// A pushed authorization request (RFC 9126) is checked by the code of the authorization endpoint and stored as a sign-in that has not begun. Opening it
// copies it, as often as a browser loads the page; the statement that answers the application uses it up.
//
// # Requests in the background
//
// A backchannel authentication request (CIBA) is a question of package backchannel. Whoever is asked answers it in a sign-in, which ends there instead of in a redirect; the application polls
// the token endpoint, or is told when to.
//
// # Errors
//
// A database that cannot answer is 503 temporarily_unavailable. It is never invalid_grant, invalid_client or active:false: applications
// would throw good tokens away.
//
// The library's own packages are imported as zoidc and op. Tables: clients, signing_keys, grants, pushed_requests, authz_codes, refresh_tokens,
// access_tokens, client_assertions, dpop_proofs.
package oidc

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"
	"golang.org/x/sync/errgroup"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Paths of the endpoints, below the issuer.
const (
	discoveryPath  = "/.well-known/openid-configuration"
	authorizePath  = "/authorize"
	pushPath       = "/par"
	askBackPath    = "/bc-authorize"
	tokenPath      = "/oauth/token" //nolint:gosec // a path
	introspectPath = "/oauth/introspect"
	revokePath     = "/oauth/revoke"
	userinfoPath   = "/userinfo"
	jwksPath       = "/oauth/keys"
	endSessionPath = "/logout"
)

// Paths lists where the endpoints are, below the issuer.
func Paths() []string {
	return []string{discoveryPath, authorizePath, pushPath, askBackPath, backchannel.PathPrefix, tokenPath, introspectPath, revokePath, userinfoPath, jwksPath, endSessionPath}
}

// Lives of what is issued.
type Lives struct {
	Code        time.Duration // default and ceiling 60 s
	Pushed      time.Duration // of a request_uri, until it is opened; default 60 s, ceiling 600 s: RFC 9126 section 2.2, FAPI 2.0 Security Profile section 5.3.2.2
	AccessToken time.Duration // default 10 min
	IDToken     time.Duration // default 10 min
	Refresh     time.Duration // of the whole line of refresh tokens; default 30 days
}

// DefaultLives are those of RFC 9700 and FAPI 2.0.
func DefaultLives() Lives {
	return Lives{Code: time.Minute, Pushed: time.Minute, AccessToken: 10 * time.Minute, IDToken: 10 * time.Minute, Refresh: 30 * 24 * time.Hour}
}

// Pages shows what a person sees. Package authn/web implements it.
type Pages interface {
	// Next leads the browser to the step that is due, and answers the application when none is.
	Next(w http.ResponseWriter, r *http.Request, p *authn.Progress, cookie authn.Cookie) error
	// Problem shows an error page that leads to no application. id names its text; detail is shown in development only.
	Problem(w http.ResponseWriter, r *http.Request, status int, id, detail string)
	// FormPost makes the browser post values to action: OAuth 2.0 Form Post Response Mode.
	FormPost(w http.ResponseWriter, r *http.Request, action string, values url.Values)
	// ConfirmSignOut asks before anything ends.
	ConfirmSignOut(w http.ResponseWriter, r *http.Request, session authn.Session)
	// SignedOut says that it is done. home is where the application lives; both may be empty.
	SignedOut(w http.ResponseWriter, r *http.Request, application, home string)
	// Cookie is the browser's; SetCookie replaces it, and removes it when empty.
	// Answered says that what an application asked in the background was allowed or not, and that the person can go back to where it was asked.
	Answered(w http.ResponseWriter, r *http.Request, application, home string, allowed bool)
	Cookie(r *http.Request) authn.Cookie
	SetCookie(w http.ResponseWriter, cookie authn.Cookie)
}

// Config of a provider. The fields up to Locales, and Now, are required.
type Config struct {
	Issuer  string // without a trailing slash
	DB      *postgres.DB
	SignIns *authn.Service
	Clients *Clients
	Keys    *Keys
	Levels  authn.LevelNames
	Lives   Lives
	// Locales that pages come in, for discovery.
	Locales []string
	// Details are the types of authorization_details that clients can be registered for.
	Details []DetailType
	// Backchannel asks people for applications that have no browser. Nil: CIBA is not offered.
	Backchannel *backchannel.Service
	// RequirePush has every client push its requests, whatever it registered: RFC 9126 section 5.
	RequirePush bool
	// DPoPNonce has every proof of possession hold a nonce of ours: RFC 9449 section 8.
	DPoPNonce bool
	// NoPKCE names confidential web clients that may do without PKCE, for certification. Operator configuration only.
	NoPKCE []string
	// Now is this process's clock, for the times in client assertions.
	Now func() time.Time
	Log *slog.Logger
}

// Provider is the OpenID Provider. It is safe for concurrent use once Pages is set.
type Provider struct {
	Config
	// Pages is set after New, because pages need the provider as well.
	Pages Pages

	secretFailures limits.Window
}

// New makes a provider.
func New(cfg Config) (*Provider, error) {
	u, err := url.Parse(cfg.Issuer)
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(cfg.Issuer, "/") {
		return nil, errors.New("issuer: give an absolute URL without query, fragment and trailing slash")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Provider{Config: cfg, secretFailures: limits.Window{Name: "client-secret-source", Burst: 30, Period: 5 * time.Minute}}, nil
}

// Run follows changes of clients and keys that other replicas make, until ctx ends.
func (p *Provider) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.Clients.run(ctx) })
	group.Go(func() error {
		return p.Keys.run(ctx, func(err error) { p.Log.ErrorContext(ctx, "signing keys could not be loaded", "error", err) })
	})
	return group.Wait()
}

// Routes serves all endpoints, at paths relative to the issuer.
func (p *Provider) Routes() http.Handler {
	library := op.RegisterServer(&server{Provider: p}, op.Endpoints{
		Token: op.NewEndpoint(tokenPath), Introspection: op.NewEndpoint(introspectPath), Userinfo: op.NewEndpoint(userinfoPath),
		Revocation: op.NewEndpoint(revokePath), JwksURI: op.NewEndpoint(jwksPath),
	}, op.WithServerCORSOptions(nil))
	mux := http.NewServeMux()
	for _, path := range []string{introspectPath, revokePath} {
		mux.Handle(path, p.guardForm(library))
	}
	mux.Handle(tokenPath, p.guardForm(p.token(library)))
	if p.Backchannel != nil {
		mux.Handle(askBackPath, p.guardForm(http.HandlerFunc(p.askBack)))
		mux.HandleFunc("GET "+backchannel.PathPrefix+"{id}", p.answerBack)
	}
	mux.Handle(pushPath, p.guardForm(http.HandlerFunc(p.push)))
	mux.Handle(userinfoPath, p.guardBearer(library))
	mux.Handle(discoveryPath, p.guardDocument(library))
	mux.Handle(jwksPath, p.guardDocument(library))
	mux.HandleFunc(authorizePath, p.authorize)
	mux.HandleFunc(endSessionPath, p.endSession)
	return mux
}

func (p *Provider) noPKCE(c *Client) bool {
	return !c.public() && c.Registration.Profile == "" && c.Registration.ApplicationType == "web" && slices.Contains(p.NoPKCE, c.ID)
}
