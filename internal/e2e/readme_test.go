package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestReadmePayment runs what the README says about payments, as it stands there: a client, its token, a payment, the code from the phone, and the evidence.
func TestReadmePayment(t *testing.T) {
	t.Parallel()
	s := running
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(readme), "## Have a payment confirmed")
	_, rest, _ = strings.Cut(rest, "```sh\n")
	block, _, found := strings.Cut(rest, "```")
	first, block, _ := strings.Cut(block, "\n")
	if !found || !strings.HasPrefix(first, "issuer=http://localhost:8080 inbox=http://127.0.0.1:8082 config=") {
		t.Fatalf("the README has no such block: %q", first)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(s.binary, filepath.Join(dir, "bin", "watchword")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "issuer="+s.Issuer, "inbox="+s.Inbox, "config="+s.Config)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"PAY EUR 129.90 to Gas AG", "approved", "129.90 EUR", "shown by sms"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
