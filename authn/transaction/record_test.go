package transaction_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/authn/transaction"
)

func order() transaction.Order {
	return transaction.Order{
		Amount: "129.90", Currency: "EUR", Payees: []transaction.Payee{{Name: "Gas AG", Account: "DE02100100109307118603"}},
		Reference: "Invoice 4711", Type: "payment", ExpiresIn: 5 * time.Minute, Locale: "en",
	}
}

func normalized(t testing.TB, o transaction.Order) transaction.Order {
	t.Helper()
	o, _, err := o.Normalize()
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// record is one that is the same every time.
func record(o transaction.Order) transaction.Record {
	return transaction.Record{ID: uuid.MustParse("9b2f0c1e-5d0a-4c59-8f38-1d2b7a1c7f10"), Nonce: "000102030405060708090a0b0c0d0e0f", Client: "bank", User: "alice", Order: o}
}

func TestAmounts(t *testing.T) { // TX-21
	t.Parallel()
	for _, tt := range []struct{ amount, currency, want string }{
		{"129.90", "EUR", "129.90"}, {"129.9", "EUR", "129.90"}, {"129", "EUR", "129.00"}, {"0.01", "EUR", "0.01"}, {"5", "JPY", "5"}, {"1.5", "KWD", "1.500"},
		{"999999999999.99", "EUR", "999999999999.99"},
		{amount: "1,000.00", currency: "EUR"}, {amount: "-5", currency: "EUR"}, {amount: "+5", currency: "EUR"}, {amount: "1e3", currency: "EUR"}, {amount: "NaN", currency: "EUR"},
		{amount: "1000000000000000000000000000000", currency: "EUR"}, {amount: "1.234", currency: "EUR"}, {amount: "1.0", currency: "JPY"}, {amount: "5", currency: "eur"},
		{amount: "5", currency: "XXX"}, {amount: "5", currency: "DEM"}, {amount: "5", currency: "E U"}, {amount: "", currency: "EUR"}, {amount: ".5", currency: "EUR"}, {amount: "5.", currency: "EUR"},
		{amount: "05", currency: "EUR"}, {amount: "0.00", currency: "EUR"}, {amount: " 5", currency: "EUR"}, {amount: "٥", currency: "EUR"}, {amount: "5", currency: ""}, {amount: "0x10", currency: "EUR"},
	} {
		o := order()
		o.Amount, o.Currency = tt.amount, tt.currency
		got, _, err := o.Normalize()
		if invalid := new(transaction.InvalidError); tt.want == "" && !errors.As(err, &invalid) {
			t.Errorf("%q %s: error = %v, want an InvalidError", tt.amount, tt.currency, err)
		}
		if got.Amount != tt.want {
			t.Errorf("%q %s = %q, want %q", tt.amount, tt.currency, got.Amount, tt.want)
		}
	}
}

func TestRefusals(t *testing.T) { // TXN-5: what is shown is what is bound
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(o *transaction.Order)
		at     string
	}{
		{"control", func(o *transaction.Order) { o.Payees[0].Name = "Gas\x00AG" }, "/payee/name"},
		{"line", func(o *transaction.Order) { o.Payees[0].Name = "Gas\nAG" }, "/payee/name"},
		{"line separator", func(o *transaction.Order) { o.Reference = "a\u2028b" }, "/reference"},
		{"bidi override", func(o *transaction.Order) { o.Payees[0].Name = "Gas \u202eGA" }, "/payee/name"},
		{"bidi isolate", func(o *transaction.Order) { o.Payees[0].Name = "Gas \u2066AG\u2069" }, "/payee/name"},
		{"right-to-left mark", func(o *transaction.Order) { o.Reference = "a\u200f" }, "/reference"},
		{"zero width", func(o *transaction.Order) { o.Payees[0].Name = "Gas\u200bAG" }, "/payee/name"},
		{"joiner", func(o *transaction.Order) { o.Payees[0].Name = "Gas\u200dAG" }, "/payee/name"},
		{"byte order mark", func(o *transaction.Order) { o.Payees[0].Name = "\ufeffGas AG" }, "/payee/name"},
		{"soft hyphen", func(o *transaction.Order) { o.Payees[0].Name = "Gas\u00adAG" }, "/payee/name"},
		{"variation", func(o *transaction.Order) { o.Payees[0].Name = "Gas\ufe0f AG" }, "/payee/name"},
		{"tag", func(o *transaction.Order) { o.Payees[0].Name = "Gas AG\U000e0041" }, "/payee/name"},
		{"filler", func(o *transaction.Order) { o.Payees[0].Name = "Gas\u3164AG" }, "/payee/name"},
		{"private", func(o *transaction.Order) { o.Payees[0].Name = "Gas \ue000" }, "/payee/name"},
		{"not UTF-8", func(o *transaction.Order) { o.Payees[0].Name = "Gas \xff" }, "/payee/name"},
		{"replacement", func(o *transaction.Order) { o.Payees[0].Name = "Gas \ufffd" }, "/payee/name"},
		{"mark first", func(o *transaction.Order) { o.Payees[0].Name = "\u0301Gas" }, "/payee/name"},
		{"marks", func(o *transaction.Order) { o.Payees[0].Name = "G" + strings.Repeat("\u0301", 9) }, "/payee/name"},
		{"no name", func(o *transaction.Order) { o.Payees[0].Name = "  " }, "/payee/name"},
		{"long name", func(o *transaction.Order) { o.Payees[0].Name = strings.Repeat("x", 71) }, "/payee/name"},
		{"huge name", func(o *transaction.Order) { o.Payees[0].Name = strings.Repeat("x", 1<<20) }, "/payee/name"},
		{"IBAN with a digit changed", func(o *transaction.Order) { o.Payees[0].Account = "DE02100100109307118604" }, "/payee/account"},
		{"IBAN with digits exchanged", func(o *transaction.Order) { o.Payees[0].Account = "DE02100100109307118630" }, "/payee/account"},
		{"long account", func(o *transaction.Order) { o.Payees[0].Account = strings.Repeat("1", 35) }, "/payee/account"},
		{"no payee", func(o *transaction.Order) { o.Payees = nil }, "/payee"},
		{"101 payees", func(o *transaction.Order) { o.Payees = make([]transaction.Payee, 101) }, "/payees"},
		{"one account, two names", func(o *transaction.Order) {
			o.Payees = append(o.Payees, transaction.Payee{Name: "Friend", Account: o.Payees[0].Account})
		}, "/payees"},
		{"long reference", func(o *transaction.Order) { o.Reference = strings.Repeat("x", 141) }, "/reference"},
		{"type", func(o *transaction.Order) { o.Type = "gift" }, "/type"},
		{"too long a life", func(o *transaction.Order) { o.ExpiresIn = 11 * time.Minute }, "/expires_in"},
		{"too short a life", func(o *transaction.Order) { o.ExpiresIn = time.Second }, "/expires_in"},
		{"part of a second", func(o *transaction.Order) { o.ExpiresIn = 90500 * time.Millisecond }, "/expires_in"},
		{"locale", func(o *transaction.Order) { o.Locale = "not a language" }, "/locale"},
	} {
		o := order()
		tt.change(&o)
		_, _, err := o.Normalize()
		if invalid := new(transaction.InvalidError); !errors.As(err, &invalid) || invalid.Problems[0].Pointer != tt.at {
			t.Errorf("%s: error = %v, want one about %s", tt.name, err, tt.at)
		}
	}
}

func TestMixedScripts(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"Gas AG": false, "Gаs AG": true /* Cyrillic а */, "Газ": false, "東京ガス Tokyo": false, "Ελλάδα Ltd": true, "한국 Gas": false, "Café 24 №": false, "µ-Tec": false, "Αpple": true,
	} {
		o := order()
		o.Payees[0].Name = name
		_, warnings, err := o.Normalize()
		if err != nil || slices.Contains(warnings, transaction.MixedScript) != want {
			t.Errorf("%s: warnings %v, %v; mixed is %v", name, warnings, err, want)
		}
	}
}

// vector is one of testdata/vectors.json, which applications can check their own code with.
type vector struct {
	Order struct {
		Amount, Currency, Reference, Type, Locale string
		Payees                                    []transaction.Payee
		ExpiresIn                                 int `json:"expires_in"`
	}
	ID, Nonce, Client, User string
	Canonical               string
	SHA256                  string
}

func TestVectors(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(data, &vectors); err != nil || len(vectors) == 0 {
		t.Fatal(len(vectors), err)
	}
	for i, v := range vectors {
		id, err := transaction.ParseID(v.ID)
		if err != nil {
			t.Fatal(err)
		}
		r := transaction.Record{ID: id, Nonce: v.Nonce, Client: v.Client, User: v.User, Order: normalized(t, transaction.Order{
			Amount: v.Order.Amount, Currency: v.Order.Currency, Payees: v.Order.Payees, Reference: v.Order.Reference, Type: v.Order.Type, Locale: v.Order.Locale,
			ExpiresIn: time.Duration(v.Order.ExpiresIn) * time.Second,
		})}
		if got := string(r.Canonical()); got != v.Canonical {
			t.Errorf("vector %d: canonical\n%s, want\n%s", i, got, v.Canonical)
		}
		if got := hex.EncodeToString(r.Hash()); got != v.SHA256 {
			t.Errorf("vector %d: hash %s, want %s", i, got, v.SHA256)
		}
	}
}

// Whatever spelling an order has, it is one record.
func TestOneHash(t *testing.T) { // TXN-2, TXN-4, TX-21
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	base := order()
	base.Reference = "Café Zoë, № 7"
	base.Payees = append(base.Payees, transaction.Payee{Name: "Zoë Ångström", Account: "GB82WEST12345698765432"}, transaction.Payee{Name: "Cash", Account: "4711-0815 x"})
	want := record(normalized(t, base))
	for range 500 {
		o := base
		o.Amount = []string{"129.9", "129.90"}[random.IntN(2)]
		o.Reference = respell(random, o.Reference)
		o.Payees = slices.Clone(base.Payees)
		for i := range o.Payees {
			o.Payees[i].Name = respell(random, o.Payees[i].Name)
			if strings.HasPrefix(o.Payees[i].Account, "DE") || strings.HasPrefix(o.Payees[i].Account, "GB") {
				o.Payees[i].Account = grouped(random, o.Payees[i].Account)
			}
		}
		o.Payees = append(o.Payees, o.Payees[random.IntN(len(o.Payees))]) // a set has it once
		random.Shuffle(len(o.Payees), func(i, j int) { o.Payees[i], o.Payees[j] = o.Payees[j], o.Payees[i] })
		got := record(normalized(t, o))
		if !bytes.Equal(got.Hash(), want.Hash()) {
			t.Fatalf("another spelling is another record:\n%s\n%s", got.Canonical(), want.Canonical())
		}
		if diff := cmp.Diff(normalized(t, got.Order), got.Order); diff != "" {
			t.Fatalf("normalizing twice differs: %s", diff)
		}
	}
}

func respell(random *rand.Rand, s string) string {
	s = []func(string) string{norm.NFC.String, norm.NFD.String}[random.IntN(2)](s)
	s = strings.ReplaceAll(s, " ", []string{" ", "  ", "\u00a0", "\u2003 "}[random.IntN(4)])
	return strings.Repeat(" ", random.IntN(3)) + s + strings.Repeat(" ", random.IntN(3))
}

func grouped(random *rand.Rand, iban string) string {
	var b strings.Builder
	for i, r := range iban {
		if i%4 == 0 && random.IntN(2) == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(r)
	}
	if random.IntN(2) == 0 {
		return strings.ToLower(b.String())
	}
	return b.String()
}

// Whatever differs in a record, its hash differs.
func TestAnotherHash(t *testing.T) { // TXN-2, TXN-4
	t.Parallel()
	base := record(normalized(t, order()))
	seen := map[string]string{string(base.Hash()): "the record itself"}
	change := func(name string, do func(r *transaction.Record)) {
		r := base
		r.Payees = slices.Clone(base.Payees)
		do(&r)
		if before, same := seen[string(r.Hash())]; same {
			t.Errorf("%s has the hash of %s", name, before)
		}
		seen[string(r.Hash())] = name
	}
	change("one cent", func(r *transaction.Record) { r.Amount = "129.91" })
	change("ten times", func(r *transaction.Record) { r.Amount = "1299.00" })
	change("currency", func(r *transaction.Record) { r.Currency = "USD" })
	change("one letter", func(r *transaction.Record) { r.Payees[0].Name = "Gas Ag" })
	change("account", func(r *transaction.Record) { r.Payees[0].Account = "GB82WEST12345698765432" })
	change("another kind of account", func(r *transaction.Record) { r.Payees[0].Account = "DE02 100100109307118603" })
	change("no account", func(r *transaction.Record) { r.Payees[0].Account = "" })
	change("a payee more", func(r *transaction.Record) { r.Payees = append(r.Payees, transaction.Payee{Name: "Friend"}) })
	change("names moved", func(r *transaction.Record) { r.Payees[0].Name, r.Reference = r.Reference, r.Payees[0].Name })
	change("reference", func(r *transaction.Record) { r.Reference = "Invoice 4712" })
	change("no reference", func(r *transaction.Record) { r.Reference = "" })
	change("type", func(r *transaction.Record) { r.Type = "transfer" })
	change("life", func(r *transaction.Record) { r.ExpiresIn += time.Second })
	change("locale", func(r *transaction.Record) { r.Locale = "de" })
	change("client", func(r *transaction.Record) { r.Client = "shop" })
	change("user", func(r *transaction.Record) { r.User = "bob" })
	change("id", func(r *transaction.Record) { r.ID[0]++ })
	change("nonce", func(r *transaction.Record) { r.Nonce = "100102030405060708090a0b0c0d0e0f" })

	again := transaction.NewRecord("bank", "alice", order())
	other := transaction.NewRecord("bank", "alice", order())
	if bytes.Equal(again.Hash(), other.Hash()) {
		t.Error("two records of one order have one hash")
	}
}

// No change of one byte of a canonical record is the same record: it has another hash, or is none.
func TestOneByte(t *testing.T) {
	t.Parallel()
	r := record(normalized(t, order()))
	canonical := r.Canonical()
	for i := range canonical {
		for bit := range 8 {
			changed := bytes.Clone(canonical)
			changed[i] ^= 1 << bit
			if got, err := transaction.ParseRecord(changed); err == nil && bytes.Equal(got.Hash(), r.Hash()) {
				t.Fatalf("byte %d, bit %d: the same record", i, bit)
			}
		}
	}
	got, err := transaction.ParseRecord(canonical)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
}

func FuzzOrder(f *testing.F) {
	f.Add("129.90", "EUR", "Gas AG", "DE02100100109307118603", "Invoice 4711")
	f.Add("5", "JPY", "東京ガス", "", "")
	f.Add("1.5", "KWD", "Zoe\u0308", "gb82 west 1234 5698 7654 32", "a\u00a0b")
	f.Fuzz(func(t *testing.T, amount, currency, name, account, reference string) {
		o, _, err := (transaction.Order{Amount: amount, Currency: currency, Payees: []transaction.Payee{{Name: name, Account: account}}, Reference: reference}).Normalize()
		if err != nil {
			if invalid := new(transaction.InvalidError); !errors.As(err, &invalid) || len(invalid.Problems) == 0 {
				t.Fatalf("error = %v", err)
			}
			return
		}
		again, _, err := o.Normalize()
		if diff := cmp.Diff(o, again); err != nil || diff != "" {
			t.Fatalf("normalizing twice differs: %v %s", err, diff)
		}
		r := record(o)
		got, err := transaction.ParseRecord(r.Canonical())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.Hash(), r.Hash()) || !cmp.Equal(got, r) {
			t.Fatalf("read back as %s, was %s", got.Canonical(), r.Canonical())
		}
		for _, s := range []string{o.Payees[0].Name, o.Payees[0].Account, o.Reference} {
			if strings.ContainsAny(s, "\n\r\t\x00\u202e\u200b") {
				t.Fatalf("%q has what nobody sees", s)
			}
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	r := record(order())
	f.Add(r.Canonical())
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := transaction.ParseRecord(data)
		if err == nil && !bytes.Equal(got.Canonical(), data) {
			t.Fatalf("%q is read, and written as %q", data, got.Canonical())
		}
	})
}
