package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"html"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/authntest"
	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/authn/transaction/api"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/smsotp"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/logtest"
	"github.com/watchword-auth/watchword/internal/pgtest"
	"github.com/watchword-auth/watchword/internal/rest"
	"github.com/watchword-auth/watchword/sms"
)

var update = flag.Bool("update", false, "write the API's descriptions anew")

func TestMain(m *testing.M) { pgtest.Main(m) }

// callers are tokens: "bank", "other", and one without the scope.
type callers struct{}

func (callers) Caller(_ http.ResponseWriter, r *http.Request) (string, []string, error) {
	switch token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "); token {
	case "bank", "other":
		return token, []string{api.Scope}, nil
	case "weak":
		return "bank", []string{"profile"}, nil
	}
	return "", nil, nil
}

type key struct {
	signer jose.Signer
	set    jose.JSONWebKeySet
}

func newKey(t testing.TB) key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	k := jose.JSONWebKey{Key: private, KeyID: "k", Algorithm: string(jose.ES256), Use: "sig"}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: k}, (&jose.SignerOptions{}).WithType(transaction.ReceiptType))
	must(t, err)
	return key{signer, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{k.Public()}}}
}

func (k key) SignAs(_ string, payload []byte) (string, error) {
	signed, err := k.signer.Sign(payload)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type world struct {
	*authntest.World
	api     *api.API
	key     key
	logs    *logtest.Buffer
	handler http.Handler
	alice   string // sub
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{World: authntest.New(t), key: newKey(t), logs: new(logtest.Buffer)}
	id := w.Subscriber(t, "alice", "+12025550143")
	must(t, w.DB.GetContext(t.Context(), &w.alice, "SELECT subject FROM subscribers WHERE id = $1", id))
	w.DB.Advance(t, 25*time.Hour)
	w.api = &api.API{
		DB: w.DB.DB, Callers: callers{}, Docs: "https://login.example", Now: func() time.Time { return w.DB.Now(t) }, Log: slog.New(slog.NewTextHandler(w.logs, nil)),
		Confirm: &transaction.Service{DB: w.DB.DB, Keys: w.Keys, Ledger: w.Service.Ledger, Signer: w.key, Issuer: "https://login.example", Config: transaction.DefaultConfig()},
	}
	w.handler = httpkit.Identify(httpkit.Trust{}, w.api.Routes())
	return w
}

// answer of the API.
type answer struct {
	status int
	header http.Header
	text   string

	api.Transaction
	Problem problem `json:"-"`
}

// problem is what an error says.
type problem struct {
	Code string `json:"code"`
	Left *int   `json:"attempts_left"`
	Why  string `json:"reason"`
}

func (w *world) ask(t testing.TB, method, path, token, body string, change ...func(*http.Request)) *answer {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body)).WithContext(t.Context())
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, c := range change {
		c(r)
	}
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	data, err := io.ReadAll(rec.Body)
	must(t, err)
	a := &answer{status: rec.Code, header: rec.Header(), text: string(data)}
	if a.status < http.StatusBadRequest {
		json.Unmarshal(data, &a.Transaction) //nolint:errcheck // a list is none
		return a
	}
	must(t, json.Unmarshal(data, &a.Problem))
	return a
}

func (a *answer) want(t testing.TB, status int, code string) *answer {
	t.Helper()
	if a.status != status || a.Problem.Code != code || a.header.Get("Cache-Control") != "no-store" {
		t.Errorf("answered %d %s; want %d %q", a.status, a.text, status, code)
	}
	return a
}

func idempotent(key string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Idempotency-Key", key) }
}

const payee = `"payee": {"name": "Gas AG", "account": "DE02 1001 0010 9307 1186 03"}`

// body of a creation: what is given replaces the amount.
func (w *world) body(change ...string) string {
	amount, more := `"129.90"`, payee
	if len(change) > 0 {
		amount = change[0]
	}
	if len(change) > 1 {
		more = change[1]
	}
	return fmt.Sprintf(`{"user": %q, "amount": %s, "currency": "EUR", %s}`, w.alice, amount, more)
}

func (w *world) create(t testing.TB) *answer {
	t.Helper()
	a := w.ask(t, "POST", "/v1/transactions", "bank", w.body())
	if a.status != http.StatusCreated || a.Status != "pending" || a.header.Get("Location") != "/v1/transactions/"+a.ID {
		t.Fatalf("not created: %d %s", a.status, a.text)
	}
	return a
}

// code of a transaction, as its text has it.
func (w *world) code(t testing.TB, id string) string {
	t.Helper()
	parsed, err := transaction.ParseID(id)
	must(t, err)
	var challenge uuid.UUID
	must(t, w.DB.GetContext(t.Context(), &challenge, "SELECT challenge_id FROM transactions WHERE id = $1", parsed))
	return w.Code(t, challenge)
}

func (w *world) verify(t testing.TB, token, id, code string, change ...string) *answer {
	t.Helper()
	amount, more := `"129.9"`, payee
	if len(change) > 0 {
		amount = change[0]
	}
	if len(change) > 1 {
		more = change[1]
	}
	return w.ask(t, "POST", "/v1/transactions/"+id+"/verify", token, fmt.Sprintf(`{"code": %q, "amount": %s, "currency": "EUR", %s}`, code, amount, more))
}

func wrong(code string) string {
	if code == "000000" {
		return "000001"
	}
	return "000000"
}

func TestDescription(t *testing.T) {
	t.Parallel()
	a := &api.API{Docs: "https://login.example"}
	for name, old := range map[string]bool{"testdata/openapi.json": false, "testdata/openapi-3.0.json": true} {
		got, err := a.Describe(old)
		must(t, err)
		if *update {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(name, got, 0o644))
		}
		want, err := os.ReadFile(name)
		must(t, err)
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s is out of date; run: go test ./authn/transaction/api -run Description -update\n%s", name, diff)
		}
	}
}

// Every example of the description works as it stands, and every answer is what the description says.
func TestExamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, op := range w.api.Operations() {
		t.Run(op.ID, func(t *testing.T) {
			w.DB.Advance(t, time.Hour)
			id := w.create(t).ID
			w.DB.Advance(t, time.Minute)
			path := strings.Replace(op.Path, "{id}", id, 1)
			body := strings.NewReplacer("…", w.alice, "123456", w.code(t, id)).Replace(op.Example)
			a := w.ask(t, op.Method, path, "bank", body).want(t, op.Status, "")
			out := reflect.New(reflect.TypeOf(op.Output)).Interface()
			if err := jsonv2.Unmarshal([]byte(a.text), out, jsonv2.RejectUnknownMembers(true)); err != nil {
				t.Errorf("%s: %v", a.text, err)
			}
		})
	}
}

// The page about the API shows all of it; its links lead somewhere, and its commands work as they stand there.
func TestReference(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.api.Pages.References = []rest.Link{{Title: "Another", Path: "/docs/another"}, api.Reference()}
	mux := http.NewServeMux()
	mux.Handle("/", w.api.Routes())
	mux.HandleFunc(rest.ProblemsPath, w.api.ServeProblem)
	server := httptest.NewServer(httpkit.Identify(httpkit.Trust{}, mux))
	t.Cleanup(server.Close)
	read := func(path string) string {
		t.Helper()
		res, err := http.Get(server.URL + path) //nolint:noctx // it is a test's own server
		must(t, err)
		defer res.Body.Close() //nolint:errcheck // it was read
		data, err := io.ReadAll(res.Body)
		must(t, err)
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, res.StatusCode, data)
		}
		return string(data)
	}
	page := read("/docs/api/transactions")
	if all := read("/docs/problems/"); !strings.Contains(all, `href="/docs/api/transactions"`) {
		t.Errorf("the codes do not lead to the API: %s", all)
	}
	for _, want := range []string{`<a href="/docs/another">Another</a>`, "instead: the number of a phone", "too_many_open", "transaction_mismatch", `id="Transaction"`} {
		if !strings.Contains(strings.ToLower(page), strings.ToLower(want)) {
			t.Errorf("the page does not show %q", want)
		}
	}
	seen := map[string]bool{}
	for _, link := range regexp.MustCompile(`href="(/[^"]+)"`).FindAllStringSubmatch(page, -1) {
		if !seen[link[1]] && link[1] != "/docs/another" {
			seen[link[1]] = true
			read(link[1])
		}
	}
	commands := regexp.MustCompile(`(?s)<code>(curl .*?)</code>`).FindAllStringSubmatch(page, -1)
	if len(commands) != len(w.api.Operations()) {
		t.Fatalf("%d commands for %d operations", len(commands), len(w.api.Operations()))
	}
	for i, command := range commands {
		w.DB.Advance(t, time.Hour)
		id, op := w.create(t).ID, w.api.Operations()[i]
		w.DB.Advance(t, time.Minute)
		line := strings.NewReplacer("txn_…", id, "…", w.alice, "123456", w.code(t, id), "https://login.example", server.URL).Replace(html.UnescapeString(command[1]))
		cmd := exec.CommandContext(t.Context(), "bash", "-c", line+` -s -o /dev/null -w '%{http_code}'`)
		cmd.Env = append(os.Environ(), "WATCHWORD_TOKEN=bank")
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != fmt.Sprint(op.Status) {
			t.Errorf("%s\n%v, %s, want %d", line, err, out, op.Status)
		}
	}
}

// A whole confirmation: what the payer read, the code with what the bank showed, the signed result, and the state as the last gate.
func TestConfirmation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	if strings.Contains(made.text, "DE02") || made.Payees[0].Account != "••••8603" || !strings.Contains(made.Shown[0].Text, "129.90") || strings.Contains(made.text, w.code(t, made.ID)) {
		t.Errorf("created: %s", made.text)
	}
	w.verify(t, "bank", made.ID, wrong(w.code(t, made.ID))).want(t, 400, "otp_incorrect")
	done := w.verify(t, "bank", made.ID, w.code(t, made.ID)).want(t, 200, "")
	receipt, record, err := transaction.ReadReceipt(done.Result, w.key.set)
	if err != nil || done.Status != "approved" || receipt.Audience != "bank" || record.Payees[0].Account != "DE02100100109307118603" || receipt.SHA256 == "" {
		t.Fatalf("approved: %s, %+v, %v", done.text, receipt, err)
	}
	now := w.ask(t, "GET", "/v1/transactions/"+made.ID, "bank", "").want(t, 200, "")
	again, _, err := transaction.ReadReceipt(now.Result, w.key.set)
	if err != nil || again.ID != receipt.ID || now.Status != "approved" || now.DecidedAt == nil {
		t.Errorf("read afterwards: %s, %v", now.text, err)
	}
}

func TestTX1(t *testing.T) { // TXN-3
	t.Parallel()
	for name, change := range map[string][]string{
		"one cent":           {`"129.91"`},
		"one letter":         {`"129.90"`, `"payee": {"name": "Gas AC", "account": "DE02100100109307118603"}`},
		"another account":    {`"129.90"`, `"payee": {"name": "Gas AG", "account": "GB82WEST12345698765432"}`},
		"no account":         {`"129.90"`, `"payee": {"name": "Gas AG"}`},
		"another payee more": {`"129.90"`, `"payees": [{"name": "Gas AG", "account": "DE02100100109307118603"}, {"name": "Friend"}]`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			made := w.create(t)
			code := w.code(t, made.ID)
			w.verify(t, "bank", made.ID, code, change...).want(t, 400, "transaction_mismatch")
			w.verify(t, "bank", made.ID, code).want(t, 409, "already_decided")
			if now := w.ask(t, "GET", "/v1/transactions/"+made.ID, "bank", ""); now.Status != "failed" || now.Reason != "changed" || now.Amount != "129.90" || now.Result != "" {
				t.Errorf("afterwards: %s", now.text)
			}
		})
	}
	t.Run("by other calls", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		made := w.create(t)
		for _, method := range []string{"PATCH", "PUT", "DELETE", "POST"} {
			if a := w.ask(t, method, "/v1/transactions/"+made.ID, "bank", w.body(`"1.00"`)); a.status != http.StatusMethodNotAllowed {
				t.Errorf("%s: %d", method, a.status)
			}
		}
		w.ask(t, "GET", "/v1/transactions/"+made.ID+"?amount=1.00", "bank", "").want(t, 200, "")
		if a := w.verify(t, "bank", made.ID, w.code(t, made.ID)); a.Status != "approved" || a.Amount != "129.90" {
			t.Errorf("afterwards: %s", a.text)
		}
	})
}

func TestTX2(t *testing.T) { // TXN-2: a code of one on another that is equal
	t.Parallel()
	w := newWorld(t)
	one, two := w.create(t), w.create(t)
	if code := w.code(t, one.ID); code != w.code(t, two.ID) {
		w.verify(t, "bank", two.ID, code).want(t, 400, "otp_incorrect")
	}
	w.create(t)
	if a := w.ask(t, "POST", "/v1/transactions", "bank", w.body()).want(t, 429, "rate_limited"); a.Problem.Why != "too_many_open" {
		t.Errorf("a fourth at once: %s", a.text)
	}
}

func TestTX4(t *testing.T) { // TXN-11, GW-2
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	code, path := w.code(t, made.ID), "/v1/transactions/"+made.ID
	unknown := w.ask(t, "GET", "/v1/transactions/txn_00000000000000000000000000000000", "other", "").want(t, 404, "not_found")
	without := func(s string) string { return s[:strings.Index(s, `"request_id"`)] }
	for name, a := range map[string]*answer{
		"read": w.ask(t, "GET", path, "other", ""), "verify": w.verify(t, "other", made.ID, code), "cancel": w.ask(t, "POST", path+"/cancel", "other", "{}"),
		"resend": w.ask(t, "POST", path+"/resend", "other", "{}"), "a form of its own": w.ask(t, "GET", strings.ToUpper(path[:18])+path[18:]+"0", "bank", ""),
	} {
		if a.want(t, 404, "not_found"); without(a.text) != without(unknown.text) {
			t.Errorf("%s of another's: %s; of none: %s", name, a.text, unknown.text)
		}
	}
	w.ask(t, "GET", path, "", "").want(t, 401, "invalid_api_key")
	w.ask(t, "GET", path, "forged", "").want(t, 401, "invalid_api_key")
	w.ask(t, "GET", path, "weak", "").want(t, 403, "forbidden")
	var list struct{ Data []api.Transaction }
	must(t, json.Unmarshal([]byte(w.ask(t, "GET", "/v1/transactions", "other", "").text), &list))
	if len(list.Data) != 0 {
		t.Errorf("the other lists %v", list)
	}
	w.verify(t, "bank", made.ID, code).want(t, 200, "")
}

func TestTX5(t *testing.T) { // TXN-7
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	code := w.code(t, made.ID)
	var group sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	for range 8 {
		group.Go(func() {
			a := w.verify(t, "bank", made.ID, code)
			mu.Lock()
			defer mu.Unlock()
			outcomes[fmt.Sprint(a.status, a.Problem.Code)]++
		})
	}
	group.Wait()
	if outcomes["200"] != 1 || outcomes["409already_decided"] != 7 {
		t.Errorf("eight at once: %v", outcomes)
	}
	var records int
	must(t, w.DB.GetContext(t.Context(), &records, "SELECT count(*) FROM audit_events WHERE event = 'transaction.approve' AND outcome = 'success'"))
	if records != 1 {
		t.Errorf("%d records of an approval", records)
	}
}

func TestTX7(t *testing.T) { // TXN-6
	t.Parallel()
	w := newWorld(t)
	expired := w.create(t)
	code := w.code(t, expired.ID)
	w.DB.Advance(t, 301*time.Second)
	w.verify(t, "bank", expired.ID, code).want(t, 410, "otp_expired")
	w.ask(t, "POST", "/v1/transactions/"+expired.ID+"/resend", "bank", "").want(t, 410, "otp_expired")
	w.ask(t, "POST", "/v1/transactions/"+expired.ID+"/cancel", "bank", "").want(t, 410, "otp_expired")
	canceled := w.create(t)
	code = w.code(t, canceled.ID)
	for range 2 { // asked for twice it is what was asked for
		if a := w.ask(t, "POST", "/v1/transactions/"+canceled.ID+"/cancel", "bank", "").want(t, 200, ""); a.Status != "canceled" {
			t.Errorf("canceled: %s", a.text)
		}
	}
	w.verify(t, "bank", canceled.ID, code).want(t, 410, "canceled")
	// One of another door is answered on a page of ours, and not here.
	asked, err := w.api.Confirm.Create(t.Context(), transaction.Request{Client: "bank", User: transaction.User{Subject: w.alice}, Door: transaction.DoorCIBA,
		Order: transaction.Order{Amount: "129.90", Currency: "EUR", Payees: []transaction.Payee{{Name: "Gas AG", Account: "DE02100100109307118603"}}}})
	must(t, err)
	id := transaction.PublicID(asked.ID)
	w.verify(t, "bank", id, w.code(t, id)).want(t, 404, "not_found")
	w.ask(t, "POST", "/v1/transactions/"+id+"/resend", "bank", "").want(t, 404, "not_found")
	if a := w.ask(t, "GET", "/v1/transactions/"+id, "bank", "").want(t, 200, ""); a.Door != "ciba" || a.Status != "pending" {
		t.Errorf("read: %s", a.text)
	}
}

func TestTX8(t *testing.T) { // TXN-8, TXN-12
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	code := w.code(t, made.ID)
	for left := 4; left >= 0; left-- {
		if a := w.verify(t, "bank", made.ID, wrong(code)).want(t, 400, "otp_incorrect"); a.Problem.Left == nil || *a.Problem.Left != left {
			t.Errorf("%d left: %s", left, a.text)
		}
	}
	w.verify(t, "bank", made.ID, code).want(t, 410, "otp_attempts_exhausted")
	w.ask(t, "POST", "/v1/transactions/"+made.ID+"/resend", "bank", "").want(t, 410, "otp_attempts_exhausted")
	a := w.ask(t, "POST", "/v1/transactions", "bank", w.body()).want(t, 429, "rate_limited")
	if a.header.Get("Retry-After") == "" {
		t.Errorf("%v", a.header)
	}
}

func TestTX20(t *testing.T) { // API-3
	t.Parallel()
	w := newWorld(t)
	first := w.ask(t, "POST", "/v1/transactions", "bank", w.body(), idempotent("k1")).want(t, 201, "")
	w.ask(t, "POST", "/v1/transactions", "bank", w.body(`"1.00"`), idempotent("k1")).want(t, 422, "idempotency_key_reused")
	again := w.ask(t, "POST", "/v1/transactions", "bank", "  "+w.body(), idempotent("k1")).want(t, 201, "")
	if again.text != first.text || again.header.Get("Idempotent-Replayed") != "true" || w.Texts(t) != 1 {
		t.Errorf("repeated: %s\nfirst: %s\n%d texts", again.text, first.text, w.Texts(t))
	}
	// Nobody who reads the table tries numbers or codes out on what is stored.
	canonical := jsontext.Value(w.body())
	must(t, canonical.Canonicalize())
	sum := sha256.Sum256(canonical)
	var plain int
	must(t, w.DB.GetContext(t.Context(), &plain, "SELECT count(*) FROM idempotency_keys WHERE request = $1", sum[:]))
	if plain != 0 {
		t.Error("the body's hash without a key is stored")
	}
	// Another client's key is another key.
	if a := w.ask(t, "POST", "/v1/transactions", "other", w.body(), idempotent("k1")).want(t, 201, ""); a.ID == first.ID {
		t.Error("the same transaction for another client")
	}
	// A code that is given twice because an answer got lost.
	body := fmt.Sprintf(`{"code": %q, "amount": "129.90", "currency": "EUR", %s}`, w.code(t, first.ID), payee)
	path := "/v1/transactions/" + first.ID + "/verify"
	one := w.ask(t, "POST", path, "bank", body, idempotent("k2")).want(t, 200, "")
	two := w.ask(t, "POST", path, "bank", body, idempotent("k2")).want(t, 200, "")
	r1, _, err1 := transaction.ReadReceipt(one.Result, w.key.set)
	r2, _, err2 := transaction.ReadReceipt(two.Result, w.key.set)
	if err1 != nil || err2 != nil || r1.ID != r2.ID || two.header.Get("Idempotent-Replayed") != "true" {
		t.Errorf("%s, %v\n%s, %v", one.text, err1, two.text, err2)
	}
	// What was created is told as it was then.
	if a := w.ask(t, "POST", "/v1/transactions", "bank", w.body(), idempotent("k1")); a.text != first.text {
		t.Errorf("repeated after it was approved: %s", a.text)
	}
	w.ask(t, "POST", "/v1/transactions", "bank", w.body(), idempotent("")).want(t, 400, "invalid_request")
}

func TestTX21(t *testing.T) { // TXN-6
	t.Parallel()
	w := newWorld(t)
	for name, body := range map[string]string{
		"grouped": w.body(`"1,000.00"`), "negative": w.body(`"-5"`), "exponent": w.body(`"1e3"`), "NaN": w.body(`"NaN"`), "10^30": w.body(`"1000000000000000000000000000000"`),
		"three decimals": w.body(`"1.001"`), "a number": w.body(`129.90`), "zero": w.body(`"0.00"`), "empty": w.body(`""`),
		"currency eur":  strings.Replace(w.body(), `"EUR"`, `"eur"`, 1),
		"currency XXX":  strings.Replace(w.body(), `"EUR"`, `"XXX"`, 1),
		"bidi":          w.body(`"1.00"`, `"payee": {"name": "Gas \u202eGA"}`),
		"control":       w.body(`"1.00"`, `"payee": {"name": "Gas\u0007"}`),
		"no payee":      w.body(`"1.00"`, `"reference": "x"`),
		"both payees":   w.body(`"1.00"`, payee+`, "payees": [{"name": "x"}]`),
		"wrong IBAN":    w.body(`"1.00"`, `"payee": {"name": "Gas AG", "account": "DE03100100109307118603"}`),
		"life":          w.body(`"1.00"`, payee+`, "expires_in": 601`),
		"type":          w.body(`"1.00"`, payee+`, "type": "gift"`),
		"unknown":       w.body(`"1.00"`, payee+`, "state": "approved"`),
		"twice":         w.body(`"1.00"`, payee+`, "amount": "2.00"`),
		"nobody":        strings.Replace(w.body(), w.alice, "nobody", 1),
		"user missing":  strings.Replace(w.body(), fmt.Sprintf(`"user": %q, `, w.alice), "", 1),
		"user and more": strings.Replace(w.body(), `"amount"`, `"phone": "+12025550143", "amount"`, 1),
		"no JSON":       "{", "an array": "[]", "null": "null", "too deep": strings.Repeat("[", 20000),
	} {
		a := w.ask(t, "POST", "/v1/transactions", "bank", body)
		if a.status != http.StatusBadRequest || a.Problem.Code != "invalid_request" {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
		for _, sent := range []string{"1e3", "NaN", "gift", "nobody", "DE03", "Gas"} {
			if strings.Contains(a.text, sent) {
				t.Errorf("%s: what was sent comes back: %s", name, a.text)
			}
		}
	}
	if n := w.Texts(t); n != 0 {
		t.Errorf("%d texts", n)
	}
	w.ask(t, "POST", "/v1/transactions", "bank", strings.Replace(w.body(), fmt.Sprintf(`"user": %q`, w.alice), `"phone": "12"`, 1)).want(t, 400, "invalid_number")
	w.ask(t, "POST", "/v1/transactions", "bank", strings.Replace(w.body(), fmt.Sprintf(`"user": %q`, w.alice), `"phone": "+1 (202) 555-0143"`, 1)).want(t, 201, "")
	w.ask(t, "POST", "/v1/transactions", "bank", `{"x":"`+strings.Repeat("x", 40<<10)+`"}`).want(t, 413, "too_large")
	w.ask(t, "POST", "/v1/transactions", "bank", w.body(), func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }).want(t, 415, "unsupported_media_type")
	// SMS-4: nothing that comes with a request adds lines to the text.
	made := w.create(t)
	w.DB.Advance(t, 31*time.Second)
	texts := w.Texts(t)
	for _, app := range []string{`x\n@evil.example #123456`, `\u0000`, `0123456789`, `012345678901`, `0123456789\n`, `https://a.b`} {
		ended := `, "app_hash": "` + app + `"}`
		a := w.ask(t, "POST", "/v1/transactions", "bank", strings.TrimSuffix(w.body(), "}")+ended).want(t, 400, "invalid_request")
		b := w.ask(t, "POST", "/v1/transactions/"+made.ID+"/resend", "bank", "{"+ended[2:]).want(t, 400, "invalid_request")
		if !strings.Contains(a.text, `"/app_hash"`) || !strings.Contains(b.text, `"/app_hash"`) {
			t.Errorf("%s: %s, %s", app, a.text, b.text)
		}
	}
	if w.Texts(t) != texts {
		t.Errorf("%d texts more", w.Texts(t)-texts)
	}
	w.ask(t, "POST", "/v1/transactions/"+made.ID+"/resend", "bank", `{"app_hash": "FA+9qCX9VSu"}`).want(t, 200, "")
	w.Subscriber(t, "carol", "+12025550166")
	if a := w.ask(t, "POST", "/v1/transactions", "bank", strings.Replace(w.body(), fmt.Sprintf(`"user": %q`, w.alice), `"phone": "+12025550166"`, 1)).want(t, 403, "forbidden"); a.Problem.Why != "phone_too_new" {
		t.Errorf("a fresh phone: %s", a.text)
	}
}

func TestBatch(t *testing.T) { // TXN-4
	t.Parallel()
	w := newWorld(t)
	a, b := `{"name": "Gas AG", "account": "DE02100100109307118603"}`, `{"name": "Water Ltd", "account": "GB82 WEST 1234 5698 7654 32"}`
	made := w.ask(t, "POST", "/v1/transactions", "bank", w.body(`"200"`, `"payees": [`+a+`,`+b+`]`)).want(t, 201, "")
	w.verify(t, "bank", made.ID, w.code(t, made.ID), `"200.00"`, `"payees": [`+b+`,`+a+`]`).want(t, 200, "")
}

func TestResendAndList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	a := w.ask(t, "POST", "/v1/transactions/"+made.ID+"/resend", "bank", "{}").want(t, 429, "rate_limited")
	if a.header.Get("Retry-After") == "" {
		t.Errorf("%v", a.header)
	}
	w.DB.Advance(t, 31*time.Second)
	w.ask(t, "POST", "/v1/transactions/"+made.ID+"/resend", "bank", "{}").want(t, 200, "")
	w.verify(t, "bank", made.ID, w.code(t, made.ID)).want(t, 200, "")
	for range 2 {
		w.create(t)
		w.DB.Advance(t, time.Minute)
	}
	w.DB.Advance(t, 10*time.Minute)
	type page struct {
		Data []api.Transaction
		Next string `json:"next_cursor"`
	}
	var seen []string
	for path := "/v1/transactions?limit=2"; ; {
		var p page
		must(t, json.Unmarshal([]byte(w.ask(t, "GET", path, "bank", "").text), &p))
		for _, one := range p.Data {
			seen = append(seen, one.Status)
		}
		if p.Next == "" {
			break
		}
		path = "/v1/transactions?limit=2&cursor=" + p.Next
	}
	if fmt.Sprint(seen) != "[expired expired approved]" {
		t.Errorf("listed %v", seen)
	}
	for _, query := range []string{"limit=0", "limit=101", "limit=x", "cursor=x", "limit=1&limit=2", "other=1"} {
		w.ask(t, "GET", "/v1/transactions?"+query, "bank", "").want(t, 400, "invalid_request")
	}
	w.ask(t, "GET", "/v1/transactions?cursor="+base64.RawURLEncoding.EncodeToString([]byte("2020-01-01T00:00:00+23:59")), "bank", "").want(t, 200, "")
}

func TestSIMChanged(t *testing.T) { // TXN-13
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	w.DB.Advance(t, 31*time.Second)
	w.api.Confirm.HeldBack = func(context.Context, uuid.UUID, factors.Authenticator) (bool, error) { return true, nil }
	for path, body := range map[string]string{"/v1/transactions": w.body(), "/v1/transactions/" + made.ID + "/resend": "{}"} {
		if a := w.ask(t, "POST", path, "bank", body).want(t, 403, "forbidden"); a.Problem.Why != "sim_changed" {
			t.Errorf("%s: %s", path, a.text)
		}
	}
	if n := w.Texts(t); n != 1 {
		t.Errorf("%d texts, want that from before", n)
	}
}

// An application asks for all its customers from one address: limits on addresses are for browsers.
func TestManyCustomers(t *testing.T) { // LIM-5, THR-4
	t.Parallel()
	w := newWorld(t)
	w.api.Confirm.Config.Hold = 0
	made := make([]string, 40)
	for i := range made {
		number, err := sms.ParseNumber(fmt.Sprintf("+1202555%04d", 1000+i), "")
		must(t, err)
		a, unique := smsotp.Phone(uuid.Nil, number)
		_, err = w.Service.Create(t.Context(), fmt.Sprint("customer", i), "", authn.Profile{}, authn.Binding{Authenticator: a, Unique: unique})
		must(t, err)
		got := w.ask(t, "POST", "/v1/transactions", "bank", fmt.Sprintf(`{"phone": %q, "amount": "129.90", "currency": "EUR", %s}`, number.Reveal(), payee))
		if made[i] = got.ID; got.status != http.StatusCreated || w.code(t, made[i]) == "" {
			t.Fatalf("customer %d is not texted: %d %s", i, got.status, got.text)
		}
	}
	for _, id := range made {
		w.verify(t, "bank", id, wrong(w.code(t, id))).want(t, 400, "otp_incorrect")
	}
	w.verify(t, "bank", made[0], w.code(t, made[0])).want(t, 200, "")
}

// Nobody learns from the log what was sent.
func TestLogs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.create(t)
	code := w.code(t, made.ID)
	w.DB.Outage(t)
	a := w.verify(t, "bank", made.ID, code)
	if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
		t.Errorf("without a database: %d %s", a.status, a.text)
	}
	if logs := w.logs.String(); logs == "" || strings.Contains(logs, code) || strings.Contains(logs, "Gas AG") {
		t.Errorf("logs: %s", logs)
	}
}
