package oidc

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/lib/pq"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// Finish answers the application with a code, in one statement with the grant and the end of the sign-in. progress must have been decided from the
// state just read; cookie is the browser's, as it is now.
func (p *Provider) Finish(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie) error {
	in, d := progress.SignIn, progress.Decision
	if d.Step != authn.StepDone {
		return authn.ErrNotThisStep
	}
	var request asked
	if err := json.Unmarshal(in.Payload, &request); err != nil {
		return fmt.Errorf("request of sign-in: %w", err)
	}
	if in.Requirement.Backchannel != nil {
		return p.finishBack(w, r, progress, &request, cookie)
	}
	client, err := p.answerable(r, &request)
	if err != nil {
		return err
	}
	if client == nil {
		return p.strand(w, r, in, cookie)
	}
	// What the registration lost since the person began is not given; a sign-in that is left with nothing has failed.
	if request.Scopes = client.scopes(request.Scopes); len(request.Scopes) == 0 {
		return p.Refuse(w, r, progress, cookie, authn.Failure(zoidc.InvalidScope))
	}
	if !p.mayStill(client, request.Details) {
		return p.Refuse(w, r, progress, cookie, authn.AccessDenied)
	}
	if slices.Contains(request.Scopes, zoidc.ScopeOfflineAccess) && in.Consented == nil && !in.RelyingParty.FirstParty && !slices.Contains(in.Allowed, zoidc.ScopeOfflineAccess) {
		return authn.ErrNotThisStep // unreachable while consent is asked for every scope
	}
	code, codeHash := newToken()
	life := p.Lives.AccessToken + p.Lives.Code
	if slices.Contains(request.Scopes, zoidc.ScopeOfflineAccess) {
		life = p.Lives.Refresh
	}
	var claims any
	if len(request.Claims) > 0 {
		claims = string(request.Claims)
	}
	var details any
	if request.Details != "" {
		details = request.Details
	}
	q := new(postgres.Query)
	p.SignIns.Complete(q, in, cookie)
	pushed := request.use(q)
	// The client is locked: who disables it waits for this grant, or this grant sees it disabled. Otherwise one could be stored so late that nobody revokes it.
	q.With("granted", fmt.Sprintf(`
		INSERT INTO grants (id, client_id, subscriber_id, sub, session_id, sid, scopes, acr, amr, auth_time, claims, details, expires_at)
		SELECT %s, k.id, done.subscriber_id, %s, done.session_id, done.sid, %s, %s, %s, %s, %s, %s, wall() + make_interval(secs => %s)
		  FROM sign_in_done done %s JOIN clients k ON k.id = %s AND k.disabled_at IS NULL FOR SHARE OF k
		RETURNING id, subscriber_id, session_id`,
		q.Bind(uuid.New())+"::uuid", q.Bind(in.Session.Subject)+"::text", q.Bind(pq.Array(request.Scopes))+"::text[]",
		q.Bind(p.Levels.Told(d.Level, request.ACRs))+"::text", q.Bind(pq.Array(d.AMR()))+"::text[]", q.Bind(d.AuthTime)+"::timestamptz",
		q.Bind(claims)+"::jsonb", q.Bind(details)+"::json", q.Bind(life.Seconds())+"::float8", pushed, q.Bind(request.ClientID)+"::text"))
	q.With("coded", fmt.Sprintf(`
		INSERT INTO authz_codes (hash, expires_at, grant_id, client_id, redirect_uri, code_challenge, nonce, dpop_jkt)
		SELECT %s, wall() + make_interval(secs => %s), id, %s, %s, %s, %s, %s FROM granted`,
		q.Bind(codeHash)+"::bytea", q.Bind(p.Lives.Code.Seconds())+"::float8", q.Bind(request.ClientID)+"::text", q.Bind(request.RedirectURI)+"::text",
		q.Bind(request.CodeChallenge)+"::text", q.Bind(request.Nonce)+"::text", q.Bind(request.Key)+"::text"))
	audit.Record(r.Context(), q, "granted", audit.Event{Name: "grant.issue", Outcome: audit.Success, Actor: "subscriber", Client: request.ClientID},
		audit.Expressions{"subject": "granted.subscriber_id", "session_id": "granted.session_id", "object": "granted.id::text"})
	q.Finally("SELECT 1 FROM granted")
	switch n, err := p.DB.Run(r.Context(), q); {
	case err != nil:
		return fmt.Errorf("finish sign-in: %w", err)
	case n == 0:
		return authn.ErrSignInOver
	}
	p.answer(w, r, &request, url.Values{"code": {code}})
	return nil
}

// answerable is the client of a request if it may still be answered as the request says, and nil if not: a person can take an hour, in which the client
// was disabled or an address of it found to be somebody else's.
func (p *Provider) answerable(r *http.Request, request *asked) (*Client, error) {
	c, err := p.Clients.Get(r.Context(), request.ClientID)
	switch {
	case errors.Is(err, ErrNoClient):
		return nil, nil
	case err != nil:
		return nil, err
	case c.DisabledAt != nil, !c.may(zoidc.GrantTypeCode), !c.Registration.allowsRedirect(request.RedirectURI):
		return nil, nil
	}
	return c, nil
}

// strand ends a sign-in that leads nowhere any more.
func (p *Provider) strand(w http.ResponseWriter, r *http.Request, in *authn.SignIn, cookie authn.Cookie) error {
	if err := p.SignIns.Cancel(r.Context(), cookie, in, "client_changed"); err != nil && !errors.Is(err, authn.ErrSignInOver) {
		return err
	}
	p.Pages.Problem(w, r, http.StatusBadRequest, "client", "the client was disabled, or its redirect_uri removed, while this sign-in went on")
	return nil
}

// Refuse ends a sign-in without success and tells the application why.
func (p *Provider) Refuse(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie, failure authn.Failure) error {
	if progress.SignIn.Requirement.Backchannel != nil {
		return p.refuseBack(w, r, progress, cookie, failure)
	}
	var request asked
	if err := json.Unmarshal(progress.SignIn.Payload, &request); err != nil {
		return fmt.Errorf("request of sign-in: %w", err)
	}
	client, err := p.answerable(r, &request)
	if err != nil {
		return err
	}
	if client == nil {
		return p.strand(w, r, progress.SignIn, cookie)
	}
	if err := p.usePushed(r.Context(), &request); err != nil {
		return err
	}
	if err := p.SignIns.Cancel(r.Context(), cookie, progress.SignIn, string(failure)); err != nil && !errors.Is(err, authn.ErrSignInOver) {
		return err
	}
	p.answerError(w, r, &request, string(failure), "")
	return nil
}

func (p *Provider) answerError(w http.ResponseWriter, r *http.Request, in *asked, code, description string) {
	values := url.Values{"error": {code}}
	if description != "" {
		values.Set("error_description", description)
	}
	p.answer(w, r, in, values)
}

// answer sends the browser to the application: by redirect with the values in the query, or by a form that posts them. Every answer names its issuer, RFC 9207.
func (p *Provider) answer(w http.ResponseWriter, r *http.Request, in *asked, values url.Values) {
	values.Set("iss", p.Issuer)
	if in.HasState {
		values.Set("state", string(in.State))
	}
	if in.ResponseMode == "form_post" {
		p.Pages.FormPost(w, r, in.RedirectURI, values)
		return
	}
	target := in.RedirectURI
	switch {
	case !strings.Contains(target, "?"):
		target += "?"
	case !strings.HasSuffix(target, "?") && !strings.HasSuffix(target, "&"):
		target += "&"
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", target+values.Encode())
	w.WriteHeader(http.StatusSeeOther) // never 307: what was posted here must not be posted there, RFC 9700 section 4.12
}
