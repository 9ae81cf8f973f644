// Package backupcode is the second factor for when all others are out of reach: ten codes on paper or in a safe place, each good once.
//
// A code has 80 random bits, written as four groups of four characters of Crockford's alphabet, in which nothing looks like something else: at least
// 64 bits are wanted (SP 800-63B-4 sections 3.1.2 and 4.2.1.1), and three groups would hold 60. Stored are HMAC-SHA-256 values under the ledger's key, in the row of the one
// authenticator that a subject has of this kind. The statement that consumes the challenge moves the code from those that are left to those that
// are used; a new set takes the place of the old one by one INSERT … ON CONFLICT UPDATE.
//
// Backup codes are good for signing in, and as one of the proofs of a recovery: they add nothing to a session that has a factor, confirm no transaction and change no factor. They rank
// with restricted factors. Their amr value is "x_backup": RFC 8176 registers none.
package backupcode

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/factors"
)

// Kind is stored with every set.
const Kind = "backup_code"

const (
	// Count of codes in a set.
	Count = 10

	size     = 10               // bytes of a code: 80 bits
	length   = size * 8 / 5     // characters of a code
	group    = 4                // characters that are written together
	maxTyped = 200              // bounds what is looked at
	life     = 10 * time.Minute // of a challenge: SP 800-63B-4 section 3.1.3.2
	alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// Factor checks backup codes. Make one with [New].
type Factor struct{ keys factors.Keys }

// New makes the factor.
func New(keys factors.Keys) (*Factor, error) {
	if keys == nil {
		return nil, errors.New("backupcode: codes need keys to be hashed with")
	}
	return &Factor{keys: keys}, nil
}

// Kind implements factors.Factor.
func (*Factor) Kind() string { return Kind }

// AMR implements factors.Factor.
func (*Factor) AMR() []string { return []string{"x_backup"} }

// Restricted implements factors.Factor: no telephone network is involved, but whoever finds the paper has them all.
func (*Factor) Restricted() bool { return true }

// Serves implements factors.Confined.
func (*Factor) Serves(p factors.Purpose) bool { return p == factors.Login || p == factors.Recover }

// Page implements factors.Paged.
func (*Factor) Page() factors.Page { return factors.Page{Name: "backup"} }

// Issue implements factors.Factor: nothing is sent, the codes are with their owner.
func (*Factor) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	return factors.Issued{Life: life}, nil
}

// Parse implements factors.Factor: any case, grouped by whatever; O is 0, I and L are 1.
func (*Factor) Parse(typed string) (string, error) {
	if len(typed) > maxTyped {
		return "", factors.ErrCodeLong
	}
	var code strings.Builder
	foreign := false
	for _, r := range norm.NFKC.String(typed) {
		switch r = unicode.ToUpper(r); r {
		case 'O':
			r = '0'
		case 'I', 'L':
			r = '1'
		}
		switch {
		case strings.ContainsRune(alphabet, r):
			code.WriteRune(r)
		case unicode.IsLetter(r), unicode.IsDigit(r):
			foreign = true
		}
	}
	switch n := code.Len(); {
	case foreign:
		return "", factors.ErrCodeChars
	case n == 0:
		return "", factors.ErrCodeEmpty
	case n < length:
		return "", factors.ErrCodeShort
	case n > length:
		return "", factors.ErrCodeLong
	}
	return code.String(), nil
}

// Provision implements factors.Provisioner: a whole new set. Bound, it takes the place of the one before: a subject has one authenticator of this kind,
// whose id is the same every time.
func (f *Factor) Provision(subject uuid.UUID, _ string) (factors.Authenticator, factors.Setup, error) {
	a := factors.Authenticator{ID: uuid.NewSHA1(subject, []byte(Kind)), Subject: subject, Kind: Kind}
	set := uuid.New() // tells one set from the next
	a.Data = set[:]
	var setup factors.Setup
	for range Count {
		random := make([]byte, size)
		if _, err := rand.Read(random); err != nil {
			return factors.Authenticator{}, factors.Setup{}, fmt.Errorf("backupcode: make a code: %w", err)
		}
		code := encoding.EncodeToString(random)
		a.Codes = append(a.Codes, f.keys.Hash(macLabel, a.ID[:], []byte(code)))
		setup.Codes = append(setup.Codes, written(code))
	}
	return a, setup, nil
}

// written is a code as people read it: 7K3M-Q2ZT-0VXH-9D4C.
func written(code string) string {
	groups := make([]string, 0, length/group)
	for i := 0; i < len(code); i += group {
		groups = append(groups, code[i:i+group])
	}
	return strings.Join(groups, "-")
}

// Setup implements factors.Provisioner: codes are shown once, when they are made.
func (*Factor) Setup(factors.Authenticator, string) (factors.Setup, error) {
	return factors.Setup{}, nil
}

// macLabel keeps hashes of codes apart from all others.
const macLabel = "backup code"

// Check implements factors.Checker. The hashes that the answer could have been stored as, one for each key, are looked up in the row.
func (f *Factor) Check(_ context.Context, a factors.Authenticator, answer string, bind func(any) string) (factors.Check, error) {
	typed := bind(pq.Array(f.keys.Hashes(macLabel, a.ID[:], []byte(answer)))) + "::bytea[]"
	return factors.Check{
		Right: "a.codes_left && " + typed,
		Used:  "a.codes_used && " + typed,
		Spend: fmt.Sprintf(`codes_left = ARRAY(SELECT c FROM unnest(a.codes_left) c WHERE c <> ALL (%[1]s)),
			codes_used = a.codes_used || ARRAY(SELECT c FROM unnest(a.codes_left) c WHERE c = ANY (%[1]s))`, typed),
	}, nil
}
