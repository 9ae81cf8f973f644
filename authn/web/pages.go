package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/internal/httpkit"
	"github.com/watchword-auth/watchword/internal/limits"
)

// ---------------------------------------------------------------- P1, the password

// loginBody is what the sign-in page shows besides its frame.
type loginBody struct {
	Outage   bool // text messages do not get through at the moment
	Username string
	Again    bool   // the name is given and stays
	Forgot   string // where a new password is set; "": nowhere
	Locales  string // what the application asked for: the text message comes in the same language
}

func (h *Handler) getLogin(w http.ResponseWriter, r *http.Request) error {
	p, err := h.at(w, r, authn.StepPassword)
	if p == nil {
		return err
	}
	return h.login(w, r, p, http.StatusOK, p.SignIn.LoginHint)
}

// login renders the page with what is wrong.
func (h *Handler) login(w http.ResponseWriter, r *http.Request, p *authn.Progress, status int, username string, wrong ...fault) error {
	f := h.page(r, p.SignIn, "login")
	f.Title, f.Heading = f.T("login.title"), f.TC("login.to")
	body := loginBody{Outage: h.Outage != nil && h.Outage(), Username: username, Again: p.Decision.Again, Locales: p.SignIn.Locales}
	if body.Again {
		body.Username = p.SignIn.Session.Username
		f.Title, f.Heading = f.T("login.again"), f.T("login.again")
		f.Notice = f.TC("login.why_again")
	}
	if h.Recovery != nil {
		body.Forgot = address(recoverStart, p.SignIn.ID)
	}
	f.Errors, f.Body = wrong, body
	return h.render(w, r, status, "login", f)
}

// postLogin tries a password. What the page would show is read only when it has to be shown again: a right password costs two statements.
func (h *Handler) postLogin(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	session, ok := h.readProof(v.form, v.flow, "login")
	if !ok {
		return errProof
	}
	username, password := v.form.Get("username"), v.form.Get("password")
	var next *authn.Progress
	if password != "" && (strings.TrimSpace(username) != "" || !v.form.Has("username")) {
		say := h.texts.pick(r, v.form.Get("locales"))
		next, err = h.SignIns.PasswordFrom(r.Context(), v.cookie, h.browserCookie(r), session, v.flow, username, password, say.tag.String())
		if err == nil {
			return h.Next(w, r, next, v.cookie)
		}
	}
	p, problem := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	switch {
	case problem != nil:
		return problem
	case p.SignIn.Session.ID != session:
		return errProof
	case p.Decision.Step != authn.StepPassword:
		return h.Next(w, r, p, v.cookie)
	case err == nil:
		return h.login(w, r, p, http.StatusUnprocessableEntity, username, h.emptyLogin(r, p, username, password)...)
	}
	say := h.texts.pick(r, p.SignIn.Locales)
	locked, isLocked := errors.AsType[*authn.LockedError](err)
	switch {
	case errors.Is(err, authn.ErrWrongPair):
		return h.login(w, r, p, http.StatusUnprocessableEntity, username, fault{"username", say.say("login.wrong", nil)})
	case isLocked:
		id := "login.locked"
		switch {
		case locked.Source:
			id = "login.rate"
		case limits.Endless(locked.Until):
			id = "login.closed"
		}
		w.Header().Set("Retry-After", retry(p.SignIn.Now, locked.Until))
		return h.login(w, r, p, http.StatusTooManyRequests, username, fault{"username", say.say(id, values{"Time": say.clock(locked.Until), "Service": h.Service})})
	case errors.Is(err, authn.ErrOverloaded):
		w.Header().Set("Retry-After", retry(p.SignIn.Now, p.SignIn.Now.Add(authn.RetryAfter)))
		return h.login(w, r, p, http.StatusServiceUnavailable, username, fault{"username", say.say("login.busy", nil)})
	default:
		return err
	}
}

// emptyLogin names the fields that nothing was entered into.
func (h *Handler) emptyLogin(r *http.Request, p *authn.Progress, username, password string) (empty []fault) {
	say := h.texts.pick(r, p.SignIn.Locales)
	if strings.TrimSpace(username) == "" && !p.Decision.Again {
		empty = append(empty, fault{"username", say.say("login.empty_username", nil)})
	}
	if password == "" {
		empty = append(empty, fault{"password", say.say("login.empty_password", nil)})
	}
	return empty
}

// elsewhere leads to the step that is due when another tab was faster.
func (h *Handler) elsewhere(w http.ResponseWriter, r *http.Request, v visit, err error) error {
	if !errors.Is(err, authn.ErrNotThisStep) {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	return h.Next(w, r, p, v.cookie)
}

func (h *Handler) postCancel(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !h.proven(v.form, p.SignIn.Session.ID, v.flow, "cancel") {
		return errProof
	}
	return h.answers(p).Refuse(w, r, p, v.cookie, authn.AccessDenied)
}

// ---------------------------------------------------------------- P2, the code

// codeBody is what the code page shows besides its frame.
type codeBody struct {
	Ask       template.HTML // where a code can be sent, when none was
	Sent      template.HTML // what was sent, and where
	Live      bool          // a code can be typed
	CanSend   bool          // a new one can be asked for, now or later
	Wait      template.HTML // how long until then
	ExpiresAt string        // for scripts
	Slow      string        // for scripts: when a message counts as late
	Remember  template.HTML // this browser can be remembered
	Chosen    bool          // and is to be
}

// slowAfter is when a text without a report counts as late.
const slowAfter = time.Minute

func (h *Handler) getCode(w http.ResponseWriter, r *http.Request) error {
	p, err := h.at(w, r, authn.StepFactor)
	if p == nil {
		return err
	}
	if _, here := h.here(p, factors.MessagePage); !here {
		return h.Next(w, r, p, h.Cookie(r))
	}
	return h.code(w, r, p, http.StatusOK, nil)
}

// code renders the page as the challenge stands, with what is wrong about the last answer.
func (h *Handler) code(w http.ResponseWriter, r *http.Request, p *authn.Progress, status int, wrong *fault) error {
	in, f := p.SignIn, h.page(r, p.SignIn, "code")
	f.Title = f.T("code.title")
	c := in.Challenge
	body := codeBody{Remember: h.remembering(f.say, p), Chosen: p.Remember}
	due, err := h.SignIns.Due(p)
	if err != nil {
		return err
	}
	hint := func(id uuid.UUID) template.HTML {
		for _, a := range in.Session.Bound {
			if a.ID == id {
				return template.HTML("<strong><bdi>" + template.HTMLEscapeString(a.Hint) + "</bdi></strong>") //nolint:gosec // escaped
			}
		}
		return ""
	}
	if c == nil { // the password was given for another sign-in: nothing is sent before somebody asks
		body.Ask = f.say.say("code.ask", values{"Hint": hint(due.ID)})
	} else {
		body.Live = c.Live(in.Now) && c.BlockedUntil == nil && c.Sends > 0
		body.ExpiresAt = c.ExpiresAt.UTC().Format(time.RFC3339)
		minutes := max(1, int(c.ExpiresAt.Sub(in.Now).Round(time.Minute).Minutes()))
		sent := "code.sent"
		if c.Delivery != nil && c.Delivery.State != "queued" {
			switch c.Delivery.Channel {
			case "whatsapp":
				sent = "code.sent_whatsapp"
			case "voice":
				sent = "code.sent_voice"
			}
		}
		body.Sent = f.say.say(sent, values{"Hint": hint(c.AuthenticatorID), "Count": minutes})
	}
	problem, notice := h.codeState(f.say, in)
	switch {
	case wrong != nil && body.Live:
		f.Errors = []fault{*wrong}
	case problem != "" && body.Live: // nothing is wrong with what was typed: earlier codes still work
		f.Errors = []fault{{"send", problem}}
	case problem != "":
		f.Errors = []fault{{"code", problem}}
		if status == http.StatusOK && c != nil && c.BlockedUntil != nil {
			f.retryAfter = retry(in.Now, *c.BlockedUntil)
		}
	}
	f.Notice = notice
	body.CanSend = c == nil || c.BlockedUntil == nil
	if c != nil && c.Live(in.Now) && c.NextSendAt != nil && c.NextSendAt.After(in.Now) && c.Sends > 0 {
		seconds := int(c.NextSendAt.Sub(in.Now).Seconds()) + 1
		body.Wait = f.say.say("send.wait", values{"Count": seconds})
	}
	if c != nil && c.SentAt != nil {
		body.Slow = c.SentAt.Add(slowAfter).UTC().Format(time.RFC3339)
	}
	f.Body = body
	return h.render(w, r, status, "code", f)
}

// codeState says in words how the challenge stands: what keeps a person from going on, and what is good to know.
func (h *Handler) codeState(say *tongue, in *authn.SignIn) (problem, notice template.HTML) {
	c := in.Challenge
	switch {
	case c == nil:
		return "", ""
	case c.BlockedUntil != nil && limits.Endless(*c.BlockedUntil):
		return say.say("code.closed", values{"Service": h.Service}), ""
	case c.BlockedUntil != nil:
		return say.say("code.locked", values{"Time": say.clock(*c.BlockedUntil)}), ""
	case c.Outcome == "verified":
		return say.say("code.used", nil), ""
	case c.Outcome == "failed" || c.AttemptsLeft() == 0:
		return say.say("code.dead", nil), ""
	case !c.Live(in.Now):
		return say.say("code.expired", nil), ""
	case c.Sends == 0 && c.NextSendAt != nil:
		return say.say("send.limit", values{"Time": say.clock(*c.NextSendAt)}), ""
	case c.Delivery != nil && c.Delivery.Reason == "recipient_opted_out":
		if c.Delivery.Sender != "" {
			return say.say("send.optout_sender", values{"Sender": c.Delivery.Sender}), ""
		}
		return say.say("send.optout", nil), ""
	case c.Delivery != nil && c.Delivery.Reason == "region_blocked":
		return say.say("send.country", nil), ""
	case c.Delivery != nil && c.Delivery.State == "failed" && c.Delivery.Reason == "ambiguous":
		return "", say.say("send.slow", nil) // nobody knows whether it was sent
	case c.Delivery != nil && (c.Delivery.State == "failed" || c.Delivery.State == "undelivered"):
		switch c.Delivery.Reason {
		case "invalid_recipient", "recipient_unreachable":
			return say.say("send.failed", nil), ""
		}
		return say.say("send.outage", nil), "" // ours or the vendor's fault: there is nothing to check
	case c.SentAt != nil && in.Now.Sub(*c.SentAt) > slowAfter && c.Delivery != nil && c.Delivery.State != "delivered":
		return "", say.say("send.slow", nil)
	case c.Sends > 1 && c.SentAt != nil:
		return "", say.say("send.resent", values{"Time": say.clock(*c.SentAt)})
	}
	return "", ""
}

func (h *Handler) postCode(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !h.proven(v.form, p.SignIn.Session.ID, v.flow, "code") {
		return errProof
	}
	if _, here := h.here(p, factors.MessagePage); !here {
		return h.Next(w, r, p, v.cookie)
	}
	h.takeRemember(r, v.form, p)
	next, err := h.SignIns.Answer(r.Context(), v.cookie, p, v.form.Get("code"))
	if err == nil {
		return h.Next(w, r, next, v.cookie)
	}
	say := h.texts.pick(r, p.SignIn.Locales)
	ids := map[error]string{factors.ErrCodeEmpty: "code.empty", factors.ErrCodeShort: "code.short", factors.ErrCodeLong: "code.long", factors.ErrCodeChars: "code.chars"}
	for typed, id := range ids {
		if errors.Is(err, typed) {
			return h.code(w, r, p, http.StatusUnprocessableEntity, &fault{"code", say.say(id, nil)})
		}
	}
	blocked, isBlocked := errors.AsType[*factors.BlockedError](err)
	switch {
	case errors.Is(err, factors.ErrMismatch), errors.Is(err, factors.ErrOver), isBlocked:
		// The page tells how things stand now, hence they are read again.
		if p, err = h.SignIns.Load(r.Context(), v.cookie, v.flow); err != nil {
			return err
		}
		if _, here := h.here(p, factors.MessagePage); !here {
			return h.Next(w, r, p, v.cookie)
		}
		p.Remember = v.form.Get("remember") == "yes"
		if isBlocked {
			w.Header().Set("Retry-After", retry(p.SignIn.Now, blocked.Until))
			return h.code(w, r, p, http.StatusTooManyRequests, &fault{"code", say.say("login.rate", values{"Time": say.clock(blocked.Until)})})
		}
		wrong := fault{"code", say.say("code.wrong", nil)}
		if left := p.SignIn.Challenge.AttemptsLeft(); left <= 3 {
			wrong.Text = say.say("code.wrong_left", values{"Count": left})
		}
		return h.code(w, r, p, http.StatusUnprocessableEntity, &wrong)
	default:
		return h.elsewhere(w, r, v, err)
	}
}

// postResend sends a code again: another one for the challenge while it lives, a new challenge when it is over.
func (h *Handler) postResend(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !h.proven(v.form, p.SignIn.Session.ID, v.flow, "code") {
		return errProof
	}
	if p.Decision.Step != authn.StepFactor {
		return h.Next(w, r, p, v.cookie)
	}
	say := h.texts.pick(r, p.SignIn.Locales)
	if c := p.SignIn.Challenge; c == nil || !c.Live(p.SignIn.Now) {
		again := uuid.Nil
		if c != nil {
			again = c.AuthenticatorID
		}
		return h.choose(w, r, v, p, again)
	}
	err = h.SignIns.Resend(r.Context(), v.cookie, v.flow, say.tag.String())
	wait, isWait := errors.AsType[*factors.WaitError](err)
	switch {
	case err == nil, errors.Is(err, factors.ErrOver):
		redirect(w, address("/login/code", v.flow))
		return nil
	case isWait && wait.UsedUp:
		return h.code(w, r, p, http.StatusTooManyRequests, &fault{"code", say.say("send.used_up", nil)})
	case isWait && wait.Limited:
		w.Header().Set("Retry-After", retry(p.SignIn.Now, wait.Until))
		return h.code(w, r, p, http.StatusTooManyRequests, &fault{"code", say.say("send.limit", values{"Time": say.clock(wait.Until)})})
	case isWait:
		seconds := int(wait.Until.Sub(p.SignIn.Now).Seconds()) + 1
		w.Header().Set("Retry-After", retry(p.SignIn.Now, wait.Until))
		return h.code(w, r, p, http.StatusTooManyRequests, &fault{"code", say.say("send.wait", values{"Count": seconds})})
	default:
		return h.elsewhere(w, r, v, err)
	}
}

// getCodeState tells a script that waits what became of the message. It holds no secret, and changes nothing.
func (h *Handler) getCodeState(w http.ResponseWriter, r *http.Request) error {
	v, err := h.open(r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	problem, notice := h.codeState(h.texts.pick(r, p.SignIn.Locales), p.SignIn)
	_, here := h.here(p, factors.MessagePage)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	return json.NewEncoder(w).Encode(map[string]any{"problem": problem != "", "notice": notice != "", "due": here})
}

// ---------------------------------------------------------------- P5, another way

// method is one way to choose.
type method struct {
	ID     string
	Label  template.HTML
	Name   string        // what its owner calls it
	Why    template.HTML // it cannot be used at the moment
	Chosen bool
}

type methodsBody struct {
	Methods []method
	None    string // where people go who have none of these
}

func (h *Handler) getMethods(w http.ResponseWriter, r *http.Request) error {
	p, err := h.at(w, r, authn.StepFactor)
	if p == nil {
		return err
	}
	return h.methods(w, r, p, http.StatusOK)
}

func (h *Handler) methods(w http.ResponseWriter, r *http.Request, p *authn.Progress, status int, wrong ...fault) error {
	f := h.page(r, p.SignIn, "methods")
	f.Title, f.Errors = f.T("methods.title"), wrong
	ways := h.SignIns.Ways(&p.SignIn.Session, p.Decision)
	list, chosen := make([]method, len(ways)), false
	for i, way := range ways {
		m := method{ID: way.ID.String(), Label: f.T("methods.any"), Name: way.Name}
		if id := "methods." + way.Kind; f.say.has(id) {
			m.Label = f.say.say(id, values{"Hint": way.Hint})
		}
		c := p.SignIn.Challenge
		switch {
		case way.Down:
			m.Why = f.T("methods.down")
			if id := "methods." + way.Kind + "_down"; f.say.has(id) {
				m.Why = f.say.say(id, nil)
			}
		case c != nil && c.AuthenticatorID == way.ID && c.Delivery != nil && (c.Delivery.State == "failed" || c.Delivery.State == "undelivered"):
			m.Why = f.T("methods.unavailable")
		}
		m.Chosen = m.Why == "" && !chosen
		chosen = chosen || m.Chosen
		list[i] = m
	}
	if !chosen && len(list) > 0 {
		list[0].Chosen = true
	}
	body := methodsBody{Methods: list, None: address("/login/help", p.SignIn.ID)}
	if h.Recovery != nil {
		body.None = address(recoverAccess, p.SignIn.ID)
	}
	f.Body = body
	return h.render(w, r, status, "methods", f)
}

func (h *Handler) postMethods(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !h.proven(v.form, p.SignIn.Session.ID, v.flow, "methods") {
		return errProof
	}
	if p.Decision.Step != authn.StepFactor {
		return h.Next(w, r, p, v.cookie)
	}
	say := h.texts.pick(r, p.SignIn.Locales)
	id, err := uuid.Parse(v.form.Get("method"))
	if err != nil {
		return h.methods(w, r, p, http.StatusUnprocessableEntity, fault{"method", say.say("methods.choose", nil)})
	}
	// The one that is in flight goes on: choosing it again is no reason for another text.
	if c := p.SignIn.Challenge; c == nil || c.AuthenticatorID != id || !c.Live(p.SignIn.Now) {
		return h.choose(w, r, v, p, id)
	}
	return h.Next(w, r, p, v.cookie)
}

func (h *Handler) getHelp(w http.ResponseWriter, r *http.Request) error {
	p, err := h.at(w, r, authn.StepFactor)
	if p == nil {
		return err
	}
	f := h.page(r, p.SignIn, "help")
	f.Title = f.T("help.title")
	return h.render(w, r, http.StatusOK, "help", f)
}

// ---------------------------------------------------------------- P19, consent

type consentBody struct {
	Scopes  []template.HTML
	Details [][]string // lines of each; the first names what it is
	Account template.HTML
	Intro   template.HTML
	Message string        // that the application shows as well
	Check   template.HTML // how to know that it is the same
}

func (h *Handler) getConsent(w http.ResponseWriter, r *http.Request) error {
	p, err := h.at(w, r, authn.StepConsent)
	if p == nil {
		return err
	}
	f := h.page(r, p.SignIn, "consent")
	f.Title = f.T("consent.title")
	body := consentBody{Account: f.say.say("consent.account", values{"Username": p.SignIn.Session.Username})}
	missing, _ := p.SignIn.NeedsConsent()
	for _, scope := range missing {
		body.Scopes = append(body.Scopes, f.scope(scope))
	}
	for _, d := range p.SignIn.Requirement.Details {
		if p.SignIn.Requirement.Confirms() {
			break // it has a page of its own
		}
		lines := d.Lines[f.Lang]
		if len(lines) == 0 {
			return fmt.Errorf("detail of type %s says nothing in %s", d.Type, f.Lang)
		}
		body.Details = append(body.Details, lines)
	}
	body.Intro = f.TC("consent.intro")
	if asked := p.SignIn.Requirement.Backchannel; asked != nil { // the application is elsewhere, and so may be whoever began this
		f.Title, body.Intro, body.Message, body.Check = f.T("consent.asked_title"), f.TC("consent.asked"), asked.Message, f.TC("consent.asked_check")
	}
	f.Body = body
	return h.render(w, r, http.StatusOK, "consent", f)
}

func (h *Handler) postConsent(w http.ResponseWriter, r *http.Request) error {
	v, err := h.posted(w, r)
	if err != nil {
		return err
	}
	p, err := h.SignIns.Load(r.Context(), v.cookie, v.flow)
	if err != nil {
		return err
	}
	if !h.proven(v.form, p.SignIn.Session.ID, v.flow, "consent") {
		return errProof
	}
	if p.Decision.Step != authn.StepConsent {
		return h.Next(w, r, p, v.cookie)
	}
	if v.form.Get("answer") != "allow" {
		return h.answers(p).Refuse(w, r, p, v.cookie, authn.AccessDenied)
	}
	next, err := h.SignIns.Consent(r.Context(), v.cookie, v.flow)
	if err != nil {
		return h.elsewhere(w, r, v, err)
	}
	return h.Next(w, r, next, v.cookie)
}

// ---------------------------------------------------------------- P20, sign out

type signOutBody struct {
	Done     bool
	Question template.HTML
}

// ConfirmSignOut implements oidc.Pages.
func (h *Handler) ConfirmSignOut(w http.ResponseWriter, r *http.Request, session authn.Session) {
	f := h.bare(r, r.URL.Query().Get("ui_locales"))
	f.Title, f.Proof = f.T("signout.title"), h.proof(session.ID, uuid.Nil, "sign out")
	f.Body = signOutBody{Question: f.say.say("signout.question", values{"Username": session.Username})}
	h.show(w, r, "signout", f)
}

// SignedOut implements oidc.Pages.
func (h *Handler) SignedOut(w http.ResponseWriter, r *http.Request, application, home string) {
	f := h.bare(r, r.URL.Query().Get("ui_locales"))
	f.Title, f.Client, f.HomeURI, f.Body = f.T("signout.done"), application, home, signOutBody{Done: true}
	h.show(w, r, "signout", f)
}

// Answered implements oidc.Pages.
func (h *Handler) Answered(w http.ResponseWriter, r *http.Request, application, home string, allowed bool) {
	f := h.bare(r, "")
	f.Client, f.HomeURI = application, home
	id := "answered.no"
	if allowed {
		id = "answered.yes"
	}
	f.Title, f.Body = f.T(id), f.TC(id+"_body")
	h.show(w, r, "answered", f)
}

func (h *Handler) show(w http.ResponseWriter, r *http.Request, name string, f *frame) {
	if err := h.render(w, r, http.StatusOK, name, f); err != nil {
		h.Log.ErrorContext(r.Context(), "page failed", "error", err)
		h.Failed(w, r)
	}
}

func (h *Handler) postSignOut(w http.ResponseWriter, r *http.Request) error {
	form, err := httpkit.ReadForm(w, r, h.origin)
	if err != nil {
		return err
	}
	cookie := h.Cookie(r)
	session, err := h.SignIns.Current(r.Context(), cookie)
	if err != nil {
		return err
	}
	if session.ID != uuid.Nil {
		if !h.proven(form, session.ID, uuid.Nil, "sign out") {
			return errProof
		}
		if err := h.App.SignOut(r, cookie); err != nil {
			return err
		}
	}
	h.SetCookie(w, "")
	h.SignedOut(w, r, "", "")
	return nil
}

// ---------------------------------------------------------------- the way back

type formPostBody struct {
	Action string
	Values url.Values
}

// FormPost implements oidc.Pages: OAuth 2.0 Form Post Response Mode. With script the form sends itself, without it shows a button.
func (h *Handler) FormPost(w http.ResponseWriter, r *http.Request, action string, fields url.Values) {
	f := h.bare(r, "")
	f.Title, f.Body = f.T("formpost.title"), formPostBody{Action: action, Values: fields}
	if u, err := url.Parse(action); err == nil {
		if f.formAction = u.Scheme + "://" + u.Host; u.Host == "" {
			f.formAction = u.Scheme + ":"
		}
	}
	h.show(w, r, "formpost", f)
}
