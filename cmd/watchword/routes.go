package main

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// routes puts the pages and the protocol under one roof.
func (srv *server) routes() (http.Handler, error) {
	return srv.observe(srv.provider.Routes()), nil
}

// observe logs and counts every request by its route, never by its URL: those hold codes and hints.
func (srv *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r = r.WithContext(ctx)
		answer := &answer{ResponseWriter: w, status: http.StatusOK}
		defer func() {
			route, took := route(r), time.Since(began)
			method := r.Method
			if !strings.Contains(" GET HEAD POST PUT PATCH DELETE OPTIONS ", " "+method+" ") {
				method = "other" // whoever invents methods must not invent labels
			}
			srv.metrics.requests.WithLabelValues(route, method, strconv.Itoa(answer.status)).Observe(took.Seconds())
			srv.log.InfoContext(ctx, "request", "method", method, "route", route, "status", answer.status, "bytes", answer.bytes,
				"duration_ms", float64(took.Microseconds())/1000)
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
