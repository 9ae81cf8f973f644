package main

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// newGuard makes what keeps calls to addresses that others chose out of what is inside.
func newGuard(cfg *config.Config) (*egress.Guard, error) {
	c := egress.Config{Exempt: cfg.Outbound.ExemptHosts, AllowHTTP: cfg.Outbound.AllowHTTP, Timeout: cfg.Webhooks.Timeout}
	if file := cfg.Outbound.CAFile; file != "" {
		problem := &config.Problem{Key: "outbound.ca_file", Cure: "name a file with the authority's certificate in PEM"}
		pem, err := os.ReadFile(file) //nolint:gosec // the operator names it
		if err != nil {
			problem.What = oneLine(err)
			return nil, problem
		}
		if c.CAs, err = x509.SystemCertPool(); err != nil {
			c.CAs = x509.NewCertPool()
		}
		if !c.CAs.AppendCertsFromPEM(pem) {
			problem.What = fmt.Sprintf("file %s holds no certificate", file)
			return nil, problem
		}
	}
	return egress.New(c), nil
}

// deliverer makes what delivers events.
func (s *services) deliverer(log *slog.Logger) *events.Worker {
	w := s.cfg.Webhooks
	return &events.Worker{
		DB: s.db, Keys: s.ring, Client: s.guard.Client(), Log: log, Calls: w.Concurrency, PerEndpoint: w.PerEndpoint, Timeout: w.Timeout, DisableAfter: w.DisableAfter,
	}
}

// vendorNews is that a vendor stopped working, or works again.
type vendorNews struct {
	vendor string
	up     bool
}

// maxNews that wait to be stored. Vendors are few, and change seldom.
const maxNews = 64

// tellVendors stores news of vendors as events until ctx ends.
func (srv *server) tellVendors(ctx context.Context) error {
	for {
		var news vendorNews
		select {
		case <-ctx.Done():
			return nil
		case news = <-srv.news:
		}
		for {
			err := events.EmitVendor(ctx, srv.db, news.vendor, news.up)
			if err == nil || ctx.Err() != nil {
				break
			}
			srv.log.ErrorContext(ctx, "event not stored", "vendor", news.vendor, "error", err)
			if !postgres.Unavailable(err) {
				break
			}
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
		}
	}
}
