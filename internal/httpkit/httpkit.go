// Package httpkit is what stands in front of every handler: it names the request, finds the caller's address, bounds what may be sent,
// and turns a panic into an answer.
package httpkit

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"github.com/watchword-auth/watchword/internal/audit"
)

// Trust says which of the hops before this server set the forwarding header. The zero value trusts none.
type Trust struct {
	// Proxies are the addresses of the operator's own proxies.
	Proxies []netip.Prefix
}

// Source finds the address that counts for limits. It walks X-Forwarded-For from the right as long as hops are the operator's own
// proxies; whatever a stranger wrote to the left of that is not looked at. An entry that cannot be parsed ends the walk at the
// last good hop: it never disables a limit.
func (t Trust) Source(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && t.trusts(addr); i-- {
		next, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		addr = next
	}
	return addr.Unmap().WithZone("")
}

func (t Trust) trusts(addr netip.Addr) bool {
	for _, p := range t.Proxies {
		if p.Contains(addr.Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// Identify gives every request an id and its source, which audit records and logs repeat. The id is told in X-Request-Id.
func Identify(trust Trust, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := "req_" + strings.ToLower(rand.Text())
		w.Header().Set("X-Request-Id", id)
		next.ServeHTTP(w, r.WithContext(audit.With(r.Context(), audit.Context{Source: trust.Source(r), RequestID: id, Agent: r.UserAgent()})))
	})
}

// Recover answers a panic with failed and logs it, without what the request held.
func Recover(log *slog.Logger, failed http.Handler, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch cause := recover(); {
			case cause == nil:
			case cause == http.ErrAbortHandler: //nolint:errorlint // it is a value that is passed on
				panic(cause)
			default:
				log.ErrorContext(r.Context(), "panic", "route", r.Pattern, "kind", fmt.Sprintf("%T", cause), "request_id", audit.From(r.Context()).RequestID)
				failed.ServeHTTP(w, r)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// OnlyHost lets requests for host pass and hands all others to elsewhere: links and issuers never depend on what a caller calls us.
func OnlyHost(host string, elsewhere, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.EqualFold(r.Host, host) {
			elsewhere.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Errors of a form.
var (
	// ErrForeign: the request does not provably come from a page of ours (403).
	ErrForeign = errors.New("httpkit: request from another site")
	// ErrForm: the body is no form, or a field is repeated (400).
	ErrForm = errors.New("httpkit: not a form of ours")
	// ErrMediaType: the body is of another type (415).
	ErrMediaType = errors.New("httpkit: not a form")
	// ErrTooLarge: the body is larger than any form of ours (413).
	ErrTooLarge = errors.New("httpkit: body too large")
)

// MaxForm bounds a form of ours, passwords and codes included.
const MaxForm = 4 << 10

// ReadForm reads a form that a page of ours posted. origin is the issuer's: a browser that says where a request comes from has to say that. Sibling
// subdomains and "null" are foreign; a browser that hides the origin of its referrer sends null, but then Sec-Fetch-Site tells.
func ReadForm(w http.ResponseWriter, r *http.Request, origin string) (url.Values, error) {
	if foreign(r, origin) {
		return nil, ErrForeign
	}
	if !isType(r, "application/x-www-form-urlencoded") {
		return nil, ErrMediaType
	}
	r.Body = http.MaxBytesReader(w, r.Body, MaxForm)
	if err := r.ParseForm(); err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, ErrTooLarge
		}
		return nil, ErrForm
	}
	for _, values := range r.PostForm {
		if len(values) > 1 {
			return nil, ErrForm
		}
	}
	return r.PostForm, nil
}

// ReadObject is ReadForm for a JSON object whose values are strings. A page of another site cannot send that type without asking first, and is
// never allowed to.
func ReadObject(w http.ResponseWriter, r *http.Request, origin string) (url.Values, error) {
	if foreign(r, origin) {
		return nil, ErrForeign
	}
	if !isType(r, "application/json") {
		return nil, ErrMediaType
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxForm))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, ErrTooLarge
		}
		return nil, ErrForm
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if start, err := decoder.Token(); err != nil || start != json.Delim('{') {
		return nil, ErrForm
	}
	values := url.Values{}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, ErrForm
		}
		value, err := decoder.Token()
		text, isText := value.(string)
		key, isKey := name.(string)
		if err != nil || !isText || !isKey || values.Has(key) {
			return nil, ErrForm
		}
		values.Set(key, text)
	}
	if _, err := decoder.Token(); err != nil { // the closing brace
		return nil, ErrForm
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrForm
	}
	return values, nil
}

// foreign reports whether a browser says that the request comes from elsewhere.
func foreign(r *http.Request, origin string) bool {
	site, from := r.Header.Get("Sec-Fetch-Site"), r.Header.Get("Origin")
	return site != "" && site != "same-origin" || from != "" && from != origin && !(from == "null" && site == "same-origin")
}

func isType(r *http.Request, kind string) bool {
	is, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return strings.EqualFold(strings.TrimSpace(is), kind)
}

// RequestID is the request's id, for pages.
func RequestID(ctx context.Context) string { return audit.From(ctx).RequestID }
