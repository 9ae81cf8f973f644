package api

import (
	"net/http"
	"strings"
	"time"

	"github.com/watchword-auth/watchword/authn/transaction"
	"github.com/watchword-auth/watchword/internal/rest"
)

// Reference is the page about the API.
func Reference() rest.Link {
	return rest.Link{Title: "API of payments", Path: "/docs/api/transactions"}
}

// pages are those for people.
func (a *API) pages() *rest.Pages {
	pages := a.Pages
	if pages.References == nil {
		pages.References = []rest.Link{Reference()}
	}
	return &pages
}

// reference is what the page about the API needs.
func (a *API) reference() *rest.Reference {
	return &rest.Reference{
		Link: Reference(), Described: describedAt, DescribedOld: describedAtOld, Describe: a.Describe, Operations: a.Operations(), Curl: a.curl,
		ID: exampleID, Thing: "transaction", Secret: "WATCHWORD_TOKEN", Credential: "access token",
	}
}

// exampleID stands for the id of a transaction.
const exampleID = "txn_…"

// exampleAnswer is an answer of op, as it looks after the examples of the requests.
func exampleAnswer(op *rest.Operation) any {
	began := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)
	t := Transaction{
		ID: exampleID, Status: string(transaction.Pending), Door: transaction.DoorREST, User: "…", Amount: "129.90", Currency: "EUR", Payees: []Payee{{Name: "Gas AG", Account: "••••8603"}}, Reference: "Bill 4711", Type: "payment",
		SHA256: "…", AttemptsLeft: 5, Shown: []Shown{{Channel: "sms", Text: "PAY EUR 129.90 to Gas AG, a/c ending 8603? Watchword code: ******. Never tell anyone.", Locale: "en", Template: "sms-transaction-2"}},
		CreatedAt: began, ExpiresAt: began.Add(5 * time.Minute),
	}
	decided := began.Add(30 * time.Second)
	switch op.ID {
	case "listTransactions":
		return List{Data: []Transaction{t}}
	case "verifyTransaction":
		t.Status, t.AttemptsLeft, t.DecidedAt, t.AuthTime, t.ACR, t.AMR, t.Result = string(transaction.Approved), 0, &decided, &decided, transaction.DefaultConfig().ACR, []string{"sms"}, "eyJ…"
	case "cancelTransaction":
		t.Status, t.Reason, t.AttemptsLeft, t.DecidedAt = string(transaction.Canceled), transaction.ReasonClient, 0, &decided
	}
	return t
}

// curl is an operation's example as a command.
func (a *API) curl(op *rest.Operation) string {
	command := "curl " + a.Docs + strings.ReplaceAll(op.Path, "{id}", exampleID) + ` -H "Authorization: Bearer $WATCHWORD_TOKEN"`
	if op.ID == "createTransaction" {
		command += " -H 'Idempotency-Key: bill-4711'"
	}
	if op.Method == http.MethodPost {
		command += " \\\n  -H 'Content-Type: application/json' -d '" + op.Example + "'"
	}
	return command
}
