package oidc

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	zoidc "github.com/zitadel/oidc/v3/pkg/oidc"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/internal/payment"
)

// Registration is what an application registered, in the words of OpenID Connect Dynamic Client Registration 1.0 section 2.
type Registration struct {
	Name                   string              `json:"client_name"`
	HomeURI                string              `json:"client_uri,omitempty"`
	ApplicationType        string              `json:"application_type"` // "web" (default) or "native"
	RedirectURIs           []string            `json:"redirect_uris,omitempty"`
	PostLogoutRedirectURIs []string            `json:"post_logout_redirect_uris,omitempty"`
	AuthMethod             zoidc.AuthMethod    `json:"token_endpoint_auth_method"` // client_secret_basic (default), client_secret_post, private_key_jwt, none
	Keys                   *jose.JSONWebKeySet `json:"jwks,omitempty"`             // with private_key_jwt
	GrantTypes             []zoidc.GrantType   `json:"grant_types"`                // default authorization_code
	ResponseModes          []string            `json:"response_modes"`             // default query and form_post
	Scopes                 []string            `json:"scopes"`                     // default all of [Scopes]
	IDTokenAlg             string              `json:"id_token_signed_response_alg"`
	AccessTokenFormat      string              `json:"access_token_format"` // "jwt" (default) or "opaque"

	// RequirePush lets it ask by pushed requests alone, RFC 9126 section 6.
	RequirePush bool `json:"require_pushed_authorization_requests,omitempty"`
	// DPoPBound has every token of it bound to a key, RFC 9449 section 5.2.
	DPoPBound bool `json:"dpop_bound_access_tokens,omitempty"`
	// DetailTypes are the types of authorization_details that it may ask for, RFC 9396 section 10; default none.
	DetailTypes []string `json:"authorization_details_types,omitempty"`
	// DeliveryMode says how it learns of answers to what it asks in the background, CIBA Core 1.0 section 4: "poll" (default) or "ping".
	DeliveryMode string `json:"backchannel_token_delivery_mode,omitempty"`
	// NotificationEndpoint is where it is told, with ping.
	NotificationEndpoint string `json:"backchannel_client_notification_endpoint,omitempty"`
	// RequestAlg has it sign these requests, with this algorithm: ES256, PS256 or EdDSA. Profile fapi2 has it sign them in any case.
	RequestAlg string `json:"backchannel_authentication_request_signing_alg,omitempty"`
	// Profile "fapi2" holds it to the FAPI 2.0 Security Profile: see [Registration.Validate].
	Profile string `json:"profile,omitempty"`
	// PaymentAccount has the tighter limits hold at it, of Regulation (EU) 2018/389 Art. 4(3).
	PaymentAccount bool `json:"payment_account,omitempty"`
	// SupportPhone is the number that people call about it, as they read it: pages on which payments are confirmed show it.
	SupportPhone string `json:"support_phone,omitempty"`

	// FirstParty applications are the operator's own: consent is not asked.
	FirstParty bool `json:"first_party,omitempty"`
	// Floor is the least level of every sign-in to it; empty: the operator's policy.
	Floor authn.Level `json:"floor,omitempty"`
	// AndroidAppHash, eleven characters, ends the texts of a native application that reads them itself (SMS Retriever API).
	AndroidAppHash string `json:"android_app_hash,omitempty"`
	// AllowHTTP lets redirects go to plain http on any host. For development alone; the program refuses it under an https issuer.
	AllowHTTP bool `json:"allow_http,omitempty"`
}

// ProfileFAPI2 is the FAPI 2.0 Security Profile.
const ProfileFAPI2 = "fapi2"

// androidAppHash is the form of an app's hash.
var androidAppHash = regexp.MustCompile(`^[A-Za-z0-9+/]{11}$`)

// supportPhone is what people can dial: it is shown, and never parsed.
var supportPhone = regexp.MustCompile(`^\+?[0-9][0-9 ()/-]{1,28}[0-9]$`)

// Scopes that applications can be registered for.
func Scopes() []string {
	return []string{zoidc.ScopeOpenID, zoidc.ScopeProfile, zoidc.ScopeEmail, zoidc.ScopeAddress, zoidc.ScopePhone, zoidc.ScopeOfflineAccess}
}

// idTokenAlgs are the algorithms that ID Tokens can be signed with; the first is the default.
var idTokenAlgs = []string{string(jose.RS256), string(jose.ES256), string(jose.EdDSA)}

// assertionAlgs are those that client assertions may be signed with.
var assertionAlgs = []jose.SignatureAlgorithm{jose.PS256, jose.ES256, jose.EdDSA, jose.RS256}

// ErrPlainHTTP says that a redirect goes to plain http. Use https, or during development Registration.AllowHTTP.
var ErrPlainHTTP = errors.New("is plain http")

// Complete fills in defaults.
func (r *Registration) Complete() {
	setDefault(&r.ApplicationType, "web")
	if r.Profile == ProfileFAPI2 {
		setDefault(&r.AuthMethod, zoidc.AuthMethodPrivateKeyJWT)
		setDefault(&r.IDTokenAlg, string(jose.ES256))
	}
	setDefault(&r.AuthMethod, zoidc.AuthMethodBasic)
	setDefault(&r.IDTokenAlg, idTokenAlgs[0])
	setDefault(&r.AccessTokenFormat, "jwt")
	if r.GrantTypes == nil {
		r.GrantTypes = []zoidc.GrantType{zoidc.GrantTypeCode}
	}
	if r.ResponseModes == nil {
		r.ResponseModes = []string{"query", "form_post"}
	}
	if r.Scopes == nil {
		r.Scopes = Scopes()
	}
	if slices.Contains(r.GrantTypes, GrantTypeCIBA) {
		setDefault(&r.DeliveryMode, DeliveryPoll)
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Validate finds everything that is wrong with the registration, each with what to do about it.
func (r *Registration) Validate() error {
	var problems []error
	complain := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if r.AndroidAppHash != "" && (r.ApplicationType != "native" || !androidAppHash.MatchString(r.AndroidAppHash)) {
		complain("android_app_hash is for native applications and has eleven characters: see the SMS Retriever API")
	}
	if name, visible := payment.Visible(r.Name); !visible || name == "" || len(r.Name) > 100 { // it stands in sentences, texts and evidence
		complain("client_name: give a name of 1 to 100 characters, as people will read it")
	}
	if r.SupportPhone != "" && !supportPhone.MatchString(r.SupportPhone) {
		complain("support_phone: give a telephone number as people read it, as +44 20 7946 0000")
	}
	if r.HomeURI != "" && !isWebURI(r.HomeURI, r.AllowHTTP) {
		complain("client_uri: give an https URL, or leave it out")
	}
	if !slices.Contains([]string{"web", "native"}, r.ApplicationType) {
		complain("application_type: use web or native")
	}
	codeFlow := slices.Contains(r.GrantTypes, zoidc.GrantTypeCode)
	if codeFlow && len(r.RedirectURIs) == 0 {
		complain("redirect_uris: name at least one address that the code flow answers to")
	}
	for _, uri := range r.RedirectURIs {
		if err := r.checkRedirect(uri); err != nil {
			complain("redirect_uris: %w", err)
		}
	}
	for _, uri := range r.PostLogoutRedirectURIs {
		if err := r.checkRedirect(uri); err != nil {
			complain("post_logout_redirect_uris: %w", err)
		}
	}
	switch r.AuthMethod {
	case zoidc.AuthMethodBasic, zoidc.AuthMethodPost:
	case zoidc.AuthMethodNone:
		if slices.Contains(r.GrantTypes, zoidc.GrantTypeClientCredentials) {
			complain("grant_types: client_credentials needs a client that can authenticate")
		}
	case zoidc.AuthMethodPrivateKeyJWT:
		if err := checkKeys(r.Keys); err != nil {
			complain("jwks: %s", err)
		}
	default:
		complain("token_endpoint_auth_method: use client_secret_basic, client_secret_post, private_key_jwt or none")
	}
	for _, grant := range r.GrantTypes {
		if !slices.Contains(grantTypes(), grant) {
			complain("grant_types: use authorization_code, refresh_token, client_credentials or %s", GrantTypeCIBA)
		}
	}
	for _, mode := range r.ResponseModes {
		if mode != "query" && mode != "form_post" {
			complain("response_modes: use query or form_post")
		}
	}
	for _, scope := range r.Scopes {
		if !isScopeToken(scope) {
			complain("scopes: %q is not a scope-token of RFC 6749 section 3.3", scope)
		}
	}
	if !slices.Contains(idTokenAlgs, r.IDTokenAlg) {
		complain("id_token_signed_response_alg: use RS256, ES256 or EdDSA")
	}
	if r.AccessTokenFormat != "jwt" && r.AccessTokenFormat != "opaque" {
		complain("access_token_format: use jwt or opaque")
	}
	for _, name := range r.DetailTypes {
		if !isScopeToken(name) {
			complain("authorization_details_types: %q is not a name without spaces", name)
		}
	}
	r.validateBackchannel(complain)
	switch r.Profile {
	case "":
	case ProfileFAPI2:
		r.validateFAPI2(complain)
	default:
		complain("profile: use fapi2, or leave it out")
	}
	return errors.Join(problems...)
}

// validateBackchannel finds what is wrong with how it asks in the background.
func (r *Registration) validateBackchannel(complain func(format string, args ...any)) {
	if !slices.Contains(r.GrantTypes, GrantTypeCIBA) {
		if r.DeliveryMode != "" || r.NotificationEndpoint != "" || r.RequestAlg != "" {
			complain("backchannel_token_delivery_mode: it means nothing without the grant type %s", GrantTypeCIBA)
		}
		return
	}
	if r.AuthMethod == zoidc.AuthMethodNone {
		complain("grant_types: %s needs a client that can authenticate", GrantTypeCIBA)
	}
	switch {
	case r.DeliveryMode != DeliveryPoll && r.DeliveryMode != DeliveryPing:
		complain("backchannel_token_delivery_mode: use poll or ping")
	case r.DeliveryMode == DeliveryPoll && r.NotificationEndpoint != "":
		complain("backchannel_client_notification_endpoint: nobody calls it without ping")
	case r.DeliveryMode == DeliveryPing && (!isWebURI(r.NotificationEndpoint, r.AllowHTTP) || strings.Contains(r.NotificationEndpoint, "#")):
		complain("backchannel_client_notification_endpoint: ping needs an https URL")
	}
	if r.RequestAlg != "" && (!slices.Contains(requestAlgs, jose.SignatureAlgorithm(r.RequestAlg)) || r.Keys == nil) {
		complain("backchannel_authentication_request_signing_alg: use ES256, PS256 or EdDSA, and give jwks")
	}
}

// validateFAPI2 finds what the FAPI 2.0 Security Profile forbids. That the code lives 60 s at most, that PKCE with S256 is demanded and iss is in every answer
// holds for every client.
func (r *Registration) validateFAPI2(complain func(format string, args ...any)) {
	if r.AuthMethod != zoidc.AuthMethodPrivateKeyJWT {
		complain("token_endpoint_auth_method: profile fapi2 needs private_key_jwt (section 5.3.2.1; tls_client_auth is not offered)")
	}
	if r.Keys != nil {
		for _, key := range r.Keys.Keys {
			if !fapiKey(&key) {
				complain("jwks: profile fapi2 takes keys for ES256 (P-256), PS256 (RSA of 2048 bits or more) and EdDSA (Ed25519) alone (section 5.4)")
				break
			}
		}
	}
	if !r.RequirePush {
		complain("require_pushed_authorization_requests: profile fapi2 needs pushed requests (section 5.3.2.2)")
	}
	if !r.DPoPBound {
		complain("dpop_bound_access_tokens: profile fapi2 needs tokens that are bound to a key (section 5.3.2.1)")
	}
	if r.IDTokenAlg == string(jose.RS256) {
		complain("id_token_signed_response_alg: profile fapi2 needs ES256 or EdDSA (section 5.4)")
	}
	if r.AllowHTTP {
		complain("allow_http: profile fapi2 needs https (section 5.2)")
	}
	for _, uri := range append(slices.Clone(r.RedirectURIs), r.PostLogoutRedirectURIs...) {
		if !strings.HasPrefix(uri, "https://") {
			complain("redirect_uris: profile fapi2 needs https, which %q is not (section 5.3.2.2)", uri)
		}
	}
}

// fapiKey reports whether a key signs with an algorithm of FAPI 2.0 Security Profile section 5.4.
func fapiKey(key *jose.JSONWebKey) bool {
	alg := ""
	switch k := key.Key.(type) {
	case *rsa.PublicKey:
		alg = string(jose.PS256)
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			alg = string(jose.ES256)
		}
	case ed25519.PublicKey:
		alg = string(jose.EdDSA)
	}
	return alg != "" && (key.Algorithm == "" || key.Algorithm == alg)
}

func grantTypes() []zoidc.GrantType {
	return []zoidc.GrantType{zoidc.GrantTypeCode, zoidc.GrantTypeRefreshToken, zoidc.GrantTypeClientCredentials, GrantTypeCIBA}
}

// checkRedirect refuses addresses that a browser must not be sent to: RFC 9700 section 4.1, RFC 8252 sections 7 and 8.
func (r *Registration) checkRedirect(uri string) error {
	u, err := url.Parse(uri)
	switch {
	case err != nil || u.Scheme == "" || strings.ContainsFunc(uri, func(c rune) bool { return c <= ' ' || c > '~' }):
		return fmt.Errorf("%q is not an absolute URI", uri)
	case u.Fragment != "" || strings.Contains(uri, "#"):
		return fmt.Errorf("%q has a fragment: remove it", uri)
	case u.User != nil:
		return fmt.Errorf("%q has a user name: remove it", uri)
	case u.Scheme == "https" && u.Host != "":
		return nil
	case u.Scheme == "http" && (r.AllowHTTP || isLoopback(u) && r.ApplicationType == "native"):
		return nil
	case u.Scheme == "http":
		return fmt.Errorf("%q %w", uri, ErrPlainHTTP)
	case r.ApplicationType == "native" && strings.Contains(u.Scheme, "."): // RFC 8252 section 7.1: a reversed domain name
		return nil
	default:
		return fmt.Errorf("%q: use https, or for a native application a scheme that is a reversed domain name", uri)
	}
}

func isWebURI(uri string, allowHTTP bool) bool {
	u, err := url.Parse(uri)
	return err == nil && u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && allowHTTP)
}

// isLoopback reports a literal loopback address: RFC 8252 section 7.3; a name could be made to lead elsewhere.
func isLoopback(u *url.URL) bool {
	addr, err := netip.ParseAddr(u.Hostname())
	return err == nil && addr.IsLoopback()
}

func isScopeToken(s string) bool {
	return s != "" && len(s) <= 100 && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' })
}

// Bounds on the RSA keys of clients, in bits: RFC 7518 section 3.3 for the least; a larger key only makes its verification slow.
const (
	minRSA = 2048
	maxRSA = 8192
)

func checkKeys(keys *jose.JSONWebKeySet) error {
	if keys == nil || len(keys.Keys) == 0 {
		return errors.New("private_key_jwt needs the client's public keys")
	}
	for _, key := range keys.Keys {
		if !key.Valid() || !key.IsPublic() {
			return errors.New("give valid public keys; a private key must never leave the client")
		}
		if modulus, ok := key.Key.(*rsa.PublicKey); ok && (modulus.N.BitLen() < minRSA || modulus.N.BitLen() > maxRSA) {
			return fmt.Errorf("an RSA key has %d bits: use %d to %d", modulus.N.BitLen(), minRSA, maxRSA)
		}
	}
	return nil
}

// allowsRedirect compares uri byte for byte with what is registered. The only liberty is the port of a native application's loopback address: RFC 8252 section 7.3.
func (r *Registration) allowsRedirect(uri string) bool {
	if slices.Contains(r.RedirectURIs, uri) {
		return true
	}
	if r.ApplicationType != "native" {
		return false
	}
	for _, registered := range r.RedirectURIs {
		if withoutPort, ok := loopbackWithoutPort(registered); ok {
			if asked, ok := loopbackWithoutPort(uri); ok && asked == withoutPort {
				return true
			}
		}
	}
	return false
}

// loopbackWithoutPort cuts the port out of the text of a loopback redirect, leaving every other byte as it is.
func loopbackWithoutPort(uri string) (string, bool) {
	for _, prefix := range []string{"http://127.0.0.1", "http://[::1]"} {
		rest, ok := strings.CutPrefix(uri, prefix)
		if !ok {
			continue
		}
		if port, ok := strings.CutPrefix(rest, ":"); ok {
			digits := strings.TrimLeft(port, "0123456789")
			if n := len(port) - len(digits); n == 0 || n > 5 {
				return "", false
			}
			rest = digits
		}
		if rest == "" || strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "?") {
			return prefix + rest, true
		}
	}
	return "", false
}

// origin is what a page's form-action must allow so that the browser may be sent to uri.
func origin(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return ""
	}
	if u.Scheme == "https" || u.Scheme == "http" {
		return u.Scheme + "://" + u.Host
	}
	return u.Scheme + ":"
}

// Client is a registered application.
type Client struct {
	ID           string
	Registration Registration
	SecretHash   []byte
	CreatedAt    time.Time
	UpdatedAt    time.Time
	DisabledAt   *time.Time
}

func (c *Client) public() bool { return c.Registration.AuthMethod == zoidc.AuthMethodNone }

// HasSecret reports whether secret is the client's.
func (c *Client) HasSecret(secret string) bool {
	return len(c.SecretHash) > 0 && subtle.ConstantTimeCompare(hashed(secret), c.SecretHash) == 1
}

func (c *Client) may(grant zoidc.GrantType) bool {
	return slices.Contains(c.Registration.GrantTypes, grant)
}

// scopes keeps of those asked for the ones that the client is registered for, each once, in order. Without the grant that redeems refresh tokens
// offline_access would be a promise that nobody keeps (OpenID Connect Core section 11).
func (c *Client) scopes(asked []string) []string {
	kept := []string{}
	for _, scope := range asked {
		if scope == zoidc.ScopeOfflineAccess && !c.may(zoidc.GrantTypeRefreshToken) {
			continue
		}
		if slices.Contains(c.Registration.Scopes, scope) && !slices.Contains(kept, scope) {
			kept = append(kept, scope)
		}
	}
	return kept
}

// RelyingParty is what pages and policy know of the client when it is answered at redirectURI.
func (c *Client) RelyingParty(redirectURI string) authn.RelyingParty {
	return authn.RelyingParty{ID: c.ID, Name: c.Registration.Name, HomeURI: c.Registration.HomeURI, Origin: origin(redirectURI),
		FirstParty: c.Registration.FirstParty, Floor: c.Registration.Floor, AppHash: c.Registration.AndroidAppHash,
		PaymentAccount: c.Registration.PaymentAccount, Phone: c.Registration.SupportPhone}
}

// Requirement is that of an authorization request for these scopes and acr values and nothing else.
func (c *Client) Requirement(names authn.LevelNames, scopes, acrs []string) authn.Requirement {
	required := authn.Requirement{MaxAge: -1, Scopes: c.scopes(scopes)}
	for _, acr := range acrs {
		if level, ok := names.Level(acr); ok && !slices.Contains(required.Levels, level) {
			required.Levels = append(required.Levels, level)
		}
	}
	return required
}
