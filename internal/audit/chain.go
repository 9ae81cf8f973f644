package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Errors of a head.
var (
	// ErrForged: the head does not bear the signature of its key. Somebody wrote it who has no key; nothing is linked behind it.
	ErrForged = errors.New("audit: the head of the chain bears no valid signature")
	// ErrOtherKey: the key that signed is not in the ring. The cure is to restore the older key files.
	ErrOtherKey = errors.New("audit: the head of the chain is signed with a key that is not in the key files")
)

// Keys are those that heads are signed with, the newest first. They live outside the database.
type Keys interface {
	SigningKeys(label string) []ed25519.PrivateKey
}

// label is what the signing keys are made for.
const label = "audit chain"

// Link ties a record to the chain.
type Link struct {
	Seq     int64     `db:"seq"` // 1, 2, 3 …
	EventID uuid.UUID `db:"event_id"`
	At      time.Time `db:"at"` // of the record
	Digest  Hash      `db:"digest"`
	Hash    Hash      `db:"hash"`
}

// after is the hash of the link when it follows the one with hash previous: SHA-256 of previous, the number, the record's id, its time in microseconds
// since 1970 and its digest, numbers as eight bytes, the highest first.
func (l *Link) after(previous Hash) Hash {
	var b [sha256.Size + 8 + 16 + 8 + sha256.Size]byte
	at := b[copy(b[:], previous):]
	binary.BigEndian.PutUint64(at, uint64(l.Seq))
	copy(at[8:], l.EventID[:])
	binary.BigEndian.PutUint64(at[24:], uint64(l.At.UnixMicro()))
	copy(at[32:], l.Digest)
	sum := sha256.Sum256(b[:])
	return sum[:]
}

// Head is the end of the chain as it was when it was signed: now, or at a checkpoint.
type Head struct {
	Seq       int64     `db:"seq" json:"seq"`         // of the last link; 0 before the first
	Hash      Hash      `db:"hash" json:"hash"`       // of the last link
	At        time.Time `db:"at" json:"at"`           // when it was signed
	Seen      string    `db:"seen" json:"seen"`       // the snapshot whose records are linked, as PostgreSQL writes it
	Floor     string    `db:"floor" json:"floor"`     // what older transactions wrote was looked for, whatever time it bears
	Cluster   string    `db:"cluster" json:"cluster"` // names the server that counts the transactions
	Key       string    `db:"key" json:"key"`         // names the public key
	Signature []byte    `db:"signature" json:"signature"`
}

// into are the places that a row with [headColumns] is scanned into.
func (h *Head) into() []any {
	return []any{&h.Seq, &h.Hash, &h.At, &h.Seen, &h.Floor, &h.Cluster, &h.Key, &h.Signature}
}

// headColumns are those of [Head], read from a table h.
const headColumns = "h.seq, h.hash, h.at, h.seen::text AS seen, h.floor::text AS floor, h.cluster, h.key, h.signature"

// Message is what the signature is over.
func (h *Head) Message() []byte {
	return fmt.Appendf(nil, "watchword audit chain 1\n%d\n%s\n%s\n%s\n%s\n%s\n", h.Seq, h.Hash, h.At.UTC().Format(timeFormat), h.Seen, h.Floor, h.Cluster)
}

func (h *Head) sign(keys Keys) {
	key := keys.SigningKeys(label)[0]
	h.Key, h.Signature = keyID(key), ed25519.Sign(key, h.Message())
}

func (h *Head) verify(keys Keys) error {
	for _, key := range keys.SigningKeys(label) {
		if keyID(key) != h.Key {
			continue
		}
		if !ed25519.Verify(key.Public().(ed25519.PublicKey), h.Message(), h.Signature) {
			return fmt.Errorf("%w (after link %d)", ErrForged, h.Seq)
		}
		return nil
	}
	if h.Key == "" {
		return fmt.Errorf("%w (after link %d)", ErrForged, h.Seq)
	}
	return fmt.Errorf("%w (key %s, after link %d)", ErrOtherKey, h.Key, h.Seq)
}

// PublicKey is what a head of the chain is verified with by somebody who has no key files; nil when its key is not among keys.
func (h *Head) PublicKey(keys Keys) ed25519.PublicKey {
	for _, key := range keys.SigningKeys(label) {
		if keyID(key) == h.Key {
			return key.Public().(ed25519.PublicKey)
		}
	}
	return nil
}

// keyID names a public key: the first eight bytes of its SHA-256, in hexadecimal digits.
func keyID(key ed25519.PrivateKey) string {
	sum := sha256.Sum256(key.Public().(ed25519.PublicKey))
	return hex.EncodeToString(sum[:8])
}

// genesis is the hash before the first link.
func genesis() Hash { return make(Hash, sha256.Size) }

// Equal reports whether two hashes are the same.
func (h Hash) Equal(other Hash) bool { return bytes.Equal(h, other) }

// snapshot says which transactions somebody saw: all before xmax but those that were under way, which are in xip. See pg_snapshot in the PostgreSQL
// manual, section 9.27.
type snapshot struct {
	xmin, xmax uint64
	xip        []uint64
}

func parseSnapshot(text string) (s snapshot, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return s, fmt.Errorf("audit: %q is no snapshot", text)
	}
	if s.xmin, err = strconv.ParseUint(parts[0], 10, 64); err != nil {
		return s, err
	}
	if s.xmax, err = strconv.ParseUint(parts[1], 10, 64); err != nil {
		return s, err
	}
	for one := range strings.SplitSeq(parts[2], ",") {
		if one == "" {
			continue
		}
		xid, err := strconv.ParseUint(one, 10, 64)
		if err != nil {
			return s, err
		}
		s.xip = append(s.xip, xid)
	}
	return s, nil
}

func (s snapshot) String() string {
	return fmt.Sprintf("%d:%d:%s", s.xmin, s.xmax, s.list())
}

func (s snapshot) list() string {
	var b strings.Builder
	for i, xid := range s.xip {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatUint(xid, 10))
	}
	return b.String()
}

// until is what s saw of the transactions up to last.
func (s snapshot) until(last uint64) snapshot {
	cut := snapshot{xmin: min(s.xmin, last+1), xmax: last + 1}
	for _, xid := range s.xip {
		if xid <= last {
			cut.xip = append(cut.xip, xid)
		}
	}
	slices.Sort(cut.xip)
	return cut
}

// unseen is SQL for the records that s did not see, from those with a time of since or later. below bounds the transactions; 0 does not.
func (s snapshot) unseen(since time.Time, below uint64) string {
	from := sqlTime(since)
	upper := ""
	if below > 0 {
		upper = fmt.Sprintf(" AND xid < '%d'", below)
	}
	return fmt.Sprintf(`SELECT * FROM audit_events WHERE at >= %[1]s AND xid >= '%[2]d'%[3]s
		UNION ALL SELECT * FROM audit_events WHERE at >= %[1]s AND xid = ANY('{%[4]s}')`, from, s.xmax, upper, s.list())
}

// sqlTime is t as a literal, so that partitions are left out when a statement is planned.
func sqlTime(t time.Time) string {
	return "'" + t.UTC().Format("2006-01-02 15:04:05.000000") + "+00'::timestamptz"
}
