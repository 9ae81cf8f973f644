package gateway

import (
	"context"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// The paths /otp/… speak the words of the services of today, over the very same verifications. They are permanent.

// transaction is what a request without a transaction of its own says of one; nil: nothing.
func transaction(amount, currency, payee string) *Transaction {
	if amount == "" && currency == "" && payee == "" {
		return nil
	}
	return &Transaction{Amount: amount, Currency: currency, Payee: payee}
}

// flat has a problem point at the names that its caller used.
func flat(err error) error {
	p, ok := err.(*Problem) //nolint:errorlint // it is returned bare
	if !ok {
		return err
	}
	names := map[string]string{"/to": "/phoneNumber", "/app_hash": "/appHash", "/template": "/templateId", "/channels/0/type": "/channel", "/channels": "/channel"}
	for i, e := range p.Errors {
		if name, ok := names[e.Pointer]; ok {
			p.Errors[i].Pointer = name
		}
		if e.Pointer == "/transaction" {
			p.Errors[i].Pointer = "/amount"
		}
		p.Errors[i].Pointer = strings.TrimPrefix(p.Errors[i].Pointer, "/transaction")
	}
	return p
}

func (g *Gateway) serveSend(ctx context.Context, r *request) (any, error) {
	if raw, ok := r.replay(); ok {
		return raw, nil
	}
	body := r.input.(*SendRequest)
	create := &CreateRequest{To: body.PhoneNumber, Locale: body.Locale, AppHash: body.AppHash, Template: body.TemplateID, Transaction: transaction(body.Amount, body.Currency, body.Payee)}
	if body.Channel != "" {
		create.Channels = []Way{{Type: body.Channel}}
	}
	_, n, err := g.begun(ctx, r, create)
	if err != nil {
		return nil, flat(err)
	}
	var out SendAnswer
	out.Data.RequestID, out.Data.ExpiresAt, out.Data.AttemptsLeft, out.Data.Status = writeID(verificationPrefix, n.ID), n.ExpiresAt.UTC(), n.MaxAttempts, StatusPending
	return out, nil
}

func (g *Gateway) serveVerify(ctx context.Context, r *request) (any, error) {
	if raw, ok := r.replay(); ok {
		return raw, nil
	}
	body := r.input.(*VerifyRequest)
	if body.RequestID == "" {
		return nil, invalid("/requestId", "is required")
	}
	id, known := readID(verificationPrefix, body.RequestID)
	if !known {
		id = uuid.Nil // nobody's: asked for as any other
	}
	v, err := g.answer(ctx, r, id, "/otpCode", body.OTPCode, "/transaction", transaction(body.Amount, body.Currency, body.Payee))
	switch {
	case err != nil:
		return nil, flat(err)
	case v.ended:
		return nil, problem(AttemptsExhausted).Left(0)
	case !v.valid:
		return nil, problem(OTPIncorrect).Left(v.left)
	}
	var out VerifyAnswer
	out.Data.Verified = true
	return out, nil
}

func (g *Gateway) serveStatus(ctx context.Context, r *request) (any, error) {
	var in StatusRequest
	if r.Method == "GET" {
		query := r.URL.Query()
		for name, values := range query {
			if len(values) > 1 || !slices.Contains([]string{"requestId", "number"}, name) {
				return nil, invalid("", "has a parameter that is not known, or one twice")
			}
		}
		in = StatusRequest{RequestID: query.Get("requestId"), Number: plus(query.Get("number"))}
	} else {
		in = *r.input.(*StatusRequest)
	}
	var found *record
	var err error
	switch {
	case (in.RequestID == "") == (in.Number == ""):
		return nil, invalid("/requestId", "or number is required, and not both")
	case in.Number != "":
		to, p := read(in.Number)
		if p != nil {
			return nil, p
		}
		found, err = g.latest(ctx, r.caller, to)
	default:
		id, known := readID(verificationPrefix, in.RequestID)
		if !known {
			id = uuid.Nil
		}
		found, err = g.byID(ctx, r.caller, id)
	}
	if err != nil {
		return nil, err
	}
	v, err := found.show(r.caller)
	if err != nil {
		return nil, err
	}
	var out StatusAnswer
	out.Data.RequestID, out.Data.Status, out.Data.UpdatedAt = v.ID, v.Status, v.CreatedAt
	out.DeliveryStatus = "SENT"
	if d := v.last(); d != nil {
		out.Data.Channel, out.Data.UpdatedAt = d.Channel, d.UpdatedAt
		switch d.Status {
		case DeliveryDelivered:
			out.DeliveryStatus = "DELIVERED"
		case DeliveryFailed, DeliveryUndelivered:
			out.DeliveryStatus = "FAILED"
		}
	}
	if v.EndedAt != nil && v.EndedAt.After(out.Data.UpdatedAt) {
		out.Data.UpdatedAt = *v.EndedAt
	}
	if v.Status == StatusExpired && out.DeliveryStatus == "SENT" {
		out.DeliveryStatus = "EXPIRED"
	}
	return out, nil
}
