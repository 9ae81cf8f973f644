// Package keyring holds the keys that live outside the database: one sealing keyset (AEAD) and one hashing keyset
// (HMAC-SHA-256), both made and rotated by Tink and kept in one directory.
//
// A copied database therefore shows no phone number, no secret and no code. The newest key of a set seals and
// hashes; the older ones still open and match until they are removed.
package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/prf"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// Names of the two files in a key directory.
const (
	sealFile = "seal.json"
	hashFile = "hash.json"
)

// ErrMissing says that a key file does not exist. The cure is to make keys, or to restore those that made the database.
var ErrMissing = errors.New("key file missing")

// ErrOtherKeys says that something was sealed with keys that are not in the ring, for another row, or was changed since. The cure is to restore the
// key files that the database was made with.
var ErrOtherKeys = errors.New("not sealed with these keys")

// Ring seals, opens and hashes. It is safe for concurrent use.
type Ring struct {
	seal   tink.AEAD
	hashes *prf.Set
	oldest uint32 // the first hashing key: fingerprints must not change with rotation
	first  []uint32
}

// Create makes both keysets in dir, which must hold neither.
func Create(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, template := range map[string]func() (*keyset.Handle, error){
		sealFile: func() (*keyset.Handle, error) { return keyset.NewHandle(aead.AES256GCMKeyTemplate()) },
		hashFile: func() (*keyset.Handle, error) { return keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate()) },
	} {
		handle, err := template()
		if err != nil {
			return err
		}
		if err := write(filepath.Join(dir, name), handle, os.O_EXCL); err != nil {
			return err
		}
	}
	return nil
}

// Load reads the keysets of dir. Files that others may read are refused.
func Load(dir string) (*Ring, error) {
	sealHandle, sealErr := read(filepath.Join(dir, sealFile))
	hashHandle, hashErr := read(filepath.Join(dir, hashFile))
	if err := errors.Join(sealErr, hashErr); err != nil {
		return nil, err
	}
	return newRing(sealHandle, hashHandle)
}

// Ephemeral makes a ring that nobody can find again. For tests.
func Ephemeral() *Ring {
	sealHandle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		panic(err) // only a broken random source
	}
	hashHandle, err := keyset.NewHandle(prf.HMACSHA256PRFKeyTemplate())
	if err != nil {
		panic(err)
	}
	ring, err := newRing(sealHandle, hashHandle)
	if err != nil {
		panic(err)
	}
	return ring
}

// Rotate adds a new key to both keysets of dir and makes it the one that seals and hashes.
func Rotate(dir string) error {
	for name, template := range map[string]func(*keyset.Manager) (uint32, error){
		sealFile: func(m *keyset.Manager) (uint32, error) { return m.Add(aead.AES256GCMKeyTemplate()) },
		hashFile: func(m *keyset.Manager) (uint32, error) { return m.Add(prf.HMACSHA256PRFKeyTemplate()) },
	} {
		path := filepath.Join(dir, name)
		handle, err := read(path)
		if err != nil {
			return err
		}
		manager := keyset.NewManagerFromHandle(handle)
		id, err := template(manager)
		if err != nil {
			return err
		}
		if err := manager.SetPrimary(id); err != nil {
			return err
		}
		if handle, err = manager.Handle(); err != nil {
			return err
		}
		if err := write(path+".new", handle, os.O_TRUNC); err != nil {
			return err
		}
		if err := os.Rename(path+".new", path); err != nil {
			return err
		}
	}
	return nil
}

func newRing(sealHandle, hashHandle *keyset.Handle) (*Ring, error) {
	seal, err := aead.New(sealHandle)
	if err != nil {
		return nil, err
	}
	hashes, err := prf.NewPRFSet(hashHandle)
	if err != nil {
		return nil, err
	}
	r := &Ring{seal: seal, hashes: hashes}
	primary, err := hashHandle.Primary()
	if err != nil {
		return nil, err
	}
	r.first = append(r.first, primary.KeyID())
	for i := range hashHandle.Len() {
		entry, err := hashHandle.Entry(i)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			r.oldest = entry.KeyID()
		}
		if entry.KeyID() != primary.KeyID() {
			r.first = append(r.first, entry.KeyID())
		}
	}
	return r, nil
}

// Seal encrypts plain. context is authenticated with it: what is sealed for one row opens for no other.
func (r *Ring) Seal(plain []byte, context string) ([]byte, error) {
	return r.seal.Encrypt(plain, []byte(context))
}

// Open decrypts what Seal made for the same context.
func (r *Ring) Open(sealed []byte, context string) ([]byte, error) {
	plain, err := r.seal.Decrypt(sealed, []byte(context))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", context, ErrOtherKeys) // the library knows no more
	}
	return plain, nil
}

// Hash is HMAC-SHA-256 with the newest key over label and parts, unambiguously joined.
func (r *Ring) Hash(label string, parts ...[]byte) []byte {
	return r.compute(r.first[0], label, parts)
}

// Hashes is Hash with every key, the newest first: what an older key made is among them.
func (r *Ring) Hashes(label string, parts ...[]byte) [][]byte {
	all := make([][]byte, 0, len(r.first))
	for _, id := range r.first {
		all = append(all, r.compute(id, label, parts))
	}
	return all
}

// Fingerprint is Hash with the oldest key, so that rows are found again after a rotation.
func (r *Ring) Fingerprint(label string, value string) []byte {
	return r.compute(r.oldest, label, [][]byte{[]byte(value)})
}

// SigningKeys are Ed25519 keys (RFC 8032) for one purpose, the newest first: one made from each hashing key, so that what an older one signed still verifies.
func (r *Ring) SigningKeys(label string) []ed25519.PrivateKey {
	seeds := r.Hashes("ed25519 seed", []byte(label))
	keys := make([]ed25519.PrivateKey, len(seeds))
	for i, seed := range seeds {
		keys[i] = ed25519.NewKeyFromSeed(seed)
	}
	return keys
}

func (r *Ring) compute(id uint32, label string, parts [][]byte) []byte {
	var input bytes.Buffer
	for _, part := range append([][]byte{[]byte(label)}, parts...) {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		input.Write(length[:])
		input.Write(part)
	}
	sum, err := r.hashes.PRFs[id].ComputePRF(input.Bytes(), 32)
	if err != nil {
		panic(err) // 32 bytes are always to be had from HMAC-SHA-256
	}
	return sum
}

// Token makes a bearer secret of 256 random bits, URL-safe.
func Token() string { return rand.Text() + rand.Text() }

func read(path string) (*keyset.Handle, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrMissing, path)
	}
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key file %s can be read by other users: chmod 600 it", path)
	}
	data, err := os.ReadFile(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, err
	}
	handle, err := insecurecleartextkeyset.Read(keyset.NewJSONReader(bytes.NewReader(data)))
	if err != nil {
		return nil, fmt.Errorf("key file %s: not a keyset", path) // the cause could quote the key
	}
	return handle, nil
}

func write(path string, handle *keyset.Handle, flag int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o600) //nolint:gosec // the operator names it
	if err != nil {
		return err
	}
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(f)); err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close())
}
