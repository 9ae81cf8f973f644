// Package wire is the HTTP client of every driver: one set of limits, one way to tell what a broken call means.
//
// A call has 3 seconds to connect and 10 in all; answers are read up to 64 KiB, headers up to 16 KiB; redirects are not followed; TLS is
// verified. Plain http is for this machine alone, where emulators live. Errors never quote a URL: vendors put numbers, keys and
// codes into them.
package wire

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/sms"
)

// Bounds of a call.
const (
	connectTimeout = 3 * time.Second
	callTimeout    = 10 * time.Second
	maxHeader      = 16 << 10
	maxBody        = 64 << 10
	idleTimeout    = time.Minute
	// connections are kept for as many calls as a worker makes at once.
	connections = 64
)

// Client calls one vendor.
type Client struct {
	vendor string
	base   string
	http   *http.Client
	prep   func(*http.Request)
}

// New makes a client for the vendor instance of that name at base, an absolute URL. prepare, which may be nil, adds what every request carries:
// credentials.
func New(vendor, base string, prepare func(*http.Request)) (*Client, error) {
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, &sms.SettingError{Vendor: vendor, Key: "base_url", What: "is not an absolute URL", Cure: "write it as https://host"}
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return nil, &sms.SettingError{Vendor: vendor, Key: "base_url", What: "is not https", Cure: "write it as https://host: plain http is for this machine only"}
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout: connectTimeout, ResponseHeaderTimeout: callTimeout, MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns: connections, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections, IdleConnTimeout: idleTimeout, ForceAttemptHTTP2: true,
	}
	return &Client{vendor: vendor, base: strings.TrimRight(base, "/"), prep: prepare, http: &http.Client{
		Transport: transport, Timeout: callTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

// Request is one call. At most one of Form, JSON and Raw is set.
type Request struct {
	Method string
	Path   string // beginning with a slash, escaped where it has to be
	Query  url.Values
	Header http.Header
	Form   url.Values
	JSON   any
	Raw    []byte
	Type   string // of Raw
}

// Response is an answer, read to its end.
type Response struct {
	Status int
	Header http.Header
	Body   []byte

	vendor string
}

// Do makes a call. Its error, always an [*sms.Error], means that there is no answer; a refusal is an answer.
func (c *Client) Do(ctx context.Context, r Request) (*Response, error) {
	target := c.base + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	payload, contentType := r.Raw, r.Type
	switch {
	case r.Form != nil:
		payload, contentType = []byte(r.Form.Encode()), "application/x-www-form-urlencoded"
	case r.JSON != nil:
		var err error
		if payload, err = json.Marshal(r.JSON); err != nil {
			return nil, c.Fail(sms.Misconfigured, "encode", sms.NotSent)
		}
		contentType = "application/json"
	}
	var written atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }})
	var body io.Reader
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, body)
	if err != nil {
		return nil, c.Fail(sms.Misconfigured, "request", sms.NotSent)
	}
	req.GetBody = nil // what was written is never written again behind our back
	for name, values := range r.Header {
		req.Header[name] = values
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if c.prep != nil {
		c.prep(req)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if written.Load() {
			return nil, c.failed(sms.Ambiguous, "no_answer", sms.MaybeSent, err)
		}
		return nil, c.failed(sms.Temporary, "unreachable", sms.NotSent, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, c.failed(sms.Ambiguous, "answer_cut", sms.MaybeSent, err)
	}
	if len(data) > maxBody {
		return nil, c.Fail(sms.Ambiguous, "answer_too_long", sms.MaybeSent)
	}
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: data, vendor: c.vendor}, nil
}

// Fail makes an error of this vendor's.
func (c *Client) Fail(class sms.Class, code string, reached sms.Reached) *sms.Error {
	return &sms.Error{Class: class, Vendor: c.vendor, Code: code, Reached: reached}
}

func (c *Client) failed(class sms.Class, code string, reached sms.Reached, err error) *sms.Error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // without the URL
	}
	return &sms.Error{Class: class, Vendor: c.vendor, Code: code, Reached: reached, Cause: err}
}

// OK reports whether the status is one of success.
func (r *Response) OK() bool { return r.Status >= 200 && r.Status < 300 }

// Decode reads the answer as JSON into v. Where that fails nobody knows what happened.
func (r *Response) Decode(v any) error {
	if err := json.Unmarshal(r.Body, v); err != nil {
		return &sms.Error{Class: sms.Ambiguous, Vendor: r.vendor, Code: "answer_garbled", Reached: sms.MaybeSent}
	}
	return nil
}

// Refused makes an error of an answer that is a refusal, with the class and code that the driver read in it. Class "" leaves it to the status.
func (r *Response) Refused(class sms.Class, code string) *sms.Error {
	e := &sms.Error{Class: class, Vendor: r.vendor, Code: code, Reached: sms.NotSent}
	if code == "" {
		e.Code = "http_" + strconv.Itoa(r.Status)
	}
	if class == "" {
		e.Class, e.Reached = byStatus(r.Status)
	}
	if e.Class == sms.RateLimited {
		e.RetryAfter = r.retryAfter()
	}
	return e
}

// byStatus is what a status means when nothing in the answer says more, RFC 9110 section 15.
func byStatus(status int) (sms.Class, sms.Reached) {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return sms.Unauthorized, sms.NotSent
	case status == http.StatusPaymentRequired:
		return sms.InsufficientFunds, sms.NotSent
	case status == http.StatusTooManyRequests:
		return sms.RateLimited, sms.NotSent
	case status == http.StatusServiceUnavailable:
		return sms.Temporary, sms.NotSent
	case status >= 500, status == http.StatusRequestTimeout:
		return sms.Temporary, sms.MaybeSent // it broke, and nobody knows where
	case status >= 400:
		return sms.Misconfigured, sms.NotSent
	default:
		return sms.Ambiguous, sms.MaybeSent // neither success nor refusal: a redirect, say
	}
}

// maxRetryAfter bounds how long a vendor can make a code wait; codes live no longer.
const maxRetryAfter = 10 * time.Minute

func (r *Response) retryAfter() time.Duration {
	seconds, err := strconv.Atoi(strings.TrimSpace(r.Header.Get("Retry-After")))
	if err != nil || seconds < 0 {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, maxRetryAfter)
}
