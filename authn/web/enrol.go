package web

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-auth/watchword/authn"
	"github.com/watchword-auth/watchword/factors"
	"github.com/watchword-auth/watchword/sms"
)

// Enrolment: P6 to P9. Which pages there are follows from what the installed factors can do: one whose authenticators are telephone numbers is set up on the pages of
// phones, any other whose authenticators begin here on pages under its own name. A sign-in that lacks a factor leads here and goes on from here; without one, the
// account page does, and whoever has not proved enough of late is led through that first.
//
// What a page shows can be had as JSON, and its forms can be posted as such: see docs/enrolment.md.

// enrolTemplates are the files of folder enrol.
var enrolTemplates = []string{"choice", "phone", "code", "start", "setup", "codes", "last", "over"}

// phonePage is where telephone numbers are set up.
const phonePage = "phone"

// enrolPage is where one kind of factor is set up.
type enrolPage struct {
	*Handler
	name   string // in addresses, /enrol/NAME, and of the group of texts, enrolNAME
	factor factors.Factor
}

// enrolPages lists them, the strongest first.
func (h *Handler) enrolPages() (pages []enrolPage) {
	for _, f := range h.SignIns.Ledger.Factors() {
		switch f.(type) {
		case factors.Numbered:
			pages = append(pages, enrolPage{h, phonePage, f})
		case factors.Provisioner:
			pages = append(pages, enrolPage{h, factors.PageOf(f).Name, f})
		}
	}
	rank := func(p enrolPage) int {
		switch {
		case !factors.Serves(p.factor, factors.StepUp):
			return 2
		case p.factor.Restricted():
			return 1
		}
		return 0
	}
	slices.SortFunc(pages, func(a, b enrolPage) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a.name, b.name)) })
	return pages
}

// enrols reports whether something is set up on a page of that name.
func (h *Handler) enrols(name string) bool {
	return slices.ContainsFunc(h.enrolPages(), func(p enrolPage) bool { return p.name == name })
}

// enrolRoutes are the pages under /enrol.
func (h *Handler) enrolRoutes() map[string]func(http.ResponseWriter, *http.Request) error {
	routes := map[string]func(http.ResponseWriter, *http.Request) error{
		"GET /enrol": h.getEnrol, "POST /enrol/continue": h.postContinue,
	}
	for _, p := range h.enrolPages() {
		path := "/enrol/" + p.name
		if _, number := p.factor.(factors.Numbered); number {
			maps.Copy(routes, map[string]func(http.ResponseWriter, *http.Request) error{
				"GET " + path: p.getPhone, "POST " + path: p.postPhone,
				"GET " + path + "/code": p.getProof, "POST " + path + "/code": p.postProof, "POST " + path + "/code/resend": p.postProofResend,
			})
			continue
		}
		maps.Copy(routes, map[string]func(http.ResponseWriter, *http.Request) error{
			"GET " + path: p.getSetup, "POST " + path: p.postSetup, "POST " + path + "/confirm": p.postConfirm,
			"GET " + path + "/codes": p.getCodes, "GET " + path + "/codes/download": p.getDownload, "POST " + path + "/codes/saved": p.postSaved,
		})
	}
	return routes
}

// enrolling is one request for a page of enrolment.
type enrolling struct {
	visit
	p       *authn.Progress // the sign-in that wants it; nil: the account does
	session authn.Session
	now     time.Time
	fresh   bool
	repair  bool // the session is there to repair the account
}

// signIn is the id of the sign-in that wants it, or uuid.Nil.
func (e *enrolling) signIn() uuid.UUID {
	if e.p == nil {
		return uuid.Nil
	}
	return e.p.SignIn.ID
}

// locales is what the application that waits asked for.
func (e *enrolling) locales() string {
	if e.p == nil {
		return ""
	}
	return e.p.SignIn.Locales
}

// address of a page, with what it needs of the request's own address.
func (e *enrolling) address(path string, more url.Values) string {
	query := url.Values{}
	if e.p != nil {
		query.Set("flow", e.p.SignIn.ID.String())
	}
	for name := range more {
		query.Set(name, more.Get(name))
	}
	if len(query) == 0 {
		return path
	}
	return path + "?" + query.Encode()
}

// enter reads who sets something up, and for which sign-in. step names the form that was posted; "": none was. It gives nil where it led elsewhere.
func (h *Handler) enter(w http.ResponseWriter, r *http.Request, step string) (*enrolling, error) {
	e := &enrolling{visit: visit{cookie: h.Cookie(r)}}
	if step != "" {
		var err error
		if e.form, err = h.readForm(w, r); err != nil {
			return nil, err
		}
	}
	if r.URL.Query().Has("flow") {
		v, err := h.open(r)
		if err != nil {
			return nil, err
		}
		if e.p, err = h.SignIns.Load(r.Context(), v.cookie, v.flow); err != nil {
			return nil, err
		}
		e.session, e.now, e.fresh = e.p.SignIn.Session, e.p.SignIn.Now, true // or else something else is due
	} else {
		holdings, err := h.SignIns.Holdings(r.Context(), e.cookie)
		if errors.Is(err, authn.ErrNotFresh) {
			return nil, h.confirm(w, r)
		}
		if err != nil {
			return nil, err
		}
		e.session, e.now, e.repair = holdings.Session, holdings.Now, holdings.Repair
		e.fresh = holdings.Fresh || holdings.Repair
	}
	if step != "" && !h.proven(e.form, e.session.ID, e.signIn(), step) {
		return nil, errProof
	}
	return e, nil
}

// setting is enter for what changes something, or leads to it: where the session is not fresh, or another step of the sign-in is due, it leads there.
func (h *Handler) setting(w http.ResponseWriter, r *http.Request, step string) (*enrolling, error) {
	e, err := h.enter(w, r, step)
	switch {
	case e == nil || err != nil:
		return nil, err
	case e.p != nil && e.p.Decision.Step != authn.StepEnrol: // EN-7: whoever has a factor is asked for it
		return nil, h.Next(w, r, e.p, e.cookie)
	case !e.fresh:
		return nil, h.confirm(w, r)
	}
	return e, nil
}

// confirm leads through the proofs that a change wants, and back to the page that was asked for.
func (h *Handler) confirm(w http.ResponseWriter, r *http.Request) error {
	form := url.Values{}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		form = nil
	}
	return h.toAccount(w, r, h.SignIns.Changing(), h.wanted(r, form))
}

// notFresh is what becomes of a change that came too late.
func (h *Handler) notFresh(w http.ResponseWriter, r *http.Request, e *enrolling) error {
	if e.repair {
		redirect(w, recoverRepair)
		return nil
	}
	if e.p == nil {
		return h.confirm(w, r)
	}
	p, err := h.SignIns.Load(r.Context(), e.cookie, e.p.SignIn.ID)
	if err != nil {
		return err
	}
	if p.Decision.Step == authn.StepEnrol { // and never would be
		return authn.ErrSignInOver
	}
	return h.Next(w, r, p, e.cookie)
}

// enrolled goes on after something was bound. The account says that it was done.
func (h *Handler) enrolled(w http.ResponseWriter, r *http.Request, e *enrolling, cookie authn.Cookie, done string) error {
	h.SetCookie(w, cookie)
	h.keep(w, nil)
	if e.repair { // which is done
		redirect(w, recoverDone)
		return nil
	}
	if e.p == nil {
		h.say(w, done)
		redirect(w, accountPath)
		return nil
	}
	p, err := h.SignIns.Load(r.Context(), cookie, e.p.SignIn.ID)
	if err != nil {
		return err
	}
	return h.Next(w, r, p, cookie)
}

// enrolFrame begins the frame of a page of enrolment.
func (h *Handler) enrolFrame(r *http.Request, e *enrolling, step string) *frame {
	if e.p != nil {
		f := h.page(r, e.p.SignIn, step)
		f.Keep = kept(r)
		return f
	}
	f := h.bare(r, "")
	f.Client, f.HomeURI = string(f.T("enrol.account")), accountPath
	if e.repair {
		f.Client, f.HomeURI = string(f.T("enrol.repair")), recoverRepair
	}
	f.Proof, f.Keep = h.proof(e.session.ID, uuid.Nil, step), kept(r)
	return f
}

// kept is what of the address a link to the same page in another language needs besides.
func kept(r *http.Request) template.URL {
	query := url.Values{}
	for _, name := range []string{"enrolment", "replace"} {
		if id, err := uuid.Parse(r.URL.Query().Get(name)); err == nil {
			query.Set(name, id.String())
		}
	}
	return template.URL(query.Encode()) //nolint:gosec // encoded here
}

// fits reports whether what a page sets up would do for the sign-in that wants it.
func (e *enrolling) fits(p enrolPage) bool {
	if e.repair {
		return factors.Serves(p.factor, factors.StepUp)
	}
	if e.p == nil {
		return factors.Serves(p.factor, factors.StepUp) || p.hasOther(e.session.Bound)
	}
	ruling := &e.p.Decision.Ruling
	strength := authn.Unrestricted
	if p.factor.Restricted() {
		strength = authn.Restricted
	}
	return factors.Serves(p.factor, factors.StepUp) && strength >= e.p.Decision.Strength && ruling.Takes(p.factor.Kind())
}

// hasOther reports whether something is bound that adds to a session: without it nobody keeps what does not.
func (h *Handler) hasOther(bound []factors.Authenticator) bool {
	return slices.ContainsFunc(bound, func(a factors.Authenticator) bool {
		factor, ok := h.SignIns.Ledger.Factor(a.Kind)
		return ok && factors.Serves(factor, factors.StepUp)
	})
}

// choiceOf is one thing that can be set up.
type choiceOf struct {
	Page  string        `json:"page"`
	Kind  string        `json:"kind"`
	Label template.HTML `json:"-"`
	About template.HTML `json:"-"`
	Link  string        `json:"next"`
	Down  bool          `json:"unavailable"` // it is out of order for everybody, at the moment
}

// choices lists what can be set up, but for the page that is being looked at.
func (h *Handler) choices(e *enrolling, say *tongue, but string) (list []choiceOf) {
	for _, p := range h.enrolPages() {
		if p.name == but || !e.fits(p) {
			continue
		}
		list = append(list, choiceOf{Page: p.name, Kind: p.factor.Kind(), Link: e.address("/enrol/"+p.name, nil), Down: factors.Down(p.factor),
			Label: say.enrol(p.name, "choice", nil), About: say.enrol(p.name, "about", values{"Service": h.Service})})
	}
	return list
}

// enrol renders a text of the group of an enrolment page, or the one of group "enrolnew" when that has none.
func (t *tongue) enrol(page, name string, fill values) template.HTML {
	group := "enrol" + page
	if !t.has(group + "." + name) {
		group = "enrolnew"
	}
	return t.say(group+"."+name, fill)
}

// getEnrol asks what to set up, where there is a choice.
func (h *Handler) getEnrol(w http.ResponseWriter, r *http.Request) error {
	e, err := h.setting(w, r, "")
	if e == nil {
		return err
	}
	f := h.enrolFrame(r, e, "enrol")
	list := h.choices(e, f.say, "")
	if len(list) == 1 && !inJSON(r) {
		redirect(w, list[0].Link)
		return nil
	}
	f.Title = f.T("enrol.title")
	f.Body = choiceBody{Why: f.why(e), Choices: list}
	return h.render(w, r, http.StatusOK, "enrol_choice", f)
}

type choiceBody struct {
	Why     template.HTML
	Choices []choiceOf
}

func (b choiceBody) facts() any { return map[string]any{"choices": b.Choices} }

// why says why something is to be set up, to somebody who wanted to sign in.
func (f *frame) why(e *enrolling) template.HTML {
	if e.p == nil {
		return ""
	}
	return f.TC("enrol.why")
}

// postContinue goes on with a sign-in that is as good as done.
func (h *Handler) postContinue(w http.ResponseWriter, r *http.Request) error {
	e, err := h.enter(w, r, "enrol continue")
	if e == nil {
		return err
	}
	if e.p == nil {
		return authn.ErrSignInOver
	}
	return h.Next(w, r, e.p, e.cookie)
}

// ---------------------------------------------------------------- P6, a phone

type phoneBody struct {
	Action    string
	Why       template.HTML
	Intro     template.HTML
	Replaces  template.HTML
	Number    string
	Countries []country
	Others    []choiceOf
}

func (b phoneBody) facts() any {
	return map[string]any{"countries": b.Countries, "number": b.Number, "others": b.Others, "action": b.Action}
}

// replaced gives the authenticator that the request's address names to take the place of. ok is false if it names none of the person's own.
func (p enrolPage) replaced(r *http.Request, e *enrolling) (a factors.Authenticator, ok bool) {
	if !r.URL.Query().Has("replace") {
		return a, true
	}
	for _, a := range e.session.Bound {
		if a.ID.String() == r.URL.Query().Get("replace") && a.Kind == p.factor.Kind() {
			return a, true
		}
	}
	return a, false
}

func (p enrolPage) getPhone(w http.ResponseWriter, r *http.Request) error {
	e, old, err := p.due(w, r, "")
	if e == nil {
		return err
	}
	number, region := "", p.home(r)
	if r.URL.Query().Has("enrolment") { // Change number
		if k := p.keepsake(r, e); k != nil {
			number, region = k.Number, k.Country
		}
	}
	return p.phone(w, r, e, old, http.StatusOK, number, region, "")
}

// due is setting for a page that something fitting is set up on.
func (p enrolPage) due(w http.ResponseWriter, r *http.Request, step string) (*enrolling, factors.Authenticator, error) {
	e, err := p.setting(w, r, step)
	if e == nil {
		return nil, factors.Authenticator{}, err
	}
	if !e.fits(p) {
		redirect(w, e.address("/enrol", nil))
		return nil, factors.Authenticator{}, nil
	}
	old, ok := p.replaced(r, e)
	if !ok {
		p.Problem(w, r, http.StatusNotFound, "not_found", "")
		return nil, factors.Authenticator{}, nil
	}
	return e, old, nil
}

// phone renders P6, with what is wrong about the number.
func (p enrolPage) phone(w http.ResponseWriter, r *http.Request, e *enrolling, old factors.Authenticator, status int, number, region, wrong string, lands ...string) error {
	f := p.enrolFrame(r, e, "enrol phone")
	f.Title = f.T("phone.title")
	body := phoneBody{Why: f.why(e), Intro: f.TC("phone.intro"), Number: number, Countries: f.say.list(region), Others: p.choices(e, f.say, p.name)}
	more := url.Values{}
	if old.ID != uuid.Nil {
		f.Title = f.T("phone.change_title")
		body.Replaces = f.say.say("phone.change", values{"Hint": hinted(old.Hint)})
		more.Set("replace", old.ID.String())
	}
	body.Action = e.address("/enrol/"+p.name, more)
	if wrong == "" && factors.Down(p.factor) {
		f.Notice = f.T("phone.down")
	}
	if wrong != "" {
		f.code = wrong
		fill := values{"Example": cmp.Or(sms.Example(region), "+12025550123")}
		for _, land := range lands {
			fill["Country"] = regionName(f.say.tag, land)
		}
		f.Errors = []fault{{"number", f.say.say(wrong, fill)}}
	}
	f.Body = body
	return p.render(w, r, status, "enrol_phone", f)
}

// hinted is what may be shown of an authenticator.
func hinted(hint string) template.HTML {
	return template.HTML("<strong><bdi>" + template.HTMLEscapeString(hint) + "</bdi></strong>") //nolint:gosec // escaped
}

func (p enrolPage) postPhone(w http.ResponseWriter, r *http.Request) error {
	e, old, err := p.due(w, r, "enrol phone")
	if e == nil {
		return err
	}
	typed, region := e.form.Get("number"), e.form.Get("country")
	if !p.served[region] {
		region = p.home(r)
	}
	refuse := func(id string) error {
		return p.phone(w, r, e, old, http.StatusUnprocessableEntity, typed, region, id)
	}
	number, err := sms.ParseNumber(strings.TrimSpace(typed), region)
	switch {
	case strings.TrimSpace(typed) == "":
		return refuse("phone.empty")
	case errors.Is(err, sms.ErrNumberLandline):
		return refuse("phone.landline")
	case errors.Is(err, sms.ErrNumberUnsupported):
		return refuse("phone.unsupported")
	case err != nil:
		return refuse("phone.format")
	case !p.served[number.Country()]:
		return p.phone(w, r, e, old, http.StatusUnprocessableEntity, typed, region, "phone.country", number.Country())
	case factors.Down(p.factor):
		return p.phone(w, r, e, old, http.StatusServiceUnavailable, typed, region, "phone.outage")
	}
	a, unique := p.factor.(factors.Numbered).Number(e.session.Subscriber, number)
	a.Replaces, a.Name = old.ID, old.Name
	made, err := p.SignIns.EnrolThisFor(r.Context(), e.cookie, e.signIn(), authn.Binding{Authenticator: a, Unique: unique}, p.texts.pick(r, e.locales()).tag.String())
	switch {
	case errors.Is(err, authn.ErrNotFresh):
		return p.notFresh(w, r, e)
	case errors.Is(err, authn.ErrBoundAlready):
		return refuse("phone.already")
	case errors.Is(err, authn.ErrTooMany):
		return refuse("phone.full")
	case errors.Is(err, authn.ErrShared):
		return refuse("phone.shared")
	case errors.Is(err, authn.ErrNoAuthenticator):
		p.Problem(w, r, http.StatusNotFound, "not_found", "")
		return nil
	case err != nil:
		return err
	}
	if err := p.keepFor(w, e, keepsake{Number: typed, Country: region}); err != nil {
		return err
	}
	redirect(w, p.proofAddress(e, made))
	return nil
}

// ---------------------------------------------------------------- P7, its code

type proofBody struct {
	Action, Resend, Change string
	codeBody
}

func (b proofBody) facts() any {
	return map[string]any{"action": b.Action, "resend": b.Resend, "change": b.Change, "live": b.Live, "can_send": b.CanSend, "expires_at": b.ExpiresAt}
}

func (p enrolPage) proofAddress(e *enrolling, made *authn.Enrolment) string {
	return e.address("/enrol/"+p.name+"/code", named(made))
}

func named(made *authn.Enrolment) url.Values {
	return url.Values{"enrolment": {made.Challenge.ID.String()}}
}

// pending reads the enrolment that a request's address names. Where there is none any more, or it is not of this page, it says so and gives nil.
func (p enrolPage) pending(w http.ResponseWriter, r *http.Request, e *enrolling) (*authn.Enrolment, error) {
	id, err := uuid.Parse(r.URL.Query().Get("enrolment"))
	if err != nil {
		return nil, p.over(w, r, e)
	}
	made, err := p.SignIns.Enrolment(r.Context(), e.cookie, id)
	switch {
	case errors.Is(err, factors.ErrOver), err == nil && made.Authenticator.Kind != p.factor.Kind():
		return nil, p.over(w, r, e)
	case errors.Is(err, authn.ErrNotFresh):
		return nil, p.notFresh(w, r, e)
	}
	return made, err
}

// over says that an enrolment waits no more: too late, done, or somebody else's.
func (p enrolPage) over(w http.ResponseWriter, r *http.Request, e *enrolling) error {
	f := p.enrolFrame(r, e, "enrol over")
	f.Title, f.code = f.T("enrol.over"), "enrol.over"
	f.Body = overBody{Link: e.address("/enrol/"+p.name, nil)}
	return p.render(w, r, http.StatusGone, "enrol_over", f)
}

type overBody struct{ Link string }

func (b overBody) facts() any { return map[string]any{"next": b.Link} }

// proving is enter for the pages on which something that was proposed is proved. That needs a session as fresh as the proposal did, but for the time that it waits.
func (p enrolPage) proving(w http.ResponseWriter, r *http.Request, step string) (*enrolling, *authn.Enrolment, error) {
	e, err := p.enter(w, r, step)
	if e == nil {
		return nil, nil, err
	}
	if e.p != nil && e.p.Decision.Step != authn.StepEnrol {
		return nil, nil, p.Next(w, r, e.p, e.cookie)
	}
	made, err := p.pending(w, r, e)
	if made == nil {
		return nil, nil, err
	}
	return e, made, nil
}

func (p enrolPage) getProof(w http.ResponseWriter, r *http.Request) error {
	e, made, err := p.proving(w, r, "")
	if made == nil {
		return err
	}
	return p.proof(w, r, e, made, http.StatusOK, nil, "")
}

// proof renders P7 as the challenge stands.
func (p enrolPage) proof(w http.ResponseWriter, r *http.Request, e *enrolling, made *authn.Enrolment, status int, wrong *fault, code string) error {
	f := p.enrolFrame(r, e, "enrol code")
	f.Title, f.code = f.T("phone.confirm"), code
	c, now := made.Challenge, made.Now
	more := named(made)
	change := maps.Clone(more)
	if made.Authenticator.Replaces != uuid.Nil {
		change.Set("replace", made.Authenticator.Replaces.String())
	}
	path := "/enrol/" + p.name
	body := proofBody{Action: e.address(path+"/code", more), Resend: e.address(path+"/code/resend", more), Change: e.address(path, change)}
	body.Live = c.Live(now) && c.BlockedUntil == nil && c.Sends > 0
	body.ExpiresAt = c.ExpiresAt.UTC().Format(time.RFC3339)
	body.Sent = f.say.say("code.sent", values{"Hint": hinted(made.Authenticator.Hint), "Count": max(1, int(c.ExpiresAt.Sub(now).Round(time.Minute).Minutes()))})
	problem, notice := p.codeState(f.say, &authn.SignIn{Challenge: c, Now: now})
	switch {
	case wrong != nil && body.Live:
		f.Errors = []fault{*wrong}
	case problem != "" && body.Live: // nothing is wrong with what was typed
		f.Errors = []fault{{"send", problem}}
	case problem != "":
		f.Errors = []fault{{"code", problem}}
		if c.BlockedUntil != nil {
			f.retryAfter = retry(now, *c.BlockedUntil)
		}
	}
	f.Notice = notice
	body.CanSend = c.BlockedUntil == nil
	if c.Live(now) && c.NextSendAt != nil && c.NextSendAt.After(now) && c.Sends > 0 {
		body.Wait = f.say.say("send.wait", values{"Count": int(c.NextSendAt.Sub(now).Seconds()) + 1})
	}
	f.Body = body
	return p.render(w, r, status, "enrol_code", f)
}

func (p enrolPage) postProof(w http.ResponseWriter, r *http.Request) error {
	e, made, err := p.proving(w, r, "enrol code")
	if made == nil {
		return err
	}
	return p.prove(w, r, e, made, func(made *authn.Enrolment, status int, wrong *fault, code string) error {
		return p.proof(w, r, e, made, status, wrong, code)
	})
}

// prove tries what was typed. again shows the page with what is wrong.
func (p enrolPage) prove(w http.ResponseWriter, r *http.Request, e *enrolling, made *authn.Enrolment, again func(*authn.Enrolment, int, *fault, string) error) error {
	cookie, err := p.SignIns.Prove(r.Context(), e.cookie, made.Challenge.ID, e.signIn(), e.form.Get("code"))
	if err == nil {
		done := "added"
		if made.Authenticator.Replaces != uuid.Nil {
			done = "replaced"
		}
		return p.enrolled(w, r, e, cookie, done)
	}
	say, group := p.texts.pick(r, e.locales()), factors.PageOf(p.factor).Name
	for typed, name := range map[error]string{factors.ErrCodeEmpty: "empty", factors.ErrCodeShort: "short", factors.ErrCodeLong: "long", factors.ErrCodeChars: "chars"} {
		if errors.Is(err, typed) {
			return again(made, http.StatusUnprocessableEntity, &fault{"code", say.of(group, name, nil)}, "code."+name)
		}
	}
	blocked, isBlocked := errors.AsType[*factors.BlockedError](err)
	switch {
	case errors.Is(err, authn.ErrNotFresh):
		return p.notFresh(w, r, e)
	case errors.Is(err, authn.ErrBoundAlready), errors.Is(err, authn.ErrTooMany), errors.Is(err, authn.ErrShared):
		return p.over(w, r, e) // something else was bound meanwhile
	case !isBlocked && !errors.Is(err, factors.ErrMismatch) && !errors.Is(err, factors.ErrOver):
		return err
	}
	// The page tells how things stand now, hence they are read again.
	if made, err = p.pending(w, r, e); made == nil {
		return err
	}
	if isBlocked {
		w.Header().Set("Retry-After", retry(made.Now, blocked.Until))
		return again(made, http.StatusTooManyRequests, &fault{"code", say.say("login.rate", values{"Time": say.clock(blocked.Until)})}, "rate_limited")
	}
	wrong := fault{"code", say.of(group, "wrong", nil)}
	if left := made.Challenge.AttemptsLeft(); left <= 3 {
		wrong.Text = say.of(group, "wrong_left", values{"Count": left})
	}
	return again(made, http.StatusUnprocessableEntity, &wrong, "code.wrong")
}

// postProofResend sends the code again; where the challenge is over, to the same number as another one.
func (p enrolPage) postProofResend(w http.ResponseWriter, r *http.Request) error {
	e, made, err := p.proving(w, r, "enrol code")
	if made == nil {
		return err
	}
	say := p.texts.pick(r, e.locales())
	if !made.Challenge.Live(made.Now) {
		return p.anew(w, r, e, made, say)
	}
	err = p.SignIns.ResendProof(r.Context(), e.cookie, made.Challenge.ID, say.tag.String())
	wait, isWait := errors.AsType[*factors.WaitError](err)
	switch {
	case err == nil, errors.Is(err, factors.ErrOver):
		redirect(w, p.proofAddress(e, made))
		return nil
	case isWait && wait.UsedUp:
		return p.proof(w, r, e, made, http.StatusTooManyRequests, &fault{"code", say.say("send.used_up", nil)}, "send.used_up")
	case isWait:
		w.Header().Set("Retry-After", retry(made.Now, wait.Until))
		text := say.say("send.wait", values{"Count": int(wait.Until.Sub(made.Now).Seconds()) + 1})
		if wait.Limited {
			text = say.say("send.limit", values{"Time": say.clock(wait.Until)})
		}
		return p.proof(w, r, e, made, http.StatusTooManyRequests, &fault{"code", text}, "send.wait")
	}
	return err
}

func (p enrolPage) anew(w http.ResponseWriter, r *http.Request, e *enrolling, made *authn.Enrolment, say *tongue) error {
	numbered := p.factor.(factors.Numbered)
	number, err := numbered.Reach(made.Authenticator)
	if err != nil {
		return err
	}
	a, unique := numbered.Number(e.session.Subscriber, number)
	a.Replaces, a.Name = made.Authenticator.Replaces, made.Authenticator.Name
	made, err = p.SignIns.EnrolThisFor(r.Context(), e.cookie, e.signIn(), authn.Binding{Authenticator: a, Unique: unique}, say.tag.String())
	switch {
	case errors.Is(err, authn.ErrNotFresh):
		return p.notFresh(w, r, e)
	case errors.Is(err, authn.ErrBoundAlready), errors.Is(err, authn.ErrTooMany), errors.Is(err, authn.ErrShared), errors.Is(err, authn.ErrNoAuthenticator):
		return p.over(w, r, e) // something else was bound meanwhile
	case err != nil:
		return err
	}
	redirect(w, p.proofAddress(e, made))
	return nil
}

// ---------------------------------------------------------------- P8 and P9, what begins here

type startBody struct {
	Action string
	Why    template.HTML
	Intro  template.HTML
	Before template.HTML // what becomes of what there is
	Name   template.HTML // label of what it is called; "": it needs no name
	Hint   template.HTML
	Value  string
	Start  template.HTML
	Others []choiceOf
}

func (b startBody) facts() any {
	return map[string]any{"action": b.Action, "named": b.Name != "", "replaces": b.Before != "", "others": b.Others}
}

type setupBody struct {
	Action, Restart string
	Picture         template.URL
	Secret          string
	Groups          string // the secret, for people
	URI             template.URL
	Name            string
	Closed          bool
	Scan, Alt, Type template.HTML
	Open            template.HTML
	Called          template.HTML
	Label, Hint     template.HTML
	Digits          bool
}

func (b setupBody) facts() any {
	return map[string]any{"action": b.Action, "restart": b.Restart, "closed": b.Closed, "secret": b.Secret, "uri": b.URI, "picture": b.Picture, "name": b.Name}
}

// getSetup shows what is to be done, or, once that has begun, the secret: for as long as it waits for its proof.
func (p enrolPage) getSetup(w http.ResponseWriter, r *http.Request) error {
	if r.URL.Query().Has("enrolment") {
		e, made, err := p.proving(w, r, "")
		if made == nil {
			return err
		}
		return p.setup(w, r, e, made, http.StatusOK, nil, "")
	}
	if r.URL.Query().Has("flow") {
		e, err := p.enter(w, r, "")
		if e == nil {
			return err
		}
		if proved(e.p) && p.spent(e) {
			return p.last(w, r, e)
		}
	}
	e, _, err := p.due(w, r, "")
	if e == nil {
		return err
	}
	return p.start(w, r, e, http.StatusOK, "", nil)
}

// proved reports whether a sign-in lacks no proof any more.
func proved(p *authn.Progress) bool {
	return p.Decision.Step == authn.StepDone || p.Decision.Step == authn.StepConsent
}

// spent reports whether the last of what is set up here was used.
func (p enrolPage) spent(e *enrolling) bool {
	return slices.ContainsFunc(e.session.Bound, func(a factors.Authenticator) bool {
		return a.Kind == p.factor.Kind() && a.Left != nil && *a.Left == 0
	})
}

func (p enrolPage) start(w http.ResponseWriter, r *http.Request, e *enrolling, status int, name string, wrong *fault) error {
	f := p.enrolFrame(r, e, "enrol "+p.name)
	say := func(text string) template.HTML { return f.say.enrol(p.name, text, values{"Service": p.Service}) }
	f.Title = say("title")
	body := startBody{Action: e.address("/enrol/"+p.name, nil), Why: f.why(e), Intro: say("intro"), Start: say("start"), Value: name, Others: p.choices(e, f.say, p.name)}
	if p.runsOut() {
		for _, a := range e.session.Bound {
			if a.Kind == p.factor.Kind() {
				f.Title, body.Before, body.Start = say("again_title"), f.say.enrol(p.name, "before", values{"Count": left(a)}), say("again")
			}
		}
	} else {
		body.Name, body.Hint = say("name"), say("name_hint")
	}
	if wrong != nil {
		f.Errors = []fault{*wrong}
	}
	f.Body = body
	return p.render(w, r, status, "enrol_start", f)
}

func left(a factors.Authenticator) int {
	if a.Left == nil {
		return 0
	}
	return *a.Left
}

// runsOut reports whether what is set up is a set of answers that are good once each: they add nothing to a session.
func (p enrolPage) runsOut() bool { return !factors.Serves(p.factor, factors.StepUp) }

// addable is what can be set up from the account.
type addable struct {
	Kind  string        `json:"kind"`
	Link  string        `json:"next"`
	Label template.HTML `json:"-"`
}

func (p enrolPage) addable(say *tongue) addable {
	return addable{Kind: p.factor.Kind(), Link: "/enrol/" + p.name, Label: say.enrol(p.name, "add", nil)}
}

// replace is where a is changed for another, and renew where a set of answers is made anew; "": it is not.
func (p enrolPage) replace(a factors.Authenticator) string {
	if _, number := p.factor.(factors.Numbered); !number {
		return ""
	}
	return "/enrol/" + p.name + "?" + url.Values{"replace": {a.ID.String()}}.Encode()
}

func (p enrolPage) renew() string {
	if !p.runsOut() {
		return ""
	}
	return "/enrol/" + p.name
}

func (p enrolPage) postSetup(w http.ResponseWriter, r *http.Request) error {
	e, _, err := p.due(w, r, "enrol "+p.name)
	if e == nil {
		return err
	}
	name := e.form.Get("name")
	made, err := p.SignIns.EnrolFor(r.Context(), e.cookie, e.signIn(), p.factor.Kind(), name)
	say := p.texts.pick(r, e.locales())
	switch {
	case errors.Is(err, authn.ErrNotFresh):
		return p.notFresh(w, r, e)
	case errors.Is(err, factors.ErrName):
		return p.start(w, r, e, http.StatusUnprocessableEntity, name, &fault{"name", say.say("enrol.name", values{"Count": factors.MaxName})})
	case errors.Is(err, authn.ErrNotFirst): // what there was has gone meanwhile
		redirect(w, e.address("/enrol", nil))
		return nil
	case errors.Is(err, authn.ErrTooMany):
		return p.start(w, r, e, http.StatusUnprocessableEntity, name, &fault{"start", say.say("enrol.full", nil)})
	case err != nil:
		return err
	case made.Challenge != nil:
		redirect(w, e.address("/enrol/"+p.name, named(made)))
		return nil
	case inJSON(r):
		return writeJSON(w, http.StatusOK, map[string]any{"page": "enrol_codes", "data": map[string]any{"codes": made.Setup.Codes}})
	}
	if err := p.keepFor(w, e, keepsake{Codes: made.Setup.Codes, Set: base64.RawURLEncoding.EncodeToString(made.Authenticator.Data)}); err != nil {
		return err
	}
	redirect(w, e.address("/enrol/"+p.name+"/codes", nil))
	return nil
}

// setup renders the secret of what waits for its proof.
func (p enrolPage) setup(w http.ResponseWriter, r *http.Request, e *enrolling, made *authn.Enrolment, status int, wrong *fault, code string) error {
	f := p.enrolFrame(r, e, "enrol confirm "+p.name)
	say := func(text string) template.HTML { return f.say.enrol(p.name, text, values{"Service": p.Service}) }
	page := factors.PageOf(p.factor)
	f.Title, f.code = say("title"), code
	c := made.Challenge
	body := setupBody{Action: e.address("/enrol/"+p.name+"/confirm", named(made)), Restart: e.address("/enrol/"+p.name, nil), Name: made.Authenticator.Name,
		Label: f.say.of(page.Name, "label", nil), Hint: f.say.of(page.Name, "hint", nil), Digits: page.Digits}
	problem, restart := answerPage{p.Handler, page.Name}.state(f.say, &authn.SignIn{Challenge: c, Now: made.Now})
	if body.Closed = problem != ""; body.Closed {
		f.Errors = []fault{{"code", problem}}
		if restart {
			f.Errors = []fault{{"code", f.T("enrol.dead")}}
		}
		body.Label = ""
	} else {
		picture, err := made.Setup.QR(qrPixels)
		if err != nil {
			return err
		}
		body.Picture = template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(picture))               //nolint:gosec // made here
		body.Secret, body.Groups, body.URI = made.Setup.Secret, grouped(made.Setup.Secret), template.URL(made.Setup.URI) //nolint:gosec // made by the factor
		body.Scan, body.Alt, body.Type, body.Open = say("scan"), say("alt"), say("type"), say("open")
		if body.Name != "" {
			body.Called = f.say.enrol(p.name, "called", values{"Name": body.Name})
		}
		if wrong != nil {
			f.Errors = []fault{*wrong}
			if c.Attempts > 1 && f.say.has(page.Name+".clock") {
				f.Notice = f.say.of(page.Name, "clock", nil)
			}
		}
	}
	f.Body = body
	return p.render(w, r, status, "enrol_setup", f)
}

// qrPixels is how wide the picture is at least.
const qrPixels = 240

// grouped is a secret in groups of four, as it is easier to type.
func grouped(secret string) string {
	var groups []string
	for part := range slices.Chunk([]byte(secret), 4) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, " ")
}

func (p enrolPage) postConfirm(w http.ResponseWriter, r *http.Request) error {
	e, made, err := p.proving(w, r, "enrol confirm "+p.name)
	if made == nil {
		return err
	}
	return p.prove(w, r, e, made, func(made *authn.Enrolment, status int, wrong *fault, code string) error {
		return p.setup(w, r, e, made, status, wrong, code)
	})
}

type codesBody struct {
	Codes           []string
	Download, Saved string
}

func (b codesBody) facts() any { return map[string]any{"codes": b.Codes} }

// shown gives the codes that were made a moment ago, if they are the ones that work. Otherwise it leads to where new ones are made and gives nil.
func (p enrolPage) shown(w http.ResponseWriter, r *http.Request) (*enrolling, *keepsake, error) {
	e, err := p.enter(w, r, "")
	if e == nil {
		return nil, nil, err
	}
	if k := p.keepsake(r, e); k != nil && len(k.Codes) > 0 {
		for _, a := range e.session.Bound {
			if a.Kind == p.factor.Kind() && base64.RawURLEncoding.EncodeToString(a.Data) == k.Set {
				return e, k, nil
			}
		}
	}
	redirect(w, e.address("/enrol/"+p.name, nil))
	return nil, nil, nil
}

// getCodes shows codes once: until somebody says that they are saved, for ten minutes at most.
func (p enrolPage) getCodes(w http.ResponseWriter, r *http.Request) error {
	e, k, err := p.shown(w, r)
	if k == nil {
		return err
	}
	f := p.enrolFrame(r, e, "enrol saved "+p.name)
	f.Title = f.say.enrol(p.name, "codes", nil)
	path := "/enrol/" + p.name + "/codes"
	f.Body = codesBody{Codes: k.Codes, Download: e.address(path+"/download", nil), Saved: e.address(path+"/saved", nil)}
	return p.render(w, r, http.StatusOK, "enrol_codes", f)
}

// getDownload gives the codes as a file.
func (p enrolPage) getDownload(w http.ResponseWriter, r *http.Request) error {
	_, k, err := p.shown(w, r)
	if k == nil {
		return err
	}
	say := p.texts.pick(r, "")
	header := w.Header()
	header.Set("Content-Type", "text/plain; charset=utf-8")
	header.Set("Content-Disposition", `attachment; filename="backup-codes.txt"`)
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	_, err = fmt.Fprintf(w, "%s\r\n\r\n%s\r\n", plainText(say.enrol(p.name, "file", values{"Service": p.Service})), strings.Join(k.Codes, "\r\n"))
	return err
}

// postSaved ends the showing.
func (p enrolPage) postSaved(w http.ResponseWriter, r *http.Request) error {
	e, err := p.enter(w, r, "enrol saved "+p.name)
	if e == nil {
		return err
	}
	p.keep(w, nil)
	p.say(w, "codes")
	redirect(w, accountPath)
	return nil
}

// last tells whoever has just used the last of a set, on the way to the application.
func (p enrolPage) last(w http.ResponseWriter, r *http.Request, e *enrolling) error {
	f := p.enrolFrame(r, e, "enrol continue")
	f.Title = f.say.enrol(p.name, "last", nil)
	f.Body = lastBody{Text: f.say.enrol(p.name, "last_body", nil), Make: f.say.enrol(p.name, "again", nil), Link: "/enrol/" + p.name, Continue: e.address("/enrol/continue", nil)}
	return p.render(w, r, http.StatusOK, "enrol_last", f)
}

type lastBody struct {
	Text, Make     template.HTML
	Link, Continue string
}

func (b lastBody) facts() any { return map[string]any{"make": b.Link, "continue": b.Continue} }

// ---------------------------------------------------------------- what a browser keeps for its person

// keepsake is what a page shows again that nobody but the person may see: it is sealed, for one session, and for ten minutes.
type keepsake struct {
	Until   time.Time `json:"until"`
	Number  string    `json:"number,omitempty"` // as it was typed
	Country string    `json:"country,omitempty"`
	Codes   []string  `json:"codes,omitempty"`
	Set     string    `json:"set,omitempty"` // which set the codes are of
}

// keptFor is how long a keepsake is good for.
const keptFor = 10 * time.Minute

// enrolCookie is what its cookie is called, before the prefix.
const enrolCookie = "enrol"

func keepContext(session uuid.UUID) string { return "keepsake of session " + session.String() }

// keepFor hands the browser a keepsake.
func (h *Handler) keepFor(w http.ResponseWriter, e *enrolling, k keepsake) error {
	k.Until = e.now.Add(keptFor)
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	sealed, err := h.Keys.Seal(data, keepContext(e.session.ID))
	if err != nil {
		return err
	}
	h.keep(w, sealed)
	return nil
}

// keep sets the cookie; nil takes it away.
func (h *Handler) keep(w http.ResponseWriter, sealed []byte) {
	c := &http.Cookie{Name: h.cookieName(enrolCookie), Value: base64.RawURLEncoding.EncodeToString(sealed), Path: "/", Secure: h.secure, HttpOnly: true,
		SameSite: http.SameSiteLaxMode, MaxAge: int(keptFor.Seconds())}
	if sealed == nil {
		c.MaxAge = -1
	}
	http.SetCookie(w, c)
}

// keepsake reads what the browser kept; nil: nothing that is good for this session now.
func (h *Handler) keepsake(r *http.Request, e *enrolling) *keepsake {
	c, err := r.Cookie(h.cookieName(enrolCookie))
	if err != nil {
		return nil
	}
	sealed, err := base64.RawURLEncoding.DecodeString(c.Value)
	if err != nil {
		return nil
	}
	data, err := h.Keys.Open(sealed, keepContext(e.session.ID))
	if err != nil {
		return nil
	}
	k := new(keepsake)
	if json.Unmarshal(data, k) != nil || !e.now.Before(k.Until) {
		return nil
	}
	return k
}
