package gateway

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/google/uuid"
	"golang.org/x/text/unicode/norm"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/postgres"
)

// A tenant may have codes entered on a page of this server, in its name, instead of one of its own. The page's address is handed out when the verification is made, to the
// program alone, which leads its browser there. Whoever has the address can try a code and ask for another text, as often as any program may; nothing else.

// HostedPath is below where the pages are: the rest of the path is what [Gateway.Hosted] takes.
const HostedPath = "/verify/"

// ErrNoPage says that no verification has such a page, or its tenant has none any more.
var ErrNoPage = errors.New("gateway: there is no such page")

// Hosted is a verification as whoever enters its code sees it.
type Hosted struct {
	// Service is what the tenant is called.
	Service string
	// Locale that the text was in; "" if none was asked for.
	Locale string
	// Hint is the number's last two digits.
	Hint   string
	Status Status
	// State with the newest text. In test mode there is none, and Delivery tells what would have become of it.
	State *factors.State
	// Length and Alphabet of codes.
	Length   int
	Alphabet Alphabet
	// Test: nothing was sent, and the code is [TestCode].
	Test bool
	// Return is where the person goes on, with the verification's id and status. "": the tenant does not allow the address any more.
	Return string
	// Origin of Return.
	Origin string
	// Now is the database's time.
	Now time.Time

	id     uuid.UUID
	caller *Caller
}

const pageLabel = "verification page"

// pageToken names a verification in the address of its page. It is derived, so that nothing is stored that leads there, and the answer to a repeated request has it too.
func (g *Gateway) pageToken(id uuid.UUID) string {
	return base64.RawURLEncoding.EncodeToString(append(id[:], g.Keys.Hash(pageLabel, id[:])...))
}

func (g *Gateway) readPageToken(token string) (id uuid.UUID, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(raw) <= len(id) {
		return uuid.Nil, false
	}
	id = uuid.UUID(raw[:len(id)])
	for _, want := range g.Keys.Hashes(pageLabel, id[:]) {
		if hmac.Equal(raw[len(id):], want) {
			return id, true
		}
	}
	return uuid.Nil, false
}

// page is the address of a verification's page; "" if it has none.
func (g *Gateway) page(o *order, id uuid.UUID) string {
	if o.request.ReturnURL == "" {
		return ""
	}
	return g.Docs + HostedPath + g.pageToken(id)
}

// Hosted finds the verification whose page token leads to.
func (g *Gateway) Hosted(ctx context.Context, token string) (*Hosted, error) {
	id, ok := g.readPageToken(token)
	if !ok {
		return nil, ErrNoPage
	}
	c := &Caller{Tenant: new(Tenant), page: true}
	l, err := g.ledger(c, nil)
	if err != nil {
		return nil, err
	}
	q := new(postgres.Query)
	q.Finally(fmt.Sprintf(`SELECT v.tenant_id, v.test, v.created_at, v.hint, v.request, v.scenario, t.name, t.settings, wall() AS now, s.state
		FROM (SELECT * FROM verifications WHERE id = %s OFFSET 0) v JOIN tenants t ON t.id = v.tenant_id CROSS JOIN LATERAL (SELECT %s AS state) s
		WHERE %s AND least((s.state->>'ended_at')::timestamptz, (s.state->>'expires_at')::timestamptz) > wall() - %s`,
		q.Bind(id)+"::uuid", l.StateSQL(q, "v.id"), hostsPages, readable))
	var row struct {
		TenantID  uuid.UUID `db:"tenant_id"`
		Test      bool      `db:"test"`
		CreatedAt time.Time `db:"created_at"`
		Hint      string    `db:"hint"`
		Request   []byte    `db:"request"`
		Scenario  Scenario  `db:"scenario"`
		Name      string    `db:"name"`
		Settings  []byte    `db:"settings"`
		Now       time.Time `db:"now"`
		State     []byte    `db:"state"`
	}
	if err := g.DB.Get(ctx, &row, q); errors.Is(err, postgres.ErrNotFound) {
		return nil, ErrNoPage
	} else if err != nil {
		return nil, fmt.Errorf("read page of verification: %w", err)
	}
	c.Tenant.ID, c.Tenant.Name, c.Test = row.TenantID, row.Name, row.Test
	var request asked
	if err := errors.Join(json.Unmarshal(row.Settings, &c.Tenant.Settings), json.Unmarshal(row.Request, &request)); err != nil {
		return nil, fmt.Errorf("page of verification %s: %w", id, err)
	}
	state, err := factors.DecodeState(row.State)
	if err != nil || state == nil {
		return nil, errors.Join(fmt.Errorf("verification %s has no challenge", id), err)
	}
	if request.ReturnURL == "" {
		return nil, ErrNoPage
	}
	s := &c.Tenant.Settings
	template, _ := s.template(request.Template)
	p := &Hosted{Service: s.Service, Locale: request.Locale, Hint: row.Hint, State: state, Length: template.Length, Alphabet: template.Alphabet, Test: row.Test, Now: row.Now, id: id, caller: c}
	if p.Locale == "" {
		p.Locale = s.Locale
	}
	if p.Status, _ = status(state, row.Now); slices.Contains(s.ReturnURLs, request.ReturnURL) {
		p.Return, p.Origin = returnTo(request.ReturnURL, id, p.Status)
	}
	if row.Test {
		p.Length, p.Alphabet = len(TestCode), Numeric
		all := row.Scenario.pretend(writeID(deliveryPrefix, id), row.CreatedAt, row.Now.Sub(row.CreatedAt), &request)
		d := all[len(all)-1]
		state.Delivery, state.SentAt = &factors.Delivery{State: string(d.Status), Reason: d.Reason, Channel: d.Channel}, &row.CreatedAt
	}
	return p, nil
}

// CheckHosted tries what a person typed: the very check that programs use. What cannot be a code of this verification costs no attempt, and the error is one of
// [factors.ErrCodeEmpty] and its like.
func (g *Gateway) CheckHosted(ctx context.Context, p *Hosted, typed string) (valid bool, err error) {
	code, err := p.parse(typed)
	if err != nil {
		return false, err
	}
	v, err := g.check(p.caller.in(ctx), p.caller, p.id, code, nil, nil)
	if err = g.seen(p, "hostedCheck", err); err != nil {
		return false, err
	}
	return v.valid, nil
}

// ResendHosted sends another text.
func (g *Gateway) ResendHosted(ctx context.Context, p *Hosted) error {
	_, err := g.resend(p.caller.in(ctx), p.caller, p.id, "", nil)
	return g.seen(p, "hostedResend", err)
}

// seen counts what somebody did on a page. A tenant that may no longer has no pages.
func (g *Gateway) seen(p *Hosted, what string, err error) error {
	problem, isProblem := errors.AsType[*Problem](err)
	if g.Observe != nil {
		outcome := "ok"
		switch {
		case isProblem:
			outcome = string(problem.Code)
		case err != nil:
			outcome = string(Internal)
		}
		g.Observe(what, outcome, p.Test)
	}
	if isProblem && (problem.Code == InvalidAPIKey || problem.Code == NotFound) {
		return ErrNoPage
	}
	return err
}

// parse finds the code in what a person typed.
func (p *Hosted) parse(typed string) (string, error) {
	if p.Alphabet == Numeric {
		return factors.ParseTyped(typed, p.Length)
	}
	code := strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '#' || unicode.Is(unicode.Pd, r) || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, strings.ToUpper(norm.NFKC.String(typed)))
	characters := len([]rune(code))
	switch {
	case characters == 0:
		return "", factors.ErrCodeEmpty
	case strings.ContainsFunc(code, func(r rune) bool { return (r < '0' || r > '9') && (r < 'A' || r > 'Z') }):
		return "", factors.ErrCodeChars
	case characters < p.Length:
		return "", factors.ErrCodeShort
	case characters > p.Length:
		return "", factors.ErrCodeLong
	}
	return code, nil
}

// returnTo adds to an address what became of a verification.
func returnTo(address string, id uuid.UUID, status Status) (target, origin string) {
	u, err := url.Parse(address)
	if err != nil {
		return "", ""
	}
	added := url.Values{"verification": {writeID(verificationPrefix, id)}, "status": {string(status)}}.Encode()
	if u.RawQuery != "" {
		added = u.RawQuery + "&" + added
	}
	u.RawQuery = added
	return u.String(), u.Scheme + "://" + u.Host
}

// returnProblem says what is wrong with an address that people are to go back to; "" if nothing is.
func returnProblem(address string) string {
	u, err := url.Parse(address)
	switch {
	case err != nil || len(address) > maxReturn || u.Host == "" || u.String() != address || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
		return "is no address in full, such as https://shop.example.com/verified"
	case u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())):
		return "has to begin with https://; plain http is for this machine alone"
	case u.User != nil || strings.Contains(address, "#"):
		return "has a user name or a fragment"
	case u.Query().Has("verification") || u.Query().Has("status"):
		return "has a parameter verification or status, which are added"
	}
	return ""
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// autofill is the host that texts are bound to whose code is entered here; "" if this server's name is none that browsers take.
func (g *Gateway) autofill() string {
	u, err := url.Parse(g.Docs)
	if err != nil || !hostForm.MatchString(u.Hostname()) {
		return ""
	}
	return u.Hostname()
}

// Bounds of return addresses.
const (
	maxReturn  = 500
	maxReturns = 20
)

// hostsPages is an SQL condition over t: the tenant has pages.
const hostsPages = "t.disabled_at IS NULL AND coalesce((t.settings->>'hosted')::bool, false)"
