package gateway

import (
	"encoding/hex"
	"strings"

	"github.com/google/uuid"
)

// Prefixes of ids, by what they name.
const (
	verificationPrefix = "vrf_"
	deliveryPrefix     = "dlv_"
	keyPrefix          = "key_"
)

func writeID(prefix string, id uuid.UUID) string { return prefix + hex.EncodeToString(id[:]) }

// writeIDSQL is writeID for an SQL expression.
func writeIDSQL(prefix, id string) string {
	return "'" + prefix + "' || replace(" + id + "::text, '-', '')"
}

// readID reads what writeID wrote, and no other spelling of it.
func readID(prefix, text string) (id uuid.UUID, ok bool) {
	digits, found := strings.CutPrefix(text, prefix)
	if !found || len(digits) != hex.EncodedLen(len(id)) {
		return uuid.Nil, false
	}
	if _, err := hex.Decode(id[:], []byte(digits)); err != nil {
		return uuid.Nil, false
	}
	return id, writeID(prefix, id) == text
}

// KeyID writes the id of a key as people see it.
func KeyID(id uuid.UUID) string { return writeID(keyPrefix, id) }

// ParseKeyID reads what [KeyID] wrote.
func ParseKeyID(text string) (uuid.UUID, bool) { return readID(keyPrefix, text) }
