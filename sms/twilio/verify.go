package twilio

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/watchword-auth/watchword/sms"
	"github.com/watchword-auth/watchword/sms/internal/wire"
)

// Verify makes and checks codes. Make one with [NewVerify].
type Verify struct {
	name   string
	config Config
	client *wire.Client
}

var (
	_ sms.Checker   = (*Verify)(nil)
	_ sms.Continuer = (*Verify)(nil)
	_ sms.Closer    = (*Verify)(nil)
	_ sms.Pinger    = (*Verify)(nil)
)

// NewVerify makes the driver for Verify v2.
func NewVerify(name string, c Config) (*Verify, error) {
	client, err := c.client(name, "https://verify.twilio.com")
	settings := sms.Settings{Vendor: name}
	settings.Need(c.Service, "service", "copy the SID of the Verify service, VA…, from the console")
	if c.Service != "" && !strings.HasPrefix(c.Service, "VA") {
		settings.Wrong("service", "does not begin with VA", "copy the SID of the Verify service, VA…, from the console")
	}
	return &Verify{name: name, config: c, client: client}, settings.Err(err)
}

// Name implements sms.Vendor.
func (v *Verify) Name() string { return v.name }

// Abilities implements sms.Vendor.
func (v *Verify) Abilities() sms.Abilities {
	a := sms.Abilities{Kind: sms.Verifier, Channels: []sms.Channel{sms.SMS, sms.WhatsApp, sms.Voice}}
	if v.config.CustomCode {
		a.Kind, a.Digits = sms.Hybrid, 10
	}
	return a
}

func (v *Verify) path(tail string) string {
	return "/v2/Services/" + url.PathEscape(v.config.Service) + tail
}

// channels are Twilio's names for ours.
var channels = map[sms.Channel]string{sms.SMS: "sms", sms.WhatsApp: "whatsapp", sms.Voice: "call"}

// Send implements sms.Vendor.
func (v *Verify) Send(ctx context.Context, leg sms.Leg) (sms.Accepted, error) {
	form := url.Values{"To": {leg.To.Reveal()}, "Channel": {channels[leg.Channel]}}
	if leg.Locale != "" {
		form.Set("Locale", leg.Locale)
	}
	if v.config.CustomCode {
		form.Set("CustomCode", leg.Code)
	}
	resp, err := v.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: v.path("/Verifications"), Form: form})
	if err != nil {
		return sms.Accepted{}, err
	}
	if !resp.OK() {
		return sms.Accepted{}, refused(resp)
	}
	var started struct {
		SID string `json:"sid"`
	}
	if err := resp.Decode(&started); err != nil {
		return sms.Accepted{}, err
	}
	if started.SID == "" {
		return sms.Accepted{}, v.client.Fail(sms.Ambiguous, "no_sid", sms.MaybeSent)
	}
	return sms.Accepted{Ref: started.SID, Session: started.SID}, nil
}

// Continue implements sms.Continuer. Starting again within the life of a verification sends its code again, on whatever channel.
func (v *Verify) Continue(ctx context.Context, _ sms.Session, leg sms.Leg) (sms.Accepted, error) {
	return v.Send(ctx, leg)
}

// Check implements sms.Checker. Only status "approved" passes: a verification that was approved before is gone.
func (v *Verify) Check(ctx context.Context, s sms.Session, answer string) (sms.Verdict, error) {
	resp, err := v.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: v.path("/VerificationCheck"), Form: url.Values{"VerificationSid": {s.ID}, "Code": {answer}}})
	if err != nil {
		return sms.Denied, err
	}
	if !resp.OK() {
		switch e := refused(resp); {
		case resp.Status == http.StatusNotFound:
			return sms.Gone, nil
		case e.Code == "60202":
			return sms.Exhausted, nil
		default:
			return sms.Denied, e
		}
	}
	var checked struct {
		Status string `json:"status"`
	}
	if err := resp.Decode(&checked); err != nil {
		return sms.Denied, err
	}
	if checked.Status == "approved" {
		return sms.Approved, nil
	}
	return sms.Denied, nil
}

// Close implements sms.Closer. Twilio has to be told when a code of ours was right; otherwise a verification is canceled, so that its code dies.
func (v *Verify) Close(ctx context.Context, s sms.Session, verified bool) error {
	status := "canceled"
	if verified {
		if !v.config.CustomCode {
			return nil // it knows: it checked
		}
		status = "approved"
	}
	resp, err := v.client.Do(ctx, wire.Request{Method: http.MethodPost, Path: v.path("/Verifications/" + url.PathEscape(s.ID)), Form: url.Values{"Status": {status}}})
	if err != nil {
		return err
	}
	if !resp.OK() && resp.Status != http.StatusNotFound { // gone by itself
		return refused(resp)
	}
	return nil
}

// Ping implements sms.Pinger.
func (v *Verify) Ping(ctx context.Context) (string, error) {
	resp, err := v.client.Do(ctx, wire.Request{Method: http.MethodGet, Path: v.path("")})
	if err != nil {
		return "", err
	}
	if !resp.OK() {
		return "", refused(resp)
	}
	return "", nil
}
