// Package api lets applications have payments confirmed over HTTP: the bank's own page shows the payment and collects the code, and gives it back with what it showed.
//
// The application is a client of the provider, and comes with an access token that it got for itself with the scope [Scope]: as a bearer token, or bound to its key (DPoP). It sees and
// ends its own transactions, by whichever door they came; codes it gives back of those that it made here alone, for the others are answered on a page of ours.
//
// Bodies, problems, idempotency keys and the description are those of package rest. A request with an idempotency key leaves what it did in the statement that does it, so that it is done
// once, and answered alike afterwards.
package api

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/swaggest/openapi-go"

	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/audit"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limits"
	"github.com/watchword-auth/watchword/internal/postgres"
	"github.com/watchword-auth/watchword/internal/rest"
	"github.com/watchword-auth/watchword/sms"
)

// Scope that an access token needs.
const Scope = "transactions"

// maxBody fits a batch of [transaction.MaxPayees].
const maxBody = 32 << 10

// Callers knows access tokens.
type Callers interface {
	// Caller is the client that came with a token which it got for itself, and the token's scopes. "": it has none that is good here; what a challenge has to say of that is in the header
	// WWW-Authenticate of w then.
	Caller(w http.ResponseWriter, r *http.Request) (client string, scopes []string, err error)
}

// API serves applications. It is safe for concurrent use.
type API struct {
	DB      *postgres.DB
	Confirm *transaction.Service
	Callers Callers
	// Docs is the public address of this server, without a trailing slash.
	Docs string
	// Pages are for people: how they look, and which APIs there are besides.
	Pages rest.Pages
	Log   *slog.Logger
	// Now is this process's clock, for what Retry-After says.
	Now func() time.Time
	// Observe, when set, is told how requests ended, for metrics.
	Observe func(operation, outcome string)
}

// Payee is whom something is paid to.
type Payee struct {
	Name    string `json:"name" required:"true" maxLength:"70" example:"Gas AG"`
	Account string `json:"account,omitempty" maxLength:"68" example:"DE02100100109307118603" description:"An IBAN with right check digits, or any other account as text. Told back with everything but its last four characters masked."`
}

// CreateRequest asks somebody to confirm a payment.
type CreateRequest struct {
	User      string  `json:"user,omitempty" maxLength:"255" description:"Who pays: their sub. Either this or phone."`
	Phone     string  `json:"phone,omitempty" maxLength:"40" example:"+12025550143" description:"Instead: the number of a phone that one person has bound."`
	Amount    string  `json:"amount" required:"true" example:"129.90" description:"Decimal, as a string. Of a batch the total."`
	Currency  string  `json:"currency" required:"true" pattern:"^[A-Z]{3}$" example:"EUR" description:"ISO 4217."`
	Payee     *Payee  `json:"payee,omitempty" description:"Either this or payees."`
	Payees    []Payee `json:"payees,omitempty" maxItems:"100" description:"Of a batch, in whatever order."`
	Reference string  `json:"reference,omitempty" maxLength:"140"`
	Type      string  `json:"type,omitempty" enum:"payment,transfer,standing_order,direct_debit" description:"Default: payment."`
	ExpiresIn int     `json:"expires_in,omitempty" minimum:"60" maximum:"600" description:"Seconds. Default: 300."`
	Locale    string  `json:"locale,omitempty" maxLength:"35" example:"de" description:"Language of the text, BCP 47. Default: en."`
	AppHash   string  `json:"app_hash,omitempty" pattern:"^[A-Za-z0-9+/]{11}$" description:"Hash of the Android app that reads the text (SMS Retriever)."`
}

// VerifyRequest gives the code back, with what your page showed.
type VerifyRequest struct {
	Code     string  `json:"code" required:"true" maxLength:"40" example:"123456"`
	Amount   string  `json:"amount" required:"true" example:"129.90"`
	Currency string  `json:"currency" required:"true" example:"EUR"`
	Payee    *Payee  `json:"payee,omitempty" description:"Either this or payees, as it was when the transaction began."`
	Payees   []Payee `json:"payees,omitempty" maxItems:"100"`
}

// ResendRequest asks for another text.
type ResendRequest struct {
	AppHash string `json:"app_hash,omitempty" pattern:"^[A-Za-z0-9+/]{11}$"`
}

// Shown is what the payer saw.
type Shown struct {
	Channel  string `json:"channel" example:"sms"`
	Text     string `json:"text" description:"With ****** in place of the code, and accounts masked."`
	Locale   string `json:"locale"`
	Template string `json:"template"`
}

// Transaction as it stands.
type Transaction struct {
	ID           string     `json:"id" example:"txn_5f1c0b6e3a4d4c7e9f2a1b3c4d5e6f70"`
	Status       string     `json:"status" enum:"pending,approved,refused,reported,expired,canceled,failed" description:"Everything but pending is for good."`
	Reason       string     `json:"reason,omitempty" enum:"attempts,changed,suspended,client"`
	Door         string     `json:"door" enum:"rest,page,ciba" description:"By which it is answered."`
	User         string     `json:"user" description:"sub of the payer."`
	Amount       string     `json:"amount"`
	Currency     string     `json:"currency"`
	Payees       []Payee    `json:"payees"`
	Reference    string     `json:"reference,omitempty"`
	Type         string     `json:"type"`
	Warnings     []string   `json:"warnings,omitempty" enum:"payee_mixed_script"`
	SHA256       string     `json:"sha256" description:"Of the canonical record, in hexadecimal digits."`
	AttemptsLeft int        `json:"attempts_left" description:"Wrong codes that it still bears."`
	Shown        []Shown    `json:"shown"`
	CreatedAt    time.Time  `json:"created_at"`
	ExpiresAt    time.Time  `json:"expires_at"`
	DecidedAt    *time.Time `json:"decided_at,omitempty"`
	ReportedAt   *time.Time `json:"reported_at,omitempty" description:"The payer said that they had not asked for it, whatever had been decided by then."`
	ACR          string     `json:"acr,omitempty"`
	AMR          []string   `json:"amr,omitempty"`
	AuthTime     *time.Time `json:"auth_time,omitempty"`
	Result       string     `json:"result,omitempty" description:"Of an approval: the signed result, a JWS. Asked for again it is the same one, by jti. Act upon it once."`
}

// List is a page of transactions, the newest first.
type List struct {
	Data       []Transaction `json:"data"`
	NextCursor string        `json:"next_cursor,omitempty" description:"Give it as cursor for the next page. Missing: that was the last."`
}

// operation is one of the table that serves requests and describes itself.
type operation struct {
	rest.Operation

	serve func(ctx context.Context, r *request) (*transaction.Transaction, error)
}

// request is one whose caller is known.
type request struct {
	*http.Request
	client string
	input  any
	claim  *rest.Claim
	stored *rest.Stored
}

func (a *API) operations() []operation {
	id := []rest.Parameter{rest.InPath("id", "A transaction's id.")}
	ends := []rest.Code{rest.NotFound, rest.AlreadyDecided, rest.OTPExpired, rest.AttemptsExhausted, rest.Canceled}
	one := func(method, path, name, summary, detail string, input any, problems []rest.Code, example string, serve func(context.Context, *request) (*transaction.Transaction, error)) operation {
		return operation{rest.Operation{Method: method, Path: path, ID: name, Summary: summary, Detail: detail, Scope: Scope, Input: input, Output: Transaction{}, Status: http.StatusOK,
			Repeatable: method == http.MethodPost, Parameters: id, Problems: problems, Example: example}, serve}
	}
	create := one(http.MethodPost, "/v1/transactions", "createTransaction", "Ask somebody to confirm a payment",
		"The payer is texted amount, currency and payee, with a code that is good for exactly that. Nothing of it can be changed: what differs is another transaction.", CreateRequest{},
		[]rest.Code{rest.InvalidRequest, rest.InvalidNumber, rest.TooMany}, `{"user": "…", "amount": "129.90", "currency": "EUR", "payee": {"name": "Gas AG", "account": "DE02100100109307118603"}, "reference": "Bill 4711"}`, a.create)
	create.Status, create.Parameters = http.StatusCreated, nil
	list := one(http.MethodGet, "/v1/transactions", "listTransactions", "List transactions, the newest first", "", nil, []rest.Code{rest.InvalidRequest}, "", nil)
	list.Output, list.Parameters = List{}, []rest.Parameter{rest.InQuery("limit", "How many, 1 to 100. Default 20."), rest.InQuery("cursor", "Where to go on: next_cursor of the page before.")}
	return []operation{
		create, list,
		one(http.MethodGet, "/v1/transactions/{id}", "readTransaction", "Read a transaction", "Read it as the last gate before you execute it. It can be read for 550 days.", nil, []rest.Code{rest.NotFound}, "", a.read),
		one(http.MethodPost, "/v1/transactions/{id}/verify", "verifyTransaction", "Give the code back",
			"Amount, currency and payees are those that your page showed. If any of them is not the record's, the transaction has failed, whether or not the code was right. The fifth wrong code ends it too.", VerifyRequest{},
			slices.Concat([]rest.Code{rest.InvalidRequest, rest.OTPIncorrect, rest.TransactionMismatch, rest.TooMany}, ends),
			`{"code": "123456", "amount": "129.90", "currency": "EUR", "payee": {"name": "Gas AG", "account": "DE02100100109307118603"}}`, a.verify),
		one(http.MethodPost, "/v1/transactions/{id}/resend", "resendTransaction", "Send the text again", "Earlier codes of it stay good, and attempts are not given back. There is a pause between two texts, which grows.", ResendRequest{},
			slices.Concat([]rest.Code{rest.TooMany}, ends), `{}`, a.resend),
		one(http.MethodPost, "/v1/transactions/{id}/cancel", "cancelTransaction", "Take a transaction back", "Its code is worth nothing from then on.", nil, ends, `{}`, a.cancel),
	}
}

// Operations lists what the API does.
func (a *API) Operations() (all []rest.Operation) {
	for _, op := range a.operations() {
		all = append(all, op.Operation)
	}
	return all
}

// Paths of the descriptions.
const (
	describedAt    = "/openapi/transactions.json"
	describedAtOld = "/openapi/transactions-3.0.json"
)

// Paths lists the patterns of [API.Routes].
func Paths() []string {
	return []string{"/v1/transactions", "/v1/transactions/", describedAt, describedAtOld, Reference().Path}
}

// Describe writes the API's description: OpenAPI 3.1, or 3.0.3 for tools that read no newer one.
func (a *API) Describe(old bool) ([]byte, error) {
	d := rest.Description{
		Title: "Watchword transactions", Server: a.Docs, Prefix: "Api", Closed: []string{"Payee"}, Operations: a.Operations(), Answers: []any{Transaction{}, List{}, Shown{}}, Example: exampleAnswer,
		Text: "Have payments confirmed by a code that is good for exactly what the payer was texted. Errors are application/problem+json (RFC 9457); decide by code. Members may be added to answers at any time.",
		Secure: func(spec openapi.SpecSchema) []string {
			spec.SetHTTPBearerTokenSecurity("bearer", "JWT", "An access token that your client got for itself (RFC 6749 section 4.4) with the scope transactions. One that is bound to a key comes under the scheme DPoP with a proof (RFC 9449).")
			return []string{"bearer"}
		},
	}
	return d.Describe(old)
}

// Routes serves the API.
func (a *API) Routes() http.Handler {
	mux := http.NewServeMux()
	byPath := map[string]map[string]*operation{}
	for _, op := range a.operations() {
		if byPath[op.Path] == nil {
			byPath[op.Path] = map[string]*operation{}
		}
		byPath[op.Path][op.Method] = &op
	}
	fail := func(w http.ResponseWriter, r *http.Request, err error) { _, _ = a.problem(w, r, err) }
	for path, methods := range byPath {
		var allowed []string
		for method := range methods {
			allowed = append(allowed, method)
		}
		slices.Sort(allowed)
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			op := methods[r.Method]
			if op == nil {
				w.Header().Set("Allow", strings.Join(allowed, ", "))
				fail(w, r, rest.New(rest.MethodNotAllowed))
				return
			}
			outcome := a.answer(w, r, op)
			if a.Observe != nil {
				a.Observe(op.ID, outcome)
			}
		})
	}
	for path, old := range map[string]bool{describedAt: false, describedAtOld: true} {
		describe := sync.OnceValues(func() ([]byte, error) { return a.Describe(old) })
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			description, err := describe()
			if err != nil {
				fail(w, r, err)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Write(description) //nolint:errcheck // the asker is gone
		})
	}
	mux.HandleFunc(Reference().Path, a.pages().ServeReference(a.reference(), fail))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fail(w, r, rest.New(rest.NotFound)) })
	return httpkit.Recover(a.Log, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fail(w, r, rest.New(rest.Internal)) }), mux)
}

// problem answers with an error, and gives its code.
func (a *API) problem(w http.ResponseWriter, r *http.Request, err error) (*rest.Problem, []byte) {
	p := rest.Explain(r.Context(), a.Log, err)
	p.In(r.Context(), a.Docs)
	body, _ := json.Marshal(p) //nolint:errcheck,errchkjson // strings and numbers
	rest.SendProblem(w, p, body)
	return p, body
}

// ServeProblem shows what a code of a problem means.
func (a *API) ServeProblem(w http.ResponseWriter, r *http.Request) {
	a.pages().ServeProblem(w, r, func(err error) { _, _ = a.problem(w, r, err) })
}

// answer serves one request and says how it ended.
func (a *API) answer(w http.ResponseWriter, r *http.Request, op *operation) string {
	in, err := a.receive(w, r, op)
	if err != nil {
		p, _ := a.problem(w, r, err)
		return string(p.Code)
	}
	if in.stored != nil {
		w.Header().Set("Idempotent-Replayed", "true")
		if in.stored.Body != nil { // as it was
			rest.Send(w, in.stored.Status, in.stored.Body)
			return "ok"
		}
	}
	ctx := in.Context()
	var out any
	if op.serve == nil {
		out, err = a.list(ctx, in)
	} else {
		var t *transaction.Transaction
		if t, err = op.serve(ctx, in); err == nil {
			out, err = a.show(t, in.stored != nil && op.Status == http.StatusCreated)
		}
	}
	if err == nil {
		var body []byte
		if body, err = json.Marshal(out); err == nil && in.stored == nil && op.ID != "createTransaction" && op.ID != "verifyTransaction" { // those have stored what they did
			err = in.claim.Finish(ctx, a.DB, op.Status, body)
		}
		if err == nil {
			if op.Status == http.StatusCreated {
				w.Header().Set("Location", "/v1/transactions/"+out.(*Transaction).ID)
			}
			rest.Send(w, op.Status, body)
			return "ok"
		}
	}
	p, body := a.problem(w, r, err)
	kept := 0
	switch p.Code { // what will not be otherwise when it is asked again
	case rest.OTPIncorrect, rest.TransactionMismatch, rest.AlreadyDecided, rest.OTPExpired, rest.AttemptsExhausted, rest.Canceled:
		kept = p.Status
	}
	if err := in.claim.Finish(ctx, a.DB, kept, body); err != nil {
		a.Log.ErrorContext(ctx, "answer not stored", "error", err, "request_id", p.RequestID)
	}
	return string(p.Code)
}

// receive finds who asks, and reads what.
func (a *API) receive(w http.ResponseWriter, r *http.Request, op *operation) (*request, error) {
	client, scopes, err := a.Callers.Caller(w, r)
	switch {
	case err != nil:
		return nil, err
	case client == "":
		p := rest.New(rest.InvalidAPIKey)
		p.Title, p.Detail = "No valid access token", "Send an access token that the application got for itself, with the scope transactions, in Authorization."
		return nil, p
	case !slices.Contains(scopes, Scope):
		return nil, rest.New(rest.Forbidden).Because("scope")
	}
	from := audit.From(r.Context())
	from.Client = client
	in := &request{Request: r.WithContext(audit.With(r.Context(), from)), client: client}
	if op.Method != http.MethodPost {
		return in, nil
	}
	body, err := rest.ReadBody(w, r, maxBody)
	if err != nil {
		return nil, err
	}
	in.input = &struct{}{}
	if op.Input != nil {
		in.input = reflect.New(reflect.TypeOf(op.Input)).Interface()
	}
	if p := rest.Decode(body, in.input); p != nil {
		return nil, p
	}
	key, err := rest.Key(r)
	if err != nil || key == "" {
		return in, err
	}
	q := new(postgres.Query)
	q.With("caller", "SELECT 1")
	in.claim, in.stored, _, err = rest.Begin(r.Context(), a.DB, q, uuid.NewSHA1(uuid.NameSpaceOID, []byte("client:"+client)), "transactions", key, op.Method+" "+r.URL.Path, body)
	return in, err
}

// id of the transaction in the path. One that cannot be is answered as one that does not exist.
func (r *request) id() (uuid.UUID, error) {
	id, err := transaction.ParseID(r.PathValue("id"))
	if err != nil {
		return uuid.Nil, rest.New(rest.NotFound)
	}
	return id, nil
}

func payees(one *Payee, many []Payee, at func(string)) (all []transaction.Payee) {
	if (one == nil) == (len(many) == 0) {
		at("/payee")
		return nil
	}
	if one != nil {
		many = []Payee{*one}
	}
	for _, p := range many {
		all = append(all, transaction.Payee{Name: p.Name, Account: p.Account})
	}
	return all
}

func (a *API) create(ctx context.Context, r *request) (*transaction.Transaction, error) {
	if r.stored != nil { // the same request made it: as it was then
		var made struct {
			ID uuid.UUID `json:"transaction"`
		}
		if err := json.Unmarshal(r.stored.Data, &made); err != nil {
			return nil, fmt.Errorf("stored answer: %w", err)
		}
		return a.Confirm.Get(ctx, r.client, made.ID)
	}
	body := r.input.(*CreateRequest)
	var wrong []rest.FieldError
	fail := func(pointer, message string) {
		wrong = append(wrong, rest.FieldError{Pointer: pointer, Message: message})
	}
	var user transaction.User
	switch {
	case (body.User == "") == (body.Phone == ""):
		fail("/user", "or phone is required, and not both")
	case strings.ContainsRune(body.User, 0):
		fail("/user", "cannot be asked")
	case body.User != "":
		user.Subject = body.User
	default:
		number, err := sms.ParseNumber(body.Phone, "")
		if err != nil {
			return nil, rest.New(rest.InvalidNumber)
		}
		user.Number = number
	}
	order := transaction.Order{Amount: body.Amount, Currency: body.Currency, Reference: body.Reference, Type: body.Type, ExpiresIn: time.Duration(body.ExpiresIn) * time.Second, Locale: body.Locale}
	order.Payees = payees(body.Payee, body.Payees, func(at string) { fail(at, "or payees is required, and not both") })
	if body.AppHash != "" && !sms.IsAppHash(body.AppHash) {
		fail("/app_hash", noAppHash)
	}
	if order.Payees != nil {
		if _, _, err := order.Normalize(); err != nil {
			invalid, _ := errors.AsType[*transaction.InvalidError](err)
			for _, p := range invalid.Problems {
				fail(p.Pointer, p.Message)
			}
		}
	}
	if len(wrong) > 0 {
		p := rest.New(rest.InvalidRequest)
		p.Errors = wrong
		return nil, p
	}
	t, err := a.Confirm.Create(ctx, transaction.Request{Order: order, Client: r.client, User: user, Door: transaction.DoorREST, App: body.AppHash,
		Along: func(q *postgres.Query, created string) {
			r.claim.Settle(q, created, http.StatusCreated, "jsonb_build_object('transaction', "+created+".id)")
		}})
	at := "/user"
	if body.Phone != "" {
		at = "/phone"
	}
	if held, ok := errors.AsType[*transaction.HoldError](err); ok {
		return nil, rest.New(rest.Forbidden).Because("phone_too_new").Wait(held.Until.Sub(a.Now()))
	}
	switch {
	case errors.Is(err, transaction.ErrHeldBack):
		return nil, rest.New(rest.Forbidden).Because(simChanged)
	case errors.Is(err, transaction.ErrUser), errors.Is(err, transaction.ErrNoPhone):
		return nil, rest.Invalid(at, "cannot be asked")
	case errors.Is(err, transaction.ErrTooMany):
		return nil, rest.New(rest.TooMany).Scoped("account").Because("too_many_open").Wait(time.Minute)
	}
	return t, a.blocked(err)
}

// noAppHash is what is wrong with a hash of an app that is none.
const noAppHash = "is no hash of 11 characters"

// simChanged is why nothing is texted to a phone for now.
const simChanged = "sim_changed"

// blocked words the block of somebody who gave too many wrong codes.
func (a *API) blocked(err error) error {
	if blocked, ok := errors.AsType[*factors.BlockedError](err); ok {
		p := rest.New(rest.TooMany).Scoped("account")
		if !limits.Endless(blocked.Until) {
			p = p.Wait(blocked.Until.Sub(a.Now()))
		}
		return p
	}
	return err
}

func (a *API) read(ctx context.Context, r *request) (*transaction.Transaction, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	t, err := a.Confirm.Get(ctx, r.client, id)
	return t, a.ended(t, err)
}

// ended words the errors that say how a transaction stands.
func (a *API) ended(t *transaction.Transaction, err error) error {
	switch {
	case errors.Is(err, transaction.ErrUnknown):
		return rest.New(rest.NotFound)
	case errors.Is(err, transaction.ErrOver):
		return rest.New(rest.OTPExpired)
	case !errors.Is(err, transaction.ErrDecided):
		return a.blocked(err)
	}
	switch {
	case t.State == transaction.Expired:
		return rest.New(rest.OTPExpired)
	case t.State == transaction.Canceled:
		return rest.New(rest.Canceled)
	case t.State == transaction.Failed && t.Reason == transaction.ReasonAttempts:
		return rest.New(rest.AttemptsExhausted)
	}
	return rest.New(rest.AlreadyDecided)
}

func (a *API) verify(ctx context.Context, r *request) (*transaction.Transaction, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	if r.stored != nil { // approved by this very request
		t, err := a.Confirm.Get(ctx, r.client, id)
		return t, a.ended(t, err)
	}
	body := r.input.(*VerifyRequest)
	p := rest.New(rest.InvalidRequest)
	fail := func(at, message string) {
		p.Errors = append(p.Errors, rest.FieldError{Pointer: at, Message: message})
	}
	for at, value := range map[string]string{"/code": body.Code, "/amount": body.Amount, "/currency": body.Currency} {
		if value == "" {
			fail(at, "is required")
		}
	}
	repeat := &transaction.Repeat{Amount: body.Amount, Currency: body.Currency}
	repeat.Payees = payees(body.Payee, body.Payees, func(at string) { fail(at, "or payees is required, and not both") })
	if len(p.Errors) > 0 {
		slices.SortFunc(p.Errors, func(x, y rest.FieldError) int { return strings.Compare(x.Pointer, y.Pointer) })
		return nil, p
	}
	t, err := a.Confirm.Approve(ctx, r.client, id, transaction.Answer{Code: body.Code, Repeat: repeat, Door: transaction.DoorREST, Along: func(q *postgres.Query, approved string) {
		r.claim.Settle(q, approved, http.StatusOK, "jsonb_build_object('transaction', "+approved+".id)")
	}})
	switch {
	case errors.Is(err, transaction.ErrMismatch):
		return nil, rest.New(rest.TransactionMismatch)
	case errors.Is(err, factors.ErrMismatch):
		return nil, rest.New(rest.OTPIncorrect).Left(left(t))
	case mistyped(err):
		return nil, rest.Invalid("/code", "is not the digits of a code")
	}
	return t, a.ended(t, err)
}

// mistyped reports an error about what was typed: nothing was compared, and no attempt was spent.
func mistyped(err error) bool {
	return slices.ContainsFunc([]error{factors.ErrCodeEmpty, factors.ErrCodeShort, factors.ErrCodeLong, factors.ErrCodeChars}, func(one error) bool { return errors.Is(err, one) })
}

// left is how many wrong codes it still bears.
func left(t *transaction.Transaction) int {
	if t == nil || t.State != transaction.Pending || t.Challenge == nil {
		return 0
	}
	return t.Challenge.AttemptsLeft()
}

func (a *API) resend(ctx context.Context, r *request) (*transaction.Transaction, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	app := r.input.(*ResendRequest).AppHash
	if app != "" && !sms.IsAppHash(app) {
		return nil, rest.Invalid("/app_hash", noAppHash)
	}
	t, err := a.Confirm.Get(ctx, r.client, id)
	if err == nil && t.Door != transaction.DoorREST {
		err = transaction.ErrUnknown
	}
	if err != nil {
		return nil, a.ended(t, err)
	}
	t, err = a.Confirm.Resend(ctx, r.client, id, uuid.Nil, app)
	if wait, ok := errors.AsType[*factors.WaitError](err); ok {
		p := rest.New(rest.TooMany).Scoped("transaction")
		if wait.Limited {
			p = p.Scoped("number")
		}
		if !wait.UsedUp {
			p = p.Wait(wait.Until.Sub(a.Now()))
		}
		return nil, p
	}
	if errors.Is(err, transaction.ErrHeldBack) {
		return nil, rest.New(rest.Forbidden).Because(simChanged)
	}
	return t, a.ended(t, err)
}

func (a *API) cancel(ctx context.Context, r *request) (*transaction.Transaction, error) {
	id, err := r.id()
	if err != nil {
		return nil, err
	}
	t, err := a.Confirm.Cancel(ctx, r.client, id)
	if errors.Is(err, transaction.ErrDecided) && t.State == transaction.Canceled { // asked for twice, it is what was asked for
		err = nil
	}
	return t, a.ended(t, err)
}

// Bounds of a list.
const (
	defaultList = 20
	maxList     = 100
)

func (a *API) list(ctx context.Context, r *request) (*List, error) {
	query, limit := r.URL.Query(), defaultList
	var before time.Time
	for name, values := range query {
		if len(values) > 1 || name != "limit" && name != "cursor" {
			return nil, rest.Invalid("", "has a parameter that is not known, or one twice")
		}
	}
	if text := query.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			return nil, rest.Invalid("limit", fmt.Sprintf("is not 1 to %d", maxList))
		}
		limit = n
	}
	if text := query.Get("cursor"); text != "" {
		raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
		if err == nil {
			err = before.UnmarshalText(raw)
			before = before.UTC() // a database knows fewer offsets
		}
		if err != nil {
			return nil, rest.Invalid("cursor", "is not one that this API gave you")
		}
	}
	if _, err := a.Confirm.Expire(ctx); err != nil { // nothing is told that is over and not stored as such
		return nil, err
	}
	found, err := a.Confirm.List(ctx, r.client, before, limit+1)
	if err != nil {
		return nil, err
	}
	out := &List{Data: []Transaction{}}
	if len(found) > limit {
		found = found[:limit]
		mark, err := found[limit-1].CreatedAt.UTC().MarshalText()
		if err != nil {
			return nil, err
		}
		out.NextCursor = base64.RawURLEncoding.EncodeToString(mark)
	}
	for _, t := range found {
		shown, err := a.show(t, false)
		if err != nil {
			return nil, err
		}
		out.Data = append(out.Data, *shown)
	}
	return out, nil
}

// show is a transaction as it stands, or as it was when it began.
func (a *API) show(t *transaction.Transaction, began bool) (*Transaction, error) {
	out := &Transaction{
		ID: transaction.PublicID(t.ID), Status: string(t.State), Reason: t.Reason, Door: t.Door, User: t.User, Amount: t.Amount, Currency: t.Currency, Reference: t.Reference, Type: t.Type,
		Warnings: t.Warnings, SHA256: hex.EncodeToString(t.Hash), AttemptsLeft: left(t), CreatedAt: t.CreatedAt.UTC(), ExpiresAt: t.ExpiresAt.UTC(), Shown: []Shown{},
	}
	for _, p := range t.Payees {
		out.Payees = append(out.Payees, Payee{Name: p.Name, Account: p.Masked()})
	}
	for _, s := range t.Shown {
		out.Shown = append(out.Shown, Shown(s))
	}
	if began {
		out.Status, out.Reason, out.AttemptsLeft, out.Shown = string(transaction.Pending), "", a.Confirm.Ledger.Limits.Attempts, out.Shown[:1]
		return out, nil
	}
	at := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = t.UTC()
		return &t
	}
	out.DecidedAt, out.ReportedAt, out.AuthTime, out.ACR, out.AMR = at(t.DecidedAt), at(t.ReportedAt), at(t.AuthTime), t.ACR, t.AMR
	if t.State != transaction.Approved {
		return out, nil
	}
	var err error
	out.Result, err = a.Confirm.Result(t)
	return out, err
}
