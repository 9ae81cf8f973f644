package gateway

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/time/rate"

	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/rest"
	"github.com/watchword-auth/watchword/sms"
)

// Bounds of a request.
const (
	maxBody  = 4 << 10
	maxKey   = 255 // of an idempotency key
	maxToken = 8 << 10
)

// operation is one thing that the API does. The table of them serves requests and describes itself.
type operation struct {
	rest.Operation

	serve func(ctx context.Context, r *request) (any, error)
}

// request is one that was authenticated.
type request struct {
	*http.Request
	caller *Caller
	body   []byte
	input  any // the body, read: a pointer to operation.Input's type
	claim  *claim
	stored *stored
}

// operations lists everything.
func (g *Gateway) operations() []operation {
	id := []rest.Parameter{rest.InPath("id", "A verification's id.")}
	ends := []Code{NotFound, AlreadyVerified, OTPExpired, AttemptsExhausted, Canceled}
	creates := []Code{InvalidRequest, InvalidNumber, CountryNotServed, FraudSuspected, RecipientOptedOut, QuotaExceeded, TestNumberInLive, TooMany, Unavailable}
	return []operation{
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/v1/verifications", ID: "createVerification", Summary: "Text a code to a phone",
			Detail: "The text is stored before this answers, and sent right after it. A pending verification of the same number and client_ref is canceled.",
			Scope:  string(Send), Input: CreateRequest{}, Output: Verification{}, Status: http.StatusCreated, Repeatable: true, Problems: creates,
			Example: `{"to": "+12025550100", "purpose": "sign_up", "client_ref": "order-4711"}`}, serve: g.serveCreate},
		{Operation: rest.Operation{Method: http.MethodGet, Path: "/v1/verifications", ID: "listVerifications", Summary: "List verifications, the newest first",
			Detail: "Those that ended more than 24 hours ago are not there any more.",
			Scope:  string(Read), Output: List{}, Status: http.StatusOK, Problems: []Code{InvalidRequest, InvalidNumber},
			Parameters: []rest.Parameter{rest.InQuery("to", "Of this number."), rest.InQuery("client_ref", "Of this reference."), rest.InQuery("limit", "How many, 1 to 100. Default 20."), rest.InQuery("cursor", "Where to go on: next_cursor of the page before.")}}, serve: g.serveList},
		{Operation: rest.Operation{Method: http.MethodGet, Path: "/v1/verifications/{id}", ID: "readVerification", Summary: "Read a verification",
			Detail: "It can be read for 24 hours after its end.",
			Scope:  string(Read), Output: Verification{}, Status: http.StatusOK, Parameters: id, Problems: []Code{NotFound}}, serve: g.serveRead},
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/v1/verifications/{id}/check", ID: "checkVerification", Summary: "Check a code",
			Detail: "A wrong code is a normal answer: valid is false. A right one ends the verification: it succeeds once.",
			Scope:  string(Verify), Input: CheckRequest{}, Output: CheckResult{}, Status: http.StatusOK, Repeatable: true, Parameters: id,
			Problems: slices.Concat([]Code{InvalidRequest, TransactionMismatch, TooMany}, ends), Example: `{"code": "123456"}`}, serve: g.serveCheck},
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/v1/verifications/{id}/resend", ID: "resendVerification", Summary: "Send another text",
			Detail: "Earlier codes of it stay good, and attempts are not given back. There is a pause between two texts, which grows.",
			Scope:  string(Send), Input: ResendRequest{}, Output: Verification{}, Status: http.StatusOK, Repeatable: true, Parameters: id,
			Problems: slices.Concat([]Code{InvalidRequest, TooMany, QuotaExceeded, Unavailable}, ends), Example: `{}`}, serve: g.serveResend},
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/v1/verifications/{id}/cancel", ID: "cancelVerification", Summary: "End a verification",
			Detail: "What has not been sent is not sent any more.",
			Scope:  string(Send), Output: Verification{}, Status: http.StatusOK, Repeatable: true, Parameters: id,
			Problems: []Code{NotFound, AlreadyVerified, OTPExpired, AttemptsExhausted}, Example: `{}`}, serve: g.serveCancel},
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/otp/send", ID: "otpSend", Summary: "Text a code to a phone, as the services of today do it",
			Scope: string(Send), Input: SendRequest{}, Output: SendAnswer{}, Status: http.StatusCreated, Repeatable: true, Problems: creates,
			Example: `{"phoneNumber": "+12025550100", "idempotencyKey": "order-4711"}`}, serve: g.serveSend},
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/otp/verify", ID: "otpVerify", Summary: "Check a code, as the services of today do it",
			Scope: string(Verify), Input: VerifyRequest{}, Output: VerifyAnswer{}, Status: http.StatusOK, Repeatable: true,
			Problems: slices.Concat([]Code{InvalidRequest, OTPIncorrect, TransactionMismatch, TooMany}, ends),
			Example:  `{"requestId": "vrf_…", "otpCode": "123456"}`}, serve: g.serveVerify},
		{Operation: rest.Operation{Method: http.MethodGet, Path: "/otp/status", ID: "otpStatus", Summary: "Say what became of a text",
			Scope: string(Read), Output: StatusAnswer{}, Status: http.StatusOK, Problems: []Code{InvalidRequest, InvalidNumber, NotFound},
			Parameters: []rest.Parameter{rest.InQuery("requestId", "Of this request."), rest.InQuery("number", "Instead: of the last one to this number.")}}, serve: g.serveStatus},
		{Operation: rest.Operation{Method: http.MethodPost, Path: "/otp/status", ID: "otpStatusPost", Summary: "Say what became of a text",
			Scope: string(Read), Input: StatusRequest{}, Output: StatusAnswer{}, Status: http.StatusOK, Problems: []Code{InvalidRequest, InvalidNumber, NotFound},
			Example: `{"requestId": "vrf_…"}`}, serve: g.serveStatus},
	}
}

// Paths of the descriptions.
const (
	describedAt    = "/openapi.json"
	describedAtOld = "/openapi-3.0.json"
)

// Paths lists the patterns of [Gateway.Routes]: with all below its two prefixes that nothing else is served at, so that a program that mistypes a path is answered as programs are.
func Paths() []string {
	return []string{"/v1", "/v1/", "/otp", "/otp/", describedAt, describedAtOld, Reference().Path, rest.ProblemsPath}
}

// Routes serves the API.
func (g *Gateway) Routes() http.Handler {
	mux := http.NewServeMux()
	byPath := map[string]map[string]*operation{}
	for _, op := range g.operations() {
		if byPath[op.Path] == nil {
			byPath[op.Path] = map[string]*operation{}
		}
		byPath[op.Path][op.Method] = &op
	}
	for path, methods := range byPath {
		allowed := []string{}
		for method := range methods {
			allowed = append(allowed, method)
		}
		slices.Sort(allowed)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			op := methods[r.Method]
			if op == nil {
				w.Header().Set("Allow", strings.Join(allowed, ", "))
				g.write(w, r, problem(MethodNotAllowed))
				return
			}
			g.serve(w, r, op)
		})
	}
	for path, old := range map[string]bool{describedAt: false, describedAtOld: true} {
		describe := sync.OnceValues(func() ([]byte, error) { return g.Describe(old) }) // when it is first asked for: that takes a while
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet && r.Method != http.MethodHead {
				w.Header().Set("Allow", "GET, HEAD")
				g.write(w, r, problem(MethodNotAllowed))
				return
			}
			description, err := describe()
			if err != nil {
				g.write(w, r, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Write(description) //nolint:errcheck // the asker is gone
		})
	}
	fail := func(w http.ResponseWriter, r *http.Request, err error) { g.write(w, r, err) }
	mux.HandleFunc(Reference().Path, g.pages().ServeReference(g.reference(), fail))
	mux.HandleFunc(rest.ProblemsPath, func(w http.ResponseWriter, r *http.Request) {
		g.pages().ServeProblem(w, r, func(err error) { fail(w, r, err) })
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		unknown := problem(NotFound)
		unknown.Detail = "There is no such path: " + Reference().Path + " has those that there are."
		g.write(w, r, unknown)
	})
	return httpkit.Recover(g.Log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.write(w, r, problem(Internal)) }), mux)
}

// Guarded lets a request to another part of the API pass that comes with a key of that scope: the tenant's own settings.
func (g *Gateway) Guarded(scope Scope, next func(http.ResponseWriter, *http.Request, *Caller)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := g.authenticate(w, r, scope)
		if err != nil {
			g.write(w, r, err)
			return
		}
		next(w, r.WithContext(c.in(r.Context())), c)
	})
}

// in has audit records name the tenant.
func (c *Caller) in(ctx context.Context) context.Context {
	a := audit.From(ctx)
	a.Client = c.Tenant.Name
	return audit.With(ctx, a)
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request, op *operation) {
	outcome, test := "ok", false
	if g.Observe != nil {
		defer func() { g.Observe(op.ID, outcome, test) }()
	}
	refuse := func(err error) {
		outcome = string(g.write(w, r, err))
	}
	c, err := g.authenticate(w, r, Scope(op.Scope))
	if err != nil {
		refuse(err)
		return
	}
	test = c.Test
	ctx := c.in(r.Context())
	in := &request{Request: r, caller: c}
	if op.Method == http.MethodPost {
		if in.body, err = rest.ReadBody(w, r, maxBody); err != nil {
			refuse(err)
			return
		}
		in.input = &struct{}{}
		if op.Input != nil {
			in.input = reflect.New(reflect.TypeOf(op.Input)).Interface()
		}
		if p := rest.Decode(in.body, in.input); p != nil {
			refuse(p)
			return
		}
	}
	var answer any
	replayed := false
	if err = g.claim(ctx, op, in); err == nil {
		replayed = in.stored != nil
		answer, err = op.serve(ctx, in)
	}
	if raw, ok := answer.(rawAnswer); ok { // as it was
		w.Header().Set("Idempotent-Replayed", "true")
		rest.Send(w, raw.status, raw.body)
		return
	}
	if err != nil {
		p := rest.Explain(ctx, g.Log, err)
		p.In(ctx, g.Docs)
		body, _ := json.Marshal(p) //nolint:errcheck,errchkjson // strings and numbers
		kept := 0
		switch p.Code { // what will not be otherwise when it is asked again
		case OTPIncorrect, TransactionMismatch, AlreadyVerified, OTPExpired, AttemptsExhausted, Canceled:
			kept = p.Status
		}
		if err := in.claim.Finish(ctx, g.DB, kept, body); err != nil {
			g.Log.ErrorContext(ctx, "answer not stored", "error", err, "request_id", p.RequestID)
		}
		outcome = string(p.Code)
		rest.SendProblem(w, p, body)
		return
	}
	if replayed {
		w.Header().Set("Idempotent-Replayed", "true")
	}
	body, err := json.Marshal(answer)
	if err != nil {
		refuse(err)
		return
	}
	if op.ID != "createVerification" && op.ID != "otpSend" && !replayed { // those are stored with what they did; a right code is too, and stays
		if err := in.claim.Finish(ctx, g.DB, op.Status, body); err != nil {
			refuse(err)
			return
		}
	}
	if op.Status == http.StatusCreated {
		if v, ok := answer.(Verification); ok {
			w.Header().Set("Location", "/v1/verifications/"+v.ID)
		}
	}
	rest.Send(w, op.Status, body)
}

// rawAnswer is one that was given before.
type rawAnswer struct {
	status int
	body   []byte
}

// write answers a request with an error.
func (g *Gateway) write(w http.ResponseWriter, r *http.Request, err error) Code {
	p := rest.Explain(r.Context(), g.Log, err)
	p.In(r.Context(), g.Docs)
	body, _ := json.Marshal(p) //nolint:errcheck,errchkjson // strings and numbers
	rest.SendProblem(w, p, body)
	return p.Code
}

// failedKeys bounds what an address may try. Keys of 256 bits cannot be guessed; what is bounded is the work and the log.
var failedKeys = limits.Window{Name: "apikey-source", Burst: 30, Period: 5 * time.Minute}

// authenticate finds who asks, and whether they may.
func (g *Gateway) authenticate(w http.ResponseWriter, r *http.Request, scope Scope) (*Caller, error) {
	ctx := r.Context()
	key, ok := credential(r)
	if !ok {
		return nil, problem(InvalidAPIKey)
	}
	var c *Caller
	var err error
	switch {
	case strings.HasPrefix(key, livePrefix), strings.HasPrefix(key, testPrefix):
		c, err = g.Tenants.byKey(ctx, key)
	case g.Tokens != nil:
		var client string
		if client, err = g.Tokens.Application(ctx, key); err == nil && client != "" {
			c, err = g.Tenants.byClient(ctx, client)
		}
	}
	if err != nil {
		return nil, err
	}
	if c == nil {
		return nil, g.wrongKey(ctx)
	}
	if err := g.rated(w, c); err != nil {
		return nil, err
	}
	if !c.may(scope) { // which is recorded, and hence within the rate too
		return nil, g.refused(c.in(ctx), "scope", problem(Forbidden))
	}
	return c, nil
}

// credential is what a request comes with; ok is false for none, and for two that differ.
func credential(r *http.Request) (string, bool) {
	keys, tokens := r.Header.Values("X-API-Key"), r.Header.Values("Authorization")
	if len(keys) > 1 || len(tokens) > 1 || len(keys)+len(tokens) == 0 {
		return "", false
	}
	var found string
	if len(tokens) == 1 {
		scheme, token, _ := strings.Cut(tokens[0], " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", false
		}
		found = strings.TrimSpace(token)
	}
	if len(keys) == 1 {
		if len(tokens) == 1 && keys[0] != found {
			return "", false
		}
		found = keys[0]
	}
	return found, found != "" && len(found) <= maxToken
}

// wrongKey counts a failure against its address and records it, as long as that has room: nobody fills the log.
func (g *Gateway) wrongKey(ctx context.Context) error {
	hit := limits.Hit{Window: failedKeys, Key: []byte("unknown")}
	if source := audit.From(ctx).Source; source.IsValid() {
		hit.Key = limits.SourceKey(source)
	}
	q := new(postgres.Query)
	q.With("failed", "SELECT 1")
	limits.Take(q, "failed", hit)
	q.With("recorded", "SELECT 1 FROM limit_taken WHERE allowed")
	audit.Record(ctx, q, "recorded", audit.Event{Name: "apikey.authenticate", Outcome: audit.Refused, Actor: "client"}, nil)
	q.Finally("SELECT 1 FROM limit_taken")
	if _, err := g.DB.Run(ctx, q); err != nil {
		return fmt.Errorf("count a failed key: %w", err)
	}
	return problem(InvalidAPIKey)
}

// refused records a refusal.
func (g *Gateway) refused(ctx context.Context, reason string, p *Problem) error {
	q := new(postgres.Query)
	q.With("refused", "SELECT 1")
	audit.Record(ctx, q, "refused", audit.Event{Name: "apikey.use", Outcome: audit.Refused, Reason: reason, Actor: "client"}, nil)
	q.Finally("SELECT 1")
	if _, err := g.DB.Run(ctx, q); err != nil {
		return err
	}
	return p
}

// rated lets a key ask so often and not more often, of this process.
func (g *Gateway) rated(w http.ResponseWriter, c *Caller) error {
	id := c.Key
	if id == uuid.Nil {
		id = uuid.NewSHA1(c.Tenant.ID, []byte(c.Client))
	}
	now := g.Now()
	g.mu.Lock()
	if c.Key != uuid.Nil {
		g.used[c.Key] = true
	}
	l := g.limiters[id]
	if l == nil {
		if len(g.limiters) >= maxRemembered {
			clear(g.limiters)
		}
		l = rate.NewLimiter(rate.Limit(g.Rate), g.Rate)
		g.limiters[id] = l
	}
	g.mu.Unlock()
	if c.Test {
		return nil
	}
	allowed, tokens := l.AllowN(now, 1), l.TokensAt(now)
	h := w.Header()
	h.Set("RateLimit-Limit", strconv.Itoa(g.Rate))
	h.Set("RateLimit-Remaining", strconv.Itoa(max(0, int(tokens))))
	h.Set("RateLimit-Reset", strconv.Itoa(int(math.Ceil((float64(g.Rate)-tokens)/float64(g.Rate)))))
	if !allowed {
		return problem(TooMany).Scoped("key").Wait(time.Second)
	}
	return nil
}

// claim makes sure that a request which has an idempotency key is answered once.
func (g *Gateway) claim(ctx context.Context, op *operation, in *request) error {
	key, err := rest.Key(in.Request)
	if err != nil {
		return err
	}
	if body, ok := in.input.(*SendRequest); ok {
		switch own := body.IdempotencyKey; {
		case own == "":
		case !rest.UsableKey(own):
			return invalid("/idempotencyKey", "is not 1 to 255 visible characters")
		case key != "" && key != own:
			return invalid("/idempotencyKey", "differs from the header")
		default:
			key = own
		}
	}
	if key == "" || !op.Repeatable {
		return nil
	}
	in.claim, in.stored, err = g.begin(ctx, in.caller, key, op.Method+" "+in.URL.Path, in.body)
	return err
}

// id is that of the verification in the path. One that cannot be is answered as one that does not exist.
func (r *request) id() (uuid.UUID, error) {
	id, ok := readID(verificationPrefix, r.PathValue("id"))
	if !ok {
		return uuid.Nil, problem(NotFound)
	}
	return id, nil
}

// replay gives a whole answer again, if there is one.
func (r *request) replay() (rawAnswer, bool) {
	if r.stored == nil || r.stored.Body == "" {
		return rawAnswer{}, false
	}
	return rawAnswer{r.stored.Status, []byte(r.stored.Body)}, true
}

func (g *Gateway) serveCreate(ctx context.Context, r *request) (any, error) {
	if raw, ok := r.replay(); ok {
		return raw, nil
	}
	body := r.input.(*CreateRequest)
	o, n, err := g.begun(ctx, r, body)
	if err != nil {
		return nil, err
	}
	v := fresh(r.caller, o, n)
	v.URL = g.page(o, n.ID)
	return v, nil
}

// begun makes a verification, or finds the one that the same request made before.
func (g *Gateway) begun(ctx context.Context, r *request, body *CreateRequest) (*order, *created, error) {
	o, p := g.order(r.caller, body)
	if r.stored != nil && r.stored.Created != nil {
		if p == nil {
			return o, r.stored.Created, nil
		}
		found, err := g.byID(ctx, r.caller, r.stored.Created.ID) // the tenant's settings allow it no more: it was done all the same
		if err != nil {
			return nil, nil, err
		}
		o, err = g.ordered(found)
		return o, r.stored.Created, err
	}
	if p != nil {
		return nil, nil, p
	}
	n, err := g.create(ctx, r.caller, o, r.claim)
	return o, n, err
}

func (g *Gateway) serveRead(ctx context.Context, r *request) (any, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	v, err := g.byID(ctx, r.caller, id)
	if err != nil {
		return nil, err
	}
	return v.show(r.caller)
}

func (g *Gateway) serveCheck(ctx context.Context, r *request) (any, error) {
	if raw, ok := r.replay(); ok {
		return raw, nil
	}
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	body := r.input.(*CheckRequest)
	v, err := g.answer(ctx, r, id, "/code", body.Code, "/transaction", body.Transaction)
	if err != nil {
		return nil, err
	}
	result := CheckResult{ID: writeID(verificationPrefix, id), Status: StatusPending, Valid: v.valid, AttemptsLeft: v.left}
	switch {
	case v.valid:
		result.Status = StatusApproved
	case v.ended:
		result.Status = StatusFailed
	}
	return result, nil
}

// answer tries a code.
func (g *Gateway) answer(ctx context.Context, r *request, id uuid.UUID, at, code, transactionAt string, t *Transaction) (*verdict, error) {
	if r.stored != nil && r.stored.Left != nil {
		return &verdict{valid: true, left: *r.stored.Left}, nil
	}
	k := new(checker)
	typed, err := parseCode(code)
	switch {
	case code == "":
		k.fail(at, "is required")
	case err != nil:
		k.fail(at, fmt.Sprintf("is not %d to %d letters and digits", MinLength, MaxLength))
	}
	var payment []byte
	if t != nil {
		k.transaction(transactionAt, t)
		payment = t.hash()
	}
	if p := k.problem(); p != nil {
		return nil, p
	}
	return g.check(ctx, r.caller, id, typed, payment, r.claim)
}

func (g *Gateway) serveResend(ctx context.Context, r *request) (any, error) {
	if raw, ok := r.replay(); ok {
		return raw, nil
	}
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	if r.stored != nil && r.stored.Resent { // whoever did it died before the answer was stored: as it stands now
		v, err := g.byID(ctx, r.caller, id)
		if err != nil {
			return nil, err
		}
		return v.show(r.caller)
	}
	body := r.input.(*ResendRequest)
	switch sms.Channel(body.Channel) {
	case "", sms.SMS, sms.WhatsApp, sms.Voice, Email:
	default:
		return nil, invalid("/channel", "is not sms, whatsapp, voice or email")
	}
	v, err := g.resend(ctx, r.caller, id, body.Channel, r.claim)
	if err != nil {
		return nil, err
	}
	return v.show(r.caller)
}

func (g *Gateway) serveCancel(ctx context.Context, r *request) (any, error) {
	if raw, ok := r.replay(); ok {
		return raw, nil
	}
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	if err := g.cancel(ctx, r.caller, id); err != nil {
		return nil, err
	}
	v, err := g.byID(ctx, r.caller, id)
	if err != nil {
		return nil, err
	}
	if p := over(v.state, v.Now); p != nil && p.Code != Canceled { // it had ended otherwise
		return nil, p
	}
	return v.show(r.caller)
}

// plus is a number of a query in which the + was not written as %2B, and therefore read as a space.
func plus(number string) string {
	if after, found := strings.CutPrefix(number, " "); found {
		return "+" + after
	}
	return number
}

// Bounds of a list.
const (
	defaultList = 20
	maxList     = 100
	maxCursor   = 512
)

func (g *Gateway) serveList(ctx context.Context, r *request) (any, error) {
	query := r.URL.Query()
	k := new(checker)
	for name, values := range query {
		if len(values) > 1 || !slices.Contains([]string{"to", "client_ref", "limit", "cursor"}, name) {
			k.fail("", "has a parameter that is not known, or one twice")
			break
		}
	}
	p := page{ref: query.Get("client_ref"), limit: defaultList}
	k.printable("client_ref", p.ref, maxRef)
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			k.fail("limit", fmt.Sprintf("is not 1 to %d", maxList))
		}
		p.limit = n
	}
	if text := query.Get("cursor"); text != "" {
		if p.before = g.readCursor(r.caller, text); p.before == nil {
			k.fail("cursor", "is not one that this API gave you")
		}
	}
	if found := k.problem(); found != nil {
		return nil, found
	}
	if text := query.Get("to"); text != "" {
		to, bad := read(plus(text))
		if bad != nil {
			return nil, bad
		}
		p.to = &to
	}
	records, err := g.list(ctx, r.caller, p)
	if err != nil {
		return nil, err
	}
	out := List{Data: []Verification{}}
	if len(records) > p.limit {
		records = records[:p.limit]
		last := records[p.limit-1]
		out.NextCursor = g.writeCursor(r.caller, mark{last.CreatedAt, last.ID})
	}
	for _, record := range records {
		v, err := record.show(r.caller)
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, v)
	}
	return out, nil
}

// cursorTag is what proves that a cursor was given to this caller: nobody makes one up, and nobody uses another tenant's.
func (g *Gateway) cursorTag(c *Caller, data []byte) []byte {
	return g.Keys.Fingerprint("gateway cursor", fmt.Sprintf("%s %s %s", c.purpose(), c.Tenant.ID, data))[:16]
}

func (g *Gateway) writeCursor(c *Caller, m mark) string {
	data, _ := json.Marshal(m) //nolint:errcheck,errchkjson // a time and an id
	return base64.RawURLEncoding.EncodeToString(append(g.cursorTag(c, data), data...))
}

func (g *Gateway) readCursor(c *Caller, text string) *mark {
	if len(text) > maxCursor {
		return nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < 17 || !bytes.Equal(g.cursorTag(c, raw[16:]), raw[:16]) {
		return nil
	}
	m := new(mark)
	if json.Unmarshal(raw[16:], m) != nil {
		return nil
	}
	return m
}

func deliveries(data []byte, now time.Time) ([]Delivery, error) {
	var rows []struct {
		ID        uuid.UUID `json:"id"`
		State     string    `json:"state"`
		Reason    string    `json:"reason"`
		Channel   string    `json:"channel"`
		CreatedAt time.Time `json:"created_at"`
		UpdatedAt time.Time `json:"updated_at"`
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		return nil, fmt.Errorf("deliveries: %w", err)
	}
	list := []Delivery{}
	for _, row := range rows {
		d := Delivery{ID: writeID(deliveryPrefix, row.ID), Channel: row.Channel, Status: DeliveryStatus(row.State), Reason: row.Reason, CreatedAt: row.CreatedAt.UTC(), UpdatedAt: row.UpdatedAt.UTC()}
		switch {
		case row.State == "canceled":
			d.Status, d.Reason = DeliveryFailed, "canceled"
		case row.State == string(DeliverySent) && now.Sub(row.UpdatedAt) > unknownAfter:
			d.Status = DeliveryUnknown
		}
		list = append(list, d)
	}
	return list, nil
}
