package web_test

import (
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// recovering is what a program is told of a recovery.
type recovering struct {
	Page, Proof, Next, Code string
	Errors                  []struct{ Pointer, Message string }
	Data                    struct {
		Action, Again, Cancel, Start, Finish, Password, Wait, Outcome, Kind string
		SignIn                                                              string `json:"sign_in"`
		Channels                                                            []string
		Known, Text, Digits, Ready                                          bool
		Least                                                               int
		Kept, Lost                                                          []struct{ Kind, Hint string }
		Ways                                                                any
	}
}

// ways that are offered; the page before offers the address of those.
func (r *recovering) ways(t *testing.T) (ids []string) {
	t.Helper()
	list, ok := r.Data.Ways.([]any)
	if !ok {
		t.Fatalf("no ways: %+v", r)
	}
	for _, way := range list {
		ids = append(ids, way.(map[string]any)["id"].(string))
	}
	return ids
}

func (b *browser) recovers(t *testing.T, method, target string, fields map[string]string, status int) *recovering {
	t.Helper()
	a := new(recovering)
	b.json(t, method, target, fields, status, a)
	return a
}

// beginsInJSON asks for a recovery and gives the page after it.
func (b *browser) beginsInJSON(t *testing.T, path, name, channel string) *recovering {
	t.Helper()
	start := b.recovers(t, http.MethodGet, path, nil, http.StatusOK)
	led := b.recovers(t, http.MethodPost, start.Data.Action, map[string]string{"username": name, "channel": channel}, http.StatusOK)
	return b.recovers(t, http.MethodGet, led.Next, nil, http.StatusOK)
}

// followsInJSON opens the newest link, and uses it up.
func (b *browser) followsInJSON(t *testing.T) *recovering {
	t.Helper()
	led := b.recovers(t, http.MethodGet, b.w.link(t), nil, http.StatusOK)
	link := b.recovers(t, http.MethodGet, led.Next, nil, http.StatusOK)
	b.recovers(t, http.MethodPost, link.Data.Action, map[string]string{"proof": "x"}, http.StatusForbidden)
	led = b.recovers(t, http.MethodPost, link.Data.Action, map[string]string{"proof": link.Proof}, http.StatusOK)
	return b.recovers(t, http.MethodGet, led.Next, nil, http.StatusOK)
}

func TestForgotInJSON(t *testing.T) { // RC-1, RC-3, RC-5
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	b := w.browser(t)
	if bad := b.recovers(t, http.MethodPost, "/recover", map[string]string{"username": " ", "channel": "mail"}, http.StatusUnprocessableEntity); bad.Code != "login.empty_username" || bad.Errors[0].Pointer != "/username" {
		t.Errorf("nobody: %+v", bad)
	}
	if bad := b.recovers(t, http.MethodPost, "/recover", map[string]string{"username": "alice", "channel": "pigeon"}, http.StatusUnprocessableEntity); bad.Code != "recover.choose" {
		t.Errorf("no way: %+v", bad)
	}
	stranger := w.browser(t).beginsInJSON(t, "/recover", "nobody", "mail")
	check := b.beginsInJSON(t, "/recover", "alice", "mail")
	w.drain(t)
	if stranger.Proof, check.Proof = "", ""; !reflect.DeepEqual(stranger, check) || check.Page != "recover_check" || check.Data.Text || check.Data.Again == "" {
		t.Errorf("RC-1: %+v, and for nobody %+v", check, stranger)
	}
	password := b.followsInJSON(t)
	if password.Page != "recover_password" || password.Data.Least != 8 {
		t.Fatalf("P12: %+v", password)
	}
	if bad := b.recovers(t, http.MethodPost, password.Data.Action, map[string]string{"proof": password.Proof, "password": "short"}, http.StatusUnprocessableEntity); bad.Code != "password.short" || bad.Proof == "" {
		t.Errorf("short: %+v", bad)
	}
	b.recovers(t, http.MethodPost, password.Data.Action, map[string]string{"password": another}, http.StatusForbidden)
	led := b.recovers(t, http.MethodPost, password.Data.Action, map[string]string{"proof": password.Proof, "password": another}, http.StatusOK)
	if done := b.recovers(t, http.MethodGet, led.Next, nil, http.StatusOK); done.Data.Outcome != "password" || done.Data.SignIn != "/account" {
		t.Errorf("the end: %+v", done)
	}
	if over := w.browser(t).recovers(t, http.MethodGet, "/recover/check", nil, http.StatusGone); over.Code != "outcome.over" || over.Data.Start != "/recover" {
		t.Errorf("nothing begun: %+v", over)
	}
	b.header.Set("Accept", "text/html")
	wantAt(t, "RC-5", b.signsIn(t, another), "/login/code")
}

func TestAccessInJSON(t *testing.T) { // RC-7, RC-11
	t.Parallel()
	w := newWorld(t)
	w.DB.Freeze(t)
	w.App(t, w.find(t, "alice"))
	w.DB.Advance(t, 48*time.Hour)
	b := w.browser(t)
	check := b.beginsInJSON(t, "/recover/access", "alice", "text")
	w.drain(t)
	code := w.Code(t, w.challenge(t))
	if bad := b.recovers(t, http.MethodPost, check.Data.Action, map[string]string{"proof": check.Proof, "code": "12"}, http.StatusUnprocessableEntity); bad.Code != "code.short" || !bad.Data.Digits {
		t.Errorf("short: %+v", bad)
	}
	if bad := b.recovers(t, http.MethodPost, check.Data.Action, map[string]string{"proof": check.Proof, "code": wrongCode(code)}, http.StatusUnprocessableEntity); bad.Code != "code.wrong" {
		t.Errorf("wrong: %+v", bad)
	}
	led := b.recovers(t, http.MethodPost, check.Data.Action, map[string]string{"proof": check.Proof, "code": code}, http.StatusOK)
	ways := b.recovers(t, http.MethodGet, led.Next, nil, http.StatusOK)
	if ids := ways.ways(t); ways.Page != "recover_ways" || len(ids) != 2 {
		t.Fatalf("RC-11: %+v", ways)
	}
	if bad := b.recovers(t, http.MethodPost, ways.Data.Action, map[string]string{"proof": ways.Proof}, http.StatusUnprocessableEntity); bad.Code != "methods.choose" {
		t.Errorf("nothing chosen: %+v", bad)
	}
	b.recovers(t, http.MethodPost, ways.Data.Action, map[string]string{"proof": ways.Proof, "way": uuid.Nil.String()}, http.StatusOK)
	repair := b.followsInJSON(t)
	if repair.Page != "recover_repair" || fmt.Sprint(repair.Data.Kept, repair.Data.Lost) != "[{sms 43}] [{totp }]" || repair.Data.Finish == "" {
		t.Fatalf("repair: %+v", repair)
	}
	led = b.recovers(t, http.MethodPost, repair.Data.Finish, map[string]string{"proof": repair.Proof, "do": "finish"}, http.StatusOK)
	if done := b.recovers(t, http.MethodGet, led.Next, nil, http.StatusOK); done.Data.Outcome != "access" {
		t.Errorf("the end: %+v", done)
	}
	w.wantKinds(t, "what was proved stays", "alice", "sms43")

	w.DB.Advance(t, time.Hour)
	stop := b.beginsInJSON(t, "/recover/stop", "alice", "mail")
	w.drain(t)
	if link := b.recovers(t, http.MethodGet, b.recovers(t, http.MethodGet, w.link(t), nil, http.StatusOK).Next, nil, http.StatusOK); link.Data.Kind != "stop" || stop.Data.Start != "/recover/stop" {
		t.Errorf("stop: %+v", link)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.server.URL+"/recover", strings.NewReader(`{"username":"alice","channel":"mail"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	resp, err := b.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("PW-12 from elsewhere: %s", resp.Status)
	}
}
