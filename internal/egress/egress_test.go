package egress_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/egress/egresstest"
)

func TestCheck(t *testing.T) { // GW-13, SS-15
	t.Parallel()
	tests := []struct {
		url  string
		ips  []string
		want string // "": accepted
	}{
		{url: "https://hooks.example.com/a?b=c", ips: []string{"93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"}},
		{url: "https://93.184.215.14:8443/"},
		{url: "https://inside.example.com:8443/x", ips: []string{"10.0.0.1"}}, // exempt
		{url: "http://hooks.example.com/", want: "is not https"},
		{url: "ftp://hooks.example.com/", want: "is not https"},
		{url: "https:hooks.example.com", want: "names no host"},
		{url: "https:///x", want: "names no host"},
		{url: "hooks.example.com", want: "is not https"},
		{url: "https://user:pw@hooks.example.com/", want: "has a user name"},
		{url: "https://hooks.example.com@127.0.0.1/", want: "has a user name"},
		{url: "https://hooks.example.com/#x", want: "has a fragment"},
		{url: "https://hööks.example.com/", want: "is not a web address in ASCII"},
		{url: "https://hooks.example.com/\r\nX: y", want: "is not a web address"},
		{url: "https://hooks.example.com/" + strings.Repeat("a", 2000), want: "is not a web address"},
		{url: "https://localhost/", want: "not a full name"},
		{url: "https://127.0.0.1/", want: "127.0.0.1, which is not public"},
		{url: "https://[::1]/", want: "not public"},
		{url: "https://[fe80::1%25eth0]/", want: "not public"},
		{url: "https://0.0.0.0/", want: "not public"},
		{url: "https://[::]/", want: "not public"},
		{url: "https://169.254.169.254/latest/meta-data/", want: "not public"},
		{url: "https://[fd00:ec2::254]/", want: "not public"},
		{url: "https://100.64.0.1/", want: "not public"},
		{url: "https://224.0.0.1/", want: "not public"},
		{url: "https://[ff02::1]/", want: "not public"},
		{url: "https://[::ffff:127.0.0.1]/", want: "not public"},
		{url: "https://[::ffff:8.8.8.8]/", want: "not public"},
		{url: "https://[64:ff9b::7f00:1]/", want: "not public"},
		{url: "https://[2002:7f00:1::]/", want: "not public"},
		{url: "https://2130706433/", want: "has a number for a host"},
		{url: "https://0177.0.0.1/", want: "has a number for a host"},
		{url: "https://0x7f000001/", want: "has a number for a host"},
		{url: "https://127.1/", want: "has a number for a host"},
		{url: "https://127.0.0.1./", want: "127.0.0.1, which is not public"},
		{url: "https://rebind.example.com/", ips: []string{"93.184.215.14", "192.168.1.1"}, want: "192.168.1.1, which is not public"},
		{url: "https://mapped.example.com/", ips: []string{"::ffff:10.1.1.1"}, want: "not public"},
		{url: "https://nowhere.example.com/", want: "cannot be resolved"},
	}
	for _, tt := range tests {
		t.Run(tt.url[:min(len(tt.url), 60)], func(t *testing.T) {
			t.Parallel()
			dns := new(egresstest.Names)
			dns.Set(tt.ips...)
			g := egress.New(egress.Config{Exempt: []string{"Inside.example.com"}, Resolver: dns.Resolver()})
			err := g.Check(t.Context(), tt.url)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("Check = %v, want %q", err, tt.want)
			}
			if err != nil && !errors.Is(err, egress.ErrForbidden) && tt.want != "cannot be resolved" {
				t.Errorf("%v is not ErrForbidden", err)
			}
		})
	}
}

// inside is a server on this machine that nobody may reach, and how often somebody did.
func inside(t *testing.T, answer http.HandlerFunc) (port string, hits *atomic.Int32, roots *x509.CertPool) {
	t.Helper()
	hits = new(atomic.Int32)
	srv := httptest.NewUnstartedServer(answer)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			hits.Add(1)
		}
	}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	roots = x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	u, _ := url.Parse(srv.URL)
	return u.Port(), hits, roots
}

// get says which status an address answered with.
func get(t *testing.T, g *egress.Guard, address string) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := g.Client().Do(req)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestRebinding(t *testing.T) { // GW-13: public when it is registered, inside when it is called
	t.Parallel()
	port, hits, roots := inside(t, func(http.ResponseWriter, *http.Request) {})
	dns := new(egresstest.Names)
	dns.Set("93.184.215.14")
	g := egress.New(egress.Config{CAs: roots, Resolver: dns.Resolver()})
	address := "https://rebind.example.com:" + port + "/"
	if err := g.Check(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1"} {
		dns.Set(ip)
		if _, err := get(t, g, address); egress.Class(err) != "forbidden" {
			t.Errorf("%s: %v", ip, err)
		}
	}
	for _, host := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "[::1]", "localhost", "2130706433"} {
		if _, err := get(t, g, "https://"+host+":"+port+"/"); egress.Class(err) != "forbidden" {
			t.Errorf("%s: %v", host, err)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d connections came in", n)
	}
}

func TestExempt(t *testing.T) {
	t.Parallel()
	port, _, roots := inside(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://127.0.0.1/inside", http.StatusFound)
	})
	dns := new(egresstest.Names)
	dns.Set("127.0.0.1")
	g := egress.New(egress.Config{Exempt: []string{"example.com"}, CAs: roots, Resolver: dns.Resolver()}) // the test server's certificate is for that name
	status, err := get(t, g, "https://example.com:"+port+"/")
	if err != nil || status != http.StatusFound { // GW-13: and not followed
		t.Fatalf("%d, %v", status, err)
	}
	if _, err := get(t, g, "http://example.com:"+port+"/"); egress.Class(err) != "forbidden" {
		t.Errorf("plain http: %v", err)
	}
	strict := egress.New(egress.Config{Exempt: []string{"example.com"}, Resolver: dns.Resolver()})
	if _, err := get(t, strict, "https://example.com:"+port+"/"); egress.Class(err) != "tls" {
		t.Errorf("a certificate that nobody vouches for: %v", err)
	}
}

func TestClass(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	port, _, roots := inside(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	})
	defer close(stop)
	dns := new(egresstest.Names)
	dns.Set("127.0.0.1")
	g := egress.New(egress.Config{Exempt: []string{"example.com"}, CAs: roots, Resolver: dns.Resolver(), Timeout: 50 * time.Millisecond})
	if _, err := get(t, g, "https://example.com:"+port+"/"); egress.Class(err) != "timeout" {
		t.Errorf("silence: %v", err)
	}
	if _, err := get(t, g, "https://example.com:1/"); egress.Class(err) != "unreachable" {
		t.Errorf("nobody listens: %v", err)
	}
	dns.Set()
	if _, err := get(t, g, "https://hooks.example.org/"); egress.Class(err) != "dns" {
		t.Errorf("no such name: %v", err)
	}
	if c := egress.Class(fmt.Errorf("call: %w", context.DeadlineExceeded)); c != "timeout" {
		t.Error(c)
	}
}
