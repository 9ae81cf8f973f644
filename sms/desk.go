package sms

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// numberContext binds sealed numbers of opt-outs to their use.
const numberContext = "number that opted out"

// Desk takes what vendors call us with: receipts and replies. It authenticates a call by the vendor's own driver before it reads it. A receipt never
// says whether a code was right, and never unlocks anything.
type Desk struct {
	DB      *postgres.DB
	Keys    Keys
	Routing *Routing
	Outbox  *Outbox
	Texts   *Texts
	Log     *slog.Logger
	// Public is the origin under which vendors reach us. Signatures cover it: it never comes from a request.
	Public string
	// Sources that a vendor's calls have to come from, by its name. None: from anywhere.
	Sources map[string][]netip.Prefix
	Now     func() time.Time
	// Observe, when set, is told of each report that was authentic.
	Observe func(vendor string, state LegState)
	// Delivered, when set, is told what became of messages.
	Delivered func(Delivered)
	// Became, when set, has others told what became of messages.
	Became Became
	// Stopped, when set, adds to q what else happens when a number wants no more texts: part from has a row if that is new.
	Stopped func(ctx context.Context, q *postgres.Query, from string, number Number)
	// OptedOut, when set, is Stopped for what vendors tell by refusing messages.
	OptedOut OptedOut
}

// Bounds of a webhook.
const (
	maxWebhook = 256 << 10
	// webhooks that are worked on at once; more wait a little, and are then told to come back, as vendors do.
	maxWebhooks = 32
	roomTimeout = 2 * time.Second
	readTimeout = 5 * time.Second
)

// Errors of webhooks that are not the vendor's.
var (
	errNoVendor = errors.New("sms: no such vendor")
)

// Paths lists the patterns of [Desk.Routes].
func Paths() []string { return []string{"/v1/delivery-reports/", "/v1/inbound/", "/otp/delivered"} }

// Routes serves the paths that vendors call. The token in a path is for vendors that do not sign.
//
//	POST, GET /v1/delivery-reports/{vendor}[/{token}]   receipts
//	POST, GET /v1/inbound/{vendor}[/{token}]            replies; a vendor may send both to either
//	POST      /otp/delivered[?vendor=…]                 receipts; without a name, of whichever vendor authenticates them
func (d *Desk) Routes() http.Handler {
	mux := http.NewServeMux()
	room := make(chan struct{}, maxWebhooks)
	handle := func(vendor func(*http.Request) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			// Whoever sends slowly holds up nobody but himself: room is taken for the work, not for the waiting.
			http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout)) //nolint:errcheck,forbidigo // not every writer has one; the socket's clock
			body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxWebhook))
			if err != nil {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			select {
			case room <- struct{}{}:
				defer func() { <-room }()
			case <-time.After(roomTimeout):
				w.Header().Set("Retry-After", "1")
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			d.serve(w, r, vendor(r), body)
		}
	}
	named := handle(func(r *http.Request) string { return r.PathValue("vendor") })
	for _, path := range []string{"/v1/delivery-reports/{vendor}", "/v1/delivery-reports/{vendor}/{token}", "/v1/inbound/{vendor}", "/v1/inbound/{vendor}/{token}"} {
		mux.HandleFunc("POST "+path, named)
		mux.HandleFunc("GET "+path, named)
	}
	mux.HandleFunc("POST /otp/delivered", handle(func(r *http.Request) string { return r.URL.Query().Get("vendor") }))
	return mux
}

func (d *Desk) serve(w http.ResponseWriter, r *http.Request, vendor string, body []byte) {
	ctx := r.Context()
	hook := Webhook{Method: r.Method, URL: d.Public + r.URL.RequestURI(), Header: r.Header, Body: body, Token: r.PathValue("token"), At: d.Now()}
	if hook.Token == "" {
		_, hook.Token, _ = r.BasicAuth()
	}
	received, err := d.Receive(ctx, vendor, hook)
	switch {
	case err == nil:
	case errors.Is(err, ErrMalformed):
		d.Log.WarnContext(ctx, "webhook not understood", "vendor", vendor, "bytes", len(body))
		w.WriteHeader(http.StatusBadRequest)
		return
	case errors.Is(err, ErrForged), errors.Is(err, ErrStale), errors.Is(err, errNoVendor): // alike: nobody learns which vendors there are
		d.Log.WarnContext(ctx, "webhook refused", "path", r.Pattern, "reason", err)
		w.WriteHeader(http.StatusUnauthorized)
		return
	default:
		d.Log.ErrorContext(ctx, "webhook not stored", "vendor", vendor, "error", err)
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	if received.ReplyType != "" {
		w.Header().Set("Content-Type", received.ReplyType)
	}
	w.Write(received.Reply) //nolint:errcheck,gosec // the vendor has gone; what is echoed was authenticated and is never HTML
}

// Receive authenticates a webhook and stores what it says. vendor "" is whichever recognises it. Nothing has changed after an error.
func (d *Desk) Receive(ctx context.Context, vendor string, hook Webhook) (Received, error) {
	name, received, err := d.authenticate(ctx, vendor, hook)
	if err != nil {
		return Received{}, err
	}
	return received, d.keep(ctx, name, received)
}

// Told takes what a vendor reports over a connection of its own.
func (d *Desk) Told(vendor string) func(context.Context, Received) error {
	return func(ctx context.Context, received Received) error { return d.keep(ctx, vendor, received) }
}

// keep stores what an authentic vendor says.
func (d *Desk) keep(ctx context.Context, name string, received Received) error {
	if len(received.Reports) > 0 {
		if err := storeReports(ctx, d.DB, name, received.Reports, d.Delivered, d.Became, d.OptedOut); err != nil {
			return err
		}
		if d.Observe != nil {
			for _, r := range received.Reports {
				d.Observe(name, r.State)
			}
		}
	}
	for _, in := range received.Inbound {
		if err := d.reply(ctx, name, in); err != nil {
			return err
		}
	}
	return nil
}

func (d *Desk) authenticate(ctx context.Context, vendor string, hook Webhook) (name string, received Received, err error) {
	err = errNoVendor
	for _, v := range d.Routing.Vendors() {
		receiver, ok := v.(Receiver)
		if !ok || vendor != "" && v.Name() != vendor {
			continue
		}
		if from, source := d.Sources[v.Name()], audit.From(ctx).Source; len(from) > 0 && !slices.ContainsFunc(from, func(p netip.Prefix) bool { return p.Contains(source) }) {
			err = ErrForged
			continue
		}
		if received, err = receiver.Receive(hook); err == nil || !errors.Is(err, ErrForged) && vendor != "" {
			return v.Name(), received, err
		}
		if err == nil {
			return v.Name(), received, nil
		}
	}
	return "", Received{}, err
}

// dedupe is the key of a piece of news.
func dedupe(vendor, key string) []byte {
	sum := sha256.Sum256([]byte(vendor + "\x00" + key))
	return sum[:]
}

// maxCode bounds what is kept of a vendor's code.
const maxCode = 40

func short(code string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= ' ' && r <= '~' {
			return r
		}
		return -1
	}, code)
	return clean[:min(len(clean), maxCode)]
}

// replyWindow bounds answers to what a phone says: one confirmation within five minutes, 47 CFR 64.1200(a)(12).
var replyWindow = limits.Window{Name: "sms-reply", Burst: 1, Period: 5 * time.Minute}

// reply does what a phone asks for. Anything but a keyword is read and forgotten: it proves nothing.
func (d *Desk) reply(ctx context.Context, vendor string, in Inbound) error {
	if in.To = reference(in.To); !clean(in.Key) {
		return ErrMalformed
	}
	keyword := in.Keyword
	if keyword == "" {
		keyword = ReadKeyword(in.Text)
	}
	recipient := d.Keys.Fingerprint(numberLabel, in.From.Reveal())
	q := new(postgres.Query)
	q.With("heard", fmt.Sprintf(`INSERT INTO receipts (key, vendor, status) VALUES (%s, %s, 'applied') ON CONFLICT (key) DO NOTHING RETURNING key`,
		q.Bind(dedupe(vendor, "inbound "+in.Key))+"::bytea", q.Bind(vendor)+"::text"))
	event := audit.Event{Name: "sms.reply", Outcome: audit.Success, Reason: string(keyword), Actor: "phone", Object: in.From.Country() + " " + in.From.String()}
	who := func() (string, string) { return q.Bind(recipient) + "::bytea", q.Bind(in.To) + "::text" }
	changed := "heard"
	switch keyword {
	case KeywordStop:
		sealed, err := d.Keys.Seal([]byte(in.From.Reveal()), numberContext)
		if err != nil {
			return fmt.Errorf("seal number: %w", err)
		}
		changed = "changed"
		number, sender := who()
		q.With(changed, fmt.Sprintf(`
			INSERT INTO opt_outs (recipient, sender, number, hint, country, source, vendor)
			SELECT %s, %s, %s, %s, %s, 'reply', %s FROM heard ON CONFLICT (recipient, sender) WHERE in_at IS NULL DO NOTHING RETURNING recipient`,
			number, sender, q.Bind(sealed)+"::bytea", q.Bind(in.From.Hint())+"::text", q.Bind(in.From.Country())+"::text", q.Bind(vendor)+"::text"))
		// What waits for this number does not go out any more.
		q.With("held", fmt.Sprintf(`UPDATE messages m SET state = 'failed', reason = '%s', lease_until = NULL, updated_at = wall()
			  FROM changed WHERE m.state = 'queued' AND m.recipient = changed.recipient AND m.purpose NOT LIKE '%s%%'
			RETURNING m.challenge_id, m.purpose, m.state, m.reason, NULL::text AS channel, false AS fresh`, RecipientOptedOut, replyPurpose))
		d.Became.add(ctx, q, "held")
	case KeywordStart:
		// Vendors write one sender in several ways, and tell an opt-out of a whole service that START then answers by its number.
		changed = "changed"
		number, sender := who()
		q.With(changed, fmt.Sprintf(`UPDATE opt_outs o SET in_at = wall() FROM heard WHERE o.recipient = %s AND o.in_at IS NULL
			AND (o.vendor = %s OR o.source = 'vendor' OR ltrim(o.sender, '+') = ltrim(%s, '+')) RETURNING o.recipient`, number, q.Bind(vendor)+"::text", sender))
	case KeywordHelp:
	default:
		event.Reason, keyword = "other", ""
	}
	audit.Record(ctx, q, changed, event, nil)
	if keyword == KeywordStop && d.Stopped != nil {
		d.Stopped(ctx, q, changed, in.From)
	}
	if keyword != "" && !in.Answered && d.Texts != nil && (d.Outbox.Countries == nil || d.Outbox.Countries[in.From.Country()]) {
		key := append([]byte(string(keyword)+" "), recipient...)
		limits.Take(q, changed, limits.Hit{Window: replyWindow, Key: key})
		q.With("answered", "SELECT 1 FROM limit_taken WHERE allowed AND EXISTS (SELECT FROM "+changed+")")
		text, locale := d.Texts.Reply(keyword, "en")
		if err := d.Outbox.Enqueue(q, Message{ID: postgres.NewID(), To: in.From, Purpose: replyPurpose + string(keyword), Locale: locale, Text: text, Life: replyLife}, "answered"); err != nil {
			return err
		}
	}
	q.Finally("SELECT 1 FROM heard")
	_, err := d.DB.Run(ctx, q)
	return err
}

// replyLife is how long an answer to a phone is worth sending.
const replyLife = 5 * time.Minute

// OptOut is one time that a number said STOP.
type OptOut struct {
	Number  string     `db:"-" json:"number"` // in full, for the record; its last two digits where only the vendor knows it
	Sender  string     `db:"sender" json:"sender"`
	Country string     `db:"country" json:"country"`
	Source  string     `db:"source" json:"source"`
	Vendor  string     `db:"vendor" json:"vendor,omitempty"`
	OutAt   time.Time  `db:"out_at" json:"opted_out_at"`
	InAt    *time.Time `db:"in_at" json:"opted_in_at,omitempty"`

	Sealed []byte `db:"number" json:"-"`
	Hint   string `db:"hint" json:"-"`
}

// OptOuts lists every opt-out there ever was, the newest first. Whole numbers leave the program: it is recorded that an operator asked for them.
func (d *Desk) OptOuts(ctx context.Context) ([]OptOut, error) {
	all := []OptOut{}
	q := new(postgres.Query)
	q.With("listed", "SELECT count(*) AS n FROM opt_outs")
	audit.Record(ctx, q, "listed", audit.Event{Name: "sms.opt_outs_export", Outcome: audit.Success, Actor: audit.Operator}, audit.Expressions{"object": "listed.n::text"})
	q.Finally(`SELECT number, sender, country, source, vendor, hint, out_at, in_at FROM opt_outs ORDER BY out_at DESC, sender`)
	if err := d.DB.Select(ctx, &all, q); err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Number = "••" + all[i].Hint
		if len(all[i].Sealed) > 0 {
			number, err := d.Keys.Open(all[i].Sealed, numberContext)
			if err != nil {
				return nil, fmt.Errorf("open number: %w", err)
			}
			all[i].Number = string(number)
		}
	}
	return all, nil
}

// Restore ends every opt-out of a number, because its owner asked the operator to. It reports how many there were.
func (d *Desk) Restore(ctx context.Context, n Number) (int, error) {
	q := new(postgres.Query)
	q.With("changed", fmt.Sprintf(`UPDATE opt_outs SET in_at = wall(), source = source WHERE recipient = %s AND in_at IS NULL RETURNING recipient`,
		q.Bind(d.Keys.Fingerprint(numberLabel, n.Reveal()))+"::bytea"))
	audit.Record(ctx, q, "changed", audit.Event{Name: "sms.opt_in", Outcome: audit.Success, Actor: audit.Operator, Object: n.Country() + " " + n.String()}, nil)
	q.Finally("SELECT 1 FROM changed")
	rows, err := d.DB.Run(ctx, q)
	return int(rows), err
}
