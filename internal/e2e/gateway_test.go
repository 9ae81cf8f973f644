package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Whoever follows docs/gateway.md from nothing gets there: its first block runs as it stands, and prints what it says.
func TestGatewayPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "## From nothing")
	_, rest, _ = strings.Cut(rest, "```sh\n")
	block, rest, _ := strings.Cut(rest, "```")
	_, rest, _ = strings.Cut(rest, "```text\n")
	shown, _, _ := strings.Cut(rest, "```")
	first, block, _ := strings.Cut(block, "\n")
	if !strings.HasPrefix(first, "export WATCHWORD_CONFIG=~/.local/share/watchword/watchword.yaml WATCHWORD_API=http://localhost:8080") || shown == "" {
		t.Fatalf("docs/gateway.md has no such block: %q", first)
	}
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", block)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(running.binary)+":"+os.Getenv("PATH"), "WATCHWORD_CONFIG="+running.Config, "WATCHWORD_API="+running.Issuer)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out, stderr.String())
	}
	varying := regexp.MustCompile(`vrf_[0-9a-f]{32}|\d{4}-\d\d-\d\dT[0-9:]+Z| +(?m:$)`)
	if diff := cmp.Diff(varying.ReplaceAllString(shown, ""), varying.ReplaceAllString(string(out), "")); diff != "" {
		t.Errorf("docs/gateway.md shows other answers:\n%s", diff)
	}
}
