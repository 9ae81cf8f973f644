package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/backchannel"
	"github.com/watchword-auth/watchword/authn/notices"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/config"
	"github.com/watchword-auth/watchword/internal/egress"
	"github.com/watchword-auth/watchword/internal/events"
	"github.com/watchword-auth/watchword/internal/keyring"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/oidc"
	"github.com/watchword-auth/watchword/sms"
)

// services are the packages put together, for a server and for the commands that administer it.
type services struct {
	cfg     *config.Config
	db      *postgres.DB
	ring    *keyring.Ring
	signIns *authn.Service
	clients *oidc.Clients
	keys    *oidc.Keys
	levels  authn.LevelNames
	details []oidc.DetailType // that applications can ask for by authorization_details
	gateway *gateway.Gateway
	confirm *transaction.Service
	asking  *backchannel.Service

	recovery *recovery.Engine     // nil: people ask the operator
	payments *transaction.Details // the one of details that people confirm

	delivery  *delivery
	mail      *mail.SMTP // nil: there is no mail server
	texts     *notices.Texts
	guard     *egress.Guard
	endpoints *events.Endpoints
	news      chan vendorNews
}

// assemble makes the services. It does not connect: the first statement does.
func assemble(cfg *config.Config) (*services, error) { return assembled(cfg, true) }

// assembled makes the services; with sending false, whatever is wrong with vendors and routes does not matter.
func assembled(cfg *config.Config, sending bool) (_ *services, err error) {
	ring, err := keyring.Load(cfg.Keys.Dir)
	if err != nil {
		return nil, errors.Join(checkKeys(cfg))
	}
	db, err := postgres.Open(postgres.Config{
		DSN: cfg.Database.DSN.Reveal(), DirectDSN: cfg.Database.DirectDSN.Reveal(), MaxConns: cfg.Database.MaxConns, Pooled: cfg.Database.Pooled,
	})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, db.Close())
		}
	}()
	guard, err := newGuard(cfg)
	if err != nil {
		return nil, err
	}
	news := make(chan vendorNews, maxNews)
	carry, err := newDelivery(cfg, ring, told(slog.Default(), news))
	if err != nil && (sending || carry == nil || carry.texts == nil) {
		return nil, err
	}
	kinds, err := installed(cfg, ring, carry.texts, carry.routing.Down)
	if err != nil {
		return nil, err
	}
	bounds := factors.DefaultLimits()
	bounds.Attempts, bounds.Everyone.Burst = cfg.OTP.Attempts, cfg.SMS.DailyBudget
	ledger, err := factors.NewLedger(db, ring, carry.outbox, bounds, kinds...)
	if err != nil {
		return nil, err
	}
	ledger.Checks = &sms.Checks{DB: db, Keys: ring, Routing: carry.routing}
	programs, err := gateway.New(gateway.Config{
		DB: db, Keys: ring, Outbox: carry.outbox, Texts: carry.texts, Ways: carry.routing, Limits: bounds, Life: cfg.OTP.Lifetime, DailyBudget: cfg.Gateway.DailyBudget,
		Rate: cfg.Gateway.Rate, Checks: ledger.Checks, Docs: cfg.Issuer, Now: time.Now,
	})
	if err != nil {
		return nil, err
	}
	programs.Happened = tellTenants
	programs.Tenants.Gone = func(ctx context.Context, q *postgres.Query, from string) {
		events.Forget(ctx, q, from, events.TenantSQL(from+".name"))
	}
	mailer, texts, err := newNotices(cfg)
	if err != nil {
		return nil, err
	}
	if mailer != nil {
		programs.Mails = &mail.Outbox{Keys: ring}
	}
	told := &notices.Notices{Texted: ledger.Reachable(), Mails: mailer != nil}
	ledger.Warn = told.Warn
	passwords, err := authn.NewPasswords(authn.HashingConfig{
		Memory: uint32(cfg.Password.Memory / 1024), Time: uint32(cfg.Password.Time), Concurrency: cfg.Password.Concurrency, Queue: cfg.Password.Queue,
	})
	if err != nil {
		return nil, err
	}
	levels := levelNames(cfg)
	rules := authn.DefaultConfig()
	rules.Idle, rules.Absolute, rules.SignIn, rules.Policy.MaxAge = cfg.Session.Idle, cfg.Session.Absolute, cfg.Session.SignIn, cfg.Session.Absolute
	rules.Remember = cfg.Session.Remember
	s := &services{
		cfg: cfg, db: db, ring: ring, delivery: carry, mail: mailer, texts: texts, guard: guard, news: news, gateway: programs,
		endpoints: &events.Endpoints{DB: db, Keys: ring, Guard: guard, Actor: audit.Operator},
		signIns:   &authn.Service{DB: db, Keys: ring, Ledger: ledger, Passwords: passwords, Config: rules, Notices: told, Applications: &oidc.Grants{DB: db}},
		clients:   &oidc.Clients{DB: db, Gone: forgetClients}, keys: &oidc.Keys{DB: db, Seal: ring}, levels: levels,
	}
	if s.payments, err = transaction.NewDetails(); err != nil {
		return nil, err
	}
	s.details = append(s.details, s.payments)
	confirming := transaction.DefaultConfig()
	confirming.Hold = cfg.Payments.PhoneHold
	s.confirm = &transaction.Service{DB: db, Keys: ring, Ledger: ledger, Signer: s.keys, Issuer: cfg.Issuer, Config: confirming, HeldBack: s.signIns.HeldBack}
	if s.signIns.Signal, err = newSignal(cfg); err != nil {
		return nil, err
	}
	if s.recovery, err = s.newRecovery(); err != nil {
		return nil, err
	}
	s.asking = &backchannel.Service{DB: db, Keys: ring, SignIns: s.signIns, Confirm: s.confirm, Outbox: carry.outbox, Texts: carry.texts, Issuer: cfg.Issuer, Config: backchannel.DefaultConfig()}
	if cfg.CIBA.Hold > 0 {
		s.asking.Waiting = &backchannel.Waiting{DB: db, Hold: cfg.CIBA.Hold, Most: backchannel.MostHeld, Now: time.Now}
	}
	s.confirm.Ended, s.confirm.Suspended = s.asking.Follow, s.asking.Suspend
	return s, setPolicy(&s.signIns.Config.Policy, cfg, levels, s.signIns.Kinds())
}

// forgetClients has nothing of a deleted application pass to the next of its id.
func forgetClients(ctx context.Context, q *postgres.Query, from string) {
	gateway.DropClients(ctx, q, from)
	events.Forget(ctx, q, from, events.ClientSQL(from+".id"))
}

// tellTenants tells tenants' endpoints what became of verifications. Not of those that they canceled themselves.
func tellTenants(_ context.Context, q *postgres.Query, from string) {
	events.Add(q, from, events.Event{}, events.Expressions{
		Type: "nullif(" + from + ".event, '" + gateway.EventCanceled + "')", Owner: events.TenantSQL(from + ".tenant"), ID: from + ".public_id", Status: "split_part(" + from + ".event, '.', 2)",
		Reason: from + ".reason", Channel: from + ".channel", Hint: from + ".hint", ClientRef: "nullif(" + from + ".client_ref, '')",
	})
}

// levelNames are the acr values of levels.
func levelNames(cfg *config.Config) authn.LevelNames {
	return authn.LevelNames{
		authn.RecoveryLevel: cfg.ACR.Recovery, authn.PasswordLevel: cfg.ACR.Password,
		authn.RestrictedLevel: cfg.ACR.Restricted, authn.UnrestrictedLevel: cfg.ACR.Unrestricted,
	}
}

// record writes down what was done outside the database.
func (s *services) record(ctx context.Context, e audit.Event) error {
	q := new(postgres.Query)
	q.With("done", "SELECT 1")
	audit.Record(ctx, q, "done", e, nil)
	q.Finally("SELECT 1 FROM done")
	_, err := s.db.Run(ctx, q)
	return err
}

// with runs one administrative command: it reads the configuration, puts the services together and closes them afterwards.
func (p *Program) with(ctx context.Context, do func(context.Context, *services) error) error {
	cfg, _, err := p.gather()
	problems := slices.DeleteFunc(config.Problems(err), func(problem *config.Problem) bool { // nothing is sent
		return strings.HasPrefix(problem.Key, "sms.vendors.") || problem.Key == "sms.routes" || problem.Key == "sms.channels"
	})
	if len(problems) > 0 {
		return &failure{code: p.blame(exitFailed, problems), err: fmt.Errorf("the configuration has %s", count(len(problems), "problem")), problems: problems}
	}
	if cfg == nil {
		return err
	}
	s, err := assembled(cfg, false)
	if problems := problemsOf(err); len(problems) > 0 {
		return &failure{code: exitFailed, err: fmt.Errorf("the configuration cannot be used"), problems: problems}
	}
	if err != nil {
		return databaseFailure(err)
	}
	defer s.db.Close()                          //nolint:errcheck // what was done is done
	if err := s.keys.Refresh(ctx); err != nil { // with other keys nobody would be found, and everybody could be made a second time
		return databaseFailure(err)
	}
	return databaseFailure(do(audit.With(ctx, audit.Context{Operator: p.operator()}), s))
}
