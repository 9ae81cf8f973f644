package events_test

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/events"
)

// The programs of the documentation take what a worker sends, and nothing else.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/webhooks.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range append(events.Types(), events.WebhookTest) {
		if !bytes.Contains(page, []byte("`"+kind+"`")) {
			t.Errorf("docs/webhooks.md does not tell of %s", kind)
		}
	}
	for language, run := range map[string]func(t *testing.T, file string) []string{
		"go": func(t *testing.T, file string) []string {
			t.Helper()
			binary := strings.TrimSuffix(file, ".go")
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, file).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return []string{binary}
		},
		"js": func(_ *testing.T, file string) []string { return []string{"node", file} },
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			code := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(page)
			if code == nil {
				t.Fatal("no program")
			}
			file := filepath.Join(t.TempDir(), map[string]string{"go": "receiver.go", "js": "receiver.mjs"}[language])
			if err := os.WriteFile(file, code[1], 0o600); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			l.Close() // for the program
			b := newBench(t)
			e, secret := b.endpoint(t, events.Tenant("t"), "http://"+address+"/hooks")
			args := run(t, file)
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.Env = append(os.Environ(), "LISTEN="+address, "WEBHOOK_SECRET="+secret)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() }) //nolint:errcheck // it has no other end
			for deadline := time.Now().Add(30 * time.Second); ; {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					conn.Close()
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the program does not listen: %v\n%s", err, out.String())
				}
				<-time.After(10 * time.Millisecond)
			}
			if a, err := b.worker.Test(t.Context(), b.get(t, e.ID)); err != nil || a.Status != http.StatusNoContent {
				t.Errorf("an event is answered %+v, %v", a, err)
			}
			if _, err := b.endpoints.Rotate(t.Context(), "", e.ID, time.Hour); err != nil {
				t.Fatal(err)
			}
			if a, err := b.worker.Test(t.Context(), b.get(t, e.ID)); err != nil || a.Status != http.StatusNoContent {
				t.Errorf("with two signatures: %+v, %v", a, err)
			}
			b.db.Advance(t, 6*time.Minute)
			if a, err := b.worker.Test(t.Context(), b.get(t, e.ID)); err != nil || a.Status != http.StatusUnauthorized {
				t.Errorf("stamped six minutes off: %+v, %v", a, err)
			}
			b.db.Advance(t, -6*time.Minute)
			if _, err := b.endpoints.Rotate(t.Context(), "", e.ID, 0); err != nil {
				t.Fatal(err)
			}
			if a, err := b.worker.Test(t.Context(), b.get(t, e.ID)); err != nil || a.Status != http.StatusUnauthorized {
				t.Errorf("signed by another secret: %+v, %v", a, err)
			}
			resp, err := http.Post(fmt.Sprintf("http://%s/hooks", address), "application/json", strings.NewReader("{}"))
			if err != nil || resp.StatusCode != http.StatusUnauthorized {
				t.Fatalf("unsigned: %v, %v", resp, err)
			}
			resp.Body.Close()
		})
	}
}
