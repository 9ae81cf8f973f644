package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/sms"
)

// metrics are what an operator's monitoring reads. Labels are bounded: never a user, a number or free text.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	sends    *prometheus.CounterVec
	calls    *prometheus.HistogramVec
	reports  *prometheus.CounterVec
	arrivals *prometheus.HistogramVec
	mails    *prometheus.CounterVec
	webhooks *prometheus.CounterVec
	api      *prometheus.CounterVec
	recovers *prometheus.CounterVec
}

func newMetrics(db *postgres.DB) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "watchword", Name: "http_request_duration_seconds", Help: "Time to answer a request.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"route", "method", "status"}),
		sends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "watchword", Name: "otp_sends_total", Help: "Calls to vendors, by what came of them: accepted, or the class of the failure.",
		}, []string{"vendor", "channel", "country", "result"}),
		calls: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "watchword", Name: "otp_send_seconds", Help: "Time from storing a text to the vendor's answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"vendor", "result"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "watchword", Name: "otp_delivery_reports_total", Help: "Authentic reports of vendors, repeated ones too.",
		}, []string{"vendor", "state"}),
		arrivals: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "watchword", Name: "otp_delivery_seconds", Help: "Time from storing a text to the report of what became of it.",
			Buckets: []float64{.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600},
		}, []string{"vendor", "country", "state"}),
		api: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "watchword", Name: "api_requests_total", Help: "Requests of programs, by operation and outcome: ok, or the code of the problem.",
		}, []string{"operation", "outcome", "mode"}),
		recovers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "watchword", Name: "recoveries_total", Help: "Recoveries of accounts that came to a state, by what they are for.",
		}, []string{"kind", "state"}),
		mails: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "watchword", Name: "mail_sends_total", Help: "Attempts to hand a mail to the mail server, by what came of them: accepted, or the class of the failure.",
		}, []string{"result"}),
		webhooks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "watchword", Name: "webhook_deliveries_total", Help: "Calls to webhook endpoints, by what came of them.",
		}, []string{"event", "result"}),
	}
	b := buildInfo()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Namespace: "watchword", Name: "build_info", Help: "Always 1.",
		ConstLabels: prometheus.Labels{"version": b.Version, "revision": b.Revision, "go": b.Go},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, m.sends, m.calls, m.reports, m.arrivals, m.mails, m.webhooks, m.api, m.recovers, info, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewDBStatsCollector(db.DB.DB, "watchword"))
	return m
}

// sent counts a call to a vendor.
func (m *metrics) sent(s sms.Sent) {
	result := string(s.Class)
	if result == "" {
		result = "accepted"
	}
	m.sends.WithLabelValues(s.Vendor, string(s.Channel), s.Country, result).Inc()
	m.calls.WithLabelValues(s.Vendor, result).Observe(s.Since.Seconds())
}

// mailed counts an attempt to hand over a mail.
func (m *metrics) mailed(c mail.Class) {
	if c == "" {
		c = "accepted"
	}
	m.mails.WithLabelValues(string(c)).Inc()
}

// recovered counts that a recovery came to a state.
func (m *metrics) recovered(kind recovery.Kind, state recovery.State) {
	m.recovers.WithLabelValues(string(kind), string(state)).Inc()
}

// reported counts a vendor's report.
func (m *metrics) reported(vendor string, state sms.LegState) {
	m.reports.WithLabelValues(vendor, string(state)).Inc()
}

// delivered measures what became of a text.
func (m *metrics) delivered(d sms.Delivered) {
	m.arrivals.WithLabelValues(d.Vendor, d.Country, d.State).Observe(d.Age)
}

// called counts a call to a webhook endpoint.
func (m *metrics) called(a events.Attempt) {
	m.webhooks.WithLabelValues(string(a.Type), a.Result).Inc()
}

// verified counts a request of a program.
func (m *metrics) verified(operation, outcome string, test bool) {
	m.api.WithLabelValues(operation, outcome, map[bool]string{true: "test", false: "live"}[test]).Inc()
}

// waiting adds how many polls wait.
func (m *metrics) waiting(held func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "watchword", Name: "ciba_polls_waiting", Help: "Polls that wait for somebody's answer.",
	}, func() float64 { return float64(held()) }))
}

// watch adds what is asked for when it is looked at.
func (m *metrics) watch(db *postgres.DB, routing *sms.Routing, postman *mail.Worker) {
	if postman != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "watchword", Name: "mail_up", Help: "1 while the mail server takes mails.",
		}, func() float64 {
			if postman.Up() {
				return 1
			}
			return 0
		}), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "watchword", Name: "mail_oldest_seconds", Help: "Age of the oldest mail that waits; -1 when the database does not say.",
		}, age(db, mail.Oldest)))
	}
	for _, v := range routing.Vendors() {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "watchword", Name: "vendor_up", Help: "1 while the vendor's breaker is closed.", ConstLabels: prometheus.Labels{"vendor": v.Name()},
		}, func() float64 {
			if routing.Up(v.Name()) {
				return 1
			}
			return 0
		}))
	}
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "watchword", Name: "audit_unlinked_seconds", Help: "Age of the oldest audit record that is not linked to the chain yet; -1 when the database does not say.",
	}, age(db, audit.Unlinked)))
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "watchword", Name: "webhook_oldest_due_seconds", Help: "How long the first webhook that could be delivered now has been due; -1 when the database does not say.",
	}, age(db, events.Oldest)), prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Namespace: "watchword", Name: "queue_oldest_job_seconds", Help: "Age of the oldest text that is due and not sent; -1 when the database does not say.",
	}, age(db, sms.Oldest)))
}

// age is a gauge that asks the database for a duration.
func age(db *postgres.DB, oldest func(context.Context, *postgres.DB) (time.Duration, error)) func() float64 {
	return func() float64 {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		age, err := oldest(ctx, db)
		if err != nil {
			return -1
		}
		return age.Seconds()
	}
}

// readiness answers whether this replica can serve: each check by name.
type readiness struct {
	draining atomic.Bool
	checks   map[string]func(context.Context) error
}

func (r *readiness) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
	defer cancel()
	ready, results := true, map[string]string{}
	for name, check := range r.checks {
		results[name] = "ok"
		if err := check(ctx); err != nil {
			ready, results[name] = false, err.Error()
		}
	}
	results["draining"] = "no"
	if r.draining.Load() {
		ready, results["draining"] = false, "yes"
	}
	status := http.StatusOK
	if !ready {
		status = http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"ready": ready, "checks": results}) //nolint:errcheck,errchkjson // the asker is gone
}

// management is the listener for operators: it is never reachable from outside.
func management(m *metrics, r *readiness) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write([]byte("{\"ok\":true}\n")) //nolint:errcheck // the asker is gone
	})
	mux.Handle("GET /readyz", r)
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// reachable is a listening address as one that can be called: a server on every address answers on loopback.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
