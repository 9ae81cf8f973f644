package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// maxEcho bounds state and nonce, which come back as they are or not at all.
const maxEcho = 4 << 10

// asked is an authorization request that has been checked. It is stored with the sign-in, as its payload, and read back when the application is
// answered. State is bytes: it goes back as it came.
type asked struct {
	ClientID      string          `json:"client_id"`
	RedirectURI   string          `json:"redirect_uri"`
	ResponseMode  string          `json:"response_mode"`
	State         []byte          `json:"state,omitempty"`
	HasState      bool            `json:"has_state,omitempty"`
	Nonce         *string         `json:"nonce,omitempty"`
	CodeChallenge string          `json:"code_challenge,omitempty"`
	Scopes        []string        `json:"scopes"`
	Claims        json.RawMessage `json:"claims,omitempty"`
	ACRs          []string        `json:"acrs,omitempty"`                  // the levels' names that were asked for
	Details       string          `json:"authorization_details,omitempty"` // a text, because JSON within JSON is not kept byte for byte
	Key           *string         `json:"dpop_jkt,omitempty"`              // that the code is bound to
	Pushed        []byte          `json:"pushed,omitempty"`                // hash of the request_uri; nil: the request came with the browser

	essential bool // the levels were demanded by the claims parameter: what acr_values wishes besides does not count
}

// authorize is the authorization endpoint, OpenID Connect Core section 3.1.2. Until client and redirect_uri are known to be
// right, errors are shown here and nowhere else.
func (p *Provider) authorize(w http.ResponseWriter, r *http.Request) {
	parameters, status, detail := readParameters(w, r)
	if status != 0 {
		p.Pages.Problem(w, r, status, "request", detail)
		return
	}
	if strings.HasPrefix(parameters.Get("request_uri"), requestURN) {
		p.authorizePushed(w, r, parameters)
		return
	}
	client, problem, err := p.addressee(r, parameters)
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	if problem != "" {
		p.Pages.Problem(w, r, http.StatusBadRequest, "client", problem)
		return
	}
	if r.Method == http.MethodPost && p.Pages.Cookie(r) == "" && p.asGet(w, authorizePath, parameters) {
		return
	}
	in := &asked{ClientID: client.ID, RedirectURI: parameters.Get("redirect_uri"), ResponseMode: "query"}
	beginning, failure := p.check(r.Context(), client, in, parameters)
	if failure == nil && (p.RequirePush || client.Registration.RequirePush) {
		failure = errInvalidRequest("push the request first")
	}
	if failure != nil {
		p.answerError(w, r, in, string(failure.ErrorType), failure.Description)
		return
	}
	progress, err := p.SignIns.Begin(r.Context(), p.Pages.Cookie(r), *beginning)
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	if progress.SignIn == nil { // silent, and nobody is signed in
		p.answerError(w, r, in, string(progress.Decision.Failure), "")
		return
	}
	p.next(w, r, progress, p.Pages.Cookie(r))
}

// next leads on from a sign-in that has begun.
func (p *Provider) next(w http.ResponseWriter, r *http.Request, progress *authn.Progress, cookie authn.Cookie) {
	if progress.Cookie != "" {
		cookie = progress.Cookie
	}
	switch err := p.Pages.Next(w, r, progress, cookie); {
	case errors.Is(err, authn.ErrSignInOver): // signed out, or the request that was pushed answered, in another tab at the same moment
		p.Pages.Problem(w, r, http.StatusGone, "page_expired", "")
	case err != nil:
		p.unavailable(w, r, err)
	}
}

// maxQuery bounds an address that a browser and what stands before this server will carry.
const maxQuery = 8 << 10

// asGet repeats a request that was posted without a cookie as a GET: a browser keeps a SameSite=Lax cookie back from a form of another site, and would
// otherwise be taken for one that nobody is signed in with. It gives false when the request is too long for an address.
func (p *Provider) asGet(w http.ResponseWriter, path string, parameters url.Values) bool {
	query := parameters.Encode()
	if len(query) > maxQuery {
		return false
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Location", path+"?"+query)
	w.WriteHeader(http.StatusSeeOther)
	return true
}

// unavailable shows that something failed here, and logs what.
func (p *Provider) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	p.Log.ErrorContext(r.Context(), "authorization request failed", "error", err)
	if postgres.Unavailable(err) {
		w.Header().Set("Retry-After", retryAfter)
		p.Pages.Problem(w, r, http.StatusServiceUnavailable, "maintenance", "")
		return
	}
	p.Pages.Problem(w, r, http.StatusInternalServerError, "fault", "")
}

// readParameters takes the query of a GET and the form of a POST: OpenID Connect Core section 3.1.2.1.
func readParameters(w http.ResponseWriter, r *http.Request) (values url.Values, status int, detail string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		values, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return nil, http.StatusBadRequest, "the query is not a form"
		}
		return values, 0, ""
	case http.MethodPost:
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/x-www-form-urlencoded" {
			return nil, http.StatusUnsupportedMediaType, "use application/x-www-form-urlencoded"
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		if err := r.ParseForm(); err != nil {
			if _, large := errors.AsType[*http.MaxBytesError](err); large {
				return nil, http.StatusRequestEntityTooLarge, "the body is too large"
			}
			return nil, http.StatusBadRequest, "the body is not a form"
		}
		return r.PostForm, 0, ""
	default:
		w.Header().Set("Allow", "GET, POST")
		return nil, http.StatusMethodNotAllowed, "use GET or POST"
	}
}

// addressee finds the client and makes sure that its redirect_uri is one of its own, byte for byte. problem is what a developer is told.
func (p *Provider) addressee(r *http.Request, parameters url.Values) (c *Client, problem string, err error) {
	for _, name := range []string{"client_id", "redirect_uri"} {
		if len(parameters[name]) > 1 {
			return nil, name + " is repeated", nil
		}
	}
	c, problem, err = p.known(r, parameters.Get("client_id"))
	if c != nil && !c.Registration.allowsRedirect(parameters.Get("redirect_uri")) {
		return nil, unknownRedirect, nil
	}
	return c, problem, err
}

const unknownRedirect = "redirect_uri is not registered for this client, byte for byte"

// known finds a client that may sign people in.
func (p *Provider) known(r *http.Request, id string) (c *Client, problem string, err error) {
	c, err = p.Clients.Get(r.Context(), id)
	if errors.Is(err, ErrNoClient) || err == nil && c.DisabledAt != nil {
		return nil, "client_id is not that of an application that may sign people in", nil
	}
	if err != nil {
		return nil, "", err
	}
	return c, "", nil
}

// check reads the rest of the request. Every error goes to the application, by its redirect_uri.
func (p *Provider) check(ctx context.Context, c *Client, in *asked, parameters url.Values) (*authn.Beginning, *zoidc.Error) {
	// How and with what state the application is answered is read first, so that errors too reach it as it asked.
	if mode := parameters.Get("response_mode"); mode != "" {
		if !slices.Contains(c.Registration.ResponseModes, mode) {
			return nil, errInvalidRequest("response_mode is not one of this client")
		}
		in.ResponseMode = mode
	}
	if in.HasState = parameters.Has("state"); in.HasState {
		state := parameters.Get("state")
		if len(state) > maxEcho {
			in.HasState = false
			return nil, errInvalidRequest("state is longer than 4096 bytes")
		}
		// A query carries every byte. A form in a page carries text, whose line ends and controls get changed on the way: HTML Standard, form submission.
		if in.ResponseMode == "form_post" && (!utf8.ValidString(state) || strings.ContainsFunc(state, unicode.IsControl)) {
			in.HasState = false
			return nil, errInvalidRequest("state is not text that form_post can carry")
		}
		in.State = []byte(state)
	}
	if repeated(parameters) {
		in.HasState = in.HasState && len(parameters["state"]) == 1
		return nil, errInvalidRequest("a parameter is repeated")
	}
	switch {
	case parameters.Has("request"):
		return nil, &zoidc.Error{ErrorType: zoidc.RequestNotSupported}
	case parameters.Has("request_uri"):
		return nil, &zoidc.Error{ErrorType: "request_uri_not_supported"}
	case parameters.Get("response_type") == "":
		return nil, errInvalidRequest("response_type is missing")
	case parameters.Get("response_type") != string(zoidc.ResponseTypeCode):
		return nil, &zoidc.Error{ErrorType: "unsupported_response_type"}
	case !c.may(zoidc.GrantTypeCode):
		return nil, &zoidc.Error{ErrorType: zoidc.UnauthorizedClient}
	}
	if e := p.checkChallenge(c, in, parameters); e != nil {
		return nil, e
	}
	if parameters.Has("nonce") {
		nonce := parameters.Get("nonce")
		if len(nonce) > maxEcho || !utf8.ValidString(nonce) || strings.ContainsRune(nonce, 0) {
			return nil, errInvalidRequest("nonce is longer than 4096 bytes or not text")
		}
		in.Nonce = &nonce
	}
	required := authn.Requirement{MaxAge: -1}
	if e := readPrompt(&required, parameters.Get("prompt")); e != nil {
		return nil, e
	}
	if parameters.Has("max_age") {
		age, err := strconv.ParseInt(parameters.Get("max_age"), 10, 32)
		if err != nil || age < 0 || strings.HasPrefix(parameters.Get("max_age"), "+") {
			return nil, errInvalidRequest("max_age is not a number of seconds")
		}
		required.MaxAge = age
	}
	in.Scopes = c.scopes(strings.Fields(parameters.Get("scope")))
	if len(in.Scopes) == 0 {
		return nil, &zoidc.Error{ErrorType: zoidc.InvalidScope, Description: "no scope that this client is registered for"}
	}
	required.Scopes = slices.Clone(in.Scopes)
	if e := p.readClaims(c, in, &required, parameters.Get("claims")); e != nil {
		return nil, e
	}
	if !in.essential { // one of those values or none: OpenID Connect Core section 5.5.1.1
		for _, name := range strings.Fields(parameters.Get("acr_values")) {
			p.askLevel(in, &required, name)
		}
	}
	if e := p.readHint(c, &required, parameters.Get("id_token_hint")); e != nil {
		return nil, e
	}
	if parameters.Has("authorization_details") {
		details, e := p.readDetails(ctx, c, parameters.Get("authorization_details"))
		if e != nil {
			return nil, e
		}
		in.Details, required.Details = string(joined(details)), details
		if required.Confirm, e = p.confirms(in, details); e != nil {
			return nil, e
		}
	}
	if parameters.Has("dpop_jkt") {
		key := parameters.Get("dpop_jkt")
		if !isThumbprint(key) {
			return nil, errInvalidRequest("dpop_jkt is not the thumbprint of a key")
		}
		in.Key = &key
	}
	payload, err := json.Marshal(in)
	if err != nil {
		return nil, &zoidc.Error{ErrorType: zoidc.ServerError}
	}
	return &authn.Beginning{
		RelyingParty: c.RelyingParty(in.RedirectURI), Requirement: required, Payload: payload,
		Locales: bounded(parameters.Get("ui_locales")), LoginHint: bounded(parameters.Get("login_hint")),
	}, nil
}

// bounded drops what is too long to be what it says, or no text: it is a convenience, never an error.
func bounded(s string) string {
	if len(s) > 320 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' }) {
		return ""
	}
	return s
}

// checkChallenge demands PKCE with S256: RFC 7636 section 4.3, RFC 9700 section 2.1.1.
func (p *Provider) checkChallenge(c *Client, in *asked, parameters url.Values) *zoidc.Error {
	in.CodeChallenge = parameters.Get("code_challenge")
	switch {
	case in.CodeChallenge == "" && !parameters.Has("code_challenge") && !parameters.Has("code_challenge_method") && p.noPKCE(c):
		return nil
	case in.CodeChallenge == "":
		return errInvalidRequest("code_challenge is missing")
	case parameters.Get("code_challenge_method") != string(zoidc.CodeChallengeMethodS256):
		return errInvalidRequest("code_challenge_method has to be S256")
	case !isCodeVerifier(in.CodeChallenge): // the same alphabet and bounds
		return errInvalidRequest("code_challenge is not one of S256")
	}
	return nil
}

func readPrompt(required *authn.Requirement, prompt string) *zoidc.Error {
	values := strings.Fields(prompt)
	for _, value := range values {
		switch value {
		case "none":
			if len(values) > 1 {
				return errInvalidRequest("prompt=none stands alone")
			}
			required.Silent = true
		case "login", "select_account": // a session has one account to select, whose owner confirms it; not advertised, because another person has to sign out first
			required.Fresh = true
		case "consent":
			required.Consent = true
		default:
			return errInvalidRequest("prompt has a value that is not known")
		}
	}
	return nil
}

// claimsRequest is the claims parameter, OpenID Connect Core section 5.5.
type claimsRequest struct {
	UserInfo map[string]*claimRequest `json:"userinfo"`
	IDToken  map[string]*claimRequest `json:"id_token"`
}

type claimRequest struct {
	Essential bool  `json:"essential"`
	Value     any   `json:"value"`
	Values    []any `json:"values"`
}

// within keeps the claims of a profile that scopes bring as well, by their names alone. A claim is the same to a person however it was asked for, so that
// an application gets none by name that it could not have by scope.
func (r claimsRequest) within(scopes []string) claimsRequest {
	keep := func(all map[string]*claimRequest) map[string]*claimRequest {
		kept := map[string]*claimRequest{}
		for name := range all {
			if slices.Contains(scopes, scopeOf(name)) {
				kept[name] = nil
			}
		}
		return kept
	}
	return claimsRequest{UserInfo: keep(r.UserInfo), IDToken: keep(r.IDToken)}
}

// scopes lists, in the order of [Scopes], those that the claims belong to.
func (r claimsRequest) scopes() (covering []string) {
	for _, scope := range Scopes() {
		if slices.ContainsFunc(scopeClaims(scope), func(name string) bool {
			_, user := r.UserInfo[name]
			_, token := r.IDToken[name]
			return user || token
		}) {
			covering = append(covering, scope)
		}
	}
	return covering
}

func (p *Provider) readClaims(c *Client, in *asked, required *authn.Requirement, raw string) *zoidc.Error {
	if raw == "" {
		return nil
	}
	var claims claimsRequest
	if len(raw) > maxEcho || !utf8.ValidString(raw) || json.Unmarshal([]byte(raw), &claims) != nil {
		return errInvalidRequest("claims is not the object of OpenID Connect Core section 5.5")
	}
	kept := claims.within(c.Registration.Scopes)
	for _, scope := range kept.scopes() {
		if !slices.Contains(required.Scopes, scope) {
			required.Scopes = append(required.Scopes, scope)
		}
	}
	var err error
	if in.Claims, err = json.Marshal(kept); err != nil {
		return &zoidc.Error{ErrorType: zoidc.ServerError}
	}
	if acr := claims.IDToken["acr"]; acr != nil {
		names := acr.Values
		if acr.Value != nil {
			names = append(names, acr.Value)
		}
		for _, name := range names {
			text, _ := name.(string)
			p.askLevel(in, required, text)
		}
		in.essential = acr.Essential && len(names) > 0
		required.Unmeetable = in.essential && len(required.Levels) == 0
	}
	if sub := claims.IDToken["sub"]; sub != nil && sub.Value != nil {
		text, ok := sub.Value.(string)
		if !ok || text == "" || strings.ContainsRune(text, 0) {
			return errInvalidRequest("claims asks for a sub that is not text")
		}
		required.Subject = text
	}
	return nil
}

// askLevel adds a level by its name. Names that nobody knows are voluntary wishes that cannot be met: OpenID Connect Core section 3.1.2.1.
func (p *Provider) askLevel(in *asked, required *authn.Requirement, name string) {
	if level, ok := p.Levels.Level(name); ok && !slices.Contains(required.Levels, level) {
		required.Levels = append(required.Levels, level)
		in.ACRs = append(in.ACRs, name)
	}
}

func (p *Provider) readHint(c *Client, required *authn.Requirement, raw string) *zoidc.Error {
	if raw == "" {
		return nil
	}
	claims, err := p.hint(raw)
	if err != nil || claims.Audience[0] != c.ID || required.Subject != "" && required.Subject != claims.Subject {
		return errInvalidRequest("id_token_hint is not an ID Token that this client was given")
	}
	required.Subject = claims.Subject
	return nil
}
