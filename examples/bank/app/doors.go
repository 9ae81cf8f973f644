package app

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ---------------------------------------------------------------- on the bank's own page

// transaction is what the API says of one.
type transaction struct {
	ID     string `json:"id"`
	Status string `json:"status"`
	Reason string `json:"reason"`
	Result string `json:"result"`
	// ReportedAt is when the customer said that they had not asked for it, which they can say of what they had approved.
	ReportedAt *time.Time `json:"reported_at"`
}

// Message is what the customer sees here and where they answer, to know that it is the same payment.
func (p *payment) Message() string { return fmt.Sprintf("PAY-%d", p.Number) }

// Because says to the customer what the words of the protocol, which developers find below, mean for a payment.
func (p *payment) Because() string {
	if p.State != "not approved" {
		return ""
	}
	for _, meaning := range []struct{ words, sentence string }{
		{"user_refused", "You did not approve it. No money has moved."},
		{"user_reported", "You said that you did not ask for it. No money has moved. We look into it, and call you."},
		{"transaction_failed", "What you were shown is not what we would have carried out, or the code was wrong too often. No money has moved. Begin again."},
		{"transaction_mismatch", "What you were shown is not what we would have carried out. No money has moved. Begin again."},
		{"expired", "It was not approved in time. No money has moved. Begin again."},
		{"suspended", "It was stopped, because you said of another payment that you did not ask for it. No money has moved."},
		{"attempts", "The code was wrong too often. No money has moved. Begin again."},
		{"changed", "What you were shown is not what we would have carried out. No money has moved. Begin again."},
		{"refused", "You did not approve it. No money has moved."},
		{"canceled", "It was taken back. No money has moved."},
	} {
		if strings.Contains(p.Problem, meaning.words) {
			return meaning.sentence
		}
	}
	return ""
}

// again reads how a payment stands: answers get lost, payments expire, and what was approved may be reported afterwards. A bank that moves money has a webhook tell it.
func (b *bank) again(ctx context.Context, paying *payment) {
	p, err := b.issuer(ctx)
	if err != nil || paying.Transaction == "" {
		return
	}
	var now transaction
	if p.call(ctx, http.MethodGet, "/v1/transactions/"+paying.Transaction, nil, &now) != nil {
		return // it is shown as it was
	}
	switch {
	case paying.State == "approved" || now.Status == "pending":
	case now.Status == "approved": // whose answer did not get here
		if err := b.act(ctx, p, paying, now.Result, ""); err != nil {
			paying.Problem = err.Error()
		}
	default:
		paying.State, paying.Problem = "not approved", cmp.Or(paying.Problem, strings.TrimSpace(now.Status+" "+now.Reason))
	}
	if now.ReportedAt != nil {
		paying.Problem = "You said that you did not ask for this. We look into it, and call you."
	}
}

// order is the payment as the API takes it, and as it has to come again with the code.
func (p *payment) order() map[string]any {
	return map[string]any{"amount": p.Amount, "currency": p.Currency, "payee": map[string]string{"name": p.Payee, "account": p.IBAN}}
}

// begin hands a payment over. Watchword texts the customer a code for it.
func (b *bank) begin(ctx context.Context, s *session, paying *payment) error {
	p, err := b.issuer(ctx)
	if err != nil {
		return err
	}
	order := paying.order()
	order["user"], order["reference"] = s.subject, paying.Reference
	var created transaction
	if err := p.call(ctx, http.MethodPost, "/v1/transactions", order, &created, "Idempotency-Key", rand.Text()); err != nil {
		return err
	}
	paying.Transaction = created.ID
	return nil
}

// code sends a code on, with what this bank's page showed beside it.
func (b *bank) code(w http.ResponseWriter, r *http.Request) { b.answer(w, r, b.verify) }

// cancel takes a payment back that its customer does not want.
func (b *bank) cancel(w http.ResponseWriter, r *http.Request) { b.answer(w, r, b.takeBack) }

// answer has do settle a payment that waits on this bank's own page.
func (b *bank) answer(w http.ResponseWriter, r *http.Request, do func(context.Context, *payment, *http.Request) error) {
	_, paying, done := b.find(r)
	if paying == nil {
		http.Redirect(w, r, b.cfg.BaseURL+"/", http.StatusSeeOther)
		return
	}
	defer done()
	if paying.Door != doorOwn || paying.State != "asked" {
		http.Redirect(w, r, b.cfg.BaseURL+"/", http.StatusSeeOther)
		return
	}
	paying.Problem = ""
	if err := do(r.Context(), paying, r); err != nil {
		paying.Problem = err.Error()
	}
	http.Redirect(w, r, fmt.Sprint(b.cfg.BaseURL, "/payments/", paying.Number), http.StatusSeeOther)
}

func (b *bank) takeBack(ctx context.Context, paying *payment, _ *http.Request) error {
	p, err := b.issuer(ctx)
	if err != nil {
		return err
	}
	var got transaction
	if err := p.call(ctx, http.MethodPost, "/v1/transactions/"+paying.Transaction+"/cancel", struct{}{}, &got); err != nil {
		return err
	}
	paying.State = "not approved"
	return nil
}

func (b *bank) verify(ctx context.Context, paying *payment, r *http.Request) error {
	p, err := b.issuer(ctx)
	if err != nil {
		return err
	}
	r.Body = http.MaxBytesReader(nil, r.Body, 10<<10)
	again := paying.order()
	again["code"] = r.PostFormValue("code")
	// What the page showed, not what is stored: a page that was tampered with is found out by that.
	again["amount"] = r.PostFormValue("amount")
	again["payee"] = map[string]string{"name": r.PostFormValue("payee"), "account": paying.IBAN}
	var got transaction
	err = p.call(ctx, http.MethodPost, "/v1/transactions/"+paying.Transaction+"/verify", again, &got)
	if refused := new(refusal); errors.As(err, &refused) {
		if refused.Problem == "otp_incorrect" && refused.AttemptsLeft > 0 {
			return fmt.Errorf("otp_incorrect: the code is not right, compare it with the text message; tries left: %d", refused.AttemptsLeft)
		}
		return err // what became of the payment is read by the page that follows, not guessed
	}
	if err != nil {
		return err
	}
	return b.act(ctx, p, paying, got.Result, "")
}

// ---------------------------------------------------------------- in the background

// wait asks in the background: OpenID Connect CIBA Core 1.0, poll.
func (b *bank) wait(ctx context.Context, s *session, paying *payment) error {
	p, err := b.issuer(ctx)
	if err != nil {
		return err
	}
	if p.metadata.Background == "" {
		return errors.New("the issuer takes no requests in the background")
	}
	details, err := paying.details()
	if err != nil {
		return err
	}
	var got struct {
		Request   string `json:"auth_req_id"`
		ExpiresIn int    `json:"expires_in"`
		Interval  int    `json:"interval"`
	}
	form := url.Values{"scope": {"openid"}, "id_token_hint": {s.idToken}, "binding_message": {paying.Message()}, "authorization_details": {details}}
	if err := p.post(ctx, p.metadata.Background, form, &got); err != nil {
		return err
	}
	go b.await(context.WithoutCancel(ctx), p, s, paying, got.Request, time.Duration(max(got.Interval, 1))*time.Second, time.Now().Add(time.Duration(got.ExpiresIn)*time.Second))
	return nil
}

// await polls until the customer has answered: Watchword holds a poll until then, or until it has to come again, which it may no oftener than every pause. Tokens are given once: where
// they get lost on the way the payment is not executed, and its customer begins again.
func (b *bank) await(ctx context.Context, p *provider, s *session, paying *payment, request string, pause time.Duration, until time.Time) {
	for {
		asked := time.Now()
		claims, err := b.tokens(ctx, p, url.Values{"grant_type": {"urn:openid:params:grant-type:ciba"}, "auth_req_id": {request}}, "")
		refused := new(refusal)
		if errors.As(err, &refused) && (refused.Code == "authorization_pending" || refused.Code == "slow_down") {
			if refused.Code == "slow_down" {
				pause += 5 * time.Second
			}
			<-time.After(time.Until(asked.Add(pause)))
			continue
		}
		if err != nil && (!errors.As(err, &refused) || refused.Status >= http.StatusInternalServerError) && time.Now().Before(until) { // nothing was said of the payment
			<-time.After(pause)
			continue
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if err == nil && claims.Subject != s.subject {
			err = errors.New("somebody else answered")
		}
		if err == nil {
			err = b.execute(ctx, p, paying, claims)
		}
		if err != nil {
			paying.State, paying.Problem = "not approved", err.Error()
		}
		return
	}
}

// details is the payment as authorization_details.
func (p *payment) details() (string, error) {
	element := map[string]any{
		"type": "payment_initiation", "actions": []string{"initiate"}, "instructedAmount": map[string]string{"amount": p.Amount, "currency": p.Currency}, "creditorName": p.Payee,
	}
	if p.IBAN != "" { // what is empty is left out
		element["creditorAccount"] = map[string]string{"iban": p.IBAN}
	}
	if p.Reference != "" {
		element["remittanceInformationUnstructured"] = p.Reference
	}
	details, err := json.Marshal([]any{element})
	return string(details), err
}
