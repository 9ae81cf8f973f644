package web

import (
	"encoding/json"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"time"

	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/factors/gateway"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limits"
)

// The page of a verification that another program asked for, in its tenant's name. It needs no cookie: whoever has its address may try the code and ask for another text. A form
// has no proof besides, for a stranger who could make one would know the address, and with it everything that the form can do.

// programPages are the pages for other programs.
func (h *Handler) programPages() map[string]func(http.ResponseWriter, *http.Request) error {
	if h.Programs == nil {
		return nil
	}
	const path = gateway.HostedPath + "{page}"
	return map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + path: h.getVerify, "POST " + path: h.postVerify, "POST " + path + "/resend": h.postVerifyResend, "GET " + path + "/state": h.getVerifyState,
		"GET " + path + "/resend": h.onward, // somebody reloads, or chooses a language there
	}
}

func hostedPath(r *http.Request) string {
	return gateway.HostedPath + url.PathEscape(r.PathValue("page"))
}

// verifyBody is what the page shows besides its frame.
type verifyBody struct {
	Live      bool // a code can be typed
	Done      bool
	Sent      template.HTML
	Test      template.HTML
	Hint      template.HTML // what a code looks like
	Keys      string        // that a phone offers
	Wait      template.HTML // how long until another text can be asked for
	ExpiresAt string        // for scripts
}

func (h *Handler) hosted(r *http.Request) (*gateway.Hosted, *tongue, error) {
	p, err := h.Programs.Hosted(r.Context(), r.PathValue("page"))
	if err != nil {
		return nil, nil, err
	}
	return p, h.texts.pick(r, p.Locale), nil
}

func (h *Handler) getVerify(w http.ResponseWriter, r *http.Request) error {
	p, _, err := h.hosted(r)
	if err != nil {
		return err
	}
	return h.verify(w, r, p, http.StatusOK, nil)
}

// verify renders the page as the verification stands, with what is wrong about the last answer.
func (h *Handler) verify(w http.ResponseWriter, r *http.Request, p *gateway.Hosted, status int, wrong *fault) error {
	f := h.bare(r, p.Locale)
	f.Service, f.Client, f.HomeURI, f.formAction, f.Path = p.Service, p.Service, p.Return, p.Origin, hostedPath(r)
	f.Tenant = true
	say, c := f.say, p.State
	problem, notice := verifyState(say, p)
	body := verifyBody{Done: p.Status == gateway.StatusApproved, Live: p.Status == gateway.StatusPending && c.BlockedUntil == nil, Keys: "text", ExpiresAt: c.ExpiresAt.UTC().Format(time.RFC3339)}
	f.Title = say.say("code.title", nil)
	kind := "verify.hint"
	if p.Alphabet == gateway.Numeric {
		kind, body.Keys = "verify.hint_digits", "numeric"
	}
	body.Hint = say.say(kind, values{"Length": p.Length})
	sent := "verify.sent"
	if c.Delivery != nil {
		switch c.Delivery.Channel {
		case "whatsapp":
			sent = "verify.sent_whatsapp"
		case "voice":
			sent = "verify.sent_voice"
		}
	}
	hint := template.HTML("<strong><bdi>" + template.HTMLEscapeString(p.Hint) + "</bdi></strong>") //nolint:gosec // escaped
	body.Sent = say.say(sent, values{"Hint": hint, "Count": max(1, int(c.ExpiresAt.Sub(p.Now).Round(time.Minute).Minutes()))})
	switch {
	case body.Done:
		f.Title = say.say("verify.done", nil)
	case wrong != nil && body.Live:
		f.Errors = []fault{*wrong}
	case problem != "" && body.Live:
		f.Errors = []fault{{"send", problem}}
	case problem != "":
		f.Errors = []fault{{"code", problem}}
		if c.BlockedUntil != nil {
			f.retryAfter = retry(p.Now, *c.BlockedUntil)
		}
	}
	if body.Live {
		f.Notice = notice
	}
	if c.NextSendAt != nil && c.NextSendAt.After(p.Now) {
		body.Wait = say.say("send.wait", values{"Count": int(c.NextSendAt.Sub(p.Now).Seconds()) + 1})
	}
	if p.Test {
		body.Test = say.say("verify.test", values{"Code": gateway.TestCode})
	}
	f.Body = body
	return h.render(w, r, status, "verify", f)
}

// verifyState says in words how a verification stands: what keeps a person from going on, and what is good to know.
func verifyState(say *tongue, p *gateway.Hosted) (problem, notice template.HTML) {
	c, name := p.State, values{"Service": p.Service}
	switch p.Status {
	case gateway.StatusApproved:
		return "", ""
	case gateway.StatusFailed:
		return say.say("verify.dead", name), ""
	case gateway.StatusExpired:
		return say.say("verify.expired", name), ""
	case gateway.StatusCanceled:
		return say.say("verify.canceled", name), ""
	case gateway.StatusPending:
	}
	d := c.Delivery
	undelivered := d != nil && (d.State == "failed" || d.State == "undelivered")
	switch {
	case c.BlockedUntil != nil && limits.Endless(*c.BlockedUntil):
		return say.say("code.closed", name), ""
	case c.BlockedUntil != nil:
		return say.say("verify.locked", values{"Time": say.clock(*c.BlockedUntil)}), ""
	case undelivered && d.Reason == "recipient_opted_out" && d.Sender != "":
		return say.say("verify.optout_sender", values{"Sender": d.Sender}), ""
	case undelivered && d.Reason == "recipient_opted_out":
		return say.say("verify.optout", nil), ""
	case undelivered && d.Reason == "region_blocked":
		return say.say("verify.country", name), ""
	case undelivered && d.Reason == "ambiguous":
		return "", say.say("verify.slow", nil) // nobody knows whether it was sent
	case undelivered && (d.Reason == "invalid_recipient" || d.Reason == "recipient_unreachable"):
		return say.say("verify.failed", name), ""
	case undelivered:
		return say.say("verify.outage", nil), ""
	case c.SentAt != nil && p.Now.Sub(*c.SentAt) > slowAfter && d != nil && d.State != "delivered":
		return "", say.say("verify.slow", nil)
	case c.Sends > 1 && c.SentAt != nil && !p.Test:
		return "", say.say("send.resent", values{"Time": say.clock(*c.SentAt)})
	}
	return "", ""
}

// onward leads whoever has finished back to the program, which has to ask how the verification stands: the address proves nothing. Everybody else it leads to the page.
func (h *Handler) onward(w http.ResponseWriter, r *http.Request) error {
	p, _, err := h.hosted(r)
	if err != nil {
		return err
	}
	if p.Status == gateway.StatusApproved && p.Return != "" {
		redirect(w, p.Return)
		return nil
	}
	redirect(w, hostedPath(r))
	return nil
}

func (h *Handler) postVerify(w http.ResponseWriter, r *http.Request) error {
	form, err := httpkit.ReadForm(w, r, h.origin)
	if err != nil {
		return err
	}
	p, say, err := h.hosted(r)
	if err != nil {
		return err
	}
	valid, err := h.Programs.CheckHosted(r.Context(), p, form.Get("code"))
	ids := map[error]string{factors.ErrCodeEmpty: "code.empty", factors.ErrCodeShort: "verify.short", factors.ErrCodeLong: "verify.long", factors.ErrCodeChars: "verify.chars"}
	for typed, id := range ids {
		if errors.Is(err, typed) {
			if errors.Is(typed, factors.ErrCodeChars) && p.Alphabet == gateway.Numeric {
				id = "code.chars"
			}
			return h.verify(w, r, p, http.StatusUnprocessableEntity, &fault{"code", say.say(id, values{"Length": p.Length})})
		}
	}
	problem, isProblem := errors.AsType[*gateway.Problem](err)
	switch {
	case err == nil && valid, isProblem && problem.Code == gateway.AlreadyVerified: // the second press of a button, too
		return h.onward(w, r)
	case err != nil && !isProblem:
		return err
	}
	// The page tells how things stand now, hence they are read again.
	if p, _, err = h.hosted(r); err != nil {
		return err
	}
	wrong := fault{"code", say.say("code.wrong", nil)}
	if left := p.State.AttemptsLeft(); left <= 3 {
		wrong.Text = say.say("code.wrong_left", values{"Count": left})
	}
	status := http.StatusUnprocessableEntity
	if isProblem {
		status = problem.Status
	}
	return h.verify(w, r, p, status, &wrong)
}

func (h *Handler) postVerifyResend(w http.ResponseWriter, r *http.Request) error {
	if _, err := httpkit.ReadForm(w, r, h.origin); err != nil {
		return err
	}
	p, say, err := h.hosted(r)
	if err != nil {
		return err
	}
	err = h.Programs.ResendHosted(r.Context(), p)
	problem, isProblem := errors.AsType[*gateway.Problem](err)
	switch {
	case err == nil:
		redirect(w, hostedPath(r))
		return nil
	case !isProblem:
		return err
	}
	wait := time.Minute
	if problem.RetryAfter != nil {
		wait = time.Duration(*problem.RetryAfter) * time.Second
		w.Header().Set("Retry-After", retry(p.Now, p.Now.Add(wait-time.Second)))
	}
	var text template.HTML
	switch {
	case problem.Reason == "too_early":
		text = say.say("send.wait", values{"Count": int(wait.Seconds())})
	case problem.Reason == "sends_exhausted":
		text = say.say("verify.used_up", values{"Service": p.Service})
	case problem.Code == gateway.TooMany:
		text = say.say("verify.limit", values{"Time": say.clock(p.Now.Add(wait))})
	case problem.Code == gateway.QuotaExceeded, problem.Code == gateway.Unavailable:
		text = say.say("verify.outage", nil)
	default: // it has ended: the page says how
		redirect(w, hostedPath(r))
		return nil
	}
	return h.verify(w, r, p, problem.Status, &fault{"code", text})
}

// getVerifyState tells a script that waits what became of the message. It holds no secret, and changes nothing.
func (h *Handler) getVerifyState(w http.ResponseWriter, r *http.Request) error {
	p, say, err := h.hosted(r)
	if err != nil {
		return err
	}
	problem, notice := verifyState(say, p)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return json.NewEncoder(w).Encode(map[string]any{"problem": problem != "", "notice": notice != "", "due": p.Status == gateway.StatusPending})
}
