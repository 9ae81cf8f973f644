package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// taken is a webhook as a program took it.
type taken struct {
	header http.Header
	body   []byte
}

func taker(t *testing.T) (address string, calls chan taken) {
	t.Helper()
	calls = make(chan taken, 10)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) //nolint:errcheck // what came, came
		calls <- taken{r.Header.Clone(), body}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(srv.Close)
	return srv.URL, calls
}

// genuine checks a webhook as its receiver does, and gives its type.
func genuine(t *testing.T, secret string, calls <-chan taken) events.Payload {
	t.Helper()
	select {
	case c := <-calls:
		wh, err := webhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := wh.Verify(c.body, c.header); err != nil {
			t.Errorf("%s %v: %v", c.body, c.header, err)
		}
		var p events.Payload
		if err := json.Unmarshal(c.body, &p); err != nil {
			t.Fatal(err)
		}
		return p
	case <-time.After(30 * time.Second):
		t.Fatal("no webhook came")
	}
	return events.Payload{}
}

// A vendor stops working: the operator's program is told by the server, and the one at somebody's desk by listen.
func TestWebhooks(t *testing.T) {
	t.Parallel()
	s := serve(t)
	admin := func(args ...string) []byte {
		t.Helper()
		var out, complaint bytes.Buffer
		p := &Program{Args: append(args, "--config", s.file, "--format", "json"), Env: s.Env, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &complaint}
		if code := p.Run(t.Context()); code != exitOK {
			t.Fatalf("%v: %d\n%s", args, code, complaint.String())
		}
		return out.Bytes()
	}
	pager, paged := taker(t)
	desk, forwarded := taker(t)
	var made struct{ ID, Secret string }
	if err := json.Unmarshal(admin("webhook", "create", pager, "--event", "vendor.*"), &made); err != nil {
		t.Fatal(err)
	}
	listen := start(t, &Program{Args: []string{"webhook", "listen", "--forward-to", desk, "--config", s.file, "--format", "json"}, Env: s.Env})
	var ready struct {
		Listening bool
		Secret    string
	}
	if err := json.Unmarshal([]byte(listen.out.line(t, "listening")), &ready); err != nil || !ready.Listening {
		t.Fatal(err)
	}
	plain := start(t, &Program{Args: []string{"webhook", "listen", "--config", s.file}, Env: s.Env})
	plain.err.line(t, "Press Ctrl-C to stop.")

	ring, err := keyring.Load(filepath.Join(filepath.Dir(s.file), "keys"))
	if err != nil {
		t.Fatal(err)
	}
	to, err := sms.ParseNumber("+12025550143", "")
	if err != nil {
		t.Fatal(err)
	}
	q := new(postgres.Query)
	q.With("asked", "SELECT 1")
	if err := (&sms.Outbox{Keys: ring}).Enqueue(q, sms.Message{ID: uuid.New(), To: to, Purpose: "login", Locale: "en", Text: "x", Life: time.Minute}, "asked"); err != nil {
		t.Fatal(err)
	}
	q.Finally("SELECT 1")
	if _, err := s.db.Run(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]events.Payload{"pager": genuine(t, made.Secret, paged), "desk": genuine(t, ready.Secret, forwarded)} {
		if p.Type != events.VendorDegraded || string(p.Data) != `{"status":"degraded","vendor":"simulator"}` {
			t.Errorf("%s was told %+v %s", name, p, p.Data)
		}
	}
	if line := listen.out.line(t, "vendor.degraded"); !strings.Contains(line, `"result":"delivered","status":204`) {
		t.Errorf("listen says %s", line)
	}
	if line := plain.out.line(t, "vendor.degraded"); !strings.Contains(line, `"vendor":"simulator"`) || strings.Contains(line, "→") {
		t.Errorf("listen says %s", line)
	}
	listen.stop(t)
	plain.stop(t)
	var list []struct{ ID, State string }
	if err := json.Unmarshal(admin("webhook", "list"), &list); err != nil || len(list) != 1 || list[0].ID != made.ID {
		t.Errorf("%+v, %v; want the pager alone", list, err)
	}
	want := `watchword_webhook_deliveries_total{event="vendor.degraded",result="delivered"} 1`
	if _, body := fetch(t, s.manage+"/metrics"); !strings.Contains(body, want) || !strings.Contains(body, "watchword_webhook_oldest_due_seconds 0\n") {
		t.Error("metrics lack", want)
	}
	// An owner that does not exist would never be told anything.
	for _, args := range [][]string{{"create", desk, "--owner", "tenant:nope"}, {"create", desk, "--owner", "client:nope"}, {"listen", "--owner", "tenant:nope"}} {
		var complaint bytes.Buffer
		p := &Program{Args: append([]string{"webhook"}, append(args, "--config", s.file)...), Env: s.Env, Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &complaint}
		if code := p.Run(t.Context()); code != exitNotFound || !strings.Contains(complaint.String(), `"nope"`) {
			t.Errorf("%v: %d %s, want %d", args, code, &complaint, exitNotFound)
		}
	}
	// Once more, under the same id.
	var happened []events.Happened
	if err := json.Unmarshal(admin("webhook", "events"), &happened); err != nil || len(happened) == 0 {
		t.Fatal(happened, err)
	}
	admin("webhook", "replay", happened[len(happened)-1].ID)
	if p := genuine(t, made.Secret, paged); p.ID != happened[len(happened)-1].ID {
		t.Errorf("replayed %s, want %s", p.ID, happened[len(happened)-1].ID)
	}
	// Whoever gets a deleted tenant's name is somebody else: GW-2.
	admin("tenant", "create", "acme")
	admin("webhook", "create", desk, "--owner", "tenant:acme")
	if err := events.Emit(t.Context(), s.db.DB, events.Event{Type: events.VerificationApproved, Owner: events.Tenant("acme"), ID: "vrf_1"}); err != nil {
		t.Fatal(err)
	}
	admin("tenant", "delete", "acme", "--yes")
	admin("tenant", "create", "acme")
	for _, kind := range []string{"list", "events"} {
		if out := strings.TrimSpace(string(admin("webhook", kind, "--owner", "tenant:acme"))); out != "[]" {
			t.Errorf("the next tenant of that name has %s: %s", kind, out)
		}
	}
	// Likewise an application's id.
	application := []string{"client", "create", "till", "--grant-type", "authorization_code,client_credentials", "--redirect-uri", "https://till.example/callback"}
	admin(application...)
	admin("tenant", "client", "acme", "till")
	admin("webhook", "create", desk, "--owner", "client:till")
	admin("client", "delete", "till", "--yes")
	admin(application...)
	if out := admin("tenant", "get", "acme"); strings.Contains(string(out), "till") {
		t.Errorf("the next application of that id acts for a tenant: %s", out)
	}
	if err := json.Unmarshal(admin("webhook", "list"), &list); err != nil || len(list) != 1 || list[0].ID != made.ID {
		t.Errorf("%+v, %v; want the pager still", list, err)
	}
	s.stop(t)
}
