package transaction

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/uuid"
)

// ReceiptType is the header typ of results: no other token is one, and a result is no other token.
const ReceiptType = "txn-receipt+jwt"

// Signer signs results with a key that applications find at the issuer's jwks_uri.
type Signer interface {
	// SignAs makes a compact JWS of payload with header typ.
	SignAs(typ string, payload []byte) (string, error)
}

// Receipt is a signed result: what was decided, on what grounds, and what was shown.
type Receipt struct {
	Issuer   string `json:"iss"`
	Audience string `json:"aud"` // the application
	Subject  string `json:"sub"`
	ID       string `json:"jti"`
	IssuedAt int64  `json:"iat"` // when it was decided
	Expires  int64  `json:"exp"` // do not act upon it later

	Transaction string          `json:"txn"`
	SHA256      string          `json:"transaction_sha256"` // base64url of SHA-256 of the canonical form of the record
	Record      json.RawMessage `json:"transaction"`        // which may be written in any form here
	State       State           `json:"status"`

	ACR      string   `json:"acr"`
	AMR      []string `json:"amr"`
	AuthTime int64    `json:"auth_time"`
	Shown    []Shown  `json:"shown"`
	// ShownText is the text that the code came in, with a mark in its place: the first of Shown.
	ShownText string    `json:"shown_text"`
	Challenge uuid.UUID `json:"challenge_id"` // what the code answered, as the audit has it
}

// ErrNoResult says that there is nothing to sign: only an approval has a result.
var ErrNoResult = errors.New("transaction: not approved")

// Result signs the result of an approved transaction. However often it is signed it is one result: jti, times and everything else stay the same, and it is worth nothing after
// [Config.ResultLife].
func (s *Service) Result(t *Transaction) (string, error) {
	if t.State != Approved {
		return "", ErrNoResult
	}
	payload, err := json.Marshal(Receipt{
		Issuer: s.Issuer, Audience: t.Client, Subject: t.User, ID: t.resultID.String(), IssuedAt: t.DecidedAt.Unix(), Expires: t.DecidedAt.Add(s.Config.ResultLife).Unix(),
		Transaction: PublicID(t.ID), SHA256: base64.RawURLEncoding.EncodeToString(t.Hash), Record: t.Canonical, State: t.State,
		ACR: t.ACR, AMR: t.AMR, AuthTime: t.AuthTime.Unix(), Shown: t.Shown,
		ShownText: t.Shown[0].Text, Challenge: t.challenge,
	})
	if err != nil {
		return "", err
	}
	signed, err := s.Signer.SignAs(ReceiptType, payload)
	if err != nil {
		return "", fmt.Errorf("sign result: %w", err)
	}
	return signed, nil
}

// Errors of [ReadReceipt] and [Receipt.Current].
var (
	// ErrForged: not signed with one of the keys, or changed since.
	ErrForged = errors.New("transaction: not a result that these keys signed")
	// ErrBroken: signed, and yet not the result of one transaction: what it holds does not fit together.
	ErrBroken = errors.New("transaction: the result does not fit its record")
	// ErrAudience: the result is another application's.
	ErrAudience = errors.New("transaction: the result is for another application")
	// ErrStale: too late to act upon it. As evidence it is as good as ever.
	ErrStale = errors.New("transaction: the result is too old to act upon")
)

// ReadReceipt checks a result off-line: that one of keys signed it, and that record, hash and identifiers belong together. Whoever acts upon it asks [Receipt.Current] besides.
func ReadReceipt(token string, keys jose.JSONWebKeySet) (*Receipt, Record, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.EdDSA})
	if err != nil || signed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType] != ReceiptType {
		return nil, Record{}, ErrForged
	}
	var payload []byte
	header := signed.Signatures[0].Protected
	for _, key := range keys.Key(header.KeyID) {
		if key.Algorithm != header.Algorithm || !key.IsPublic() {
			continue
		}
		if payload, err = signed.Verify(key); err == nil {
			break
		}
		payload = nil
	}
	if payload == nil {
		return nil, Record{}, ErrForged
	}
	r := new(Receipt)
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return nil, Record{}, ErrBroken
	}
	record, err := ParseRecord(canonicalized(r.Record))
	if err != nil {
		return nil, Record{}, ErrBroken
	}
	sum := sha256.Sum256(record.Canonical())
	if r.SHA256 != base64.RawURLEncoding.EncodeToString(sum[:]) || r.Transaction != PublicID(record.ID) || r.Audience != record.Client || r.Subject != record.User ||
		r.State != Approved || len(r.Shown) == 0 || r.ShownText != r.Shown[0].Text || r.Challenge == uuid.Nil || len(r.AMR) == 0 || slices.Contains(r.AMR, "") {
		return nil, Record{}, ErrBroken
	}
	return r, record, nil
}

// Current reports whether the application may act upon the result at now. That it has not done so before is for the application to know, by jti.
func (r *Receipt) Current(client string, now time.Time) error {
	switch {
	case r.Audience != client:
		return ErrAudience
	case !now.Before(time.Unix(r.Expires, 0)) || now.Before(time.Unix(r.IssuedAt, 0).Add(-time.Minute)):
		return ErrStale
	}
	return nil
}
