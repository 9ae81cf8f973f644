package gateway

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/payment"
	"github.com/watchword-auth/watchword/sms"
)

// What requests and answers look like. The API's description is made from these types: their tags say everything that it says.

// Transaction is a payment that a code approves. The code is good for exactly this: all of it has to come back with the code.
type Transaction struct {
	Amount    string `json:"amount" required:"true" pattern:"^[0-9]{1,12}(\\.[0-9]{1,4})?$" example:"129.90" description:"Decimal, as a string."`
	Currency  string `json:"currency" required:"true" pattern:"^[A-Z]{3}$" example:"EUR" description:"ISO 4217."`
	Payee     string `json:"payee" required:"true" minLength:"1" maxLength:"40" example:"Gas AG" description:"Who is paid, as the text names them."`
	Account   string `json:"account,omitempty" maxLength:"64" description:"Who is paid, as banks name them. Not in the text."`
	Reference string `json:"reference,omitempty" maxLength:"140" description:"What for. Not in the text."`
}

// Way is a channel to try.
type Way struct {
	Type    string `json:"type" required:"true" enum:"sms,whatsapp,voice,email"`
	Timeout string `json:"timeout,omitempty" pattern:"^([0-9]{1,2}m)?([0-9]{1,3}s)?$" example:"60s" description:"How long the text may take to arrive, 30s to 10m. Without a report that it did, and without the right code, the next channel is tried by then, with the same code. It counts as a text. Default: the next is tried when this one fails."`
}

// CreateRequest begins a verification.
type CreateRequest struct {
	To          string            `json:"to" required:"true" maxLength:"254" example:"+12025550143" description:"Number of the phone, in international form; or an e-mail address, for tenants that have those."`
	Channels    []Way             `json:"channels,omitempty" maxItems:"3" description:"Ways to the phone, in the order in which they are tried. Default: as the server's routes say. An e-mail address has email alone."`
	Purpose     string            `json:"purpose,omitempty" maxLength:"40" pattern:"^[a-z][a-z0-9_]*$" example:"sign_up" description:"What it is for, in your own words. Told back, not sent."`
	Locale      string            `json:"locale,omitempty" maxLength:"35" example:"de" description:"Language of the text, BCP 47. Default: the tenant's."`
	Template    string            `json:"template,omitempty" maxLength:"40" description:"One of the tenant's templates. Default: the one named default, or the product's own text."`
	AppHash     string            `json:"app_hash,omitempty" pattern:"^[A-Za-z0-9+/]{11}$" description:"Hash of the Android app that reads the text (SMS Retriever)."`
	Transaction *Transaction      `json:"transaction,omitempty"`
	ClientRef   string            `json:"client_ref,omitempty" maxLength:"64" example:"order-4711" description:"What you call it. One verification per number and reference is pending: a new one takes its place."`
	Metadata    map[string]string `json:"metadata,omitempty" description:"Up to 16 strings of your own, told back. Not for secrets."`
	ReturnURL   string            `json:"return_url,omitempty" maxLength:"500" format:"uri" example:"https://shop.example.com/verified" description:"Have the code entered on a page of this server, at url of the answer, which then leads back to this address: one of the tenant's, letter by letter. Not for payments, nor e-mail addresses."`
}

// CheckRequest gives a code back.
type CheckRequest struct {
	Code        string       `json:"code" required:"true" minLength:"4" maxLength:"10" pattern:"^[A-Za-z0-9]+$" example:"123456"`
	Transaction *Transaction `json:"transaction,omitempty" description:"As it was when the verification began, if it had one."`
}

// ResendRequest asks for another text.
type ResendRequest struct {
	Channel string `json:"channel,omitempty" enum:"sms,whatsapp,voice,email" description:"Another channel than before."`
}

// Verification as it stands.
type Verification struct {
	ID           string            `json:"id" example:"vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70" description:"Random; keep it to give the code back."`
	URL          string            `json:"url,omitempty" format:"uri" description:"In the answer that made it, if it has a return_url: the page on which its code is entered. Lead the browser there, and nobody else."`
	Status       Status            `json:"status" enum:"pending,approved,expired,canceled,failed" description:"Everything but pending is for good."`
	Reason       string            `json:"reason,omitempty" enum:"attempts_exhausted,superseded"`
	Test         bool              `json:"test,omitempty" description:"Made with a test key: it proves nothing."`
	To           string            `json:"to" example:"••43" description:"The number's last two digits; of an e-mail address nothing."`
	Country      string            `json:"country,omitempty" example:"US" description:"ISO 3166-1. Missing for an e-mail address."`
	Purpose      string            `json:"purpose,omitempty"`
	Locale       string            `json:"locale,omitempty"`
	Template     string            `json:"template,omitempty"`
	Transaction  *Transaction      `json:"transaction,omitempty" description:"The account is masked except its last four characters."`
	ClientRef    string            `json:"client_ref,omitempty"`
	Metadata     map[string]string `json:"metadata,omitempty"`
	AttemptsLeft int               `json:"attempts_left" description:"Wrong codes that it still bears."`
	Deliveries   []Delivery        `json:"deliveries" description:"Texts of it, the oldest first."`
	CreatedAt    time.Time         `json:"created_at"`
	ExpiresAt    time.Time         `json:"expires_at"`
	ResendAt     *time.Time        `json:"resend_at,omitempty" description:"When another text may be asked for."`
	EndedAt      *time.Time        `json:"ended_at,omitempty"`
}

// Delivery is one text of a verification.
type Delivery struct {
	ID        string         `json:"id" example:"dlv_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70"`
	Channel   string         `json:"channel,omitempty" enum:"sms,whatsapp,voice,email"`
	Status    DeliveryStatus `json:"status" enum:"queued,sent,delivered,undelivered,failed,unknown"`
	Reason    string         `json:"reason,omitempty" description:"Class of the failure, such as recipient_unreachable."`
	CreatedAt time.Time      `json:"created_at"`
	UpdatedAt time.Time      `json:"updated_at"`
}

// List is a page of verifications, the newest first.
type List struct {
	Data       []Verification `json:"data"`
	NextCursor string         `json:"next_cursor,omitempty" description:"Give it as cursor for the next page. Missing: that was the last."`
}

// CheckResult is the answer to a code. A wrong one is a normal answer.
type CheckResult struct {
	ID           string `json:"id"`
	Status       Status `json:"status" enum:"pending,approved,failed"`
	Valid        bool   `json:"valid"`
	AttemptsLeft int    `json:"attempts_left"`
}

// SendRequest begins a verification, in the words of the services of today.
type SendRequest struct {
	PhoneNumber    string `json:"phoneNumber" required:"true" maxLength:"40" example:"+12025550143" description:"In international form."`
	IdempotencyKey string `json:"idempotencyKey,omitempty" maxLength:"255" description:"As the header Idempotency-Key."`
	Channel        string `json:"channel,omitempty" enum:"sms,whatsapp,voice"`
	Locale         string `json:"locale,omitempty" maxLength:"35"`
	AppHash        string `json:"appHash,omitempty" pattern:"^[A-Za-z0-9+/]{11}$"`
	TemplateID     string `json:"templateId,omitempty" maxLength:"40"`
	Amount         string `json:"amount,omitempty" pattern:"^[0-9]{1,12}(\\.[0-9]{1,4})?$" example:"129.90"`
	Currency       string `json:"currency,omitempty" pattern:"^[A-Z]{3}$"`
	Payee          string `json:"payee,omitempty" maxLength:"40"`
}

// SendAnswer is the answer to it.
type SendAnswer struct {
	Data struct {
		RequestID    string    `json:"requestId" example:"vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70"`
		ExpiresAt    time.Time `json:"expiresAt"`
		AttemptsLeft int       `json:"attemptsLeft"`
		Status       Status    `json:"status" enum:"pending"`
	} `json:"data"`
}

// VerifyRequest gives the code back.
type VerifyRequest struct {
	RequestID string `json:"requestId" required:"true" maxLength:"64" example:"vrf_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70"`
	OTPCode   string `json:"otpCode" required:"true" minLength:"4" maxLength:"10" pattern:"^[A-Za-z0-9]+$" example:"123456"`
	Amount    string `json:"amount,omitempty" description:"As it was sent, if it was; likewise the others."`
	Currency  string `json:"currency,omitempty"`
	Payee     string `json:"payee,omitempty"`
}

// VerifyAnswer says that the code was right. A wrong one is a problem, otp_incorrect.
type VerifyAnswer struct {
	Data struct {
		Verified bool `json:"verified" enum:"true"`
	} `json:"data"`
}

// StatusRequest asks what became of a text.
type StatusRequest struct {
	RequestID string `json:"requestId,omitempty" query:"requestId" maxLength:"64"`
	Number    string `json:"number,omitempty" query:"number" maxLength:"40" description:"Instead: its last verification by this tenant."`
}

// StatusAnswer says it.
type StatusAnswer struct {
	Data struct {
		RequestID string    `json:"requestId"`
		Status    Status    `json:"status" enum:"pending,approved,expired,canceled,failed"`
		Channel   string    `json:"channel"`
		UpdatedAt time.Time `json:"updatedAt"`
	} `json:"data"`
	DeliveryStatus string `json:"delivery_status" enum:"SENT,DELIVERED,FAILED,EXPIRED"`
}

// Bounds of what a program gives along.
const (
	maxMetadata      = 16
	maxMetadataKey   = 40
	maxMetadataValue = 200
	maxRef           = 64
	maxPayee         = 40
	maxAccount       = 64
	maxReference     = 140
	maxPurpose       = 40
	maxLocale        = 35
)

var (
	purposeForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	appForm     = regexp.MustCompile(`^[A-Za-z0-9+/]{11}$`)
)

// checker collects what is wrong with a request.
type checker struct{ errors []FieldError }

func (k *checker) fail(pointer, message string) {
	k.errors = append(k.errors, FieldError{Pointer: pointer, Message: message})
}

// printable gives a text as it is seen, and reports one that is too long, or could do something to whatever shows it.
func (k *checker) printable(pointer, value string, most int) string {
	if len([]rune(value)) > most {
		k.fail(pointer, fmt.Sprintf("has more than %d characters", most))
		return ""
	}
	seen, ok := payment.Visible(value)
	if !ok {
		k.fail(pointer, "has characters that cannot be seen")
	}
	return seen
}

func (k *checker) problem() *Problem {
	if len(k.errors) == 0 {
		return nil
	}
	p := problem(InvalidRequest)
	p.Errors = k.errors
	return p
}

// transaction checks one, and writes its amount in the one way that it is compared.
func (k *checker) transaction(at string, t *Transaction) {
	if err := payment.Currency(t.Currency); err != nil {
		k.fail(at+"/currency", err.Error())
	}
	amount, err := payment.Amount(t.Amount, t.Currency)
	if err != nil {
		k.fail(at+"/amount", err.Error())
	}
	t.Amount = amount
	if t.Payee == "" {
		k.fail(at+"/payee", "is required")
	}
	t.Payee = k.printable(at+"/payee", t.Payee, maxPayee)
	if strings.ContainsAny(t.Payee, "@#") || hasLink(t.Payee) {
		k.fail(at+"/payee", "has @, # or a link, which do not belong into a text with a code")
	}
	t.Account = k.printable(at+"/account", t.Account, maxAccount)
	t.Reference = k.printable(at+"/reference", t.Reference, maxReference)
}

// order checks a request and makes an order of it.
func (g *Gateway) order(c *Caller, r *CreateRequest) (*order, *Problem) {
	k := new(checker)
	o := &order{ref: r.ClientRef, locale: r.Locale, app: r.AppHash,
		request: asked{Purpose: r.Purpose, Locale: r.Locale, Template: r.Template, App: r.AppHash, Metadata: r.Metadata}}
	if r.To == "" {
		k.fail("/to", "is required")
	}
	k.channels(r, o)
	if r.Purpose != "" && (len(r.Purpose) > maxPurpose || !purposeForm.MatchString(r.Purpose)) {
		k.fail("/purpose", fmt.Sprintf("is no word of small letters, digits and _, %d of them at most", maxPurpose))
	}
	if o.locale == "" {
		o.locale = c.Tenant.Settings.Locale
	} else if _, err := language.Parse(o.locale); err != nil || len(o.locale) > maxLocale {
		k.fail("/locale", "is no language tag, such as en or de")
	}
	if r.AppHash != "" && !appForm.MatchString(r.AppHash) {
		k.fail("/app_hash", "is no hash of 11 characters")
	}
	k.printable("/client_ref", r.ClientRef, maxRef)
	if len(r.Metadata) > maxMetadata {
		k.fail("/metadata", fmt.Sprintf("has more than %d entries", maxMetadata))
	}
	for key, value := range r.Metadata {
		if len(key) > maxMetadataKey || len(value) > maxMetadataValue || strings.ContainsRune(key+value, 0) {
			k.fail("/metadata", fmt.Sprintf("has a name of more than %d or a value of more than %d bytes, or one with NUL", maxMetadataKey, maxMetadataValue))
			break
		}
	}
	if r.ReturnURL != "" {
		o.request.ReturnURL = r.ReturnURL
		switch {
		case !c.Tenant.Settings.Hosted || !slices.Contains(c.Tenant.Settings.ReturnURLs, r.ReturnURL):
			k.fail("/return_url", "is none of the tenant's")
		case r.Transaction != nil:
			k.fail("/return_url", "is not for payments")
		}
	}
	var ok bool
	if o.template, ok = c.Tenant.Settings.template(r.Template); !ok {
		k.fail("/template", "is none of the tenant's templates")
	}
	if t := r.Transaction; t != nil {
		k.transaction("/transaction", t)
		o.payment, o.text = t.hash(), t.approval()
		o.request.Transaction = t.masked() // nobody needs the account any more: the hash knows it
	}
	if o.template.Text != "" && o.template.pays() != (r.Transaction != nil) {
		if r.Template == "" { // the default is for everything else
			o.template.Text = ""
		} else {
			k.fail("/template", "is for payments alone, or for everything but payments")
		}
	}
	if p := k.problem(); p != nil {
		return nil, p
	}
	var p *Problem
	if o.to, p = read(r.To); p != nil {
		return nil, p
	}
	if o.to.isMail() {
		switch {
		case !g.mails(c):
			return nil, problem(InvalidNumber).Because("email_not_served")
		case r.ReturnURL != "": // the page speaks of texts and phones
			return nil, invalid("/return_url", "is not for e-mail addresses")
		}
		o.channels, o.request.Channels, o.following = nil, []string{Email}, 0
		return o, nil
	}
	switch special := scenario(o.to.phone); {
	case c.Test:
		o.scenario = special
	case special != "":
		return nil, problem(TestNumberInLive)
	}
	return o, nil
}

// Bounds of a channel's time: what lies between two texts, and the longest life of a code.
const (
	minTimeout = 30 * time.Second
	maxTimeout = MaxLife
)

var timeoutForm = regexp.MustCompile(`^([0-9]{1,2}m)?([0-9]{1,3}s)?$`)

// channels checks the ways that a request names.
func (k *checker) channels(r *CreateRequest, o *order) {
	mailed := strings.Contains(r.To, "@")
	for i, way := range r.Channels {
		at := fmt.Sprintf("/channels/%d", i)
		channel := sms.Channel(way.Type)
		switch {
		case mailed != (way.Type == Email) && (way.Type == Email || slices.Contains([]sms.Channel{sms.SMS, sms.WhatsApp, sms.Voice}, channel)):
			k.fail(at+"/type", "is no way to such an address")
		case !mailed && !slices.Contains([]sms.Channel{sms.SMS, sms.WhatsApp, sms.Voice}, channel), mailed && way.Type != Email:
			k.fail(at+"/type", "is not sms, whatsapp, voice or email")
		case slices.Contains(o.channels, channel):
			k.fail(at+"/type", "is there twice")
		}
		var timeout time.Duration
		if way.Timeout != "" {
			var err error
			if timeout, err = time.ParseDuration(way.Timeout); err != nil || !timeoutForm.MatchString(way.Timeout) || timeout < minTimeout || timeout > maxTimeout {
				k.fail(at+"/timeout", fmt.Sprintf("is not %ds to %dm", int(minTimeout.Seconds()), int(maxTimeout.Minutes())))
			}
		}
		o.channels, o.request.Channels = append(o.channels, channel), append(o.request.Channels, way.Type)
		if i < len(r.Channels)-1 && timeout > 0 {
			o.request.Timeouts = append(append(o.request.Timeouts, make([]int, i-len(o.request.Timeouts))...), int(timeout.Seconds()))
		}
	}
	o.following = o.request.timeout(0)
	if len(r.Channels) > 3 {
		k.fail("/channels", "has more than three")
	}
}

// of fills in what was asked for.
func (v *Verification) of(c *Caller, a *asked, hint, country, ref string) {
	v.Test, v.To, v.Country, v.ClientRef = c.Test, "••"+hint, country, ref
	v.Purpose, v.Locale, v.Template, v.Metadata = a.Purpose, a.Locale, a.Template, a.Metadata
	v.Transaction = a.Transaction
}

// masked is a transaction as it is kept and told again: of the account the last four characters.
func (t *Transaction) masked() *Transaction {
	shown := *t
	if account := []rune(t.Account); len(account) > 4 {
		shown.Account = strings.Repeat("•", len(account)-4) + string(account[len(account)-4:])
	}
	return &shown
}

// fresh is a verification that has just been made.
func fresh(c *Caller, o *order, n *created) Verification {
	v := Verification{ID: writeID(verificationPrefix, n.ID), Status: StatusPending, AttemptsLeft: n.MaxAttempts, Deliveries: []Delivery{},
		CreatedAt: n.CreatedAt.UTC(), ExpiresAt: n.ExpiresAt.UTC()}
	at := n.NextSendAt.UTC()
	v.ResendAt = &at
	v.of(c, &o.request, o.to.hint(), o.to.country(), o.ref)
	return v
}

// unknownAfter is how long a report is waited for.
const unknownAfter = time.Hour

// show is a verification as it stands.
func (r *record) show(c *Caller) (Verification, error) {
	v := Verification{ID: writeID(verificationPrefix, r.ID), AttemptsLeft: r.state.AttemptsLeft(), CreatedAt: r.CreatedAt.UTC(), ExpiresAt: r.state.ExpiresAt.UTC()}
	v.Status, v.Reason = status(r.state, r.Now)
	if v.Status == StatusPending && r.state.NextSendAt != nil {
		at := r.state.NextSendAt.UTC()
		v.ResendAt = &at
	}
	switch {
	case v.Status == StatusExpired: // however much later that was noticed
		v.EndedAt = &v.ExpiresAt
	case r.state.EndedAt != nil:
		at := r.state.EndedAt.UTC()
		v.EndedAt = &at
	}
	v.of(c, &r.asked, r.Hint, r.Country, r.Ref)
	if c.Test {
		v.Deliveries = r.Scenario.pretend(writeID(deliveryPrefix, r.ID), v.CreatedAt, r.Now.Sub(r.CreatedAt), &r.asked)
		return v, nil
	}
	var err error
	v.Deliveries, err = deliveries(r.Deliveries, r.Now)
	return v, err
}

// last is the newest text; nil: none is known.
func (v *Verification) last() *Delivery {
	if len(v.Deliveries) == 0 {
		return nil
	}
	return &v.Deliveries[len(v.Deliveries)-1]
}

var _ factors.Factor = (*issuing)(nil)
