package gateway_test

import (
	"encoding/json"
	"flag"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"

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
		got := w.ask(t, "GET", path, "", "").want(t, 200, "").text
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
			id := w.create(t, w.test, "+12025550100")
			path, body := strings.Replace(op.Path, "{id}", id, 1), strings.ReplaceAll(op.Example, "vrf_…", id)
			if op.ID == "otpStatus" {
				path += "?requestId=" + id
			}
			a := w.ask(t, op.Method, path, w.test, body).want(t, op.Status, "")
			out := reflect.New(reflect.TypeOf(op.Output)).Interface()
			if err := jsonv2.Unmarshal([]byte(a.text), out, jsonv2.RejectUnknownMembers(true)); err != nil {
				t.Errorf("%s: %v", a.text, err)
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
