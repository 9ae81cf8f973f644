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
