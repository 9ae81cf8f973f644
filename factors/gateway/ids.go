package gateway

import (
	"encoding/base32"
	"strings"

	"github.com/google/uuid"
)

// Prefixes of ids, by what they name.
const (
	verificationPrefix = "vrf_"
	deliveryPrefix     = "dlv_"
	keyPrefix          = "key_"
)

var base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// idLength is that of an id without its prefix.
const idLength = 26

func writeID(prefix string, id uuid.UUID) string { return prefix + base32Lower.EncodeToString(id[:]) }

// readID reads what writeID wrote, and no other spelling of it.
func readID(prefix, text string) (id uuid.UUID, ok bool) {
	rest, found := strings.CutPrefix(text, prefix)
	if !found || len(rest) != idLength {
		return uuid.Nil, false
	}
	raw, err := base32Lower.DecodeString(rest)
	if err != nil || len(raw) != len(id) {
		return uuid.Nil, false
	}
	id = uuid.UUID(raw)
	return id, writeID(prefix, id) == text
}

// KeyID writes the id of a key as people see it.
func KeyID(id uuid.UUID) string { return writeID(keyPrefix, id) }

// ParseKeyID reads what [KeyID] wrote.
func ParseKeyID(text string) (uuid.UUID, bool) { return readID(keyPrefix, text) }
