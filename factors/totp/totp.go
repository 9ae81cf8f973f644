// Package totp is the second factor by authenticator app: codes of six digits that app and server derive from a shared secret and the time,
// RFC 6238 with SHA-1 and steps of 30 seconds, which is what every app understands.
//
// The secret has 160 random bits and is sealed at rest. A step is accepted from one step before the server's time to one after it, once, and never
// when a newer one was accepted before: the last accepted step is kept in the authenticator's row, which the ledger's statement holds locked while it
// compares and writes, so that all replicas share it. The step of the code that confirms a new app is burnt like any other. The
// clock is the database's; the program derives the codes of the steps around the time at which it read the authenticator, and
// the statement chooses among them by its own.
//
// Its amr value is "otp", RFC 8176 section 2. Deriving codes is the work of github.com/pquerna/otp, which knows no replay: nothing of it that compares
// is used here.
package totp

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/lib/pq"
	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"

	"github.com/watchword-auth/watchword/factors"
)

// Kind is stored with every app.
const Kind = "totp"

const (
	// Period of a step, the default of RFC 6238 section 4.1 and the only one that all apps know.
	Period = 30 * time.Second
	// Drift is how many steps an app's clock may be behind or ahead: RFC 6238 section 5.2 recommends one at most.
	Drift = 1

	digits     = 6
	secretSize = 20               // 160 bits: RFC 4226 section 4, R6
	life       = 10 * time.Minute // of a challenge: SP 800-63B-4 section 3.1.3.2
	lag        = 2                // steps that may pass between reading an authenticator and the statement that compares
)

// Factor checks codes of apps. Make one with [New].
type Factor struct {
	keys   factors.Keys
	issuer string
}

// New makes the factor. issuer is the service's name, which apps show beside the code.
func New(keys factors.Keys, issuer string) (*Factor, error) {
	if strings.TrimSpace(issuer) == "" {
		return nil, errors.New("totp: the service needs a name, for apps to show")
	}
	return &Factor{keys: keys, issuer: plain(issuer)}, nil
}

// plain is a name without what separates issuer and account in an otpauth URI.
func plain(name string) string { return strings.TrimSpace(strings.ReplaceAll(name, ":", " ")) }

// Kind implements factors.Factor.
func (*Factor) Kind() string { return Kind }

// AMR implements factors.Factor.
func (*Factor) AMR() []string { return []string{"otp"} }

// Restricted implements factors.Factor.
func (*Factor) Restricted() bool { return false }

// Page implements factors.Paged.
func (*Factor) Page() factors.Page { return factors.Page{Name: "app", Digits: true} }

// Parse implements factors.Factor.
func (*Factor) Parse(typed string) (string, error) { return factors.ParseTyped(typed, digits) }

// Issue implements factors.Factor: nothing is sent, the app knows the code.
func (*Factor) Issue(context.Context, factors.Authenticator, factors.Prompt) (factors.Issued, error) {
	return factors.Issued{Life: life}, nil
}

// Provision implements factors.Provisioner.
func (f *Factor) Provision(subject uuid.UUID, account string) (factors.Authenticator, factors.Setup, error) {
	secret := make([]byte, secretSize)
	if _, err := rand.Read(secret); err != nil {
		return factors.Authenticator{}, factors.Setup{}, fmt.Errorf("totp: make a secret: %w", err)
	}
	a := factors.Authenticator{ID: uuid.New(), Subject: subject, Kind: Kind, Data: secret}
	setup, err := f.Setup(a, account)
	return a, setup, err
}

// Setup implements factors.Provisioner. The URI is in the form that all apps scan: otpauth://totp/issuer:account?secret=…&issuer=….
func (f *Factor) Setup(a factors.Authenticator, account string) (factors.Setup, error) {
	if len(a.Data) != secretSize { // the library would make another one up
		return factors.Setup{}, fmt.Errorf("totp: authenticator %s has no secret", a.ID)
	}
	if account = plain(account); account == "" {
		account = f.issuer
	}
	key, err := totp.Generate(totp.GenerateOpts{Issuer: f.issuer, AccountName: account, Secret: a.Data, Period: uint(Period.Seconds()), Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return factors.Setup{}, errors.New("totp: no address for apps can be made of that secret and name") // the library's words could hold the secret
	}
	return factors.Setup{Secret: key.Secret(), URI: key.URL()}, nil
}

// macLabel keeps hashes of codes apart from all others.
const macLabel = "totp code"

// Check implements factors.Checker. The statement gets keyed hashes of the codes around the time at which a was read, with their steps, and that of the
// answer.
func (f *Factor) Check(_ context.Context, a factors.Authenticator, answer string, bind func(any) string) (factors.Check, error) {
	if a.ReadAt.IsZero() {
		return factors.Check{}, errors.New("totp: the authenticator was not read from the ledger")
	}
	now := a.ReadAt.Unix() / int64(Period.Seconds())
	var steps []int64
	var macs [][]byte
	for step := max(0, now-Drift-lag); step <= now+Drift+lag; step++ {
		code, err := Code(a.Data, step)
		if err != nil {
			return factors.Check{}, err
		}
		steps, macs = append(steps, step), append(macs, f.mac(a.ID, step, code))
	}
	typed := make([][]byte, len(steps))
	for i, step := range steps {
		typed[i] = f.mac(a.ID, step, answer)
	}
	// The newest step that the answer is the code of, should there be two.
	matched := fmt.Sprintf(`(SELECT max(t.step) FROM unnest(%s::bigint[], %s::bytea[], %s::bytea[]) AS t(step, mac, typed)
		WHERE t.mac = t.typed AND abs(t.step - floor(extract(epoch FROM wall()) / %d)) <= %d)`,
		bind(pq.Array(steps)), bind(pq.Array(macs)), bind(pq.Array(typed)), int(Period.Seconds()), Drift)
	return factors.Check{
		Right: matched + " > a.counter",
		Used:  matched + " <= a.counter",
		Spend: "counter = greatest(a.counter, " + matched + ")",
	}, nil
}

func (f *Factor) mac(id uuid.UUID, step int64, code string) []byte {
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step))
	return f.keys.Hash(macLabel, id[:], counter[:], []byte(code))
}

// Code is the code of one time step, as the app shows it: RFC 6238 section 4.2.
func Code(secret []byte, step int64) (string, error) {
	code, err := hotp.GenerateCodeCustom(base32.StdEncoding.EncodeToString(secret), uint64(step), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
	if err != nil {
		return "", errors.New("totp: no code can be derived from that secret") // the library's words could hold the secret
	}
	return code, nil
}

// Step is the time step of a moment.
func Step(at time.Time) int64 { return at.Unix() / int64(Period.Seconds()) }
