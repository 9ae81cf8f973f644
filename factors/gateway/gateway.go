// Package gateway lets other programs verify phones: with two calls, or by the resource /v1/verifications.
//
// # What it keeps
//
// A [Tenant] is whoever runs such programs. It has settings, within the product's ceilings, and keys, of which only hashes are stored. A verification is a challenge of the
// ledger's (package factors) with what the program asked for beside it: one row in table verifications under the challenge's own id. Codes, attempts, sends, failures
// in a row and single use are the ledger's; carrying the text, receipts and opt-outs are package sms's. Nothing of the kind is done here.
//
// # Who may
//
// A key is looked up once and remembered. What is remembered decides nothing: every statement asks again, by the key's id, whether it still stands, so that a key
// that was revoked is dead at once, and no request pays a round trip for that. One tenant never learns of another: an id of somebody else's is answered as one that
// does not exist, by the same statement. The binding of a challenge is tenant and mode, so that what was verified with a test key is worth nothing
// with a live one.
//
// # Repeating a request
//
// A request with an idempotency key leaves a row before it does anything. Its answer is stored in the statement that does it, so that it is done once however often,
// and from however many sides at once, it is asked for.
//
// # Test mode
//
// Keys that begin with otp_test_ reach the same ledger, with the code 123456 and no message at all: there is nothing that a worker could find. [Scenario] is what
// becomes of certain numbers there.
//
// # Pages
//
// A tenant may have codes entered on a page of this server ([Hosted]); package authn/web shows it. Its address is derived from the verification's id by a key. Whoever has it
// tries codes by the same check, as the tenant and not as a key. What the API is, people read at /docs/api and /docs/problems, which package rest makes from the description.
//
// # What time brings
//
// [Gateway.Tidy] notices verifications that have expired, and has the next of the channels that were named tried where a text has not arrived within its time. Whoever is first does it, in one statement
// that is conditional on that; the text itself goes through the outbox, and counts as every other.
//
// # Telling
//
// What happens to verifications is told to [Config.Happened] in the statement in which it happens; what becomes of their texts comes from package sms, by way of [Gateway.Became].
//
// # Mail addresses
//
// Where the server sends mails and the tenant wants it, an address of mail is verified like a number. That is for programs alone: no sign-in has it as a second factor (SP 800-63B-4 section 3.1.3.1).
//
// Tables: tenants, api_keys, tenant_clients, verifications.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/mail"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/rest"
	"github.com/watchword-auth/watchword/sms"
)

// Kind is that of challenges which programs ask for.
const Kind = "gateway"

// Router knows the ways to a phone: *sms.Routing.
type Router interface {
	Plan(to sms.Number, purpose string) (plan []sms.Route, rule string, all []sms.Considered)
	Up(vendor string) bool
}

// Tokens looks at access tokens that applications come with instead of a key.
type Tokens interface {
	// Application is the id of the client that token was issued to, to act for itself. "": the token is good for nothing.
	Application(ctx context.Context, token string) (client string, err error)
}

// Config of a gateway. Fields that are not said to be optional are required.
type Config struct {
	DB     *postgres.DB
	Keys   factors.Keys
	Outbox *sms.Outbox
	Texts  *sms.Texts
	Ways   Router
	// Limits are the product's: no tenant has more.
	Limits factors.Limits
	// Life of a code, and the longest that a tenant may choose. At most 10 minutes.
	Life time.Duration
	// DailyBudget is how many texts a tenant may send in 24 hours, unless its settings say otherwise.
	DailyBudget int
	// Rate is how many requests a second a key may make of this process. Unlike the limits on texts and codes it protects nothing but the process.
	Rate int
	// Checks, when set, asks the vendor that made a challenge's code.
	Checks interface {
		Check(ctx context.Context, challenge uuid.UUID, answer string) (sms.Verdict, error)
	}
	// Tokens, when set, are accepted instead of keys.
	Tokens Tokens
	// Docs is where [Problem.Type] leads, without a trailing slash: the public address of this server.
	Docs string
	// Pages are for people: how they look, and which APIs there are besides.
	Pages rest.Pages
	// Now is this process's clock, for the rate of requests alone.
	Now func() time.Time
	Log *slog.Logger
	// Happened, when set, adds what follows events to the statement that brings them about: part from has columns event (one of [Events]), and of each verification that it happened to id, public_id
	// (as programs know it), tenant (its name), client_ref, hint, reason and channel; the last three are NULL where there is nothing to tell.
	Happened func(ctx context.Context, q *postgres.Query, from string)
	// Mails, when set, carries codes to mail addresses, for tenants that want it.
	Mails *mail.Outbox
	// Observe, when set, is told how requests ended, for metrics.
	Observe func(operation, outcome string, test bool)
}

// Gateway serves programs. It is safe for concurrent use. Make one with [New].
type Gateway struct {
	Config
	Tenants *Tenants

	purse    limits.Purse
	mu       sync.Mutex
	limiters map[uuid.UUID]*rate.Limiter
	used     map[uuid.UUID]bool // keys, since that was stored last
}

// New makes a gateway.
func New(c Config) (*Gateway, error) {
	var problems []error
	if c.Life <= 0 || c.Life > MaxLife {
		problems = append(problems, fmt.Errorf("gateway: a code lives at most %v, not %v", MaxLife, c.Life))
	}
	if c.DailyBudget < 1 || c.Rate < 1 {
		problems = append(problems, errors.New("gateway: budget and rate have to be positive"))
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{Config: c, Tenants: &Tenants{DB: c.DB, Ceilings: Ceilings{Life: c.Life, Attempts: c.Limits.Attempts, NumberHour: c.Limits.NumberHour.Burst}},
		limiters: map[uuid.UUID]*rate.Limiter{}, used: map[uuid.UUID]bool{}}
	return g, errors.Join(problems...)
}

// touchEvery is how often the use of keys is stored.
const touchEvery = 20 * time.Second

// Run follows changes of tenants and keys that other processes make, and stores which keys are used, until ctx ends.
func (g *Gateway) Run(ctx context.Context) error {
	listening := make(chan error, 1)
	go func() { listening <- g.Tenants.run(ctx) }()
	ticker, tidy := time.NewTicker(touchEvery), time.NewTicker(tidyEvery)
	defer ticker.Stop()
	defer tidy.Stop()
	for {
		select {
		case <-tidy.C:
			if err := g.Tidy(ctx); err != nil && ctx.Err() == nil {
				g.Log.ErrorContext(ctx, "verifications not looked after", "error", err)
			}
		case err := <-listening:
			return errors.Join(err, g.Touch(context.WithoutCancel(ctx)))
		case <-ticker.C:
			if err := g.Touch(ctx); err != nil && ctx.Err() == nil {
				g.Log.ErrorContext(ctx, "use of api keys not stored", "error", err)
			}
		}
	}
}

// Touch stores which keys were used since the last time.
func (g *Gateway) Touch(ctx context.Context) error {
	g.mu.Lock()
	used := g.used
	g.used = map[uuid.UUID]bool{}
	g.mu.Unlock()
	if len(used) == 0 {
		return nil
	}
	ids := make([]string, 0, len(used))
	for id := range used {
		ids = append(ids, id.String())
	}
	return g.Tenants.touch(ctx, ids)
}
