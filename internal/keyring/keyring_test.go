package keyring_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/watchword-auth/watchword/internal/keyring"
)

func TestRotationKeepsWhatOlderKeysMade(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	before := create(t, dir)
	sealed, err := before.Seal([]byte("+12025550143"), "row 1")
	if err != nil {
		t.Fatal(err)
	}
	signature := ed25519.Sign(before.SigningKeys("x")[0], []byte("said"))
	hash, fingerprint := before.Hash("otp", []byte("123456")), before.Fingerprint("phone", "+12025550143")
	if err := keyring.Rotate(dir); err != nil {
		t.Fatal(err)
	}
	after, err := keyring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if plain, err := after.Open(sealed, "row 1"); err != nil || string(plain) != "+12025550143" {
		t.Fatalf("Open after rotation = %q, %v", plain, err)
	}
	if bytes.Equal(after.Hash("otp", []byte("123456")), hash) {
		t.Fatal("Hash uses the old key after rotation")
	}
	if all := after.Hashes("otp", []byte("123456")); len(all) != 2 || !bytes.Equal(all[1], hash) {
		t.Fatal("Hashes does not hold what the old key made")
	}
	keys := after.SigningKeys("x")
	if len(keys) != 2 || !ed25519.Verify(keys[1].Public().(ed25519.PublicKey), []byte("said"), signature) {
		t.Fatal("SigningKeys does not hold what the old key signed with")
	}
	if ed25519.Verify(keys[0].Public().(ed25519.PublicKey), []byte("said"), signature) || keys[0].Equal(after.SigningKeys("y")[0]) {
		t.Fatal("SigningKeys gives one key for two times or two purposes")
	}
	if !bytes.Equal(after.Fingerprint("phone", "+12025550143"), fingerprint) {
		t.Fatal("Fingerprint changed with rotation")
	}
}

func TestOpenRefusesAnotherContext(t *testing.T) {
	t.Parallel()
	ring := keyring.Ephemeral()
	sealed, err := ring.Seal([]byte("secret"), "row 1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Open(sealed, "row 2"); err == nil {
		t.Fatal("opened for another row")
	}
}

func TestHashPartsDoNotRunTogether(t *testing.T) {
	t.Parallel()
	ring := keyring.Ephemeral()
	if bytes.Equal(ring.Hash("x", []byte("ab"), []byte("c")), ring.Hash("x", []byte("a"), []byte("bc"))) {
		t.Fatal(`Hash("ab", "c") = Hash("a", "bc")`)
	}
}

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	if _, err := keyring.Load(t.TempDir()); !errors.Is(err, keyring.ErrMissing) {
		t.Fatalf("empty directory: error = %v, want ErrMissing", err)
	}
	dir := filepath.Join(t.TempDir(), "keys")
	create(t, dir)
	if err := os.Chmod(filepath.Join(dir, "hash.json"), 0o644); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	if _, err := keyring.Load(dir); err == nil {
		t.Fatal("loaded a key file that others may read")
	}
}

func create(t *testing.T, dir string) *keyring.Ring {
	t.Helper()
	if err := keyring.Create(dir); err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ring
}
