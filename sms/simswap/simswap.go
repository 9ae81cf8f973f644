// Package simswap asks mobile networks whether the SIM of a number was changed lately: whoever has had a number moved to a SIM of their own reads the texts to it.
//
// The shape is that of the CAMARA project's SIM Swap API, which networks and those who bundle them offer (GSMA Open Gateway):
//
//	POST URL/check  {"phoneNumber":"+…","maxAge":hours}  →  {"swapped":true}
//
// with an access token that the client credentials grant gives (RFC 6749, 4.4), scope sim-swap:check. Tokens are kept until they expire. URL has the
// version in it, as https://network.example/sim-swap/v2.
//
// Checked here: the answer is JSON of that shape, of a bounded size and within a bounded time; redirects are not followed. Verified against the simulator of
// package carriersim, and against no network yet. Networks that allow the look-up only with a token that the phone's own connection gave
// (the three-legged flow) cannot be asked: the number's holder is not there.
package simswap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/watchword-auth/watchword/sms"
)

// Config of a look-up.
type Config struct {
	// URL of the API, with its version, and TokenURL of the authorization server. https, but for loopback.
	URL, TokenURL string
	// ClientID and Secret that tokens are asked for with.
	ClientID, Secret string
	// Scope of the token. Default sim-swap:check.
	Scope string
	// MaxAge is how long a change counts as recent, in whole hours. Default 72 h, from 1 h to 2400 h, which the API takes.
	MaxAge time.Duration
	// Open lets texts pass when nobody can tell. Default no.
	Open bool
	// Timeout of one look-up, the token included. Default 2 s.
	Timeout time.Duration
	// Transport to use. Nil: that of net/http.
	Transport http.RoundTripper
}

// Bounds of a look-up.
const (
	MaxAge         = 2400 * time.Hour
	DefaultMaxAge  = 72 * time.Hour
	DefaultTimeout = 2 * time.Second
	maxAnswer      = 16 << 10
)

// Lookup is safe for concurrent use.
type Lookup struct {
	check  string
	hours  int
	open   bool
	client *http.Client
	limit  time.Duration
}

// New makes a look-up. It calls nobody.
func New(c Config) (*Lookup, error) {
	if c.Scope == "" {
		c.Scope = "sim-swap:check"
	}
	if c.MaxAge == 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	switch {
	case c.MaxAge < time.Hour || c.MaxAge > MaxAge || c.MaxAge%time.Hour != 0:
		return nil, fmt.Errorf("simswap: an age of %s: want whole hours from 1 to %d", c.MaxAge, int(MaxAge.Hours()))
	case c.ClientID == "" || c.Secret == "":
		return nil, errors.New("simswap: client id and secret are needed")
	}
	for _, address := range []string{c.URL, c.TokenURL} {
		if err := secure(address); err != nil {
			return nil, err
		}
	}
	base := c.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	// The grant is asked for in the body's context of the look-up that needs it; the library keeps the token for those after it.
	granting := context.WithValue(context.Background(), oauth2.HTTPClient, &http.Client{Transport: base, Timeout: c.Timeout, CheckRedirect: stay})
	grant := clientcredentials.Config{ClientID: c.ClientID, ClientSecret: c.Secret, TokenURL: c.TokenURL, Scopes: []string{c.Scope}}
	return &Lookup{
		check: strings.TrimSuffix(c.URL, "/") + "/check", hours: int(c.MaxAge.Hours()), open: c.Open, limit: c.Timeout,
		client: &http.Client{Transport: &oauth2.Transport{Source: grant.TokenSource(granting), Base: base}, CheckRedirect: stay},
	}, nil
}

func secure(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return fmt.Errorf("simswap: %q is not a web address", address)
	}
	host := u.Hostname()
	if u.Scheme != "https" && (u.Scheme != "http" || host != "localhost" && host != "127.0.0.1" && host != "::1") {
		return fmt.Errorf("simswap: %q is not https", address)
	}
	return nil
}

// Hold reports whether texts to the number are not to be trusted: its SIM was changed lately, or nobody can tell (err says why) and the operator wants them held then.
func (l *Lookup) Hold(ctx context.Context, number sms.Number) (hold bool, err error) {
	swapped, err := l.Swapped(ctx, number)
	if err != nil {
		return !l.open, err
	}
	return swapped, nil
}

// Swapped reports whether the number's SIM was changed within Config.MaxAge.
func (l *Lookup) Swapped(ctx context.Context, number sms.Number) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, l.limit)
	defer cancel()
	body, err := json.Marshal(map[string]any{"phoneNumber": number.Reveal(), "maxAge": l.hours})
	if err != nil {
		return false, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.check, bytes.NewReader(body))
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	resp, err := l.client.Do(r)
	if err != nil {
		return false, fmt.Errorf("simswap: %w", plain(err))
	}
	defer resp.Body.Close() //nolint:errcheck // read as far as it was wanted
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return false, fmt.Errorf("simswap: %w", plain(err))
	}
	var answer struct {
		Swapped *bool  `json:"swapped"`
		Code    string `json:"code"`
	}
	bad := json.Unmarshal(data, &answer)
	switch {
	case resp.StatusCode != http.StatusOK:
		return false, fmt.Errorf("simswap: status %d %s", resp.StatusCode, word(answer.Code))
	case len(data) > maxAnswer || bad != nil || answer.Swapped == nil:
		return false, errors.New("simswap: the answer does not say whether")
	}
	return *answer.Swapped, nil
}

// plain is an error without the address and the body that libraries put into theirs: those of the token endpoint can hold what was sent.
func plain(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		status := 0
		if refused.Response != nil {
			status = refused.Response.StatusCode
		}
		return fmt.Errorf("no access token: status %d %s", status, word(refused.ErrorCode))
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		return wrapped.Err
	}
	return err
}

// word is an error code of somebody else's, if it looks like one.
func word(code string) string {
	const most = 64
	if len(code) > most || strings.ContainsFunc(code, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '.'
	}) {
		return ""
	}
	return code
}
