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

	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/events"
)

// The programs of the documentation and of examples/webhook take what a worker sends, and nothing else. Without an interpreter of Python, Java or PHP theirs are left out.
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
	const examples = "../../examples/webhook/"
	for language, file := range map[string]string{"go": examples + "main.go", "js": examples + "receiver.mjs"} {
		code, example := regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindSubmatch(page), mustRead(t, file)
		if code == nil || !bytes.HasSuffix(example, code[1]) {
			t.Errorf("docs/webhooks.md shows another program than %s", file)
		}
	}
	for language, run := range map[string]func(t *testing.T, address string) []string{
		"go": func(t *testing.T, _ string) []string {
			t.Helper()
			binary := filepath.Join(t.TempDir(), "receiver")
			if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", binary, examples).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return []string{binary}
		},
		"js":     func(*testing.T, string) []string { return []string{"node", examples + "receiver.mjs"} },
		"python": func(*testing.T, string) []string { return []string{"python3", examples + "receiver.py"} },
		"java":   func(*testing.T, string) []string { return []string{"java", examples + "Receiver.java"} },
		"php": func(_ *testing.T, address string) []string {
			return []string{"php", "-S", address, examples + "receiver.php"}
		},
	} {
		t.Run(language, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address := l.Addr().String()
			l.Close() // for the program
			b := newBench(t)
			b.worker.Timeout = 30 * time.Second // a virtual machine warms up
			b.worker.Client = egress.New(egress.Config{Exempt: []string{"127.0.0.1"}, AllowHTTP: true, Timeout: 30 * time.Second}).Client()
			e, secret := b.endpoint(t, events.Tenant("t"), "http://"+address+"/hooks")
			args := run(t, address)
			if _, err := exec.LookPath(args[0]); err != nil && language != "js" {
				t.Skip("there is no " + args[0])
			}
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

func mustRead(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
