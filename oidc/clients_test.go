package oidc_test

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/oidc"
)

// heldDialer keeps back the next answer of the database that holds a registration.
type heldDialer struct {
	armed    atomic.Bool
	arrived  chan struct{} // closed when there is one
	released chan struct{}
}

func (d *heldDialer) Dial(network, address string) (net.Conn, error) {
	return d.DialTimeout(network, address, 0)
}

func (d *heldDialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, timeout)
	return heldConn{conn, d}, err
}

type heldConn struct {
	net.Conn
	dialer *heldDialer
}

func (c heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if bytes.Contains(p[:n], []byte(`"client_name"`)) && c.dialer.armed.CompareAndSwap(true, false) {
		close(c.dialer.arrived)
		<-c.dialer.released
	}
	return n, err
}

func TestClientsInMemory(t *testing.T) { // REL-4
	t.Parallel()
	w := newWorld(t)
	stored := func(t *testing.T, id string) *oidc.Client {
		t.Helper()
		c, err := (&oidc.Clients{DB: w.DB.DB}).Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}

	t.Run("REL-4 changed while it is read", func(t *testing.T) {
		held := &heldDialer{arrived: make(chan struct{}), released: make(chan struct{})}
		db, err := postgres.Open(postgres.Config{DSN: w.DB.DSN, MaxConns: 4, Dialer: held})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close() //nolint:errcheck // the test is over
		clients := &oidc.Clients{DB: db}
		held.armed.Store(true)
		read := make(chan error)
		go func() {
			_, err := clients.Get(t.Context(), "web")
			read <- err
		}()
		<-held.arrived
		if _, err := clients.RotateSecret(t.Context(), "web"); err != nil {
			t.Error(err)
		}
		close(held.released)
		if err := <-read; err != nil {
			t.Fatal(err)
		}
		if c, err := clients.Get(t.Context(), "web"); err != nil || !bytes.Equal(c.SecretHash, stored(t, "web").SecretHash) {
			t.Errorf("the secret that was replaced is still the one in memory, %v", err)
		}
	})

	t.Run("REL-4 a notification is lost", func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Second)
		done := make(chan error)
		go func() { done <- w.provider.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		readable := func() bool {
			_, header, _ := w.post(t, w.server.URL, "/oauth/token", "none", nil, func(r *http.Request) { r.Header.Set("Origin", "https://spa.example") })
			return header.Get("Access-Control-Allow-Origin") == "https://spa.example"
		}
		look := time.NewTicker(10 * time.Millisecond)
		defer look.Stop()
		for known := false; !known; known = readable() { // what is read at the very moment when listening begins is not kept
			for _, id := range []string{"other", "spa"} {
				if _, err := w.provider.Clients.Get(ctx, id); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, secret := range []string{"x", "y", "z"} { // more than once: beginning to listen is an occasion of its own
			if _, err := w.DB.ExecContext(ctx, `UPDATE clients SET secret_hash = $1 WHERE id = 'other'`, []byte(secret)); err != nil { // tells nobody
				t.Fatal(err)
			}
			for changed, have := time.Now(), ""; have != secret; <-look.C {
				c, err := w.provider.Clients.Get(ctx, "other")
				if err != nil {
					t.Fatal(err)
				}
				if have = string(c.SecretHash); time.Since(changed) > 3*time.Second {
					t.Fatal("a change is unknown after 3 s")
				}
			}
		}
		if !readable() {
			t.Error("the script of a client that was not used for a second may not read the answer")
		}
	})
}
