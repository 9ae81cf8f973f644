package web

import (
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/authn/recovery"
	"github.com/watchword-auth/watchword/factors"
)

// Recovery: P10 to P14. What was proved, and what is due, is asked of package recovery; [recoverPath] turns that into a page, and a page that is opened out of turn leads on to
// the one that is due. A page for somebody who has proved nothing shows what was typed and the clock, and nothing else.

// recoverTemplates are the files of folder recover.
var recoverTemplates = []string{"start", "check", "link", "ways", "waiting", "password", "repair", "outcome"}

// Paths of recovery.
const (
	recoverStart    = "/recover"
	recoverAccess   = "/recover/access"
	recoverStop     = "/recover/stop"
	recoverCheck    = "/recover/check"
	recoverWays     = "/recover/ways"
	recoverWaiting  = "/recover/waiting"
	recoverPassword = "/recover/password"
	recoverRepair   = "/recover/repair"
	recoverDone     = "/recover/done"
	recoverCancel   = "/recover/cancel"
)

// recoverPages are served where there is an engine.
func (h *Handler) recoverPages() map[string]func(http.ResponseWriter, *http.Request) error {
	if h.Recovery == nil {
		return nil
	}
	pages := map[string]func(http.ResponseWriter, *http.Request) error{}
	for path, kind := range map[string]recovery.Kind{recoverStart: recovery.Password, recoverAccess: recovery.Access, recoverStop: recovery.Stop} {
		begin := beginning{h, kind, path}
		pages["GET "+path], pages["POST "+path] = begin.get, begin.post
	}
	for pattern, page := range map[string]func(http.ResponseWriter, *http.Request) error{
		"GET " + recoverCheck: h.getCheck, "POST " + recoverCheck: h.postCheck, "POST /recover/again": h.postAgain,
		"GET " + recovery.LinkPath: h.getLink, "POST " + recovery.LinkPath: h.postLink,
		"GET " + recoverWays: h.getRecoverWays, "POST " + recoverWays: h.postRecoverWays,
		"POST /recover/wait": h.postWait, "GET " + recoverWaiting: h.getWaiting, "POST " + recoverWaiting: h.postWaiting, "POST " + recoverCancel: h.postRecoverCancel,
		"GET " + recoverPassword: h.getNewPassword, "POST " + recoverPassword: h.postNewPassword,
		"GET " + recoverRepair: h.getRepair, "POST " + recoverRepair: h.postRepair,
		"GET " + recoverDone: h.getOutcome,
	} {
		pages[pattern] = h.untilOver(page)
	}
	return pages
}

// untilOver tells people whose recovery is over, or is another browser's by now.
func (h *Handler) untilOver(page func(http.ResponseWriter, *http.Request) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		err := page(w, r)
		if errors.Is(err, recovery.ErrOver) {
			return h.recoverOver(w, r)
		}
		return err
	}
}

// recoverCookieName and linkCookieName are what the cookies are called, before the prefix: of a recovery, and of a mailed link whose page is open.
const (
	recoverCookieName = "watchword-recovery"
	linkCookieName    = "watchword-link"
)

// recoverCookieLife is how long a browser keeps what it was given: longer than any waiting period with the time to go on afterwards. What it is good for is for the database to say.
const recoverCookieLife = 14 * 24 * time.Hour

func (h *Handler) recoverCookie(r *http.Request) recovery.Cookie {
	c, err := r.Cookie(h.cookieName(recoverCookieName))
	if err != nil || len(c.Value) > 100 {
		return ""
	}
	return recovery.Cookie(c.Value)
}

func (h *Handler) setRecoverCookie(w http.ResponseWriter, cookie recovery.Cookie) {
	http.SetCookie(w, &http.Cookie{Name: h.cookieName(recoverCookieName), Value: string(cookie), Path: "/", MaxAge: int(recoverCookieLife.Seconds()), Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
}

// granted hands over what a proof has led to, and leads on.
func (h *Handler) granted(w http.ResponseWriter, g *recovery.Grant) error {
	h.setRecoverCookie(w, g.Cookie)
	if g.Session != "" {
		h.SetCookie(w, g.Session)
	}
	redirect(w, h.recoverPath(g.Recovery))
	return nil
}

// recoverPath is the page that is due.
func (h *Handler) recoverPath(r *recovery.Recovery) string {
	if !r.Proved() { // whatever became of it: strangers see one thing
		return recoverCheck
	}
	switch {
	case !r.Live():
		return recoverDone
	case r.State == recovery.Granted && r.Kind == recovery.Access:
		return recoverRepair
	case r.State == recovery.Granted:
		return recoverPassword
	case r.State == recovery.Waiting:
		return recoverWaiting
	case len(r.Proofs) == 0:
		return recoverCheck
	}
	if _, due := h.Recovery.Due(r); due {
		return recoverCheck
	}
	return recoverWays
}

// recovering loads the recovery of a request, and reads its form where step names one. Where another page than path is due it leads there and gives nil.
func (h *Handler) recovering(w http.ResponseWriter, r *http.Request, step string, paths ...string) (*recovery.Recovery, url.Values, error) {
	var form url.Values
	if step != "" {
		var err error
		if form, err = h.readForm(w, r); err != nil {
			return nil, nil, err
		}
	}
	cookie := h.recoverCookie(r)
	if cookie == "" {
		return nil, nil, recovery.ErrOver
	}
	got, err := h.Recovery.Load(r.Context(), cookie)
	if err != nil {
		return nil, nil, err
	}
	if step != "" && !h.proven(form, got.ID, uuid.Nil, "recover "+step) {
		return nil, nil, errProof
	}
	due := h.recoverPath(got)
	for _, path := range paths {
		if path == due {
			return got, form, nil
		}
	}
	redirect(w, due)
	return nil, nil, nil
}

// recoverFrame begins the frame of a page of a recovery.
func (h *Handler) recoverFrame(r *http.Request, got *recovery.Recovery, step string) *frame {
	f := h.bare(r, "")
	f.Proof = h.proof(got.ID, uuid.Nil, "recover "+step)
	return f
}

// ---------------------------------------------------------------- P10, and the first page of P13: who it is about

// beginning is the page on which something is asked for.
type beginning struct {
	*Handler
	kind recovery.Kind
	path string
}

type beginBody struct {
	Action, Username string
	Known            bool // the browser has told already who it is
	Intro, Late      template.HTML
	Channels         []beginChannel
	Return           string // to where the person came from
	Access, Stop     bool   // links to the other pages like this
}

type beginChannel struct {
	Name   recovery.Channel
	Label  template.HTML
	Chosen bool
}

// from is the sign-in that the person came from, if there is one of this browser's; known says that its password was right.
func (b beginning) from(r *http.Request) (p *authn.Progress, known bool, err error) {
	flow, bad := uuid.Parse(r.URL.Query().Get("flow"))
	if bad != nil || b.Cookie(r) == "" {
		return nil, false, nil //nolint:nilerr // whoever comes from nowhere may recover all the same
	}
	if p, err = b.SignIns.Load(r.Context(), b.Cookie(r), flow); errors.Is(err, authn.ErrSignInOver) {
		return nil, false, nil
	} else if err != nil {
		return nil, false, err
	}
	return p, p.Decision.Step == authn.StepFactor && b.kind == recovery.Access, nil
}

func (b beginning) get(w http.ResponseWriter, r *http.Request) error {
	p, known, err := b.from(r)
	if err != nil {
		return err
	}
	name := ""
	if p != nil {
		name = p.SignIn.LoginHint
	}
	return b.show(w, r, p, known, http.StatusOK, name, "", "")
}

// texts of each kind: the group of ids that the page is made of.
func (b beginning) text(f *frame, name string) template.HTML {
	switch b.kind {
	case recovery.Access:
		return f.say.say("access."+name, values{"Service": b.Service})
	case recovery.Stop:
		return f.say.say("stop."+name, values{"Service": b.Service})
	default:
		return f.say.say("forgot."+name, values{"Service": b.Service})
	}
}

func (b beginning) show(w http.ResponseWriter, r *http.Request, p *authn.Progress, known bool, status int, name string, chosen recovery.Channel, code string, wrong ...fault) error {
	f := b.bare(r, "")
	body := beginBody{Action: b.path, Username: name, Known: known, Access: b.kind == recovery.Password, Stop: b.kind != recovery.Stop, Return: accountPath}
	if p != nil {
		f = b.bare(r, p.SignIn.Locales)
		f.Flow = p.SignIn.ID.String()
		body.Action, body.Return = address(b.path, p.SignIn.ID), address("/login", p.SignIn.ID)
	}
	f.Title, f.Errors, f.code = b.text(f, "title"), wrong, code
	body.Intro = b.text(f, "intro")
	if known {
		body.Late = f.T("help.wait")
	}
	channels := b.Recovery.Channels()
	if chosen == "" && len(channels) > 0 {
		chosen = channels[len(channels)-1] // a link by mail, where there are mails: it needs no second proof for a password
	}
	for _, c := range channels {
		id := "recover.by_text"
		if c == recovery.Mail {
			id = "recover.by_mail"
		}
		body.Channels = append(body.Channels, beginChannel{Name: c, Label: f.T(id), Chosen: c == chosen})
	}
	f.Body = body
	return b.render(w, r, status, "recover_start", f)
}

func (b beginning) post(w http.ResponseWriter, r *http.Request) error {
	form, err := b.readForm(w, r)
	if err != nil {
		return err
	}
	p, known, err := b.from(r)
	if err != nil {
		return err
	}
	locales := ""
	ask := recovery.Beginning{Kind: b.kind, Name: form.Get("username"), Channel: recovery.Channel(form.Get("channel"))}
	if p != nil {
		ask.SignIn, locales = p.SignIn.ID, p.SignIn.Locales
		if known {
			ask.Session = &p.SignIn.Session
		}
	}
	say := b.texts.pick(r, locales)
	ask.Locale = say.tag.String()
	if !known && strings.TrimSpace(ask.Name) == "" {
		return b.show(w, r, p, known, http.StatusUnprocessableEntity, "", ask.Channel, "login.empty_username", fault{"username", say.say("login.empty_username", nil)})
	}
	cookie, err := b.Recovery.Begin(r.Context(), ask)
	limited, isLimited := errors.AsType[*recovery.LimitError](err)
	switch {
	case errors.Is(err, recovery.ErrNoWay):
		return b.show(w, r, p, known, http.StatusUnprocessableEntity, ask.Name, "", "recover.choose", fault{"channel", say.say("recover.choose", nil)})
	case isLimited:
		w.Header().Set("Retry-After", retry(limited.Now, limited.Until))
		return b.show(w, r, p, known, http.StatusTooManyRequests, ask.Name, ask.Channel, "recover.limit", fault{"username", say.say("recover.limit", values{"Time": say.clock(limited.Until)})})
	case err != nil:
		return err
	}
	b.setRecoverCookie(w, cookie)
	redirect(w, recoverCheck)
	return nil
}

// ---------------------------------------------------------------- P11, what was sent, and other answers

type checkBody struct {
	Intro    template.HTML
	Code     bool // an answer can be typed
	Digits   bool
	Message  bool // a text message brings it
	Label    template.HTML
	Hint     template.HTML
	Closed   bool // nothing can be answered any more
	Again    template.HTML
	Wait     template.HTML // how long until it can be sent again
	Other    bool          // another way can be chosen
	Cancel   bool
	Start    string // where to begin anew
	Unsolved template.HTML
}

func startOf(kind recovery.Kind) string {
	switch kind {
	case recovery.Access:
		return recoverAccess
	case recovery.Stop:
		return recoverStop
	default:
		return recoverStart
	}
}

func (h *Handler) getCheck(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "", recoverCheck)
	if got == nil {
		return err
	}
	return h.check(w, r, got, http.StatusOK, "", "")
}

// check renders the page as things stand, with what is wrong about the last answer. Whoever has proved nothing is told the same for every name.
func (h *Handler) check(w http.ResponseWriter, r *http.Request, got *recovery.Recovery, status int, code string, wrong template.HTML) error {
	f := h.recoverFrame(r, got, "check")
	body := checkBody{Cancel: got.Proved(), Start: startOf(got.Kind), Other: len(got.Proofs) > 0 && got.Live()}
	if len(got.Proofs) == 0 {
		h.checkFirst(f, &body, got)
	} else {
		h.checkMore(f, &body, got)
	}
	if wrong != "" && len(f.Errors) == 0 {
		f.Errors, f.code = []fault{{"code", wrong}}, code
		if !body.Code {
			f.Errors[0].Field = "send"
		}
	}
	f.Body = body
	return h.render(w, r, status, "recover_check", f)
}

// checkFirst is the page after the first message was asked for.
func (h *Handler) checkFirst(f *frame, body *checkBody, got *recovery.Recovery) {
	life := got.CreatedAt.Add(h.Recovery.Config.Life)
	minutes := max(1, int(h.Recovery.Config.Life.Minutes()))
	f.Title, body.Intro = f.T("recover.mail_title"), f.say.say("recover.mail_sent", values{"Count": minutes})
	if got.Channel == recovery.Text {
		f.Title, body.Intro = f.T("code.title"), f.T("recover.text_sent")
		body.Code, body.Digits, body.Message = true, true, true
		body.Label, body.Hint = f.T("code.label"), f.T("code.hint")
	}
	switch {
	case !got.Now.Before(life):
		body.Closed, f.code, f.Errors = true, "recover.late", []fault{{"code", f.T("recover.late")}}
	case got.Channel == recovery.Text && got.Tries >= h.Recovery.Config.Tries:
		body.Closed, f.code, f.Errors = true, "recover.tries", []fault{{"code", f.T("recover.tries")}}
	case got.Sends < h.Recovery.Config.Sends:
		body.Again = f.T("recover.again_mail")
		if got.Channel == recovery.Text {
			body.Again = f.T("send.again")
		}
		h.pause(f, body, got.Now, got.NextSendAt)
		if got.Sends > 1 {
			f.Notice = f.T("recover.resent")
		}
	default:
		body.Unsolved = f.T("recover.sends")
	}
}

func (h *Handler) pause(f *frame, body *checkBody, now time.Time, next *time.Time) {
	if next != nil && next.After(now) {
		body.Wait = f.say.say("recover.wait_again", values{"Count": int(next.Sub(now).Seconds()) + 1})
	}
}

// checkMore is the page on which a further proof is given.
func (h *Handler) checkMore(f *frame, body *checkBody, got *recovery.Recovery) {
	way, _ := h.Recovery.Due(got)
	if way.ID == uuid.Nil {
		f.Title = f.T("recover.mail_title")
		body.Intro = f.say.say("recover.mail_to", values{"Hint": hinted(way.Hint), "Count": max(1, int(h.Recovery.Config.Life.Minutes()))})
		body.Again = f.T("recover.again_mail")
		return
	}
	page, c := answerPage{h, way.Page.Name}, got.Challenge
	body.Code, body.Message, body.Digits = true, way.Sent, way.Sent || way.Page.Digits
	if way.Sent {
		f.Title, body.Label, body.Hint = f.T("code.title"), f.T("code.label"), f.T("code.hint")
		if c != nil {
			body.Intro = f.say.say("code.sent", values{"Hint": hinted(way.Hint), "Count": max(1, int(c.ExpiresAt.Sub(got.Now).Round(time.Minute).Minutes()))})
		}
	} else {
		text := func(name string) template.HTML { return f.say.of(page.name, name, values{"Service": h.Service}) }
		f.Title, body.Intro, body.Label, body.Hint = text("title"), text("intro"), text("label"), text("hint")
	}
	in := &authn.SignIn{Challenge: c, Now: got.Now}
	var problem, notice template.HTML
	again := true
	if way.Sent {
		problem, notice = h.codeState(f.say, in)
	} else {
		problem, again = page.state(f.say, in)
	}
	f.Notice = notice
	if problem != "" {
		body.Closed = c == nil || !c.Live(got.Now) || c.BlockedUntil != nil
		f.Errors, f.code = []fault{{"code", problem}}, "send.failed"
		if body.Closed {
			f.code = "code.expired"
		}
		if c != nil && c.BlockedUntil != nil {
			f.code = "code.locked"
			f.retryAfter, again = retry(got.Now, *c.BlockedUntil), false
		}
	}
	if again && (way.Sent || body.Closed) {
		body.Again = f.T("send.again")
		if !way.Sent {
			body.Again = f.T("answer.again")
		}
		if way.Sent && c != nil && c.Live(got.Now) {
			h.pause(f, body, got.Now, c.NextSendAt)
		}
	}
}

func (h *Handler) postCheck(w http.ResponseWriter, r *http.Request) error {
	got, form, err := h.recovering(w, r, "check", recoverCheck)
	if got == nil {
		return err
	}
	g, err := h.Recovery.Answer(r.Context(), h.recoverCookie(r), form.Get("code"))
	if err == nil {
		return h.granted(w, g)
	}
	say, group := h.texts.pick(r, ""), "code"
	if way, due := h.Recovery.Due(got); due && !way.Sent && len(got.Proofs) > 0 {
		group = way.Page.Name
	}
	for typed, name := range map[error]string{factors.ErrCodeEmpty: "empty", factors.ErrCodeShort: "short", factors.ErrCodeLong: "long", factors.ErrCodeChars: "chars"} {
		if errors.Is(err, typed) {
			return h.check(w, r, got, http.StatusUnprocessableEntity, "code."+name, say.of(group, name, nil))
		}
	}
	blocked, isBlocked := errors.AsType[*factors.BlockedError](err)
	if !isBlocked && !errors.Is(err, recovery.ErrWrong) && !errors.Is(err, recovery.ErrTries) && !errors.Is(err, recovery.ErrOver) {
		return err
	}
	// The page tells how things stand now, hence they are read again.
	again, problem := h.Recovery.Load(r.Context(), h.recoverCookie(r))
	if problem != nil {
		return problem
	}
	if h.recoverPath(again) != recoverCheck {
		redirect(w, h.recoverPath(again))
		return nil
	}
	if isBlocked {
		w.Header().Set("Retry-After", retry(again.Now, blocked.Until))
		return h.check(w, r, again, http.StatusTooManyRequests, "login.rate", say.say("login.rate", values{"Time": say.clock(blocked.Until)}))
	}
	wrong := say.of(group, "wrong", nil)
	if len(again.Proofs) > 0 && again.Challenge != nil {
		if left := again.Challenge.AttemptsLeft(); left <= 3 {
			wrong = say.of(group, "wrong_left", values{"Count": left})
		}
	}
	return h.check(w, r, again, http.StatusUnprocessableEntity, "code.wrong", wrong)
}

func (h *Handler) postAgain(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "check", recoverCheck)
	if got == nil {
		return err
	}
	say := h.texts.pick(r, "")
	err = h.Recovery.Repeat(r.Context(), h.recoverCookie(r), say.tag.String())
	limited, isLimited := errors.AsType[*recovery.LimitError](err)
	switch {
	case isLimited && limited.Until.IsZero():
		return h.check(w, r, got, http.StatusTooManyRequests, "recover.sends", say.say("recover.sends", nil))
	case isLimited:
		w.Header().Set("Retry-After", retry(got.Now, limited.Until))
		return h.check(w, r, got, http.StatusTooManyRequests, "recover.wait_again", say.say("recover.wait_again", values{"Count": max(1, int(limited.Until.Sub(got.Now).Seconds())+1)}))
	case errors.Is(err, recovery.ErrNoWay):
		redirect(w, recoverWays)
		return nil
	case err != nil:
		return err
	}
	redirect(w, recoverCheck)
	return nil
}

// ---------------------------------------------------------------- the link in a mail

// linkProof names the form of a link's page.
func linkProof(token string) uuid.UUID { return uuid.NewSHA1(uuid.NameSpaceURL, []byte(token)) }

// getLink shows what a link is for. Opening it uses nothing up, however often and wherever: programs that look through mails do. REC-5: the address is without the link's secret
// from the first answer on.
func (h *Handler) getLink(w http.ResponseWriter, r *http.Request) error {
	keep := &http.Cookie{Name: h.cookieName(linkCookieName), Path: "/", MaxAge: int(h.Recovery.Config.Life.Seconds()), Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if token := r.URL.Query().Get("token"); token != "" {
		if keep.Value = token; len(token) > 100 || strings.ContainsAny(token, "\" ;,\\") {
			return recovery.ErrOver
		}
		http.SetCookie(w, keep)
		w.Header().Set("Referrer-Policy", "no-referrer")
		redirect(w, recovery.LinkPath)
		return nil
	}
	got, token, err := h.linked(r)
	if err != nil {
		return err
	}
	f := h.bare(r, "")
	f.Proof = h.proof(linkProof(token), uuid.Nil, "link")
	id := "link.password"
	switch got.Kind {
	case recovery.Access:
		id = "link.access"
	case recovery.Stop:
		id = "link.stop"
	}
	f.Title, f.Body = f.T("link.title"), linkBody{f.say.say(id, values{"Service": h.Service}), got.Kind}
	return h.render(w, r, http.StatusOK, "recover_link", f)
}

func (h *Handler) linked(r *http.Request) (*recovery.Recovery, string, error) {
	c, err := r.Cookie(h.cookieName(linkCookieName))
	if err != nil || len(c.Value) > 100 {
		return nil, "", recovery.ErrOver
	}
	got, err := h.Recovery.Linked(r.Context(), c.Value)
	return got, c.Value, err
}

func (h *Handler) postLink(w http.ResponseWriter, r *http.Request) error {
	form, err := h.readForm(w, r)
	if err != nil {
		return err
	}
	c, err := r.Cookie(h.cookieName(linkCookieName))
	if err != nil || len(c.Value) > 100 {
		return recovery.ErrOver
	}
	if !h.proven(form, linkProof(c.Value), uuid.Nil, "link") {
		return errProof
	}
	g, err := h.Recovery.Follow(r.Context(), c.Value)
	if err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{Name: c.Name, Path: "/", MaxAge: -1, Secure: h.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode})
	return h.granted(w, g)
}

// ---------------------------------------------------------------- P13, one more proof

type waysBody struct {
	Intro template.HTML
	Ways  []method
	Wait  template.HTML // the button that has the person wait instead
	Why   template.HTML
	None  template.HTML
}

func (h *Handler) getRecoverWays(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "", recoverWays, recoverCheck)
	if got == nil {
		return err
	}
	if len(got.Proofs) == 0 {
		redirect(w, recoverCheck)
		return nil
	}
	return h.recoverWays(w, r, got, http.StatusOK, "")
}

func (h *Handler) recoverWays(w http.ResponseWriter, r *http.Request, got *recovery.Recovery, status int, code string, wrong ...fault) error {
	f := h.recoverFrame(r, got, "ways")
	f.Title, f.Errors, f.code = f.T("access.more_title"), wrong, code
	body := waysBody{Intro: f.T("access.more")}
	if got.Kind == recovery.Password {
		body.Intro = f.T("forgot.more")
	}
	for _, way := range h.Recovery.Ways(got) {
		m := method{ID: way.ID.String(), Label: f.T("methods.any"), Name: way.Name}
		switch id := "methods." + way.Kind; {
		case way.Kind == recovery.ByMail:
			m.Label = f.say.say("recover.mail_way", values{"Hint": way.Hint})
		case f.say.has(id):
			m.Label = f.say.say(id, values{"Hint": way.Hint})
		}
		if way.Down {
			m.Why = f.T("methods.down")
		}
		m.Chosen = len(body.Ways) == 0
		body.Ways = append(body.Ways, m)
	}
	hours := int(h.Recovery.Config.Wait.Hours())
	if h.Recovery.Verdict(got).MayWait {
		body.Wait, body.Why = f.say.say("access.wait", values{"Count": hours}), f.T("access.wait_why")
	}
	if len(body.Ways) == 0 && body.Wait == "" {
		body.Intro, body.None = f.T("access.none"), f.TC("help.body")
	}
	f.Body = body
	return h.render(w, r, status, "recover_ways", f)
}

func (h *Handler) postRecoverWays(w http.ResponseWriter, r *http.Request) error {
	got, form, err := h.recovering(w, r, "ways", recoverWays, recoverCheck)
	if got == nil {
		return err
	}
	say := h.texts.pick(r, "")
	id, bad := uuid.Parse(form.Get("way"))
	if bad != nil {
		return h.recoverWays(w, r, got, http.StatusUnprocessableEntity, "methods.choose", fault{"way", say.say("methods.choose", nil)})
	}
	err = h.Recovery.Ask(r.Context(), h.recoverCookie(r), id, say.tag.String())
	limited, isLimited := errors.AsType[*recovery.LimitError](err)
	wait, isWait := errors.AsType[*factors.WaitError](err)
	switch {
	case isLimited || isWait:
		until := got.Now.Add(time.Hour)
		if isLimited && !limited.Until.IsZero() {
			until = limited.Until
		} else if isWait && !wait.Until.IsZero() {
			until = wait.Until
		}
		w.Header().Set("Retry-After", retry(got.Now, until))
		return h.recoverWays(w, r, got, http.StatusTooManyRequests, "send.limit", fault{"way", say.say("send.limit", values{"Time": say.clock(until)})})
	case errors.Is(err, recovery.ErrNoWay):
		return h.recoverWays(w, r, got, http.StatusUnprocessableEntity, "access.not_now", fault{"way", say.say("access.not_now", nil)})
	case err != nil:
		return err
	}
	redirect(w, recoverCheck)
	return nil
}

// ---------------------------------------------------------------- P14, waiting

func (h *Handler) postWait(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "ways", recoverWays, recoverCheck)
	if got == nil {
		return err
	}
	if err := h.Recovery.Wait(r.Context(), h.recoverCookie(r)); errors.Is(err, recovery.ErrNoWay) {
		say := h.texts.pick(r, "")
		return h.recoverWays(w, r, got, http.StatusUnprocessableEntity, "access.not_now", fault{"way", say.say("access.not_now", nil)})
	} else if err != nil {
		return err
	}
	redirect(w, recoverWaiting)
	return nil
}

type waitingBody struct {
	Text  template.HTML
	Ready bool
	Until time.Time // until when there is nothing to be done; where Ready, until when there is
	Path  string    // of the form
}

func (h *Handler) getWaiting(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "", recoverWaiting)
	if got == nil {
		return err
	}
	f := h.recoverFrame(r, got, "waiting")
	f.Title = f.T("waiting.title")
	body := waitingBody{Ready: !got.Now.Before(*got.DueAt), Until: *got.DueAt, Path: recoverWaiting}
	body.Text = f.say.say("waiting.until", values{"Time": f.say.moment(*got.DueAt)})
	if body.Ready {
		f.Title, body.Until = f.T("waiting.ready_title"), got.ExpiresAt
		body.Text = f.say.say("waiting.ready", values{"Time": f.say.moment(got.ExpiresAt)})
	}
	f.Body = body
	return h.render(w, r, http.StatusOK, "recover_waiting", f)
}

func (h *Handler) postWaiting(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "waiting", recoverWaiting)
	if got == nil {
		return err
	}
	g, err := h.Recovery.Resume(r.Context(), h.recoverCookie(r))
	switch {
	case errors.Is(err, recovery.ErrNotThisStep):
		redirect(w, recoverWaiting)
		return nil
	case err != nil:
		return err
	}
	return h.granted(w, g)
}

// postRecoverCancel ends a recovery, by whoever has proved something in it.
func (h *Handler) postRecoverCancel(w http.ResponseWriter, r *http.Request) error {
	form, err := h.readForm(w, r)
	if err != nil {
		return err
	}
	cookie := h.recoverCookie(r)
	got, err := h.Recovery.Load(r.Context(), cookie)
	if err != nil {
		return err
	}
	proven := false
	for _, step := range []string{"check", "ways", "waiting", "password", "repair"} {
		proven = proven || h.proven(form, got.ID, uuid.Nil, "recover "+step)
	}
	if !proven {
		return errProof
	}
	if err := h.Recovery.Cancel(r.Context(), cookie); err != nil {
		return err
	}
	redirect(w, recoverDone)
	return nil
}

// ---------------------------------------------------------------- P12, a new password

type newPasswordBody struct {
	Why    template.HTML
	Hint   template.HTML
	Repair bool // in a session that repairs: its page is the way back
	Least  int  // characters
}

func (h *Handler) getNewPassword(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "", recoverPassword, recoverRepair)
	if got == nil {
		return err
	}
	return h.newPassword(w, r, got, http.StatusOK, "")
}

func (h *Handler) newPassword(w http.ResponseWriter, r *http.Request, got *recovery.Recovery, status int, code string, wrong ...fault) error {
	f := h.recoverFrame(r, got, "password")
	f.Title, f.Errors, f.code = f.T("forgot.new_title"), wrong, code
	f.Body = newPasswordBody{Why: f.T("forgot.new_why"), Hint: f.say.say("password.hint", values{"Count": h.Recovery.MinPassword(got)}), Repair: got.Kind == recovery.Access, Least: h.Recovery.MinPassword(got)}
	return h.render(w, r, status, "recover_password", f)
}

func (h *Handler) postNewPassword(w http.ResponseWriter, r *http.Request) error {
	got, form, err := h.recovering(w, r, "password", recoverPassword, recoverRepair)
	if got == nil {
		return err
	}
	say, password := h.texts.pick(r, ""), form.Get("password")
	if got.Kind == recovery.Access {
		err = h.Recovery.SetRepairPassword(r.Context(), h.Cookie(r), password)
	} else {
		err = h.Recovery.SetPassword(r.Context(), h.recoverCookie(r), password)
	}
	if errors.Is(err, authn.ErrOverloaded) {
		w.Header().Set("Retry-After", retry(got.Now, got.Now.Add(authn.RetryAfter)))
		return h.newPassword(w, r, got, http.StatusServiceUnavailable, "login.busy", fault{"password", say.say("login.busy", nil)})
	}
	for known, id := range map[error]string{authn.ErrPasswordShort: "short", authn.ErrPasswordLong: "long", authn.ErrPasswordCommon: "common", authn.ErrPasswordChars: "chars"} {
		if errors.Is(err, known) {
			if password == "" {
				id = "empty"
			}
			return h.newPassword(w, r, got, http.StatusUnprocessableEntity, "password."+id, fault{"password", say.say("password."+id, values{"Count": authn.MaxPassword})})
		}
	}
	switch {
	case err != nil:
		return err
	case got.Kind == recovery.Access:
		h.say(w, "password")
		redirect(w, recoverRepair)
	default:
		redirect(w, recoverDone)
	}
	return nil
}

// ---------------------------------------------------------------- repairing

type repairBody struct {
	Intro      template.HTML
	Kept, Lost []template.HTML
	Choices    []choiceOf
	Enough     bool
	kept, lost []boundFacts
}

func (h *Handler) getRepair(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "", recoverRepair)
	if got == nil {
		return err
	}
	repair, err := h.Recovery.Repair(r.Context(), h.Cookie(r))
	if errors.Is(err, recovery.ErrOver) { // this browser has lost the session, and not the recovery
		return h.lostRepair(w, r, got)
	}
	if err != nil {
		return err
	}
	f := h.recoverFrame(r, got, "repair")
	f.Title = f.T("repair.title")
	if h.said(w, r) == "password" {
		f.Notice = f.T("repair.password_set")
	}
	body := repairBody{Intro: f.say.say("repair.intro", values{"Time": f.say.clock(repair.Recovery.ExpiresAt)}), Enough: repair.Enough}
	label := func(a factors.Authenticator) template.HTML {
		if !f.say.has("factor." + a.Kind) {
			return f.T("methods.any")
		}
		return f.say.say("factor."+a.Kind, values{"Hint": a.Hint})
	}
	for _, a := range repair.Kept {
		body.Kept, body.kept = append(body.Kept, label(a)), append(body.kept, boundFacts{a.Kind, a.Hint, a.Name})
	}
	for _, a := range repair.Lost {
		body.Lost, body.lost = append(body.Lost, label(a)), append(body.lost, boundFacts{a.Kind, a.Hint, a.Name})
	}
	body.Choices = h.choices(&enrolling{session: repair.Session, repair: true}, f.say, "")
	f.Body = body
	return h.render(w, r, http.StatusOK, "recover_repair", f)
}

// lostRepair offers to go on in a browser that had the session taken from it: by signing in elsewhere, or by its own time.
func (h *Handler) lostRepair(w http.ResponseWriter, r *http.Request, got *recovery.Recovery) error {
	f := h.recoverFrame(r, got, "repair")
	f.Title = f.T("waiting.ready_title")
	f.Body = waitingBody{Ready: true, Until: got.ExpiresAt, Path: recoverRepair, Text: f.say.say("repair.elsewhere", values{"Time": f.say.clock(got.ExpiresAt)})}
	return h.render(w, r, http.StatusOK, "recover_waiting", f)
}

// postRepair finishes what needs nothing more, or opens the session again where it was lost.
func (h *Handler) postRepair(w http.ResponseWriter, r *http.Request) error {
	got, form, err := h.recovering(w, r, "repair", recoverRepair)
	if got == nil {
		return err
	}
	if form.Get("do") != "finish" {
		g, err := h.Recovery.Resume(r.Context(), h.recoverCookie(r))
		if err != nil {
			return err
		}
		return h.granted(w, g)
	}
	switch err := h.Recovery.FinishRepair(r.Context(), h.Cookie(r)); {
	case errors.Is(err, recovery.ErrNotThisStep):
		redirect(w, recoverRepair)
		return nil
	case err != nil:
		return err
	}
	h.SetCookie(w, "")
	redirect(w, recoverDone)
	return nil
}

// ---------------------------------------------------------------- how it ended

type outcomeBody struct {
	outcome string
	Text    template.HTML
	SignIn  string // where to sign in
	Again   string // where to begin anew
}

func (h *Handler) getOutcome(w http.ResponseWriter, r *http.Request) error {
	got, _, err := h.recovering(w, r, "", recoverDone)
	if got == nil {
		return err
	}
	f := h.bare(r, "")
	say := func(id string) (template.HTML, template.HTML) {
		return f.T("outcome." + id), f.TC("outcome." + id + "_body")
	}
	var id string
	body, status := outcomeBody{SignIn: accountPath}, http.StatusOK
	switch {
	case got.State == recovery.Finished && got.Kind == recovery.Password:
		id = "password"
	case got.State == recovery.Finished && got.Kind == recovery.Stop:
		id = "stopped"
	case got.State == recovery.Finished:
		id = "access"
	case got.State == recovery.Canceled && got.Reason != "account_changed" && got.Reason != "signed_in":
		id, body.SignIn = "canceled", ""
	case got.State == recovery.Refused: // known: the password was right
		id, body.SignIn, body.Again = "none", "", startOf(got.Kind)
	default:
		id, body.SignIn, body.Again, status = "over", "", startOf(got.Kind), http.StatusGone
	}
	if body.SignIn != "" && got.SignIn != uuid.Nil && h.Cookie(r) != "" { // the application still waits
		if _, err := h.SignIns.Load(r.Context(), h.Cookie(r), got.SignIn); err == nil {
			body.SignIn = address("/login", got.SignIn)
		} else if !errors.Is(err, authn.ErrSignInOver) {
			return err
		}
	}
	f.Title, body.Text = say(id)
	body.outcome, f.code = id, "outcome."+id
	f.Body = body
	return h.render(w, r, status, "recover_outcome", f)
}

// recoverOver is for whoever has no recovery here, or one that is over, or goes on elsewhere.
func (h *Handler) recoverOver(w http.ResponseWriter, r *http.Request) error {
	f := h.bare(r, "")
	f.Title, f.code = f.T("outcome.over"), "outcome.over"
	f.Body = outcomeBody{outcome: "over", Text: f.TC("outcome.over_body"), Again: recoverStart}
	return h.render(w, r, http.StatusGone, "recover_outcome", f)
}
