package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/watchword-auth/watchword/"

// The packages know one another in one direction only: cmd → oidc → authn → factors → sms, and internal below them all. The linter
// says the same; this says it in every test run.
func TestArrows(t *testing.T) {
	t.Parallel()
	order := map[string]int{"internal": 0, "migrations": 0, "sms": 1, "factors": 2, "authn": 3, "oidc": 4, "cmd": 5, "examples": 0}
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", module+"...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	layer := func(pkg string) string {
		first, _, _ := strings.Cut(strings.TrimPrefix(pkg, module), "/")
		return first
	}
	plug := func(pkg string) bool {
		for _, concrete := range []string{"factors/smsotp", "factors/totp", "factors/backupcode", "factors/keyfob", "sms/carriersim"} {
			if strings.HasPrefix(pkg, module+concrete) {
				return true
			}
		}
		return false
	}
	kit := func(pkg string) bool { return strings.HasSuffix(pkg, "test") }
	for decoder := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		if err := decoder.Decode(&pkg); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from := layer(pkg.ImportPath)
		if _, known := order[from]; !known {
			t.Errorf("%s: a folder that nobody gave a place", pkg.ImportPath)
		}
		for _, imported := range pkg.Imports {
			if strings.HasPrefix(imported, "github.com/zitadel/oidc") && from != "oidc" {
				t.Errorf("%s imports %s: only package oidc speaks to the protocol library", pkg.ImportPath, imported)
			}
			if !strings.HasPrefix(imported, module) {
				continue
			}
			to := layer(imported)
			if from == "examples" && imported == module+"factors/gateway/client" { // what other people's programs import
				continue
			}
			if order[to] > order[from] && !kit(pkg.ImportPath) || to == "cmd" {
				t.Errorf("%s imports %s: the arrow points the other way", pkg.ImportPath, imported)
			}
			if plug(imported) && from != "cmd" && !plug(pkg.ImportPath) && !kit(pkg.ImportPath) {
				t.Errorf("%s imports %s: only cmd names a concrete factor or vendor", pkg.ImportPath, imported)
			}
		}
	}
}
