package transaction_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/watchword-auth/watchword/authn/transaction"
)

func TestReceipt(t *testing.T) { // TX-11
	t.Parallel()
	w := newWorld(t)
	created := w.create(t)
	approved, err := w.approve(t, created.ID, w.Code(t, created.Challenge.ID))
	if err != nil {
		t.Fatal(err)
	}
	receipt, _, err := transaction.ReadReceipt(approved.Result, w.key.set())
	if err != nil {
		t.Fatal(err)
	}
	at := approved.DecidedAt
	wants(t, "at once", receipt.Current("bank", at), nil)
	wants(t, "another application", receipt.Current("shop", at), transaction.ErrAudience)
	wants(t, "five minutes later", receipt.Current("bank", at.Add(5*time.Minute)), transaction.ErrStale)
	wants(t, "long before", receipt.Current("bank", at.Add(-2*time.Minute)), transaction.ErrStale)

	read := func(what, token string, keys jose.JSONWebKeySet, want error) {
		t.Helper()
		_, _, err := transaction.ReadReceipt(token, keys)
		wants(t, what, err, want)
	}
	read("other keys", approved.Result, newKey(t).set(), transaction.ErrForged)
	parts := strings.Split(approved.Result, ".")
	other, err := w.approve(t, w.create(t).ID, "") // any other error than a result
	if err == nil {
		t.Fatal(other)
	}
	read("no signature", parts[0]+"."+parts[1]+".", w.key.set(), transaction.ErrForged)
	read("cut", approved.Result[:len(approved.Result)-4], w.key.set(), transaction.ErrForged)
	read("nothing", "", w.key.set(), transaction.ErrForged)
	for i := range len(parts[1]) / 37 {
		changed := []byte(parts[1])
		if changed[i*37] == 'A' {
			changed[i*37] = 'B'
		} else {
			changed[i*37] = 'A'
		}
		read("changed", parts[0]+"."+string(changed)+"."+parts[2], w.key.set(), transaction.ErrForged)
	}
	sign := func(typ string, change func(c map[string]any)) string {
		c := claims(t, approved.Result)
		change(c)
		payload, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		token, err := w.key.SignAs(typ, payload)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	read("signed anew", sign(transaction.ReceiptType, func(map[string]any) {}), w.key.set(), nil)
	read("another token", sign("at+jwt", func(map[string]any) {}), w.key.set(), transaction.ErrForged)
	for name, change := range map[string]func(c map[string]any){
		"amount":      func(c map[string]any) { c["transaction"].(map[string]any)["amount"] = "1.00" },
		"payee":       func(c map[string]any) { c["transaction"].(map[string]any)["payees"] = []any{} },
		"hash":        func(c map[string]any) { c["transaction_sha256"] = "x" },
		"audience":    func(c map[string]any) { c["aud"] = "shop" },
		"subject":     func(c map[string]any) { c["sub"] = "bob" },
		"id":          func(c map[string]any) { c["txn"] = "txn_00000000000000000000000000000000" },
		"status":      func(c map[string]any) { c["status"] = "refused" },
		"no methods":  func(c map[string]any) { c["amr"] = []any{} },
		"not shown":   func(c map[string]any) { c["shown"] = []any{} },
		"more":        func(c map[string]any) { c["admin"] = true },
		"record more": func(c map[string]any) { c["transaction"].(map[string]any)["fee"] = "0" },
	} {
		read(name, sign(transaction.ReceiptType, change), w.key.set(), transaction.ErrBroken)
	}
}
