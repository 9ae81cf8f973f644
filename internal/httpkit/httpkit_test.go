package httpkit_test

import (
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/httpkit"
)

func TestSource(t *testing.T) { // PW-5, THR-4
	t.Parallel()
	one := httpkit.Trust{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	for _, tt := range []struct {
		name, remote string
		forwarded    []string
		trust        httpkit.Trust
		want         string
	}{
		{"nobody is trusted", "192.0.2.1:5", []string{"198.51.100.9"}, httpkit.Trust{}, "192.0.2.1"},
		{"a stranger's header", "192.0.2.1:5", []string{"198.51.100.9"}, one, "192.0.2.1"},
		{"behind a proxy", "10.0.0.1:5", []string{"198.51.100.9"}, one, "198.51.100.9"},
		{"forged entries to the left", "10.0.0.1:5", []string{"203.0.113.1, 198.51.100.9"}, one, "198.51.100.9"},
		{"two proxies", "10.0.0.1:5", []string{"203.0.113.1, 198.51.100.9, 10.0.0.2"}, one, "198.51.100.9"},
		{"two headers", "10.0.0.1:5", []string{"203.0.113.1", "198.51.100.9"}, one, "198.51.100.9"},
		{"not an address", "10.0.0.1:5", []string{"a"}, one, "10.0.0.1"},
		{"empty", "10.0.0.1:5", []string{""}, one, "10.0.0.1"},
		{"mapped", "[::ffff:192.0.2.1]:5", nil, one, "192.0.2.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
			r.RemoteAddr = tt.remote
			for _, value := range tt.forwarded {
				r.Header.Add("X-Forwarded-For", value)
			}
			for _, ignored := range []string{"Forwarded", "X-Real-IP", "True-Client-IP"} {
				r.Header.Set(ignored, "203.0.113.77")
			}
			if got := tt.trust.Source(r); got.String() != tt.want {
				t.Errorf("source = %v, want %s", got, tt.want)
			}
		})
	}
}

func TestReadForm(t *testing.T) { // PW-12, SS-11
	t.Parallel()
	const form = "application/x-www-form-urlencoded"
	for _, tt := range []struct {
		name, site, origin, kind, body string
		want                           error
	}{
		{"our page", "same-origin", "https://login.example", form, "a=1", nil},
		{"our page, referrer hidden", "same-origin", "null", form, "a=1", nil},
		{"an old browser", "", "https://login.example", form, "a=1", nil},
		{"a program", "", "", form, "a=1", nil},
		{"cross-site", "cross-site", "https://evil.example", form, "a=1", httpkit.ErrForeign},
		{"sibling", "same-site", "https://evil.login.example", form, "a=1", httpkit.ErrForeign},
		{"null alone", "", "null", form, "a=1", httpkit.ErrForeign},
		{"http scheme", "", "http://login.example", form, "a=1", httpkit.ErrForeign},
		{"site lies about origin", "same-origin", "https://evil.example", form, "a=1", httpkit.ErrForeign},
		{"text", "same-origin", "", "text/plain", "a=1", httpkit.ErrMediaType},
		{"JSON", "same-origin", "", "application/json", `{"a":1}`, httpkit.ErrMediaType},
		{"repeated", "same-origin", "", form, "a=1&a=2", httpkit.ErrForm},
		{"broken", "same-origin", "", form, "a=%zz", httpkit.ErrForm},
		{"PW-6 1 MiB", "same-origin", "", form, "a=" + strings.Repeat("x", 1<<20), httpkit.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(tt.body))
			r.Header.Set("Content-Type", tt.kind)
			for name, value := range map[string]string{"Sec-Fetch-Site": tt.site, "Origin": tt.origin} {
				if value != "" {
					r.Header.Set(name, value)
				}
			}
			got, err := httpkit.ReadForm(httptest.NewRecorder(), r, "https://login.example")
			if !errors.Is(err, tt.want) {
				t.Fatalf("error = %v, want %v", err, tt.want)
			}
			if err == nil && got.Get("a") != "1" {
				t.Fatalf("form %v", got)
			}
		})
	}
}

func TestAround(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	var seen audit.Context
	failed := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	elsewhere := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusMisdirectedRequest) })
	handler := httpkit.Identify(httpkit.Trust{}, httpkit.OnlyHost("login.example", elsewhere,
		httpkit.Recover(slog.New(slog.NewTextHandler(&log, nil)), failed, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			seen = audit.From(r.Context())
			panic("secret " + (&url.URL{Path: "x"}).String())
		}))))
	get := func(host string) *httptest.ResponseRecorder {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/", nil)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	w := get("login.example")
	if w.Code != http.StatusInternalServerError || seen.RequestID == "" || w.Header().Get("X-Request-Id") != seen.RequestID || !seen.Source.IsValid() {
		t.Errorf("%d %v %+v", w.Code, w.Header(), seen)
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("a panic's text was logged")
	}
	if w := get("evil.example"); w.Code != http.StatusMisdirectedRequest { // HT-5
		t.Errorf("another host: %d", w.Code)
	}
}
