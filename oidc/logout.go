package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// endSession is the endpoint of OpenID Connect RP-Initiated Logout 1.0. It ends a session unasked only for an application that shows an ID Token of that very
// session, and leads back only to an address that this application registered. Everybody else is asked, or told.
func (p *Provider) endSession(w http.ResponseWriter, r *http.Request) {
	parameters, status, detail := readParameters(w, r)
	if status != 0 {
		p.Pages.Problem(w, r, status, "request", detail)
		return
	}
	if repeated(parameters) {
		p.Pages.Problem(w, r, http.StatusBadRequest, "request", "a parameter is repeated")
		return
	}
	cookie := p.Pages.Cookie(r)
	if r.Method == http.MethodPost && cookie == "" { // nobody may be told that they are signed out before that is known
		if !p.asGet(w, endSessionPath, parameters) {
			p.Pages.Problem(w, r, http.StatusRequestEntityTooLarge, "request", "the request is too long to be repeated as a GET")
		}
		return
	}
	session, err := p.SignIns.Current(r.Context(), cookie)
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	hint, client, err := p.logoutHint(r, parameters)
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	signedIn := session.Subscriber != uuid.Nil
	if signedIn && (client == nil || hint.SID != session.SID) {
		p.Pages.ConfirmSignOut(w, r, session)
		return
	}
	if signedIn {
		if err := p.SignOut(r, cookie); err != nil {
			p.unavailable(w, r, err)
			return
		}
		p.Pages.SetCookie(w, "")
	}
	target := parameters.Get("post_logout_redirect_uri")
	if client == nil || target == "" || !slices.Contains(client.Registration.PostLogoutRedirectURIs, target) {
		name, home := "", ""
		if client != nil {
			name, home = client.Registration.Name, client.Registration.HomeURI
		}
		p.Pages.SignedOut(w, r, name, home)
		return
	}
	if parameters.Has("state") {
		separator := "?"
		if strings.Contains(target, "?") {
			separator = "&"
		}
		target += separator + url.Values{"state": {parameters.Get("state")}}.Encode()
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusSeeOther)
}

// logoutHint reads id_token_hint and finds its client; none when the hint is not ours, or when client_id names another.
func (p *Provider) logoutHint(r *http.Request, parameters url.Values) (hintClaims, *Client, error) {
	claims, err := p.hint(parameters.Get("id_token_hint"))
	if err != nil {
		return hintClaims{}, nil, nil //nolint:nilerr // a hint that is none is as good as no hint
	}
	if id := parameters.Get("client_id"); id != "" && id != claims.Audience[0] {
		return hintClaims{}, nil, nil
	}
	c, err := p.Clients.Get(r.Context(), claims.Audience[0])
	if errors.Is(err, ErrNoClient) || err == nil && c.DisabledAt != nil {
		return hintClaims{}, nil, nil
	}
	return claims, c, err
}

// SignOut ends the session of this cookie and every grant of it that was not given for the time that nobody is there.
func (p *Provider) SignOut(r *http.Request, cookie authn.Cookie) error {
	q := new(postgres.Query)
	p.SignIns.End(r.Context(), q, cookie, signedOut)
	p.takeBack(r.Context(), q, signedOut)
	q.Finally("SELECT 1 FROM session_ended")
	if _, err := p.DB.Run(r.Context(), q); err != nil {
		return fmt.Errorf("sign out: %w", err)
	}
	return nil
}

const signedOut = "signed_out"

// SignOutWith is [Provider.SignOut] as parts of a statement that ends the person's challenges besides.
func (p *Provider) SignOutWith(ctx context.Context, q *postgres.Query, cookie authn.Cookie, reason string) {
	p.SignIns.EndAlone(ctx, q, cookie, reason)
	p.takeBack(ctx, q, reason)
}

// takeBack adds part `given_back`: the grants of the session that part `session_ended` has.
func (p *Provider) takeBack(ctx context.Context, q *postgres.Query, reason string) {
	q.With("given_back", fmt.Sprintf(`
		UPDATE grants g SET revoked_at = wall(), revoke_reason = %s FROM session_ended s
		 WHERE g.session_id = s.id AND g.revoked_at IS NULL AND NOT 'offline_access' = ANY(g.scopes) RETURNING g.id, g.subscriber_id, g.client_id`, q.Bind(reason)+"::text"))
	audit.Record(ctx, q, "given_back", audit.Event{Name: "grant.revoke", Outcome: audit.Success, Reason: reason, Actor: "subscriber"},
		audit.Expressions{"subject": "given_back.subscriber_id", "client_id": "given_back.client_id", "object": "given_back.id::text"})
}
