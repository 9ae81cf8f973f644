package gateway_test

import (
	"encoding/json"
	"flag"
	"html"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"github.com/watchword-auth/watchword/factors/gateway"
)

var update = flag.Bool("update", false, "write the API's descriptions anew")

// The descriptions are those that were agreed on: a change shows in review.
func TestDescription(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, path := range map[string]string{"testdata/openapi.json": "/openapi.json", "testdata/openapi-3.0.json": "/openapi-3.0.json"} {
		rec := httptest.NewRecorder() // not by ask, which reads what is written here
		w.handlers[0].ServeHTTP(rec, httptest.NewRequest("GET", path, nil).WithContext(t.Context()))
		got := rec.Body.String()
		if *update {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(name, []byte(got), 0o644))
		}
		want, err := os.ReadFile(name)
		must(t, err)
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s is out of date; run: go test ./factors/gateway -run Description -update\n%s", name, diff)
		}
		version := map[string]string{"testdata/openapi.json": "3.1.", "testdata/openapi-3.0.json": "3.0."}[name]
		var doc struct {
			OpenAPI string `json:"openapi"`
		}
		if err := json.Unmarshal([]byte(got), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, version) {
			t.Errorf("%s says %q, %v", name, doc.OpenAPI, err)
		}
	}
}

// Every example of the description works with a test key as it stands, and every answer is what the description says.
func TestExamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, op := range w.gateway.Operations() {
		t.Run(op.ID, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			id := w.ask(t, "POST", "/v1/verifications", w.test, w.gateway.Operations()[0].Example).want(t, 201, "").id()
			path, body := strings.Replace(op.Path, "{id}", id, 1), strings.ReplaceAll(op.Example, "vrf_…", id)
			if op.ID == "otpStatus" {
				path += "?requestId=" + id
			}
			r := httptest.NewRequest(op.Method, path, strings.NewReader(body))
			if op.Method == http.MethodPost {
				r.Header.Set("Content-Type", "application/json")
			}
			askable(t, r)
			a := w.ask(t, op.Method, path, w.test, body).want(t, op.Status, "")
			out := reflect.New(reflect.TypeOf(op.Output)).Interface()
			if err := jsonv2.Unmarshal([]byte(a.text), out, jsonv2.RejectUnknownMembers(true)); err != nil {
				t.Errorf("%s: %v", a.text, err)
			}
			example, err := json.Marshal(gateway.AnswerTo(&op.Operation))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(outline(t, string(example)), outline(t, a.text)); diff != "" {
				t.Errorf("the example's answer is another:\n%s", diff)
			}
		})
	}
	if a := w.page(t, "/docs/problems/"); !strings.Contains(a, "opted_out") {
		t.Errorf("%s", a)
	}
	for _, code := range gateway.Codes() {
		if a := w.page(t, "/docs/problems/"+string(code)); !strings.Contains(a, gateway.ProblemOf(code).Title) {
			t.Errorf("%s has no page: %s", code, a)
		}
		if p := gateway.ProblemOf(code); p.Status < 400 || p.Title == "" || p.Detail == "" {
			t.Errorf("%s: %+v", code, p)
		}
	}
}

// outline is a JSON text without what differs from one verification to the next: ids and times.
func outline(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	var without func(v any) any
	without = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				v[name] = without(member)
			}
		case []any:
			for i := range v {
				v[i] = without(v[i])
			}
		case string:
			if _, err := time.Parse(time.RFC3339, v); err == nil {
				return "time"
			}
			if prefix, _, found := strings.Cut(v, "_"); found && len(prefix) == 3 {
				return prefix
			}
		}
		return v
	}
	return without(v)
}

// page reads a page for people.
func (w *world) page(t *testing.T, path string) string {
	t.Helper()
	rec := httptest.NewRecorder()
	w.handlers[0].ServeHTTP(rec, httptest.NewRequest("GET", path, nil).WithContext(t.Context()))
	if rec.Code != 200 || rec.Header().Get("Content-Security-Policy") == "" {
		t.Errorf("%s: %d", path, rec.Code)
	}
	return rec.Body.String()
}

// The page about the API shows all of it; its links lead somewhere, and its commands work as they stand there.
func TestReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	page := w.page(t, "/docs/api")
	ids := map[string]bool{}
	for _, id := range regexp.MustCompile(` id="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		if ids[id[1]] {
			t.Errorf("id twice: %s", id[1])
		}
		ids[id[1]] = true
	}
	links := map[string]bool{}
	for _, link := range regexp.MustCompile(`href="([^"]+)"`).FindAllStringSubmatch(page, -1) {
		links[link[1]] = true
	}
	for link := range links {
		if id, here := strings.CutPrefix(link, "#"); here {
			if !ids[id] {
				t.Errorf("%s leads nowhere", link)
			}
			continue
		}
		if link != "/openapi.json" && link != "/openapi-3.0.json" {
			w.page(t, link)
		}
	}
	for _, code := range gateway.Codes() {
		if !links["/docs/problems/"+string(code)] {
			t.Errorf("the page does not lead to %s", code)
		}
	}

	server := httptest.NewServer(w.handlers[0])
	t.Cleanup(server.Close)
	commands := regexp.MustCompile(`(?s)<code>(curl .*?)</code>`).FindAllStringSubmatch(page, -1)
	if len(commands) != len(w.gateway.Operations()) {
		t.Errorf("%d commands for %d operations", len(commands), len(w.gateway.Operations()))
	}
	for i, command := range commands {
		op := w.gateway.Operations()[i]
		line := strings.NewReplacer("vrf_…", w.create(t, w.test, "+12025550100"), "https://login.example", server.URL).Replace(html.UnescapeString(command[1]))
		cmd := exec.CommandContext(t.Context(), "bash", "-c", line+` -s -o /dev/null -w '%{http_code}'`)
		cmd.Env = append(os.Environ(), "WATCHWORD_API_KEY="+w.test)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != strconv.Itoa(op.Status) {
			t.Errorf("%s\n%v, %s, want %d", line, err, out, op.Status)
		}
	}
}
