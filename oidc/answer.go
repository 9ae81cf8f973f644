package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

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
	if in.Requirement.Backchannel != nil {
		return p.finishBack(w, r, progress, cookie)
	}
	g, err := p.giving(w, r, progress, cookie)
	if g == nil || err != nil {
		return err
	}
	q := new(postgres.Query)
	p.SignIns.Complete(q, in, cookie)
	p.give(r.Context(), q, g, fmt.Sprintf("%s AS acr, %s AS amr, %s AS auth_time", q.Bind(p.Levels.Told(d.Level, g.request.ACRs))+"::text",
		q.Bind(pq.Array(d.AMR()))+"::text[]", q.Bind(d.AuthTime)+"::timestamptz"), "")
	q.Finally("SELECT 1 FROM granted")
	switch n, err := p.DB.Run(r.Context(), q); {
	case err != nil:
		return fmt.Errorf("finish sign-in: %w", err)
	case n == 0:
		return authn.ErrSignInOver
	}
	p.answer(w, r, &g.request, url.Values{"code": {g.code}})
	return nil
}

// Completion is [Provider.Finish] for a sign-in that the approval of a payment completes, in the statement that stores it. It gives nil when the application was answered otherwise, because it cannot be
// given this any more.
func (p *Provider) Completion(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie, payment uuid.UUID) (*authn.Completion, error) {
	if progress.Decision.Step != authn.StepConfirm {
		return nil, authn.ErrNotThisStep
	}
	g, err := p.giving(w, r, progress, cookie)
	if g == nil || err != nil {
		return nil, err
	}
	g.payment = payment
	return &authn.Completion{
		ACR: p.Levels.Told(progress.Decision.Level, g.request.ACRs),
		Able: func(q *postgres.Query) string {
			able := p.SignIns.HoldSignIn(q, progress.SignIn, cookie, false)
			q.With("client_held", "SELECT k.id FROM clients k WHERE k.id = "+q.Bind(g.request.ClientID)+"::text AND k.disabled_at IS NULL FOR SHARE")
			able += " AND EXISTS (SELECT FROM client_held)"
			if g.request.Pushed != nil {
				q.With("pushed_held", "SELECT x.hash FROM pushed_requests x WHERE x.hash = "+q.Bind(g.request.Pushed)+"::bytea AND x.used_at IS NULL FOR UPDATE")
				able += " AND EXISTS (SELECT FROM pushed_held)"
			}
			return able
		},
		Along: func(q *postgres.Query, approved string) {
			p.SignIns.CompleteAfter(q, progress.SignIn, cookie, approved)
			p.give(r.Context(), q, g, "approved.acr, approved.amr, approved.auth_time", "CROSS JOIN "+approved+" approved")
		},
		Answer: func(w http.ResponseWriter, r *http.Request) { p.answer(w, r, &g.request, url.Values{"code": {g.code}}) },
	}, nil
}

// Told is the name of the level that a sign-in has reached, as its application is told.
func (p *Provider) Told(progress *authn.Progress) string {
	var request asked
	if json.Unmarshal(progress.SignIn.Payload, &request) != nil {
		request.ACRs = nil
	}
	return p.Levels.Told(progress.Decision.Level, request.ACRs)
}

// gift is what an application is about to be given.
type gift struct {
	request  asked
	sub      string
	code     string
	codeHash []byte
	life     time.Duration
	payment  uuid.UUID
}

// giving finds out what the application of a sign-in can be given, and answers it otherwise when that is nothing.
func (p *Provider) giving(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie) (*gift, error) {
	in, g := progress.SignIn, &gift{sub: progress.SignIn.Session.Subject, life: p.Lives.AccessToken + p.Lives.Code}
	if err := json.Unmarshal(in.Payload, &g.request); err != nil {
		return nil, fmt.Errorf("request of sign-in: %w", err)
	}
	client, err := p.answerable(r, &g.request)
	if err != nil {
		return nil, err
	}
	if client == nil {
		return nil, p.strand(w, r, in, cookie)
	}
	// What the registration lost since the person began is not given; a sign-in that is left with nothing has failed.
	if g.request.Scopes = client.scopes(g.request.Scopes); len(g.request.Scopes) == 0 {
		return nil, p.Refuse(w, r, progress, cookie, authn.Failure(zoidc.InvalidScope))
	}
	if !p.mayStill(client, g.request.Details) {
		return nil, p.Refuse(w, r, progress, cookie, authn.AccessDenied)
	}
	offline := slices.Contains(g.request.Scopes, zoidc.ScopeOfflineAccess)
	if offline && in.Consented == nil && !in.RelyingParty.FirstParty && !slices.Contains(in.Allowed, zoidc.ScopeOfflineAccess) {
		return nil, authn.ErrNotThisStep // unreachable while consent is asked for every scope
	}
	if offline {
		g.life = p.Lives.Refresh
	}
	g.code, g.codeHash = newToken()
	return g, nil
}

// give adds the grant (part `granted`) and its code, once part `sign_in_done` has a row. proved are the columns acr, amr and auth_time; from is what those come from besides.
func (p *Provider) give(ctx context.Context, q *postgres.Query, g *gift, proved, from string) {
	request, optional := &g.request, func(text string) any {
		if text == "" {
			return nil
		}
		return text
	}
	var payment *uuid.UUID
	if g.payment != uuid.Nil {
		payment = &g.payment
	}
	pushed := request.use(q)
	// The client is locked: who disables it waits for this grant, or this grant sees it disabled. Otherwise one could be stored so late that nobody revokes it.
	q.With("granted", fmt.Sprintf(`
		INSERT INTO grants (id, client_id, subscriber_id, sub, session_id, sid, scopes, acr, amr, auth_time, claims, details, transaction_id, expires_at)
		SELECT %s, k.id, done.subscriber_id, %s, done.session_id, done.sid, %s, %s, %s, %s, %s, wall() + make_interval(secs => %s)
		  FROM sign_in_done done %s %s JOIN clients k ON k.id = %s AND k.disabled_at IS NULL FOR SHARE OF k
		RETURNING id, subscriber_id, session_id`,
		q.Bind(uuid.New())+"::uuid", q.Bind(g.sub)+"::text", q.Bind(pq.Array(request.Scopes))+"::text[]", proved,
		q.Bind(optional(string(request.Claims)))+"::jsonb", q.Bind(optional(request.Details))+"::json", q.Bind(payment)+"::uuid",
		q.Bind(g.life.Seconds())+"::float8", pushed, from, q.Bind(request.ClientID)+"::text"))
	q.With("coded", fmt.Sprintf(`
		INSERT INTO authz_codes (hash, expires_at, grant_id, client_id, redirect_uri, code_challenge, nonce, dpop_jkt)
		SELECT %s, wall() + make_interval(secs => %s), id, %s, %s, %s, %s, %s FROM granted`,
		q.Bind(g.codeHash)+"::bytea", q.Bind(p.Lives.Code.Seconds())+"::float8", q.Bind(request.ClientID)+"::text", q.Bind(request.RedirectURI)+"::text",
		q.Bind(request.CodeChallenge)+"::text", q.Bind(request.Nonce)+"::text", q.Bind(request.Key)+"::text"))
	audit.Record(ctx, q, "granted", audit.Event{Name: "grant.issue", Outcome: audit.Success, Actor: "subscriber", Client: request.ClientID},
		audit.Expressions{"subject": "granted.subscriber_id", "session_id": "granted.session_id", "object": "granted.id::text"})
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
	p.answerError(w, r, &request, string(failure), progress.Decision.Detail)
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
