// Package keyfob is the second factor by a device with a button: each press shows the next code, RFC 4226 with six digits. It is the worked example of
// docs/adding-a-factor.md, complete but not installed: the program has to be told where the secrets of its fobs come from.
//
// Codes are accepted from the one after the last that was accepted to [Ahead] later, because people press the button for fun. The last
// accepted count is in the authenticator's row, which the ledger's statement holds locked while it compares and writes: each code is good once, and those that
// were skipped are good no more.
package keyfob

import (
	"context"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"github.com/watchword-auth/watchword/factors"
)

// Kind is stored with every fob.
const Kind = "hotp"

const (
	// Ahead is how many presses may have been for nothing: the look-ahead window of RFC 4226 section 7.4.
	Ahead = 10

	digits     = 6
	leastBytes = 16               // of a secret: RFC 4226 section 4, R6
	life       = 10 * time.Minute // of a challenge: SP 800-63B-4 section 3.1.3.2
	macLabel   = "hotp code"
)

// Factor checks codes of fobs. Make one with [New].
type Factor struct{ keys factors.Keys }

// New makes the factor.
func New(keys factors.Keys) (*Factor, error) {
	if keys == nil {
		return nil, errors.New("keyfob: codes need keys to be hashed with")
	}
	return &Factor{keys: keys}, nil
}

// Fob is the authenticator of a fob whose secret came with it. Propose it, and let its holder prove that the fob is at hand.
func Fob(subject uuid.UUID, serial string, secret []byte) (factors.Authenticator, error) {
	if len(secret) < leastBytes {
		return factors.Authenticator{}, fmt.Errorf("keyfob: a secret has %d bytes at least", leastBytes)
	}
	return factors.Authenticator{ID: uuid.New(), Subject: subject, Kind: Kind, Data: secret, Hint: serial[max(0, len(serial)-2):]}, nil
}

// Kind implements factors.Factor.
func (*Factor) Kind() string { return Kind }

// AMR implements factors.Factor.
func (*Factor) AMR() []string { return []string{"otp"} }

// Restricted implements factors.Factor.
func (*Factor) Restricted() bool { return false }

// Page implements factors.Paged.
func (*Factor) Page() factors.Page { return factors.Page{Name: "fob", Digits: true} }

// Parse implements factors.Factor.
func (*Factor) Parse(typed string) (string, error) { return factors.ParseTyped(typed, digits) }

// Issue implements factors.Factor: nothing is sent.
func (*Factor) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	return factors.Issued{Life: life}, nil
}

// Check implements factors.Checker.
func (f *Factor) Check(_ context.Context, a factors.Authenticator, answer string, bind func(any) string) (factors.Check, error) {
	var counts []int64
	var right, typed [][]byte
	for count := max(0, a.Counter); count <= a.Counter+Ahead; count++ {
		code, err := Code(a.Data, count)
		if err != nil {
			return factors.Check{}, err
		}
		counts, right, typed = append(counts, count), append(right, f.mac(a.ID, count, code)), append(typed, f.mac(a.ID, count, answer))
	}
	matched := fmt.Sprintf("FROM unnest(%s::bigint[], %s::bytea[], %s::bytea[]) AS t(count, mac, typed) WHERE t.mac = t.typed",
		bind(pq.Array(counts)), bind(pq.Array(right)), bind(pq.Array(typed)))
	return factors.Check{
		Right: "EXISTS (SELECT " + matched + " AND t.count > a.counter)",
		Used:  "EXISTS (SELECT " + matched + " AND t.count <= a.counter)",
		Spend: "counter = (SELECT min(t.count) " + matched + " AND t.count > a.counter)",
	}, nil
}

func (f *Factor) mac(id uuid.UUID, count int64, code string) []byte {
	return f.keys.Hash(macLabel, id[:], binary.BigEndian.AppendUint64(nil, uint64(count)), []byte(code))
}

// Code is what the fob shows at that count: RFC 4226 section 5.3.
func Code(secret []byte, count int64) (string, error) {
	code, err := hotp.GenerateCodeCustom(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret), uint64(count),
		hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return "", errors.New("keyfob: no code can be derived from that secret") // the library's words could hold the secret
	}
	return code, nil
}
