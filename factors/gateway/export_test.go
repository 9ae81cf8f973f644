package gateway

import (
	"errors"

	"github.com/google/uuid"
)

// Challenge is the challenge behind an id.
func Challenge(id string) (uuid.UUID, error) {
	found, ok := readID(verificationPrefix, id)
	if !ok {
		return uuid.Nil, errors.New("no id of a verification")
	}
	return found, nil
}

// Forget has a process hear of a change.
func (s *Tenants) Forget() { s.forget("") }

// VerificationID writes an id as the API does.
func VerificationID(id uuid.UUID) string { return writeID(verificationPrefix, id) }

// Canonical is the one spelling of an amount, if it is one.
func Canonical(amount string) (string, bool) {
	return canonicalAmount(amount), amountForm.MatchString(amount)
}
