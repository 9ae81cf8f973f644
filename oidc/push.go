package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// requestURN is what every request_uri begins with: RFC 9126 section 2.2.
const requestURN = "urn:ietf:params:oauth:request_uri:"

// pushed is the answer of RFC 9126 section 2.2.
type pushed struct {
	RequestURI string `json:"request_uri"`
	ExpiresIn  int    `json:"expires_in"`
}

// push is the pushed authorization request endpoint, RFC 9126: the authorization endpoint's checks, with the client known before anybody's browser is.
func (p *Provider) push(w http.ResponseWriter, r *http.Request) {
	answer, err := p.keepRequest(r)
	if err != nil {
		op.WriteError(w, r, p.refuse(r.Context(), err), nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(answer) //nolint:errcheck,errchkjson // the caller has gone
}

func (p *Provider) keepRequest(r *http.Request) (*pushed, error) {
	ctx, parameters := r.Context(), r.PostForm
	given, e := credentials(r)
	if e != nil {
		return nil, e
	}
	c, err := p.authenticate(ctx, r.Header, parameters, given)
	if err != nil {
		return nil, err
	}
	if parameters.Has("request_uri") {
		return nil, errInvalidRequest("request_uri is what this endpoint gives")
	}
	parameters.Set("client_id", c.ID)
	for _, name := range []string{"client_secret", "client_assertion", "client_assertion_type"} {
		parameters.Del(name)
	}
	if !c.Registration.allowsRedirect(parameters.Get("redirect_uri")) {
		return nil, errInvalidRequest(unknownRedirect)
	}
	if c.proof, err = p.readProof(ctx, r.Header, http.MethodPost, pushPath, ""); err != nil {
		return nil, err
	}
	if c.proof != nil { // RFC 9449 section 10.1
		if parameters.Has("dpop_jkt") && parameters.Get("dpop_jkt") != c.proof.key {
			return nil, errProof("dpop_jkt is not the key of the proof")
		}
		parameters.Set("dpop_jkt", c.proof.key)
	}
	reference, hash := newToken()
	in := &asked{ClientID: c.ID, RedirectURI: parameters.Get("redirect_uri"), ResponseMode: "query", Pushed: hash}
	beginning, e := p.check(ctx, c.Client, in, parameters)
	if e != nil {
		return nil, e
	}
	q := new(postgres.Query)
	stored, err := p.SignIns.Stored(q, beginning)
	if err != nil {
		return nil, err
	}
	c.spend(q)
	q.With("asked", stored)
	q.Finally(fmt.Sprintf(`
		INSERT INTO pushed_requests (hash, client_id, expires_at, %[1]s)
		SELECT %[2]s, %[3]s, wall() + make_interval(secs => %[4]s), %[1]s FROM asked`,
		authn.StoredColumns, q.Bind(hash)+"::bytea", q.Bind(c.ID)+"::text", q.Bind(p.Lives.Pushed.Seconds())+"::float8"))
	if _, err := p.DB.Run(ctx, q); err != nil {
		return nil, p.spent(ctx, c, fmt.Errorf("keep a pushed request: %w", err))
	}
	return &pushed{RequestURI: requestURN + reference, ExpiresIn: int(p.Lives.Pushed.Seconds())}, nil
}

// credentials reads how a client authenticates, as the library does at its endpoints.
func credentials(r *http.Request) (*op.ClientCredentials, *zoidc.Error) {
	given := &op.ClientCredentials{ClientID: r.PostForm.Get("client_id"), ClientSecret: r.PostForm.Get("client_secret"),
		ClientAssertion: r.PostForm.Get("client_assertion"), ClientAssertionType: r.PostForm.Get("client_assertion_type")}
	if id, secret, ok := r.BasicAuth(); ok {
		var err, err2 error
		given.ClientID, err = url.QueryUnescape(id)
		given.ClientSecret, err2 = url.QueryUnescape(secret)
		if err != nil || err2 != nil {
			return nil, errInvalidClient()
		}
	}
	switch {
	case given.ClientID == "" && given.ClientAssertion == "":
		return nil, errInvalidRequest("client_id or client_assertion is missing")
	case given.ClientAssertion != "" && given.ClientAssertionType != zoidc.ClientAssertionTypeJWTAssertion:
		return nil, errInvalidRequest("client_assertion_type is not that of RFC 7523")
	}
	return given, nil
}

// authorizePushed begins what was pushed: RFC 9126 section 4. Until it is answered it can be opened again, because browsers load pages again; whatever else is in the
// request does not count.
func (p *Provider) authorizePushed(w http.ResponseWriter, r *http.Request, parameters url.Values) {
	reference := strings.TrimPrefix(parameters.Get("request_uri"), requestURN)
	if len(parameters["client_id"]) > 1 || len(parameters["request_uri"]) > 1 {
		p.Pages.Problem(w, r, http.StatusBadRequest, "request", "a parameter is repeated")
		return
	}
	c, problem, err := p.known(r, parameters.Get("client_id"))
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	if problem != "" {
		p.Pages.Problem(w, r, http.StatusBadRequest, "client", problem)
		return
	}
	if r.Method == http.MethodPost && p.Pages.Cookie(r) == "" &&
		p.asGet(w, authorizePath, url.Values{"client_id": {c.ID}, "request_uri": {parameters.Get("request_uri")}}) {
		return
	}
	q := new(postgres.Query)
	open := openSQL(q, hashed(reference), c.ID)
	cookie := p.Pages.Cookie(r)
	progress, err := p.SignIns.BeginStored(r.Context(), q, "SELECT "+authn.StoredColumns+" FROM pushed_requests x WHERE "+open, cookie)
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	if progress.SignIn == nil {
		p.refusePushed(w, r, c, hashed(reference), progress.Decision.Failure)
		return
	}
	p.next(w, r, progress, cookie)
}

// openSQL is an SQL condition on row x of pushed_requests: it is that one of this client, and may be opened.
func openSQL(q *postgres.Query, hash []byte, client string) string {
	return fmt.Sprintf("x.hash = %s AND x.client_id = %s AND x.used_at IS NULL AND x.expires_at > wall()", q.Bind(hash)+"::bytea", q.Bind(client)+"::text")
}

// refusePushed answers a request that began nothing: the application, if it was a silent one that nobody is signed in for; otherwise there is no such request.
func (p *Provider) refusePushed(w http.ResponseWriter, r *http.Request, c *Client, hash []byte, failure authn.Failure) {
	q := new(postgres.Query)
	q.Finally("UPDATE pushed_requests x SET used_at = wall() WHERE " + openSQL(q, hash, c.ID) + " RETURNING payload")
	var payload []byte
	var in asked
	switch err := p.DB.Get(r.Context(), &payload, q); {
	case errors.Is(err, postgres.ErrNotFound):
		p.Pages.Problem(w, r, http.StatusBadRequest, "page_expired", "invalid_request_uri: it is unknown, of another client, over, or was answered")
	case err != nil:
		p.unavailable(w, r, fmt.Errorf("refuse a pushed request: %w", err))
	case json.Unmarshal(payload, &in) != nil:
		p.unavailable(w, r, errors.New("request that was pushed: not as it was stored"))
	default:
		p.answerError(w, r, &in, string(failure), "")
	}
}

// usePushed has a request that was pushed answered without success.
func (p *Provider) usePushed(ctx context.Context, in *asked) error {
	if in.Pushed == nil {
		return nil
	}
	q := new(postgres.Query)
	q.Finally("UPDATE pushed_requests SET used_at = wall() WHERE hash = " + q.Bind(in.Pushed) + "::bytea AND used_at IS NULL")
	if _, err := p.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("use a pushed request: %w", err)
	}
	return nil
}

// use adds part `pushed_used`: the request that was pushed is answered, once, where part `sign_in_done` has a row. It gives what follows the FROM of a part that
// depends on it, which is nothing for requests that were not pushed.
func (in *asked) use(q *postgres.Query) (join string) {
	if in.Pushed == nil {
		return ""
	}
	q.With("pushed_used", fmt.Sprintf(`
		UPDATE pushed_requests x SET used_at = wall() FROM sign_in_done WHERE x.hash = %s AND x.used_at IS NULL RETURNING x.hash`, q.Bind(in.Pushed)+"::bytea"))
	return "JOIN pushed_used ON true"
}
