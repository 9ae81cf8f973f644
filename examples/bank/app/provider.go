package app

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/oauth2"
)

// provider is what the bank knows of Watchword: where its endpoints are, and how to prove to it who asks.
type provider struct {
	*oidc.Provider
	cfg      Config
	metadata struct {
		Push       string `json:"pushed_authorization_request_endpoint"`
		Token      string `json:"token_endpoint"`
		Keys       string `json:"jwks_uri"`
		Authorize  string `json:"authorization_endpoint"`
		Background string `json:"backchannel_authentication_endpoint"`
	}
}

func discover(ctx context.Context, cfg Config) (*provider, error) {
	found, err := oidc.NewProvider(context.WithoutCancel(ctx), cfg.Issuer)
	if err != nil {
		return nil, fmt.Errorf("the issuer %s does not answer: %w", cfg.Issuer, err)
	}
	p := &provider{Provider: found, cfg: cfg}
	return p, found.Claims(&p.metadata)
}

// name is what to call a customer who has just signed in.
func (p *provider) name(ctx context.Context, claims *idClaims) (string, error) {
	info, err := p.UserInfo(ctx, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: claims.access}))
	if err != nil {
		return "", err
	}
	if info.Subject != claims.Subject {
		return "", errors.New("UserInfo is about somebody else")
	}
	var of struct {
		Name     string `json:"name"`
		UserName string `json:"preferred_username"`
	}
	err = info.Claims(&of)
	return cmp.Or(of.Name, of.UserName, info.Subject), err
}

// assertion proves who asks: RFC 7523, private_key_jwt. Each is good for one request.
func (p *provider) assertion() (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: p.cfg.Key}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", err
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{"iss": p.cfg.ClientID, "sub": p.cfg.ClientID, "aud": p.cfg.Issuer, "jti": rand.Text(), "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

// refusal is an error of OAuth 2.0 or of the API.
type refusal struct {
	Code        string `json:"error"`
	Description string `json:"error_description"`
	Title       string `json:"title"`
	Detail      string `json:"detail"`
	Problem     string `json:"code"`
	Errors      []struct {
		Pointer string `json:"pointer"`
		Message string `json:"message"`
	} `json:"errors"`
	AttemptsLeft int `json:"attempts_left"`
	Status       int `json:"-"`
}

func (r *refusal) Error() string {
	words := []string{r.Code, r.Description, r.Problem, r.Title, r.Detail}
	for _, e := range r.Errors {
		words = append(words, e.Pointer, e.Message)
	}
	return strings.Join(strings.Fields(strings.Join(words, " ")), " ")
}

// post sends a form as the bank, and reads the answer.
func (p *provider) post(ctx context.Context, endpoint string, form url.Values, into any) error {
	assertion, err := p.assertion()
	if err != nil {
		return err
	}
	form.Set("client_id", p.cfg.ClientID)
	form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
	form.Set("client_assertion", assertion)
	return p.send(ctx, http.MethodPost, endpoint, "application/x-www-form-urlencoded", strings.NewReader(form.Encode()), "", into)
}

// call asks the API, with an access token of the bank's own.
func (p *provider) call(ctx context.Context, method, path string, body, into any, header ...string) error {
	var token struct {
		AccessToken string `json:"access_token"`
	}
	if err := p.post(ctx, p.metadata.Token, url.Values{"grant_type": {"client_credentials"}, "scope": {"transactions"}}, &token); err != nil {
		return err
	}
	var data []byte
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			return err
		}
	}
	return p.send(ctx, method, p.cfg.Issuer+path, "application/json", bytes.NewReader(data), token.AccessToken, into, header...)
}

func (p *provider) send(ctx context.Context, method, target, kind string, body io.Reader, token string, into any, header ...string) error {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Timeout: 35 * time.Second} // polls are held for up to 30: CIBA Core 1.0 section 10.1
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return err
	}
	if res.StatusCode >= 400 {
		refused := &refusal{Status: res.StatusCode}
		if json.Unmarshal(data, refused) != nil || refused.Error() == "" {
			refused.Code = res.Status
		}
		return refused
	}
	return json.Unmarshal(data, into)
}

// evidence is what a signed result says, once it has been checked.
type evidence struct {
	Issuer      string          `json:"iss"`
	Audience    string          `json:"aud"`
	Subject     string          `json:"sub"`
	ID          string          `json:"jti"`
	IssuedAt    int64           `json:"iat"`
	Expires     int64           `json:"exp"`
	Transaction string          `json:"txn"`
	SHA256      string          `json:"transaction_sha256"`
	Record      json.RawMessage `json:"transaction"`
	Status      string          `json:"status"`
	ACR         string          `json:"acr"`
	AMR         []string        `json:"amr"`
	AuthTime    int64           `json:"auth_time"`
	Shown       []struct {
		Channel  string `json:"channel"`
		Text     string `json:"text"`
		Locale   string `json:"locale"`
		Template string `json:"template"`
	} `json:"shown"`
}

// record is the payment as Watchword stored it.
type record struct {
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
	Payees   []struct {
		Name string `json:"name"`
		IBAN string `json:"iban"`
	} `json:"payees"`
	Reference string `json:"reference"`
}

// check makes sure that a signed result is one, for this bank, not too old, of the transaction that was asked about and of its customer, and of exactly this payment. Whoever skips any of it may execute what nobody approved.
func (p *provider) check(ctx context.Context, token string, want *payment) (*evidence, error) {
	header, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil || header.Signatures[0].Protected.ExtraHeaders[jose.HeaderType] != "txn-receipt+jwt" {
		return nil, errors.New("the result is not a signed result")
	}
	payload, err := oidc.NewRemoteKeySet(ctx, p.metadata.Keys).VerifySignature(ctx, token)
	if err != nil {
		return nil, fmt.Errorf("the result is not signed by the issuer: %w", err)
	}
	e, r := new(evidence), record{}
	if err := json.Unmarshal(payload, e); err != nil {
		return nil, err
	}
	canonical := jsontext.Value(bytes.Clone(e.Record))
	if err := errors.Join(json.Unmarshal(e.Record, &r), canonical.Canonicalize()); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(canonical)
	switch {
	case e.Issuer != p.cfg.Issuer || e.Audience != p.cfg.ClientID:
		return nil, errors.New("the result is for somebody else")
	case e.Status != "approved":
		return nil, errors.New("the result is no approval")
	case e.Subject != want.customer || e.Transaction != want.Transaction:
		return nil, errors.New("the result is of another transaction, or of another customer's")
	case time.Now().After(time.Unix(e.Expires, 0)):
		return nil, errors.New("the result is too old to act upon")
	case e.SHA256 != base64.RawURLEncoding.EncodeToString(sum[:]):
		return nil, errors.New("the result does not fit its record")
	case r.Amount != want.Amount || r.Currency != want.Currency || len(r.Payees) != 1 || r.Payees[0].Name != want.Payee || r.Payees[0].IBAN != want.IBAN || r.Reference != want.Reference:
		return nil, errors.New("the customer approved another payment")
	}
	return e, nil
}
