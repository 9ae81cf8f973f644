package carriersim

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/watchword-auth/watchword/sms"
)

// Name of the vendor that the simulator plays.
const Name = "simulator"

// Vendor sends through a simulator. It implements sms.Idempotent.
type Vendor struct {
	send   string
	client *http.Client
}

// NewVendor makes a driver for the simulator at base, an absolute URL.
func NewVendor(base string) (*Vendor, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("simulator: %q is not an absolute URL", base)
	}
	transport := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		TLSHandshakeTimeout:   3 * time.Second,
		ResponseHeaderTimeout: 10 * time.Second, MaxResponseHeaderBytes: 16 << 10,
		MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute,
	}
	return &Vendor{send: u.JoinPath("send").String(), client: &http.Client{
		Transport: transport, Timeout: 10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Name implements sms.Vendor.
func (*Vendor) Name() string { return Name }

// Idempotent implements sms.Idempotent.
func (*Vendor) Idempotent() {}

// Send implements sms.Vendor.
func (v *Vendor) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	payload, err := json.Marshal(sendRequest{ID: leg.ID.String(), To: leg.To.Reveal(), Text: leg.Text})
	if err != nil {
		return sms.Accepted{}, fail(sms.Misconfigured, "encode", sms.NotSent, nil)
	}
	var written atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { written.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, v.send, bytes.NewReader(payload))
	if err != nil {
		return sms.Accepted{}, fail(sms.Misconfigured, "request", sms.NotSent, nil)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := v.client.Do(req)
	if err != nil {
		if written.Load() {
			return sms.Accepted{}, fail(sms.Ambiguous, "no_answer", sms.MaybeSent, cause(err))
		}
		return sms.Accepted{}, fail(sms.Temporary, "unreachable", sms.NotSent, cause(err))
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return sms.Accepted{}, fail(sms.Ambiguous, "answer_cut", sms.MaybeSent, cause(err))
	}
	if resp.StatusCode == http.StatusCreated {
		var taken struct {
			Ref string `json:"ref"`
		}
		if json.Unmarshal(data, &taken) != nil || taken.Ref == "" {
			return sms.Accepted{}, fail(sms.Ambiguous, "answer_garbled", sms.MaybeSent, nil)
		}
		return sms.Accepted{Ref: taken.Ref}, nil
	}
	var refused failure
	if resp.StatusCode < 400 || json.Unmarshal(data, &refused) != nil || refused.Class == "" {
		return sms.Accepted{}, fail(sms.Ambiguous, fmt.Sprintf("http_%d", resp.StatusCode), sms.MaybeSent, nil)
	}
	e := fail(sms.Class(refused.Class), refused.Code, sms.NotSent, nil)
	e.RetryAfter = time.Duration(refused.RetryAfter) * time.Second
	return sms.Accepted{}, e
}

func fail(class sms.Class, code string, reached sms.Reached, err error) *sms.Error {
	return &sms.Error{Class: class, Vendor: Name, Code: code, Reached: reached, Cause: err}
}

// cause drops the URL that the client's errors quote.
func cause(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
