package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/retention"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
)

func (p *Program) serveCommand() *cobra.Command {
	return &cobra.Command{
		Use: "serve", Short: "Run the server", Args: cobra.NoArgs,
		Long: "Serve checks everything first and refuses to start with the full list of what is wrong. It stops on SIGTERM or Ctrl-C: requests\n" +
			"under way are finished, new ones are left to other replicas. On SIGHUP it reads those keys again that the reference marks so.",
		Example: "  watchword serve --config /etc/watchword/watchword.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			cfg, _, err := p.load()
			if err != nil {
				return err
			}
			if problems := problemsOf(preflight(ctx, cfg)); len(problems) > 0 {
				return &failure{code: exitFailed, err: fmt.Errorf("the server cannot start: found %s", count(len(problems), "problem")), problems: problems}
			}
			level := new(slog.LevelVar)
			log := p.logger(cfg, level)
			s, err := assemble(cfg)
			if err != nil {
				return err
			}
			srv, err := newServer(s, log)
			if err != nil {
				return errors.Join(err, s.db.Close())
			}
			public, err := listen(cfg.Listen)
			if err != nil {
				return errors.Join(err, s.db.Close())
			}
			manage, err := listen(cfg.ManagementListen)
			if err != nil {
				return errors.Join(err, public.Close(), s.db.Close())
			}
			srv.reload = func() { p.reload(ctx, log, level) }
			srv.hangup = p.Hangup
			return srv.run(ctx, public, manage)
		},
	}
}

// logger writes to standard error. Libraries that know only the process's own logger write to the same, but what they merely remark only where
// everything is to be heard.
func (p *Program) logger(cfg *config.Config, level *slog.LevelVar) *slog.Logger {
	setLevel(level, cfg)
	at := func(level slog.Leveler) *slog.Logger {
		options := &slog.HandlerOptions{Level: level}
		if cfg.Log.Format == "text" {
			return slog.New(slog.NewTextHandler(p.Stderr, options))
		}
		return slog.New(slog.NewJSONHandler(p.Stderr, options))
	}
	slog.SetDefault(at(remarks{level}))
	return at(level)
}

// remarks is the level of libraries: their information is our debugging.
type remarks struct{ *slog.LevelVar }

// Level implements slog.Leveler.
func (r remarks) Level() slog.Level {
	if own := r.LevelVar.Level(); own != slog.LevelInfo {
		return own
	}
	return slog.LevelWarn
}

func setLevel(level *slog.LevelVar, cfg *config.Config) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(cfg.Log.Level)); err == nil {
		level.Set(l)
	}
}

// reload takes over what the configuration says about keys that may change while the server runs.
func (p *Program) reload(ctx context.Context, log *slog.Logger, level *slog.LevelVar) {
	cfg, _, err := p.load()
	if err != nil {
		log.ErrorContext(ctx, "configuration not reloaded", "error", err)
		return
	}
	setLevel(level, cfg)
	log.InfoContext(ctx, "configuration reloaded", "log_level", cfg.Log.Level)
}

// listen opens an address, and says what to do when somebody else has it.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address) //nolint:noctx // returns at once
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fail(exitFailed, "stop the other program, or choose another port", "%s is in use by another program", address)
	case errors.Is(err, syscall.EACCES):
		return nil, fail(exitFailed, "choose a port from 1024 on, or allow this program the lower ones (CAP_NET_BIND_SERVICE)", "%s may not be used by this user", address)
	case err != nil:
		return nil, fail(exitFailed, "write the address as 127.0.0.1:8080, or :8080 for every address", "%s cannot be listened on: %w", address, err)
	}
	return l, nil
}

// server is everything that runs.
type server struct {
	*services
	log      *slog.Logger
	metrics  *metrics
	ready    *readiness
	provider *oidc.Provider
	worker   *sms.Worker
	desk     *sms.Desk
	postman  *mail.Worker // nil: there is no mail server
	teller   *notices.Worker
	events   *events.Worker
	keeper   *retention.Keeper
	sealer   *audit.Sealer
	public   http.Handler
	requests atomic.Uint64 // answered so far
	reload   func()
	hangup   <-chan os.Signal
}

// newServer puts together what runs.
func newServer(s *services, log *slog.Logger) (*server, error) {
	srv := &server{services: s, log: log, metrics: newMetrics(s.db)}
	srv.worker = &sms.Worker{
		DB: s.db, Keys: s.ring, Routing: s.delivery.routing, Log: log, Calls: s.cfg.SMS.Concurrency, Callback: s.delivery.callback(s.cfg), Observe: srv.metrics.sent, Delivered: srv.metrics.delivered,
	}
	s.delivery.outbox.Wake = srv.worker.Look
	srv.desk = &sms.Desk{
		DB: s.db, Keys: s.ring, Routing: s.delivery.routing, Outbox: s.delivery.outbox, Texts: s.delivery.texts, Log: log, Public: s.cfg.Issuer, Sources: s.delivery.sources,
		Now: time.Now, Observe: srv.metrics.reported, Delivered: srv.metrics.delivered,
	}
	srv.desk.Stopped = s.signIns.TextsStopped
	srv.desk.OptedOut, srv.worker.OptedOut = s.signIns.TextsRefused, s.signIns.TextsRefused
	srv.worker.Became, srv.desk.Became = s.gateway.Became, s.gateway.Became
	srv.teller = &notices.Worker{
		DB: s.db, Keys: s.ring, Texts: s.texts, SMS: s.delivery.outbox, Number: s.signIns.Ledger.Reach, Person: s.signIns.Person, Log: log,
	}
	if s.mail != nil {
		srv.postman = &mail.Worker{DB: s.db, Keys: s.ring, Sender: s.mail, Log: log, Observe: srv.metrics.mailed, Became: s.gateway.Became}
		s.gateway.Mails.Wake = srv.postman.Look
		srv.teller.Mail = &mail.Outbox{Keys: s.ring}
	}
	if s.recovery != nil {
		s.recovery.Log, s.recovery.Observe = log, srv.metrics.recovered
	}
	srv.events = s.deliverer(log)
	srv.events.Observe = srv.metrics.called
	if s.asking.Waiting != nil {
		s.asking.Waiting.Log = log
		srv.metrics.waiting(s.asking.Waiting.Held)
	}
	srv.metrics.watch(s.db, s.delivery.routing, srv.postman)
	var err error
	srv.keeper = &retention.Keeper{DB: s.db, Log: log}
	srv.sealer = &audit.Sealer{DB: s.db, Keys: s.ring, Log: log}
	lives := oidc.DefaultLives()
	lives.Code, lives.AccessToken, lives.IDToken, lives.Refresh = s.cfg.Tokens.CodeTTL, s.cfg.Tokens.AccessTTL, s.cfg.Tokens.AccessTTL, s.cfg.Tokens.RefreshTTL
	lives.Pushed = s.cfg.Tokens.PushedTTL
	srv.provider, err = oidc.New(oidc.Config{
		Issuer: s.cfg.Issuer, DB: s.db, SignIns: s.signIns, Clients: s.clients, Keys: s.keys, Levels: s.levels, Lives: lives,
		Details: s.details, Backchannel: s.asking, RequirePush: s.cfg.Clients.RequirePush, DPoPNonce: s.cfg.Tokens.DPoPNonce,
		NoPKCE: s.cfg.Clients.PKCEExempt, Now: time.Now, Log: log,
	})
	if err != nil {
		return nil, err
	}
	srv.gateway.Log, srv.gateway.Tokens, srv.gateway.Observe = log, srv.provider, srv.metrics.verified
	srv.ready = &readiness{checks: map[string]func(context.Context) error{
		"database": func(ctx context.Context) error { // a ping would be lost on a connection that a restart left dead; a statement is tried on another
			_, err := s.db.ExecContext(ctx, "SELECT 1")
			return short(err)
		},
		"migrations": onceDone(func(ctx context.Context) error { return migrated(ctx, s.cfg) }),
		"keys":       func(context.Context) error { return s.keys.Ready() },
	}}
	srv.public, err = srv.routes()
	return srv, err
}

// short keeps what monitoring is shown to one line.
func short(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(oneLine(err))
}

// onceDone asks until the answer is yes: a migration that was applied stays so.
func onceDone(check func(context.Context) error) func(context.Context) error {
	var done atomic.Bool
	return func(ctx context.Context) error {
		if done.Load() {
			return nil
		}
		err := check(ctx)
		done.Store(err == nil)
		return short(err)
	}
}

func migrated(ctx context.Context, cfg *config.Config) error {
	steps, err := postgres.Migrations(ctx, directDSN(cfg))
	if err != nil {
		return err
	}
	for _, step := range steps {
		if !step.Applied {
			return fmt.Errorf("%s is pending", step.Name)
		}
	}
	return nil
}

// Bounds of the listeners.
const (
	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = time.Minute
	maxHeader     = 16 << 10
	// requestTimeout bounds the work for one request; whoever waits longer is told to come back.
	requestTimeout = 10 * time.Second
)

// run serves until ctx ends, then drains: what is under way is finished, and what is open is closed, in that order.
func (srv *server) run(ctx context.Context, public, manage net.Listener) error {
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var group sync.WaitGroup
	if err := errors.Join(srv.keys.Refresh(background), srv.keys.Ready()); err != nil {
		return errors.Join(fmt.Errorf("signing keys: %w", err), public.Close(), manage.Close(), srv.db.Close())
	}
	works := map[string]func(context.Context) error{
		"outbox worker": srv.worker.Run, "change listener": srv.provider.Run, "retention": srv.keeper.Run, "audit chain": srv.sealer.Run,
		"idle memory": srv.releaseMemory, "notices": srv.teller.Run, "webhook worker": srv.events.Run, "news of vendors": srv.tellVendors, "gateway": srv.gateway.Run,
		"transactions": func(ctx context.Context) error {
			return srv.confirm.Run(ctx, func(err error) { srv.log.ErrorContext(ctx, "transactions do not expire", "error", err) })
		},
		"guess watch": func(ctx context.Context) error { return srv.signIns.Watch(ctx, srv.log) },
	}
	works["questions in the background"] = func(ctx context.Context) error {
		return srv.asking.Run(ctx, func(err error) { srv.log.ErrorContext(ctx, "questions do not expire", "error", err) })
	}
	works["answers in the background"] = (&backchannel.Teller{DB: srv.db, Keys: srv.ring, Client: srv.guard.Client(), Log: srv.log}).Run
	if srv.asking.Waiting != nil {
		works["polls that wait"] = srv.asking.Waiting.Run
	}
	if srv.postman != nil {
		works["mail worker"] = srv.postman.Run
	}
	if srv.recovery != nil {
		works["recoveries"] = srv.recovery.Run
	}
	for _, v := range srv.delivery.routing.Vendors() {
		if link, ok := v.(sms.Subscriber); ok {
			works["link to vendor "+v.Name()] = func(ctx context.Context) error { return link.Run(ctx, srv.desk.Told(v.Name())) }
		}
	}
	for name, work := range works {
		group.Go(func() { srv.supervise(background, name, work) })
	}

	front := srv.httpServer(background, srv.public)
	front.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if srv.asking.Waiting != nil {
		front.RegisterOnShutdown(srv.asking.Waiting.Drain) // whoever waits is told to come again, which is to another replica
	}
	back := srv.httpServer(background, management(srv.metrics, srv.ready))
	failed := make(chan error, 2)
	go func() {
		if srv.cfg.TLS.CertFile != "" {
			failed <- front.ServeTLS(public, srv.cfg.TLS.CertFile, srv.cfg.TLS.KeyFile)
			return
		}
		failed <- front.Serve(public)
	}()
	go func() { failed <- back.Serve(manage) }()
	collectLess()
	debug.FreeOSMemory() // what starting took, above all the first argon2id
	srv.log.InfoContext(ctx, "serving", "issuer", srv.cfg.Issuer, "listen", public.Addr().String(), "management_listen", manage.Addr().String(), "version", buildInfo().Version)

	err := srv.await(ctx, failed)
	srv.ready.draining.Store(true)
	srv.log.InfoContext(background, "stopping", "drain_timeout", srv.cfg.DrainTimeout.String())
	drain, cancel := context.WithTimeout(background, srv.cfg.DrainTimeout)
	defer cancel()
	if late := front.Shutdown(drain); late != nil {
		srv.log.WarnContext(background, "requests were cut off", "error", late)
		err = errors.Join(err, front.Close())
	}
	stop()
	group.Wait()
	return errors.Join(err, back.Close(), srv.db.Close())
}

// await returns when the server has to stop, and why if that was not asked for.
func (srv *server) await(ctx context.Context, failed <-chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-srv.hangup:
			srv.reload()
		case err := <-failed:
			return fmt.Errorf("listener: %w", err)
		}
	}
}

// supervise runs something that should not end, and starts it again when it does.
func (srv *server) supervise(ctx context.Context, name string, run func(context.Context) error) {
	for {
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		srv.log.ErrorContext(ctx, "background work ended; starting it again", "work", name, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// What requests leave behind is collected when it is four times as much as what is in use, not when it is as much: a fifth of a check's processor time was spent on collecting twenty megabytes
// again and again. From maxMemory on it is collected earlier. GOGC and GOMEMLIMIT have their way.
const (
	gcPercent = 400
	maxMemory = 2 << 30
)

func collectLess() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(maxMemory)
	}
}

// quiet is how long nobody has to have asked for anything until memory is given back.
const quiet = 5 * time.Second

// releaseMemory gives the memory of past requests back to the system as soon as it is quiet: the runtime by itself keeps what the last
// password took for minutes.
func (srv *server) releaseMemory(ctx context.Context) error {
	ticker := time.NewTicker(quiet)
	defer ticker.Stop()
	var released, before uint64
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		now := srv.requests.Load()
		if now == before && now != released {
			debug.FreeOSMemory()
			released = now
		}
		before = now
	}
}

func (srv *server) httpServer(ctx context.Context, handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader, BaseContext: func(net.Listener) context.Context { return ctx },
		// What the library has to say is about broken connections: of interest to whoever looks for them.
		ErrorLog: slog.NewLogLogger(srv.log.Handler(), slog.LevelDebug),
	}
}
