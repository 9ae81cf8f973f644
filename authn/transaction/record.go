package transaction

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/uuid"
	"golang.org/x/text/language"

	"github.com/watchword-auth/watchword/internal/payment"
)

// Bounds of a record.
const (
	MaxName      = 70  // characters of a payee's name, as in SEPA credit transfers
	MaxAccount   = 34  // characters of an account, as in an IBAN
	MaxReference = 140 // characters of a reference, as in SEPA credit transfers
	MaxPayees    = 100 // of a batch

	Life    = 5 * time.Minute  // by default
	MinLife = time.Minute      // shorter, and no text arrives in time
	MaxLife = 10 * time.Minute // of what a code can approve: SP 800-63B-4 section 3.1.3.2
)

// Types of transactions. Pages choose their words by them; rules are the same for all.
func Types() []string { return []string{"payment", "transfer", "standing_order", "direct_debit"} }

// Payee is whom something is paid to.
type Payee struct {
	Name    string
	Account string // an IBAN, or any other account as text; may be empty
}

// Order is what an application wants to have confirmed. Every spelling of it comes to one [Record].
type Order struct {
	Amount    string // decimal: "129.90". Of a batch the total
	Currency  string // ISO 4217
	Payees    []Payee
	Reference string
	Type      string        // one of [Types]; "": payment
	ExpiresIn time.Duration // 0: [Life]
	Locale    string        // BCP 47; "": English
}

// Record is what is confirmed. Nothing of it ever changes: something else is another record.
type Record struct {
	ID     uuid.UUID
	Nonce  string // 128 random bits: nobody can try payees out on a hash
	Client string // the application that asks
	User   string // the name it knows the payer by
	Order         // as [Order.Normalize] made it
}

// Problem is one thing that is wrong with an order. It never repeats what was sent.
type Problem struct {
	Pointer string // RFC 6901, into the object that holds amount, currency, payees, reference, type, expires_in and locale
	Message string // goes on after the name of the member: "is required"
}

// InvalidError says what is wrong with an order. Tell the application; nothing was stored.
type InvalidError struct{ Problems []Problem }

func (e *InvalidError) Error() string {
	texts := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		texts[i] = p.Pointer + " " + p.Message
	}
	return "transaction: " + strings.Join(texts, "; ")
}

// Warnings about orders that are not refused.
const (
	// MixedScript: a name has letters of scripts that do not go together, as whoever imitates a name with letters that look alike writes it.
	MixedScript = "payee_mixed_script"
)

// normalizer collects what is wrong.
type normalizer struct{ problems []Problem }

func (n *normalizer) fail(pointer, format string, args ...any) {
	n.problems = append(n.problems, Problem{pointer, fmt.Sprintf(format, args...)})
}

// Normalize gives the one form that everything that means the same as o has, and what an application should be warned of. Its error is an [InvalidError]. It is idempotent.
func (o Order) Normalize() (Order, []string, error) {
	n := new(normalizer)
	o.Amount = n.amount(o.Amount, o.Currency)
	var warnings []string
	if o.Payees = n.payees(o.Payees); slices.ContainsFunc(o.Payees, func(p Payee) bool { return mixedScript(p.Name) }) {
		warnings = append(warnings, MixedScript)
	}
	o.Reference = n.text("/reference", o.Reference, MaxReference)
	if o.Type == "" {
		o.Type = Types()[0]
	}
	if !slices.Contains(Types(), o.Type) {
		n.fail("/type", "is none of %s", strings.Join(Types(), ", "))
	}
	if o.ExpiresIn == 0 {
		o.ExpiresIn = Life
	}
	if o.ExpiresIn < MinLife || o.ExpiresIn > MaxLife || o.ExpiresIn%time.Second != 0 {
		n.fail("/expires_in", "is not between %d and %d whole seconds", int(MinLife.Seconds()), int(MaxLife.Seconds()))
	}
	if o.Locale == "" {
		o.Locale = language.English.String()
	}
	if tag, err := language.Parse(o.Locale); err != nil || len(o.Locale) > 35 { // RFC 5646 section 4.4.1
		n.fail("/locale", "is no language tag such as de or pt-BR")
	} else {
		o.Locale = tag.String()
	}
	if n.problems != nil {
		return Order{}, nil, &InvalidError{n.problems}
	}
	return o, warnings, nil
}

// amount writes all decimals that the currency has.
func (n *normalizer) amount(amount, code string) string {
	if err := payment.Currency(code); err != nil {
		n.fail("/currency", "%v", err)
	}
	amount, err := payment.Amount(amount, code)
	if err != nil {
		n.fail("/amount", "%v", err)
	}
	return amount
}

// payees gives the set: each once, in one order.
func (n *normalizer) payees(list []Payee) []Payee {
	switch {
	case len(list) == 0:
		n.fail("/payee", "is required")
		return nil
	case len(list) > MaxPayees:
		n.fail("/payees", "has more than %d entries", MaxPayees)
		return nil
	}
	set := make([]Payee, len(list))
	for i, p := range list {
		at := "/payee"
		if len(list) > 1 {
			at = fmt.Sprintf("/payees/%d", i)
		}
		known := len(n.problems)
		set[i].Name = n.text(at+"/name", p.Name, MaxName)
		if set[i].Name == "" && len(n.problems) == known {
			n.fail(at+"/name", "is required")
		}
		set[i].Account = n.account(at+"/account", p.Account)
	}
	slices.SortFunc(set, func(a, b Payee) int {
		if c := strings.Compare(a.Account, b.Account); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	set = slices.Compact(set)
	for i := 1; i < len(set); i++ {
		if set[i].Account != "" && set[i].Account == set[i-1].Account {
			n.fail("/payees", "has one account under two names")
			break
		}
	}
	return set
}

// account is an IBAN in capital letters without spaces, or a text. What looks like an IBAN has to be one: a digit that was mistyped is another account.
func (n *normalizer) account(at, account string) string {
	account = n.text(at, account, 2*MaxAccount) // with spaces in it
	if iban := strings.ToUpper(strings.ReplaceAll(account, " ", "")); looksIBAN(iban) {
		if !validIBAN(iban) {
			n.fail(at, "is no IBAN: its check digits are wrong")
		}
		return iban
	}
	if utf8.RuneCountInString(account) > MaxAccount {
		n.fail(at, "has more than %d characters", MaxAccount)
	}
	return account
}

// text gives what was written as it is seen: in NFC, with single spaces and none at the ends. It refuses what is not seen, or makes other characters seem to be what they are not.
func (n *normalizer) text(at, s string, most int) string {
	if len(s) > 8*most {
		n.fail(at, "has more than %d characters", most)
		return ""
	}
	s, ok := payment.Visible(s)
	if !ok {
		n.fail(at, "has control, bidirectional, zero-width or private characters, or none that can be displayed")
		return ""
	}
	if utf8.RuneCountInString(s) > most {
		n.fail(at, "has more than %d characters", most)
	}
	return s
}

// NewRecord makes the record of an order that was normalized.
func NewRecord(client, user string, o Order) Record {
	nonce := make([]byte, 16)
	if _, err := rand.Read(nonce); err != nil {
		panic(err) // the operating system's random source never fails
	}
	return Record{ID: uuid.New(), Nonce: hex.EncodeToString(nonce), Client: client, User: user, Order: o}
}

// canonicalRecord has the members in the order of their names, RFC 8785 section 3.2.3.
type canonicalRecord struct {
	Amount    string           `json:"amount"`
	Client    string           `json:"client"`
	Currency  string           `json:"currency"`
	ExpiresIn int64            `json:"expires_in"`
	ID        string           `json:"id"`
	Locale    string           `json:"locale"`
	Nonce     string           `json:"nonce"`
	Payees    []canonicalPayee `json:"payees"`
	Reference string           `json:"reference,omitempty"`
	Type      string           `json:"type"`
	User      string           `json:"user"`
}

type canonicalPayee struct {
	Account string `json:"account,omitempty"` // that is no IBAN
	IBAN    string `json:"iban,omitempty"`
	Name    string `json:"name"`
}

// Canonical is the record as it is hashed: JSON in the canonical form of RFC 8785. See docs/transactions.md.
func (r *Record) Canonical() []byte {
	c := canonicalRecord{
		Amount: r.Amount, Client: r.Client, Currency: r.Currency, ExpiresIn: int64(r.ExpiresIn.Seconds()), ID: PublicID(r.ID), Locale: r.Locale, Nonce: r.Nonce,
		Reference: r.Reference, Type: r.Type, User: r.User,
	}
	for _, p := range r.Payees {
		if validIBAN(p.Account) {
			c.Payees = append(c.Payees, canonicalPayee{IBAN: p.Account, Name: p.Name})
		} else {
			c.Payees = append(c.Payees, canonicalPayee{Account: p.Account, Name: p.Name})
		}
	}
	plain, err := json.Marshal(c)
	if err != nil {
		panic(err) // texts and a number
	}
	return canonicalized(plain)
}

// canonicalized writes JSON in the form of RFC 8785. What is not JSON stays what it is.
func canonicalized(data []byte) []byte {
	value := jsontext.Value(bytes.Clone(data))
	if err := value.Canonicalize(); err != nil {
		return data
	}
	return value
}

// ErrNotCanonical says that bytes are not the canonical form of any record.
var ErrNotCanonical = errors.New("transaction: not a canonical record")

// ParseRecord reads what [Record.Canonical] made, and nothing else: a record has one form.
func ParseRecord(canonical []byte) (Record, error) {
	var c canonicalRecord
	d := json.NewDecoder(bytes.NewReader(canonical))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Record{}, ErrNotCanonical
	}
	r := Record{Nonce: c.Nonce, Client: c.Client, User: c.User, Order: Order{
		Amount: c.Amount, Currency: c.Currency, Reference: c.Reference, Type: c.Type, ExpiresIn: time.Duration(c.ExpiresIn) * time.Second, Locale: c.Locale,
	}}
	var err error
	if r.ID, err = ParseID(c.ID); err != nil {
		return Record{}, ErrNotCanonical
	}
	for _, p := range c.Payees {
		r.Payees = append(r.Payees, Payee{Name: p.Name, Account: p.IBAN + p.Account})
	}
	if !bytes.Equal(r.Canonical(), canonical) {
		return Record{}, ErrNotCanonical
	}
	return r, nil
}

// Hash is what a code is bound to: SHA-256 of the canonical form.
func (r *Record) Hash() []byte {
	sum := sha256.Sum256(r.Canonical())
	return sum[:]
}

// Repeat is what whoever sends a code says that it is for.
type Repeat struct {
	Amount, Currency string
	Payees           []Payee
}

// says reports whether a repeat means what the record has, in whatever spelling.
func (r *Record) says(again *Repeat) bool {
	n := new(normalizer)
	amount, payees := n.amount(again.Amount, again.Currency), n.payees(again.Payees)
	return n.problems == nil && amount == r.Amount && again.Currency == r.Currency && slices.Equal(payees, r.Payees)
}

// Tail is what is shown of an account: its last four characters.
func (p *Payee) Tail() string {
	runes := []rune(p.Account)
	return string(runes[max(0, len(runes)-4):])
}

// Masked is the account as people see it, with everything but its last four characters hidden; "" when there is none.
func (p *Payee) Masked() string {
	if p.Account == "" {
		return ""
	}
	return "••••" + p.Tail()
}

const idPrefix = "txn_"

// PublicID is the name of a transaction outside the database.
func PublicID(id uuid.UUID) string { return idPrefix + hex.EncodeToString(id[:]) }

// ParseID reads what [PublicID] gave.
func ParseID(text string) (uuid.UUID, error) {
	digits, found := strings.CutPrefix(text, idPrefix)
	raw, err := hex.DecodeString(digits)
	if !found || err != nil || len(raw) != len(uuid.UUID{}) || digits != strings.ToLower(digits) {
		return uuid.Nil, ErrUnknown
	}
	return uuid.UUID(raw), nil
}
