package factors

import (
	"encoding/base64"
	"encoding/json"
	"strings"
)

// wrapped is base64 as PostgreSQL writes it: with a line break after every 76 characters.
type wrapped []byte

// UnmarshalJSON implements json.Unmarshaler.
func (w *wrapped) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	decoded, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))
	*w = decoded
	return err
}
