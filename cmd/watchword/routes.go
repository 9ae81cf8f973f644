package main

import (
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/authn/transaction/api"
	"github.com/watchword-auth/watchword/authn/web"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/rest"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
)

// routes puts the pages and the protocol under one roof. Every request gets an id, its source, a deadline and a line in the log, and
// comes under the issuer's own name.
func (srv *server) routes() (http.Handler, error) {
	issuer, err := url.Parse(srv.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	programs := srv.gateway
	if !srv.cfg.Gateway.Enabled {
		programs = nil
	}
	pages, err := web.New(web.Config{
		Programs: programs, Recovery: srv.recovery,
		SignIns: srv.signIns, Keys: srv.ring, Issuer: srv.cfg.Issuer, Service: srv.cfg.Branding.Name, Default: srv.cfg.DefaultLocale,
		Help: srv.cfg.Branding.SupportURL, Privacy: srv.cfg.Branding.PrivacyURL, Accessibility: srv.cfg.Branding.AccessibilityURL,
		Payments: srv.confirm, Orders: srv.payments, Questions: srv.asking,
		Outage: srv.delivery.routing.Down, Countries: served(srv.cfg.SMS.Countries),
		Dev: issuer.Scheme == "http", Log: srv.log, // plain http is for this machine alone, where whoever looks is a developer
	})
	if err != nil {
		return nil, err
	}
	pages.Completer = srv.provider
	pages.App, srv.provider.Pages, srv.provider.Locales = srv.provider, pages, pages.Locales()
	mux := http.NewServeMux()
	protocol := srv.provider.Routes()
	for _, path := range oidc.Paths() {
		mux.Handle(path, protocol)
	}
	desk := srv.desk.Routes()
	for _, path := range sms.Paths() {
		mux.Handle(path, desk)
	}
	documents := rest.Pages{Document: pages.Document, References: []rest.Link{api.Reference()}}
	if srv.cfg.Gateway.Enabled {
		documents.References = append([]rest.Link{gateway.Reference()}, documents.References...)
		srv.gateway.Pages = documents
		verifications := srv.gateway.Routes()
		for _, path := range gateway.Paths() {
			mux.Handle(path, verifications)
		}
	}
	payments := &api.API{Pages: documents, DB: srv.db, Confirm: srv.confirm, Callers: srv.provider, Docs: srv.cfg.Issuer, Now: time.Now, Log: srv.log, Observe: func(operation, outcome string) { srv.metrics.verified(operation, outcome, false) }}
	transactions := payments.Routes()
	for _, path := range api.Paths() {
		mux.Handle(path, transactions)
	}
	if !srv.cfg.Gateway.Enabled {
		mux.Handle(rest.ProblemsPath, http.HandlerFunc(payments.ServeProblem))
	}
	mux.Handle("/", pages.Routes())
	inner := httpkit.OnlyHost(issuer.Host, http.HandlerFunc(pages.WrongHost), httpkit.Recover(srv.log, http.HandlerFunc(pages.Failed), mux))
	return httpkit.Identify(httpkit.Trust{Proxies: srv.cfg.TrustedProxies}, srv.observe(inner)), nil
}

// served lists the countries that are texted; nil: all of them.
func served(countries []string) []string {
	if slices.Contains(countries, config.AllCountries) {
		return nil
	}
	return countries
}

// observe logs and counts every request by its route, never by its URL: those hold codes and hints.
func (srv *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		r, cancel := httpkit.Bound(w, r, requestTimeout)
		defer cancel()
		ctx := r.Context()
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			srv.requests.Add(1)
			waited := httpkit.Waited(ctx) // for a person: it says nothing of this server
			route, took := route(r), time.Since(began)-waited
			method := r.Method
			if !strings.Contains(" GET HEAD POST PUT PATCH DELETE OPTIONS ", " "+method+" ") {
				method = "other" // whoever invents methods must not invent labels
			}
			srv.metrics.requests.WithLabelValues(route, method, strconv.Itoa(answer.status)).Observe(took.Seconds())
			from := audit.From(ctx)
			attrs := append(make([]slog.Attr, 0, 8), slog.String("method", method), slog.String("route", route), slog.Int("status", answer.status),
				slog.Int64("bytes", answer.bytes), slog.Float64("duration_ms", float64(took.Microseconds())/1000),
				slog.String("source", from.Source.String()), slog.String("request_id", from.RequestID))
			if waited > 0 {
				attrs = append(attrs, slog.Float64("waited_ms", float64(waited.Microseconds())/1000))
			}
			srv.log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
		}()
		next.ServeHTTP(answer, r)
	})
}

// route is the pattern that a request matched, without its method.
func route(r *http.Request) string {
	pattern := r.Pattern
	if _, path, ok := strings.Cut(pattern, " "); ok {
		pattern = path
	}
	if pattern == "" {
		return "none"
	}
	return pattern
}

// answer remembers what was answered.
type answer struct {
	http.ResponseWriter
	status int
	bytes  int64
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (a *answer) Write(p []byte) (int, error) {
	n, err := a.ResponseWriter.Write(p)
	a.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
