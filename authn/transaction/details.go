package transaction

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/internal/payment"
	"github.com/watchword-auth/watchword/sms"
)

//go:embed locales/*.toml
var catalogues embed.FS

// DetailsType is the type of authorization_details, RFC 9396, that asks for a payment: the one of its own examples, section 2.
const DetailsType = "payment_initiation"

// Details reads authorization_details of [DetailsType] and says what they ask for. It is what package oidc calls a detail type. Make it with [NewDetails].
type Details struct {
	bundle  *i18n.Bundle
	matcher language.Matcher
	tags    []language.Tag
}

// NewDetails reads the catalogues.
func NewDetails() (*Details, error) {
	d := &Details{bundle: i18n.NewBundle(language.English), tags: []language.Tag{language.English}}
	d.bundle.RegisterUnmarshalFunc("toml", toml.Unmarshal)
	files, err := catalogues.ReadDir("locales")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		loaded, err := d.bundle.LoadMessageFileFS(catalogues, "locales/"+f.Name())
		if err != nil {
			return nil, fmt.Errorf("words of payments in %s: %w", f.Name(), err)
		}
		if loaded.Tag != language.English {
			d.tags = append(d.tags, loaded.Tag)
		}
	}
	d.matcher = language.NewMatcher(d.tags)
	return d, nil
}

// details is one element.
type details struct {
	Type      string   `json:"type"`
	Actions   []string `json:"actions,omitempty"` // "initiate", or left out
	Locations []string `json:"locations,omitempty"`
	Amount    *struct {
		Currency string `json:"currency"`
		Amount   string `json:"amount"`
	} `json:"instructedAmount"`
	Name      string          `json:"creditorName"`
	Account   *detailsAccount `json:"creditorAccount,omitempty"`
	Reference string          `json:"remittanceInformationUnstructured,omitempty"`
}

type detailsAccount struct {
	IBAN  string `json:"iban,omitempty"`
	Other string `json:"other,omitempty"`
}

var errDetails = errors.New("a member is not known, is missing or empty, or has another type; " +
	"it has type, instructedAmount {amount, currency}, creditorName, creditorAccount {iban or other}, remittanceInformationUnstructured, actions and locations")

// members are what an [Order] has, as an element calls it.
var members = strings.NewReplacer("/amount", "/instructedAmount/amount", "/currency", "/instructedAmount/currency", "/payee/name", "/creditorName", "/payee/account", "/creditorAccount",
	"/reference", "/remittanceInformationUnstructured")

// readDetails reads one element strictly.
func readDetails(element json.RawMessage) (*details, error) {
	if !jsontext.Value(element).IsValid() {
		return nil, errDetails
	}
	d := new(details)
	decoder := json.NewDecoder(bytes.NewReader(element))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(d); err != nil {
		return nil, errDetails // the cause could repeat what was sent
	}
	// The decoder takes names in any case, and null for anything: what it read has to be all that was sent.
	written, err := json.Marshal(d)
	if err != nil || !bytes.Equal(canonicalized(written), canonicalized(element)) {
		return nil, errDetails
	}
	if d.Amount == nil || len(d.Actions) > 1 || len(d.Actions) == 1 && d.Actions[0] != "initiate" || len(d.Locations) > 3 ||
		d.Account != nil && (d.Account.IBAN == "") == (d.Account.Other == "") {
		return nil, errDetails
	}
	for _, location := range d.Locations {
		if seen, ok := payment.Visible(location); !ok || seen != location || len(location) > 200 || !strings.HasPrefix(location, "https://") {
			return nil, errDetails
		}
	}
	return d, nil
}

// order is what the element wants to have confirmed.
func (d *details) order() (Order, error) {
	p := Payee{Name: d.Name}
	if d.Account != nil {
		p.Account = d.Account.IBAN + d.Account.Other
	}
	o, _, err := (Order{Amount: d.Amount.Amount, Currency: d.Amount.Currency, Payees: []Payee{p}, Reference: d.Reference}).Normalize()
	if invalid, ok := errors.AsType[*InvalidError](err); ok {
		for i, p := range invalid.Problems {
			invalid.Problems[i].Pointer = members.Replace(p.Pointer)
		}
	}
	if err == nil && d.Account != nil && validIBAN(o.Payees[0].Account) != (d.Account.IBAN != "") {
		err = &InvalidError{[]Problem{{"/creditorAccount", "has an IBAN that is none, or is one and says otherwise"}}}
	}
	return o, err
}

// Type is the member "type".
func (*Details) Type() string { return DetailsType }

// Canonical checks one element and gives it in the one form that everything that means the same has.
func (*Details) Canonical(element json.RawMessage) (json.RawMessage, error) {
	d, err := readDetails(element)
	if err != nil {
		return nil, err
	}
	o, err := d.order()
	if err != nil {
		return nil, err
	}
	d.Amount.Amount, d.Name, d.Reference = o.Amount, o.Payees[0].Name, o.Reference
	switch {
	case d.Account == nil:
	case d.Account.IBAN != "":
		d.Account.IBAN = o.Payees[0].Account
	default:
		d.Account.Other = o.Payees[0].Account
	}
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return canonicalized(plain), nil
}

// Order is what a canonical element wants to have confirmed, for [Request].
func (*Details) Order(element json.RawMessage) (Order, error) {
	d, err := readDetails(element)
	if err != nil {
		return Order{}, err
	}
	return d.order()
}

// Describe says in a language what a person allows. Accounts are masked except their last four characters.
func (x *Details) Describe(locale string, element json.RawMessage) []string {
	o, err := x.Order(element)
	if err != nil {
		return nil
	}
	_, index := language.MatchStrings(x.matcher, locale)
	tag := x.tags[index].String()
	words := i18n.NewLocalizer(x.bundle, tag)
	var lines []string
	say := func(id, value string) {
		text, err := words.Localize(&i18n.LocalizeConfig{MessageID: id, TemplateData: map[string]any{"Value": value}})
		if err == nil && value != "" {
			lines = append(lines, text)
		}
	}
	p := o.Payees[0]
	say("details.amount", sms.FormatAmount(o.Amount, o.Currency, tag))
	say("details.payee", p.Name)
	say("details.account", p.Masked())
	say("details.reference", o.Reference)
	return lines
}
