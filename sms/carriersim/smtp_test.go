package carriersim_test

import (
	"encoding/json"
	"net"
	"net/http"
	"net/smtp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-auth/watchword/sms/carriersim"
)

const mailText = "From: =?utf-8?q?B=C3=BCro?= <no-reply@login.example>\r\nTo: alice@example.com\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-Id: <1@login.example>\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nIhr Passwort wurde ge=C3=A4ndert.\r\n\r\nWann: =\r\nheute\r\n"

func TestMails(t *testing.T) {
	t.Parallel()
	d := start(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- d.sim.ServeSMTP(t.Context(), ln) }()
	a := d.sim.Account("smtp")
	send := func(auth smtp.Auth, to ...string) error {
		return smtp.SendMail(ln.Addr().String(), auth, "no-reply@login.example", to, []byte(mailText))
	}
	if err := send(nil, "alice@example.com", "bob@example.com"); err != nil {
		t.Fatal(err)
	}
	if err := send(smtp.PlainAuth("", a.ID, a.Secret, "127.0.0.1"), "Alice@example.com"); err != nil {
		t.Fatal(err)
	}
	if err := send(smtp.PlainAuth("", a.ID, "guess", "127.0.0.1"), "alice@example.com"); err == nil || !strings.HasPrefix(err.Error(), "535") {
		t.Errorf("a wrong password: %v, want 535", err)
	}
	list := func(query string) (all []carriersim.Mail) {
		t.Helper()
		if err := json.Unmarshal([]byte(d.expect(http.StatusOK, http.MethodGet, "/mails"+query, "", "")), &all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	got := list("?to=alice%40example.com")
	if len(got) != 2 {
		t.Fatalf("%d mails at alice's, want 2", len(got))
	}
	want := map[string]string{"ID": "1@login.example", "From": "Büro <no-reply@login.example>", "Subject": "Grüße", "Text": "Ihr Passwort wurde geändert.\n\nWann: heute\n", "To": "alice@example.com"}
	m := got[1]
	if diff := cmp.Diff(want, map[string]string{"ID": m.ID, "From": m.From, "Subject": m.Subject, "Text": m.Text, "To": m.To}); diff != "" {
		t.Errorf("mail (-want +got):\n%s", diff)
	}
	page := d.expect(http.StatusOK, http.MethodGet, "/", "", "")
	for _, part := range []string{`aria-label="Mails to bob@example.com"`, "Grüße", "Ihr Passwort wurde geändert.", "New mail for"} {
		if !strings.Contains(page, part) {
			t.Errorf("the page lacks %q", part)
		}
	}

	for _, tt := range []struct{ faults, want string }{
		{`{"vendor":"smtp","outage":true}`, "421"}, {`{"vendor":"smtp","fail":1}`, "451"}, {`{"vendor":"smtp","fail":1,"class":"invalid_recipient"}`, "550"},
	} {
		d.expect(http.StatusOK, http.MethodPost, "/faults", document, tt.faults)
		if err := send(nil, "alice@example.com"); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.faults, err, tt.want)
		}
	}
	if err := send(nil, "alice@example.com"); err != nil {
		t.Errorf("after the last fault: %v", err)
	}
	d.expect(http.StatusNoContent, http.MethodDelete, "/mails", "", "")
	if left := list(""); len(left) > 0 {
		t.Errorf("%d mails are left", len(left))
	}
	ln.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
