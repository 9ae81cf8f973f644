// Package egress calls addresses that somebody else chose: the webhooks of tenants, the endpoints of relying parties.
//
// Whoever may name an address could name one inside, and have this server fetch what he himself cannot reach. So an address is looked at twice. [Guard.Check]
// reads it when it is registered, and says what is wrong with it. [Guard.Client] asks again for every connection, after the name was resolved and before the first packet: the address
// that is dialed is the one that was looked at, so that a name that leads somewhere else later leads nowhere. Only public unicast
// addresses are dialed (code.dny.dev/ssrf, from the registries of IANA): none that is private, loopback, link-local (where clouds keep their metadata), shared, multicast, reserved,
// mapped or translated.
//
// The client follows no redirect, uses no proxy of the environment, verifies TLS, sends nothing compressed and is bounded in everything that it waits for or reads but the
// body: that is the caller's to bound.
//
// The operator, and nobody through an API, exempts hosts by name in the configuration, adds certificate authorities, and allows plain http on a machine for development.
package egress

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"code.dny.dev/ssrf"
)

// ErrForbidden says that an address may not be called, whatever it would answer.
var ErrForbidden = errors.New("may not be called")

// Config is the operator's.
type Config struct {
	// Exempt are names of hosts that may be inside.
	Exempt []string
	// CAs are trusted. Nil: the system's.
	CAs *x509.CertPool
	// AllowHTTP lets plain http pass. For development.
	AllowHTTP bool
	// Timeout bounds a call, the body included. Default 15 s.
	Timeout time.Duration
	// Resolver of names. Nil: the system's.
	Resolver *net.Resolver
}

// Bounds of a call.
const (
	connectTimeout = 5 * time.Second
	defaultTimeout = 15 * time.Second
	maxHeader      = 16 << 10
	maxURL         = 2000
	maxIdle        = 256
)

// Guard keeps calls out of what is inside. It is safe for concurrent use.
type Guard struct {
	exempt    map[string]bool
	allowHTTP bool
	resolver  *net.Resolver
	guardian  *ssrf.Guardian
	client    *http.Client
}

// New makes a guard.
func New(c Config) *Guard {
	g := &Guard{exempt: map[string]bool{}, allowHTTP: c.AllowHTTP, resolver: c.Resolver, guardian: ssrf.New(ssrf.WithAnyPort())}
	for _, host := range c.Exempt {
		g.exempt[strings.ToLower(host)] = true
	}
	if g.resolver == nil {
		g.resolver = net.DefaultResolver
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	g.client = &http.Client{
		Timeout:       c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &guarded{guard: g, next: &http.Transport{
			DialContext: g.dial, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.CAs}, TLSHandshakeTimeout: connectTimeout,
			ResponseHeaderTimeout: c.Timeout, MaxResponseHeaderBytes: maxHeader, DisableCompression: true, ForceAttemptHTTP2: true,
			MaxIdleConns: maxIdle, MaxIdleConnsPerHost: 16, IdleConnTimeout: 30 * time.Second,
		}},
	}
	return g
}

// Client makes guarded calls.
func (g *Guard) Client() *http.Client { return g.client }

// Check says what is wrong with an address, and nil if nothing is. Everything that it resolves to has to be public: a name with one address inside is refused. Its errors
// are for whoever registered the address; all are [ErrForbidden] but one for a name that cannot be resolved.
func (g *Guard) Check(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil || len(address) > maxURL || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return forbidden("is not a web address in ASCII of at most %d characters", maxURL)
	}
	if u.Fragment != "" || strings.HasSuffix(address, "#") {
		return forbidden("has a fragment")
	}
	if err := g.look(u); err != nil {
		return err
	}
	host := hostname(u)
	if g.exempt[host] {
		return nil
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return g.public(ip)
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	all, err := g.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(all) == 0 {
		return fmt.Errorf("host %s cannot be resolved", host) // the resolver's own words name its servers
	}
	for _, ip := range all {
		if err := g.public(ip.Unmap()); err != nil {
			return err
		}
	}
	return nil
}

// look checks what an address says by itself.
func (g *Guard) look(u *url.URL) error {
	host := hostname(u)
	switch {
	case u.Scheme != "https" && (u.Scheme != "http" || !g.allowHTTP):
		return forbidden("is not https")
	case u.Opaque != "" || host == "":
		return forbidden("names no host")
	case u.User != nil:
		return forbidden("has a user name in it")
	case g.exempt[host]:
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil // looked at where it is dialed
	}
	// Some resolvers read 2130706433, 0177.1 and 0x7f.1 as IPv4 addresses (WHATWG URL, ends in a number).
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" || strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return forbidden("has a number for a host that is not an IP address in its usual form")
	}
	if !strings.Contains(host, ".") {
		return forbidden("names host %s, which is not a full name", host)
	}
	return nil
}

func hostname(u *url.URL) string { return strings.TrimSuffix(strings.ToLower(u.Hostname()), ".") }

func forbidden(format string, args ...any) error {
	return fmt.Errorf(format+": it %w", append(args, ErrForbidden)...)
}

func (g *Guard) public(ip netip.Addr) error {
	if ip.Zone() != "" || g.guardian.SafeAddr(ip) != nil {
		return forbidden("leads to %s, which is not public", ip)
	}
	return nil
}

// dial looks at the address that is dialed: by then the name has been resolved.
func (g *Guard) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: connectTimeout, Resolver: g.resolver}
	if !g.exempt[strings.TrimSuffix(strings.ToLower(host), ".")] {
		d.Control = g.guardian.Safe
	}
	return d.DialContext(ctx, network, address)
}

// guarded looks at every request: an address may be older than the configuration.
type guarded struct {
	guard *Guard
	next  http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t *guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.guard.look(r.URL); err != nil {
		if r.Body != nil {
			r.Body.Close() //nolint:errcheck,gosec // it was not read
		}
		return nil, err
	}
	return t.next.RoundTrip(r)
}

// Class says in one word why a call failed, for records and metrics: "forbidden", "timeout", "dns", "tls" or "unreachable".
func Class(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	var certificate *tls.CertificateVerificationError
	var alert tls.AlertError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, ErrForbidden), errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedNetwork):
		return "forbidden"
	case errors.As(err, &dns):
		return "dns"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.As(err, &certificate), errors.As(err, &alert), errors.As(err, &record):
		return "tls"
	}
	return "unreachable"
}
