package gateway_test

import (
	"testing"
)

func TestCreateAndCheck(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.ask(t, "POST", "/v1/verifications", w.live, `{"to":"+1 (202) 556-0001","purpose":"sign_up","client_ref":"o1","metadata":{"cart":"7"}}`).want(t, 201, "")
	if a.body["status"] != "pending" || a.body["to"] != "••01" || a.body["attempts_left"] != 5.0 || a.header.Get("Location") != "/v1/verifications/"+a.id() {
		t.Fatalf("%s", a.text)
	}
	read := w.ask(t, "GET", "/v1/verifications/"+a.id(), w.live, "").want(t, 200, "")
	if len(read.body["deliveries"].([]any)) != 1 || read.body["client_ref"] != "o1" {
		t.Fatalf("%s", read.text)
	}
	wrong := w.check(t, w.live, a.id(), "000000").want(t, 200, "")
	if wrong.body["valid"] != false || wrong.body["attempts_left"] != 4.0 || wrong.body["status"] != "pending" {
		t.Fatalf("%s", wrong.text)
	}
	right := w.check(t, w.live, a.id(), w.code(t, a.id())).want(t, 200, "")
	if right.body["valid"] != true || right.body["status"] != "approved" {
		t.Fatalf("%s", right.text)
	}
	w.check(t, w.live, a.id(), "123456").want(t, 409, "already_verified")
}
