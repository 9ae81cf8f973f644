package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/lib/pq/pqerror"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/payment"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// GrantTypeCIBA is that of OpenID Connect Client-Initiated Backchannel Authentication Flow, Core 1.0 section 10.1.
const GrantTypeCIBA zoidc.GrantType = "urn:openid:params:grant-type:ciba"

// Delivery modes of CIBA Core 1.0 section 5. Push is not offered: it hands tokens to whoever answers at an address.
const (
	DeliveryPoll = "poll"
	DeliveryPing = "ping"
)

// Bounds of backchannel authentication requests.
const (
	maxBindingMessage = 64        // characters: what fits beside a terminal's
	maxNotifyToken    = 1024      // CIBA Core 1.0 section 7.1
	minNotifyToken    = 16        // 128 bits at the very least
	maxRequestObject  = 16 << 10  // a signed request
	maxRequestLife    = time.Hour // FAPI-CIBA section 5.2.2
)

// bearerForm is the syntax of RFC 6750 section 2.1, which client_notification_token has.
var bearerForm = regexp.MustCompile(`^[A-Za-z0-9\-._~+/]+=*$`)

// Payer is a [DetailType] that asks for a payment, which a person confirms by a code: see package transaction.
type Payer interface {
	DetailType
	// Order is what a canonical element wants to have confirmed.
	Order(element json.RawMessage) (transaction.Order, error)
}

// askedBack is the answer of CIBA Core 1.0 section 7.3.
type askedBack struct {
	RequestID string `json:"auth_req_id"`
	ExpiresIn int    `json:"expires_in"`
	Interval  int    `json:"interval"`
}

// askBack is the backchannel authentication endpoint, CIBA Core 1.0 section 7.
func (p *Provider) askBack(w http.ResponseWriter, r *http.Request) {
	answer, err := p.keepQuestion(r)
	if err != nil {
		op.WriteError(w, r, p.refuse(r.Context(), err), nil)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(answer) //nolint:errcheck,errchkjson // the caller has gone
}

func (p *Provider) keepQuestion(r *http.Request) (*askedBack, error) {
	ctx := r.Context()
	given, e := credentials(r)
	if e != nil {
		return nil, e
	}
	c, err := p.authenticate(ctx, r.Header, r.PostForm, given)
	if err != nil {
		return nil, err
	}
	if c.public() || !c.may(GrantTypeCIBA) {
		return nil, &zoidc.Error{ErrorType: zoidc.UnauthorizedClient}
	}
	parameters, signed, e := p.questionParameters(c, r.PostForm)
	if e != nil {
		return nil, e
	}
	question, e := p.readQuestion(ctx, c.Client, parameters)
	if e != nil {
		return nil, e
	}
	question.Spend = func(q *postgres.Query) {
		c.spend(q)
		signed.spend(q, c.ID)
	}
	from := audit.From(ctx)
	from.Client = c.ID // it asks for many people from one address
	asked, err := p.Backchannel.Ask(audit.With(ctx, from), *question)
	invalid := new(transaction.InvalidError)
	switch {
	case errors.Is(err, backchannel.ErrUser):
		return nil, &zoidc.Error{ErrorType: "unknown_user_id", Description: "nobody can be asked by this hint"}
	case errors.Is(err, backchannel.ErrTooMany):
		return nil, op.NewStatusError(&zoidc.Error{ErrorType: zoidc.AccessDenied, Description: "too much is asked at once: wait until something of it has ended"}, http.StatusTooManyRequests)
	case errors.As(err, &invalid):
		return nil, errDetails("the payment cannot be asked for")
	case err != nil && signed != nil && pq.As(err, pqerror.UniqueViolation) != nil:
		if used, problem := signed.used(ctx, p.DB, c.ID); problem == nil && used {
			return nil, errInvalidRequest("request was used before")
		}
		return nil, p.spent(ctx, c, err)
	case err != nil:
		return nil, p.spent(ctx, c, err)
	}
	return &askedBack{asked.Secret, int(asked.Life.Seconds()), int(asked.Pause.Seconds())}, nil
}

// questionParameters are the parameters of a request: its own, or those that it brings signed, and then no others.
func (p *Provider) questionParameters(c *caller, form url.Values) (url.Values, *requestObject, *zoidc.Error) {
	parameters := url.Values{}
	for name, values := range form {
		if !slices.Contains([]string{"client_id", "client_secret", "client_assertion", "client_assertion_type"}, name) {
			parameters[name] = values
		}
	}
	if !parameters.Has("request") {
		if c.Registration.Profile == ProfileFAPI2 || c.Registration.RequestAlg != "" {
			return nil, nil, errInvalidRequest("this client has to sign its requests")
		}
		return parameters, nil, nil
	}
	if len(parameters) > 1 {
		return nil, nil, errInvalidRequest("a signed request stands alone")
	}
	signed, e := p.readRequestObject(c.Client, parameters.Get("request"))
	if e != nil {
		return nil, nil, e
	}
	return signed.parameters, signed, nil
}

// requestObject is a signed request, CIBA Core 1.0 section 7.1.1. Nil: there is none.
type requestObject struct {
	parameters url.Values
	hash       []byte // of its jti
	expires    time.Time
}

// requestAlgs are those that requests may be signed with: FAPI 2.0 Security Profile section 5.4.
var requestAlgs = []jose.SignatureAlgorithm{jose.ES256, jose.PS256, jose.EdDSA}

func (p *Provider) readRequestObject(c *Client, raw string) (*requestObject, *zoidc.Error) {
	algs := requestAlgs
	if alg := c.Registration.RequestAlg; alg != "" {
		algs = []jose.SignatureAlgorithm{jose.SignatureAlgorithm(alg)}
	}
	if len(raw) > maxRequestObject || !plainHeader(raw) || c.Registration.Keys == nil {
		return nil, errInvalidRequest("request is not a JWT of this client")
	}
	token, err := jwt.ParseSigned(raw, algs)
	if err != nil || len(token.Headers) != 1 {
		return nil, errInvalidRequest("request is not a JWT of this client")
	}
	var claims jwt.Claims
	var all map[string]json.RawMessage
	verified := false
	for _, key := range c.Registration.Keys.Keys {
		if id := token.Headers[0].KeyID; id != "" && key.KeyID != "" && key.KeyID != id {
			continue
		}
		if verified = token.Claims(key.Key, &claims, &all) == nil; verified {
			break
		}
	}
	now := p.Now()
	switch {
	case !verified:
		return nil, errInvalidRequest("request is not signed by this client")
	case claims.Issuer != c.ID || len(claims.Audience) != 1 || claims.Audience[0] != p.Issuer:
		return nil, errInvalidRequest("iss or aud of request is wrong")
	case claims.ID == "" || len(claims.ID) > 200 || claims.Expiry == nil || claims.NotBefore == nil || claims.IssuedAt == nil:
		return nil, errInvalidRequest("request lacks one of exp, nbf, iat and jti")
	case !now.Before(claims.Expiry.Time().Add(clockSkew)) || claims.NotBefore.Time().After(now.Add(clockSkew)) || claims.IssuedAt.Time().After(now.Add(clockSkew)) ||
		now.After(claims.NotBefore.Time().Add(maxRequestLife)) || claims.Expiry.Time().After(claims.NotBefore.Time().Add(maxRequestLife)):
		return nil, errInvalidRequest("request is not of now, or lives longer than an hour")
	}
	signed := &requestObject{parameters: url.Values{}, hash: hashed("backchannel request " + claims.ID), expires: claims.Expiry.Time().Add(time.Minute)}
	for name, value := range all {
		if slices.Contains([]string{"iss", "aud", "exp", "nbf", "iat", "jti"}, name) {
			continue
		}
		var text string
		if json.Unmarshal(value, &text) != nil {
			text = string(value) // a number, or authorization_details
		}
		signed.parameters.Set(name, text)
	}
	if signed.parameters.Has("request") || signed.parameters.Has("client_id") && signed.parameters.Get("client_id") != c.ID {
		return nil, errInvalidRequest("request is not a request of this client")
	}
	return signed, nil
}

// spend adds the single use of a signed request.
func (s *requestObject) spend(q *postgres.Query, client string) {
	if s != nil {
		q.With("request_used", fmt.Sprintf("INSERT INTO client_assertions (client_id, jti_hash, expires_at) VALUES (%s, %s, %s)", q.Bind(client)+"::text", q.Bind(s.hash)+"::bytea", q.Bind(s.expires)+"::timestamptz"))
	}
}

func (s *requestObject) used(ctx context.Context, db *postgres.DB, client string) (used bool, err error) {
	q := new(postgres.Query)
	q.Finally("SELECT EXISTS (SELECT FROM client_assertions WHERE client_id = " + q.Bind(client) + "::text AND jti_hash = " + q.Bind(s.hash) + "::bytea)")
	err = db.Get(ctx, &used, q)
	return used, err
}

// readQuestion reads the parameters of CIBA Core 1.0 section 7.1.
func (p *Provider) readQuestion(ctx context.Context, c *Client, parameters url.Values) (*backchannel.Question, *zoidc.Error) {
	question := &backchannel.Question{RelyingParty: c.RelyingParty(c.Registration.HomeURI), Requirement: authn.Requirement{MaxAge: -1}, Locales: bounded(parameters.Get("ui_locales"))}
	in := &asked{ClientID: c.ID, Scopes: c.scopes(strings.Fields(parameters.Get("scope")))}
	if !slices.Contains(in.Scopes, zoidc.ScopeOpenID) {
		return nil, &zoidc.Error{ErrorType: zoidc.InvalidScope, Description: "openid is missing, or not one of this client"}
	}
	var e *zoidc.Error
	if question.Hint, e = p.readUserHint(c, parameters); e != nil {
		return nil, e
	}
	if question.Message, e = readBindingMessage(parameters.Get("binding_message")); e != nil {
		return nil, e
	}
	if parameters.Has("requested_expiry") {
		seconds, err := strconv.ParseUint(parameters.Get("requested_expiry"), 10, 31)
		if err != nil || seconds == 0 {
			return nil, errInvalidRequest("requested_expiry is not a positive number of seconds")
		}
		question.Life = min(max(time.Duration(seconds)*time.Second, backchannel.MinLife), backchannel.MaxLife)
	}
	for _, name := range strings.Fields(parameters.Get("acr_values")) {
		p.askLevel(in, &question.Requirement, name)
	}
	if c.Registration.DeliveryMode == DeliveryPing {
		token := parameters.Get("client_notification_token")
		if len(token) < minNotifyToken || len(token) > maxNotifyToken || !bearerForm.MatchString(token) {
			return nil, errInvalidRequest("client_notification_token is missing, or not a bearer token of 16 to 1024 characters")
		}
		question.Notify = &backchannel.Notify{URL: c.Registration.NotificationEndpoint, Token: token}
	}
	if parameters.Has("authorization_details") {
		details, e := p.readDetails(ctx, c, parameters.Get("authorization_details"))
		if e != nil {
			return nil, e
		}
		in.Details, question.Requirement.Details = string(joined(details)), details
		if question.Payment, e = p.payment(details); e != nil {
			return nil, e
		}
	}
	if c.Registration.Profile == ProfileFAPI2 && question.Message == "" && in.Details == "" { // FAPI-CIBA section 5.2.2: people have to see which request it is
		return nil, &zoidc.Error{ErrorType: "invalid_binding_message", Description: "this client has to send binding_message or authorization_details"}
	}
	if question.Payment != nil && !c.Registration.FirstParty {
		in.Scopes = []string{zoidc.ScopeOpenID} // the page shows the payment, and nothing else is allowed by its code
	}
	question.Requirement.Scopes = slices.Clone(in.Scopes)
	var err error
	if question.Payload, err = json.Marshal(in); err != nil {
		return nil, &zoidc.Error{ErrorType: zoidc.ServerError}
	}
	return question, nil
}

// payment is the payment that is asked for, nil if none is. It stands alone: its code is good for nothing else.
func (p *Provider) payment(details []authn.Detail) (*transaction.Order, *zoidc.Error) {
	for _, d := range details {
		i := slices.IndexFunc(p.Details, func(t DetailType) bool { return t.Type() == d.Type })
		payer, ok := p.Details[i].(Payer)
		if !ok {
			continue
		}
		if len(details) > 1 {
			return nil, errDetails("a payment stands alone")
		}
		order, err := payer.Order(json.RawMessage(d.Content))
		if err != nil {
			return nil, &zoidc.Error{ErrorType: zoidc.ServerError}
		}
		return &order, nil
	}
	return nil, nil
}

// readUserHint reads the one hint of a request.
func (p *Provider) readUserHint(c *Client, parameters url.Values) (hint backchannel.Hint, e *zoidc.Error) {
	given := 0
	for _, name := range []string{"login_hint", "id_token_hint", "login_hint_token"} {
		if parameters.Get(name) != "" {
			given++
		}
	}
	text := parameters.Get("login_hint")
	switch {
	case given != 1:
		return hint, errInvalidRequest("give exactly one of login_hint and id_token_hint")
	case parameters.Get("login_hint_token") != "":
		return hint, errInvalidRequest("login_hint_token is not offered")
	case text == "":
		claims, err := p.hint(parameters.Get("id_token_hint"))
		if err != nil || claims.Audience[0] != c.ID {
			return hint, errInvalidRequest("id_token_hint is not an ID Token that this client was given")
		}
		return backchannel.Hint{Subject: claims.Subject}, nil
	case bounded(text) == "":
		return hint, errInvalidRequest("login_hint is not text of at most 320 bytes")
	}
	hint = backchannel.Hint{Subject: text, Name: text}
	if number, err := sms.ParseNumber(text, ""); err == nil && strings.HasPrefix(text, "+") {
		hint.Number = number
	}
	return hint, nil
}

// readBindingMessage refuses what would not be seen on both screens as it is: CIBA Core 1.0 sections 7.1 and 13.
func readBindingMessage(text string) (string, *zoidc.Error) {
	refused := &zoidc.Error{ErrorType: "invalid_binding_message", Description: "binding_message is longer than 64 characters, or has some that are not plain text"}
	if len(text) > 4*maxBindingMessage || utf8.RuneCountInString(text) > maxBindingMessage || strings.ContainsAny(text, "<>") {
		return "", refused
	}
	seen, ok := payment.Visible(text)
	if !ok {
		return "", refused
	}
	return seen, nil
}

// answerBack shows the page that answers a question: it begins a sign-in, as often as somebody opens it.
func (p *Provider) answerBack(w http.ResponseWriter, r *http.Request) {
	id, ok := backchannel.ParsePath(r.PathValue("id"))
	if !ok {
		p.Pages.Problem(w, r, http.StatusNotFound, "page_expired", "there is no such request")
		return
	}
	cookie := p.Pages.Cookie(r)
	progress, err := p.Backchannel.Begin(r.Context(), id, cookie)
	switch {
	case errors.Is(err, backchannel.ErrOver):
		p.Pages.Problem(w, r, http.StatusGone, "page_expired", "the request is unknown, over, or was answered")
	case err != nil:
		p.unavailable(w, r, err)
	default:
		p.next(w, r, progress, cookie)
	}
}

// finishBack ends a sign-in that answered a question with yes.
func (p *Provider) finishBack(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie) error {
	in, d := progress.SignIn, progress.Decision
	var request asked
	if err := json.Unmarshal(in.Payload, &request); err != nil {
		return fmt.Errorf("request of sign-in: %w", err)
	}
	c, err := p.Clients.Get(r.Context(), request.ClientID)
	if errors.Is(err, ErrNoClient) || err == nil && (c.DisabledAt != nil || !c.may(GrantTypeCIBA)) {
		return p.strand(w, r, in, cookie)
	}
	if err != nil {
		return err
	}
	q := new(postgres.Query)
	p.SignIns.Complete(q, in, cookie)
	p.Backchannel.Approve(r.Context(), q, "sign_in_done", in.Requirement.Backchannel.Request,
		transaction.Proof{ACR: p.Levels.Told(d.Level, request.ACRs), AMR: d.AMR(), AuthTime: d.AuthTime})
	q.Finally("SELECT 1 FROM backchannel_decided")
	switch n, err := p.DB.Run(r.Context(), q); {
	case err != nil:
		return fmt.Errorf("answer a question: %w", err)
	case n == 0:
		return authn.ErrSignInOver
	}
	p.Pages.Answered(w, r, in.RelyingParty.Name, in.RelyingParty.HomeURI, true)
	return nil
}

// refuseBack ends a sign-in that does not answer a question with yes. It is answered with no if the person who is asked says so, once they have proven what an answer takes and have been shown the
// question; whoever else opened the page, and whoever turned back before that, says nothing.
func (p *Provider) refuseBack(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie, failure authn.Failure) error {
	in := progress.SignIn
	shown := slices.Contains([]authn.Step{authn.StepConsent, authn.StepConfirm, authn.StepDone}, progress.Decision.Step)
	never := progress.Decision.Step == authn.StepFail && progress.Decision.Failure == authn.Unmet // nobody can answer it with yes
	if in.Session.Subject == in.Requirement.Subject && (shown || never) {
		if err := p.Backchannel.Refuse(r.Context(), in.Requirement.Backchannel.Request, &in.Session); err != nil && !errors.Is(err, backchannel.ErrOver) {
			return err
		}
	}
	if err := p.SignIns.Cancel(r.Context(), cookie, in, string(failure)); err != nil && !errors.Is(err, authn.ErrSignInOver) {
		return err
	}
	p.Pages.Answered(w, r, in.RelyingParty.Name, in.RelyingParty.HomeURI, false)
	return nil
}

// token serves the token endpoint: the grant that the library does not know, and the others.
func (p *Provider) token(library http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.PostForm.Get("grant_type") != string(GrantTypeCIBA) {
			library.ServeHTTP(w, r)
			return
		}
		answer, err := p.redeemAnswer(r)
		if err != nil {
			op.WriteError(w, r, p.refuse(r.Context(), err), nil)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(answer.Data) //nolint:errcheck,errchkjson // the caller has gone
	})
}

// redeemAnswer is the token request of CIBA Core 1.0 section 10.1: one round trip while there is no answer, for which it may wait.
func (p *Provider) redeemAnswer(r *http.Request) (*op.Response, error) {
	ctx := r.Context()
	given, e := credentials(r)
	if e != nil {
		return nil, e
	}
	c, err := p.authenticate(ctx, r.Header, r.PostForm, given)
	if err != nil {
		return nil, err
	}
	if !c.may(GrantTypeCIBA) || p.Backchannel == nil {
		return nil, &zoidc.Error{ErrorType: zoidc.UnauthorizedClient}
	}
	if err := p.prove(ctx, c, r.Header); err != nil {
		return nil, err
	}
	secret := r.PostForm.Get("auth_req_id")
	if secret == "" || len(secret) > maxToken {
		return nil, errInvalidRequest("auth_req_id is missing")
	}
	watch := p.Backchannel.Waiting.Watch(secret)
	defer watch.Leave()
	polled, err := p.Backchannel.Poll(ctx, c.ID, secret, c.spend)
	if err == nil && polled.State == backchannel.Pending && !polled.Early && watch.Take() {
		var look bool
		after, cancel := httpkit.Wait(ctx, func(ctx context.Context) { look = watch.Wait(ctx, polled.Left) })
		defer cancel()
		if look {
			ctx = after
			polled, err = p.lookAgain(ctx, c, secret)
		}
	}
	switch {
	case errors.Is(err, backchannel.ErrUnknown):
		return nil, errInvalidGrant()
	case err != nil:
		return nil, p.spent(ctx, c, err)
	case polled.Redeemed:
		return nil, errInvalidGrant()
	}
	switch polled.State {
	case backchannel.Pending:
		if polled.Early {
			return nil, &zoidc.Error{ErrorType: zoidc.SlowDown}
		}
		return nil, &zoidc.Error{ErrorType: zoidc.AuthorizationPending}
	case backchannel.Denied:
		return nil, &zoidc.Error{ErrorType: zoidc.AccessDenied, Description: polled.Reason}
	case backchannel.Approved:
		return p.redeemApproval(context.WithoutCancel(ctx), c, secret, polled.Payload, r.PostForm)
	default:
		return nil, &zoidc.Error{ErrorType: zoidc.ExpiredToken}
	}
}

// lookAgain looks at a question that has ended while a poll waited for that. The poll is as good as its client was when it began: if the client has been changed meanwhile, its secret or keys perhaps, it has to come again.
func (p *Provider) lookAgain(ctx context.Context, c *caller, secret string) (*backchannel.Polled, error) {
	now, err := p.Clients.Get(ctx, c.ID)
	if errors.Is(err, ErrNoClient) || err == nil && !now.UpdatedAt.Equal(c.UpdatedAt) {
		return &backchannel.Polled{State: backchannel.Pending}, nil
	}
	if err != nil {
		return nil, err
	}
	return p.Backchannel.Look(ctx, c.ID, secret)
}

// redeemApproval gives the tokens of an approval, once, in one statement.
func (p *Provider) redeemApproval(ctx context.Context, c *caller, secret string, payload []byte, form url.Values) (*op.Response, error) {
	var request asked
	if err := json.Unmarshal(payload, &request); err != nil {
		return nil, fmt.Errorf("request of a question: %w", err)
	}
	scopes := c.scopes(request.Scopes)
	if !p.mayStill(c.Client, request.Details) {
		return nil, errInvalidGrant()
	}
	var details any
	if request.Details != "" {
		details = request.Details
	}
	var less narrowed
	if form.Has("authorization_details") {
		n, e := p.narrow(ctx, c.Client, json.RawMessage(request.Details), form.Get("authorization_details"))
		if e != nil {
			return nil, e
		}
		less = narrowed(n)
	}
	life := p.Lives.AccessToken
	if slices.Contains(scopes, zoidc.ScopeOfflineAccess) {
		life = p.Lives.Refresh
	}
	tokens := newTokens()
	q := new(postgres.Query)
	p.Backchannel.Redeem(q, c.ID, secret)
	q.With("g", fmt.Sprintf(`
		INSERT INTO grants AS g (id, client_id, subscriber_id, sub, scopes, acr, amr, auth_time, details, transaction_id, expires_at)
		SELECT %s, k.id, r.subscriber_id, r.sub, %s, r.acr, r.amr, r.auth_time, %s, r.transaction_id, wall() + make_interval(secs => %s)
		  FROM backchannel_redeemed r JOIN clients k ON k.id = %s AND k.disabled_at IS NULL FOR SHARE OF k
		RETURNING %s`,
		q.Bind(uuid.New())+"::uuid", q.Bind(pq.Array(scopes))+"::text[]", q.Bind(details)+"::json", q.Bind(life.Seconds())+"::float8", q.Bind(c.ID)+"::text", grantColumns))
	q.With("refresh", fmt.Sprintf(`
		INSERT INTO refresh_tokens (hash, grant_id, client_id, expires_at)
		SELECT %s, g.id, g.client_id, g.expires_at FROM g WHERE 'offline_access' = ANY(g.scopes) AND %s RETURNING hash`,
		q.Bind(tokens.refreshHash)+"::bytea", q.Bind(c.may(zoidc.GrantTypeRefreshToken))+"::bool"))
	p.storeOpaque(q, c, tokens, "g.scopes", less)
	q.With("granted", "SELECT id, subscriber_id FROM g")
	audit.Record(ctx, q, "granted", audit.Event{Name: "grant.issue", Outcome: audit.Success, Actor: "subscriber", Client: c.ID},
		audit.Expressions{"subject": "granted.subscriber_id", "object": "granted.id::text"})
	audit.Record(ctx, q, "g", audit.Event{Name: "token.issue", Outcome: audit.Success, Reason: "ciba", Actor: "client", Client: c.ID},
		audit.Expressions{"subject": "g.subscriber_id", "object": "g.id::text"})
	q.Finally("SELECT g.*, EXISTS (SELECT FROM refresh) AS refreshable FROM g")
	var row struct {
		grant
		Refreshable bool `db:"refreshable"`
	}
	if err := p.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, errInvalidGrant()
	} else if err != nil {
		return nil, fmt.Errorf("redeem an approval: %w", err)
	}
	if !row.Refreshable {
		tokens.refresh = ""
	}
	return p.respond(ctx, c, &row.grant, row.Scopes, less.of(&row.grant), tokens, nil)
}
